"""`SplatView` without a browser: traits, packed bytes, thinning, cropping, colours, the still picture."""

from __future__ import annotations

import base64
import colorsys
import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from clipgs_lib.plots.shown import choose
from clipgs_lib.rendering import Cameras, cpu_projection, orbit_cameras, render, turntable_cameras
from clipgs_lib.splats import Splats
from clipgs_lib.widgets import SplatView, splat_view, wire
from clipgs_lib.widgets.colormap import (
    FADE_LOW,
    LUMA,
    NOT_A_NUMBER,
    STEPS,
    color_indices,
    colormap,
    fade_matrix,
    red_colormap,
)
from clipgs_lib.widgets.still import MAX_BYTES


def sent(view: SplatView) -> list[tuple[dict, list]]:
    """Catch what the widget sends from now on."""
    messages: list[tuple[dict, list]] = []
    view.send = lambda content, buffers=None: messages.append((content, buffers or []))
    return messages


def decode(data: bytes, words: dict[str, int]) -> dict[str, np.ndarray]:
    """Read the layout of wire.py back, from its text and not from its code."""
    n = words["count"]
    assert len(data) == 4 * (words["base_words"] + words["sh_words"] + words["index_words"])
    base, rest = data[: 48 * n], data[48 * n :]
    rows = np.frombuffer(base, np.dtype([("f", "<f4", 10), ("rgb", "<f2", 3), ("opacity", "<u2")]))
    sh = np.frombuffer(rest[: 4 * words["sh_words"]], "<f2").reshape(n, -1)
    index = np.frombuffer(rest[4 * words["sh_words"] :], "<u4")
    return {
        "means": rows["f"][:, :3],
        "scales": rows["f"][:, 3:6],
        "quats": rows["f"][:, 6:],
        "colors": rows["rgb"].astype(np.float64),
        "opacities": rows["opacity"] / 65535,
        "sh": sh.astype(np.float64),
        "index": index,
    }


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_packed_bytes_decode_to_the_splats(splats_factory, degree):
    splats = replace(splats_factory(37, degree), quats=3 * splats_factory(37, degree).quats)
    view = SplatView(splats)
    messages = sent(view)
    view._receive(view, {"type": "load"}, [])
    content, buffers = messages[0]
    assert content["type"] == "splats" and len(buffers) == len(content["views"]) == 1
    got = decode(buffers[0], content["views"][0])
    assert np.array_equal(got["means"], splats.means.numpy())
    assert np.array_equal(got["scales"], splats.scales.numpy())
    assert np.allclose(np.linalg.norm(got["quats"], axis=1), 1, atol=1e-6)
    assert np.allclose(got["quats"], splats.quats.numpy() / 3, atol=1e-6)
    assert np.allclose(got["colors"], splats.colors.numpy(), atol=1e-3, rtol=1e-3)
    assert np.allclose(got["opacities"], splats.opacities.numpy(), atol=1e-5)
    coefficients = splats.shN.reshape(37, -1).numpy()
    assert np.allclose(got["sh"][:, : coefficients.shape[1]], coefficients, atol=1e-4, rtol=1e-3)
    assert not got["sh"][:, coefficients.shape[1] :].any()
    assert got["index"].size == 0


def test_half_floats_saturate_instead_of_becoming_infinite(splats_factory):
    splats = splats_factory(3, 1)
    shown = choose(replace(splats, sh0=1e9 * splats.sh0, shN=1e9 * splats.shN), 10)
    got = decode(wire.pack(shown), wire.block_words(shown))
    assert np.isfinite(got["colors"]).all() and np.isfinite(got["sh"]).all()
    assert np.abs(got["colors"]).max() > 6e4


def test_thinning_keeps_the_largest_and_says_so(splats_factory):
    splats = splats_factory(500)
    view = SplatView({"cloud": splats}, max_gaussians=100)
    kept = view._shown[0].kept
    weight = splats.opacities * splats.area()
    left_out = torch.ones(500, dtype=torch.bool)
    left_out[kept] = False
    assert len(kept) == 100 and bool((kept.diff() > 0).all())
    assert float(weight[kept].min()) >= float(weight[left_out].max())
    assert view._info["views"][0]["note"] == "100 of 500 gaussians, largest opacity × area · SH 0"
    got = decode(wire.pack(view._shown[0]), wire.block_words(view._shown[0]))
    assert np.array_equal(got["index"], kept.numpy())
    assert np.array_equal(got["means"], splats.means[kept].numpy())


