"""Compares what two runs computed, bit by bit, and names the first step and tensor that part.

| verdict          | means                                                                   | exit code |
|------------------|-------------------------------------------------------------------------|-----------|
| `exact`          | the same bits at every step and in every stage's weights and optimizer  | 0         |
| `numeric`        | other bits, in another environment; every loss within the tolerance     | 10        |
| `different`      | other bits in the same environment, or a loss beyond the tolerance      | 11        |
| `not comparable` | other settings, another corpus, or other steps: and which               | 12        |

In one environment the bits must agree: there is no tolerance under which a changed weight could hide.

What is compared: at every step the bits of the loss, the CRC-32 of each batch array and the bit sum of
each activation, gradient and weight; at every epoch's end its figures and the SHA-256 of the weights; at
every stage's end the SHA-256 of weights and optimizer; the raw-text model's figures. A bit sum does not
see elements that change places within a tensor; the digests do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minibert.artifacts import sha256_of_file
from minibert.errors import ArtifactError
from minibert.fingerprints import Trace, read_trace
from minibert.record import NAME, read_record
from minibert.resuming import changed_environment, changed_inputs

EXIT_CODES = {"exact": 0, "numeric": 10, "different": 11, "not comparable": 12}
TOLERANCE = 1e-3
"""Largest relative deviation of a step's loss for `numeric`. Reordered float32 sums, as other thread
counts, processors and versions make them, stay below it over the tiny run; every planted fault of the
tests that moves the loss is beyond it."""
STAGES = ("pretrain", "frozen", "unfrozen")
TRACES = "trace"


@dataclass(frozen=True)
class Parting:
    """Where two runs first differ.

    Attributes:
        stage: The training stage.
        step: Step of the stage, from 0.
        tensor: ``batch token_ids``, ``activation encoder_0_ffn``, ``loss``, ``gradient mlm_cls/kernel``,
            ``weight mlm_cls/kernel``; or, for what has no step of its own, ``epoch 2: val_accuracy``,
            ``final optimizer`` and the like, at the number of steps done.
        also: Other tensors of that step that differ.
    """

    stage: str
    step: int
    tensor: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        verdict: ``exact``, ``numeric``, ``different`` or ``not comparable``.
        steps: Steps that were compared.
        parting: Where the runs first differ; None if nowhere.
        largest_deviation: Largest relative deviation of a step's loss; 0 if the bits agree.
        tolerance: What it is held against for ``numeric``.
        inputs: Settings and corpus figures that differ, in words.
        environment: Versions, threads, processor and code that differ, in words.
    """

    verdict: str
    steps: int
    parting: Parting | None = None
    largest_deviation: float = 0.0
    tolerance: float = TOLERANCE
    inputs: tuple[str, ...] = ()
    environment: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """The process's exit code for this verdict."""
        return EXIT_CODES[self.verdict]

    @property
    def explanation(self) -> list[str]:
        """Lines for a person."""
        lines = [f"{self.verdict}: {self.steps:,} steps compared"]
        if self.parting is not None:
            where = self.parting
            lines.append(f"first difference: {where.stage}, step {where.step}: {where.tensor}")
            if where.also:
                shown = ", ".join(where.also[:6]) + (f" and {len(where.also) - 6} more" if len(where.also) > 6 else "")
                lines.append(f"in the same step: {shown}")
            lines.append(f"largest relative deviation of a loss: {self.largest_deviation:.3g}")
        if self.verdict == "numeric":
            lines[-1] += f", within the tolerance of {self.tolerance:g}"
        lines += [f"input: {line}" for line in self.inputs]
        lines += [f"environment: {line}" for line in self.environment]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "exit_code": self.exit_code}


def compare_runs(directory: Path, other: Path, *, tolerance: float = TOLERANCE) -> Verdict:
    """Compares two complete runs.

    Args:
        directory: One run directory.
        other: The other.
        tolerance: Largest relative deviation of a loss for ``numeric``.

    Raises:
        ArtifactError: A record or a trace is missing, incomplete or damaged.
    """
    first, second = complete_record(directory), complete_record(other)
    inputs, environment = tuple(changed_inputs(first, second)), tuple(changed_environment(first, second))
    steps, deviation, parting = 0, 0.0, None
    shape = None
    for stage in STAGES:
        if (stage in first["stages"]) != (stage in second["stages"]):
            shape = shape or f"stage {stage} is in one run only"
        if stage not in first["stages"] or stage not in second["stages"]:
            continue
        one, two = (read_trace(path / TRACES / f"{stage}.trace") for path in (directory, other))
        _require_whole(one, first, directory, stage)
        _require_whole(two, second, other, stage)
        if len(one.rows) != len(two.rows):
            shape = shape or f"stage {stage} has {len(one.rows)} steps in one run and {len(two.rows)} in the other"
        steps += min(len(one.rows), len(two.rows))
        deviation = max(deviation, _largest_deviation(one, two))
        parting = (
            parting
            or first_parting(one, two)
            or _figures_parting(first, second, stage)
            or _final_parting(first, second, stage)
        )
    parting = parting or _raw_text_parting(first, second)
    inputs += (shape,) if shape else ()
    verdict = _verdict(inputs, environment, parting, deviation <= tolerance)
    return Verdict(verdict, steps, parting, deviation, tolerance, inputs, environment)


