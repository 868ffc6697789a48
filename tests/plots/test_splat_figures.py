"""Structure, numbers and limits of the plotly figures (how they look was checked by eye)."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image
from plotly.io import from_json

from clipgs_lib.geometry import quat_to_rotmat
from clipgs_lib.plots import (
    TEMPLATE,
    attribute_histograms,
    difference_figure,
    error_image,
    image_row,
    splat_figure,
    value_histograms,
)
from clipgs_lib.plots.scatter import ELLIPSOID_SIGMAS, OPACITY_BINS, Frame, icosphere, opening_camera
from clipgs_lib.plots.style import quantize_colors
from clipgs_lib.splats import UP_AXES


def points_of(figure: go.Figure) -> list[go.Scatter3d]:
    return [trace for trace in figure.data if isinstance(trace, go.Scatter3d)]


def indices_of(figure: go.Figure) -> np.ndarray:
    return np.concatenate([trace.customdata[:, 0] for trace in points_of(figure)]).astype(int)


def colors_of(figure: go.Figure) -> dict[int, str]:
    """Hex colour of each gaussian, looked up in the colour scale as plotly does."""
    colors = {}
    for trace in points_of(figure):
        assert (trace.marker.cmin, trace.marker.cmax) == (0, 255)
        stops = {round(255 * at): color for at, color in trace.marker.colorscale}
        colors |= {int(k): stops[int(row)] for k, row in zip(trace.customdata[:, 0], trace.marker.color, strict=True)}
    return colors


def subtitle(figure: go.Figure) -> str:
    return figure.layout.title.subtitle.text


# ---- colours ---------------------------------------------------------------------------------------------------


def test_few_colours_survive_exactly():
    colors = np.random.default_rng(0).integers(0, 256, (200, 3)) / 255
    palette = quantize_colors(np.repeat(colors, 5, axis=0))
    assert palette.rows.dtype == np.uint8
    np.testing.assert_array_equal(palette.table[palette.rows], np.round(np.repeat(colors, 5, axis=0) * 255))


def test_many_colours_stay_close():
    colors = np.random.default_rng(0).beta(2, 3, (20_000, 3))
    palette = quantize_colors(colors)
    assert len(palette.table) <= 256
    error = np.abs(palette.table[palette.rows] / 255 - colors)
    assert error.mean() < 0.04  # the cell of a uniform cube cut into 256 is 0.16 wide: 0.04 on average


@pytest.mark.parametrize("count", [1, 2, 37, 255, 256])
def test_an_index_falls_exactly_on_its_stop(count):
    colors = np.stack([np.arange(count), np.full(count, 7), np.arange(count)[::-1]], axis=1) / 255
    palette = quantize_colors(colors)
    scale = palette.colorscale
    assert scale[0][0] == 0 and scale[-1][0] == 1
    for row, color in enumerate(palette.table):
        assert scale[row] == [row / 255, "#{:02x}{:02x}{:02x}".format(*color)]


def test_points_keep_their_own_colours(splats_factory):
    splats = splats_factory(50)
    want = (splats.colors.clamp(0, 1) * 255).round().int().tolist()
    got = colors_of(splat_figure(splats))
    assert got == {k: "#{:02x}{:02x}{:02x}".format(*rgb) for k, rgb in enumerate(want)}


# ---- splat_figure ----------------------------------------------------------------------------------------------


def test_every_gaussian_is_drawn_once_in_its_opacity_bin(splats_factory):
    splats = splats_factory(3000)
    figure = splat_figure(splats)
    assert sorted(indices_of(figure)) == list(range(3000))
    bins = {drawn: (low, high) for low, high, drawn in OPACITY_BINS}
    for trace in points_of(figure):
        low, high = bins[trace.marker.opacity]
        rows = trace.customdata[:, 0].astype(int)
        opacities = splats.opacities.numpy()[rows]
        assert (opacities >= low).all() and (opacities <= high).all()
        np.testing.assert_array_equal(np.stack([trace.x, trace.y, trace.z], axis=1), splats.means.numpy()[rows])


def test_the_largest_by_opacity_times_area_are_chosen(splats_factory):
    splats = splats_factory(500)
    figure = splat_figure(splats, max_points=60)
    want = (splats.opacities * splats.area()).topk(60).indices
    assert sorted(indices_of(figure)) == sorted(want.tolist())
    assert "60 of 500 gaussians shown" in subtitle(figure)


def test_non_finite_rows_are_left_out_and_counted(splats_factory):
    splats = splats_factory(40)
    splats.means[3, 1] = float("nan")
    splats.sh0[7] = float("inf")
    figure = splat_figure(splats)
    assert sorted(set(range(40)) - set(indices_of(figure))) == [3, 7]
    assert "2 not finite left out" in subtitle(figure)


def test_lone_far_points_do_not_shrink_the_rest(splats_factory):
    splats = splats_factory(1000)
    splats.means[:3] *= 1e4
    figure = splat_figure(splats)
    assert "3 far outside the frame" in subtitle(figure)
    assert len(indices_of(figure)) == 997
    low, high = figure.layout.scene.xaxis.range
    assert high - low < 10


@pytest.mark.parametrize("stretch", [(1, 1, 1), (5, 1, 0.2), (0.01, 30, 1), (1, 1, 0)])
def test_axes_have_equal_units(splats_factory, stretch):
    splats = splats_factory(300)
    splats = replace(splats, means=splats.means * torch.tensor(stretch))
    scene = splat_figure(splats).layout.scene
    spans = np.array([np.ptp(axis.range) for axis in (scene.xaxis, scene.yaxis, scene.zaxis)])
    ratio = np.array([scene.aspectratio.x, scene.aspectratio.y, scene.aspectratio.z])
    assert scene.aspectmode == "manual"
    np.testing.assert_allclose(ratio / spans, np.full(3, 1 / spans.max()), rtol=1e-6)
    assert ratio.max() == pytest.approx(1)


def test_marker_size_follows_scale(splats_factory):
    splats = splats_factory(3)
    means, quats = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[1.0, 0, 0, 0]]).repeat(3, 1)
    scales = torch.tensor([[0.01, 0.01, 0.001], [0.02, 0.02, 0.02], [0.005, 0.02, 0.001]])
    splats = replace(splats, means=means, quats=quats, scales=scales, opacities=torch.ones(3))
    (trace,) = points_of(splat_figure(splats))
    np.testing.assert_allclose(trace.marker.size[1:] / trace.marker.size[0], [2, 1], rtol=1e-5)


def test_ellipsoid_vertices_lie_on_their_ellipsoid(splats_factory):
    splats = splats_factory(200)
    figure = splat_figure(splats, ellipsoids=25)
    mesh = figure.data[-1]
    assert isinstance(mesh, go.Mesh3d)
    vertices = torch.from_numpy(np.stack([mesh.x, mesh.y, mesh.z], axis=1)).reshape(25, -1, 3)
    rows = (splats.opacities * splats.area()).topk(25).indices
    local = (vertices - splats.means[rows, None]) @ quat_to_rotmat(splats.quats[rows])  # [25, V, 3]
    distance = (local / splats.scales[rows, None]).norm(dim=-1)
    np.testing.assert_allclose(distance, np.full_like(distance, ELLIPSOID_SIGMAS), rtol=1e-4)
    corners = np.stack([mesh.i, mesh.j, mesh.k], axis=1)
    assert corners.max() == vertices.shape[0] * vertices.shape[1] - 1
    assert (corners // vertices.shape[1] == corners[:, :1] // vertices.shape[1]).all()  # no face joins two ellipsoids


def test_icosphere_is_a_closed_outward_sphere():
    points, faces = icosphere()
    assert len(faces) == 80 and len(points) == 2 + len(faces) // 2
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, rtol=1e-6)
    a, b, c = (points[faces[:, k]] for k in range(3))
    volume = np.einsum("fi,fi->f", np.cross(a, b), c)
    assert (volume > 0).all()
    assert volume.sum() / 6 == pytest.approx(4 / 3 * np.pi, rel=0.13)


@pytest.mark.parametrize("axis", [axis for axis in UP_AXES if axis != "unknown"])
def test_the_camera_is_upright_and_keeps_handedness(splats_factory, axis):
    camera = splat_figure(replace(splats_factory(5), up_axis=axis)).layout.scene.camera
    up = np.array([camera.up.x, camera.up.y, camera.up.z])
    eye = np.array([camera.eye.x, camera.eye.y, camera.eye.z])
    assert up["xyz".index(axis[1])] == (1 if axis[0] == "+" else -1) and np.abs(up).sum() == 1
    assert 0 < eye @ up < 0.5 * np.linalg.norm(eye)


def test_unknown_up_is_said_and_can_be_overridden(splats_factory):
    assert "up unknown" in subtitle(splat_figure(splats_factory(5)))
    figure = splat_figure(splats_factory(5), up_axis="+z")
    assert "up +z" in subtitle(figure) and figure.layout.scene.camera.up.z == 1
    assert opening_camera("unknown") == opening_camera("+y")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tiny_inputs_draw(splats_factory, count):
    splats = splats_factory(count, degree=1)
    for figure in (
        splat_figure(splats, ellipsoids=3),
        splat_figure(splats),
        attribute_histograms(splats),
    ):
        assert from_json(figure.to_json()).layout.title.text
    if count == 0:
        assert [note.text for note in splat_figure(splats).layout.annotations] == ["nothing to show"]
        assert [note.text for note in attribute_histograms(splats).layout.annotations] == ["nothing to show"]


def test_coinciding_centres_still_have_a_frame():
    frame = Frame.around([np.full((4, 3), 7.0)])
    assert (frame.high > frame.low).all() and frame.contains(np.full((1, 3), 7.0)).all()


def test_figures_stay_small_and_typed(splats_factory):
    splats = splats_factory(60_000)
    text = splat_figure(splats).to_json()
    assert len(text) < 2.4e6
    marker = json.loads(text)["data"][0]["marker"]
    assert marker["color"]["dtype"] == "u1" and marker["size"]["dtype"] == "f4"
    assert len(attribute_histograms(splats).to_json()) < 30_000


def test_titles_are_escaped(splats_factory):
    splats = replace(splats_factory(5), source="<img src=x>.ply")
    for figure in (splat_figure(splats), attribute_histograms(splats)):
        assert "<img" not in figure.to_json().replace("\\u003c", "<")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_points": 0}, "max_points must lie in 1..50,000, got 0"),
        ({"max_points": 60_000}, "max_points must lie in"),
        ({"ellipsoids": -1}, "ellipsoids must be >= 0"),
        ({"up_axis": "up"}, "up_axis must be one of"),
    ],
)
def test_bad_options_are_named(splats_factory, options, message):
    with pytest.raises(ValueError, match=message):
        splat_figure(splats_factory(5), **options)


# ---- the other figures -----------------------------------------------------------------------------------------


def test_histograms_count_what_is_there(splats_factory):
    splats = splats_factory(2000, degree=2)
    figure = attribute_histograms(splats)
    titles = {note.text for note in figure.layout.annotations}
    assert {"Opacity", "Scales, sorted", "Anisotropy", "Base colour", "SH energy by band"} <= titles
    opacity = figure.data[0]
    want, _ = np.histogram(splats.opacities, np.linspace(0, 1, len(opacity.x) + 1))
    np.testing.assert_allclose(opacity.y, 100 * want / 2000, rtol=1e-5)
    bands = figure.data[-1]
    energy = [float((splats.sh[:, b * b : (b + 1) ** 2] ** 2).sum(dim=(1, 2)).mean()) for b in range(3)]
    np.testing.assert_allclose(bands.y, energy, rtol=1e-5)
    assert all(axis.title.text for axis in figure.select_xaxes() if axis.visible is not False)


def test_histograms_need_no_sh_panel_and_count_the_dropped(splats_factory):
    splats = splats_factory(50)
    splats.scales[5] = float("nan")
    splats.scales[6] = 0
    figure = attribute_histograms(splats)
    assert "SH energy by band" not in {note.text for note in figure.layout.annotations}
    assert subtitle(figure) == "50 gaussians, 1 not finite left out"


def test_image_row_embeds_the_pixels():
    picture = torch.rand(6, 9, 3)
    figure = image_row([picture, picture[..., 0]], ["a", "b"], title="t")
    uri = figure.data[0].source
    assert uri.startswith("data:image/png;base64,")
    back = np.asarray(Image.open(BytesIO(base64.b64decode(uri.split(",")[1]))))
    np.testing.assert_array_equal(back, np.round(picture.numpy() * 255).astype(np.uint8))
    assert [note.text for note in figure.layout.annotations] == ["a", "b"]
    assert 0 < figure.layout.height < figure.layout.width


def test_error_image_and_psnr():
    a = np.full((4, 4, 3), 0.5)
    b = a.copy()
    b[0, 0] += 0.1
    error = error_image(a, b)
    assert (error[1:] == error[1, 0]).all() and error[0, 0].sum() > error[1, 0].sum()
    figure = difference_figure(a, b)
    psnr = -10 * np.log10(0.01 / 16)
    assert f"{psnr:.2f} dB" in figure.layout.title.text
    assert "identical" in difference_figure(a, a).layout.title.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image_row([]), "at least one picture"),
        (lambda: image_row([np.zeros((4, 4, 5))]), r"images\[0\] must have shape"),
        (lambda: image_row([np.zeros((4, 4, 3), np.int64)]), "uint8, got int64"),
        (lambda: image_row([np.zeros((4, 4, 3))], ["a", "b"]), "each of the 1 pictures, got 2"),
        (lambda: error_image(np.zeros((4, 4)), np.zeros((4, 5))), "same size .* 4x4 and 4x5"),
        (lambda: error_image(np.zeros((4, 4)), np.zeros((4, 4)), limit=0), "limit must lie in"),
    ],
)
def test_bad_pictures_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_figure_carries_the_house_template(splats_factory):
    splats = splats_factory(20)
    for figure in (
        splat_figure(splats),
        attribute_histograms(splats),
        image_row([np.zeros((4, 4))]),
    ):
        assert type(figure) is go.Figure
        assert figure.layout.template.layout.font == TEMPLATE.layout.font


def test_value_histograms_share_out_every_value():
    values = {"a, m": np.r_[np.arange(1000.0), np.nan], "b": torch.rand(3000), "c": np.zeros(3), "d": np.ones(4)}
    figure = value_histograms(values, title="<b>t</b>")
    bars = [trace for trace in figure.data if trace.type == "bar"]
    sums = [float(np.sum(bar.y)) for bar in bars]
    assert sums[2:] == pytest.approx([100, 100])
    assert sums[:2] == pytest.approx([99.7, 99.8], abs=0.05)  # the outermost 0.2 % and the NaN are not drawn
    assert figure.layout.title.text == "&lt;b&gt;t&lt;/b&gt;"
    titles = [figure.layout[name].title.text for name in ("xaxis", "xaxis2", "xaxis3", "xaxis4")]
    assert titles == list(values)
    assert figure.layout.xaxis5.visible is False
    with pytest.raises(ValueError, match="at least one quantity"):
        value_histograms({})
