"""A glTF 2.0 document, for splats and meshes alike: JSON, buffers, accessors with every reference checked, nodes."""

import base64
import binascii
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch

from ..geometry import quat_to_rotmat
from .packing import json_object
from .raw import FormatError, check_count

_CHUNK = struct.Struct("<I4s")
_GLB_HEADER = struct.Struct("<4sII")
_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_UNSIGNED = (5121, 5123, 5125)
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_JSON_LIMIT = 64 << 20
_DEPTH = 256
INSTANCING = "EXT_mesh_gpu_instancing"


class Document:
    """Checked access to the JSON (``root``) and the bytes (``total_bytes`` so far) of a glTF."""

    def __init__(self, path: Path, root: dict[str, Any], binary: bytes | None, total_bytes: int) -> None:
        self.path, self.root, self.total_bytes = path, root, total_bytes
        self._binary = binary
        self._buffers: dict[int, bytes] = {}
        self._lists: dict[str, list[dict[str, Any]]] = {}

    def listed(self, key: str) -> list[dict[str, Any]]:
        """A list of objects at the top of the document, checked once."""
        if key not in self._lists:
            self._lists[key] = self.items(self.root, key, dict)
        return self._lists[key]

    def refuse(self, must: str, got: Any, todo: str = "the file is broken", code: str = "unreadable") -> FormatError:
        """The error to raise."""
        return FormatError(self.path, must, repr(got)[:120], todo, code)

    def items(self, entry: dict[str, Any], key: str, kind: type) -> list[Any]:
        """The list under ``key``, empty when absent, with every element of one kind."""
        values = entry.get(key, [])
        if not isinstance(values, list) or not all(type(value) is kind for value in values):
            raise self.refuse(f"{key} must be a list of {kind.__name__}", values)
        return values

    def child(self, entry: dict[str, Any], key: str) -> dict[str, Any]:
        """The object under ``key``, empty when absent."""
        value = entry.get(key, {})
        if not isinstance(value, dict):
            raise self.refuse(f"{key} must be an object", value)
        return value

    def item(self, values: list[Any], index: Any, what: str) -> Any:
        """``values[index]``."""
        if type(index) is not int or not 0 <= index < len(values):
            raise self.refuse(f"the {what} index must lie in 0..{len(values) - 1}", index)
        return values[index]

    def whole(self, entry: dict[str, Any], key: str, default: int | None = None) -> int:
        """The whole number >= 0 under ``key``."""
        value = entry.get(key, default)
        if type(value) is not int or not 0 <= value < 1 << 48:
            raise self.refuse(f"{key} must be a whole number >= 0", value)
        return value

    def numbers(
        self, entry: dict[str, Any], key: str, count: int, default: tuple[float, ...] | None = None
    ) -> np.ndarray:
        """``[count]`` float64, finite."""
        values: Any = entry.get(key, default)
        fits = isinstance(values, (list, tuple)) and len(values) == count
        if not fits or not all(type(v) in (int, float) and -1e18 < v < 1e18 for v in values):
            raise self.refuse(f"{key} must hold {count} finite numbers", values)
        return np.array(values, np.float64)

    def attribute(self, attributes: dict[str, Any], name: str, width: int) -> np.ndarray:
        """A vertex attribute ``[N, width]`` float32; normalised integers are mapped to ``[0, 1]`` or ``[-1, 1]``."""
        if name not in attributes:
            raise self.refuse(f"the primitive must have the attribute {name}", sorted(attributes), "it is no splat")
        accessors = self.listed("accessors")
        accessor = self.item(accessors, attributes[name], "accessor")
        if _WIDTHS.get(str(accessor.get("type"))) != width:
            raise self.refuse(f"{name} must have {width} component(s)", accessor.get("type"))
        code = self.whole(accessor, "componentType")
        if code not in _COMPONENTS:
            raise self.refuse(f"componentType must be one of {sorted(_COMPONENTS)}", code)
        stored = self._elements(accessor, np.dtype(_COMPONENTS[code]), width)
        if accessor.get("normalized") is True and stored.dtype.kind in "iu":
            scaled = stored.astype(np.float32) / np.iinfo(stored.dtype).max
            return np.maximum(scaled, -1) if stored.dtype.kind == "i" else scaled
        with np.errstate(invalid="ignore"):
            return stored.astype(np.float32)

    def indices(self, index: Any) -> np.ndarray:
        """``[N]`` int64 of an accessor of unsigned whole numbers, as triangles index their vertices."""
        accessor = self.item(self.listed("accessors"), index, "accessor")
        code = self.whole(accessor, "componentType")
        if code not in _UNSIGNED or accessor.get("type") != "SCALAR":
            raise self.refuse("indices must be unsigned scalars", [code, accessor.get("type")])
        return self._elements(accessor, np.dtype(_COMPONENTS[code]), 1)[:, 0].astype(np.int64)

    def view_bytes(self, index: Any) -> bytes:
        """All bytes of a bufferView, as images are stored."""
        data, start, length = self._view(self.item(self.listed("bufferViews"), index, "bufferView"))
        return data[start : start + length]

    def _view(self, view: dict[str, Any]) -> tuple[bytes, int, int]:
        """Buffer, start and length of a bufferView that lies inside its buffer."""
        buffer = self._buffer(self.whole(view, "buffer"))
        length, start = self.whole(view, "byteLength"), self.whole(view, "byteOffset", 0)
        if start + length > len(buffer):
            raise self.refuse(f"a bufferView must lie inside its {len(buffer):,} bytes", [start, length])
        return buffer, start, length

    def _elements(self, accessor: dict[str, Any], component: np.dtype, width: int) -> np.ndarray:
        """The ``[N, width]`` values of an accessor as stored; zeros without a bufferView, sparse ones put in."""
        count = self.whole(accessor, "count")
        if "bufferView" in accessor:
            values = self._rows(accessor, component, width, count)
        else:
            room = 64 * self.total_bytes  # nothing is stored for these, so the file's size bounds them
            if count * component.itemsize * width > room:
                raise self.refuse(f"an accessor without a bufferView must not exceed {room:,} bytes", count)
            values = np.zeros((count, width), component)
        if "sparse" not in accessor:
            return values
        sparse = self.child(accessor, "sparse")
        places, changed = self.child(sparse, "indices"), self.child(sparse, "values")
        number = self.whole(sparse, "count")
        code = self.whole(places, "componentType")
        if code not in _UNSIGNED:
            raise self.refuse(f"componentType of sparse indices must be one of {_UNSIGNED}", code)
        rows = self._rows(places, np.dtype(_COMPONENTS[code]), 1, number)[:, 0].astype(np.int64)
        if number and int(rows.max()) >= count:
            raise self.refuse(f"sparse indices must lie below {count:,}", int(rows.max()))
        values = values.copy()
        values[rows] = self._rows(changed, component, width, number)
        return values

    def _rows(self, entry: dict[str, Any], component: np.dtype, width: int, count: int) -> np.ndarray:
        """``[count, width]`` of the bufferView that an accessor, or a part of a sparse one, names."""
        view = self.item(self.listed("bufferViews"), entry.get("bufferView"), "bufferView")
        buffer, start, length = self._view(view)
        element = component.itemsize * width
        stride, offset = self.whole(view, "byteStride", element), self.whole(entry, "byteOffset", 0)
        if stride < element:
            raise self.refuse(f"byteStride must be at least {element}", stride)
        if count == 0:
            return np.zeros((0, width), component)
        check_count(self.path, count, max(length - offset - element, -1) + stride, stride)
        data = np.frombuffer(buffer, np.uint8, (count - 1) * stride + element, start + offset)
        rows = np.lib.stride_tricks.as_strided(data, (count, element), (stride, 1), writeable=False)
        return np.ascontiguousarray(rows).view(component)  # [N, width]

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            entry = self.item(self.listed("buffers"), index, "buffer")
            data = self._load_buffer(index, entry)
            length = self.whole(entry, "byteLength")
            if len(data) < length:
                must = f"buffer {index} must hold {length:,} bytes"
                raise self.refuse(must, len(data), "the file is truncated; fetch it again", "truncated")
            self._buffers[index] = data
        return self._buffers[index]

    def _load_buffer(self, index: int, entry: dict[str, Any]) -> bytes:
        uri = entry.get("uri")
        if uri is None:
            if index != 0 or self._binary is None:
                raise self.refuse(f"buffer {index} must have a uri", None, "only the first of a GLB may have none")
            return self._binary
        if not isinstance(uri, str):
            raise self.refuse("a uri must be text", uri)
        if uri.startswith("data:"):
            return self.data_uri(uri)
        name = unquote(uri)
        if name in ("", ".", "..") or any(mark in name for mark in "/\\\0:"):
            raise self.refuse("a buffer must be a file in the same folder", uri, "do not trust this file")
        file = self.path.parent / name
        if not file.is_file():
            raise self.refuse(f"the buffer {name!r} must lie beside the .gltf", "no such file", "fetch it as well")
        try:
            data = file.read_bytes()
        except OSError as error:
            raise self.refuse(f"the buffer {name!r} must be readable", str(error), "mend its permissions") from None
        self.total_bytes += len(data)
        return data

    def data_uri(self, uri: str) -> bytes:
        """The bytes that a base64 ``data:`` uri holds."""
        head, comma, body = uri.partition(",")
        if not comma or not head.endswith(";base64"):
            raise self.refuse("a data: uri must be base64", head[:60])
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self.refuse("a data: uri must be intact base64", str(error)) from None


