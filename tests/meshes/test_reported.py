"""Mesh files from public bug reports of neighbours, with their right values (cases 4-14 beside the project)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from clipgs_lib.meshes import Mesh, MeshError, mesh_pieces, read_mesh_notes
from clipgs_lib.rendering import render_views, sphere_cameras

from .mesh_files import QUAD, QUAD_INDEX, Gltf, png

GREEN = np.array([10, 200, 30]) / 255


def read(path) -> tuple[Mesh, str]:
    """The mesh, and all notes on it as one text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mesh, notes = read_mesh_notes(path)
    return mesh, " ".join(notes)


def colors(mesh: Mesh) -> np.ndarray:
    """``[3000, 3]`` colours of surface points."""
    return mesh.sample(3000, np.random.default_rng(0)).colors


def assert_color(path, expected) -> None:
    mesh, _ = read(path)
    np.testing.assert_allclose(colors(mesh).mean(0), expected, atol=0.01)


@pytest.mark.parametrize(("name", "share"), [("clamp", (0.5 / 3) ** 2), ("repeat", 0.25), ("mirror", 0.25)])
def test_textures_wrap_per_pixel(cases, name, share):
    mesh, _ = read(cases / f"04_clamp/{name}.glb")
    c = mesh.sample(60_000, np.random.default_rng(0)).colors
    assert (c[:, 1] > 0.5).mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("name", ["mesh", "mesh_required"])
def test_instances(cases, name):
    mesh, _ = read(cases / f"05_instancing/{name}.glb")
    low, high = mesh.bounds()
    assert sum(len(part.faces) for part in mesh.parts) == 6
    np.testing.assert_allclose(low, [-1, -1, 0], atol=1e-4)
    np.testing.assert_allclose(high, [6, 8, 0], atol=1e-4)


def test_morph_weights(cases):
    mesh, _ = read(cases / "06_morph/morph.glb")
    for part in mesh.parts:
        np.testing.assert_allclose(part.vertices[:, 2], 2, atol=1e-5)


@pytest.mark.parametrize("name", ["no_material", "white_material"])
def test_vertex_colors_over_the_white_default(cases, name):
    assert_color(cases / f"07_color0/{name}.glb", [0.735, 0.537, 1.0])


def test_tabs_in_mtl(cases):
    assert_color(cases / "08_mtl_tabs/a.obj", GREEN)


def test_encodings_of_mtl(cases):
    assert_color(cases / "09_mtl_encoding/bom/a.obj", [0, 0, 1])
    assert_color(cases / "09_mtl_encoding/latin1/a.obj", GREEN)


@pytest.mark.parametrize("name", ["abc/models", "windows", "unix"])
def test_textures_elsewhere(cases, name):
    pieces = {piece.name: piece for piece in mesh_pieces(cases / "10_obj_textures/in")}
    mesh, notes = pieces[f"{name}/a.obj"].read(cases / "10_obj_textures/in")
    assert len({id(part.texture) for part in mesh.parts if part.texture is not None}) == 1 and notes == ()


def test_a_lost_texture_is_noted(cases):
    _, notes = read(cases / "10_obj_textures/in/lost/a.obj")
    assert "gone.png" in notes


def test_two_textures_in_a_ply(cases):
    mesh, notes = read(cases / "11_ply_two_textures/a.ply")
    c = colors(mesh)
    both = [(np.abs(c - color).max(1) < 0.01).mean() for color in ([1, 0, 0], [0, 0, 1])]
    assert both == pytest.approx([0.5, 0.5], abs=0.05) or "texture" in notes


@pytest.mark.parametrize(("name", "color"), [("two", [0, 0, 1]), ("case", GREEN), ("quoted", GREEN)])
def test_names_in_mtl(cases, name, color):
    assert_color(cases / f"12_mtl_names/{name}/a.obj", color)


def test_no_usemtl(cases):
    mesh, notes = read(cases / "13_no_usemtl/a.obj")
    assert np.allclose(colors(mesh).mean(0), GREEN, atol=0.01) or "M" in notes


def test_sparse_positions(cases):
    mesh, _ = read(cases / "14_sparse/mesh.glb")
    np.testing.assert_allclose(mesh.bounds()[1], [3, 3, 0], atol=1e-5)


def test_an_unknown_required_extension_is_refused(cases, tmp_path):
    data = (cases / "05_instancing/mesh_required.glb").read_bytes()
    (tmp_path / "a.glb").write_bytes(data.replace(b"EXT_mesh_gpu_instancing", b"EXT_mesh_gpu_inventions"))
    with pytest.raises(MeshError, match="EXT_mesh_gpu_inventions"):
        read_mesh_notes(tmp_path / "a.glb")


# ---- the same kinds, other inputs -----------------------------------------------------------------------------------


