"""Furniture of Sweet Home 3D: catalogues in Java's properties, true sizes, and zips that must not be trusted."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from clipgs_lib.meshes import MeshError, list_furniture, mesh_pieces, read_furniture, read_mesh
from clipgs_lib.meshes import sweethome as module

from .mesh_files import FOUR, png

OBJ = "mtllib a.mtl\nv 0 0 0\nv 2 0 0\nv 2 1 0\nv 0 1 4\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n" + (
    "usemtl skin\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
)
FILES = {
    "shop/bed/a.obj": OBJ,
    "shop/bed/a.mtl": "newmtl skin\nmap_Kd four.png\n",
    "shop/bed/four.png": png(FOUR.repeat(16, axis=0).repeat(16, axis=1)),
}
BED = """# a comment
! another
name = The shop
license=CC-BY\\u00a0 \\u00e9 \\
      4.0

name#7=Double bed, caf\xe9 \\u2603 \\uD83D\\uDE00
model#7=/shop/bed/a.obj
category#7:Bedroom
tags#7   Wood, Sleep
width#7=160
depth#7=200.5
height#7=90
dropOnTopElevation#7=40
elevation#7=5
doorOrWindow#7=false
creator#7=Ann
"""


def catalogue(path: Path, properties: str = BED, files: dict[str, str | bytes] = FILES, **others: str) -> Path:
    """Write a ``.sh3f``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, on names that occur twice
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("PluginFurnitureCatalog.properties", properties.encode("latin-1"))
            for language, text in others.items():
                archive.writestr(f"PluginFurnitureCatalog_{language}.properties", text.encode("latin-1"))
            for name, data in files.items():
                archive.writestr(name, data)
    return path


def test_a_catalogue_is_read_as_java_reads_it(tmp_path):
    (piece,) = list_furniture(catalogue(tmp_path / "a.sh3f"))
    assert (piece.number, piece.name, piece.category) == (7, "Double bed, café ☃ 😀", "Bedroom")
    assert (piece.tags, piece.creator, piece.catalogue) == (("Wood", "Sleep"), "Ann", "The shop")
    assert piece.licence == "CC-BY é 4.0", "a backslash joins lines, no-break spaces are blanks"
    assert (piece.size, piece.elevation, piece.drop_on_top) == ((160, 90, 200.5), 5, 40)
    assert not piece.door_or_window and piece.model == "shop/bed/a.obj"


def test_what_is_not_said(tmp_path):
    text = "model#1=x.obj\nheight#1=30\nmodel#2=x.obj\nheight#2=30\ndropOnTopElevation#2=-1\ndoorOrWindow#2=true\n"
    first, second = list_furniture(catalogue(tmp_path / "a.sh3f", text))
    assert (first.drop_on_top, second.drop_on_top) == (30, None), "on top unless its maker forbids it"
    assert (first.elevation, first.name, second.door_or_window) == (0, "x", True)


def test_a_piece_has_its_true_size_and_its_texture(tmp_path):
    piece, read = read_furniture(catalogue(tmp_path / "a.sh3f"), 7)
    low, high = read.mesh.bounds()
    assert (high - low).tolist() == pytest.approx([160, 90, 200.5], rel=1e-5)
    assert (read.mesh.up_axis, read.notes, piece.number) == ("+y", (), 7)
    assert read.mesh.parts[0].texture.shape == (32, 32, 3)
    assert read.mesh.source == "a.sh3f/shop/bed/a.obj"


def test_a_piece_is_turned(tmp_path):
    """The model lies along x; its catalogue turns x to -z, as for many of the real ones."""
    turned = BED + "modelRotation#7=0 0 1 0 1 0 -1 0 0\n"
    plain, read = (read_furniture(catalogue(tmp_path / "a.sh3f", text), 7)[1] for text in (BED, turned))
    low, high = read.mesh.bounds()
    assert (high - low).tolist() == pytest.approx([160, 90, 200.5], rel=1e-5)
    was, now = plain.mesh.parts[0].vertices, read.mesh.parts[0].vertices
    assert np.corrcoef(was[:, 0], now[:, 2])[0, 1] == pytest.approx(-1)
    assert np.corrcoef(was[:, 2], now[:, 0])[0, 1] == pytest.approx(1)


