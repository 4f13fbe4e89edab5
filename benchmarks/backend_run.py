"""The same masked-LM pretraining on real reviews, on another backend or device: how far do its losses go apart?

    python -m benchmarks.backend_run --data imdb.parquet --backend tensorflow --steps 1563 --keep runs.json
    python -m benchmarks.backend_run --data imdb.parquet --backend jax --device cuda --keep runs.json
    python -m benchmarks.backend_run --table benchmarks/results/backend_run.json
    python -m benchmarks.backend_run --redraw benchmarks/results/backend_run.json

It is notebook 1's pretraining: vocabulary, order, masks, initial weights and dropout are the same bits everywhere, so
only the rounding of the arithmetic differs. Adam's second moment is by word, since no other backend has it by
occurrence. The first row in float32 of TensorFlow on the CPU is what the others are compared with. Needs no
TensorFlow unless that is the backend; see `benchmarks.backends`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.backends import (
    BACKENDS,
    PRECISIONS,
    add_arguments,
    choose_backend,
    deviation,
    distance_text,
    measured_rows,
    named,
    require_precision,
)
from benchmarks.line_picture import Line, Panel, line_picture
from benchmarks.stored import Results, kept_table
from benchmarks.workers import run_apart
from minibert.artifacts import write_bytes
from minibert.batches import QUERY_MULTIPLE, ROW_MULTIPLE, Arrays, Batches, filled_up
from minibert.errors import MinibertError, SettingsError

KEYS = ("backend", "device_name", "precision", "compiled", "deterministic", "steps")
SETTINGS = ("corpus.class_names=negative,positive", "pretrain.embedding_second_moment=word")
SMOOTHED_STEPS = 25
FIRST_STEPS = 200
"""Of so many steps every loss is kept, as it is."""
WAITED_STEPS = 100
"""Losses are fetched after so many steps: the device is not held up between them."""
JAX_ROWS = 8 * ROW_MULTIPLE
"""JAX compiles a step anew for every number of rows, so there are few different ones."""
JAX_QUERIES = 4 * QUERY_MULTIPLE
"""Likewise of an example's queries."""


def run_of(task: dict[str, Any]) -> dict[str, Any]:
    """One row, in a fresh process.

    Raises:
        DeviceError: Backend or device are missing.
        CorpusError: The data are no reviews.
        WrongLossError: A weight is not a finite number at the end.
    """
    choose_backend(task)
    from benchmarks.backend_measuring import conditions_here, set_up
    from benchmarks.workloads import with_precision
    from minibert.batches import MaskedLMBatches, drawn_arrays
    from minibert.preparation import prepare
    from minibert.presets import resolve_settings
    from minibert.training.state import state_digest

    device_name = set_up(task)
    prepared = prepare(resolve_settings("imdb", assignments=(*SETTINGS, *task["set"])), data=task["data"])
    settings, token_ids = prepared.settings, prepared.examples.token_ids
    from benchmarks.backend_steps import BackendStep

    size = settings.pretrain.batch_size
    batches = MaskedLMBatches(token_ids, seed=settings.seed, masking=settings.masking, batch_size=size)
    in_all, epoch = settings.pretrain.epochs * batches.steps_per_epoch, batches.steps_per_epoch
    steps = min(task["steps"] or in_all, in_all)
    step = BackendStep(with_precision(settings, task["precision"]), compiled=task["compiled"])
    corpus = prepared.record["corpus"]
    inputs = {
        **{name: corpus[name] for name in ("digest", "vocabulary_sha256", "ids_sha256")},
        "settings": settings.digest(),
        # Of the first epoch's ends: however far a run goes, they are the same.
        "batches": state_digest(
            {f"{n}/{k}": v for n in (0, epoch - 1) for k, v in drawn_arrays(batches.batch(n)).items()}
        ),
        "weights": state_digest(step.weights()),
    }
    started = time.perf_counter()
    losses = _trained(step, batches, steps, name=task["backend"])
    return {
        **{name: task[name] for name in ("backend", "device", "precision", "compiled", "deterministic")},
        "device_name": device_name,
        "steps": steps,
        "seconds": time.perf_counter() - started,
        "first_losses": losses[:FIRST_STEPS],
        "losses": [round(statistics.fmean(losses[n : n + SMOOTHED_STEPS]), 6) for n in range(0, steps, SMOOTHED_STEPS)],
        "epochs": [statistics.fmean(losses[n : n + epoch]) for n in range(0, steps - epoch + 1, epoch)],
        "inputs": inputs,
        "weights_sha256": state_digest(step.weights()),
        "conditions": conditions_here(task, settings=[*SETTINGS, *task["set"]]),
    }


