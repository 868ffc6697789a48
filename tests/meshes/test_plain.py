"""OBJ, PLY and STL as their many writers write them: no texture, colour or material is lost without a note."""

from __future__ import annotations

import numpy as np
import pytest

from clipgs_lib.meshes import read_mesh_notes

from .mesh_files import png
from .test_reported import colors, read

UV_QUAD = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
GREY = [0.8, 0.8, 0.8]


def wavefront(folder, body: str, mtl: str = "newmtl M\nKd 1 0 0\n", **pictures: np.ndarray):
    """An OBJ of a unit quad in z = 0 with UVs, its material file and pictures ``NAME.png``."""
    for name, pixels in pictures.items():
        (folder / f"{name}.png").write_bytes(png(pixels))
    (folder / "m.mtl").write_bytes(mtl.encode())
    (folder / "a.obj").write_bytes(body.encode())
    return folder / "a.obj"


def halves() -> np.ndarray:
    """A picture whose left half is red and whose right half is blue."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8, 0], pixels[:, 8:, 2] = 255, 255
    return pixels


@pytest.mark.parametrize(
    ("options", "red"),
    [
        ("", [1, 0]),
        ("-bm 0.5 -blendu on -texres 64 ", [1, 0]),
        ("-o 0.5 0 0 ", [0, 1]),
        ("-s 2 2 1 ", [0.5, 0.5]),
        ("-o 0.5 -s 0.5 1 1 ", [0, 0]),
        ("-s\t2\t1\t1\t-clamp on ", [0.5, 0]),
    ],
)
def test_options_before_the_name_of_a_texture(tmp_path, options, red):
    """Scale and offset move the picture, -clamp holds its edge; ``red`` is the share of red left and right."""
    body = f"mtllib m.mtl\n{UV_QUAD}usemtl M\nf 1/1 2/2 3/3 4/4\n"
    path = wavefront(tmp_path, body, f"newmtl M\nmap_Kd {options}two  halves.png\t\n", **{"two  halves": halves()})
    mesh, notes = read(path)
    samples = mesh.sample(20_000, np.random.default_rng(0))
    left = samples.points[:, 0] < 0.5
    share = [float((samples.colors[side, 0] > 0.5).mean()) for side in (left, ~left)]
    assert share == pytest.approx(red, abs=0.03) and notes == ""


def test_options_that_are_not_applied_are_named(tmp_path):
    body = f"mtllib m.mtl\n{UV_QUAD}usemtl M\nf 1/1 2/2 3/3\n"
    path = wavefront(tmp_path, body, "newmtl M\nmap_Kd -mm 0.2 0.5 -imfchan r p.png\n", p=halves())
    mesh, notes = read(path)
    assert mesh.parts[0].texture is not None and "were not applied: imfchan, mm" in notes


def test_material_files_stand_anywhere_and_words_in_comments_mean_nothing(tmp_path):
    (tmp_path / "n.mtl").write_text("newmtl N\nKd 0 0 1\n")
    body = (
        f"# usemtl old\n{UV_QUAD}mtllib m.mtl\nusemtl M\n  f 1/1 2/2 3/3\n# usemtl other\ng usemtl N\nf 1/1 3/3 4/4\n"
    )
    body += "\tmtllib n.mtl\n v 0 0 1\n\tusemtl\tN\t\nf 1/1 2/2 5/3\n"
    mesh, notes = read(wavefront(tmp_path, body))
    assert {(part.name, part.base_color[:3], len(part.faces)) for part in mesh.parts} == {
        ("M", (1, 0, 0), 2),
        ("N", (0, 0, 1), 1),
    }
    assert notes == ""


@pytest.mark.parametrize("ends", ["\r", "\r\n"])
def test_line_ends(tmp_path, ends):
    body = f"mtllib m.mtl\n{UV_QUAD}usemtl M\nf 1/1 2/2 \\\n3/3\n".replace("\n", ends)
    mesh, notes = read(wavefront(tmp_path, body, "newmtl M\nKd 1 0 0\n".replace("\n", ends)))
    assert mesh.parts[0].base_color[:3] == (1, 0, 0) and notes == ""


@pytest.mark.parametrize("kd", ["spectral gold.rfl", "xyz 0.1 0.2 0.3", "0.1 0.2"])
def test_a_colour_that_is_no_rgb_is_noted(tmp_path, kd):
    path = wavefront(tmp_path, f"mtllib m.mtl\n{UV_QUAD}usemtl M\nf 1 2 3\n", f"newmtl M\nKd {kd}\n")
    assert read_mesh_notes(path).lost == ("M",)
    np.testing.assert_allclose(colors(read(path)[0]).mean(0), GREY, atol=0.01)


def test_faces_before_the_first_material_and_ambient_textures_are_noted(tmp_path):
    body = f"mtllib m.mtl\n{UV_QUAD}f 1 2 3\nusemtl M\nf 1/1 3/3 4/4\n"
    _, notes = read(wavefront(tmp_path, body, "newmtl M\nKd 1 0 0\nmap_Ka wood.png\n"))
    assert "before the first usemtl" in notes and "'wood.png'" in notes and "map_Ka" in notes


def test_vertex_colours_of_some_vertices_and_times_their_material(tmp_path):
    """Three of four vertices are green, the fourth is white; the material is half as bright."""
    body = "mtllib m.mtl\nv 0 0 0 0 1 0\nv 1 0 0 0 1 0\nv 0 1 0 0 1 0\nv 1 1 0\nusemtl M\nf 1 2 3\nf 2 4 3\n"
    mesh, _ = read(wavefront(tmp_path, body, "newmtl M\nKd 0.5 0.5 0.5\n"))
    part = mesh.parts[0]
    np.testing.assert_allclose(part.colors[np.argsort(part.vertices.sum(1))[[0, 3]]], [[0, 1, 0], [1, 1, 1]])
    assert part.base_color == (0.5, 0.5, 0.5, 1)


def test_corners_with_and_without_uvs_are_not_mixed_up(tmp_path):
    """``1//1`` names a normal, not UVs; both ways of writing have as many numbers."""
    body = f"mtllib m.mtl\n{UV_QUAD}vn 0 0 1\nusemtl M\nf 1/1 2/2 3/3\nf 1//1 3//1 4//1\n"
    mesh, notes = read(wavefront(tmp_path, body, "newmtl M\nmap_Kd p.png\n", p=halves()))
    assert mesh.n_faces == 2 and ("no UVs" in notes or np.ptp(mesh.parts[0].uvs, axis=0).min() == 1)


