"""Files that are either whole or not there: atomic writes, digests, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from minibert.errors import ArtifactError

_BLOCK_BYTES = 1 << 20
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}(\.\w+)?")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around anything that writes to ``path``: what the system refuses names it, in one line.

    Raises:
        ArtifactError: It cannot be written to, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
        raise ArtifactError(f"{path}: it cannot be written: {reason}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``, and renames it to ``path`` if the block ends well.

    The temporary name keeps the suffix. A block that fails leaves ``path`` as it was.

    Raises:
        ArtifactError: The folder cannot be written to, or the disk is full.
    """
    with _beside(path) as temporary:
        yield temporary
        _rename(temporary, path)


def write_named_by_digest(path: Path, blocks: Iterable[bytes | memoryview]) -> Path:
    """Writes a whole file or none, whose name states the SHA-256 of its bytes.

    Args:
        path: The name without the digest: ``a.bin`` becomes ``a-<64 hexadecimal digits>.bin``.
        blocks: The bytes, one block behind the other; each is written before the next is asked for.

    Returns:
        The file's path.

    Raises:
        ArtifactError: It cannot be written.
    """
    digest = hashlib.sha256()
    with _beside(path) as temporary:
        with temporary.open("xb", buffering=0) as file:
            for block in blocks:
                digest.update(block)
                left = memoryview(block).cast("B")
                while left.nbytes:
                    left = left[file.write(left) :]
        named = path.with_name(f"{path.stem}-{digest.hexdigest()}{path.suffix}")
        _rename(temporary, named)
    return named


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A temporary path, which is gone after the block."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        with writing(path):
            yield temporary
    finally:
        with contextlib.suppress(OSError):  # it is gone, or was never there: what failed before is what matters
            temporary.unlink()


def _rename(temporary: Path, path: Path) -> None:
    """Gives a file its name once its bytes are on the disk."""
    with temporary.open("rb+") as written:
        os.fsync(written.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Lets one process at a time into the block; the lock is the file or the folder itself, so none is left behind.

    The system takes it back when the process ends, however that ends. Where the system has no such locks, as
    some network file systems, the block runs without, and is told so: it gets whether it holds the lock.

    Args:
        path: A folder, or a file, which is made if it is not there.
        wait: Whether to wait for a process that holds it.

    Raises:
        ArtifactError: Another process holds it, and ``wait`` is off.
        OSError: It cannot be opened.
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    is_held = True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ArtifactError(f"{path}: a place that no other process writes to is required, but one does") from None
        except OSError:
            is_held = False  # a file system without locks
        yield is_held
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file or none.

    Raises:
        ArtifactError: It cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def is_temporary_of(path: Path, name: str) -> bool:
    """Whether a path is what a killed process left of a file that it was writing under this name."""
    final = Path(name)
    written = re.escape(f".{final.stem}.") + "[0-9a-f]{8}" + re.escape(final.suffix)
    return re.fullmatch(written, path.name) is not None


def remove_temporaries(folder: Path) -> None:
    """Removes what a killed process left of files that it was writing."""
    for path in folder.glob(".*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlive a loss of power, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
