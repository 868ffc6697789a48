"""KHR_gaussian_splatting: attributes, component types, nodes and frame; references that lead nowhere are refused."""

from __future__ import annotations

import base64
import copy
import json
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipgs_lib.formats import FormatError, SplatWarning, read_splats, sniff
from clipgs_lib.geometry import quat_to_rotmat

KHR = "KHR_gaussian_splatting"
CODES = {"i1": 5120, "u1": 5121, "<i2": 5122, "<u2": 5123, "<u4": 5125, "<f4": 5126}
TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def document(splats, kinds: dict[str, str] | None = None) -> tuple[dict, bytes]:
    """glTF JSON and bytes that hold ``splats`` as they are (in glTF's frame); ``kinds`` quantises attributes."""
    columns = {
        "POSITION": splats.means,
        f"{KHR}:ROTATION": splats.quats[:, [1, 2, 3, 0]],
        f"{KHR}:SCALE": splats.scales,
        f"{KHR}:OPACITY": splats.opacities[:, None],
        f"{KHR}:SH_DEGREE_0_COEF_0": splats.sh0[:, 0],
    }
    names = [f"{KHR}:SH_DEGREE_{degree}_COEF_{n}" for degree in (1, 2, 3) for n in range(2 * degree + 1)]
    columns |= {name: splats.shN[:, i] for i, name in enumerate(names[: splats.shN.shape[1]])}
    views, accessors, binary = [], [], b""
    for name, column in columns.items():
        kind = (kinds or {}).get(name.removeprefix(f"{KHR}:"), "<f4")
        values = column.numpy()
        if kind != "<f4":
            values = np.rint(values * np.iinfo(kind).max)
        data = values.astype(kind).tobytes()
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        accessors.append({"bufferView": len(views) - 1, "componentType": CODES[kind], "count": len(splats)})
        accessors[-1] |= {"type": TYPES[values.shape[1]], "normalized": kind != "<f4"}
        binary += data + bytes(-len(data) % 4)
    primitive = {
        "mode": 0,
        "attributes": {name: i for i, name in enumerate(columns)},
        "extensions": {KHR: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}},
    }
    root = {
        "asset": {"version": "2.0"},
        "extensionsUsed": [KHR],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    return root, binary


def glb(root: dict, binary: bytes | None) -> bytes:
    text = json.dumps(root).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if binary is not None:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


@pytest.fixture
def save(tmp_path):
    def write(data: bytes | str, name: str = "x.glb"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


@pytest.fixture
def small(splats_factory):
    return document(splats_factory(20, 1))


def assert_same(read, expected, atol=1e-5) -> None:
    """Same gaussians; rotations may differ by sign only."""
    for name in ("means", "scales", "opacities", "sh0", "shN"):
        torch.testing.assert_close(getattr(read, name), getattr(expected, name), rtol=1e-5, atol=atol)
    torch.testing.assert_close(quat_to_rotmat(read.quats), quat_to_rotmat(expected.quats), rtol=0, atol=max(atol, 1e-5))


# ---- meaning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_half_turn_leads_to_the_frame_of_the_ply(save, splats_factory, degree):
    stored = splats_factory(50, degree)
    read = read_splats(save(glb(*document(stored))))
    assert read.up_axis == "-y"
    assert_same(read, stored.rotate("z", 180))


def test_real_file_equals_the_ply(real_data):
    read = read_splats(real_data / "splats/glb/hamburger.khr_gaussian.glb")
    ply = read_splats(real_data / "splats/ply/hamburger.ply")
    for name in ("means", "quats", "scales", "opacities", "sh0"):
        torch.testing.assert_close(getattr(read, name), getattr(ply, name), rtol=1e-6, atol=1e-7)


def test_quantised_attributes(save, splats_factory):
    stored = splats_factory(50)
    kinds = {"ROTATION": "<i2", "SCALE": "<i2", "OPACITY": "u1"}
    read = read_splats(save(glb(*document(stored, kinds))))
    assert (read.opacities - stored.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (read.scales - stored.scales).abs().max() <= 0.5 / 32767 + 1e-6
    turned = quat_to_rotmat(stored.rotate("z", 180).quats)
    torch.testing.assert_close(quat_to_rotmat(read.quats), turned, rtol=0, atol=2e-4)


def test_opacity_bytes_0_and_255_are_exactly_0_and_1(save, splats_factory):
    stored = splats_factory(2)
    stored.opacities[:] = torch.tensor([0.0, 1.0])
    assert read_splats(save(glb(*document(stored, {"OPACITY": "u1"})))).opacities.tolist() == [0.0, 1.0]


def test_interleaved_attributes(save, splats_factory):
    stored = splats_factory(30)
    root, _ = document(stored)
    columns = [stored.means, stored.quats[:, [1, 2, 3, 0]], stored.scales, stored.opacities[:, None], stored.sh0[:, 0]]
    rows = torch.cat(columns, dim=1).numpy()  # [30, 14]
    data = rows.tobytes()
    root["bufferViews"] = [{"buffer": 0, "byteLength": len(data), "byteStride": 56}]
    root["buffers"] = [{"byteLength": len(data)}]
    at = 0
    for accessor, column in zip(root["accessors"], columns, strict=True):
        accessor |= {"bufferView": 0, "byteOffset": at}
        at += 4 * column.shape[1]
    assert_same(read_splats(save(glb(root, data))), read_splats(save(glb(*document(stored)), "y.glb")))


def test_gltf_with_data_uri_and_with_file_beside_it(save, small):
    root, binary = small
    expected = read_splats(save(glb(root, binary)))
    root["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    path = save(json.dumps(root), "x.gltf")
    assert sniff(path) == "gltf"
    assert_same(read_splats(path), expected, 0)
    save(binary, "the bytes.bin")
    root["buffers"][0]["uri"] = "the%20bytes.bin"
    assert_same(read_splats(save(json.dumps(root), "y.gltf")), expected, 0)


def test_nodes_place_their_meshes(save, splats_factory):
    stored = splats_factory(40, 2)
    root, binary = document(stored)
    half = 0.5**0.5
    root["nodes"] = [
        {"children": [1, 2], "translation": [1, 2, 3]},
        {"mesh": 0, "rotation": [0, 0, half, half], "scale": [2, 2, 2]},
        {"mesh": 0, "matrix": [0, 0, -1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 5, 0, 0, 1]},
    ]
    read = read_splats(save(glb(root, binary)))
    first = torch.eye(4)
    first[:3, :3] = 2 * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    first[:3, 3] = torch.tensor([1.0, 2, 3])
    second = torch.eye(4)
    second[:3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    second[:3, 3] = torch.tensor([6.0, 2, 3])
    assert_same(read[:40], stored.transform(first).rotate("z", 180))
    assert_same(read[40:], stored.transform(second).rotate("z", 180))


def test_mirrored_node(save, splats_factory):
    stored = splats_factory(10, 1)
    root, binary = document(stored)
    root["nodes"][0]["scale"] = [-1, 1, 1]
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    read, expected = read_splats(save(glb(root, binary))), stored.transform(mirror, allow_reflection=True)
    assert_same(read, expected.rotate("z", 180))


def test_primitives_are_joined_and_meshes_beside_them_skipped(save, splats_factory):
    root, binary = document(splats_factory(10))
    primitives = root["meshes"][0]["primitives"]
    triangle = {"attributes": {"POSITION": 0}}
    root["meshes"][0]["primitives"] = [triangle, primitives[0], copy.deepcopy(primitives[0])]
    assert len(read_splats(save(glb(root, binary)))) == 20


def test_document_without_scene_or_nodes(save, small):
    root, binary = small
    expected = read_splats(save(glb(root, binary)))
    del root["scenes"], root["scene"]
    assert_same(read_splats(save(glb(root, binary))), expected, 0)
    del root["nodes"]
    assert_same(read_splats(save(glb(root, binary))), expected, 0)


def test_log_scales_of_the_drafts(save, splats_factory):
    stored = splats_factory(30)
    root, binary = document(stored)
    start = root["bufferViews"][2]["byteOffset"]
    logs = stored.scales.log().numpy().tobytes()
    with pytest.warns(SplatWarning, match="log-scales of a draft"):
        read = read_splats(save(glb(root, binary[:start] + logs + binary[start + len(logs) :])))
    torch.testing.assert_close(read.scales, stored.scales)


@pytest.mark.parametrize(("key", "value"), [("kernel", "cube"), ("colorSpace", "lin_rec709_display")])
def test_unusual_properties_warn(save, small, key, value):
    root, binary = small
    root["meshes"][0]["primitives"][0]["extensions"][KHR][key] = value
    with pytest.warns(SplatWarning, match=f"'{value}' is read as if it were"):
        read_splats(save(glb(root, binary)))


def test_no_gaussians_and_one(save, splats_factory):
    for count in (0, 1):
        root, binary = document(splats_factory(1)[:count])
        assert len(read_splats(save(glb(root, binary)))) == count


# ---- refusals ----------------------------------------------------------------------------------------------------


def primitive(root: dict) -> dict:
    return root["meshes"][0]["primitives"][0]


def set_path(*path_and_value):
    """A change that sets one entry, given by the keys that lead to it and its value."""
    *keys, last, value = path_and_value

    def change(root: dict) -> None:
        for key in keys:
            root = root[key]
        root[last] = value

    return change


def drop(*keys):
    def change(root: dict) -> None:
        for key in keys[:-1]:
            root = root[key]
        del root[keys[-1]]

    return change


SH1 = f"{KHR}:SH_DEGREE_1_COEF_1"
SPARSE = {"count": 1, "values": {"bufferView": 0}}
CHANGES = {
    "a mesh": (lambda r: primitive(r).pop("extensions"), f"must carry {KHR}, got a mesh without gaussians"),
    "nothing": (lambda r: r.update(meshes=[], nodes=[]), "got a glTF without meshes"),
    "glTF 1": (set_path("asset", "version", "1.0"), "asset.version must be 2.x, got '1.0'"),
    "no asset": (drop("asset"), "asset.version must be 2.x, got None"),
    "required": (set_path("extensionsRequired", ["EXT_meshopt_compression"]), "known extensions .*EXT_meshopt"),
    "packed": (
        lambda r: primitive(r)["extensions"][KHR].update(extensions={"KHR_x_spz_2": {}}),
        "stored plainly, got packed by KHR_x_spz_2",
    ),
    "no opacity": (lambda r: primitive(r)["attributes"].pop(f"{KHR}:OPACITY"), "must have the attribute .*OPACITY"),
    "SH hole": (lambda r: primitive(r)["attributes"].pop(SH1), "SH degrees must be complete"),
    "accessor index": (lambda r: primitive(r)["attributes"].update(POSITION=99), "accessor index must lie in"),
    "negative index": (lambda r: primitive(r)["attributes"].update(POSITION=-1), "accessor index must lie in"),
    "index is text": (lambda r: primitive(r)["attributes"].update(POSITION="0"), "accessor index must lie in"),
    "sparse": (set_path("accessors", 0, "sparse", {"count": 1}), "componentType must be a whole number"),
    "sparse index": (
        set_path("accessors", 0, "sparse", SPARSE | {"indices": {"bufferView": 0, "componentType": 5125}}),
        "sparse indices must lie below 20",
    ),
    "many zeros": (
        lambda r: r["accessors"][0].pop("bufferView") is None or r["accessors"][0].update(count=1 << 40),
        "without a bufferView must not exceed",
    ),
    "wrong type": (set_path("accessors", 0, "type", "VEC4"), r"POSITION must have 3 component\(s\), got 'VEC4'"),
    "component": (set_path("accessors", 0, "componentType", 5130), "componentType must be one of"),
    "counts differ": (set_path("accessors", 0, "count", 19), r"must have one count, got counts \[19, 20\]"),
    "count too large": (set_path("accessors", 0, "count", 21), "21 gaussians need at least 252 bytes, got 240"),
    "count negative": (set_path("accessors", 0, "count", -1), "count must be a whole number >= 0, got -1"),
    "count huge": (set_path("accessors", 0, "count", 4_000_000_000), "gaussian count must lie in"),
    "offset": (set_path("accessors", 0, "byteOffset", 8), "20 gaussians need at least 240 bytes, got 232"),
    "offset beyond": (set_path("accessors", 0, "byteOffset", 1 << 40), "20 gaussians need at least"),
    "stride": (set_path("bufferViews", 0, "byteStride", 8), "byteStride must be at least 12, got 8"),
    "stride zero": (set_path("bufferViews", 0, "byteStride", 0), "byteStride must be at least 12, got 0"),
    "view beyond": (set_path("bufferViews", 0, "byteLength", 1 << 40), "bufferView must lie inside its"),
    "buffer index": (set_path("bufferViews", 0, "buffer", 3), "buffer index must lie in"),
    "buffer longer": (set_path("buffers", 0, "byteLength", 1 << 30), "buffer 0 must hold 1,073,741,824 bytes"),
    "second without uri": (
        lambda r: (r["buffers"].append({"byteLength": 4}), r["bufferViews"][0].update(buffer=1)),
        "buffer 1 must have a uri",
    ),
    "network": (set_path("buffers", 0, "uri", "https://host/x.bin"), "file in the same folder, got 'https"),
    "parent folder": (set_path("buffers", 0, "uri", "../x.bin"), "file in the same folder"),
    "escaped parent": (set_path("buffers", 0, "uri", "%2e%2e%2fx.bin"), "file in the same folder"),
    "absolute": (set_path("buffers", 0, "uri", "/etc/passwd"), "file in the same folder"),
    "missing file": (set_path("buffers", 0, "uri", "no.bin"), "must lie beside the .gltf, got 'no such file'"),
    "bad data uri": (set_path("buffers", 0, "uri", "data:;base64,$$"), "intact base64"),
    "plain data uri": (set_path("buffers", 0, "uri", "data:,abc"), "data: uri must be base64"),
    "uri no text": (set_path("buffers", 0, "uri", 7), "uri must be text, got 7"),
    "meshes an object": (set_path("meshes", {}), "meshes must be a list of dict"),
    "attributes a list": (lambda r: primitive(r).update(attributes=[]), "attributes must be an object"),
    "scene index": (set_path("scene", 5), "scene index must lie in"),
    "node index": (set_path("scenes", 0, "nodes", [4]), "node index must lie in"),
    "mesh index": (set_path("nodes", 0, "mesh", True), "mesh index must lie in"),
    "cycle": (set_path("nodes", 0, "children", [0]), "nodes must form a tree"),
    "no root": (lambda r: (r.pop("scenes"), r["nodes"][0].update(children=[0])), f"must carry {KHR}"),
    "flat scale": (set_path("nodes", 0, "scale", [1, 0, 3]), "finite and invertible"),
    "zero scale": (set_path("nodes", 0, "scale", [0, 0, 0]), "finite and invertible"),
    "zero rotation": (set_path("nodes", 0, "rotation", [0, 0, 0, 0]), "rotation must not be zero"),
    "short matrix": (set_path("nodes", 0, "matrix", [1.0] * 15), "matrix must hold 16 finite numbers"),
    "matrix not finite": (set_path("nodes", 0, "matrix", [float("nan")] * 16), "matrix must hold 16 finite numbers"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_documents_that_do_not_hold(save, small, case):
    change, message = CHANGES[case]
    root, binary = small
    change(root)
    path = save(glb(root, binary))
    with pytest.raises(FormatError, match=message) as caught:
        read_splats(path)
    assert str(caught.value).startswith(str(path))


def test_deep_chain_of_nodes(save, small):
    root, binary = small
    root["nodes"] = [{"children": [i + 1]} for i in range(300)] + [{"mesh": 0}]
    with pytest.raises(FormatError, match="levels deep"):
        read_splats(save(glb(root, binary)))


def test_instancing_bomb(save, splats_factory):
    root, binary = document(splats_factory(2000))
    root["nodes"] = [{"mesh": 0} for _ in range(5000)]
    root["scenes"] = [{"nodes": list(range(5000))}]
    path = save(glb(root, binary))
    tracemalloc.start()
    with pytest.raises(FormatError, match="must not be instanced to more than"):
        read_splats(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 256 << 20
    root["meshes"][0]["primitives"] *= 10_001
    with pytest.raises(FormatError, match="at most 10,000 primitives"):
        read_splats(save(glb(root, binary)))


def test_logits_as_opacities(save, splats_factory):
    stored = splats_factory(20)
    root, binary = document(stored)
    start = root["bufferViews"][3]["byteOffset"]
    logits = torch.full((20,), -3.0).numpy().tobytes()
    with pytest.raises(FormatError, match=r"opacities must lie in \[0, 1\], got 20 of 20 outside.*sigmoid"):
        read_splats(save(glb(root, binary[:start] + logits + binary[start + 80 :])))


def test_non_finite_rows_are_dropped(save, splats_factory):
    stored = splats_factory(20)
    stored = replace(stored, means=stored.means.clone().index_fill_(0, torch.tensor([3]), float("inf")))
    path = save(glb(*document(stored)))
    with pytest.warns(SplatWarning, match="1 non-finite"):
        assert len(read_splats(path)) == 19


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (slice(0, 8), "GLB header takes 12 bytes"),
        (slice(0, -1), "truncated"),
        (slice(0, 100), "truncated"),
    ],
)
def test_truncated(save, small, cut, message):
    with pytest.raises(FormatError, match=message):
        read_splats(save(glb(*small)[cut]))


def test_broken_chunks(save, small):
    data = glb(*small)
    with pytest.raises(FormatError, match=r"longer than it says|trailing"):
        read_splats(save(data + b"more"))
    with pytest.raises(FormatError, match="GLB version must be 2, got 7"):
        read_splats(save(data[:4] + b"\x07" + data[5:]))
    with pytest.raises(FormatError, match="every GLB chunk must lie inside"):
        read_splats(save(data[:12] + b"\xff\xff\xff\x7f" + data[16:]))
    with pytest.raises(FormatError, match="first GLB chunk must be JSON"):
        read_splats(save(data[:16] + b"BIN\0" + data[20:]))
    with pytest.raises(FormatError, match="glTF JSON must be valid JSON"):
        read_splats(save(data[:20] + b"!" + data[21:]))
    with pytest.raises(FormatError, match="first GLB chunk must be JSON, got none"):
        read_splats(save(struct.pack("<4sII", b"glTF", 2, 12)))
    with pytest.raises(FormatError, match="buffer 0 must have a uri"):
        read_splats(save(glb(small[0], None)))
    with pytest.raises(FormatError, match="valid JSON"):
        read_splats(save('{"asset":' + "[" * 100_000, "x.gltf"))


def test_real_meshes_are_called_meshes(real_data):
    for path in sorted((real_data / "objects/train_cc0").glob("*.glb"))[:5]:
        with pytest.raises(FormatError, match="a mesh without gaussians"):
            read_splats(path)