def test_broken_gaussians_are_left_out_and_counted(splats_factory):
    splats = splats_factory(50)
    means, quats = splats.means.clone(), splats.quats.clone()
    means[4, 1], quats[9] = float("nan"), 0.0
    view = SplatView(replace(splats, means=means, quats=quats))
    assert view._info["views"][0]["note"] == "48 of 50 gaussians, 2 not finite · SH 0"
    assert set(range(50)) - set(view._shown[0].kept.tolist()) == {4, 9}
    view.selected = [0, 49]  # rows count in the splats as passed
    assert not bool(view.crop_mask(0).logical_not().any())


def test_gradients_and_originals_stay_untouched(splats_factory):
    splats = splats_factory(20)
    means = splats.means.clone().requires_grad_()
    view = SplatView(replace(splats, means=means))
    assert not view._shown[0].splats.means.requires_grad and means.grad is None
    assert len(view.still()) > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"splats": 3}, TypeError, "takes a Splats"),
        ({"splats": "file.ply"}, TypeError, "takes a Splats"),
        ({"splats": []}, ValueError, "at least one Splats"),
        ({"splats": {"a": "file.ply"}}, TypeError, "read_splats"),
        ({"max_gaussians": 0}, ValueError, "max_gaussians"),
        ({"columns": 99}, ValueError, "columns"),
        ({"width": 10}, ValueError, "width"),
        ({"background": (1, 2, 0)}, ValueError, "background"),
        ({"up": "above"}, ValueError, "up must be"),
        ({"values": np.zeros(3)}, ValueError, r"shape \[40\]"),
        ({"values": [np.zeros(40), np.zeros(40)]}, ValueError, "one array per viewport"),
        ({"values": np.full(40, np.nan)}, ValueError, "at least one finite"),
        ({"values": np.zeros(40), "value_range": (2, 1)}, ValueError, "low <= high"),
        ({"sh_degree": 4}, traitlets.TraitError, "sh_degree"),
        ({"splat_scale": 0.0}, traitlets.TraitError, "splat_scale"),
        ({"theme": "pink"}, traitlets.TraitError, "theme"),
    ],
)
def test_wrong_arguments_are_refused_with_a_sentence(splats_factory, arguments, error, message):
    arguments = {"splats": splats_factory(40), **arguments}
    with pytest.raises(error, match=message):
        SplatView(**arguments)


def test_a_splat_without_a_finite_gaussian_is_refused(splats_factory):
    splats = splats_factory(2)
    with pytest.raises(ValueError, match="at least one finite gaussian"):
        SplatView({"gone": replace(splats, means=splats.means * float("nan"))})


def test_traits_refuse_what_makes_no_sense(splats_factory):
    view = SplatView(splats_factory(30))
    good = view.cameras[0]
    mirrored = np.diag([1.0, 1.0, -1.0, 1.0]).ravel().tolist()
    bad_cameras = [{**good, "viewmat": [1.0]}, {**good, "viewmat": mirrored}, {**good, "width": 0}]
    for camera in [*bad_cameras, {**good, "K": [float("nan")] * 9}]:
        with pytest.raises(traitlets.TraitError):
            view.cameras = [camera]
    for selected in ([0, 30], [1, 0], [0, -1], [0]):
        with pytest.raises(traitlets.TraitError, match="selected"):
            view.selected = selected
    with pytest.raises(traitlets.TraitError, match="low <= high"):
        view.crop = [[0, 1], [2, 1], [0, 1]]
    with pytest.raises(ValueError, match="1 camera or 1"):
        view.camera = orbit_cameras(2)


def test_the_first_camera_is_the_turntables(splats_factory):
    splats = splats_factory(100)
    view = SplatView(splats, width=200, height=150, up="-y")
    expected = turntable_cameras(splats, 1, width=200, height=150, up="-y")
    assert torch.equal(view.camera.viewmats, expected.viewmats) and torch.equal(view.camera.Ks, expected.Ks)
    assert (view.camera.width, view.camera.height) == (200, 150)
    assert view._info["scene"]["up"] == [0.0, -1.0, 0.0]


def test_cameras_can_be_set_and_read(splats_factory):
    view = SplatView([splats_factory(30), splats_factory(40)], linked=False)
    two = orbit_cameras(2, width=64, height=48)
    view.camera = two
    assert torch.allclose(view.camera.viewmats, two.viewmats) and torch.allclose(view.camera.Ks, two.Ks)


