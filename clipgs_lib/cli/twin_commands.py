"""``clipgs twin``: the digital twin of a scene, and its scores over composed rooms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .output import bar, must_exist


def twin(
    pool: Annotated[list[Path], typer.Option(metavar="SET", help="Finished set to search; once per set.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the result.")],
    scene: Annotated[
        Path | None,
        typer.Argument(metavar="SCENE", help="Folder with image.png, scene.json and perhaps depth.png; or splats."),
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON of boxes about the objects of a SCENE of splats.")
    ] = None,
    compose: Annotated[int | None, typer.Option(min=1, help="Score so many composed rooms in place of SCENE.")] = None,
    large: Annotated[
        list[Path] | None, typer.Option(metavar="SET", help="Further set for objects that carry no others.")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="Shipped name, folder or bag-mean. --compose compares several.", show_default="duoduo-mini"),
    ] = None,
    mode: Annotated[
        Literal["fused", "text", "image"] | None,
        typer.Option(help="By what shapes are ranked; --compose scores all.", show_default="fused"),
    ] = None,
    name: Annotated[str, typer.Option(help="File of the merged splats; its ending chooses the format.")] = "twin.ply",
    seed: Annotated[int | None, typer.Option(help="Of the first composed room.", show_default="0")] = None,
) -> None:
    """Rebuild a scene out of the shapes of a set: a picture with depth, camera and masks, or splats with boxes.

    DIR gets the merged splats, graph.json (what stands where, and on what) and before_after.png. A file of boxes holds
    {"boxes": ..., "up_axis": "+y", "metres": 1.0, "floor": 0.0}, each box its id, center, size, yaw (degrees) and name
    in the axes and units of the splats; all but boxes, id, center and size may be left out. With --compose N rooms
    are furnished at random, rebuilt and scored: DIR gets scores.json and a picture of each. Rooms are furnished from
    what the set holds of Sweet Home 3D's furniture or the catalogue. The same command goes on with scores that stopped.
    """
    must_exist(scene, boxes, *pool, *(large or ()))
    if (scene is None) == (compose is None):
        raise ValueError("exactly one of SCENE and --compose N is needed; e.g. clipgs twin --compose 5 --pool SET")
    if scene is None and (boxes, mode) != (None, None):
        raise ValueError("--boxes and --mode must come with SCENE, got --compose, which scores all modes")
    if scene is not None and seed is not None:
        raise ValueError("--seed must come with --compose, got SCENE, for which nothing is drawn")
    from ..applications.scene_twin import load_pool, make_twin, read_scene, score_rooms
    from ..formats import writable_format

    if Path(name).name != name:
        raise ValueError(f"--name must be the name of a file in --out, got {name!r}")
    writable_format(out / name)
    encoders = encoder or ["duoduo-mini"]
    if scene is not None and len(encoders) > 1:
        raise ValueError(f"one encoder must search for the objects of SCENE, got {', '.join(encoders)}")
    given, cache = (read_scene(scene, boxes), None) if scene is not None else (None, out)
    out.mkdir(parents=True, exist_ok=True)
    with bar("embedding", 0) as show:
        options: dict[str, Any] = {"large": large or (), "cache": cache, "progress": show}
        pools = {one: load_pool(pool, encoder=one, **options) for one in encoders}
    if given is not None:
        with bar("placing", len(given.objects)) as show:
            made = make_twin(given, pools[encoders[0]], mode or "fused", progress=show)
        print(made.save(out, name=name))
        return
    with bar("rooms", compose or 0) as show:
        scores = score_rooms(compose or 0, pools, out, seed=seed or 0, progress=show)
    for row in scores["rows"]:
        print(*(row.get(key, "") for key in ("encoder", "mode", "metric", "value", "low", "high", "n")), sep=" | ")
    print(f"{scores['rooms']} rooms: {out / 'scores.json'}")
