"""`SplatView` in a real Chromium: pixels against `render`, pointer, keyboard, controls, context loss, themes."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.formats import read_splats
from clipgs_lib.geometry import SH_C0, quat_to_rotmat
from clipgs_lib.rendering import Cameras, orbit_cameras, render
from clipgs_lib.splats import Splats
from clipgs_lib.widgets import SplatView
from clipgs_lib.widgets.colormap import FADE_CHROMA, FADE_LOW, FADE_SPAN, LUMA, NOT_A_NUMBER, colormap, red_colormap
from clipgs_lib.widgets.splat_view import PICK_ALPHA

from .browser import WidgetPage, chromium

pytestmark = pytest.mark.browser
WHITE = (1.0, 1.0, 1.0)
SIZE = {"width": 240, "height": 180}


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


def drawn(splats: Splats, cameras: Cameras, i: int = 0, ratio: int = 1, **options) -> np.ndarray:
    """`render`'s picture, clamped and in the page's 8 bits."""
    K = cameras.Ks[i : i + 1].clone()
    K[:, :2] *= ratio
    options.setdefault("background", WHITE)
    size = (cameras.width * ratio, cameras.height * ratio)
    picture = render(splats, cameras.viewmats[i : i + 1], K, *size, **options).colors[0].clamp(0, 1)
    return np.round(255 * picture.numpy()) / 255


def compare(got: np.ndarray, wanted: np.ndarray, name: str, psnr: float = 45.0, worst: float = 0.04) -> None:
    assert got.shape == wanted.shape
    error = np.abs(got - wanted)
    reached = -10 * np.log10(max(float((error**2).mean()), 1e-12))
    print(f"{name}: PSNR {reached:.1f} dB, mean error {error.mean():.2e}, largest {error.max():.4f}")
    assert wanted.std() > 0.02, "the picture to compare with is empty"
    assert reached >= psnr and error.max() <= worst


def drag(page: WidgetPage, dx: float, dy: float, viewport: int = 0, button: str = "left", key: str = "") -> None:
    box = page.box(viewport)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    if key:
        page.page.keyboard.down(key)
    page.page.mouse.move(x, y)
    page.page.mouse.down(button=button)
    page.page.mouse.move(x + dx, y + dy, steps=4)
    page.page.mouse.up(button=button)
    if key:
        page.page.keyboard.up(key)
    page.settle()


def press(page: WidgetPage, *keys: str) -> None:
    page.page.locator(".sv-surface").first.focus()
    for key in keys:
        page.page.keyboard.press(key)
    page.settle()


def eyes(view: SplatView) -> np.ndarray:
    return view.camera.centers.numpy()


# ---- pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 3])
def test_the_picture_is_renders_picture(browser, splats_factory, degree):
    splats = splats_factory(3000, degree)
    needles = replace(splats, scales=splats.scales * torch.tensor([0.02, 0.3, 1.5]))
    with WidgetPage(browser, SplatView(needles, background=WHITE, **SIZE)) as page:
        compare(page.snapshot(), drawn(needles, page.view.camera), f"first picture, SH {degree}")
        inside = orbit_cameras(1, distance=0.6, width=240, height=180, fov=70, elevation=40)
        inside.Ks[:, 0, 2] += 25
        inside.Ks[:, 0, 0] *= 1.3
        page.view.camera = inside
        page.settle()
        assert torch.allclose(page.view.camera.viewmats, inside.viewmats)
        compare(page.snapshot(), drawn(needles, inside), f"inside the cloud, skewed lens, SH {degree}", worst=0.08)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["hamburger", "playbot_sh2"])
def test_real_splats_look_the_same(browser, real_data, name):
    splats = read_splats(real_data / "splats" / "ply" / f"{name}.ply")
    with WidgetPage(browser, SplatView(splats, background=WHITE, **SIZE)) as page:
        compare(page.snapshot(), drawn(splats, page.view.camera), name)


def test_on_a_dense_screen_the_picture_has_its_pixels(browser, splats_factory):
    splats = splats_factory(800, 1)
    with WidgetPage(browser, SplatView(splats, background=WHITE, width=120, height=90), ratio=2) as page:
        assert page.view.camera.width == 120
        compare(page.snapshot(), drawn(splats, page.view.camera, ratio=2), "2 device pixels per CSS pixel")


def test_controls_change_the_picture_as_render_would(browser, splats_factory):
    splats = splats_factory(1500, 3)
    with WidgetPage(browser, SplatView(splats, background=WHITE, **SIZE)) as page:
        page.page.get_by_label("SH degree").focus()
        page.page.keyboard.press("ArrowLeft")
        page.page.keyboard.press("ArrowLeft")
        page.settle()
        assert page.view.sh_degree == 1
        compare(page.snapshot(), drawn(splats, page.view.camera, sh_degree=1), "SH slider at 1")
        press(page, "]", "]", "[", "[", "[")
        assert page.view.sh_degree == 0
        page.page.get_by_label("size", exact=True).fill("0.5")
        page.settle()
        assert page.view.splat_scale == 0.5
        smaller = replace(splats, scales=0.5 * splats.scales)
        compare(page.snapshot(), drawn(smaller, page.view.camera, sh_degree=0), "size slider at 0.5")


def test_values_are_drawn_in_the_colormaps_colours_and_the_rest_faded(browser, splats_factory):
    splats = splats_factory(900, 2)
    values = splats.means[:, 0].clone()
    values[::2] = float("nan")
    view = SplatView(splats, values=values, value_label="x <b>", background=WHITE, **SIZE)
    with WidgetPage(browser, view) as page:
        first = page.snapshot()
        compare(first, drawn(by_value(view, splats), view.camera), "values")
        still = np.asarray(Image.open(io.BytesIO(view.still())).convert("RGB")) / 255
        compare(still, first, "the still picture and the page", psnr=30, worst=0.3)  # the still has 256 colours
        press(page, "[", "[")
        compare(page.snapshot(), drawn(by_value(view, splats), view.camera, sh_degree=0), "values, SH 0")
        press(page, "]", "]")
        assert page.text(".sv-legend").endswith("x <b>")
        page.page.get_by_label("colouring").select_option("color")
        page.settle()
        assert view.color_mode == "color"
        compare(page.snapshot(), drawn(splats, view.camera), "back to colours")
        assert not page.page.locator(".sv-legend").is_visible()
        view.set_values(-values, label="minus x")
        page.settle()
        compare(page.snapshot(), drawn(by_value(view, splats), view.camera), "new values")
        view.set_values(values, ramp=red_colormap())
        page.settle()
        compare(page.snapshot(), drawn(by_value(view, splats, red_colormap()), view.camera), "in red")
        bar = page.page.evaluate("() => document.querySelector('.sv-bar').style.background")
        assert bar.startswith("linear-gradient(to right, rgb({}, {}, {})".format(*red_colormap()[0, :3]))


def by_value(view: SplatView, splats: Splats, ramp: np.ndarray | None = None) -> Splats:
    """The splats with each base colour or SH coefficient replaced or faded, as the formula in words has it."""
    rows = torch.from_numpy(view._indices[0].astype(np.int64))
    table = torch.from_numpy((colormap() if ramp is None else ramp)[:, :3] / np.float32(255))

    def faded(numbers: torch.Tensor) -> torch.Tensor:
        luma = (numbers * torch.tensor(LUMA)).sum(dim=-1, keepdim=True)
        return FADE_SPAN * (luma + FADE_CHROMA * (numbers - luma))

    none = rows == NOT_A_NUMBER
    colors = torch.where(none[:, None], FADE_LOW + faded(splats.colors), table[rows])
    shN = faded(splats.shN) * none[:, None, None]
    return replace(splats, sh0=((colors - 0.5) / SH_C0)[:, None], shN=shN)


def test_the_crop_box_hides_what_the_mask_leaves_out(browser, splats_factory):
    splats = splats_factory(1200)
    with WidgetPage(browser, SplatView(splats, background=WHITE, **SIZE)) as page:
        page.page.locator(".sv-crop summary").click()
        page.page.get_by_role("checkbox", name="crop box").check()
        page.settle()
        assert page.view.crop_on and bool(page.view.crop_mask().all())  # the whole box loses nothing
        compare(page.snapshot(), drawn(splats, page.view.camera), "crop box at its widest")
        page.page.get_by_label("x minimum").fill("520")
        page.page.get_by_label("y maximum").fill("100")
        page.page.get_by_label("y minimum").fill("900")  # cannot pass the other thumb
        page.page.get_by_label("y maximum").fill("600")
        page.settle()
        mask = page.view.crop_mask()
        assert 20 < int(mask.sum()) < 700
        assert page.view.crop[1][0] <= page.view.crop[1][1]
        compare(page.snapshot(), drawn(splats[mask], page.view.camera), "cropped")


def test_the_crop_box_is_outlined_where_it_lies(browser, splats_factory):
    with WidgetPage(browser, SplatView(splats_factory(200), **SIZE)) as page:
        edges = "() => document.querySelector('.clipgs-sv path').getAttribute('d')"
        assert page.page.evaluate(edges) == ""
        page.view.crop_on, page.view.crop = True, [[-0.5, 0.4], [-0.3, 0.6], [-0.2, 0.7]]
        page.settle()
        lines = [[float(v) for v in line.replace("L", "").split()] for line in page.page.evaluate(edges).split("M")[1:]]
        camera = page.view.camera
        corners = torch.cartesian_prod(*torch.tensor(page.view.crop))
        seen = (camera.viewmats[0, :3, :3] @ corners.T + camera.viewmats[0, :3, 3:]).T @ camera.Ks[0].T
        seen = seen[:, :2] / seen[:, 2:]
        expected = {(i, j) for i in range(8) for j in range(i) if (corners[i] != corners[j]).sum() == 1}
        ends = torch.tensor(lines).reshape(-1, 2, 2)
        assert len(ends) == 12
        nearest = torch.cdist(ends, seen[None])  # [12, 2, 8]
        assert float(nearest.amin(dim=2).max()) < 0.02
        assert {tuple(sorted(pair, reverse=True)) for pair in nearest.argmin(dim=2).tolist()} == expected
        press(page, "+", "+", "+", "+", "+", "+", "+", "+", "+", "+", "+", "+")  # into the box: edges end at the eye
        assert 0 < page.page.evaluate(edges).count("M") <= 12 and "NaN" not in page.page.evaluate(edges)


def test_reset_takes_everything_back(browser, splats_factory):
    view = SplatView(splats_factory(200, 2), splat_scale=0.8, background=(0.2, 0.4, 0.6), **SIZE)
    with WidgetPage(browser, view) as page:
        names = ("sh_degree", "splat_scale", "crop", "crop_on", "background", "color_mode", "selected")
        before, picture, eye = {name: getattr(view, name) for name in names}, page.snapshot(), eyes(view)[0]
        press(page, "[", "ArrowLeft", "+")
        page.page.get_by_label("size", exact=True).fill("0.3")
        page.page.get_by_label("background").select_option("black")
        page.page.locator(".sv-crop summary").click()
        page.page.get_by_label("x minimum").fill("600")
        page.page.mouse.click(page.box()["x"] + 120, page.box()["y"] + 90)
        page.settle()
        assert view.crop_on and view.background == [0, 0, 0] and view.sh_degree == 1 and view.splat_scale == 0.3
        page.page.get_by_role("button", name="Reset everything").click()
        page.settle()
        assert {name: getattr(view, name) for name in names} == before
        assert np.allclose(eyes(view)[0], eye, atol=1e-5) and np.array_equal(page.snapshot(), picture)


def test_the_background_can_be_chosen(browser, splats_factory):
    splats = splats_factory(200)
    with WidgetPage(browser, SplatView(splats, **SIZE)) as page:
        for name, level in (("grey", 0.5), ("black", 0.0), ("white", 1.0), ("page", 1.0)):
            page.page.get_by_label("background").select_option(name)
            page.settle()
            compare(page.snapshot(), drawn(splats, page.view.camera, background=(level,) * 3), name)
        page.view.background = [0.2, 0.4, 0.6]
        page.settle()
        assert page.page.get_by_label("background").input_value() == "colour"
        compare(page.snapshot(), drawn(splats, page.view.camera, background=(0.2, 0.4, 0.6)), "from Python")


def test_a_png_has_the_size_that_was_asked_for(browser, splats_factory):
    splats = splats_factory(400, 1)
    with WidgetPage(browser, SplatView(splats, background=WHITE, **SIZE)) as page:
        on_screen = page.snapshot()
        page.page.get_by_label("PNG width").fill("720")
        compare(page.snapshot(), drawn(splats, page.view.camera, ratio=3), "three times as wide")
        page.page.get_by_label("PNG width").fill("")
        assert np.array_equal(page.snapshot(), on_screen) and page.view.camera.width == 240


def test_full_screen_fills_the_screen_and_comes_back(browser, splats_factory):
    with WidgetPage(browser, SplatView(splats_factory(100), **SIZE)) as page:
        button = page.page.get_by_role("button", name="Full screen, or back")
        button.click()
        page.page.wait_for_function("() => document.querySelector('.sv-surface').clientWidth > 500")
        page.settle()
        assert page.page.evaluate("() => document.fullscreenElement.className") == "clipgs-sv"
        box = page.box()
        assert box["y"] + box["height"] < page.page.evaluate("() => innerHeight")
        assert button.bounding_box()["y"] + 22 <= page.page.evaluate("() => innerHeight")
        assert page.view.camera.width == box["width"] > 500
        button.click()
        page.page.wait_for_function("() => document.querySelector('.sv-surface').clientWidth === 240")
        page.settle()
        assert page.view.camera.width == 240


@pytest.mark.parametrize(("shade", "theme", "grey"), [(0.0, "dark", True), (0.0, "light", False), (1.0, "light", True)])
def test_what_would_vanish_in_the_page_lies_on_grey(browser, splats_factory, shade, theme, grey):
    splats = splats_factory(300)
    splats = replace(splats, sh0=torch.full((300, 1, 3), (shade - 0.5) / SH_C0), opacities=torch.ones(300))
    middle = replace(splats, sh0=0 * splats.sh0)
    with WidgetPage(browser, SplatView([splats, middle], theme=theme, **SIZE)) as page:
        both = page.snapshot()
        picture, other = both[:, :240], both[:, 248:]
        assert not 0.3 < other[0, 0].mean() < 0.6, "each viewport has its own background"
        corner = picture[0, 0]
        assert (corner.min() > 0.3 and corner.max() < 0.6) == grey
        assert np.abs(picture - corner).max() > 0.35  # the object can be seen
        still = np.asarray(Image.open(io.BytesIO(page.view.still())).convert("RGB")) / 255
        assert np.allclose(still[0, 0], corner, atol=0.02) and np.allclose(still[0, -1], other[0, 0], atol=0.02)


def test_a_lost_context_comes_back(browser, splats_factory):
    splats = splats_factory(600, 2)
    with WidgetPage(browser, SplatView(splats, background=WHITE, **SIZE)) as page:
        before = page.snapshot()
        page.page.evaluate(
            """async () => {
              const canvas = document.querySelector(".sv-canvas");
              const lose = canvas.getContext("webgl2").getExtension("WEBGL_lose_context");
              const lost = new Promise((resolve) => canvas.addEventListener("webglcontextlost", resolve));
              lose.loseContext();
              await lost;
              const back = new Promise((resolve) => canvas.addEventListener("webglcontextrestored", resolve));
              setTimeout(() => lose.restoreContext(), 50);
              await back;
            }"""
        )
        page.settle()
        assert np.array_equal(page.snapshot(), before)


# ---- moving --------------------------------------------------------------------------------------------------------


def test_a_drag_turns_the_camera_and_python_sees_the_same(browser, splats_factory):
    splats = splats_factory(1500, 2)
    with WidgetPage(browser, SplatView(splats, background=WHITE, **SIZE)) as page:
        view = page.view
        start, distance = eyes(view)[0], np.linalg.norm(eyes(view)[0] - view._info["views"][0]["center"])
        drag(page, 60, 25)
        end = eyes(view)[0]
        center = np.array(view._info["views"][0]["center"])
        assert np.isclose(np.linalg.norm(end - center), distance, rtol=1e-4)
        turned = np.degrees(np.arccos(np.dot(start - center, end - center) / distance**2))
        assert 25 < turned < 40  # 60 and 25 pixels at 0.008 radians each, on a sphere
        assert end[1] > start[1]  # dragging down looks from higher up
        compare(page.snapshot(), drawn(splats, view.camera), "after a drag")


def test_a_slow_device_draws_fewer_pixels_while_it_moves_and_all_at_rest(browser, splats_factory):
    splats = splats_factory(400, 1)
    with WidgetPage(browser, SplatView(splats, background=WHITE, **SIZE)) as page:
        page.page.evaluate(
            """() => {
              window.sizes = [];
              const store = WebGL2RenderingContext.prototype.texStorage2D;
              WebGL2RenderingContext.prototype.texStorage2D = function (...given) {
                sizes.push(given[3]);
                store.apply(this, given);
              };
              const next = window.requestAnimationFrame.bind(window);
              window.requestAnimationFrame = (callback) => setTimeout(() => next(callback), 120);
            }"""
        )
        press(page, "ArrowLeft", "ArrowLeft")
        widths = page.page.evaluate("() => sizes")
        assert min(widths) in (60, 120) and widths[-1] == 240
        compare(page.snapshot(), drawn(splats, page.view.camera), "sharp again at rest")


def test_pan_zoom_and_reset(browser, splats_factory):
    with WidgetPage(browser, SplatView(splats_factory(300), **SIZE)) as page:
        view = page.view
        home = view.camera
        right = home.viewmats[0, 0, :3].numpy()
        start = eyes(view)[0]
        for options in ({"button": "right"}, {"key": "Shift"}):
            before = eyes(view)[0]
            drag(page, 30, 0, **options)
            moved = eyes(view)[0] - before
            assert np.dot(moved, right) < -0.05 and np.isclose(np.linalg.norm(moved), -np.dot(moved, right), atol=1e-4)
        assert torch.allclose(view.camera.viewmats[0, :3, :3], home.viewmats[0, :3, :3], atol=1e-5)
        page.page.get_by_role("button", name="Reset everything").click()
        page.settle()
        assert np.allclose(eyes(view)[0], start, atol=1e-5)
        page.page.evaluate("() => { document.body.style.height = '5000px'; }")
        box = page.box()
        page.page.mouse.move(box["x"] + 100, box["y"] + 90)
        page.page.mouse.wheel(0, -150)
        page.settle()
        near = np.linalg.norm(eyes(view)[0])
        assert near < 0.9 * np.linalg.norm(start)
        assert page.page.evaluate("() => window.scrollY") == 0


def test_two_fingers_zoom(browser, splats_factory):
    with WidgetPage(browser, SplatView(splats_factory(300), **SIZE)) as page:
        far = np.linalg.norm(eyes(page.view)[0])
        box = page.box()
        x, y = box["x"] + 120, box["y"] + 90
        touch = page.context.new_cdp_session(page.page)
        for kind, reach in (("touchStart", 20), ("touchMove", 30), ("touchMove", 40), ("touchEnd", None)):
            fingers = [] if reach is None else [{"x": x - reach, "y": y, "id": 0}, {"x": x + reach, "y": y, "id": 1}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        page.settle()
        assert np.isclose(np.linalg.norm(eyes(page.view)[0]) / far, 0.5, atol=0.05)


def test_everything_works_from_the_keyboard(browser, splats_factory):
    with WidgetPage(browser, SplatView(splats_factory(300), **SIZE)) as page:
        view = page.view
        start = eyes(view)[0]
        page.page.keyboard.press("Tab")
        assert page.page.evaluate("() => document.activeElement.className") == "sv-surface"
        ring = page.page.evaluate("() => getComputedStyle(document.activeElement).boxShadow")
        assert "2px" in ring
        press(page, "ArrowRight")
        turned = eyes(view)[0]
        assert np.isclose(turned[1], start[1], atol=1e-3) and turned[0] > start[0] + 0.1
        press(page, "ArrowUp")
        assert eyes(view)[0][1] > start[1] + 0.1
        press(page, "r")
        assert np.allclose(eyes(view)[0], start, atol=1e-5)
        press(page, "Shift+ArrowRight")
        assert np.allclose((eyes(view)[0] - start)[1:], 0, atol=1e-4) and eyes(view)[0][0] > start[0]
        press(page, "f")
        assert np.allclose(eyes(view)[0], start, atol=1e-3)
        press(page, "+", "+")
        assert np.linalg.norm(eyes(view)[0]) < 0.8 * np.linalg.norm(start)
        press(page, "-", "-")
        assert np.allclose(eyes(view)[0], start, atol=1e-3)
        assert not page.page.locator(".sv-help").is_visible()
        press(page, "?")
        assert page.page.locator(".sv-help").is_visible()
        names = page.page.evaluate(
            "() => [...document.querySelectorAll('.clipgs-sv :is(input, select, button)')]"
            ".map((e) => e.getAttribute('aria-label') ?? e.closest('label')?.textContent ?? '')"
        )
        assert len(names) >= 10 and all(names)


# ---- choosing ------------------------------------------------------------------------------------------------------


def expected_pick(splats: Splats, cameras: Cameras, x: float, y: float) -> int:
    """Nearest gaussian with alpha >= PICK_ALPHA at a pixel, from the textbook formulas in float64."""
    R, shift = cameras.viewmats[0, :3, :3].double(), cameras.viewmats[0, :3, 3].double()
    fx, fy, cx, cy = (float(cameras.Ks[0][i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    p = splats.means.double() @ R.T + shift
    depth = p[:, 2]
    M = quat_to_rotmat(splats.quats.double()) * splats.scales.double()[:, None, :]
    J = torch.zeros(len(splats), 2, 3, dtype=torch.float64)
    J[:, 0, 0], J[:, 1, 1] = fx / depth, fy / depth
    J[:, 0, 2], J[:, 1, 2] = -fx * p[:, 0] / depth**2, -fy * p[:, 1] / depth**2
    half = J @ R @ M
    inverse = torch.linalg.inv(half @ half.transpose(1, 2) + 0.3 * torch.eye(2, dtype=torch.float64))
    d = torch.stack([x - fx * p[:, 0] / depth - cx, y - fy * p[:, 1] / depth - cy], dim=1)
    alpha = splats.opacities * torch.exp(-0.5 * torch.einsum("ni,nij,nj->n", d, inverse, d))
    depth = torch.where((alpha >= PICK_ALPHA) & (depth > 0.01), depth, torch.inf)
    return int(depth.argmin()) if bool(depth.isfinite().any()) else -1


def test_a_click_returns_the_gaussian_under_the_pointer(browser, splats_factory):
    splats = splats_factory(800)
    view = SplatView({"<i>cloud</i>": splats}, max_gaussians=500, **SIZE)
    shown = splats[view._shown[0].kept]
    with WidgetPage(browser, view) as page:
        box = page.box()
        found = []
        for x, y in ((120, 90), (90, 70), (150, 110), (100, 120)):
            page.page.mouse.click(box["x"] + x + 0.5, box["y"] + y + 0.5)
            page.settle()
            row = expected_pick(shown, view.camera, x + 0.5, y + 0.5)
            assert view.selected == [0, int(view._shown[0].kept[row])]
            found.append(row)
        assert len(set(found)) == 4
        assert f"gaussian {view.selected[1]} of <i>cloud</i>" in page.text(".sv-status")
        assert page.page.locator(".sv-marker").is_visible()
        press(page, "Escape")
        assert view.selected is None
        page.page.mouse.click(box["x"] + 3, box["y"] + 3)
        page.settle()
        assert view.selected is None and not page.page.locator(".sv-marker").is_visible()


def test_a_double_click_brings_the_gaussian_to_the_middle(browser, splats_factory):
    view = SplatView(splats_factory(800), **SIZE)
    with WidgetPage(browser, view) as page:
        box = page.box()
        page.page.mouse.dblclick(box["x"] + 90.5, box["y"] + 70.5)
        page.settle()
        mean = view._shown[0].splats.means[view.selected[1]]
        R, shift = view.camera.viewmats[0, :3, :3], view.camera.viewmats[0, :3, 3]
        x, y, z = R @ mean + shift
        assert abs(float(x / z)) < 1e-3 and abs(float(y / z)) < 1e-3
        before = np.linalg.norm(eyes(view)[0] - mean.numpy())
        drag(page, 40, 0)  # and is what the camera turns about now
        assert np.isclose(np.linalg.norm(eyes(view)[0] - mean.numpy()), before, rtol=1e-3)


# ---- the page ------------------------------------------------------------------------------------------------------


def test_two_viewports_share_one_canvas_and_link(browser, splats_factory):
    left, right = splats_factory(700, 1), splats_factory(500, 3, seed=1)
    view = SplatView({"left": left, "right": right}, background=WHITE, **SIZE)
    with WidgetPage(browser, view) as page:
        assert page.page.locator("canvas").count() == 1

        def halves() -> list[np.ndarray]:
            picture = page.snapshot()
            assert picture.shape == (180, 488, 3)
            return [picture[:, :240], picture[:, 248:]]

        drag(page, 40, 10, viewport=1)
        assert torch.equal(view.camera.viewmats[0], view.camera.viewmats[1])
        for i, (picture, splats) in enumerate(zip(halves(), (left, right), strict=True)):
            compare(picture, drawn(splats, view.camera, i), f"linked viewport {i}")
        page.page.get_by_label("linked").uncheck()
        drag(page, -50, 0, viewport=0)
        assert not view.linked and not torch.allclose(view.camera.viewmats[0], view.camera.viewmats[1])
        for i, (picture, splats) in enumerate(zip(halves(), (left, right), strict=True)):
            compare(picture, drawn(splats, view.camera, i), f"free viewport {i}")


def test_it_follows_the_theme(browser, splats_factory):
    splats = splats_factory(50)
    style = "--jp-layout-color0: rgb(10, 20, 30); --jp-ui-font-color1: rgb(240, 240, 240);"
    with WidgetPage(browser, SplatView(splats, **SIZE), style=style) as page:
        assert np.round(255 * page.snapshot()[0, 0]).tolist() == [10, 20, 30]
        color = "() => getComputedStyle(document.querySelector('.clipgs-sv')).color"
        assert page.page.evaluate(color) == "rgb(240, 240, 240)"
        page.view.theme = "light"
        page.settle()
        assert page.snapshot()[0, 0].tolist() == [1, 1, 1]
        page.view.theme = "dark"
        page.settle()
        corner = page.snapshot()[0, 0]
        assert corner.max() < 0.12
        compare(page.snapshot(), drawn(splats, page.view.camera, background=tuple(corner.tolist())), "dark")


def test_names_are_never_run_as_markup(browser, splats_factory):
    name = "<img src=x onerror=\"document.title='run'\">"
    with WidgetPage(browser, SplatView({name: splats_factory(20)}, **SIZE)) as page:
        assert page.text(".sv-header b") == name
        assert page.page.locator(".sv-header img").count() == 0 and page.page.title() == "viewer"


def test_a_narrow_cell_shrinks_the_view_and_python_learns_it(browser, splats_factory):
    view = SplatView([splats_factory(200), splats_factory(200)], background=WHITE, width=400, height=300)
    with WidgetPage(browser, view, cell=480) as page:
        assert (view.camera.width, view.camera.height) == (232, 174)
        overflow = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.page.evaluate(overflow) == 0
        compare(page.snapshot()[:, :232], drawn(splats_factory(200), view.camera), "shrunk")


def test_the_still_picture_waits_for_the_kernel(browser, splats_factory):
    with WidgetPage(browser, SplatView(splats_factory(100), **SIZE), poster=True, load=False) as page:
        poster = page.page.locator(".sv-poster")
        poster.wait_for(state="visible")
        assert page.page.evaluate("() => document.querySelector('.sv-poster').naturalWidth") == 240
        page.settle()
        assert not poster.is_visible() and page.page.locator(".sv-surface").is_visible()


def test_the_png_button_downloads_and_closing_frees_the_page(browser, splats_factory):
    with WidgetPage(browser, SplatView({"my cup": splats_factory(100)}, **SIZE)) as page:
        with page.page.expect_download() as download:
            page.page.get_by_role("button", name="Download the picture as PNG").click()
        assert download.value.suggested_filename == "my_cup.png"
        assert download.value.path().read_bytes().startswith(b"\x89PNG")
        page.page.evaluate("() => close_view()")
        assert page.page.locator(".clipgs-sv").count() == 0
        # what stays is the one listener that waits for data, gone since the data came
        assert page.page.evaluate("() => model.handlers.filter(([e]) => e === 'msg:custom').length") == 0
        assert not page.log
