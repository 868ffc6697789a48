"""Files: written so that a reader never sees half of one, told apart by their hash, and locked for one process."""

import fcntl
import hashlib
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, OSError)
"""What `zipfile` raises over a broken zip."""


class LockedError(OSError):
    """Another process holds the lock."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Name of a new file beside ``path`` that takes its place on success (OSError if it cannot), else is deleted."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: the output path must name a file, got a directory; add a file name")
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: str | os.PathLike[str], error: Callable[..., Exception] | None = None) -> Iterator[BinaryIO]:
    """As `replacing`, with the new file open; its bytes are on the disk before it takes the place of ``path``.

    Raises:
        OSError: when the folder is missing, not writable or full; where an ``error`` is given that instead, also for
            a ``path`` that is a folder or device itself.
    """
    path = Path(path)
    if error and path.exists() and not path.is_file():
        got = "a directory" if path.is_dir() else "a FIFO or device"
        raise error(path, "the output path must name a file", got, "add a file name")
    try:
        with replacing(path) as temporary, temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as reason:
        if error is None:
            raise
        must = "the output folder must exist, be writable and have room"
        raise error(path, must, str(reason), "create it, or choose another") from reason


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text to a file that takes the place of ``path``; a failure leaves everything as it was."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a file's bytes, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Hold a lock file, which one process at a time can; the system lets go of it however the process ends.

    Args:
        path: of the lock file; made when missing, and left where it is.
        what: a rule for the message, e.g. "one training may run in a folder".

    Raises:
        LockedError: when another process holds it; names the process.
        OSError: when the file cannot be written, or its file system has no locks.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            todo = "choose a folder that exists and is writable"
            raise OSError(f"{path}: {what}, which takes a lock file, got {error.strerror}; {todo}") from error
        try:
            _lock(descriptor, path, what)
            if not _is_at(descriptor, Path(path)):
                continue  # whoever held it has removed it since
            with suppress(OSError):  # on a full disk the lock holds without the number
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
            return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: str | os.PathLike[str], what: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
        raise LockedError(f"{path}: {what}, got process {holder} at it; wait for it, or choose another") from None
    except OSError as error:
        todo = "choose a folder on a disk of this machine"
        raise OSError(f"{path}: {what}, which takes a lock, got {error.strerror} there; {todo}") from error


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def size_on_disk(path: str | os.PathLike[str]) -> int:
    """Bytes of a file, or of all files below a folder."""
    path = Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if not file.is_dir())


def text_of(data: bytes) -> str:
    """Text in UTF-8 or UTF-16, with or without a mark at its start, else latin-1, which every byte is."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
