"""A checkpoint is all of the state or is not there; one that is damaged is named and the one before it is used."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minibert.errors import ArtifactError
from minibert.training.checkpoint import (
    FOLDER,
    Checkpoint,
    newest_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)

ODD = np.array([0.0, -0.0, 1e-45, np.inf, -np.inf, np.nan, 3.4028235e38], dtype=np.float32)


def checkpoint(step: int, *, stage_index: int = 0, stage: str = "pretrain") -> Checkpoint:
    arrays = {
        "weights/word_embedding/embeddings": np.full((3, 2), step, dtype=np.float32),
        "weights/a/kernel": ODD.copy(),
        "optimizer/0000/adam/iteration": np.array(step, dtype=np.int64),
        "optimizer/0001/empty": np.zeros((0, 4), dtype=np.float32),
    }
    state = {"progression": {"step": step, "sums": {"loss": math.pi * step, "count": 3.0}}, "stages": {"é\n": None}}
    return Checkpoint(stage_index, stage, step, arrays, state)


def assert_same(read: Checkpoint | None, written: Checkpoint) -> None:
    assert read is not None
    assert (read.stage_index, read.stage, read.step) == (written.stage_index, written.stage, written.step)
    assert read.state == written.state
    assert sorted(read.arrays) == sorted(written.arrays)
    for name, array in written.arrays.items():
        assert (read.arrays[name].dtype, read.arrays[name].shape) == (array.dtype, array.shape), name
        assert read.arrays[name].tobytes() == array.tobytes(), name


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / FOLDER).iterdir())


def test_a_checkpoint_is_read_bit_for_bit(tmp_path):
    written = checkpoint(120, stage_index=1, stage="frozen")
    path = write_checkpoint(tmp_path, written, kept=2)
    assert path.name.startswith("1-frozen-00000120-")
    assert_same(newest_checkpoint(tmp_path), written)


def test_equal_states_are_equal_files(tmp_path):
    names = [write_checkpoint(tmp_path / part, checkpoint(3), kept=2).name for part in made(tmp_path, "a", "b")]
    assert names[0] == names[1]


def made(folder: Path, *names: str) -> tuple[str, ...]:
    for name in names:
        (folder / name).mkdir()
    return names


def test_the_newest_is_the_latest_stage_then_the_latest_step(tmp_path):
    order = [(0, "pretrain", 9), (0, "pretrain", 10), (0, "pretrain", 100), (1, "frozen", 5), (2, "unfrozen", 1)]
    for stage_index, stage, step in order:
        write_checkpoint(tmp_path, checkpoint(step, stage_index=stage_index, stage=stage), kept=10)
        found = newest_checkpoint(tmp_path)
        assert found is not None
        assert (found.stage_index, found.stage, found.step) == (stage_index, stage, step)


def test_only_the_newest_are_kept(tmp_path):
    for step in range(5):
        write_checkpoint(tmp_path, checkpoint(step), kept=2)
    assert [name[:19] for name in files(tmp_path)] == ["0-pretrain-00000003", "0-pretrain-00000004"]


def test_there_may_be_none(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / FOLDER).mkdir()
    assert newest_checkpoint(tmp_path) is None


def cut(content: bytes) -> bytes:
    return content[:-1]


def emptied(content: bytes) -> bytes:
    return b""


def flipped_first(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def flipped_last(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 0x80])


def lengthened(content: bytes) -> bytes:
    return content + b"\0"


@pytest.mark.parametrize("damage", [cut, emptied, flipped_first, flipped_last, lengthened])
def test_a_damaged_one_is_named_and_the_one_before_it_is_used(tmp_path, damage):
    write_checkpoint(tmp_path, checkpoint(1), kept=3)
    write_checkpoint(tmp_path, checkpoint(2), kept=3)
    path = write_checkpoint(tmp_path, checkpoint(3), kept=3)
    path.write_bytes(damage(path.read_bytes()))
    notes: list[str] = []
    assert_same(newest_checkpoint(tmp_path, note=notes.append), checkpoint(2))
    assert notes == [
        f"{path}: damaged (its bytes do not have the digest of its name); the checkpoint before it is used"
    ]
    assert path.exists(), "a damaged file is left for whoever wants to look at it"


def test_every_byte_counts(tmp_path):
    path = write_checkpoint(tmp_path, checkpoint(1), kept=2)
    content = path.read_bytes()
    for place in range(0, len(content), 17):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert newest_checkpoint(tmp_path) is None, f"byte {place}"


def test_a_renamed_one_is_not_believed(tmp_path):
    first = write_checkpoint(tmp_path, checkpoint(1), kept=2)
    second = write_checkpoint(tmp_path, checkpoint(2), kept=2)
    second.write_bytes(first.read_bytes())  # the older state under the newer name
    notes: list[str] = []
    assert_same(newest_checkpoint(tmp_path, note=notes.append), checkpoint(1))
    assert len(notes) == 1


def test_all_damaged_is_none(tmp_path):
    for step in (1, 2):
        path = write_checkpoint(tmp_path, checkpoint(step), kept=2)
        path.write_bytes(b"damaged")
    notes: list[str] = []
    assert newest_checkpoint(tmp_path, note=notes.append) is None
    assert len(notes) == 2


def test_files_of_others_are_left_alone(tmp_path):
    write_checkpoint(tmp_path, checkpoint(1), kept=2)
    for name in ("notes.txt", "9-x.safetensors", ".0-pretrain-00000009-abc.safetensors"):
        (tmp_path / FOLDER / name).write_bytes(b"mine")
    assert_same(newest_checkpoint(tmp_path), checkpoint(1))
    write_checkpoint(tmp_path, checkpoint(2), kept=1)
    remove_checkpoints(tmp_path)
    assert files(tmp_path) == [".0-pretrain-00000009-abc.safetensors", "9-x.safetensors", "notes.txt"]


def test_removing_all_removes_the_folder(tmp_path):
    remove_checkpoints(tmp_path)
    write_checkpoint(tmp_path, checkpoint(1), kept=2)
    remove_checkpoints(tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_one_that_cannot_be_written_leaves_the_older_ones(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, checkpoint(1), kept=2)
    write_checkpoint(tmp_path, checkpoint(2), kept=2)
    before = files(tmp_path)

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ArtifactError, match="it cannot be written: the disk is full"):
        write_checkpoint(tmp_path, checkpoint(3), kept=2)
    assert files(tmp_path) == before


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from minibert import artifacts
from minibert.training.checkpoint import Checkpoint, write_checkpoint

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(*{"written": (artifacts.os, "fsync"), "synced": (Path, "replace")}[sys.argv[2]], killed)
write_checkpoint(Path(sys.argv[1]), Checkpoint(0, "pretrain", 3, {"weights/a": np.zeros(9)}, {}), kept=2)
"""


@pytest.mark.parametrize("moment", ["written", "synced"])
def test_one_killed_while_it_is_written_has_no_name(tmp_path, moment):
    write_checkpoint(tmp_path, checkpoint(1), kept=2)
    write_checkpoint(tmp_path, checkpoint(2), kept=2)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    notes: list[str] = []
    assert_same(newest_checkpoint(tmp_path, note=notes.append), checkpoint(2))
    assert notes == []
    write_checkpoint(tmp_path, checkpoint(3), kept=2)
    assert_same(newest_checkpoint(tmp_path), checkpoint(3))
    remove_checkpoints(tmp_path)
    assert not (tmp_path / FOLDER).exists(), "what the killed process left is removed too"
