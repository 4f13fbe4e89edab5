"""Checkpoints: everything that the next step depends on, in one file that names its own digest.

    checkpoints/1-frozen-00000120-<SHA-256 of the file>.safetensors

A file appears under this name only when it is whole (written aside, synced, renamed), and it is read
only if its bytes have the digest that its name states; a damaged one is named and the one before it
is used. The format is safetensors: arrays and text, no code. The text says which computation the state
belongs to, and the digest of the trace up to it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from minibert.artifacts import remove_temporaries, sync_folder, write_named_by_digest, writing
from minibert.errors import ResumeError

FOLDER = "checkpoints"
_FORMAT = 2
_NAME = re.compile(r"(\d)-([a-z]+)-(\d{8})-([0-9a-f]{64})\.safetensors")
_DAMAGED = ".damaged"
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16",
           "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL"}  # fmt: skip
"""NumPy's names of types -> the format's."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` steps of a stage.

    Attributes:
        stage_index: The stage's place in the run, from 0.
        stage: Its name.
        step: Steps done in it.
        arrays: ``weights/<path>`` and ``optimizer/<number>/<path>``.
        state: Plain values: the epoch's sums, and the record so far.
        computation: Digests of settings, corpus, code and environment, by name: whose state it is.
        trace_sha256: Digest of the stage's trace up to ``step``.
    """

    stage_index: int
    stage: str
    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    computation: dict[str, str]
    trace_sha256: str


@dataclass(frozen=True)
class Found:
    """What is left of a run.

    Attributes:
        path: The newest whole checkpoint's file; None: there is none, and never was.
        checkpoint: What it holds.
        damaged: Files that come after it and are not what their names say, the newest first.
    """

    path: Path | None
    checkpoint: Checkpoint | None
    damaged: tuple[Path, ...] = ()


def write_checkpoint(directory: Path, checkpoint: Checkpoint, *, kept: int) -> Path:
    """Writes a checkpoint, then removes all but ``kept`` of those up to it: never the one just written.

    Raises:
        ArtifactError: It cannot be written; the older ones are still there.
    """
    folder = directory / FOLDER
    with writing(folder):
        if not folder.is_dir():
            folder.mkdir()
            sync_folder(directory)
    place = f"{checkpoint.stage_index}-{checkpoint.stage}-{checkpoint.step:08d}"
    written = write_named_by_digest(folder / f"{place}.safetensors", _blocks(checkpoint))
    older = [path for path in _files(directory) if path.name < written.name]
    for path in older[: max(len(older) - kept + 1, 0)]:
        path.unlink(missing_ok=True)
    return written


def find_checkpoint(directory: Path) -> Found:
    """Finds the newest checkpoint that is whole; nothing is changed.

    Raises:
        ResumeError: There are checkpoints, and all are damaged, or the newest whole one is of another format, that of
            another version of minibert; the message names them.
    """
    damaged: list[Path] = []
    for path in reversed(_files(directory)):
        checkpoint = _read(path)
        if checkpoint is not None:
            return Found(path, checkpoint, tuple(damaged))
        damaged.append(path)
    damaged += reversed(_set_aside(directory))
    if damaged:
        names = ", ".join(str(path) for path in damaged)
        raise ResumeError(f"resume: a whole checkpoint is required, but every one is damaged: {names}")
    return Found(None, None)


def set_aside(damaged: Iterable[Path]) -> None:
    """Renames damaged checkpoints to ``*.damaged``, for whoever wants to look at them.

    Raises:
        ArtifactError: One cannot be renamed.
    """
    for path in damaged:
        with writing(path):
            path.replace(path.with_name(path.name + _DAMAGED))
            sync_folder(path.parent)


def remove_checkpoints(directory: Path) -> None:
    """Removes all checkpoints, once a run is complete."""
    for path in [*_files(directory), *_set_aside(directory)]:
        path.unlink(missing_ok=True)
    folder = directory / FOLDER
    remove_temporaries(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _files(directory: Path) -> list[Path]:
    """The checkpoint files, oldest first."""
    return sorted(path for path in (directory / FOLDER).glob("*.safetensors") if _NAME.fullmatch(path.name))


def _set_aside(directory: Path) -> list[Path]:
    """The damaged files, oldest first."""
    found = (directory / FOLDER).glob(f"*.safetensors{_DAMAGED}")
    return sorted(path for path in found if _NAME.fullmatch(path.name.removesuffix(_DAMAGED)))


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    """All of a checkpoint but its arrays."""
    return {
        "format": _FORMAT,
        "stage_index": checkpoint.stage_index,
        "stage": checkpoint.stage,
        "step": checkpoint.step,
        "state": checkpoint.state,
        "computation": checkpoint.computation,
        "trace_sha256": checkpoint.trace_sha256,
    }


def _blocks(checkpoint: Checkpoint) -> Iterator[bytes | memoryview]:
    """A checkpoint's file: a header, then the arrays from where they are, so that no copy of them is made in memory.

    safetensors' own writer copies them, up to its version 0.7, or writes to a file of its own beside.

    Source: the format, github.com/huggingface/safetensors: the header's length (uint64, little-endian), the header
    (JSON, padded with spaces to 8 bytes), and the arrays' bytes in its order, no gap between them.
    """
    # The widest types first, so that each array is aligned to its type.
    arrays = sorted(checkpoint.arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": {"minibert": json.dumps(_described(checkpoint))}}
    end = 0
    for name, array in arrays:
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    yield len(encoded).to_bytes(8, "little")
    yield encoded
    for _, array in arrays:
        contiguous = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        yield contiguous.reshape(-1).view(np.uint8).data


def _read(path: Path) -> Checkpoint | None:
    """A checkpoint; None if its bytes do not have the digest of its name, or its content another name."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != match[4]:
            return None
        with safe_open(path, framework="numpy") as file:
            fields = json.loads((file.metadata() or {})["minibert"])
        if fields.pop("format") != _FORMAT:
            raise ResumeError(f"resume: a checkpoint of format {_FORMAT} is required, but {path} is of another one")
        found = Checkpoint(arrays=load(content), **fields)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    named = (int(match[1]), match[2], int(match[3]))
    return found if (found.stage_index, found.stage, found.step) == named else None
