"""Files that no reader takes: what they are instead, and what can be saved of a truncated one."""

from __future__ import annotations

import json
import re
import struct
import tempfile
import zlib
from pathlib import Path
from types import ModuleType

from .base import FormatError, RawSplats
from .doctor_report import Finding
from .ply_header import classify, locate, read_header

HEAD_BYTES = 4096
_MAGIC = (
    (b"ply", "a PLY file"), (b"glTF", "a GLB file"), (b"\x89PNG", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"),
    (b"RIFF", "a RIFF file (WebP, WAV)"), (b"%PDF", "a PDF"), (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a numpy array"),
    (b"PK\x03\x04", "a zip archive"), (b"BZh", "a bzip2 archive"), (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"), (b"Rar!", "a RAR archive"), (b"\x28\xb5\x2f\xfd", "a zstd stream"),
    (b"\x1f\x8b", "a gzip stream"), (b"# Blender", "an OBJ mesh"), (b"solid ", "an STL mesh"),
)  # fmt: skip
_ARCHIVES = ("zip", "bzip2", "xz", "7-Zip", "RAR", "zstd", "gzip")


def looks_like(head: bytes) -> str:
    """What the first bytes say in words; empty when they say nothing."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def explain(path: Path, head: bytes, error: FormatError) -> Finding:
    """Turn a reader's refusal into a finding with a code, keeping its words."""
    text = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    message = f"{error.must}, got {error.got}"
    if path.is_file() and not head:
        return Finding("empty_file", "error", message, error.todo)
    if text.startswith(b"version https://git-lfs"):
        return Finding("lfs_pointer", "error", message, error.todo)
    if b"<html" in text or text.startswith((b"<!doctype html", b"<head", b"<?xml")):
        return Finding("html_page", "error", message, error.todo)
    if head.startswith(b"\x1f\x8b") and (inner := _gzip_head(head)):
        name = looks_like(inner)
        mend = f"unpack it first: gunzip -c {path.name} > {path.stem}"
        return Finding("gzip_wrapped", "error", f"a gzip stream around {name or 'something else than SPZ'}", mend)
    for code, pattern in (
        ("truncated", r"truncated|ends early|partly downloaded"),
        ("two_scales", r"2DGS"),
        ("sh_columns", r"f_rest"),
        ("unknown_version", r"version must"),
        ("missing_columns", r"properties of a gaussian"),
    ):
        if re.search(pattern, f"{error.must} {error.got} {error.todo}"):
            return Finding(code, "error", message, error.todo)
    if head and classify(path, head) == "points":
        return _points(path, message, error.todo)
    if head.startswith(b"glTF"):
        return _mesh(path, message, error.todo)
    kind = looks_like(head)
    if any(word in kind for word in _ARCHIVES) and "must be one of" in error.must:
        return Finding("archive", "error", f"{kind}, not a splat file", "unpack it and pass the file inside")
    if "must be one of" in error.must:
        return Finding(
            "unknown_format", "error", f"{kind or message}, not a splat file" if kind else message, error.todo
        )
    return Finding("unreadable", "error", message, error.todo)


def salvage(path: Path, module: ModuleType) -> RawSplats | None:
    """The whole gaussians of a truncated binary INRIA PLY or ``.splat``; None when there is none.

    They are copied to a temporary file with a mended count and read from there.
    """
    if module.NAME == "splat":
        prefix, start, row, suffix = b"", 0, 32, ".splat"
    elif module.NAME == "ply":
        header = read_header(path)
        vertex = header.element("vertex")
        if vertex is None or header.byte_order == "" or header.elements[0] is not vertex or vertex.has_lists:
            return None
        start, row, suffix = locate(header, vertex), vertex.least_row_bytes, ".ply"
        with path.open("rb") as stream:
            prefix = stream.read(start)
    else:
        return None
    count = (path.stat().st_size - start) // row if row else 0
    if count < 1:
        return None
    if prefix:
        prefix = re.sub(rb"(element[ \t]+vertex[ \t]+)[0-9]+", rb"\g<1>%d" % count, prefix, count=1)
        prefix = re.sub(rb"(element[ \t]+(?!vertex)\S+[ \t]+)[0-9]+", rb"\g<1>0", prefix)
    with tempfile.TemporaryDirectory(prefix="clipgs-") as folder:
        whole = Path(folder) / f"whole{suffix}"
        with path.open("rb") as source, whole.open("wb") as target:
            target.write(prefix)
            source.seek(start)
            left = count * row
            while left > 0 and (piece := source.read(min(left, 1 << 22))):
                target.write(piece)
                left -= len(piece)
        raw: RawSplats = module.read(whole)
    return raw


def _points(path: Path, message: str, todo: str) -> Finding:
    header = read_header(path)
    face = header.element("face")
    if face is not None and face.count > 0:
        mend = "render views of the mesh and fit gaussians to them, or read its vertices with read_points"
        return Finding("mesh", "error", f"a mesh with {face.count:,} faces, not gaussians", mend)
    return Finding("point_cloud", "error", message, todo)


def _mesh(path: Path, message: str, todo: str) -> Finding:
    """A GLB without gaussians is a mesh, or too broken to say."""
    with path.open("rb") as stream:
        head = stream.read(20)
        try:
            size = struct.unpack("<I", head[12:16])[0]
            content = json.loads(stream.read(min(size, 1 << 24)))
        except (struct.error, ValueError):
            return Finding("unreadable", "error", message, todo)
    used = content.get("extensionsUsed", []) if isinstance(content, dict) else []
    if isinstance(used, list) and any("gaussian" in str(name) for name in used):
        return Finding("unreadable", "error", message, todo)
    mend = "render views of the mesh and fit gaussians to them"
    return Finding("mesh", "error", "a GLB without KHR_gaussian_splatting: a mesh, not gaussians", mend)


def _gzip_head(head: bytes) -> bytes:
    """The first bytes inside a gzip stream, unless they are SPZ; empty when it is broken."""
    try:
        inner = zlib.decompressobj(31).decompress(head, 64)
    except zlib.error:
        return b""
    return b"" if inner.startswith(b"NGSP") else inner