def test_a_flat_piece_stays_flat(tmp_path):
    files = FILES | {"shop/bed/a.obj": OBJ.replace("v 0 1 4", "v 0 1 0")}
    low, high = read_furniture(catalogue(tmp_path / "a.sh3f", files=files), 7)[1].mesh.bounds()
    assert (high - low).tolist() == pytest.approx([160, 90, 0], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model#7": "/shop/bed/gone.obj"}, "no such file"),
        ({"model#7": "/../../etc/passwd"}, "no such file"),
        ({"width#7": "-3"}, "must be positive"),
        ({"width#7": "nan"}, "must be positive"),
        ({"depth#7": "wide"}, "must be positive"),
        ({"modelRotation#7": "2 0 0 0 2 0 0 0 2"}, "a rotation"),
        ({"modelRotation#7": "1 0 0"}, "a rotation"),
        ({"modelRotation#7": "-1 0 0 0 1 0 0 0 1"}, "a rotation"),
        ({"model#7": "/shop/bed/four.png"}, "a PNG picture"),
    ],
)
def test_bad_pieces_are_refused(tmp_path, change, message):
    text = BED + "".join(f"{key}={value}\n" for key, value in change.items())
    with pytest.raises(MeshError, match=message):
        read_furniture(catalogue(tmp_path / "a.sh3f", text), 7)


def test_bad_zips_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "a.sh3f"
    with pytest.raises(MeshError, match="a path that leaves the zip"):
        read_furniture(catalogue(file, files=FILES | {"shop/bed/../../../x.mtl": "newmtl a\n"}), 7)
    with pytest.raises(MeshError, match=r"must hold 'PluginFurnitureCatalog.properties', once.*2 of that name"):
        list_furniture(catalogue(file, files={"PluginFurnitureCatalog.properties": "model#1=b.obj"}))
    link = zipfile.ZipInfo("shop/bed/b.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(catalogue(file), "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(MeshError, match="a link"):
        read_furniture(file, 7)
    data = catalogue(file).read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(MeshError, match="intact zip"):
        list_furniture(file)
    with pytest.raises(MeshError, match="must name models"):
        list_furniture(catalogue(file, "name=empty\n"))
    with pytest.raises(MeshError, match="must name an existing file"):
        list_furniture(tmp_path / "gone.sh3f")
    with pytest.raises(MeshError, match="must have a piece 8"):
        read_furniture(catalogue(file), 8)
    with pytest.raises(MeshError, match="read_furniture reads its pieces"):
        read_mesh(file)
    monkeypatch.setattr(module, "MAX_PIECE_BYTES", 1 << 20)
    with pytest.raises(MeshError, match=r"at most .* bytes, got more bytes"):
        read_furniture(catalogue(file, files=FILES | {"shop/bed/bomb.png": bytes(4 << 20)}), 7)


def test_a_bad_piece_costs_only_itself(tmp_path):
    both = BED + "name#8=Gone\nmodel#8=/shop/gone.obj\nwidth#8=1\ndepth#8=1\nheight#8=1\n"
    catalogue(tmp_path / "a.sh3f", both)
    (tmp_path / "b.sh3f").write_bytes(b"no zip")
    good, gone, broken = mesh_pieces(tmp_path)
    assert [good.name, gone.name, broken.name] == ["a.sh3f/shop/bed/a.obj", "a.sh3f/shop/gone.obj", "b.sh3f"]
    assert good.read(tmp_path).mesh.n_faces > 0
    for piece, words in ((gone, "no such file"), (broken, "intact zip")):
        with pytest.raises(MeshError, match=words):
            piece.read(tmp_path)


def test_a_missing_catalogue_is_a_mesh_error_for_both_readers(tmp_path):
    for read in (list_furniture, lambda path: read_furniture(path, 7)):
        with pytest.raises(MeshError, match="must name an existing file"):
            read(tmp_path / "gone.sh3f")


@pytest.mark.real_data
def test_the_shipped_catalogues(furniture: Path):
    pieces = {file.stem: list_furniture(file) for file in furniture.glob("*.sh3f")}
    assert sum(map(len, pieces.values())) == 820
    assert all(p.creator and p.licence and p.category and min(p.size) > 0 for some in pieces.values() for p in some)
    assert pieces["Scopia"][2].name == "Bed"
    for name, some in pieces.items():
        for piece in some[:: len(some) // 2]:
            read = read_furniture(furniture / f"{name}.sh3f", piece.number)[1]
            extent = np.ptp(read.mesh.bounds(), axis=0)
            assert extent.tolist() == pytest.approx(piece.size, rel=1e-3)
