"""Mesh import: the same object from every format, colours as displayed, hostile files refused or noted."""

from __future__ import annotations

import base64
import copy
import pickle
import socket
import struct

import numpy as np
import pytest
import trimesh

from clipgs_lib.colors import srgb_from_linear
from clipgs_lib.meshes import Mesh, MeshError, MeshWarning, mesh_files, read_mesh, read_mesh_notes
from clipgs_lib.meshes import checks as base

from .mesh_files import FOUR, QUAD, QUAD_INDEX, QUAD_UVS_DOWN, TRIANGLE, Gltf, png, png_bomb


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a mesh reader opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


def corner_colors(mesh: Mesh) -> dict[str, np.ndarray]:
    """Colours near the four corners of the unit quad, wherever its vertices lie in memory."""
    samples = mesh.sample(4000, np.random.default_rng(0))
    out = {}
    for name, corner in (("low left", (0.1, 0.1)), ("low right", (0.9, 0.1)), ("top left", (0.1, 0.9))):
        near = np.linalg.norm(samples.points[:, :2] - corner, axis=1) < 0.08
        out[name] = samples.colors[near].mean(axis=0)
    return out


def assert_four(mesh: Mesh) -> None:
    """`FOUR`'s texture stands upright."""
    colors = corner_colors(mesh)
    assert colors["top left"] == pytest.approx([1, 0, 0], abs=0.02)
    assert colors["low left"] == pytest.approx([0, 0, 1], abs=0.02)
    assert colors["low right"] == pytest.approx([1, 1, 0], abs=0.02)


def big(texture: np.ndarray = FOUR) -> np.ndarray:
    return texture.repeat(16, axis=0).repeat(16, axis=1)


# ---- every format --------------------------------------------------------------------------------------------------
def test_glb_texture_stands_upright(tmp_path):
    gltf = Gltf()
    gltf.quad(material=gltf.material(png(big())))
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    assert (mesh.n_faces, mesh.up_axis, mesh.source) == (2, "+y", "a.glb")
    assert_four(mesh)


def test_gltf_with_files_beside_it(tmp_path):
    gltf = Gltf()
    gltf.quad(material=gltf.material({"uri": "maps/my%20map.png"}))
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "my map.png").write_bytes(png(big()))
    root = gltf.root | {"buffers": [{"byteLength": len(gltf.binary), "uri": "a.bin"}]}
    (tmp_path / "a.bin").write_bytes(gltf.binary)
    import json

    (tmp_path / "a.gltf").write_text(json.dumps(root))
    assert_four(read_mesh(tmp_path / "a.gltf"))


def write_obj(folder, *, map_name="four.png", mtl="a.mtl", uvs=True):
    faces = "f 1/1 2/2 3/3\nf 1/1 3/3 4/4\n" if uvs else "f 1 2 3\nf 1 3 4\n"
    vt = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n" if uvs else ""
    text = f"mtllib {mtl}\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n{vt}usemtl skin\n{faces}"
    (folder / "a.obj").write_text(text)
    (folder / "a.mtl").write_text(f"newmtl skin\nKd 0.5 0.25 0.125\nmap_Kd {map_name}\n")
    return folder / "a.obj"


def test_obj_with_a_texture(tmp_path):
    (tmp_path / "four.png").write_bytes(png(big()))
    mesh = read_mesh(write_obj(tmp_path), up_axis="+z")
    assert mesh.up_axis == "+z"
    assert mesh.parts[0].name == "skin"
    assert_four(mesh)


def test_obj_with_several_materials_map_options_and_backslashes(tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "four.png").write_bytes(png(big()))
    path = write_obj(tmp_path, map_name="-s 1 1 1 -clamp on maps\\four.png")
    with path.open("a") as stream:
        stream.write("usemtl paint\nf 1 2 4\n")
    with (tmp_path / "a.mtl").open("a") as stream:
        stream.write("newmtl paint\nKd 0.1 0.2 0.3\n")
    mesh = read_mesh(path)
    by_name = {part.name: part for part in mesh.parts}
    assert by_name["paint"].base_color == pytest.approx((0.1, 0.2, 0.3, 1.0))
    assert by_name["skin"].texture.shape == (32, 32, 3)


