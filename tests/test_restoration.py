"""A run is gone on with only if everything that it counts on is there, whatever was cut or edited: else it is left."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.errors import ArtifactError, ResumeError
from minibert.fingerprints import TraceHeader, TraceWriter, trace_name
from minibert.record import NAME, read_record, write_record
from minibert.resuming import computation_digests
from minibert.training.checkpoint import FOLDER, Checkpoint, write_checkpoint
from minibert.training.restoration import VOCABULARY, restore
from tests.records import made_up_record

HEADER = TraceHeader("frozen", ("token_ids",), ("activation a", "weight b"))
STEPS = (4, 6)
FINISHED = ("masked_lm.keras", "trace/pretrain.trace")


def make_run(directory: Path) -> Path:
    """A run that was stopped after step 7 of its second stage: checkpoints at steps 4 and 6."""
    (directory / "trace").mkdir(parents=True)
    (directory / VOCABULARY).write_bytes(b"\n[UNK]\nthe\n[mask]\n")
    for name in FINISHED:
        (directory / name).write_bytes(name.encode() * 9)
    record = made_up_record(epochs=1) | {"status": "running"}
    record["corpus"]["vocabulary_sha256"] = sha256(directory / VOCABULARY)
    record["stages"] = {name: record["stages"][name] for name in ("encode", "pretrain")}
    record["artifacts"] = {name: {"sha256": sha256(directory / name)} for name in FINISHED}
    write_record(directory, record)
    trace = TraceWriter(directory / trace_name("frozen"), HEADER, steps=0)
    for step in range(7):
        batch = {"token_ids": np.full(3, step)}
        trace.append(step, loss_bits=step, batch=batch, fingerprint=np.array([step, -step]))
        if step + 1 in STEPS:
            trace.sync()
            state = {"progression": {"step": step + 1}, "stages": record["stages"], "artifacts": record["artifacts"]}
            checkpoint = Checkpoint(1, "frozen", step + 1, {"weights/b": np.full(2, step, np.float32)}, state,
                                    computation_digests(record), trace.sha256)  # fmt: skip
            write_checkpoint(directory, checkpoint, kept=2)
    trace.close()
    return directory


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / FOLDER).glob("*.safetensors"))


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def restored(run: Path) -> tuple[int | None, list[str]]:
    """The step that a resume begins at, and what a user is told."""
    notes: list[str] = []
    found = restore(run, read_record(run), note=notes.append)
    return None if found is None else found.step, notes


def test_a_whole_run_goes_on_from_its_newest_checkpoint(run: Path) -> None:
    before = contents(run)
    assert restored(run) == (6, [])
    assert contents(run) == before


def test_a_damaged_checkpoint_is_set_aside_and_named(run: Path) -> None:
    path = checkpoints(run)[1]
    path.write_bytes(b"cut")
    step, notes = restored(run)
    assert step == 4
    (note,) = notes
    assert note == (
        f"{path}: damaged (its bytes do not have the digest of its name), and kept under {path.name}.damaged; the "
        "checkpoint before it is used"
    )
    assert path.with_name(f"{path.name}.damaged").read_bytes() == b"cut"
    assert restored(run) == (4, [])


def test_what_was_kept_until_now_may_be_nothing(tmp_path: Path) -> None:
    """A run that is killed before its first checkpoint begins anew, also without a vocabulary."""
    record = made_up_record(epochs=1) | {"status": "running", "stages": {"encode": {"seconds": 1.0}}}
    record["stages"]["pretrain"] = {"epochs": [], "steps": 0}  # a stage of no epochs keeps nothing
    write_record(tmp_path, record)
    assert restored(tmp_path) == (None, [])


def test_a_checkpoint_that_should_be_there_is_missed(run: Path) -> None:
    shutil.rmtree(run / FOLDER)
    with pytest.raises(ResumeError) as refusal:
        restored(run)
    assert str(refusal.value) == (
        f"resume: a checkpoint is required, since {run / NAME} has the stage 'pretrain', but there is none"
    )


@pytest.mark.parametrize("name", [VOCABULARY, *FINISHED, "trace/frozen.trace"])
@pytest.mark.parametrize("damage", ["cut", "edited", "gone"])
def test_a_file_that_it_counts_on_is_named(name: str, damage: str, run: Path) -> None:
    path, content = run / name, (run / name).read_bytes()
    if damage == "gone":
        path.unlink()
        if name == VOCABULARY:  # the corpus gives it again: it was compared by its digest
            assert restored(run) == (6, [])
            return
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:9] + b"#" + content[10:])
    before = contents(run)
    with pytest.raises(ArtifactError) as refusal:
        restored(run)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda record: record["code"].update({"masking.py": "0"}), "code"),
        (lambda record: record["corpus"].update(ids_sha256="0"), "corpus"),
        (lambda record: record["environment"].update(python="2.7"), "environment"),
        (lambda record: (record["code"].clear(), record["corpus"].update(digest="0"),
                         record["code"].update(new="1")), "corpus and code"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_computation_is_named(change: Any, parts: str, run: Path) -> None:
    record = read_record(run)
    change(record)
    write_record(run, record)
    before = contents(run)
    with pytest.raises(ResumeError) as refusal:
        restored(run)
    named = f"{checkpoints(run)[1]} is of one with other {parts}"
    assert str(refusal.value) == f"resume: a checkpoint of the run in run.json is required, but {named}"
    assert contents(run) == before


def attempt(run: Path) -> tuple[int | None, list[str]] | str:
    """What `restored` gives, or the message of its error."""
    try:
        return restored(run)
    except ArtifactError as error:
        return str(error)


@given(data=st.data())
def test_whatever_byte_is_lost_the_file_is_named_and_the_rest_is_left(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = tmp_path_factory.getbasetemp() / "damaged"
    shutil.rmtree(run, ignore_errors=True)
    make_run(run)
    healthy = read_record(run)
    name = data.draw(st.sampled_from(sorted(contents(run))))
    path, content = run / name, (run / name).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["cut", "bit", "byte"]))
    changed = bytearray(content)
    changed[place] ^= 1 << data.draw(st.integers(0, 7)) if kind == "bit" else data.draw(st.integers(1, 255))
    path.write_bytes(content[:place] if kind == "cut" else bytes(changed))
    before, found = contents(run), attempt(run)
    if isinstance(found, str):
        assert str(path) in found
        assert "\n" not in found
        assert contents(run) == before
        return
    step, notes = found
    if path.parent.name == FOLDER:  # one of two: the older one is used, or was not needed
        newest = name == max(n for n in before if n.startswith(FOLDER))
        assert step == (4 if newest else 6)
        assert len(notes) == newest
        assert before.keys() - {name} <= contents(run).keys()
    elif name == NAME:  # spaces, or the end of the line
        assert read_record(run) == healthy
    else:  # rows after the newest checkpoint: they are trained again
        assert name == trace_name("frozen")
        assert place >= len(HEADER.encoded()) + STEPS[1] * HEADER.row.itemsize
        assert step == 6