def _verdict(inputs: tuple[str, ...], environment: tuple[str, ...], parting: Parting | None, is_within: bool) -> str:
    if inputs:
        return "not comparable"
    if parting is None:
        return "exact"
    return "numeric" if environment and is_within else "different"


def first_parting(one: Trace, two: Trace) -> Parting | None:
    """The first step at which two traces of a stage differ, and its tensors in the order of computation."""
    count = min(len(one.rows), len(two.rows))
    columns = list(_shared_columns(one, two))
    differs = np.zeros((count, len(columns)), dtype=bool)
    for place, (_, left, right) in enumerate(columns):
        differs[:, place] = left[:count] != right[:count]
    steps = np.flatnonzero(differs.any(axis=1))
    alone = [f"{name}, which is in one run only" for name in _names_of_one(one, two)] if count else []
    if not len(steps) and not alone:
        return None
    step = 0 if alone else int(steps[0])
    names = [columns[place][0] for place in np.flatnonzero(differs[step])] + alone
    return Parting(one.header.stage, step, names[0], tuple(names[1:]))


def _shared_columns(one: Trace, two: Trace) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name and values of what both traces hold: batch, activations, loss, gradients, weights."""
    yield from _named(one, two, "batch", one.header.batch, two.header.batch, "batch ")
    tensors = list(_named(one, two, "tensors", one.header.tensors, two.header.tensors, ""))
    yield from (column for column in tensors if column[0].startswith("activation "))
    yield "loss", one.rows["loss"], two.rows["loss"]
    yield from (column for column in tensors if not column[0].startswith("activation "))


def _names_of_one(one: Trace, two: Trace) -> list[str]:
    """What only one of two traces holds: other layers, or other trained weights."""
    left, right = ([f"batch {name}" for name in t.header.batch] + list(t.header.tensors) for t in (one, two))
    return [name for name in [*left, *right] if (name in left) != (name in right)]


def _named(
    one: Trace, two: Trace, group: str, left: tuple[str, ...], right: tuple[str, ...], prefix: str
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    places = {name: place for place, name in enumerate(right)}
    for place, name in enumerate(left):
        if name in places:
            yield prefix + name, one.rows[group][:, place], two.rows[group][:, places[name]]


def _largest_deviation(one: Trace, two: Trace) -> float:
    """Largest |a - b| / max(|a|, |b|) of the losses; infinite where one is not finite and the bits differ."""
    count = min(len(one.rows), len(two.rows))
    same = one.rows["loss"][:count] == two.rows["loss"][:count]
    a, b = one.losses[:count].astype(np.float64)[~same], two.losses[:count].astype(np.float64)[~same]
    if not len(a):
        return 0.0
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.max(np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), np.finfo(np.float32).tiny)))


def _figures_parting(first: dict[str, Any], second: dict[str, Any], stage: str) -> Parting | None:
    """The first epoch whose figures differ, wall times aside."""
    epochs = zip(first["stages"][stage]["epochs"], second["stages"][stage]["epochs"], strict=False)
    for number, (one, two) in enumerate(epochs, start=1):
        names = [n for n in {**one, **two} if one.get(n) != two.get(n) and not n.endswith("seconds")]
        if names:
            labels = [f"epoch {number}: {name.removesuffix('_sha256')}" for name in names]
            return Parting(stage, number * int(one["steps"]), labels[0], tuple(labels[1:]))
    return None


def _final_parting(first: dict[str, Any], second: dict[str, Any], stage: str) -> Parting | None:
    one, two = first["stages"][stage], second["stages"][stage]
    names = [n for n in ("weights", "optimizer") if one.get(f"{n}_sha256") != two.get(f"{n}_sha256")]
    if not names:
        return None
    return Parting(stage, int(one["steps"]), f"final {names[0]}", tuple(f"final {name}" for name in names[1:]))


def _raw_text_parting(first: dict[str, Any], second: dict[str, Any]) -> Parting | None:
    one, two = (record["stages"].get("end_to_end", {}) for record in (first, second))
    names = [name for name in ("loss", "accuracy", "examples", "weights_sha256") if one.get(name) != two.get(name)]
    return Parting("end_to_end", 0, names[0], tuple(names[1:])) if names else None


def complete_record(directory: Path) -> dict[str, Any]:
    """The record of a complete run whose files are the recorded ones.

    Raises:
        ArtifactError: It is not complete, or a file is missing or was changed; the message names it.
    """
    record = read_record(directory)
    if record["status"] != "complete":
        raise ArtifactError(
            f"{directory / NAME}: field 'status': a complete run is required, but it is {record['status']!r}"
        )
    digests = {name: recorded["sha256"] for name, recorded in record["artifacts"].items()}
    for name, digest in {"vocabulary.txt": record["corpus"]["vocabulary_sha256"], **digests}.items():
        path = directory / name
        if not path.is_file() or sha256_of_file(path) != digest:
            raise ArtifactError(f"{path}: the file of the record is required, but it is missing or was changed")
    return record


def _require_whole(trace: Trace, record: dict[str, Any], directory: Path, stage: str) -> None:
    steps = record["stages"][stage].get("steps")
    if len(trace.rows) != steps:
        raise ArtifactError(
            f"{directory / TRACES / f'{stage}.trace'}: {steps} steps are recorded, but {len(trace.rows)} are there"
        )