def test_obj_with_vertex_colours(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 0 1 0 1 0 0\nf 1 2 3\n")
    assert read_mesh(tmp_path / "a.obj").sample(9, np.random.default_rng(0)).colors == pytest.approx(
        np.tile([1, 0, 0], (9, 1)), abs=0.01
    )


def test_obj_indices_may_count_back_from_their_line(tmp_path):
    square = "v {0} 0 0\nv {1} 0 0\nv {1} 1 0\nv {0} 1 0\nf -4 -3 -2 -1\n"
    (tmp_path / "a.obj").write_text(square.format(0, 1) + square.format(5, 6) + "v 0 0 9\n")
    mesh = read_mesh(tmp_path / "a.obj")
    assert mesh.n_faces == 4
    assert mesh.bounds()[1].tolist() == [6, 1, 0]
    assert mesh.sample(9, np.random.default_rng(0)).area == pytest.approx(2)


@pytest.mark.parametrize("kind", ["obj", "ply"])
def test_polygons_are_cut_into_triangles(tmp_path, kind):
    corners = ["0 0 0", "2 0 0", "3 1 0", "2 2 0", "0 2 0"]
    if kind == "obj":
        text = "".join(f"v {c}\n" for c in [*corners, "0 0 1"]) + "f 1 2 3 4 5\nf 1 2 6\nf 1 2 3 6\n"
    else:
        text = "ply\nformat ascii 1.0\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\n"
        text += "element face 3\nproperty list uchar int vertex_indices\nend_header\n"
        text += "".join(f"{c}\n" for c in [*corners, "0 0 1"]) + "5 0 1 2 3 4\n3 0 1 5\n4 0 1 2 5\n"
    (tmp_path / f"a.{kind}").write_text(text)
    mesh = read_mesh(tmp_path / f"a.{kind}")
    assert mesh.n_faces == 6
    flat = mesh.sample(4000, np.random.default_rng(0))
    assert (np.abs(flat.points[:, 2]) < 1e-6).mean() > 0.5


def test_one_part_without_uvs_leaves_the_texture_to_others(tmp_path):
    (tmp_path / "four.png").write_bytes(png(big()))
    path = write_obj(tmp_path)
    with path.open("a") as stream:
        stream.write("usemtl bare\nf 1 2 4\n")
    with (tmp_path / "a.mtl").open("a") as stream:
        stream.write("newmtl bare\nmap_Kd four.png\n")
    mesh, notes = read_mesh_notes(path)
    assert {part.name: part.texture is not None for part in mesh.parts} == {"skin": True, "bare": False}
    assert "no UVs" in notes[0]


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_ply_vertex_colours_are_kept_as_displayed(tmp_path, encoding):
    colors = np.array([[255, 0, 0], [0, 128, 0], [0, 0, 64]], np.uint8)
    shape = trimesh.Trimesh(TRIANGLE, [[0, 1, 2]], vertex_colors=colors, process=False)
    (tmp_path / "a.ply").write_bytes(shape.export(file_type="ply", encoding=encoding))
    mesh = read_mesh(tmp_path / "a.ply")
    assert mesh.up_axis == "unknown"
    assert np.abs(mesh.parts[0].colors - colors / 255).max() < 1e-6


def test_ply_face_colours(tmp_path):
    header = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    header += "element face 2\nproperty list uchar int vertex_indices\n"
    header += "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    rows = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2 255 0 0\n3 0 2 3 0 0 255\n"
    (tmp_path / "a.ply").write_text(header + rows)
    colors = corner_colors(read_mesh(tmp_path / "a.ply"))
    assert colors["low right"] == pytest.approx([1, 0, 0], abs=0.01)
    assert colors["top left"] == pytest.approx([0, 0, 1], abs=0.01)


def test_ply_with_a_texture_file(tmp_path):
    header = "ply\nformat ascii 1.0\ncomment TextureFile four.png\nelement vertex 4\nproperty float x\n"
    header += "property float y\nproperty float z\nproperty float s\nproperty float t\n"
    header += "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "a.ply").write_text(header + "0 0 0 0 0\n1 0 0 1 0\n1 1 0 1 1\n0 1 0 0 1\n3 0 1 2\n3 0 2 3\n")
    (tmp_path / "four.png").write_bytes(png(big()))
    assert_four(read_mesh(tmp_path / "a.ply"))


def test_all_formats_agree_on_the_shape(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=2)
    for kind in ("glb", "obj", "ply", "stl"):
        (tmp_path / f"a.{kind}").write_bytes(
            data.encode() if isinstance(data := ball.export(file_type=kind), str) else data
        )
    (tmp_path / "b.stl").write_text(ball.export(file_type="stl_ascii"))
    meshes = [read_mesh(path) for path in sorted(tmp_path.iterdir())]
    assert [mesh.n_faces for mesh in meshes] == [len(ball.faces)] * 5
    for mesh in meshes:
        assert mesh.sample(10, np.random.default_rng(0)).area == pytest.approx(ball.area, rel=1e-4)
        assert np.linalg.norm(mesh.normalize().parts[0].vertices, axis=1).max() == pytest.approx(1, abs=1e-5)


def test_content_counts_not_the_name(tmp_path):
    (tmp_path / "wrong.obj").write_bytes(trimesh.creation.box().export(file_type="stl"))
    assert read_mesh(tmp_path / "wrong.obj").n_faces == 12


# ---- glTF ----------------------------------------------------------------------------------------------------------
def test_factors_and_vertex_colours_are_linear_light(tmp_path):
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh(POSITION=TRIANGLE, material=gltf.material(factor=(0.5, 0.2, 0.0, 1))))
    colors = np.tile(np.float32([0.5, 0.5, 1, 1]), (3, 1))
    gltf.node(mesh=gltf.mesh(POSITION=TRIANGLE, COLOR_0=colors, material=gltf.material(factor=(0.5, 1, 1, 1))))
    plain, tinted = read_mesh(gltf.write(tmp_path / "a.glb")).parts
    assert plain.base_color == pytest.approx((0.7354, 0.4845, 0.0, 1.0), abs=1e-3)  # IEC 61966-2-1
    assert tinted.lookup(np.array([0]), np.full((1, 3), 1 / 3))[0] == pytest.approx([0.5371, 0.7354, 1], abs=1e-3)