def test_axes_wrap_on_their_own(tmp_path):
    """Clamped along u, repeated along v: a quarter of the columns, half of the rows."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :, 0], pixels[2:6, 2:6] = 255, (0, 255, 0)
    gltf = Gltf()
    material = gltf.material(png(pixels))
    gltf.root["samplers"] = [{"wrapS": 33071, "wrapT": 10497}]
    gltf.root["textures"][0]["sampler"] = 0
    uvs = np.array([[-0.5, -3], [1.5, -3], [1.5, 5], [-0.5, 5]], np.float32)
    gltf.node(mesh=gltf.mesh(POSITION=QUAD, TEXCOORD_0=uvs, indices=QUAD_INDEX, material=material))
    mesh, _ = read(gltf.write(tmp_path / "a.glb"))
    c = mesh.sample(60_000, np.random.default_rng(0)).colors
    assert (c[:, 1] > 0.5).mean() == pytest.approx(0.25 * 0.5, abs=0.01)
    views = render_views(mesh.normalize(), sphere_cameras(2, width=64, height=64), light=0).colors
    assert np.isfinite(np.asarray(views)).all()


def test_a_clamped_texture_far_outside_stays_small(tmp_path):
    pixels = np.full((4, 4, 3), 200, np.uint8)
    gltf = Gltf()
    material = gltf.material(png(pixels))
    gltf.root["samplers"] = [{"wrapS": 33071, "wrapT": 33071}]
    gltf.root["textures"][0]["sampler"] = 0
    gltf.node(mesh=gltf.mesh(POSITION=QUAD, TEXCOORD_0=QUAD[:, :2] * 1e6, indices=QUAD_INDEX, material=material))
    mesh, _ = read(gltf.write(tmp_path / "a.glb"))
    assert mesh.parts[0].texture.size < 1 << 24
    np.testing.assert_allclose(colors(mesh), 200 / 255, atol=0.01)


def test_instances_turn_and_grow(tmp_path):
    """Rotations may be normalised bytes; an instance stands between its node and the vertices."""
    gltf = Gltf()
    turn = gltf.accessor(np.array([[0, 0, 127, 0], [0, 0, 0, 127]], np.int8), normalized=True)
    grow = gltf.accessor(np.array([[1, 1, 1], [2, 2, 2]], np.float32))
    extension = {"EXT_mesh_gpu_instancing": {"attributes": {"ROTATION": turn, "SCALE": grow}}}
    gltf.node(mesh=gltf.mesh(POSITION=QUAD, indices=QUAD_INDEX), translation=[10, 0, 0], extensions=extension)
    mesh, _ = read(gltf.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.bounds(), [[9, -1, 0], [12, 2, 0]], atol=1e-4)


def test_weights_of_a_node_beat_those_of_its_mesh(tmp_path):
    gltf = Gltf()
    index = gltf.mesh(POSITION=QUAD, indices=QUAD_INDEX)
    up, right = (gltf.accessor(np.tile(np.array(v, np.float32), (4, 1))) for v in ((0, 0, 1), (1, 0, 0)))
    gltf.root["meshes"][index]["primitives"][0]["targets"] = [{"POSITION": up}, {"POSITION": right}]
    gltf.root["meshes"][index]["weights"] = [1, 1]
    gltf.node(mesh=index, weights=[0.5, 0])
    mesh, _ = read(gltf.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.bounds(), [[0, 0, 0.5], [1, 1, 0.5]], atol=1e-5)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_material_names_in_any_encoding(tmp_path, encoding):
    """Names that differ by one accent stay apart."""
    text = "newmtl caf\xe9\nKd 1 0 0\nnewmtl caf\xe8\nKd 0 0 1\n"
    (tmp_path / "m.mtl").write_bytes(text.encode(encoding))
    obj = "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl caf\xe8\nf 1 2 3\n"
    (tmp_path / "a.obj").write_bytes(obj.encode("latin-1" if encoding == "latin-1" else "utf-8"))
    mesh, notes = read(tmp_path / "a.obj")
    assert mesh.parts[0].base_color[:3] == (0, 0, 1) and notes == ""


def test_dots_are_followed_inside_the_root_only(tmp_path):
    (tmp_path / "in" / "models").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(png(np.full((2, 2, 3), 9, np.uint8)))
    (tmp_path / "in" / "ok.png").write_bytes(png(np.full((2, 2, 3), 9, np.uint8)))
    obj = "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl M\nf 1/1 2/2 3/3\n"
    (tmp_path / "in/models/a.obj").write_text(obj)
    for name, reason in (("../ok.png", ""), ("../../secret.png", "outside"), ("../../in/ok.png", "")):
        (tmp_path / "in/models/m.mtl").write_text(f"newmtl M\nmap_Kd {name}\n")
        result = read_mesh_notes(tmp_path / "in/models/a.obj", root=tmp_path / "in")
        assert (reason in " ".join(result.notes)) and bool(result.lost) is bool(reason)


def test_several_materials_and_no_usemtl_are_named(tmp_path):
    (tmp_path / "m.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n")
    (tmp_path / "a.obj").write_text("mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert read_mesh_notes(tmp_path / "a.obj").lost == ("red", "blue")
    (tmp_path / "a.obj").write_text("mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl green\nf 1 2 3\n")
    assert read_mesh_notes(tmp_path / "a.obj").lost == ("green",)


@pytest.mark.parametrize("index", [[0], {"a": 1}, "0", 7])
def test_references_that_are_no_numbers(tmp_path, index):
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh(POSITION=QUAD, indices=QUAD_INDEX, material=index))
    with pytest.raises(MeshError, match="material index"):
        read_mesh_notes(gltf.write(tmp_path / "a.glb"))


@pytest.mark.parametrize(("kind", "most"), [(np.uint8, 255), (np.uint16, 65535)])
@pytest.mark.parametrize("normalized", [True, False])
def test_whole_numbers_as_vertex_colours(tmp_path, kind, most, normalized):
    """Some exporters forget that whole numbers must be marked as normalised."""
    gltf = Gltf()
    colors_ = np.tile(np.array([0.5, 0.25, 1]) * most, (4, 1)).astype(kind)
    gltf.node(mesh=gltf.mesh(POSITION=QUAD, indices=QUAD_INDEX))
    attributes = gltf.root["meshes"][0]["primitives"][0]["attributes"]
    attributes["COLOR_0"] = gltf.accessor(np.pad(colors_, ((0, 0), (0, 1))), normalized=normalized)
    assert_color(gltf.write(tmp_path / "a.glb"), [0.735, 0.537, 1.0])


def test_a_factor_with_alpha_and_a_second_set_of_uvs(tmp_path):
    """texCoord 1, turned and scaled by KHR_texture_transform; the transparent factor still colours."""
    gltf = Gltf()
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    material = gltf.material(png(pixels), factor=(1, 0.25, 1, 0.5), alphaMode="BLEND")
    info = gltf.root["materials"][material]["pbrMetallicRoughness"]["baseColorTexture"]
    info["texCoord"] = 0
    info["extensions"] = {"KHR_texture_transform": {"texCoord": 1, "offset": [0.5, 0], "scale": [0.5, 1]}}
    uvs = {"TEXCOORD_0": np.zeros((4, 2), np.float32), "TEXCOORD_1": QUAD[:, :2].copy()}
    gltf.node(mesh=gltf.mesh(POSITION=QUAD, indices=QUAD_INDEX, material=material, **uvs))
    path = gltf.write(tmp_path / "a.glb")
    mesh, notes = read(path)
    points = mesh.sample(3000, np.random.default_rng(0))
    inside = np.abs(points.points[:, 0] - 0.5) < 0.4
    np.testing.assert_allclose(points.colors[inside].mean(0), [1, 0.537, 1], atol=0.01)
    assert "opaque" in notes and mesh.parts[0].base_color[3] == 0.5


def test_sparse_morph_targets_are_weighed(tmp_path):
    gltf = Gltf()
    index = gltf.mesh(POSITION=QUAD, indices=QUAD_INDEX)
    indices, values = gltf.view(np.array([2], np.uint8).tobytes()), gltf.view(np.array([0, 0, 4], "<f4").tobytes())
    sparse = {"count": 1, "indices": {"bufferView": indices, "componentType": 5121}, "values": {"bufferView": values}}
    gltf.root["accessors"].append({"componentType": 5126, "count": 4, "type": "VEC3", "sparse": sparse})
    target = {"POSITION": len(gltf.root["accessors"]) - 1}
    gltf.root["meshes"][index]["primitives"][0]["targets"] = [target, target]
    gltf.root["meshes"][index]["weights"] = [0.25, 0.5]
    gltf.node(mesh=index)
    mesh, _ = read(gltf.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.bounds(), [[0, 0, 0], [1, 1, 3]], atol=1e-5)


def test_emission_and_colours_of_instances_are_noted(tmp_path):
    gltf = Gltf()
    places = gltf.accessor(np.array([[0, 0, 0], [3, 0, 0]], np.float32))
    attributes = {"attributes": {"TRANSLATION": places, "_COLOR_0": places}}
    lamp = gltf.material(factor=(0, 0, 0, 1), emissiveFactor=[1, 1, 0])
    mesh = gltf.mesh(POSITION=QUAD, indices=QUAD_INDEX, material=lamp)
    gltf.node(mesh=mesh, extensions={"EXT_mesh_gpu_instancing": attributes})
    _, notes = read(gltf.write(tmp_path / "a.glb"))
    assert "materials emit" in notes and "of instances only their places" in notes
