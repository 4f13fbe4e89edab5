"""The fingerprint trace of a stage: for every step the loss's bits, and for some a checksum of every tensor.

    trace/pretrain.trace
        {"format": 5, "stage": "pretrain", "batch": ["example_ids", ...], "tensors": ["activation ...", ...]}
        <fixed-size rows: step, bits of the loss, CRC-32 of each batch array, fingerprint of each tensor, CRC-32>

Comparing two traces names the first step and, in the order of computation (batch, activations, loss,
gradients, weights), the first tensor that part. The first line also names the tensors that are fingerprinted by
turns, if there are any, and the interval, where not every step has fingerprints: loss and batch are of every step.
The last field of a row is the CRC-32 of the header and of the row, so an edited row is named. Rows are written some
steps at a time: between two steps, with the caches full of the step's arrays, the Python code for one takes four times
as long as for the next. A crash costs the last of them, and a row that it cut is dropped when the trace is opened
again; the rows that a checkpoint counts on are written before it, and held to its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minibert.artifacts import sync_folder, writing
from minibert.errors import ArtifactError

FORMAT = 5
TURNS = 8
"""Steps with fingerprints in which every row of a large weight is fingerprinted once."""
ACTIVATION_TURNS = 32
"""Likewise every example of a large activation: what differs in it changes the gradients of its own step too."""
CPU_INTERVAL = 7
"""Steps from one with fingerprints to the next on a CPU, where a short step with them takes up to 4 % longer than
one without. It is odd, and the turns are a power of two: every part of a tensor has its turn, and the one that it has
at that step where every step has fingerprints."""
GPU_INTERVAL = 37
"""Likewise on a GPU, where a step with them takes a quarter longer."""
_FOLDER = "trace"
_MAXIMUM_HEADER_BYTES = 1 << 20


def trace_name(stage: str) -> str:
    """A stage's trace within a run directory."""
    return f"{_FOLDER}/{stage}.trace"


@dataclass(frozen=True)
class TraceHeader:
    """Names of what a row holds, each in the order of computation, no name twice.

    Attributes:
        stage: The stage's name.
        batch: Arrays of a batch.
        tensors: What is fingerprinted.
        by_turns: Those of ``tensors`` of which a row has the fingerprint of one part only, in `TURNS` or
            `ACTIVATION_TURNS`.
        interval: Steps from one with fingerprints to the next, from step 0 on; the rows between have zeros.
    """

    stage: str
    batch: tuple[str, ...]
    tensors: tuple[str, ...]
    by_turns: tuple[str, ...] = ()
    interval: int = 1

    def __post_init__(self) -> None:
        for field, names in (("batch", self.batch), ("tensors", self.tensors), ("by_turns", self.by_turns)):
            if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
                raise ValueError(f"field {field!r}: different names are required")
        if type(self.interval) is not int or self.interval < 1:
            raise ValueError(f"field 'interval': a whole number from 1 is required, but {self.interval!r} came")

    @property
    def row(self) -> np.dtype[Any]:
        """The layout of a row, little-endian."""
        return np.dtype(
            [
                ("step", "<i8"),
                ("loss", "<u4"),
                ("batch", "<u4", (len(self.batch),)),
                ("tensors", "<i4", (len(self.tensors),)),
                ("checksum", "<u4"),
            ]
        )

    def encoded(self) -> bytes:
        """The header line."""
        content: dict[str, Any] = {"format": FORMAT, "stage": self.stage, "batch": self.batch, "tensors": self.tensors}
        if self.by_turns:
            content["by_turns"] = self.by_turns
        if self.interval != 1:
            content["interval"] = self.interval
        return json.dumps(content).encode() + b"\n"

    def row_checksums(self, rows: bytes) -> np.ndarray:
        """For each row the CRC-32 of the header line and the row without its last four bytes: uint32, (rows,)."""
        start, size, view = zlib.crc32(self.encoded()), self.row.itemsize, memoryview(rows)
        ends = range(size, len(rows) + 1, size)
        return np.array([zlib.crc32(view[end - size : end - 4], start) for end in ends], dtype=np.uint32)


def checksum(array: np.ndarray) -> int:
    """CRC-32 of an array's bytes: it depends on the order of the elements."""
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)


def encode_trace(header: TraceHeader, rows: np.ndarray) -> bytes:
    """A whole trace as bytes, each row with its checksum."""
    sealed = rows.astype(header.row)
    sealed["checksum"] = header.row_checksums(sealed.tobytes())
    return header.encoded() + sealed.tobytes()