def test_a_factor_times_a_texture_is_taken_in_linear_light(tmp_path):
    gltf = Gltf()
    gltf.quad(material=gltf.material(png(np.full((4, 4, 3), 188)), (0.5, 1, 0, 1)))
    part = read_mesh(gltf.write(tmp_path / "a.glb")).parts[0]
    assert part.texture[0, 0].tolist() == [137, 188, 0]  # 188 is 0.5028 in linear light


def test_byte_colours_are_normalised(tmp_path):
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh(POSITION=TRIANGLE, COLOR_0=np.full((3, 4), 55, np.uint8)))
    colors = read_mesh(gltf.write(tmp_path / "a.glb")).parts[0].colors
    assert colors == pytest.approx(srgb_from_linear(np.full((3, 3), 55 / 255)))


@pytest.mark.parametrize(
    ("factor", "guessed"), [((1, 115 / 255, 58 / 255), True), ((0.8, 0.8, 0.8), False), ((0.101, 0.342, 0.2077), False)]
)
def test_factors_stored_as_displayed_can_be_told(tmp_path, factor, guessed):
    gltf = Gltf()
    gltf.quad(material=gltf.material(factor=(*factor, 1)))
    path = gltf.write(tmp_path / "a.glb")
    by_rule = {rule: read_mesh_notes(path, factors=rule) for rule in ("linear", "srgb", "guess")}
    assert by_rule["srgb"].mesh.parts[0].base_color[:3] == pytest.approx(factor, abs=1e-5)
    assert by_rule["linear"].mesh.parts[0].base_color[:3] == pytest.approx(srgb_from_linear(factor), abs=1e-5)
    twin = "srgb" if guessed else "linear"
    assert by_rule["guess"].mesh.parts[0].base_color == by_rule[twin].mesh.parts[0].base_color
    assert bool(by_rule["guess"].notes) == guessed


