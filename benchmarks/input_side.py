"""Does the input side ever hold a training step up?

    python -m benchmarks.input_side                    both notebooks' shapes, every kind of step
    python -m benchmarks.input_side --shape tiny --steps 20
    python -m benchmarks.input_side --keep benchmarks/results/input_side.json

The arrays of step n + 1 (order, masks, gathering) are built on a thread while step n runs. Beside what one
batch takes to build, and what one step takes on a batch that is there already, stands what the loop waited
for the next batch in each step: with the thread as in a run, and built in line, without it. The three are
interleaved in one process, some steps of each in turn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.devices import as_a_run
from benchmarks.peers_table import STEP_NAMES
from benchmarks.stored import Results, conditions, kept_table
from benchmarks.workloads import SHAPES, STEPS, OurStep, shape_settings, shape_token_ids
from minibert.batches import Batches, ClassifierBatches, MaskedLMBatches, Prefetch
from minibert.errors import MinibertError
from minibert.settings import RunSettings

TURNS, STEPS_OF_A_TURN = 6, 8
KEYS = ("shape", "step")
"""What makes a row one and the same."""


def batches_for(settings: RunSettings, step: str) -> Batches:
    """A training set of enough batches for every turn, made as a run makes it."""
    token_ids = shape_token_ids(settings, STEPS_OF_A_TURN * 4)
    if step == "masked_lm":
        size = settings.pretrain.batch_size
        return MaskedLMBatches(token_ids, seed=settings.seed, masking=settings.masking, batch_size=size)
    labels = (np.arange(len(token_ids)) % 2).astype(np.int8)
    size = settings.finetune.batch_size
    return ClassifierBatches(token_ids, labels, seed=settings.seed, batch_size=size, stage=step)


def in_line(batches: Batches, start: int, stop: int) -> Iterator[tuple[int, Any]]:
    """Builds each batch when it is asked for."""
    return ((step, batches.batch(step)) for step in range(start, stop))


def turn(training_step: Any, numbered: Iterable[tuple[int, Any]]) -> tuple[list[float], list[float]]:
    """Seconds waited for each batch, and seconds of each step."""
    waited, stepped, before = [], [], time.perf_counter()
    for number, batch in numbered:
        there = time.perf_counter()
        training_step(number, batch)
        done = time.perf_counter()
        waited.append(there - before)
        stepped.append(done - there)
        before = done
    return waited[1:], stepped[1:]  # the first batch of all is waited for in any case


def measure(shape: str, step: str, turns: int, steps: int) -> dict[str, Any]:
    """One row of the table."""
    settings = shape_settings(shape)
    training_step, batches = OurStep(settings, step).training_step, batches_for(settings, step)
    turn(training_step, in_line(batches, 0, STEPS_OF_A_TURN))
    found: dict[str, list[float]] = {name: [] for name in ("build", "prefetched", "in_line", "step", "step_in_line")}
    for number in range(turns):
        first = number * steps
        started = time.perf_counter()
        for place in range(steps):
            batches.batch(first + place)
        found["build"].append((time.perf_counter() - started) / steps)
        waited, stepped = turn(training_step, Prefetch(batches.batch, first, first + steps))
        found["prefetched"] += waited
        found["step"] += stepped
        waited, stepped = turn(training_step, in_line(batches, first, first + steps))
        found["in_line"] += waited
        found["step_in_line"] += stepped
    seconds = {f"{name}_seconds": statistics.median(values) for name, values in found.items()}
    return {
        "shape": shape,
        "step": step,
        **seconds,
        "waiting_rate": sum(found["prefetched"]) / (sum(found["prefetched"]) + sum(found["step"])),
        "waiting_rate_in_line": sum(found["in_line"]) / (sum(found["in_line"]) + sum(found["step_in_line"])),
        "steps": len(found["step"]),
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A row for each step at each shape."""
    lines = [
        "| shape | step | a step | building a batch | waited for it | share of the time | share if built in line |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = (row["step_seconds"], row["build_seconds"], row["prefetched_seconds"])
        cells = (row["shape"], STEP_NAMES[row["step"]], *(f"{seconds * 1e3:.2f} ms" for seconds in times))
        shares = (f"**{row['waiting_rate']:.2%}**", f"{row['waiting_rate_in_line']:.2%}")
        lines.append(f"| {' | '.join((*cells, *shares))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.input_side", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--shape", action="append", choices=SHAPES, help="may be repeated (default: imdb, amazon)")
    parser.add_argument("--turns", type=int, default=TURNS, metavar="N", help=f"default: {TURNS}")
    parser.add_argument("--steps", type=int, default=STEPS_OF_A_TURN, metavar="N", help="steps of a turn")
    parser.add_argument("--json", action="store_true", help="print a list of rows instead of the table")
    parser.add_argument("--keep", metavar="FILE", type=Path, help="keep the rows there, and print those that are")
    options = parser.parse_args(arguments)
    if options.turns < 1 or options.steps < 2:
        parser.error(f"--turns 1 or more and --steps 2 or more are required, not {options.turns} and {options.steps}")
    as_a_run()
    try:
        results = None if options.keep is None else Results(options.keep, KEYS)
        rows = []
        for shape, step in itertools.product(options.shape or ("imdb", "amazon"), STEPS):
            rows.append(measure(shape, step, options.turns, options.steps))
            if results is not None:
                results.keep(rows[-1], under=conditions())
    except MinibertError as error:
        print(f"benchmarks.input_side: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(markdown(rows) if results is None else kept_table(results, markdown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
