"""Checkpoints: everything that the next step depends on, in one file that names its own digest.

    checkpoints/1-frozen-00000120-<SHA-256 of the file>.safetensors

A file appears under this name only when it is whole (written aside, synced, renamed), and it is read
only if its bytes have the digest that its name states; a damaged one is named and the one before it
is used. The format is safetensors: arrays and text, no code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from minibert.artifacts import remove_temporaries, write_bytes, writing

FOLDER = "checkpoints"
_NAME = re.compile(r"(\d)-([a-z]+)-(\d{8})-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` steps of a stage.

    Attributes:
        stage_index: The stage's place in the run, from 0.
        stage: Its name.
        step: Steps done in it.
        arrays: ``weights/<path>`` and ``optimizer/<number>/<path>``.
        state: Plain values: the epoch's sums, and the record so far.
    """

    stage_index: int
    stage: str
    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


def write_checkpoint(directory: Path, checkpoint: Checkpoint, *, kept: int) -> Path:
    """Writes a checkpoint, then removes all but the newest ``kept``.

    Raises:
        ArtifactError: It cannot be written; the older ones are still there.
    """
    folder = directory / FOLDER
    with writing(folder):
        folder.mkdir(exist_ok=True)
    content = save(checkpoint.arrays, metadata={"minibert": json.dumps(checkpoint.state)})
    digest = hashlib.sha256(content).hexdigest()
    name = f"{checkpoint.stage_index}-{checkpoint.stage}-{checkpoint.step:08d}-{digest}.safetensors"
    write_bytes(folder / name, content)
    for old in _files(directory)[:-kept]:
        old.unlink(missing_ok=True)
    return folder / name


def newest_checkpoint(directory: Path, *, note: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
    """Reads the newest checkpoint that is whole; None if there is none.

    Args:
        directory: The run directory.
        note: Is told of each damaged file that is passed over.
    """
    for path in reversed(_files(directory)):
        checkpoint = _read(path)
        if checkpoint is not None:
            return checkpoint
        note(f"{path}: damaged (its bytes do not have the digest of its name); the checkpoint before it is used")
    return None


def remove_checkpoints(directory: Path) -> None:
    """Removes all checkpoints, once a run is complete."""
    for path in _files(directory):
        path.unlink(missing_ok=True)
    folder = directory / FOLDER
    remove_temporaries(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _files(directory: Path) -> list[Path]:
    """The checkpoint files, oldest first."""
    folder = directory / FOLDER
    return sorted(path for path in folder.glob("*.safetensors") if _NAME.fullmatch(path.name))


def _read(path: Path) -> Checkpoint | None:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != match[4]:
            return None
        with safe_open(path, framework="numpy") as file:
            state = json.loads((file.metadata() or {})["minibert"])
        return Checkpoint(int(match[1]), match[2], int(match[3]), load(content), state)
    except (OSError, ValueError, KeyError, SafetensorError):
        return None