def load_document(path: Path) -> Document:
    """Read a ``.glb`` or ``.gltf``, or refuse a broken or cut one; buffers are fetched when they are needed."""
    data = path.read_bytes()
    binary = None
    text = data
    if data.startswith(b"glTF"):
        text, binary = _split_glb(path, data)
    if len(text) > _JSON_LIMIT:
        raise FormatError(path, f"the JSON must not exceed {_JSON_LIMIT:,} bytes", f"{len(text):,}")
    root = json_object(path, text, "the glTF JSON")
    document = Document(path, root, binary, len(data))
    version = document.child(root, "asset").get("version")
    if not isinstance(version, str) or version.partition(".")[0] != "2":
        raise document.refuse("asset.version must be 2.x", version, "convert it to glTF 2.0", "unknown_version")
    return document


def _split_glb(path: Path, data: bytes) -> tuple[bytes, bytes | None]:
    """The JSON and the binary chunk of a GLB; other chunks are skipped, as the specification asks."""
    if len(data) < _GLB_HEADER.size:
        raise FormatError(path, "a GLB header takes 12 bytes", f"{len(data)}", "the file is truncated", "truncated")
    _, version, length = _GLB_HEADER.unpack_from(data)
    if version != 2:
        raise FormatError(path, "the GLB version must be 2", str(version), "convert it to glTF 2.0", "unknown_version")
    if length != len(data):
        must = f"the GLB must hold the {length:,} bytes of its header"
        if length > len(data):
            raise FormatError(path, must, f"{len(data):,}", "it is truncated; fetch it again", "truncated")
        raise FormatError(path, must, f"{len(data):,}", "it is longer than it says; it has trailing bytes")
    chunks: list[tuple[bytes, bytes]] = []
    at = _GLB_HEADER.size
    while at < len(data):
        size, kind = _CHUNK.unpack_from(data, at) if at + _CHUNK.size <= len(data) else (len(data), b"")
        at += _CHUNK.size
        if size > len(data) - at:
            must = "every GLB chunk must lie inside the file"
            raise FormatError(path, must, f"{size:,} bytes at {at:,}", "the file is broken")
        chunks.append((kind, data[at : at + size]))
        at += size
    if not chunks or chunks[0][0] != b"JSON":
        raise FormatError(path, "the first GLB chunk must be JSON", repr(chunks[0][0]) if chunks else "none")
    binary = chunks[1][1] if len(chunks) > 1 and chunks[1][0] == b"BIN\0" else None
    return chunks[0][1], binary


