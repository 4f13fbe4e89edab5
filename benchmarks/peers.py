"""Our training steps beside every peer's, in a fresh, interleaved run.

    python -m benchmarks.peers                        the table of benchmarks/README.md, as Markdown
    python -m benchmarks.peers --json                 the same as a list of rows
    python -m benchmarks.peers --quick                under two minutes: the notebook's step as the only peer
    python -m benchmarks.peers --picture ratios.svg   also as a picture
    python -m benchmarks.peers --keep peers.json      also keeps each row, with its conditions, as it comes
    python -m benchmarks.peers --keep peers.json --redraw   measures nothing: prints and draws what is kept

How a row is measured, `benchmarks.interleaved` says; the ratio is the median over the pairs, with its quartiles. The
pairs are of several fresh pairs of processes.
Before anything is timed each side has run every prepared batch twice, so what is compiled on first use is
compiled; the first call is reported apart. What is missing is not run, and says so. A side that fails or computes
something else has no figures, and the command, which goes on with the others, fails. Leave the machine alone
meanwhile: the table says what share of the cores other processes took, and a peer whose threads wait for each
other (PyTorch's do) suffers from it more than others.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.checks import WrongLossError
from benchmarks.devices import DEVICES
from benchmarks.interleaved import Workers, beside, measure_row
from benchmarks.peers_picture import picture
from benchmarks.peers_table import KEYS, Measured, Row, facts_line, kept_text, line, markdown, row_of
from benchmarks.stored import Results, conditions, conditions_line
from benchmarks.workers import OURS, Worker, WorkerError, missing_module
from benchmarks.workloads import SHAPES, STEPS
from minibert.artifacts import write_bytes
from minibert.errors import DeviceError, MinibertError, SettingsError

PEER_STEPS = {
    "notebook": STEPS,
    "keras-hub": ("masked_lm",),
    "pytorch": ("masked_lm",),
    "pytorch-full": ("masked_lm",),
}
"""Peer -> the steps of ours that it has, by the memory that they need."""

PAIRS, PROCESSES = 21, 3
QUICK_PAIRS, QUICK_SECONDS = 11, 7.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        shapes: Presets' names.
        peers: Names of `PEER_STEPS`.
        pairs: Pairs for each row.
        seconds: A pair of processes takes no further pair of turns after so long, from some on.
        processes: Fresh pairs of processes that a row's pairs are shared among; 0: one shape's rows share a single pair
            of processes, smallest first, and only the first has a peak memory.
        device: One of `benchmarks.devices.DEVICES`.
        require_device: Whether a device that is missing ends everything.
    """

    shapes: Sequence[str] = ("imdb", "amazon")
    peers: Sequence[str] = tuple(PEER_STEPS)
    pairs: int = PAIRS
    seconds: float = math.inf
    processes: int = PROCESSES
    device: str = "cpu"
    require_device: bool = False


def measure(plan: Plan) -> Iterator[Row]:
    """Measures row by row.

    Raises:
        DeviceError: The device is required, and is not there.
    """
    with ExitStack() as stack:
        rates: Worker | None = None
        for peer in plan.peers:
            steps = PEER_STEPS[peer]
            for shape in plan.shapes:
                missing = missing_module(peer)
                if missing:
                    reason = f"{missing} is not installed"
                    yield from (Row(shape=shape, step=step, peer=peer, not_run=reason) for step in steps)
                    continue
                rates = rates or stack.enter_context(Worker(OURS, shape, plan.device))
                if plan.processes:
                    yield from (_fresh_row(plan, step, peer, shape, rates) for step in steps)
                    continue
                with beside(peer, shape, rates) as workers:
                    for step in steps:
                        yield _row(plan, step, workers, pairs=plan.pairs)


def _fresh_row(plan: Plan, step: str, peer: str, shape: str, rates: Worker) -> Row:
    """A row of several fresh pairs of processes; what is wrong with one of them is wrong with the row."""
    measured, count = Measured(), min(plan.processes, plan.pairs)
    for part in range(count):
        with beside(peer, shape, rates) as workers:
            row = _row(plan, step, workers, pairs=len(range(part, plan.pairs, count)), measured=measured)
        if row.ratio is None:
            break
    return row


