"""What a run goes on from: its newest whole checkpoint, if everything that it counts on is still there.

All of it is checked before anything is changed, so a run that cannot be resumed is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from minibert.artifacts import sha256_of_file
from minibert.errors import ArtifactError, ResumeError
from minibert.fingerprints import require_rows, trace_name
from minibert.record import NAME
from minibert.resuming import computation_digests
from minibert.training.checkpoint import Checkpoint, find_checkpoint, set_aside

VOCABULARY = "vocabulary.txt"


def restore(directory: Path, record: dict[str, Any], *, note: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint to go on from; None where nothing was kept yet, and the run begins anew.

    Args:
        directory: The run directory.
        record: Its record.
        note: Is told of each damaged checkpoint, which is set aside.

    Raises:
        ResumeError: Every checkpoint is damaged, all are gone, or the newest is of another computation.
        ArtifactError: A file that the run has finished, or the trace up to the checkpoint, is missing or was
            changed; the message names it.
    """
    found = find_checkpoint(directory)
    _require_vocabulary(directory, record)
    if found.checkpoint is None or found.path is None:
        trained = [name for name, stage in record["stages"].items() if stage.get("epochs")]
        if trained:
            raise ResumeError(
                f"resume: a checkpoint is required, since {directory / NAME} has the stage {trained[-1]!r}, but there "
                "is none"
            )
        return None
    _require_same_computation(found.path, found.checkpoint, record)
    _require_files(directory, found.checkpoint)
    set_aside(found.damaged)
    for path in found.damaged:
        note(
            f"{path}: damaged (its bytes do not have the digest of its name), and kept under {path.name}.damaged; "
            "the checkpoint before it is used"
        )
    return found.checkpoint


def _require_vocabulary(directory: Path, record: dict[str, Any]) -> None:
    """It is there from the first moments on, or the run was killed before."""
    path = directory / VOCABULARY
    if path.exists() and sha256_of_file(path) != record["corpus"]["vocabulary_sha256"]:
        raise ArtifactError(f"{path}: the record's field 'vocabulary_sha256' does not fit: the file was cut or changed")


def _require_same_computation(path: Path, checkpoint: Checkpoint, record: dict[str, Any]) -> None:
    expected = computation_digests(record)
    differ = [name for name in expected if checkpoint.computation.get(name) != expected[name]]
    if differ:
        raise ResumeError(
            f"resume: a checkpoint of the run in {NAME} is required, but {path} is of one with other "
            f"{' and '.join(differ)}"
        )


def _require_files(directory: Path, checkpoint: Checkpoint) -> None:
    """Everything that was finished before the checkpoint, and the trace up to it."""
    for name, recorded in checkpoint.state["artifacts"].items():
        path = directory / name
        if not path.is_file():
            raise ArtifactError(f"{path}: the file of the checkpoint is required, but it is missing")
        if sha256_of_file(path) != recorded["sha256"]:
            raise ArtifactError(f"{path}: the checkpoint's field 'sha256' does not fit: the file was cut or changed")
    require_rows(directory / trace_name(checkpoint.stage), checkpoint.step, sha256=checkpoint.trace_sha256)