def test_scene_graphs_are_flattened(tmp_path):
    gltf = Gltf()
    mesh = gltf.mesh(POSITION=QUAD, indices=QUAD_INDEX)
    half = np.sqrt(0.5)
    child = gltf.node(root=False, mesh=mesh, rotation=[0, 0, half, half], name="turned")
    gltf.node(children=[child], translation=[10, 0, 0], scale=[2, 2, 2])
    gltf.node(mesh=mesh, matrix=[-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 5, 0, 0, 1])
    turned, mirrored = read_mesh(gltf.write(tmp_path / "a.glb")).parts
    assert turned.name == "turned"
    assert turned.vertices[1] == pytest.approx([10, 2, 0], abs=1e-5)  # x becomes y
    assert mirrored.vertices[1] == pytest.approx([4, 0, 0], abs=1e-5)
    for part in (turned, mirrored):
        a, b, c = part.vertices[part.faces[0]]
        assert np.cross(b - a, c - a)[2] > 0


def test_strips_and_fans(tmp_path):
    corners = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh(POSITION=corners, mode=5))
    gltf.node(mesh=gltf.mesh(POSITION=QUAD, mode=6))
    for part in read_mesh(gltf.write(tmp_path / "a.glb")).parts:
        a, b, c = part.vertices[part.faces].transpose(1, 0, 2)
        assert np.cross(b - a, c - a)[:, 2] == pytest.approx([1, 1])


def test_texture_transform_and_wrapping(tmp_path):
    """The extension's own example: the lower left quarter, turned by 90 degrees."""
    gltf = Gltf()
    material = gltf.material(png(big()))
    info = gltf.root["materials"][material]["pbrMetallicRoughness"]["baseColorTexture"]
    info["extensions"] = {"KHR_texture_transform": {"offset": [0, 1], "rotation": np.pi / 2, "scale": [0.5, 0.5]}}
    gltf.quad(material=material)
    colors = read_mesh(gltf.write(tmp_path / "a.glb")).sample(500, np.random.default_rng(0)).colors
    assert np.median(colors, axis=0) == pytest.approx([0, 0, 1], abs=0.02)
    mirrored = Gltf()
    mirrored.root["samplers"] = [{"wrapS": 33648, "wrapT": 33071}]
    material = mirrored.material(png(big()))
    mirrored.root["textures"][0]["sampler"] = 0
    uvs = QUAD_UVS_DOWN * np.float32([2, 1])
    mesh = mirrored.mesh(POSITION=QUAD, TEXCOORD_0=uvs, indices=QUAD_INDEX, material=material)
    mirrored.node(mesh=mesh)
    colors = corner_colors(read_mesh(mirrored.write(tmp_path / "b.glb")))
    assert colors["low left"] == pytest.approx(colors["low right"], abs=0.05)


def test_skins_stand_in_the_pose_of_their_joints(tmp_path):
    gltf = Gltf()
    joint = gltf.node(translation=[0, 0, 7])
    bind = np.eye(4, dtype=np.float32)
    bind[3, 1] = 2  # stored by columns: a shift of +2 in y
    gltf.root["skins"] = [{"joints": [joint], "inverseBindMatrices": gltf.accessor(bind.reshape(1, 16))}]
    mesh = gltf.mesh(
        POSITION=TRIANGLE,
        JOINTS_0=np.zeros((3, 4), np.uint8),
        WEIGHTS_0=np.tile(np.float32([1, 0, 0, 0]), (3, 1)),
    )
    gltf.node(mesh=mesh, skin=0, translation=[100, 0, 0])
    vertices = read_mesh(gltf.write(tmp_path / "a.glb")).parts[0].vertices
    assert vertices == pytest.approx(TRIANGLE + np.float32([0, 2, 7]))


def test_several_scenes_are_noted(tmp_path):
    gltf = Gltf()
    gltf.quad()
    other = gltf.node(root=False, mesh=gltf.mesh(POSITION=TRIANGLE))
    gltf.root["scenes"].append({"nodes": [other]})
    mesh, notes = read_mesh_notes(gltf.write(tmp_path / "a.glb"))
    assert mesh.n_faces == 2
    assert "one of 2 scenes" in notes[0]
    gltf.root["scene"] = 1
    assert read_mesh_notes(gltf.write(tmp_path / "b.glb")).mesh.n_faces == 1


