"""Compares what two runs computed, bit by bit, and names the first step and tensor that part.

What is compared: at every step the bits of the loss and the CRC-32 of each batch array; at each step that has them
the fingerprint of each activation, gradient and weight; at every epoch's end its figures and the SHA-256 of the
weights; at every stage's end the SHA-256 of weights and optimizer; the raw-text model's figures; before all of them
the vocabulary and the token ids that were made of the corpus. A large tensor is fingerprinted by turns (see
`minibert.training.tensor_fingerprints`), so what differs in one row of a weight alone is named up to seven steps
with fingerprints late, but not behind an epoch's end that finds other weights, and the verdict says so; what
differs in the activations of one example alone may be named by what is computed from it. Unless all are asked for,
one step in `minibert.fingerprints.CPU_INTERVAL` has fingerprints, on a GPU one in ``GPU_INTERVAL``; the losses and
batches of all are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.errors import ArtifactError
from minibert.fingerprints import Trace, read_trace, trace_name
from minibert.record import NAME, read_record, resuming_command
from minibert.resuming import (
    changed_code,
    changed_environment,
    changed_inputs,
    encoding_partings,
    require_recorded_files,
)
from minibert.settings import TRAINING_STAGES
from minibert.verify.differences import (
    Deviations,
    Difference,
    shared_fingerprints,
    trace_differences,
)
from minibert.verify.figure_differences import epoch_differences, raw_text_differences
from minibert.verify.verdict import EXIT_CODES, TOLERANCE, Parting, Tolerances, Verdict, decide, names_state

__all__ = ["EXIT_CODES", "TOLERANCE", "Parting", "Tolerances", "Verdict", "compare_begun", "compare_runs",
           "complete_record"]  # fmt: skip

Record = dict[str, Any]


def compare_runs(directory: Path, other: Path, *, tolerance: float = TOLERANCE) -> Verdict:
    """Compares two complete runs.

    Args:
        directory: One run directory.
        other: The other.
        tolerance: Largest relative deviation of a loss of the first steps for ``numeric``; `Tolerances` has the rest.

    Raises:
        ArtifactError: A record or a trace is missing, incomplete or damaged.
    """
    first, second = complete_record(directory), complete_record(other)
    tolerances = tolerances_for(first, tolerance)
    differences, deviations, steps, fingerprinted = encoding_differences(first, second), Deviations(), 0, 0
    for stage in TRAINING_STAGES:
        if (stage in first["stages"]) != (stage in second["stages"]):
            name = "the stage, which is in one run only"
            differences.append(Difference(Parting(stage, 0, name), (name,)))
        if stage not in first["stages"] or stage not in second["stages"]:
            continue
        traces = [_whole_trace(*run, stage) for run in ((directory, first), (other, second))]
        records = [record["stages"][stage] for record in (first, second)]
        found, largest = _stage_differences(traces, records, tolerances=tolerances, steps_before=steps)
        differences, deviations = differences + found, deviations.or_larger(largest)
        steps += min(len(trace.rows) for trace in traces)
        fingerprinted += shared_fingerprints(*traces)
    ends = [record["stages"].get("end_to_end", {}) for record in (first, second)]
    found, largest = raw_text_differences(*ends, tolerances=tolerances, steps_before=steps)
    return verdict_on(
        first,
        second,
        differences + found,
        steps=steps,
        fingerprinted=fingerprinted,
        deviations=deviations.or_larger(largest),
        tolerances=tolerances,
    )


def compare_begun(directory: Path, begun: Path, *, failure: str | None = None, tolerance: float = TOLERANCE) -> Verdict:
    """Compares a complete run with the beginning of one that has the same stages, as far as that came.

    Args:
        directory: The complete run's directory.
        begun: The other's.
        failure: The error that ended it, which no environment explains; None: what its last step computed.
        tolerance: As of `compare_runs`.
    """
    first, second = complete_record(directory), read_record(begun)
    tolerances = tolerances_for(first, tolerance)
    differences, deviations, steps, fingerprinted = encoding_differences(first, second), Deviations(), 0, 0
    for stage in [name for name in TRAINING_STAGES if (begun / trace_name(name)).exists()]:  # at least one
        other = read_trace(begun / trace_name(stage))
        traces = [read_trace(directory / trace_name(stage), steps=len(other.rows)), other]
        records = [record["stages"].get(stage, {"epochs": []}) for record in (first, second)]
        if records[0]["steps"] != records[1].get("steps"):  # it has not ended: only its epochs can be compared
            records = [{"epochs": record["epochs"]} for record in records]
        found, largest = _stage_differences(traces, records, tolerances=tolerances, steps_before=steps)
        differences, deviations = differences + found, deviations.or_larger(largest)
        steps += len(other.rows)
        fingerprinted += shared_fingerprints(*traces)
    if failure is not None:
        name = f"the replay, which ended: {failure}"
        differences.append(Difference(Parting(stage, len(other.rows), name), (name,)))
    return verdict_on(
        first,
        second,
        differences,
        steps=steps,
        fingerprinted=fingerprinted,
        deviations=deviations,
        tolerances=tolerances,
    )


def tolerances_for(record: Record, tolerance: float) -> Tolerances:
    """What a run's losses and accuracies are held to elsewhere."""
    return Tolerances.of_first_steps(tolerance, precision=record["settings"]["model"]["precision"])


