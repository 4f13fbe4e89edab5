"""Compares what two runs computed, bit by bit, and names the first step and tensor that part.

What is compared: at every step the bits of the loss, the CRC-32 of each batch array and the fingerprint of
each activation, gradient and weight; at every epoch's end its figures and the SHA-256 of the weights; at
every stage's end the SHA-256 of weights and optimizer; the raw-text model's figures; before all of them the
vocabulary and the token ids that were made of the corpus. A large tensor is fingerprinted by turns (see
`minibert.training.step.fingerprint`), so what differs in one of its rows alone is named up to three steps late.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.artifacts import sha256_of_file
from minibert.errors import ArtifactError
from minibert.fingerprints import read_trace, trace_name
from minibert.record import NAME, read_record
from minibert.resuming import changed_code, changed_environment, changed_inputs, encoding_partings
from minibert.settings import TRAINING_STAGES
from minibert.verify.differences import (
    Deviations,
    Difference,
    epoch_differences,
    raw_text_differences,
    trace_differences,
)
from minibert.verify.verdict import EXIT_CODES, TOLERANCE, Parting, Tolerances, Verdict, decide

__all__ = ["EXIT_CODES", "TOLERANCE", "Parting", "Tolerances", "Verdict", "compare_runs", "complete_record"]

Record = dict[str, Any]
Found = tuple[list[Difference], Deviations]


def compare_runs(directory: Path, other: Path, *, tolerance: float = TOLERANCE) -> Verdict:
    """Compares two complete runs.

    Args:
        directory: One run directory.
        other: The other.
        tolerance: Largest relative deviation of a loss of the first steps for ``numeric``; `Tolerances` has the rest.

    Raises:
        ArtifactError: A record or a trace is missing, incomplete or damaged.
    """
    first, second, tolerances = complete_record(directory), complete_record(other), Tolerances(tolerance)
    differences, deviations, steps = encoding_differences(first, second), Deviations(), 0
    for stage in TRAINING_STAGES:
        if (stage in first["stages"]) != (stage in second["stages"]):
            name = "the stage, which is in one run only"
            differences.append(Difference(Parting(stage, 0, name), (name,)))
        if stage not in first["stages"] or stage not in second["stages"]:
            continue
        pair = ((directory, first), (other, second))
        (found, largest), compared = _stage_differences(*pair, stage, tolerances=tolerances, steps_before=steps)
        differences, deviations, steps = differences + found, deviations.or_larger(largest), steps + compared
    ends = [record["stages"].get("end_to_end", {}) for record in (first, second)]
    found, largest = raw_text_differences(*ends, tolerances=tolerances, steps_before=steps)
    deviations = deviations.or_larger(largest)
    return verdict_on(first, second, differences + found, steps=steps, deviations=deviations, tolerances=tolerances)


def verdict_on(
    first: Record,
    second: Record,
    differences: list[Difference],
    *,
    steps: int = 0,
    deviations: Deviations | None = None,
    tolerances: Tolerances | None = None,
) -> Verdict:
    """The verdict on two records and the differences between their runs, which are in order."""
    deviations = deviations or Deviations()
    inputs = tuple(changed_inputs(first, second))
    code, environment = tuple(changed_code(first, second)), tuple(changed_environment(first, second))
    parting = differences[0].parting if differences else None
    unexplained = next((d.unexplained_parting for d in differences if d.unexplained), None)
    return Verdict(
        verdict=decide(inputs=inputs, reasons=code + environment, parting=parting, unexplained=unexplained),
        steps=steps,
        parting=parting,
        unexplained=unexplained,
        largest_deviation=deviations.early.value,
        largest_at=deviations.early.at,
        late_deviation=deviations.late.value,
        late_at=deviations.late.at,
        tolerances=tolerances or Tolerances(),
        inputs=inputs,
        environment=environment,
        code=code,
    )


def encoding_differences(first: Record, second: Record) -> list[Difference]:
    """What was made of one corpus and differs: nothing may change it."""
    names = tuple(encoding_partings(first, second))
    return [Difference(Parting("encode", 0, names[0], names[1:]), names)] if names else []


def _stage_differences(
    one: tuple[Path, Record], two: tuple[Path, Record], stage: str, *, tolerances: Tolerances, steps_before: int
) -> tuple[Found, int]:
    """A stage's differences in the order of computation, its largest deviations, and the steps compared."""
    traces = [read_trace(directory / trace_name(stage)) for directory, _ in (one, two)]
    for trace, (directory, record) in zip(traces, (one, two), strict=True):
        steps = record["stages"][stage].get("steps")
        if len(trace.rows) != steps:
            path = directory / trace_name(stage)
            raise ArtifactError(f"{path}: {steps} steps are recorded, but {len(trace.rows)} are there")
    rows, deviations = trace_differences(*traces, tolerances=tolerances, steps_before=steps_before)
    records = [record["stages"][stage] for _, record in (one, two)]
    figures, largest = epoch_differences(stage, *records, tolerances=tolerances, steps_before=steps_before)
    # An epoch's figures at step n come after the row of step n - 1 and before that of step n.
    ordered = sorted([*figures, *rows], key=lambda difference: difference.parting.step)
    return (ordered, deviations.or_larger(largest)), min(len(trace.rows) for trace in traces)


def complete_record(directory: Path) -> Record:
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
