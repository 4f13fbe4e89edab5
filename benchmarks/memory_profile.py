"""What fills the memory of a training process, from the imports to the step, and what its allocator does to both.

    python -m benchmarks.memory_profile                 both notebooks' shapes, and keeps the table
    python -m benchmarks.memory_profile --shape tiny    kept nowhere
    python -m benchmarks.memory_profile --redraw        prints the table from what is kept

Each row is a fresh process that trains the masked language model, and writes down what it has resident after each
part: the imports (Python, NumPy, TensorFlow, Keras), the model with its optimizer and batches, the first step, which
traces and compiles; and the most that it ever had. *Arrays* are what any such step holds at the least: weights,
gradients and Adam's two moments, the logits of a chunk, which become exponentials in place, and the head's kernel
with two rows more, and transposed where there are several chunks. A row in which glibc's allocator is as it comes
shows what `minibert.allocator` costs in memory, and what it gives in time; processes with and without it alternate.
``results/memory_profile.json`` keeps the figures.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.stored import RESULTS, Results, conditions, kept_table
from benchmarks.workers import WorkerError, run_apart
from benchmarks.workloads import SHAPES, masked_lm_batches, shape_settings
from minibert.errors import MinibertError, SettingsError

KEYS = ("shape", "allocator")
OURS, GLIBC = "minibert's", "glibc's own"
ALLOCATORS = (OURS, GLIBC)
PROCESSES, STEPS = 3, 24
FILE = RESULTS / "memory_profile.json"
_LEAVES_GLIBC = {"MALLOC_PERTURB_": "0", "TF_CPU_ALLOCATOR_USE_BFC": "0"}
"""Settings of the user's own, of malloc's and TensorFlow's defaults: `minibert.allocator` then changes nothing."""


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """One process' figures; called in a fresh one, which has its allocator from the environment.

    Raises:
        WorkerError: The system does not say what is resident, or the allocator is not the one that was asked for.
    """
    from benchmarks.devices import as_a_run
    from benchmarks.meter import peak_bytes, resident_bytes
    from minibert.allocator import keep_freed_memory

    if keep_freed_memory() != (task["allocator"] == OURS):
        raise WorkerError(f"memory_profile: {task['allocator']} allocator is required, but it cannot be chosen here")
    as_a_run()
    from benchmarks.workloads import OurStep

    resident: dict[str, int | None] = {"imports": resident_bytes()}
    step = OurStep(shape_settings(task["shape"]), "masked_lm")
    resident["model"] = resident_bytes()
    step(0)
    resident["first_step"] = resident_bytes()
    for number in range(1, 9):  # every prepared batch twice: nothing is compiled any more
        step(number)
    seconds = []
    for number in range(9, 9 + task["steps"]):
        started = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - started)
    if None in resident.values():
        raise WorkerError("memory_profile: a system that says what is resident is required (Linux)")
    arrays = array_bytes(task["shape"], step.model.count_params())
    return {**resident, "peak": peak_bytes(), "arrays": arrays, "seconds": statistics.median(seconds)}


def array_bytes(shape: str, parameters: int) -> int:
    """Weights, gradients, two moments, the logits of one chunk, the head's kernel as it reads it: float32."""
    from minibert.model.heads import masked_lm_chunks

    settings = shape_settings(shape)
    rows = max(len(batch["positions"]) for batch in masked_lm_batches(settings))
    vocabulary, hidden = settings.masking.required_vocabulary_size, settings.model.hidden_size
    chunks = masked_lm_chunks(settings)
    kernels = hidden + 2 + (hidden if chunks > 1 else 0)
    return 4 * (4 * parameters + (rows // chunks + kernels) * vocabulary)


def measured_row(shape: str, allocator: str, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The medians of the processes of one row."""
    medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
    return {"shape": shape, "allocator": allocator, "processes": len(found), **medians}


def run_rows(shapes: Sequence[str], *, processes: int, steps: int) -> list[dict[str, Any]]:
    """All rows; the processes of the two allocators alternate."""
    rows = []
    for shape in shapes:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in ALLOCATORS}
        for number in range(processes):
            for allocator in ALLOCATORS if number % 2 == 0 else ALLOCATORS[::-1]:
                found[allocator].append(_apart({"shape": shape, "allocator": allocator, "steps": steps}))
        rows += [measured_row(shape, allocator, found[allocator]) for allocator in ALLOCATORS]
    return rows


def _apart(task: dict[str, Any]) -> dict[str, Any]:
    """The process takes its environment from this one's."""
    changed = _LEAVES_GLIBC if task["allocator"] == GLIBC else {}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        return run_apart(measure, task)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table."""
    lines = [
        "| shape | allocator | imports | + model, optimizer, batches | + first step | peak | of it arrays | step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sizes = [row[name] for name in ("imports", "model", "first_step", "peak", "arrays")]
        cells = (row["shape"], row["allocator"], *(f"{size / 1e9:.2f} GB" for size in sizes))
        lines.append(f"| {' | '.join(cells)} | {row['seconds'] * 1e3:.0f} ms |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory_profile", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--shape", action="append", choices=SHAPES, help="may be repeated; nothing is kept")
    parser.add_argument("--processes", type=int, default=PROCESSES, metavar="N", help=f"default: {PROCESSES}")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help=f"timed steps (default: {STEPS})")
    parser.add_argument("--redraw", action="store_true", help="measure nothing; print what is kept")
    options = parser.parse_args(arguments)
    try:
        for name in ("processes", "steps"):
            if getattr(options, name) < 1:
                raise SettingsError(f"--{name}: 1 or more is required, but {getattr(options, name)} came")
        if options.redraw:
            print(kept_table(Results.kept(FILE, KEYS), markdown))
            return 0
        rows = run_rows(options.shape or ("imdb", "amazon"), processes=options.processes, steps=options.steps)
        if options.shape:
            print(markdown(rows))
            return 0
        results, under = Results(FILE, KEYS), conditions()
        for row in rows:
            results.keep(row, under=under)
        print(kept_table(results, markdown))
        return 0
    except MinibertError as error:
        print(f"benchmarks.memory_profile: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