def verdict_on(
    first: Record,
    second: Record,
    differences: list[Difference],
    *,
    steps: int = 0,
    fingerprinted: int = 0,
    deviations: Deviations | None = None,
    tolerances: Tolerances | None = None,
) -> Verdict:
    """The verdict on two records and the differences between their runs, which are in order."""
    deviations = deviations or Deviations()
    inputs = tuple(changed_inputs(first, second))
    environment = tuple(changed_environment(first, second))
    parting = differences[0].parting if differences else None
    unexplained = next((d.unexplained_parting for d in differences if d.unexplained), None)
    return Verdict(
        verdict=decide(inputs=inputs, environment=environment, parting=parting, unexplained=unexplained),
        steps=steps,
        parting=parting,
        unexplained=unexplained,
        first_deviation=deviations.first.value,
        first_at=deviations.first.at,
        largest_deviation=deviations.early.value,
        largest_at=deviations.early.at,
        late_deviation=deviations.late.value,
        late_at=deviations.late.at,
        accuracy_deviation=deviations.accuracy.value,
        accuracy_at=deviations.accuracy.at,
        tolerances=tolerances or Tolerances(),
        inputs=inputs,
        environment=environment,
        code=tuple(changed_code(first, second)),
        fingerprinted=fingerprinted,
    )


def encoding_differences(first: Record, second: Record) -> list[Difference]:
    """What was made of one corpus and differs: nothing may change it."""
    names = tuple(encoding_partings(first, second))
    return [Difference(Parting("encode", 0, names[0], names[1:]), names)] if names else []


def _whole_trace(directory: Path, record: Record, stage: str) -> Trace:
    path, steps = directory / trace_name(stage), record["stages"][stage].get("steps")
    trace = read_trace(path)
    if len(trace.rows) != steps:
        raise ArtifactError(f"{path}: {steps} steps are recorded, but {len(trace.rows)} are there")
    return trace


def _stage_differences(
    traces: list[Trace], records: list[dict[str, Any]], *, tolerances: Tolerances, steps_before: int
) -> tuple[list[Difference], Deviations]:
    """A stage's differences in the order of computation, and its largest deviations."""
    stage = traces[0].header.stage
    rows, deviations = trace_differences(*traces, tolerances=tolerances, steps_before=steps_before)
    figures, largest = epoch_differences(stage, *records, tolerances=tolerances, steps_before=steps_before)
    one, two = (trace.header for trace in traces)
    together = _together(*records)
    rows = [difference.seen_late(one, two, together=together) for difference in rows]
    for place, figure in enumerate(figures):  # beside weights that are the same, an epoch's other figures part there
        if figure.is_of_state:
            is_of_weights = names_state(figure.parting.tensor, "weights")  # an optimizer may part before them
            since = together if is_of_weights else (0,)
            figures[place] = figure.seen_late(one, two, together=since)
    # An epoch's figures at step n come after the row of step n - 1 and before that of step n.
    ordered = sorted([*figures, *rows], key=lambda difference: difference.parting.step)
    return ordered, deviations.or_larger(largest)


def _together(first: dict[str, Any], second: dict[str, Any]) -> list[int]:
    """Steps done, 0 among them, after which all weights of two stages were the same."""
    done, found = 0, [0]
    for one, two in zip(first["epochs"], second["epochs"], strict=False):
        done += int(one["steps"])
        if one.get("weights_sha256") is not None and one.get("weights_sha256") == two.get("weights_sha256"):
            found.append(done)
    return found


def complete_record(directory: Path) -> Record:
    """The record of a complete run whose files are the recorded ones.

    Raises:
        ArtifactError: It is not complete, or a file is missing or was changed; the message names it.
    """
    record = read_record(directory)
    if record["status"] != "complete":
        raise ArtifactError(
            f"{directory / NAME}: field 'status': a complete run is required, but it is {record['status']!r}, or was "
            f"stopped: {resuming_command(record, directory)} goes on with it"
        )
    require_recorded_files(directory, record)
    return record
