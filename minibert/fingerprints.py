"""The fingerprint trace of a stage: for every step the loss's bits and a checksum of every tensor.

    trace/pretrain.trace
        {"format": 1, "stage": "pretrain", "batch": ["example_ids", ...], "tensors": ["activation ...", ...]}
        <fixed-size rows: step, bits of the loss, CRC-32 of each batch array, checksum of each tensor>

Comparing two traces names the first step and, in the order of computation (batch, activations, loss,
gradients, weights), the first tensor that part. A row is written whole with its step; a row cut by a
crash is dropped when the trace is opened again.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minibert.artifacts import writing
from minibert.errors import ArtifactError

FORMAT = 1
_MAXIMUM_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class TraceHeader:
    """Names of what a row holds, each in the order of computation."""

    stage: str
    batch: tuple[str, ...]
    tensors: tuple[str, ...]

    @property
    def row(self) -> np.dtype[Any]:
        """The layout of a row, little-endian."""
        return np.dtype(
            [("step", "<i8"), ("loss", "<u4"), ("batch", "<u4", len(self.batch)), ("tensors", "<i4", len(self.tensors))]
        )

    def encoded(self) -> bytes:
        """The header line."""
        content = {"format": FORMAT, "stage": self.stage, "batch": self.batch, "tensors": self.tensors}
        return json.dumps(content).encode() + b"\n"


def checksum(array: np.ndarray) -> int:
    """CRC-32 of an array's bytes: it depends on the order of the elements."""
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)


class TraceWriter:
    """Appends rows to a trace.

    Args:
        path: The trace's file.
        header: What a row holds.
        steps: Rows to keep from an earlier run that is gone on with; later ones are dropped.

    Raises:
        ArtifactError: Fewer rows are there than are to be kept, or it cannot be written; the latter also
            from the methods.
    """

    def __init__(self, path: Path, header: TraceHeader, *, steps: int) -> None:
        self._header, self._path = header, path
        kept = read_trace(path).rows[:steps] if steps and path.exists() else np.empty(0, header.row)
        if len(kept) < steps:
            raise ArtifactError(f"{path}: {steps} steps are required, but {len(kept)} are there")
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.write(header.encoded() + kept.astype(header.row).tobytes())
            self._file.truncate()

    def append(self, step: int, *, loss_bits: int, batch: dict[str, np.ndarray], fingerprint: np.ndarray) -> None:
        """Adds the row of one step."""
        row = np.zeros((), dtype=self._header.row)
        row["step"], row["loss"] = step, loss_bits
        row["batch"] = [checksum(batch[name]) for name in self._header.batch]
        row["tensors"] = fingerprint
        with writing(self._path):
            self._file.write(row.tobytes())

    def flush(self) -> None:
        """Hands all rows to the operating system; they outlive a killed process from here on."""
        with writing(self._path):
            self._file.flush()

    def close(self) -> None:
        """Ends the trace."""
        with writing(self._path):
            self._file.close()


@dataclass(frozen=True)
class Trace:
    """A stage's trace: its header and one structured row per step."""

    header: TraceHeader
    rows: np.ndarray

    @property
    def losses(self) -> np.ndarray:
        """The loss sum of each step: float32, (steps,)."""
        return np.ascontiguousarray(self.rows["loss"]).view(np.float32)


def read_trace(path: Path) -> Trace:
    """Reads a trace; a last row that was cut is left out.

    Raises:
        ArtifactError: It is missing or not a trace.
    """
    try:
        content = path.read_bytes()
        line, separator, body = content.partition(b"\n")
        fields = json.loads(line[:_MAXIMUM_HEADER_BYTES]) if separator else None
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise ValueError(f"format {FORMAT} is required in its first line")
        header = TraceHeader(str(fields["stage"]), tuple(fields["batch"]), tuple(fields["tensors"]))
        row = header.row
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: a fingerprint trace is required, but it cannot be read: {error}") from None
    count = len(body) // row.itemsize
    rows = np.frombuffer(body, dtype=row, count=count)
    if not np.array_equal(rows["step"], np.arange(count)):
        raise ArtifactError(f"{path}: field 'step': 0, 1, 2, ... are required; the trace was edited or damaged")
    return Trace(header, rows)