# ---- textures that cannot or must not be read ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.png", "No such file"),
        ("../secret.png", "outside"),
        ("maps/../../secret.png", "outside"),
        ("%2e%2e/secret.png", "outside"),
        ("..\\secret.png", "outside"),
        ("/etc/passwd", "outside"),
        ("C:\\secret.png", "outside"),
        ("https://example.org/a.png", "URL"),
        ("file:///etc/passwd", "URL"),
        ("link.png", "link out"),
        ("sub", "no regular file"),
        ("text.png", "of a kind that is not read"),
        ("script.eps", "of a kind that is not read"),
        ("bomb.png", "pixels"),
        ("bomblet.png", "9000 x 12000 pixels"),
        ("cut.png", "trunc|Trunc|broken|unidentified"),
    ],
)
def test_bad_textures_fall_back_to_the_base_colour(tmp_path, name, words):
    (tmp_path / "secret.png").write_bytes(png(big()))
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "text.png").write_text("hello")
    (folder / "script.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n")
    (folder / "bomb.png").write_bytes(png_bomb(100_000, 100_000))
    (folder / "bomblet.png").write_bytes(png_bomb(9_000, 12_000))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    (folder / "cut.png").write_bytes(png(noise)[:3000])
    gltf = Gltf()
    gltf.quad(material=gltf.material({"uri": name}, (1, 0, 0, 1)))
    for path in (gltf.write(folder / "a.glb"), write_obj(folder, map_name=name)):
        if path.suffix == ".obj" and "%" in name:
            continue  # OBJ does not escape
        with pytest.warns(MeshWarning, match=words):
            mesh = read_mesh(path)
        assert mesh.parts[0].texture is None
        wanted = (1, 0, 0, 1) if path.suffix == ".glb" else (0.5, 0.25, 0.125, 1)
        assert mesh.parts[0].base_color == pytest.approx(wanted)


@pytest.mark.parametrize("mtl", ["../a.mtl", "/etc/passwd", "http://example.org/a.mtl", "gone.mtl"])
def test_bad_material_files_are_noted(tmp_path, mtl):
    with pytest.warns(MeshWarning, match="material file"):
        mesh = read_mesh(write_obj(tmp_path, mtl=mtl))
    assert mesh.parts[0].base_color == pytest.approx((0.8, 0.8, 0.8, 1))


def test_a_texture_without_uvs_is_noted(tmp_path):
    (tmp_path / "four.png").write_bytes(png(big()))
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh(POSITION=TRIANGLE, material=gltf.material(png(big()), (0, 1, 0, 1))))
    for path in (gltf.write(tmp_path / "a.glb"), write_obj(tmp_path, uvs=False)):
        with pytest.warns(MeshWarning, match="no UVs"):
            assert read_mesh(path).parts[0].texture is None


def test_transparent_texels_do_not_leak_their_hidden_colour(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[2:6, 2:6] = (10, 200, 30, 255)
    gltf = Gltf()
    gltf.quad(material=gltf.material(png(pixels), alphaMode="MASK"))
    with pytest.warns(MeshWarning, match="opaque"):
        texture = read_mesh(gltf.write(tmp_path / "a.glb")).parts[0].texture
    assert texture.reshape(-1, 3).min(axis=0).tolist() == [10, 200, 30]


def test_large_textures_are_shrunk_with_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "MAX_TEXTURE_SIDE", 16)
    gltf = Gltf()
    gltf.quad(material=gltf.material(png(big())))
    with pytest.warns(MeshWarning, match="shrunk from 32 x 32"):
        mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    assert mesh.parts[0].texture.shape == (16, 16, 3)
    assert_four(mesh)


def test_many_textures_are_bounded_together(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "MAX_MESH_TEXELS", 1500)
    gltf = Gltf()
    for _ in range(2):
        gltf.quad(material=gltf.material(png(big())))
    with pytest.warns(MeshWarning, match="all together"):
        mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    assert [part.texture is None for part in mesh.parts] == [False, True]


