"""A checkpoint is all of the state or is not there; one that is damaged is named and the one before it is used."""

from __future__ import annotations

import dataclasses
import math
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from minibert import artifacts
from minibert.errors import ArtifactError, ResumeError
from minibert.training import checkpoint as checkpoints
from minibert.training.checkpoint import (
    FOLDER,
    Checkpoint,
    find_checkpoint,
    remove_checkpoints,
    set_aside,
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
    return Checkpoint(stage_index, stage, step, arrays, state, {"settings": "é" * 64, "code": "1"}, f"{step:064x}")


def newest(directory: Path) -> Checkpoint | None:
    return find_checkpoint(directory).checkpoint


def assert_same(read: Checkpoint | None, written: Checkpoint) -> None:
    assert read is not None
    assert (read.stage_index, read.stage, read.step) == (written.stage_index, written.stage, written.step)
    assert (read.state, read.computation, read.trace_sha256) == (
        written.state, written.computation, written.trace_sha256
    )  # fmt: skip
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
    assert_same(newest(tmp_path), written)


def test_safetensors_reads_it(tmp_path):
    written = checkpoint(120)
    kinds = {f"weights/{kind}": np.arange(5).astype(kind) for kind in ("f8", "f4", "f2", "i8", "i4", "u1", "?")}
    strided = {
        "weights/of two": np.arange(12, dtype="<f4").reshape(3, 4)[:, ::2],
        "weights/turned": np.eye(3, 2, dtype=">f4"),
    }
    written = dataclasses.replace(written, arrays=written.arrays | kinds | strided)
    read = load_file(write_checkpoint(tmp_path, written, kept=2))
    assert sorted(read) == sorted(written.arrays)
    for name, array in written.arrays.items():
        assert np.array_equal(read[name], array, equal_nan=array.dtype.kind == "f"), name
        assert (read[name].dtype, read[name].shape) == (array.dtype.newbyteorder("="), array.shape), name


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
        found = newest(tmp_path)
        assert found is not None
        assert (found.stage_index, found.stage, found.step) == (stage_index, stage, step)


def test_only_the_newest_are_kept(tmp_path):
    for step in range(5):
        write_checkpoint(tmp_path, checkpoint(step), kept=2)
    assert [name[:19] for name in files(tmp_path)] == ["0-pretrain-00000003", "0-pretrain-00000004"]


def test_there_may_be_none(tmp_path):
    assert newest(tmp_path) is None
    (tmp_path / FOLDER).mkdir()
    assert newest(tmp_path) is None


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
def test_of_damaged_ones_the_one_before_them_is_found_and_nothing_is_changed(tmp_path, damage):
    write_checkpoint(tmp_path, checkpoint(1), kept=4)
    whole = write_checkpoint(tmp_path, checkpoint(2), kept=4)
    paths = [write_checkpoint(tmp_path, checkpoint(step), kept=4) for step in (3, 4)]
    for path in paths:
        path.write_bytes(damage(path.read_bytes()))
    before = files(tmp_path)
    found = find_checkpoint(tmp_path)
    assert_same(found.checkpoint, checkpoint(2))
    assert (found.path, found.damaged) == (whole, tuple(reversed(paths)))
    assert files(tmp_path) == before


def test_damaged_ones_are_set_aside_and_not_found_again(tmp_path):
    write_checkpoint(tmp_path, checkpoint(1), kept=2)
    path = write_checkpoint(tmp_path, checkpoint(2), kept=2)
    path.write_bytes(b"damaged")
    set_aside(find_checkpoint(tmp_path).damaged)
    assert path.with_name(f"{path.name}.damaged").read_bytes() == b"damaged"
    found = find_checkpoint(tmp_path)
    assert_same(found.checkpoint, checkpoint(1))
    assert found.damaged == ()
    remove_checkpoints(tmp_path)
    assert not (tmp_path / FOLDER).exists(), "once the run is complete, nobody wants to look at them"


def test_every_byte_counts(tmp_path):
    path = write_checkpoint(tmp_path, checkpoint(1), kept=2)
    content = path.read_bytes()
    for place in range(0, len(content), 17):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(ResumeError):
            find_checkpoint(tmp_path)


def test_a_renamed_one_is_not_believed(tmp_path):
    first = write_checkpoint(tmp_path, checkpoint(1), kept=2)
    second = write_checkpoint(tmp_path, checkpoint(2), kept=2)
    second.write_bytes(first.read_bytes())  # the older state under the newer name
    found = find_checkpoint(tmp_path)
    assert_same(found.checkpoint, checkpoint(1))
    assert found.damaged == (second,)


@pytest.mark.parametrize(
    ("part", "other"), [("-00000001-", "-00000007-"), ("0-pretrain-", "0-frozen-"), ("0-pretrain-", "1-pretrain-")]
)
def test_a_whole_one_under_another_step_or_stage_is_not_believed(tmp_path, part, other):
    path = write_checkpoint(tmp_path, checkpoint(1), kept=2)
    path.rename(path.with_name(path.name.replace(part, other)))
    with pytest.raises(ResumeError, match="every one is damaged"):
        find_checkpoint(tmp_path)


def test_a_whole_one_of_another_format_is_named_and_not_read(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, checkpoint(1), kept=2)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_FORMAT", 1)
        path = write_checkpoint(tmp_path, checkpoint(2), kept=2)
    with pytest.raises(ResumeError) as caught:
        find_checkpoint(tmp_path)
    assert str(caught.value) == f"resume: a checkpoint of format 2 is required, but {path} is of another one"


def test_all_damaged_is_an_error_that_names_them(tmp_path):
    paths = [write_checkpoint(tmp_path, checkpoint(step), kept=3) for step in (1, 2, 3)]
    set_aside(paths[:1])  # set aside by an earlier resume: it was there, so the run has begun
    for path in paths[1:]:
        path.write_bytes(b"damaged")
    before = files(tmp_path)
    with pytest.raises(ResumeError) as caught:
        find_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"resume: a whole checkpoint is required, but every one is damaged: {paths[2]}, {paths[1]}, {paths[0]}.damaged"
    )
    assert files(tmp_path) == before
    for path in paths[1:]:
        path.unlink()
    with pytest.raises(ResumeError, match=r"every one is damaged: .*00000001.*\.damaged$"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_the_one_just_written_is_never_removed(tmp_path, kept):
    """Not even where files of later steps are there, damaged or not."""
    for step in (8, 9):
        write_checkpoint(tmp_path, checkpoint(step), kept=9).write_bytes(b"damaged")
    later = files(tmp_path)
    for step in range(1, 6):
        path = write_checkpoint(tmp_path, checkpoint(step), kept=kept)
        assert path.exists()
        steps = [int(name.split("-")[2]) for name in files(tmp_path) if name not in later]
        assert steps == list(range(max(step - kept + 1, 1), step + 1))
    assert files(tmp_path)[-2:] == later
    assert_same(newest(tmp_path), checkpoint(5))


def test_files_of_others_are_left_alone(tmp_path):
    write_checkpoint(tmp_path, checkpoint(1), kept=2)
    for name in ("notes.txt", "9-x.safetensors", ".0-pretrain-00000009-abc.safetensors"):
        (tmp_path / FOLDER / name).write_bytes(b"mine")
    assert_same(newest(tmp_path), checkpoint(1))
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

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts.os, "fsync", full)
    with pytest.raises(ArtifactError) as caught:
        write_checkpoint(tmp_path, checkpoint(3), kept=2)
    place = tmp_path / FOLDER / "0-pretrain-00000003.safetensors"
    assert str(caught.value) == f"{place}: it cannot be written: the disk is full"
    assert files(tmp_path) == before


