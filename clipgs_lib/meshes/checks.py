"""What the mesh readers share: the error, the warning, files beside a mesh, bounded textures, colour transfer."""

from __future__ import annotations

import errno
import io
import os
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

from ..errors import ExplainedError
from .mesh import Part

MAX_FILE_BYTES = 4 << 30
MAX_FACES_READ = 50_000_000  # after instancing; more is refused, as memory would not hold
MAX_IMAGE_PIXELS = 1 << 26  # of one stored texture, looked up before it is decoded
MAX_TEXTURE_SIDE = 4096  # larger textures are shrunk to this
MAX_MESH_TEXELS = 1 << 27  # of all textures of a mesh
_LONGEST = 8_192  # pixels of a clamped texture with its borders drawn out
WHITE = (1.0, 1.0, 1.0, 1.0)
FARTHEST = 1e18  # coordinates beyond overflow when they are squared
_IMAGE_KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "GIF", "TIFF")  # decoders that run no other program


class MeshError(ExplainedError):
    """A mesh that cannot be read."""


class MeshWarning(UserWarning):
    """Something of a mesh was left out or changed while reading; the message says what."""


class Lost(str):
    """A remark that a texture or material is missing; ``name`` is what the mesh calls it."""

    name: str

    @classmethod
    def of(cls, what: str, name: str, reason: object) -> Lost:
        """The remark on a ``what`` (texture, material, material file) of that name."""
        remark = cls(f"the {what} {name[:80]!r} was not read ({reason}); the base colour stands in")
        remark.name = name[:80]
        return remark


class Textures:
    """Reads the textures of a mesh, within bounds, from nowhere but the folder ``root`` (None: the mesh's own)."""

    def __init__(self, path: Path, notes: list[str], root: Path | None = None) -> None:
        self.path, self.notes, self._texels = path, notes, 0
        self._named: dict[str, np.ndarray | None] = {}
        self._borders: dict[tuple[int, int, int, int], tuple[np.ndarray, np.ndarray]] = {}
        self.root = (path.parent if root is None else root).resolve()

    def beside(self, name: str, what: str = "texture") -> bytes | None:
        """Bytes of a file that the mesh names, or None with a note when it must not or cannot be read."""
        try:
            return neighbour(self.path, name, self.root).read_bytes()
        except (OSError, ValueError) as error:
            self.notes.append(Lost.of(what, name, getattr(error, "strerror", None) or error))
            return None

    def decode(self, data: bytes, name: str) -> np.ndarray | None:
        """``[H, W, 3]`` uint8, or None with a note. Transparent texels take the mean colour of the others."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # our bound is tighter than Pillow's
                pixels, width, height = _decoded(data)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            reason = "of a kind that is not read" if isinstance(error, Image.UnidentifiedImageError) else error
            self.notes.append(Lost.of("texture", name, reason))
            return None
        if pixels.shape[:2] != (height, width):
            self.notes.append(f"the texture {name[:80]!r} was shrunk from {width} x {height} pixels")
        self._texels += pixels.shape[0] * pixels.shape[1]
        if self._texels > MAX_MESH_TEXELS:
            self.notes.append(Lost.of("texture", name, f"all together exceed {MAX_MESH_TEXELS:,} texels"))
            return None
        return pixels

    def named(self, name: str) -> np.ndarray | None:
        """`decode` of a file that the mesh names, once; None with a note when there is no such picture."""
        if name not in self._named:
            data = self.beside(name)
            self._named[name] = None if data is None else self.decode(data, name)
        return self._named[name]

    def look(self, name: str, uvs: np.ndarray | None) -> dict[str, Any]:
        """Fields of `Part` for a texture file; none, with a note, when it or the UVs ``[V, 2]`` are missing."""
        if uvs is None:
            self.notes.append(Lost.of("texture", name, "there are no UVs"))
            return {}
        texture = self.named(name)
        return {} if texture is None else {"texture": texture, "uvs": uvs.astype(np.float32), "base_color": WHITE}

    def clamped(self, at: np.ndarray, texture: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates ``[V]`` and texture, repeating, that look like the given ones clamped at the edges of an axis."""
        size, known = texture.shape[axis], at[np.isfinite(at)]
        low, high = (known.min(), known.max()) if len(known) else (0.5, 0.5)
        if 0.5 / size <= low and high <= 1 - 0.5 / size:
            return at, texture
        before, after = (int(np.ceil(max(0.0, beyond) * size)) + 1 for beyond in (-low, high - 1))
        if size + before + after > _LONGEST:
            self.notes.append("a clamped texture was shrunk, as its coordinates lie far outside")
            inner = max(1, int(_LONGEST * size / (size + before + after)))
            texture = np.take(texture, ((np.arange(inner) + 0.5) * size / inner).astype(np.int64), axis=axis)
            before, after = (int(np.ceil(max(0.0, beyond) * inner)) + 1 for beyond in (-low, high - 1))
            if before + after > 2 * _LONGEST:
                return np.clip(at, 0.5 / inner, 1 - 0.5 / inner), texture
            size = inner
        key = (id(texture), axis, before, after)
        if key not in self._borders:
            widths = [(0, 0)] * 3
            widths[axis] = (before, after)
            self._borders[key] = (texture, np.pad(texture, widths, mode="edge"))  # the first keeps its id taken
        return (at * size + before) / (size + before + after), self._borders[key][1]


