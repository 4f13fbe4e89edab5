"""A finished run's files are believed only if they are whole: else the error names the file, and nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert import inference, pipeline, verify
from minibert.errors import ArtifactError
from minibert.record import NAME, read_record
from minibert.report import write_report
from tests.runs import small_settings

SENTENCE = "I have watched this [mask] and it was awesome"
READERS: dict[str, Callable[[Path], Any]] = {
    "verify": lambda run: verify.verify(run, against=run),
    "replay": verify.verify,
    "resume": lambda run: pipeline.run(small_settings(), directory=run, resume=True),
    "report": write_report,
    "fill-mask": lambda run: inference.fill_mask(run, SENTENCE),
    "classify": lambda run: inference.classify(run, ["A great film."]),
}
MODELS = ("masked_lm.keras", "classifier.keras", "end_to_end.keras")
READ_BY = {
    NAME: tuple(READERS),
    "vocabulary.txt": ("verify", "replay", "resume", "fill-mask", "classify"),
    "masked_lm.keras": ("verify", "replay", "resume", "fill-mask"),
    "classifier.keras": ("verify", "replay", "resume", "classify"),
    "end_to_end.keras": ("verify", "replay", "resume"),
    **{f"trace/{stage}.trace": ("verify", "replay", "resume") for stage in ("pretrain", "frozen", "unfrozen")},
}
"""Who reads which file."""


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to damage; every test mends it."""
    return Path(shutil.copytree(small_run, tmp_path_factory.mktemp("damage") / "run"))


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def message_of(reader: str, run: Path) -> str | None:
    """The error of a reader; None if it had none to say."""
    try:
        READERS[reader](run)
    except ArtifactError as error:
        return str(error)
    return None


def assert_named(run: Path, name: str, content: bytes) -> None:
    """Every reader of a damaged file names it, in one line, and leaves the run as it is."""
    path = run / name
    healthy, record = path.read_bytes(), read_record(run)
    path.write_bytes(content)
    try:
        before = contents(run)
        for reader in READ_BY[name]:
            message = message_of(reader, run)
            if message is None:  # spaces in the record
                assert name == NAME
                assert read_record(run) == record
                (run / "report.html").unlink(missing_ok=True)
                return
            assert message.startswith(f"{path}: "), reader
            assert "\n" not in message
            if name == NAME:
                assert "field '" in message or "JSON is required" in message
            assert contents(run) == before, reader
    finally:
        path.write_bytes(healthy)


@pytest.mark.parametrize("name", READ_BY)
@pytest.mark.parametrize(
    "part", [pytest.param(0.0, marks=pytest.mark.long), 0.5, pytest.param(1.0, marks=pytest.mark.long)]
)
def test_a_file_that_was_cut_is_named(name: str, part: float, run: Path) -> None:
    content = (run / name).read_bytes()
    assert_named(run, name, content[: min(int(len(content) * part), len(content) - 2)])


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in READ_BY if name != NAME])
def test_a_file_with_something_behind_it_is_named(name: str, run: Path) -> None:
    assert_named(run, name, (run / name).read_bytes() + b"\n")


@pytest.mark.long
@pytest.mark.parametrize("name", READ_BY)
def test_a_file_of_something_else_is_named(name: str, run: Path) -> None:
    assert_named(run, name, b"\x89PNG\r\n\x1a\n")


def test_a_record_that_is_nested_without_end_is_named(run: Path) -> None:
    assert_named(run, NAME, b"[" * 100_000 + b"\n")


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.slow
def test_a_file_with_one_other_byte_is_named(data: st.DataObject, run: Path) -> None:
    name = data.draw(st.sampled_from(sorted(READ_BY)))
    content = bytearray((run / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    assert_named(run, name, bytes(content))


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        ("settings", '"learning_rate": 0.001', '"learning_rate": 0.002'),
        ("stages", '"loss": ', '"loss": 1'),
        ("corpus", '"unknown_rate": 0.', '"unknown_rate": 1.'),
        ("environment", '"machine": "', '"machine": "x'),
        ("code", '"masking.py": "', '"masking.py": "0'),
        ("artifacts", '"bytes": ', '"bytes": 1'),
        ("status", '"status": "complete"', '"status": "running"'),
    ],
)
def test_an_edited_field_of_the_record_is_named(field: str, before: str, after: str, run: Path) -> None:
    path, text = run / NAME, (run / NAME).read_text(encoding="utf-8")
    assert before in text
    edited = text.replace(before, after, 1).encode()
    assert_named(run, NAME, edited)
    path.write_bytes(edited)
    try:
        for reader in READERS:
            message = message_of(reader, run)
            assert message is not None
            assert f"field {field!r}" in message
    finally:
        path.write_bytes(text.encode())
