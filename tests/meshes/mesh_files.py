"""Builders of small mesh files for the import tests: GLBs by hand, so that every field is under control."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
QUAD = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
QUAD_INDEX = np.array([0, 1, 2, 0, 2, 3], np.uint16)
QUAD_UVS_DOWN = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)  # glTF counts v downwards
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_CODES = {"float32": 5126, "int8": 5120, "uint8": 5121, "uint16": 5123, "uint32": 5125}


class Gltf:
    """Collects accessors and images; ``root`` may be changed at will before it is written."""

    def __init__(self) -> None:
        self.binary = b""
        self.root: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "bufferViews": [],
            "accessors": [],
            "meshes": [],
            "nodes": [],
            "scenes": [{"nodes": []}],
            "scene": 0,
        }

    def view(self, data: bytes) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.root["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)})
        self.binary += data
        return len(self.root["bufferViews"]) - 1

    def accessor(self, values: np.ndarray, normalized: bool = False) -> int:
        values = np.ascontiguousarray(values)
        width = 1 if values.ndim == 1 else values.shape[1]
        entry = {
            "bufferView": self.view(values.tobytes()),
            "componentType": _CODES[values.dtype.name],
            "count": len(values),
            "type": _TYPES[width],
        }
        self.root["accessors"].append(entry | ({"normalized": True} if normalized else {}))
        return len(self.root["accessors"]) - 1

    def mesh(self, *, indices: np.ndarray | None = None, material: int | None = None, mode: int | None = None,
             **attributes: np.ndarray) -> int:  # fmt: skip
        """A mesh of one primitive; bytes are normalised."""
        primitive: dict[str, Any] = {
            "attributes": {
                name: self.accessor(v, v.dtype == np.uint8 and name != "JOINTS_0") for name, v in attributes.items()
            }
        }
        for name, value in (("indices", None if indices is None else self.accessor(indices)), ("material", material),
                            ("mode", mode)):  # fmt: skip
            if value is not None:
                primitive[name] = value
        self.root["meshes"].append({"primitives": [primitive]})
        return len(self.root["meshes"]) - 1

    def node(self, root: bool = True, **entries: Any) -> int:
        self.root["nodes"].append(entries)
        if root:
            self.root["scenes"][0]["nodes"].append(len(self.root["nodes"]) - 1)
        return len(self.root["nodes"]) - 1

    def material(self, texture: Any = None, factor: Any = None, **entries: Any) -> int:
        """``texture``: an image entry (``{"uri": ...}``), bytes of a picture, or None."""
        look: dict[str, Any] = {}
        if factor is not None:
            look["baseColorFactor"] = list(factor)
        if texture is not None:
            if isinstance(texture, bytes):
                texture = {"bufferView": self.view(texture), "mimeType": "image/png"}
            self.root.setdefault("images", []).append(texture)
            self.root.setdefault("textures", []).append({"source": len(self.root["images"]) - 1})
            look["baseColorTexture"] = {"index": len(self.root["textures"]) - 1}
        self.root.setdefault("materials", []).append({"pbrMetallicRoughness": look} | entries)
        return len(self.root["materials"]) - 1

    def quad(self, **options: Any) -> int:
        """A textured quad in z = 0, standing in the scene."""
        return self.node(mesh=self.mesh(POSITION=QUAD, TEXCOORD_0=QUAD_UVS_DOWN, indices=QUAD_INDEX, **options))

    def write(self, path: Path) -> Path:
        root = self.root | {"buffers": [{"byteLength": len(self.binary)}]}
        text = json.dumps(root).encode()
        text += b" " * (-len(text) % 4)
        binary = self.binary + b"\0" * (-len(self.binary) % 4)
        body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
        return path


def png(pixels: Any, mode: str | None = None) -> bytes:
    """A PNG of ``pixels``."""
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(out, "PNG")
    return out.getvalue()


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes whose header promises ``width`` by ``height`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


FOUR = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)  # red green / blue yellow