# ---- decimation ----------------------------------------------------------------------------------------------------
def test_many_faces_are_decimated_with_a_note(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=5)  # 20,480 triangles
    (tmp_path / "a.stl").write_bytes(ball.export(file_type="stl"))
    mesh, notes = read_mesh_notes(tmp_path / "a.stl", max_faces=2000)
    assert mesh.n_faces <= 2000 * 1.05
    assert "20,480 triangles were decimated to" in notes[0]
    assert np.abs(np.linalg.norm(mesh.parts[0].vertices, axis=1) - 1).max() < 0.02


def test_decimation_keeps_textures_and_colours_in_place(tmp_path):
    side = 60
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side), indexing="ij")
    points = np.stack([x, y, 0.02 * np.sin(9 * x)], axis=-1).reshape(-1, 3).astype(np.float32)
    a = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    faces = np.stack([a, a + side, a + side + 1, a, a + side + 1, a + 1], axis=1).ravel().astype(np.uint32)
    uvs = np.stack([x, 1 - y], axis=-1).reshape(-1, 2).astype(np.float32)
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh(POSITION=points, TEXCOORD_0=uvs, indices=faces, material=gltf.material(png(big()))))
    with pytest.warns(MeshWarning, match="decimated"):
        mesh = read_mesh(gltf.write(tmp_path / "a.glb"), max_faces=700)
    assert mesh.n_faces <= 740
    assert_four(mesh)
    part = mesh.parts[0]
    assert np.abs(part.uvs - part.vertices[:, :2]).max() < 0.06


# ---- what is no mesh, or a broken one ------------------------------------------------------------------------------
def splat_glb(folder):
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh(POSITION=TRIANGLE, mode=0))
    gltf.root["meshes"][0]["primitives"][0]["extensions"] = {"KHR_gaussian_splatting": {}}
    gltf.root["extensionsUsed"] = ["KHR_gaussian_splatting"]
    return gltf.write(folder / "a.glb")


def write(name, data):
    def make(folder):
        (folder / name).write_bytes(data)
        return folder / name

    return make


def glb_with(change):
    def make(folder):
        gltf = Gltf()
        gltf.quad(material=gltf.material(png(big())))
        change(gltf.root)
        return gltf.write(folder / "a.glb")

    return make