def test_unlinked_viewports_are_framed_one_by_one(splats_factory):
    small, big = splats_factory(60), splats_factory(60)
    big = replace(big, means=10 * big.means + 3, scales=10 * big.scales)
    apart = SplatView([small, big], linked=False)
    for i, splats in enumerate((small, big)):
        expected = turntable_cameras(splats, 1, width=440, height=330)
        assert torch.allclose(apart.camera.viewmats[i], expected.viewmats[0])
    together = SplatView([small, big])
    assert torch.equal(together.camera.viewmats[0], together.camera.viewmats[1])


def test_names_come_from_dicts_sources_or_numbers(splats_factory):
    one, two = replace(splats_factory(5), source="cup.ply"), splats_factory(5)
    names = [view["name"] for view in SplatView([one, one, two])._info["views"]]
    assert names == ["cup.ply", "cup.ply (2)", "splats 3"]
    assert [view["name"] for view in SplatView({"<b>": one})._info["views"]] == ["<b>"]


def test_crop_mask_counts_in_the_splats_as_passed(splats_factory):
    splats = splats_factory(300)
    view = SplatView(splats, max_gaussians=50)
    assert bool(view.crop_mask().all())
    view.crop_on = True
    low, high = splats[view._shown[0].kept].bounds()
    inside = ((splats.means >= low) & (splats.means <= high)).all(dim=1)
    assert torch.equal(view.crop_mask(), inside)  # starts as the box of what is shown
    view.crop = [[-0.2, 0.3], [-5, 5], [0.0, 5]]
    x, _, z = splats.means.T
    expected = (x >= -0.2) & (x <= 0.3) & (z >= 0)
    assert torch.equal(view.crop_mask(0), expected) and 0 < int(expected.sum()) < 300


def test_the_colormap_climbs_in_even_perceptual_steps():
    table = colormap()
    assert table.shape == (256, 4) and table.dtype == np.uint8
    assert table[NOT_A_NUMBER, 3] == 0 and (table[:STEPS, 3] == 255).all()
    encoded = table[:STEPS, :3] / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(luminance) - 16  # CIE L*
    assert (np.diff(lightness[::2]) > 0).all() and lightness[0] < 25 and lightness[-1] > 85
    assert np.diff(lightness[::16]).max() < 4 * np.diff(lightness[::16]).min()


def test_the_red_colormap_has_one_hue_that_no_faded_colour_comes_near():
    ramp = red_colormap()[:STEPS, :3] / 255
    hue, saturation, _ = np.array([colorsys.rgb_to_hsv(*color) for color in ramp]).T
    hue = (hue + 0.5) % 1  # red in the middle
    assert hue.max() - hue.min() < 0.03 and saturation.min() > 0.6
    assert (np.diff(ramp[::2] @ LUMA) > 0).all()
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    faded = FADE_LOW + corners @ fade_matrix().T
    assert np.allclose(faded[[0, -1]], [[0.45] * 3, [0.85] * 3])
    assert np.argsort(faded @ LUMA).tolist() == np.argsort(corners @ LUMA).tolist()  # what is lighter stays lighter
    assert np.ptp(faded, axis=1).max() < 0.1 < 0.25 < np.ptp(ramp, axis=1).min()


def test_values_become_rows_of_the_colormap():
    values = np.array([-1.0, 0.0, 0.5, 1.0, 9.0, np.nan, np.inf])
    assert color_indices(values, 0, 1).tolist() == [0, 0, 127, 254, 254, 255, 255]
    assert color_indices(np.ones(2), 1, 1).tolist() == [127, 127]


def test_values_reach_the_page_thinned_with_their_legend(splats_factory):
    splats = splats_factory(60)
    values = torch.arange(60.0)
    view = SplatView(splats, values=values, value_label="row", max_gaussians=20)
    assert view.color_mode == "value" and view._legend["label"] == "row"
    kept = view._shown[0].kept
    assert (view._legend["low"], view._legend["high"]) == (float(kept.min()), float(kept.max()))
    messages = sent(view)
    view._receive(view, {"type": "values"}, [])
    index = np.frombuffer(messages[0][1][0], np.uint8)
    assert np.array_equal(index, color_indices(values.numpy()[kept], *(view._legend[k] for k in ("low", "high"))))
    view.set_values(None)
    assert view.color_mode == "color" and view._legend is None