@pytest.mark.parametrize("corners", [5, 6])
def test_polygons_that_are_all_alike(tmp_path, corners):
    angle = 2 * np.pi * np.arange(corners) / corners
    text = "".join(f"v {np.cos(a)} {np.sin(a)} 0\n" for a in angle) + "f " + " ".join(map(str, range(1, corners + 1)))
    (tmp_path / "a.obj").write_text(text + "\n")
    mesh, _ = read(tmp_path / "a.obj")
    area = mesh.sample(10, np.random.default_rng(0)).area
    assert area == pytest.approx(corners / 2 * np.sin(2 * np.pi / corners), abs=1e-5)


def ply(folder, properties: str, vertices: str, faces: str, *, of_faces: str = "", head: str = "", material: str = ""):
    """An ASCII PLY; counts are those of the lines."""
    text = f"ply\nformat ascii 1.0\n{head}element vertex {len(vertices.splitlines())}\n"
    text += "".join(f"property {line}\n" for line in ("float x", "float y", "float z", *properties.split(";")) if line)
    text += f"element face {len(faces.splitlines())}\nproperty list uchar int vertex_indices\n"
    text += "".join(f"property {line}\n" for line in of_faces.split(";") if line)
    text += material.partition("|")[0] + f"end_header\n{vertices}{faces}{material.partition('|')[2]}"
    (folder / "a.ply").write_bytes(text.encode("latin-1"))
    return folder / "a.ply"


RGB = "uchar red;uchar green;uchar blue"


