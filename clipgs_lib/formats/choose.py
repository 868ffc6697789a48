"""Choose the format: by **content** when reading, by file name when writing.

`FORMATS` is the registry. Each format is one module with ``NAME``, ``SUFFIXES``, ``sniff(path, head) -> bool``,
``read(path) -> RawSplats`` of a regular file and, where writable, ``write(splats, path, **options)``. Both refuse with
a FormatError.
"""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ..splats import Splats
from . import compressed_ply, gltf, gsplat_checkpoint, ksplat, ply, points, sog, splat, spz
from .raw import FormatError, check_regular_file, to_splats, warn

_MODULES = (compressed_ply, ply, points, ksplat, spz, sog, gltf, gsplat_checkpoint, splat)  # the least distinctive last
FORMATS: dict[str, ModuleType] = {module.NAME: module for module in _MODULES}
HEAD_BYTES = 4096
_ANTIALIASED = (spz, sog)  # Formats that keep `Splats.antialiased`


def read_splats(
    path: str | os.PathLike[str], *, format: str | None = None, device: str | torch.device = "cpu"
) -> Splats:
    """Read a splat file of any known format.

    Gaussians that hold NaN or infinity or a zero quaternion are dropped, with a `SplatWarning` that counts them.

    Args:
        path: the file, or the folder of an unpacked SOG.
        format: a name in `FORMATS`; None looks at the content.
        device: where the tensors go.

    Returns:
        N gaussians, linear scales and opacities, unit quaternions.

    Raises:
        FormatError: when the file cannot be read; the message says why and what to do.
        ValueError: when ``format`` is unknown.
    """
    path = Path(path)
    module = _format_named(format) if format is not None else FORMATS[sniff(path)]
    if module is not sog or not path.is_dir():
        check_regular_file(path)
    splats = to_splats(module.read(path), path)
    return splats if torch.device(device).type == "cpu" else splats.to(device)


def write_splats(splats: Splats, path: str | os.PathLike[str], *, format: str | None = None, **options: Any) -> Path:
    """Write splats in the format that the file name says, atomically.

    Args:
        splats: on any device; gradients are not kept.
        path: where to; ``.compressed.ply`` is told from ``.ply``.
        format: a writable name in `FORMATS`, to override the file name.
        **options: for the format's own ``write``.

    Returns:
        The path written.

    Raises:
        FormatError: when the name fits no writable format, or the folder cannot be written.
        ValueError: when ``format`` is unknown.
    """
    path = Path(path)
    module = _format_named(format) if format is not None else writable_format(path)
    if not hasattr(module, "write"):
        raise FormatError(path, "the format must be writable", module.NAME, f"choose one of {_writable()}")
    module.write(splats.detach().to("cpu"), path, **options)
    if splats.antialiased and module not in _ANTIALIASED:
        warn(path, "the format has no place to say that the splats were trained with antialiasing (Mip-Splatting)")
    return path


def sniff(path: str | os.PathLike[str]) -> str:
    """Say which format a file (or SOG folder) has, by its content.

    Returns:
        A name in `FORMATS`. Where several could hold (raw ``.splat`` records have no magic number), the file
        name decides.

    Raises:
        FormatError: when it is none of them; the message says what it looks like instead.
    """
    path = Path(path)
    if path.is_dir():
        head = b""
    else:
        with check_regular_file(path).open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        _refuse_mistaken(path, head)
    names = [name for name, module in FORMATS.items() if module.sniff(path, head)]
    if not names:
        raise _unknown(path, head)
    by_name = [name for name in names if path.name.lower().endswith(tuple(FORMATS[name].SUFFIXES))]
    return (by_name or names)[0]


def writable_format(path: Path) -> ModuleType:
    """The writable format with the longest suffix that the name ends in; FormatError for none."""
    name = path.name.lower()
    fits = [(len(s), m) for m in FORMATS.values() if hasattr(m, "write") for s in m.SUFFIXES if name.endswith(s)]
    if not fits:
        must = "the file name must end in a suffix of a writable format"
        raise FormatError(path, must, repr(path.suffix), f"use one of {_writable()}")
    return max(fits, key=lambda fit: fit[0])[1]


def _writable() -> str:
    return ", ".join(f"{n} ({' '.join(m.SUFFIXES)})" for n, m in FORMATS.items() if hasattr(m, "write"))


def _format_named(name: str) -> ModuleType:
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name]


def _refuse_mistaken(path: Path, head: bytes) -> None:
    """Name the things that are commonly saved under a splat's name."""
    text = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    must = "the file must hold gaussians"
    if not head:
        todo = "fetch it again; the download or export broke off"
        raise FormatError(path, must, "an empty file (0 bytes)", todo, "empty_file")
    if text.startswith(b"version https://git-lfs"):
        todo = "run `git lfs pull` in that repository to fetch the content"
        raise FormatError(path, must, "a Git LFS pointer", todo, "lfs_pointer")
    if text.startswith(b"<") and (b"<html" in text or text.startswith((b"<!doctype", b"<head", b"<?xml"))):
        got = "an HTML or XML page saved under this name"
        todo = "download the raw file; the link needs a login or points to a preview page"
        raise FormatError(path, must, got, todo, "html_page")


def _unknown(path: Path, head: bytes) -> FormatError:
    if path.is_dir():
        must = "a folder must be an unpacked SOG (with meta.json)"
        return FormatError(path, must, "another folder", "pass the splat file itself")
    must = f"the content must be one of {', '.join(FORMATS)}"
    return FormatError(path, must, f"bytes that start {head[:16]!r}", "convert it first", "unknown_format")