def _trained(step: Any, batches: Batches, steps: int, *, name: str) -> list[float]:
    """Trains, and says how far it is: the mean loss of a selected token in each step."""
    from benchmarks.backend_steps import mean_losses, queries_of, rows_of, with_rows
    from minibert.batches import Prefetch

    def made(number: int) -> Arrays:
        batch = batches.batch(number)
        if name != "jax":
            return batch
        return with_rows(batch, filled_up(rows_of(batch), JAX_ROWS), filled_up(queries_of(batch), JAX_QUERIES))

    losses: list[float] = []
    sums: list[Any] = []
    counts: list[float] = []
    started = time.perf_counter()
    for number, batch in Prefetch(made, 0, steps):
        sums.append(step.begin(number, step.put(batch)))
        counts.append(float(batch["sample_weight"].sum()))
        if len(sums) == WAITED_STEPS or number + 1 == steps:
            losses += mean_losses(sums, counts)
            sums, counts = [], []
            print(
                f"{name}: step {number + 1} of {steps}, loss {losses[-1]:.4f}, {time.perf_counter() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    step.require_finite(steps - 1)
    return losses


def reference_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The first row of TensorFlow in float32 on the CPU; None if there is none."""
    wanted = ("tensorflow", "cpu", "float32")
    return next((row for row in rows if (row["backend"], row["device"], row["precision"]) == wanted), None)


def deviations(row: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float] | None:
    """The largest relative distance of a row's losses from the reference's, over the steps that both have.

    Returns:
        ``first``, ``ten`` and ``first_steps``: of the first step, 10 and `FIRST_STEPS` steps; ``smoothed``: of the
        means of `SMOOTHED_STEPS` steps; ``steps``: how many steps these are of. None if their inputs (texts, ids,
        settings, batches, initial weights, as far as both have them) are not the same.
    """
    shared = row["inputs"].keys() & reference["inputs"].keys()
    if any(row["inputs"][name] != reference["inputs"][name] for name in shared):
        return None
    first = [row["first_losses"], reference["first_losses"]]
    whole = min(row["steps"], reference["steps"]) // SMOOTHED_STEPS
    return {
        "first": deviation([losses[:1] for losses in first]),
        "ten": deviation([losses[:10] for losses in first]),
        "first_steps": deviation(first),
        "smoothed": deviation([row["losses"][:whole], reference["losses"][:whole]]) if whole else math.nan,
        "steps": whole * SMOOTHED_STEPS,
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table."""
    reference = reference_of(rows)
    head = (
        "| backend | device | precision | loss of each epoch | off by: first step | 10 steps "
        f"| {FIRST_STEPS} steps | means of {SMOOTHED_STEPS} steps |\n|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *(_line(row, reference) for row in rows)])


def _line(row: Mapping[str, Any], reference: Mapping[str, Any] | None) -> str:
    return f"| {' | '.join(_cells(row, reference))} |"


def _cells(row: Mapping[str, Any], reference: Mapping[str, Any] | None) -> list[str]:
    epochs = ", ".join(f"{loss:.4f}" for loss in row["epochs"]) or f"none whole ({row['steps']} steps)"
    cells = [named(row), row["device_name"], row["precision"], epochs]
    found = None if reference is None or row is reference else deviations(row, reference)
    if found is None:
        return [*cells, "reference" if row is reference else "not compared", "", "", ""]
    smoothed = f"{found['smoothed']:.2%} in {found['steps']:,} steps" if found["steps"] else "too few"
    return [*cells, *(distance_text(found[name]) for name in ("first", "ten", "first_steps")), smoothed]


def picture(rows: Sequence[dict[str, Any]]) -> str:
    """The losses of all runs."""
    lines = [
        Line(
            f"{named(row)}, {row['precision']}",
            [((n + 0.5) * SMOOTHED_STEPS, loss) for n, loss in enumerate(row["losses"])],
        )
        for row in rows
    ]
    return line_picture("The same run on another backend and device", [Panel("masked LM", "step", "loss", lines)])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except MinibertError as error:
        print(f"benchmarks.backend_run: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backend_run", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", metavar="FILE", help="the reviews, as a table")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="tensorflow", help="Keras' backend (default: tensorflow)"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="default: float32")
    parser.add_argument("--compile", action="store_true", help="PyTorch through torch.compile")
    parser.add_argument("--deterministic", action="store_true", help="with the backend's own switch for it")
    parser.add_argument("--steps", type=int, metavar="N", help="the first N steps only")
    parser.add_argument("--set", action="append", default=[], metavar="stage.field=value", help="changes the run")
    add_arguments(parser)
    parser.add_argument(
        "--redraw", type=Path, metavar="FILE.json", help="only draw a file of results, as an SVG beside it"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.steps is not None and options.steps < 1:
        raise SettingsError(f"--steps: 1 or more is required, but {options.steps} came")
    require_precision(options.precision, options.device)
    if options.table or options.redraw:
        stored = Results.kept(options.table or options.redraw, KEYS)
        if options.redraw:
            write_bytes(options.redraw.with_suffix(".svg"), picture(stored.rows).encode())
        print(kept_table(stored, markdown))
        return 0
    if not options.data:
        raise SettingsError("--data: a table of reviews is required, but none came")
    task = {"backend": options.backend, "device": options.device, "precision": options.precision,
            "deterministic": options.deterministic, "compiled": options.compile and options.backend == "torch",
            "data": options.data, "set": options.set, "steps": options.steps}  # fmt: skip
    rows, failed = measured_rows(
        [task], lambda asked: run_apart(run_of, asked), options=options, keys=KEYS, line=lambda row: _line(row, None)
    )
    table = Results(options.keep, KEYS).rows if options.keep else rows
    print(json.dumps(rows, indent=2) if options.json else markdown(table))
    return failed


if __name__ == "__main__":
    sys.exit(main())