def _row(plan: Plan, step: str, workers: Workers, *, pairs: int, measured: Measured | None = None) -> Row:
    """A row; what is missing or wrong with one leaves the others alone."""
    shape, peer = workers.ours.shape, workers.theirs.side
    try:
        return measure_row(workers, step, pairs=pairs, seconds=plan.seconds, measured=measured)
    except DeviceError as error:
        if plan.require_device:
            raise
        return Row(shape=shape, step=step, peer=peer, not_run=str(error))
    except (WorkerError, WrongLossError) as error:
        return Row(shape=shape, step=step, peer=peer, failed=str(error))


def keep(results: Results, row: Row) -> None:
    """Keeps a row at once; one that was not run does not take the place of one that was.

    Raises:
        ArtifactError: The file cannot be written.
    """
    values = asdict(row)
    if row.not_run is None or results.find(**values) is None:
        results.keep(values, under=conditions("keras-hub", "transformers"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except MinibertError as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print a list of rows instead of the table")
    parser.add_argument("--quick", action="store_true", help="under two minutes: the notebook's step as the only peer")
    parser.add_argument("--pairs", type=int, metavar="N", help=f"pairs for each row (default: {PAIRS})")
    parser.add_argument("--processes", type=int, metavar="N",
                        help=f"fresh pairs of processes that they are shared among (default: {PROCESSES})")  # fmt: skip
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="also draw the ratios")
    parser.add_argument("--keep", type=Path, metavar="FILE.json", help="also add the rows to a file of results")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: print and draw what --keep has")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where to train (default: cpu)")
    parser.add_argument("--require-device", action="store_true", help="fail where the device is missing")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="only this shape; may be repeated")
    parser.add_argument("--peer", action="append", choices=tuple(PEER_STEPS), help="only this peer; may be repeated")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    if options.pairs is not None and options.pairs < 1:
        raise SettingsError(f"--pairs: 1 or more is required, but {options.pairs} came")
    if options.processes is not None and options.processes < 1:
        raise SettingsError(f"--processes: 1 or more is required, but {options.processes} came")
    if options.picture is not None and options.picture.suffix != ".svg":
        raise SettingsError(f"--picture: a name that ends in .svg is required, but {str(options.picture)!r} came")
    if options.redraw and options.keep is None:
        raise SettingsError("--redraw: a file of results is required, but --keep named none")
    return Plan(
        shapes=options.shape or Plan.shapes,
        peers=options.peer or (("notebook",) if options.quick else Plan.peers),
        pairs=options.pairs or (QUICK_PAIRS if options.quick else PAIRS),
        seconds=QUICK_SECONDS if options.quick and not options.pairs else math.inf,
        processes=options.processes or (0 if options.quick else PROCESSES),
        device=options.device,
        require_device=options.require_device,
    )


def _run(options: argparse.Namespace) -> int:
    plan = _plan(options)
    results = None if options.keep is None else Results(options.keep, KEYS)
    rows: list[Row] = []
    for row in () if options.redraw else measure(plan):
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)
        if results is not None:
            keep(results, row)
    shown = [row_of(kept) for kept in results.rows] if results is not None else rows
    if options.json:
        print(json.dumps([asdict(row) for row in shown], indent=2))
    else:
        print(kept_text(results) if results is not None else _text(rows))
    if options.picture is not None:
        write_bytes(options.picture, picture(shown).encode())
    return int(any(row.failed for row in rows))


def _text(rows: Sequence[Row]) -> str:
    """The table of what was measured now."""
    notes = facts_line(rows)
    under = f"\n\n{notes} {conditions_line([conditions('keras-hub', 'transformers')])}" if notes else ""
    return f"{markdown(rows)}{under}"


if __name__ == "__main__":
    sys.exit(main())