def large_checkpoint(step: int) -> Checkpoint:
    """One of 16 MB."""
    return dataclasses.replace(checkpoint(step), arrays={f"weights/{n}": np.ones((1000, 1000), "f") for n in range(4)})


def test_one_that_finds_a_really_full_disk_leaves_the_older_ones(small_disk):
    write_checkpoint(small_disk, checkpoint(1), kept=2)
    before = files(small_disk)
    with pytest.raises(ArtifactError, match=r"checkpoints/0-pretrain-00000002\.safetensors: .*: the disk is full"):
        write_checkpoint(small_disk, large_checkpoint(2), kept=2)
    assert files(small_disk) == before
    assert_same(newest(small_disk), checkpoint(1))


def test_the_arrays_are_not_copied_to_be_written(tmp_path):
    """At notebook 1's shape the copies had 0.2 GB."""
    large = large_checkpoint(1)
    write_checkpoint(tmp_path, checkpoint(0), kept=2)
    tracemalloc.start()
    try:
        path = write_checkpoint(tmp_path, large, kept=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 16_000_000
    assert peak < 1_000_000


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from minibert import artifacts
from minibert.training import checkpoint
from minibert.training.checkpoint import Checkpoint, write_checkpoint

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def half(state, blocks=checkpoint._blocks):
    yield from list(blocks(state))[:-1]
    killed()

FSYNC, RENAME = (artifacts.os, "fsync", killed), (Path, "replace", killed)
setattr(*{"half": (checkpoint, "_blocks", half), "written": FSYNC, "synced": RENAME}[sys.argv[2]])
arrays = {"weights/a": np.zeros(9), "weights/b": np.zeros(9)}
write_checkpoint(Path(sys.argv[1]), Checkpoint(0, "pretrain", 3, arrays, {}, {}, ""), kept=2)
"""


@pytest.mark.parametrize("moment", ["half", "written", "synced"])
def test_one_killed_while_it_is_written_has_no_name(tmp_path, moment):
    write_checkpoint(tmp_path, checkpoint(1), kept=2)
    write_checkpoint(tmp_path, checkpoint(2), kept=2)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = [path for path in (tmp_path / FOLDER).iterdir() if path.name.startswith(".")]
    assert [path.stat().st_size > 72 for path in left] == [True]
    found = find_checkpoint(tmp_path)
    assert_same(found.checkpoint, checkpoint(2))
    assert found.damaged == ()
    write_checkpoint(tmp_path, checkpoint(3), kept=2)
    assert_same(newest(tmp_path), checkpoint(3))
    remove_checkpoints(tmp_path)
    assert not (tmp_path / FOLDER).exists(), "what the killed process left is removed too"