# ---- the node tree ---------------------------------------------------------------------------------------------------


def world_matrices(document: Document) -> dict[int, np.ndarray]:
    """World matrix ``[4, 4]`` float64 of every node of the scene, by node index, parents before children.

    The scene is the document's default, else its first; without scenes, all root nodes. They must form a tree.
    """
    nodes, scenes = document.listed("nodes"), document.listed("scenes")
    if scenes:
        roots = document.items(document.item(scenes, document.root.get("scene", 0), "scene"), "nodes", int)
    else:
        children = {child for node in nodes for child in document.items(node, "children", int)}
        roots = [index for index in range(len(nodes)) if index not in children]
    world: dict[int, np.ndarray] = {}
    waiting = [(index, np.eye(4), 0) for index in reversed(roots)]
    while waiting:
        index, parent, depth = waiting.pop()
        if index in world or depth > _DEPTH:
            raise document.refuse(
                "nodes must form a tree", f"node {index} twice or {depth} levels deep", "it is broken"
            )
        node = document.item(nodes, index, "node")
        world[index] = parent @ _local_matrix(document, node)
        waiting += [(child, world[index], depth + 1) for child in reversed(document.items(node, "children", int))]
    return world


def placed_meshes(document: Document) -> list[tuple[dict[str, Any], dict[str, Any], np.ndarray]]:
    """Each mesh of the scene with its node and its world matrix; all meshes when there are no nodes.

    A node with ``EXT_mesh_gpu_instancing`` comes once per instance.
    """
    nodes, meshes = document.listed("nodes"), document.listed("meshes")
    if not nodes:
        return [(mesh, {}, np.eye(4)) for mesh in meshes]
    world = world_matrices(document)
    return [
        (document.item(meshes, nodes[index]["mesh"], "mesh"), nodes[index], placed)
        for index, matrix in world.items()
        if "mesh" in nodes[index]
        for placed in matrix @ _instances(document, nodes[index])
    ]