POINT_PLY = b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
POINT_PLY += b"end_header\n0 0 0\n"
LYING_PLY = POINT_PLY.replace(
    b"end_header", b"element face 999999999\nproperty list uchar int vertex_indices\nend_header"
)
BOX_STL = trimesh.creation.box().export(file_type="stl")
BROKEN = {
    "empty": (write("a.glb", b""), "1 to"),
    "text": (write("a.glb", b"hello world, no mesh here"), "must be a GLB"),
    "zip": (write("a.obj", b"PK\x03\x04" + bytes(100)), "a zip archive"),
    "fbx": (write("a.obj", b"Kaydara FBX Binary  \0" + bytes(100)), "FBX"),
    "splat glb": (splat_glb, "read_splats"),
    "points": (write("a.ply", POINT_PLY), "read_points"),
    "lying ply": (write("a.ply", LYING_PLY), "999,999,999 faces"),
    "truncated stl": (write("a.stl", BOX_STL[:-7]), "truncated"),
    "ascii stl without end": (write("a.stl", b"solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0"), "mesh"),
    "obj with a bad index": (write("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n"), "mesh"),
    "obj without faces": (write("a.obj", b"v 0 0 0\nv 1 0 0\n"), "at least one triangle"),
    "no faces": (glb_with(lambda r: r["meshes"].clear() or r["nodes"][0].pop("mesh")), "at least one triangle"),
    "glb index": (glb_with(lambda r: r["accessors"][2].update(count=6, bufferView=0)), "indices|inside|truncated"),
    "node circle": (glb_with(lambda r: r["nodes"][0].update(children=[0])), "tree"),
    "draco": (glb_with(lambda r: r.update(extensionsRequired=["KHR_draco_mesh_compression"])), "packed by"),
    "huge count": (glb_with(lambda r: r["accessors"][0].update(count=10**12)), "element count"),
    "view outside": (glb_with(lambda r: r["bufferViews"][1].update(byteLength=10**9)), "inside"),
    "uv count": (glb_with(lambda r: r["accessors"][1].update(count=3)), "one value for each"),
    "material": (glb_with(lambda r: r["materials"].clear()), "material index"),
    "factor": (
        glb_with(lambda r: r["materials"][0]["pbrMetallicRoughness"].update(baseColorFactor=["x"] * 4)),
        "finite numbers",
    ),
    "version": (glb_with(lambda r: r["asset"].update(version="1.0")), "convert it"),
    "uri": (glb_with(lambda r: r["images"].__setitem__(0, {"uri": "data:image/png;base64,!!"})), "base64"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(tmp_path, name):
    make, words = BROKEN[name]
    with pytest.raises(MeshError, match=words) as caught:
        read_mesh(make(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_truncated_glbs_are_refused_wherever_they_end(tmp_path):
    gltf = Gltf()
    gltf.quad(material=gltf.material(png(big())))
    data = gltf.write(tmp_path / "a.glb").read_bytes()
    for end in range(1, len(data), 37):
        (tmp_path / "cut.glb").write_bytes(data[:end])
        with pytest.raises(MeshError):
            read_mesh(tmp_path / "cut.glb")


def test_damaged_glbs_never_crash(tmp_path):
    """Bytes of the JSON changed at random: a mesh, or a MeshError."""
    gltf = Gltf()
    gltf.quad(material=gltf.material(png(big())))
    data = gltf.write(tmp_path / "a.glb").read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        for at in rng.integers(20, 20 + length, 3):
            changed[at] = rng.choice(np.frombuffer(b'0123456789-[]{}",:aE ', np.uint8))
        (tmp_path / "b.glb").write_bytes(changed)
        try:
            read_mesh_notes(tmp_path / "b.glb")
        except MeshError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("kind", ["obj", "ply", "stl", "stl_ascii"])
def test_damaged_plain_files_never_crash(tmp_path, kind):
    shape = trimesh.creation.icosphere(subdivisions=1)
    out = shape.export(file_type=kind)
    data = out.encode() if isinstance(out, str) else out
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{kind[:3]}"
    for _ in range(60):
        changed = bytearray(data[: rng.integers(1, len(data) + 1)])
        for at in rng.integers(0, len(changed), 4):
            changed[at] = rng.integers(0, 256)
        path.write_bytes(changed)
        try:
            read_mesh_notes(path)
        except MeshError as error:
            assert error.todo


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_triangles_that_are_not_finite_are_dropped(tmp_path, value):
    bad = np.concatenate([TRIANGLE, TRIANGLE])
    bad[4, 0] = value
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh(POSITION=bad))
    with pytest.warns(MeshWarning, match="1 of 2 triangles were dropped"):
        assert read_mesh(gltf.write(tmp_path / "a.glb")).n_faces == 1


def test_instances_are_bounded(tmp_path, monkeypatch):
    from clipgs_lib.meshes import gltf_meshes

    monkeypatch.setattr(gltf_meshes, "MAX_FACES_READ", 100)
    gltf = Gltf()
    mesh = gltf.mesh(POSITION=QUAD, indices=QUAD_INDEX)
    for _ in range(51):
        gltf.node(mesh=mesh)
    with pytest.raises(MeshError, match="bomb"):
        read_mesh(gltf.write(tmp_path / "a.glb"))


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="up_axis"):
        read_mesh(tmp_path / "a.glb", up_axis="y")
    with pytest.raises(ValueError, match="max_faces"):
        read_mesh(tmp_path / "a.glb", max_faces=0)
    with pytest.raises(ValueError, match="factors"):
        read_mesh(tmp_path / "a.glb", factors="gamma")
    for path in (tmp_path / "gone.glb", tmp_path):
        with pytest.raises(MeshError):
            read_mesh(path)


def test_errors_travel_between_processes():
    error = MeshError("a.glb", "it must hold", "nothing", "mend it")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert str(twin) == "a.glb: it must hold, got nothing; mend it"


# ---- folders -------------------------------------------------------------------------------------------------------
def test_the_meshes_of_a_folder_by_their_names(tmp_path):
    (tmp_path / "sub" / ".cache").mkdir(parents=True)
    for name in ("sub/good.glb", "noted.glb", "broken.OBJ", "readme.txt", ".hidden.glb", "sub/.cache/old.glb"):
        (tmp_path / name).write_text("no mesh")
    names = [path.relative_to(tmp_path).as_posix() for path in mesh_files(tmp_path)]
    assert names == ["broken.OBJ", "noted.glb", "sub/good.glb"]


@pytest.mark.real_data
def test_a_sample_of_the_real_meshes(real_data):
    files = mesh_files(real_data / "objects" / "train_cc0", (".glb",))[::26]
    assert len(files) >= 40
    meshes = [read_mesh_notes(file).mesh for file in files]
    assert min(mesh.normalize().sample(64, np.random.default_rng(0)).area for mesh in meshes) > 0.01


@pytest.mark.real_data
def test_a_real_splat_glb_is_named(real_data):
    path = next((real_data / "splats" / "glb").glob("*.glb"))
    with pytest.raises(MeshError, match="read_splats"):
        read_mesh(path)
    ply = next((real_data / "splats" / "ply").glob("*.ply"))
    with pytest.raises(MeshError, match="read_splats"):
        read_mesh(ply)


def test_data_uris(tmp_path):
    gltf = Gltf()
    gltf.quad(material=gltf.material({"uri": "data:image/png;base64," + base64.b64encode(png(big())).decode()}))
    assert_four(read_mesh(gltf.write(tmp_path / "a.glb")))


# ---- OFF, and polygons ---------------------------------------------------------------------------------------------
PYRAMID = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n0.5 0.5 1\n4 0 1 2 3\n3 0 1 4\n3 1 2 4\n3 2 3 4\n3 3 0 4\n"


@pytest.mark.parametrize(
    "head", ["OFF\n5 5 0\n", "OFF5 5 0\n", "OFF 5 5 0\n", "# made by hand\n\nOFF\n# counts\n5 5 0\n"]
)
def test_off_as_modelnet_writes_it(tmp_path, head):
    (tmp_path / "a.off").write_text(head + PYRAMID)
    mesh, notes = read_mesh_notes(tmp_path / "a.off")
    assert (mesh.n_faces, mesh.up_axis, notes) == (6, "unknown", ())
    assert np.array(mesh.bounds()).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_off_with_colours_says_that_they_are_lost(tmp_path):
    corners = "".join(f"{corner} 255 0 0 255\n" for corner in ("0 0 0", "1 0 0", "0 1 0"))
    (tmp_path / "a.off").write_text(f"COFF\n3 1 0\n{corners}3 0 1 2\n")
    mesh, notes = read_mesh_notes(tmp_path / "a.off")
    assert mesh.n_faces == 1 and "colours of the corners" in notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OFF\n5 5 0\n" + PYRAMID[:-24], "must hold the 5 faces of its header, got 3"),
        ("OFF\n5 5 0\n" + PYRAMID[:20], "intact mesh"),
        ("OFF\n5 5 0\n" + PYRAMID.replace("3 0 1 4", "3 0 1 5"), "intact mesh"),
        ("OFF\n1 0 0\n0 0 0\n", "at least one triangle"),
        ("OFF1e9 5\n", "intact mesh"),
    ],
)
def test_broken_off_is_refused(tmp_path, text, message):
    (tmp_path / "a.off").write_text(text)
    with pytest.raises(MeshError, match=message):
        read_mesh(tmp_path / "a.off")


@pytest.mark.parametrize("corners", [3, 4, 5, 12])
def test_an_obj_whose_faces_are_all_one_polygon(tmp_path, corners):
    angles = 2 * np.pi * np.arange(corners) / corners
    lines = [f"v {np.cos(angle)} {np.sin(angle)} 0" for angle in angles]
    (tmp_path / "a.obj").write_text("\n".join([*lines, "f " + " ".join(str(i + 1) for i in range(corners))]))
    mesh = read_mesh(tmp_path / "a.obj")
    area = corners / 2 * np.sin(2 * np.pi / corners)
    assert mesh.n_faces == corners - 2
    assert mesh.sample(10, np.random.default_rng(0)).area == pytest.approx(area, rel=1e-5)
