"""Embeddings kept on disk, so that no picture or text is embedded twice by the same teacher.

One SQLite file per teacher digest and precision; a row is the sha256 of the content, the float32 embedding and a check
sum. SQLite makes writes atomic and lets several processes share the file; each batch is committed as it is computed, so
a killed run goes on where it was. Rows that fail their check are computed again, with a warning.
"""

from __future__ import annotations

import hashlib
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from .base import Teacher, TeacherWarning, check_texts
from .preprocess import check_images
from .zero_shot import Templates

_LOOK_UP = 500  # keys in one query
_PATIENCE = 60.0  # seconds to wait for another process's write


class CachedTeacher(Teacher):
    """A teacher that remembers what it has embedded.

    Args:
        teacher: who embeds what is not there yet.
        folder: where files are kept; made when missing. Another teacher's rows are in another file.
    """

    def __init__(self, teacher: Teacher, folder: str | Path) -> None:
        self.teacher = teacher
        self.name, self.identity, self.digest = teacher.name, teacher.identity, teacher.digest
        self.embed_dim, self.preprocess, self.precision = teacher.embed_dim, teacher.preprocess, teacher.precision
        self.logit_scale, self.logit_bias = teacher.logit_scale, teacher.logit_bias
        self.device, self.batch_size = teacher.device, teacher.batch_size
        self.hits = 0  # rows served from disk
        self.misses = 0  # rows computed
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{self.digest}-{self.precision}.sqlite"

    def encode_image(self, images: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Embed pictures, reading from disk those that are known; see `Teacher.encode_image`."""
        batch = check_images(images)
        keys = [_image_key(image) for image in batch]
        return self._encode(keys, lambda rows: self.teacher.encode_image(batch[rows]))

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts, reading from disk those that are known; see `Teacher.encode_text`."""
        words = check_texts(texts)
        keys = [hashlib.sha256(b"text\0" + text.encode()).digest() for text in words]
        return self._encode(keys, lambda rows: self.teacher.encode_text([words[row] for row in rows]))

    def zero_shot_weights(self, labels: Sequence[str], templates: Templates = ("a photo of a {}.",)) -> torch.Tensor:
        """Classifier weights of labels, not kept; see `Teacher.zero_shot_weights`."""
        return self.teacher.zero_shot_weights(labels, templates)

    def _encode(self, keys: list[bytes], compute: Callable[[list[int]], torch.Tensor]) -> torch.Tensor:
        first = {key: row for row, key in reversed(list(enumerate(keys)))}  # a content that comes twice is done once
        known = self._read(list(first))
        missing = [row for key, row in first.items() if key not in known]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        for start in range(0, len(missing), self.batch_size):
            rows = missing[start : start + self.batch_size]
            made = dict(zip((keys[row] for row in rows), compute(rows).cpu().numpy(), strict=True))
            self._write(made)
            known |= made
        if not keys:
            return torch.empty(0, self.embed_dim, device=self.device)
        return torch.from_numpy(np.stack([known[key] for key in keys])).to(self.device)  # [B, D]

    def _read(self, keys: list[bytes]) -> dict[bytes, np.ndarray]:
        found: dict[bytes, np.ndarray] = {}
        bad = 0
        try:
            with closing(self._open()) as base:
                for start in range(0, len(keys), _LOOK_UP):
                    part = keys[start : start + _LOOK_UP]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT key, data, crc FROM embeddings WHERE key IN ({marks})"
                    for key, data, crc in base.execute(query, part):
                        if _is_sound(key, data, crc, self.embed_dim):
                            found[key] = np.frombuffer(data, dtype="<f4")
                        else:
                            bad += 1
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, or the disk: the file may be sound
                raise
            self._set_aside(error)
            return {}
        if bad:
            _warn(f"{bad} cached embeddings in {self.path.name} are damaged and are computed again")
        return found

    def _write(self, made: dict[bytes, np.ndarray]) -> None:
        rows = [(key, data, _crc(key, data)) for key, data in ((k, v.astype("<f4").tobytes()) for k, v in made.items())]
        try:
            with closing(self._open()) as base, base:
                base.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            _warn(f"embeddings could not be kept in {self.path}: {error}; they will be computed again next time")

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, timeout=_PATIENCE)
        try:
            base.execute("CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, data BLOB, crc INTEGER)")
        except sqlite3.DatabaseError:
            base.close()
            raise
        return base

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        aside = self.path.with_suffix(".damaged")
        self.path.replace(aside)
        self.path.with_name(self.path.name + "-journal").unlink(missing_ok=True)  # it belongs to the damaged file
        _warn(
            f"the embedding cache {self.path.name} is damaged ({error}); it is now {aside.name}, and a new one starts"
        )


def _image_key(image: torch.Tensor) -> bytes:
    pixels = image.detach().cpu().contiguous()
    digest = hashlib.sha256(f"image {pixels.dtype} {list(pixels.shape)}\0".encode())
    digest.update(pixels.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _crc(key: bytes, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(key))


def _is_sound(key: object, data: object, crc: object, dim: int) -> bool:
    return isinstance(key, bytes) and isinstance(data, bytes) and len(data) == 4 * dim and crc == _crc(key, data)


def _warn(sentence: str) -> None:
    warnings.warn(sentence, TeacherWarning, stacklevel=5)
