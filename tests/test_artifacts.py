"""A file is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minibert import artifacts
from minibert.artifacts import locked, replacing, sha256_of_file, write_bytes, write_named_by_digest
from minibert.errors import ArtifactError


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", [b"", b"one\n", bytes(range(256)) * 5000])
def test_what_is_written_is_there(tmp_path, content):
    path = tmp_path / "a.bin"
    write_bytes(path, content)
    assert path.read_bytes() == content
    assert sha256_of_file(path) == hashlib.sha256(content).hexdigest()
    write_bytes(path, b"another")
    assert path.read_bytes() == b"another"
    assert entries(tmp_path) == ["a.bin"]


def test_the_temporary_name_keeps_the_suffix_and_is_beside_the_file(tmp_path):
    """Keras chooses the format by it, and a rename is atomic only within one file system."""
    with replacing(tmp_path / "model.keras") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".keras"
        assert temporary.name.startswith(".model")
        temporary.write_bytes(b"new")
        assert not (tmp_path / "model.keras").exists()
    assert entries(tmp_path) == ["model.keras"]


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt(), SystemExit(3)])
def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["a.bin"]


def test_a_file_can_be_named_by_its_digest(tmp_path):
    def blocks() -> Iterator[bytes | memoryview]:
        yield b"one "
        assert [(path.name[:3], path.read_bytes()) for path in tmp_path.iterdir()] == [(".a.", b"one ")], "no name yet"
        yield memoryview(np.array([2, 3], dtype="<i4"))
        yield b""

    content = b"one \2\0\0\0\3\0\0\0"
    path = write_named_by_digest(tmp_path / "a.bin", blocks())
    assert path == tmp_path / f"a-{hashlib.sha256(content).hexdigest()}.bin"
    assert path.read_bytes() == content
    assert entries(tmp_path) == [path.name]
    write_bytes(tmp_path / "b.bin", b"")
    assert path.stat().st_mode == (tmp_path / "b.bin").stat().st_mode, "who may read it is for the umask to say"


def test_a_failure_while_a_file_named_by_its_digest_is_written_leaves_nothing(tmp_path):
    def blocks() -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ArtifactError) as caught:
        write_named_by_digest(tmp_path / "a.bin", blocks())
    assert str(caught.value) == f"{tmp_path / 'a.bin'}: it cannot be written: the disk is full"
    assert entries(tmp_path) == []


def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path, monkeypatch):
    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ArtifactError) as caught:
        write_bytes(path, b"something new")
    monkeypatch.undo()
    assert str(caught.value) == f"{path}: it cannot be written: the disk is full"
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["a.bin"]


def test_a_disk_that_is_full_only_when_it_is_synced_is_said(tmp_path, monkeypatch):
    """Network file systems and delayed allocation report it late."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(artifacts.os, "fsync", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["a.bin"]


def test_a_really_full_disk_is_said_and_leaves_the_old_file(small_disk):
    path = small_disk / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(ArtifactError) as caught:
        write_bytes(path, bytes(200_000))
    assert str(caught.value) == f"{path}: it cannot be written: the disk is full"
    assert path.read_bytes() == b"old"
    assert entries(small_disk) == ["a.bin"]
    write_bytes(path, bytes(30_000))
    assert path.stat().st_size == 30_000


@pytest.mark.parametrize(
    ("make_path", "reason"),
    [
        (lambda folder: folder / "missing" / "a.bin", "No such file or directory"),
        (lambda folder: folder / "a_file" / "a.bin", "Not a directory"),
        (lambda folder: folder / "a_folder", ""),
    ],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path, make_path, reason):
    (tmp_path / "a_file").write_bytes(b"")
    (tmp_path / "a_folder").mkdir()
    path = make_path(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        write_bytes(path, b"new")
    assert str(caught.value).startswith(f"{path}: it cannot be written: {reason}")
    assert entries(tmp_path) == ["a_file", "a_folder"]


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    code = (
        "import os, signal, sys; from pathlib import Path; from minibert.artifacts import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    hidden = [name for name in entries(tmp_path) if name != "a.bin"]
    assert all(name.startswith(".a.") for name in hidden), "what is left over has no name that anybody reads"


# Locks

HOLDS = """
import sys, time
from pathlib import Path
from minibert.artifacts import locked
with locked(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_place_that_another_process_holds_is_named_and_a_killed_process_holds_none(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(ArtifactError) as caught, locked(tmp_path, wait=False):
                pass
        finally:
            process.kill()
    assert str(caught.value) == f"{tmp_path}: a place that no other process writes to is required, but one does"
    with locked(tmp_path, wait=False):
        assert entries(tmp_path) == [], "the folder is the lock"


def test_a_lock_is_given_back_where_its_block_ends(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path, wait=False):
            raise ZeroDivisionError
    for name in ("a", "b"):  # each file is a lock of its own
        with locked(tmp_path / name, wait=False) as is_held, locked(tmp_path, wait=False):
            assert is_held
            assert (tmp_path / name).exists()


def test_who_waits_for_a_lock_comes_after_who_has_it(tmp_path):
    order = []

    def wait() -> None:
        with locked(tmp_path / "lock", wait=True):
            order.append("second")

    second = threading.Thread(target=wait)
    with locked(tmp_path / "lock", wait=True):
        second.start()
        second.join(0.2)
        order.append("first")
    second.join()
    assert order == ["first", "second"]


def test_a_system_without_locks_does_without(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def none_here(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none_here)
    with locked(tmp_path, wait=False) as first, locked(tmp_path, wait=False) as second:
        assert (first, second) == (False, False), "and who asks is told"
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked(tmp_path, wait=False) as first, locked(tmp_path, wait=True) as second:
        assert (first, second) == (False, False)
