"""How the cost of a training step and of a corpus grows, measured point by point, with the expected exponent.

    python -m benchmarks.growth                    measures what is missing, then prints the table
    python -m benchmarks.growth --again blocks     measures one axis anew (``all``: every one)
    python -m benchmarks.growth --redraw           only draws the picture and prints the table from what is kept
    python -m benchmarks.growth --quick            two small points an axis in under two minutes, kept nowhere

Vocabulary, sequence length, batch and blocks are those of one masked-LM step at notebook 1's shape; the
corpus is so many rows of the embedded generator: read, vocabulary, encoding, and an epoch's order and
masks. Every point has a fresh process and a time-out, and is kept at once in ``results/growth.json``: a
command that was stopped goes on where it was. ``results/growth.svg`` is the picture. A point is *disturbed* while
others take more than 5 % of the cores: it is measured anew when the command goes on, and until then its time is
marked and in no fit. (Its memory is: nobody else is in that.)

The exponent of y in x is the slope of log y over log x through the last three points, where the part that
grows counts most. The expected one of time is the same slope of the arithmetic of the matrix products (of
the rows, for the corpus), so that a constant part is in both; that of memory is the limit for large x. What a
process has that trains the smallest shape (that has encoded a few rows, for the corpus) is taken off before.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.growth_picture import Drawn, picture
from benchmarks.meter import DISTURBED_RATE
from benchmarks.stored import RESULTS, Results, conditions, conditions_line, disturbed
from minibert.artifacts import write_bytes
from minibert.errors import MinibertError, SettingsError

FITTED_POINTS = 3
TIMEOUT_SECONDS = 900
QUICK_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What grows.

    Attributes:
        name: As in `benchmarks.growth_points`.
        title: For people.
        points: The sizes.
        quick: Two small ones.
        memory_exponent: The limit for large sizes.
        memory_reason: Why.
    """

    name: str
    title: str
    points: Sequence[int]
    quick: Sequence[int]
    memory_exponent: float
    memory_reason: str


AXES = (
    Axis(
        name="vocabulary_size",
        title="vocabulary",
        points=(1_000, 4_000, 16_000, 30_000, 60_000, 125_000, 250_000),
        quick=(1_000, 2_000),
        memory_exponent=1,
        memory_reason="embedding, head, their gradients and moments",
    ),
    Axis(
        name="sequence_length",
        title="sequence length",
        points=(64, 128, 256, 512, 1_024),
        quick=(32, 64),
        memory_exponent=2,
        memory_reason="the attention's probabilities",
    ),
    Axis(
        name="batch_size",
        title="batch",
        points=(8, 16, 32, 64, 128),
        quick=(16, 32),
        memory_exponent=1,
        memory_reason="activations",
    ),
    Axis(
        name="blocks",
        title="blocks",
        points=(1, 2, 4, 8, 16),
        quick=(1, 2),
        memory_exponent=1,
        memory_reason="activations kept for the gradient",
    ),
    Axis(
        name="corpus_rows",
        title="corpus rows",
        points=(1_000, 10_000, 100_000, 1_000_000),
        quick=(1_000, 10_000),
        memory_exponent=1,
        memory_reason="the encoded ids, two bytes a token",
    ),
)


