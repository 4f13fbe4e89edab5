"""bfloat16 beside float32: the speed of a step, and the loss of a real run.

    python -m benchmarks.precision --data imdb.parquet      speed, then 5,000 reviews in both precisions
    python -m benchmarks.precision --only speed
    python -m benchmarks.precision --data imdb.parquet --only run --seeds 8     and what is left of it on average
    python -m benchmarks.precision --redraw                 only draws and prints what is kept

Speed is measured as in `benchmarks.peers`, interleaved, each precision in a process of its own, beside the
machine's matrix rate in that precision. The run is notebook 1's recipe at length 128, with the same seed,
so that order, masks, initial weights and dropout are the same: what differs is the rounding of the
products and of what stands between them. Weights, what is added up, and the optimizer are float32 in both. Two runs
that round otherwise end at two accuracies, as two seeds do; whether one precision is worse is a question for several
seeds, of each of which both are run.

``results/precision.json`` keeps the figures, ``results/precision.svg`` is the picture.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.devices import as_a_run
from benchmarks.interleaved import beside, measure_row
from benchmarks.line_picture import Line, Panel, line_picture
from benchmarks.stored import RESULTS, Results, conditions, conditions_line
from benchmarks.workers import OURS, Worker, run_apart
from benchmarks.workloads import with_precision
from minibert.artifacts import write_bytes
from minibert.errors import MinibertError, SettingsError
from minibert.perf.statistics import Estimate, estimate
from minibert.settings import RunSettings

PRECISIONS = ("float32", "bfloat16")
STAGES = {"pretrain": "masked LM", "frozen": "classifier, frozen", "unfrozen": "classifier, unfrozen"}
RESULT_KEYS = ("what", "shape", "step", "stage", "precision", "seed")
SMOOTHED_STEPS = 15
RUN = (
    *("text.sequence_length=128", "corpus.train_examples=4000", "corpus.test_examples=1000"),
    *("corpus.class_names=negative,positive", "text.vocabulary_size=10000"),
    *("pretrain.epochs=4", "finetune.frozen_epochs=1", "finetune.unfrozen_epochs=2"),
)
PAIRS = 11


def measure_speed(shape: str, step: str, pairs: int) -> dict[str, Any]:
    """Both precisions, interleaved; ``ratio`` above 1 means that bfloat16 is faster."""
    with Worker(OURS, shape) as rates, beside("bfloat16", shape, rates) as workers:
        row = measure_row(workers, step, pairs=pairs)
        found = [(rates.ask("matrix_rate"), rates.ask("matrix_rate", "bfloat16")) for _ in range(pairs)]
    return {
        "what": "speed",
        "shape": shape,
        "step": step,
        "ratio": 1.0 / row.ratio,
        "ratio_low": 1.0 / row.ratio_high,
        "ratio_high": 1.0 / row.ratio_low,
        "float32_seconds": row.ours_seconds,
        "bfloat16_seconds": row.peer_seconds,
        "float32_flops_per_second": statistics.median(rate for rate, _ in found),
        "bfloat16_flops_per_second": statistics.median(rate for _, rate in found),
        "float32_peak_bytes": row.peak_bytes,
        "bfloat16_peak_bytes": row.peer_peak_bytes,
        "pairs": row.pairs,
        "others_rate": row.others_rate,
    }


def run_settings(precision: str, more: Sequence[str] = (), seed: int = 0) -> RunSettings:
    """The run whose loss is looked at, in one precision."""
    from minibert.presets import resolve_settings

    return with_precision(resolve_settings("imdb", assignments=(*RUN, *more), seed=seed), precision)


def loss_curves(precision: str, data: str, more: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """The losses of every stage of the run, step by step; in a process of its own."""
    as_a_run()
    from minibert.batches import Prefetch
    from minibert.preparation import prepare
    from minibert.stages import fresh_stages

    rows = []
    for stage in fresh_stages(prepare(run_settings(precision, more, seed), data=data)):
        started, found = time.perf_counter(), []
        for number, batch in Prefetch(stage.batches.batch, 0, stage.steps):
            metrics = stage.step(number, batch).metrics
            found.append(metrics["loss"] / metrics["count"])
        seconds = time.perf_counter() - started
        figures = stage.evaluate(stage.epochs)
        row = {"what": "run", "stage": stage.name, "precision": precision, "seed": seed,
               "steps": stage.steps, "seconds": seconds,
               "losses": [round(statistics.fmean(found[start:start + SMOOTHED_STEPS]), 5)
                          for start in range(0, len(found), SMOOTHED_STEPS)]}  # fmt: skip
        rows.append({**row, **{name: value for name, value in figures.items() if isinstance(value, float)}})
    return rows


def speed_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row for each step at each shape."""
    lines = [
        "| shape | step | bfloat16 is | float32 | bfloat16 | float32 products | bfloat16 products |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = f"{row['float32_seconds'] * 1e3:.0f} ms | {row['bfloat16_seconds'] * 1e3:.0f} ms"
        rates = f"{row['float32_flops_per_second'] / 1e9:.0f} | {row['bfloat16_flops_per_second'] / 1e9:.0f} GFLOP/s"
        ratio = f"**{row['ratio']:.2f}×** ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}) as fast"
        lines.append(f"| {row['shape']} | {STAGES.get(row['step'], 'masked LM')} | {ratio} | {times} | {rates} |")
    return "\n".join(lines)


def run_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row for each stage of the run with seed 0: how each precision ends."""
    head = (
        f"| stage | steps | float32: mean loss of the last {SMOOTHED_STEPS} steps | bfloat16 "
        "| largest distance on the way | validation accuracy: float32 | bfloat16 |\n|---|---|---|---|---|---|---|"
    )
    lines = [head]
    for stage, name in STAGES.items():
        found = {row["precision"]: row for row in rows if row["stage"] == stage and row["seed"] == 0}
        if len(found) < len(PRECISIONS):
            continue
        wide, narrow = found["float32"], found["bfloat16"]
        apart = max(abs(a - b) / a for a, b in zip(wide["losses"], narrow["losses"], strict=True))
        accuracies = [f"{row['val_accuracy']:.4f}" if "val_accuracy" in row else "–" for row in (wide, narrow)]
        cells = (name, f"{wide['steps']}", f"{wide['losses'][-1]:.4f}", f"{narrow['losses'][-1]:.4f}")
        lines.append(f"| {' | '.join((*cells, f'{apart:.2%}', *accuracies))} |")
    return "\n".join(lines)


def seeds_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row for each stage: by how much bfloat16 ends elsewhere than float32 with the same seed, on average.

    In parentheses stand 95 % intervals over seeds. Without a line where there are fewer than two seeds.
    """
    head = (
        "| stage | seeds | mean loss of the last steps: bfloat16 beside float32 "
        "| mean validation accuracy: float32 | bfloat16 | difference, in points |"
    )
    lines = [head, "|---|---|---|---|---|---|"]
    for stage, name in STAGES.items():
        ends = {(row["precision"], row["seed"]): row for row in rows if row["stage"] == stage}
        both = [seed for precision, seed in sorted(ends) if precision == "float32" and ("bfloat16", seed) in ends]
        pairs = [(ends["float32", seed], ends["bfloat16", seed]) for seed in both]
        if len(pairs) < 2:
            continue
        loss = estimate([math.log(b["losses"][-1] / a["losses"][-1]) for a, b in pairs], confidence=0.95)
        cells = [name, f"{len(pairs)}", _with_interval(loss, math.expm1, 100.0, " %")]
        if "val_accuracy" in pairs[0][0]:
            points = estimate([b["val_accuracy"] - a["val_accuracy"] for a, b in pairs], confidence=0.95)
            means = [statistics.fmean(pair[place]["val_accuracy"] for pair in pairs) for place in (0, 1)]
            cells += [f"{mean:.4f}" for mean in means] + [_with_interval(points, float, 100.0, "")]
        else:
            cells += ["–"] * 3
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _with_interval(found: Estimate, shown: Callable[[float], float], scale: float, unit: str) -> str:
    mean, low, high = (scale * shown(value) for value in (found.log_ratio, found.low, found.high))
    return f"**{mean:+.2f}{unit}** ({low:+.2f} to {high:+.2f})"


def picture(rows: Sequence[Mapping[str, Any]]) -> str:
    """The losses of both precisions, a panel for each stage."""
    panels = []
    for stage, name in STAGES.items():
        lines = [
            Line(row["precision"], [((i + 0.5) * SMOOTHED_STEPS, loss) for i, loss in enumerate(row["losses"])])
            for row in rows
            if row["stage"] == stage and row["seed"] == 0
        ]
        if lines:
            panels.append(Panel(name, "step", "loss", lines))
    return line_picture("The same run in float32 and in bfloat16", panels)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except MinibertError as error:
        print(f"benchmarks.precision: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="FILE", help="the reviews, as a table")
    parser.add_argument("--only", choices=("speed", "run"), help="measure one of the two")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"pairs of turns (default: {PAIRS})")
    parser.add_argument("--shape", action="append", choices=("imdb", "amazon", "tiny"), help="default: imdb, amazon")
    parser.add_argument("--set", action="append", default=[], metavar="stage.field=value", help="changes the run")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="run with the seeds 0 to N - 1 (default: 1)")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    parser.add_argument("--results", type=Path, default=RESULTS / "precision.json", metavar="FILE.json")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.pairs < 1:
        raise SettingsError(f"--pairs: 1 or more is required, but {options.pairs} came")
    if options.seeds < 1:
        raise SettingsError(f"--seeds: 1 or more is required, but {options.seeds} came")
    measured = () if options.redraw else (options.only,) if options.only else ("speed", "run")
    if "run" in measured and not options.data:
        raise SettingsError("--data: a table of reviews is required, but none came (--only speed does without)")
    results = Results(options.results, RESULT_KEYS)
    if "speed" in measured:
        for shape in options.shape or ("imdb", "amazon"):
            results.keep(measure_speed(shape, "masked_lm", options.pairs), under=conditions())
    if "run" in measured:
        for seed, precision in itertools.product(range(options.seeds), PRECISIONS):
            for row in run_apart(loss_curves, precision, options.data, options.set, seed):
                results.keep(row, under=conditions(settings=[*RUN, *options.set]))
            print(f"seed {seed}, {precision}: done", file=sys.stderr)
    runs = [row for row in results.rows if row["what"] == "run"]
    write_bytes(options.results.with_suffix(".svg"), picture(runs).encode())
    print(
        speed_table([row for row in results.rows if row["what"] == "speed"]),
        run_table(runs),
        seeds_table(runs),
        sep="\n\n",
    )
    print("", conditions_line(results.conditions_of(results.rows)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