class TraceWriter:
    """Appends rows to a trace.

    Args:
        path: The trace's file.
        header: What a row holds.
        steps: Rows to keep from an earlier run that is gone on with; later ones are dropped.
        sha256: The digest that header and kept rows must have, from `TraceWriter.sha256`; None: any.

    Raises:
        ArtifactError: Fewer rows are there than are to be kept, they are others, or the trace cannot be
            written; the latter also from the methods. A trace that is refused is left as it was.
    """

    held_rows = 32
    """Steps whose rows are written together; until then, the batches' arrays that are checksummed are kept."""

    def __init__(self, path: Path, header: TraceHeader, *, steps: int, sha256: str | None = None) -> None:
        self._header, self._path = header, path
        self._seed, self._digest = zlib.crc32(header.encoded()), hashlib.sha256(header.encoded())
        self._held: list[tuple[int, int, list[np.ndarray], np.ndarray]] = []
        kept = require_rows(path, steps, sha256=sha256) if steps else None
        if kept is not None and kept.header.interval != header.interval:
            raise ArtifactError(
                f"{path}: it has fingerprints of one step in {kept.header.interval}, which is required to go on, but "
                f"one in {header.interval} is asked for: see record.fingerprinted_steps"
            )
        if kept is not None and kept.header != header:
            raise ArtifactError(f"{path}: the stage's own names are required in its first line, but others are there")
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            self._file = path.open("w+b" if kept is None else "r+b")
            if kept is None:
                self._file.write(header.encoded())
                sync_folder(path.parent)
                sync_folder(path.parent.parent)
            else:
                self._file.truncate(len(header.encoded()) + kept.rows.nbytes)
                self._file.seek(0, 2)
                self._digest.update(kept.rows.tobytes())

    def append(self, step: int, *, loss_bits: int, batch: dict[str, np.ndarray], fingerprint: np.ndarray) -> None:
        """Adds the row of one step; until it is written, nobody may change the arrays.

        Args:
            step: Global step of the stage.
            loss_bits: The bits of the float32 loss.
            batch: The batch's arrays by name.
            fingerprint: int32, one for each tensor; zeros at a step that has none.
        """
        self._held.append((step, loss_bits, [batch[name] for name in self._header.batch], fingerprint))
        if len(self._held) >= self.held_rows:
            self.flush()

    def flush(self) -> None:
        """Writes the rows that are held, if there are any."""
        held, self._held = self._held, []  # what cannot be written is not tried again when the trace is closed
        if not held:
            return
        rows = np.zeros(len(held), dtype=self._header.row)
        for row, (step, loss_bits, batch, fingerprint) in zip(rows, held, strict=True):
            row["step"], row["loss"] = step, loss_bits
            row["batch"] = [checksum(array) for array in batch]
            row["tensors"] = fingerprint
            row["checksum"] = zlib.crc32(row.tobytes()[:-4], self._seed)
        self._digest.update(rows.tobytes())
        with writing(self._path):
            self._file.write(rows.tobytes())
        self._written(rows)

    def _written(self, rows: np.ndarray) -> None:
        """Is told of rows that were written, structured, (rows,): for those who look at them."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the header line and all rows so far, in hexadecimal."""
        self.flush()
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Puts all rows on the disk: a checkpoint that counts on them may be written after."""
        self.flush()
        with writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends the trace."""
        try:
            self.flush()
        finally:
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


def read_trace(path: Path, *, steps: int | None = None) -> Trace:
    """Reads a trace; a last row that was cut is left out.

    Args:
        path: Its file.
        steps: Rows to read, if there are so many; None: all.

    Raises:
        ArtifactError: It is missing, not a trace, or was edited; the message names the field.
    """
    try:
        line, separator, body = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise ArtifactError(f"{path}: a fingerprint trace is required, but {error.strerror or error}") from None
    try:
        header = _header(json.loads(line[:_MAXIMUM_HEADER_BYTES]) if separator else None)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: a fingerprint trace is required, but its first line is not right: {error}"
        ) from None
    if header.encoded() != line + separator:
        raise ArtifactError(f"{path}: its first line was edited: it is not written as minibert writes it")
    count = len(body) // header.row.itemsize
    rows = np.frombuffer(body, dtype=header.row, count=count if steps is None else min(count, steps))
    fits = {"step": rows["step"] == np.arange(len(rows)),
            "checksum": rows["checksum"] == header.row_checksums(rows.tobytes())}  # fmt: skip
    for field, is_right in fits.items():
        if not is_right.all():
            raise ArtifactError(
                f"{path}: field {field!r} of row {int(np.argmin(is_right))} does not fit: it was edited"
            )
    return Trace(header, rows)


def require_rows(path: Path, steps: int, *, sha256: str | None) -> Trace:
    """The first rows of a trace, which a checkpoint counts on.

    Raises:
        ArtifactError: There are fewer, or header and rows do not have the digest.
    """
    trace = read_trace(path, steps=steps)
    if len(trace.rows) < steps:
        raise ArtifactError(f"{path}: {steps} steps are required, but {len(trace.rows)} are there")
    if sha256 is not None and hashlib.sha256(trace.header.encoded() + trace.rows.tobytes()).hexdigest() != sha256:
        raise ArtifactError(f"{path}: the trace of the checkpoint after step {steps} is required, but another is there")
    return trace


def _header(fields: Any) -> TraceHeader:
    """A header from its parsed line.

    Raises:
        ValueError: A field is missing or wrong; the message names it.
    """
    if not isinstance(fields, dict) or type(fields.get("format")) is not int:
        raise ValueError(f"field 'format': {FORMAT} is required")
    if fields["format"] != FORMAT:
        raise ValueError(f"field 'format': {FORMAT} is required, but {fields['format']} came, of another minibert")
    fields = {"by_turns": [], "interval": 1, **fields}
    for field, kind in (("stage", str), ("batch", list), ("tensors", list), ("by_turns", list)):
        if not isinstance(fields.get(field), kind):
            raise ValueError(f"field {field!r}: a {kind.__name__} is required")
    batch, tensors, by_turns = (tuple(fields[name]) for name in ("batch", "tensors", "by_turns"))
    return TraceHeader(fields["stage"], batch, tensors, by_turns, fields["interval"])