def _instances(document: Document, node: dict[str, Any]) -> np.ndarray:
    """``[I, 4, 4]`` places of a node's instances in its own frame; the identity where there are none."""
    extensions = document.child(node, "extensions")
    if INSTANCING not in extensions:
        return np.eye(4)[None]
    attributes = document.child(document.child(extensions, INSTANCING), "attributes")
    kinds = {"TRANSLATION": (0, 0, 0), "ROTATION": (0, 0, 0, 1), "SCALE": (1, 1, 1)}
    given = {
        name: document.attribute(attributes, name, len(rest)) for name, rest in kinds.items() if name in attributes
    }
    counts = {len(values) for values in given.values()}
    if len(counts) != 1:
        raise document.refuse("the attributes of instances must have one count", sorted(counts))
    (count,) = counts
    values = [given.get(name, np.tile(np.array(rest, float), (count, 1))) for name, rest in kinds.items()]
    if not all(np.isfinite(v).all() for v in values):
        raise document.refuse("the places of instances must be finite", "NaN or infinity")
    return _matrices(document, *values)


def _local_matrix(document: Document, node: dict[str, Any]) -> np.ndarray:
    """``[4, 4]`` float64 of a node: its matrix (stored by columns), or translation, rotation (xyzw), scale."""
    if "matrix" in node:
        return document.numbers(node, "matrix", 16).reshape(4, 4).T
    kinds = {"translation": (0, 0, 0), "rotation": (0, 0, 0, 1), "scale": (1, 1, 1)}
    values = [document.numbers(node, name, len(rest), rest)[None] for name, rest in kinds.items()]
    return _matrices(document, *values)[0]


def _matrices(document: Document, translations: np.ndarray, rotations: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """``[I, 4, 4]`` float64 of translations ``[I, 3]``, rotations ``[I, 4]`` (xyzw) and scales ``[I, 3]``."""
    if not (np.linalg.norm(rotations, axis=1) > 1e-6).all():
        raise document.refuse("a node's rotation must not be zero", (0, 0, 0, 0))
    turns = quat_to_rotmat(torch.from_numpy(rotations[:, [3, 0, 1, 2]].astype(np.float64))).numpy()  # [I, 3, 3]
    matrices = np.tile(np.eye(4), (len(scales), 1, 1))
    matrices[:, :3, :3] = turns * scales[:, None, :]
    matrices[:, :3, 3] = translations
    return matrices