def _decoded(data: bytes) -> tuple[np.ndarray, int, int]:
    """Pixels of a picture, and its width and height as stored; the size is looked at before anything is decoded."""
    with Image.open(io.BytesIO(data), formats=_IMAGE_KINDS) as image:
        width, height = image.size
        if width * height > MAX_IMAGE_PIXELS or width < 1 or height < 1:
            raise ValueError(f"{width} x {height} pixels, more than {MAX_IMAGE_PIXELS:,}")
        image.draft("RGB", (MAX_TEXTURE_SIDE, MAX_TEXTURE_SIDE))
        return _to_rgb(image), width, height


def _to_rgb(image: Image.Image) -> np.ndarray:
    """``[H, W, 3]`` uint8, no side longer than `MAX_TEXTURE_SIDE`, opaque."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    image = image.convert("RGBA" if transparent else "RGB")
    image.thumbnail((MAX_TEXTURE_SIDE, MAX_TEXTURE_SIDE))
    pixels = np.asarray(image)
    if transparent:
        hidden = pixels[..., 3] == 0
        pixels = pixels[..., :3].copy()
        if hidden.any() and not hidden.all():
            pixels[hidden] = pixels[~hidden].mean(axis=0) + 0.5
    return np.ascontiguousarray(pixels)


def neighbour(path: Path, name: str, root: Path) -> Path:
    """The regular file inside the resolved folder ``root`` that the mesh at ``path`` calls ``name``.

    Quotes are taken off and ``\\`` is ``/``. A path that leads nowhere, or to another machine's folders, is looked for
    by its last part beside the mesh. A file whose name differs in case alone serves when no exact one is there.

    Raises:
        ValueError: for URLs, and for what lies outside ``root``, by its path or through links.
        OSError: when there is no such file.
    """
    plain = name.strip().strip("\"'").replace("\\", "/").strip()
    if "://" in plain or plain.lower().startswith(("data:", "file:", "http:", "https:")):
        raise ValueError("it is a URL; nothing is fetched")
    foreign = plain.startswith("/") or plain[1:2] == ":" or "\0" in plain
    folder, last = path.parent.resolve(), plain.rpartition("/")[2]
    for candidate in dict.fromkeys([*([] if foreign else [plain, unquote(plain)]), last, unquote(last)]):
        if "\0" in candidate or candidate.rpartition("/")[2] in ("", ".", ".."):
            continue
        if not Path(os.path.normpath(folder / candidate)).is_relative_to(root):
            raise ValueError("it lies outside the mesh's folder")
        file = _in_any_case(folder, candidate)
        if file is None:
            continue
        if not file.is_relative_to(root):
            raise ValueError("it is a link out of the mesh's folder")
        if not file.is_file():
            raise ValueError("it is no regular file")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("the file is too large")
        return file
    if foreign:
        raise ValueError("it lies outside the mesh's folder")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), plain)


def _in_any_case(folder: Path, name: str) -> Path | None:
    """The existing path ``folder / name``, resolved; parts without an exact match may differ in case."""
    file = folder
    for part in name.split("/"):
        if part in ("", ".", ".."):
            file = file.parent if part == ".." else file
            continue
        exact = file / part
        if not os.path.lexists(exact):
            alike = [entry for entry in file.iterdir() if entry.name.lower() == part.lower()] if file.is_dir() else []
            if not alike:
                return None
            exact = min(alike)
        file = exact.resolve()
    return file


def sound_part(part_vertices: np.ndarray, faces: np.ndarray, notes: list[str], **columns: object) -> Part | None:
    """A `Part` of the triangles whose corners are finite and within reach, with a note on others; None without any.

    ``part_vertices [V, 3]``, ``faces [F, 3]`` already within ``0..V-1``, the other fields of `Part` as ``columns``.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        vertices = np.ascontiguousarray(part_vertices, np.float32)
        broken = np.logical_not((np.abs(vertices) < FARTHEST).all(axis=1))  # NaN is not less than anything
    uvs = columns.get("uvs")
    if isinstance(uvs, np.ndarray):
        broken |= ~np.isfinite(uvs).all(axis=1)
    if broken.any():
        bad = broken[faces].any(axis=1)
        if bad.any():
            notes.append(
                f"{int(bad.sum()):,} of {len(faces):,} triangles were dropped: a corner is not finite or too far off"
            )
        faces = faces[~bad]
        vertices = np.where(broken[:, None], np.float32(0), vertices)
        if isinstance(uvs, np.ndarray):
            columns["uvs"] = np.where(broken[:, None], np.float32(0), uvs)
    if not len(faces):
        return None
    return Part(vertices, np.ascontiguousarray(faces, np.int32), **columns)  # type: ignore[arg-type]