def measure_point(axis: str, value: int, *, quick: bool) -> dict[str, Any]:
    """One point in a fresh process; what fails or takes too long has no figures, and says why."""
    command = [sys.executable, "-m", "benchmarks.growth_points", axis, str(value)]
    command += ["--base", "tiny", "--seconds", "0.5"] if quick else []
    limit = QUICK_TIMEOUT_SECONDS if quick else TIMEOUT_SECONDS
    row: dict[str, Any] = {"axis": axis, "value": value, "not_run": None}
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {**row, "not_run": f"took more than {limit} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {**row, "not_run": f"exit code {done.returncode}: {last}"}
    return {**row, **json.loads(done.stdout.splitlines()[-1])}


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """The slope of log y over log x through the last points; None where there are fewer than two."""
    points = [(math.log(x), math.log(y)) for x, y in zip(xs, ys, strict=True) if y > 0][-FITTED_POINTS:]
    if len(points) < 2:
        return None
    return float(np.polyfit(*np.array(points).T, 1)[0])


def fitted(axis: Axis, rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Expected and fitted exponents of one axis, those of time without the disturbed points."""
    quiet = [row for row in rows if not is_disturbed(row)]
    xs, quiet_xs = ([row["value"] for row in found] for found in (rows, quiet))
    return {
        "time_expected": exponent(quiet_xs, [row["work"] for row in quiet]),
        "time": exponent(quiet_xs, [row["seconds"] for row in quiet]),
        "cpu_time": exponent(quiet_xs, [row["cpu_seconds"] for row in quiet]),
        "memory_expected": axis.memory_exponent,
        "memory": exponent(xs, [row["peak_bytes"] - row["baseline_bytes"] for row in rows]),
    }


def is_disturbed(row: Mapping[str, Any]) -> bool:
    """Whether other processes took so much of the cores that the row's time is not its own."""
    rate = row.get("others_rate")
    return rate is not None and rate > DISTURBED_RATE


def points_of(axis: Axis, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The measured rows of an axis, by size."""
    found = [row for row in rows if row["axis"] == axis.name and row["not_run"] is None]
    return sorted(found, key=lambda row: row["value"])


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table: an axis a row, then what was not run."""
    head = (
        "| grows | from | to | time | memory | exponent of time: expected | fitted (processor time) "
        "| of memory: expected | fitted |\n|---|---|---|---|---|---|---|---|---|"
    )
    lines = [head]
    for axis in AXES:
        found = points_of(axis, rows)
        if found:
            lines.append(_line(axis, found))
    notes = [f"{row['axis']} {row['value']:,}: not run: {row['not_run']}" for row in rows if row["not_run"]]
    if disturbed := [f"{row['axis']} {row['value']:,}" for row in rows if not row["not_run"] and is_disturbed(row)]:
        others = f"† Others took more than {DISTURBED_RATE:.0%} of the cores meanwhile: such a time is in no fit"
        notes.append(f"{others} ({', '.join(disturbed)}).")
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _line(axis: Axis, rows: Sequence[Mapping[str, Any]]) -> str:
    slopes = {name: "–" if slope is None else f"{slope:.2f}" for name, slope in fitted(axis, rows).items()}
    first, last = rows[0], rows[-1]
    cells = (
        axis.title,
        f"{first['value']:,}",
        f"{last['value']:,}",
        f"{_marked_time(first)} to {_marked_time(last)}",
        f"{first['peak_bytes'] / 1e9:.2f} to {last['peak_bytes'] / 1e9:.2f} GB",
        slopes["time_expected"],
        f"**{slopes['time']}** ({slopes['cpu_time']})",
        f"{axis.memory_exponent:g}: {axis.memory_reason}",
        f"**{slopes['memory']}**",
    )
    return f"| {' | '.join(cells)} |"


def _marked_time(row: Mapping[str, Any]) -> str:
    return time_text(row["seconds"]) + ("†" if is_disturbed(row) else "")


def time_text(seconds: float) -> str:
    """Milliseconds below a second."""
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def corpus_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a row of the corpus takes, beside its encoded ids."""
    found = points_of(AXES[-1], rows)
    if len(found) < 2:
        return ""
    first, last = found[0], found[-1]
    grown = last["peak_bytes"] - last["baseline_bytes"] - (first["peak_bytes"] - first["baseline_bytes"])
    rows_more = last["value"] - first["value"]
    return (
        f"From {first['value']:,} to {last['value']:,} rows memory grows by {grown / rows_more:.0f} bytes a row; "
        f"the encoded ids alone are {last['ids_bytes'] / last['value']:.0f}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except MinibertError as error:
        print(f"benchmarks.growth: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    names = [axis.name for axis in AXES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--axis", choices=names, action="append", help="only this one; may be repeated")
    parser.add_argument("--again", choices=[*names, "all"], action="append", help="measure it anew; may be repeated")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    parser.add_argument("--quick", action="store_true", help="two small points an axis; nothing is kept")
    parser.add_argument("--results", type=Path, default=RESULTS / "growth.json", metavar="FILE.json")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.quick and (options.again or options.redraw):
        raise SettingsError("--quick: it keeps nothing, so there is nothing to measure again or to redraw")
    axes = [axis for axis in AXES if not options.axis or axis.name in options.axis]
    if options.quick:
        rows = [_measured(axis.name, value, quick=True) for axis in axes for value in axis.quick]
        print(markdown(rows))
        return 0
    results = Results(options.results, ("axis", "value"))
    again = set(options.again or ())
    for axis in axes if not options.redraw else ():
        for value in axis.points:
            known = results.find(axis=axis.name, value=value)
            if known is None or known["not_run"] or is_disturbed(known) or again & {axis.name, "all"}:
                results.keep(_measured(axis.name, value, quick=False), under=conditions())
    drawn = drawn_axes(results.rows)
    write_bytes(options.results.with_suffix(".svg"), picture(drawn).encode())
    notes = f"{conditions_line(results.conditions_of(results.rows))} {disturbed(results.rows)}"
    print(markdown(results.rows), "", corpus_note(results.rows), "", notes, sep="\n")
    return 0


def drawn_axes(rows: Sequence[Mapping[str, Any]]) -> list[Drawn]:
    """What the picture is made of."""
    return [
        Drawn(axis.title, fitted(axis, found), found, [is_disturbed(row) for row in found])
        for axis in AXES
        if (found := points_of(axis, rows))
    ]


def _measured(axis: str, value: int, *, quick: bool) -> dict[str, Any]:
    row = measure_point(axis, value, quick=quick)
    shown = row["not_run"] or f"{time_text(row['seconds'])}, {row['peak_bytes'] / 1e9:.2f} GB"
    print(f"{axis} {value:,}: {shown}", file=sys.stderr, flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