@pytest.mark.parametrize("names", ["texture_u texture_v", "texture_s texture_t", "s t", "u v"])
def test_uvs_and_colours_of_a_ply_stay_together(tmp_path, names):
    """Colours at the vertices, of which one is in no face, times a white picture that a latin-1 comment names."""
    (tmp_path / "caf\xe9.png").write_bytes(png(np.full((4, 4, 3), 255, np.uint8)))
    u, v = names.split()
    corners = "9 9 9 0 0 9 9 9\n0 0 0 0 0 255 0 0\n1 0 0 1 0 0 255 0\n0 1 0 0 1 0 0 255\n"
    path = ply(tmp_path, f"float {u};float {v};{RGB}", corners, "3 1 2 3\n", head="comment TextureFile caf\xe9.png\n")
    mesh, notes = read(path)
    (part,) = mesh.parts
    assert part.texture is not None and notes == ""
    samples = mesh.sample(2000, np.random.default_rng(0))
    expected = np.column_stack([1 - samples.points[:, :2].sum(1), samples.points[:, :2]])
    np.testing.assert_allclose(samples.colors, expected, atol=0.01)


def test_uvs_at_the_corners_of_faces(tmp_path):
    """Triangles that share two vertices, whose UVs differ there, with colours at the vertices."""
    (tmp_path / "p.png").write_bytes(png(halves()))
    corners = "0 0 0 255 255 255\n1 0 0 255 255 255\n1 1 0 255 255 255\n0 1 0 255 255 255\n"
    faces = "3 0 1 2 6 .1 .1 .1 .2 .2 .1 0\n3 0 2 3 6 .9 .9 .9 .8 .8 .9 0\n"
    path = ply(tmp_path, RGB, corners, faces, of_faces="list uchar float texcoord;int texnumber",
               head="comment TextureFile p.png\n")  # fmt: skip
    mesh, notes = read(path)
    samples = mesh.sample(2000, np.random.default_rng(0))
    below = samples.points[:, 0] > samples.points[:, 1]
    np.testing.assert_allclose(samples.colors[below].mean(0), [1, 0, 0], atol=0.01)
    np.testing.assert_allclose(samples.colors[~below].mean(0), [0, 0, 1], atol=0.01)
    assert notes == "" and len(mesh.parts[0].vertices) == 6


def test_colours_of_triangles_and_quads_together(tmp_path):
    corners = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n2 0 0\n"
    mesh, notes = read(ply(tmp_path, "", corners, "4 0 1 2 3 255 0 0\n3 1 4 2 0 0 255\n", of_faces=RGB))
    samples = mesh.sample(2000, np.random.default_rng(0))
    right = samples.points[:, 0] > 1
    np.testing.assert_allclose(samples.colors[right].mean(0), [0, 0, 1], atol=0.01)
    np.testing.assert_allclose(samples.colors[~right].mean(0), [1, 0, 0], atol=0.01)
    assert notes == ""


def test_colours_by_other_names_and_in_materials(tmp_path):
    corners = "0 0 0 0 255 0\n1 0 0 0 255 0\n0 1 0 0 255 0\n"
    mesh, _ = read(ply(tmp_path, RGB.replace("uchar ", "uchar diffuse_"), corners, "3 0 1 2\n"))
    np.testing.assert_allclose(colors(mesh).mean(0), [0, 1, 0], atol=0.01)
    material = "element material 2\n" + "".join(f"property {p}\n" for p in RGB.split(";")) + "|9 9 9\n0 0 255\n"
    mesh, _ = read(ply(tmp_path, "", "0 0 0\n1 0 0\n0 1 0\n", "3 0 1 2 1\n", of_faces="int material_index",
                       material=material))  # fmt: skip
    np.testing.assert_allclose(colors(mesh).mean(0), [0, 0, 1], atol=0.01)


def test_a_texture_number_without_a_name_is_noted(tmp_path):
    (tmp_path / "p.png").write_bytes(png(halves()))
    faces = "3 0 1 2 0\n3 0 1 3 4\n"
    path = ply(tmp_path, "float s;float t", "0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 1\n0 0 1 0 1\n", faces,
               of_faces="int texnumber", head="comment TextureFile p.png\n")  # fmt: skip
    result = read_mesh_notes(path)
    assert result.lost == ("number 4",) and len(result.mesh.parts) == 2


def test_colours_in_the_attributes_of_an_stl_are_noted(tmp_path):
    triangle = np.zeros(1, [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")])
    triangle["v"] = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    for bits, noted in ((0, False), (0x8000 | 31, True)):
        triangle["a"] = bits
        (tmp_path / "a.stl").write_bytes(bytes(80) + (1).to_bytes(4, "little") + triangle.tobytes())
        assert ("attribute bytes" in read(tmp_path / "a.stl")[1]) is noted