def test_the_still_picture_is_what_render_draws(splats_factory):
    splats = splats_factory(400, 2)
    view = SplatView(splats, width=160, height=120, background=(0.2, 0.4, 0.6), sh_degree=1)
    png = Image.open(io.BytesIO(view.still()))
    assert png.format == "PNG" and png.size == (160, 120)
    expected = render(splats, *view.camera, sh_degree=1, background=(0.2, 0.4, 0.6)).colors[0].clamp(0, 1)
    error = np.abs(np.asarray(png.convert("RGB")) / 255 - expected.numpy())
    assert error.mean() < 0.02  # 256 colours with dithering
    view.crop_on, view.crop = True, [[9, 10], [9, 10], [9, 10]]
    empty = np.asarray(Image.open(io.BytesIO(view.still())).convert("RGB"))
    assert np.array_equal(np.unique(empty.reshape(-1, 3), axis=0), [[51, 102, 153]])


def test_the_still_picture_shows_value_colours_and_all_viewports(splats_factory):
    opaque = replace(splats_factory(200), opacities=torch.ones(200))
    view = SplatView([opaque, opaque], values=[np.zeros(200), np.ones(200)], linked=True)
    picture = np.asarray(Image.open(io.BytesIO(view.still())).convert("RGB")).astype(int)
    left, right = np.array_split(picture, 2, axis=1)
    assert picture.shape[1] == 640
    assert (np.abs(left - colormap()[0, :3]).sum(axis=2) < 40).mean() > 0.03
    assert (np.abs(right - colormap()[254, :3]).sum(axis=2) < 40).mean() > 0.03


def test_a_noisy_still_picture_stays_small():
    g = torch.Generator().manual_seed(0)
    n = 40_000
    splats = Splats.from_colors(
        2 * torch.rand(n, 3, generator=g) - 1,
        torch.rand(n, 3, generator=g),
        quats=torch.nn.functional.normalize(torch.randn(n, 4, generator=g), dim=1),
        scales=torch.full((n, 3), 0.004),
        opacities=torch.ones(n),
    )
    view = SplatView(splats)
    assert 20_000 < len(view.still()) <= MAX_BYTES


def test_a_saved_notebook_holds_picture_text_and_view(splats_factory):
    view = SplatView({"two words": splats_factory(80)})
    data, _ = view._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id
    assert base64.b64decode(data["image/png"]) == view.poster
    assert data["text/plain"] == "SplatView(two words: 80 gaussians · SH 0)"
    state = {k: v for k, v in view.get_state().items() if k != "poster"}
    assert len(json.dumps(state)) < 90_000  # no gaussian in it: those travel as messages


def test_nbconvert_shows_the_picture_when_the_widget_state_is_not_saved(splats_factory):
    import nbformat
    from nbconvert import HTMLExporter

    data, metadata = SplatView(splats_factory(80))._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("view", outputs=[output])])
    html, _ = HTMLExporter().from_notebook_node(notebook)
    assert f"data:image/png;base64,{data['image/png'][:60]}" in html


def test_the_page_draws_by_the_rasterisers_rules():
    rules = splat_view.DRAWING
    assert rules["EPS_2D"] == cpu_projection.EPS2D and rules["NEAR_PLANE"] == cpu_projection.NEAR
    assert rules["MIN_ALPHA"] == cpu_projection.ALPHA_MIN and rules["MAX_ALPHA"] == 0.999


def test_the_script_is_one_module_without_outside_sources():
    script = SplatView._esm
    assert script.count("export default") == 1 and "import(" not in script and "\nimport " not in script
    assert "innerHTML" not in script and "eval(" not in script
    assert "https://" not in script and script.count("http://") == script.count("http://www.w3.org/2000/svg")


def test_camera_of_another_size_is_scaled_for_the_still_picture(splats_factory):
    splats = splats_factory(200)
    view = SplatView(splats, width=200, height=100, background=(0, 0, 0))
    square = turntable_cameras(splats, 1, width=500, height=500)
    view.camera = square
    got = np.asarray(Image.open(io.BytesIO(view.still())).convert("RGB")) / 255
    K = square.Ks / 5
    K[:, 2, 2] = 1
    K[:, 0, 2] = 100
    expected = render(splats, *Cameras(square.viewmats, K, 200, 100)).colors[0].clamp(0, 1).numpy()
    assert np.abs(got - expected).mean() < 0.02
