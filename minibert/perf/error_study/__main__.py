"""``python -m minibert.perf.error_study``: measures within the time that it is given, or replays."""

from __future__ import annotations

import argparse
import functools
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from minibert.artifacts import write_bytes
from minibert.errors import MinibertError, SettingsError
from minibert.perf.arguments import positive_number, rate
from minibert.perf.benchmark_files import own_gate
from minibert.perf.decision import Rules
from minibert.perf.error_study.collect import LEVELS, Study
from minibert.perf.error_study.power_curve import power_curve
from minibert.perf.error_study.recording import NEIGHBOURS, Recording, pooled, read_recording, write_recording
from minibert.perf.error_study.replay import Rates, as_table, process_scatter, rates, with_moved_control
from minibert.perf.trees import checkout_root, working_side
from minibert.progress import Progress

GATES = 1_000
DRAWING_SECONDS = 0.06
"""Room that is kept for a drawn gate at one level, behind the measuring: twice what two cores of an AMD EPYC took."""
SHORTEST_SECONDS = 120.0
"""The least in which a study has its calibration and one pair of processes."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the study, or replays one; prints a table of its rates."""
    options = _parser().parse_args(words)
    try:
        recordings = _measured(options) if options.replay is None else [read_recording(p) for p in options.replay]
        rules = Rules(threshold=options.threshold)
        found: dict[str, list[Rates]] = {}
        for recording in pooled(recordings):
            moved = with_moved_control(recording, options.control_moved)
            levels = [rates(moved, level, gates=options.gates, rules=rules) for level in moved.levels]
            found[recording.header["neighbour"]] = levels
            print(as_table(recording.header["neighbour"], levels))
            common = process_scatter(recording)
            shown = "-" if common is None else f"{common.log_ratio:.1%} (at most {common.high:.1%})"
            print(f"what all levels of a pair of processes have in common: {shown}\n")
        if options.picture is not None:
            write_bytes(options.picture, power_curve(found, threshold=rules.threshold).encode())
    except MinibertError as error:
        print(f"error study: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m minibert.perf.error_study", description="How often is the gate wrong?"
    )
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--minutes", type=positive_number, help="measure for so long, the table included")
    way.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="earlier ones; a neighbour's are pooled")
    parser.add_argument("--neighbour", choices=NEIGHBOURS, default="none", help="what else the machine does")
    parser.add_argument("--out", type=Path, help="where the timings are written, after every pair of processes")
    parser.add_argument("--picture", type=Path, help="where the power curve is written, as SVG")
    parser.add_argument("--gates", type=_at_least_one, default=GATES, help=f"gates that are drawn (default: {GATES:,})")
    parser.add_argument("--control-moved", type=float, default=0.0, metavar="RATE",
                        help="as if the control had taken so much longer in the head")  # fmt: skip
    parser.add_argument("--threshold", type=rate, default=Rules().threshold, help="the gate's")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"an integer of 1 or more is required, but {text!r} came")
    return int(text)


def _measured(options: argparse.Namespace) -> list[Recording]:
    drawing_seconds = DRAWING_SECONDS * options.gates * len(LEVELS)
    measuring_seconds = 60 * options.minutes - drawing_seconds
    if measuring_seconds < SHORTEST_SECONDS:
        raise SettingsError(
            f"--minutes: at least {math.ceil((SHORTEST_SECONDS + drawing_seconds) / 60)} are required for one pair of "
            f"processes and {options.gates:,} drawn gates (--gates takes fewer), but {options.minutes:g} came"
        )
    root = checkout_root(Path.cwd())
    with tempfile.TemporaryDirectory(prefix="minibert-study-") as name, Progress() as progress:
        side = working_side(root, Path(name) / "tree")
        save = None if options.out is None else functools.partial(write_recording, options.out)
        study = Study(side.tree, own_gate(Path(name), side.tree), progress)
        return [study.collect(minutes=measuring_seconds / 60, kind=options.neighbour, save=save)]


if __name__ == "__main__":
    sys.exit(main())
