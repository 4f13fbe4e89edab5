"""Our training steps beside every peer's, in a fresh, interleaved run.

    python -m benchmarks.peers                        the README's table, as Markdown
    python -m benchmarks.peers --json                 the same as a list of rows
    python -m benchmarks.peers --quick                under two minutes: the notebook's step as the only peer
    python -m benchmarks.peers --picture ratios.svg   also as a picture

A pair is some steps of ours and some of the peer's, one right after the other, in the order A B, B A,
A B, ...; the ratio is the median over the pairs, with its quartiles. Before anything is timed each side
has run every prepared batch twice, so what is compiled on first use is compiled; the first call is
reported apart. Leave the machine alone meanwhile: the table says what share of the cores other processes
took, and a peer whose threads wait for each other (PyTorch's do) suffers from it more than others.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.peers_picture import picture
from benchmarks.peers_table import STEP_NAMES, Measured, Row, line, make_row, markdown
from benchmarks.workers import DEVICES, OURS, Worker, WorkerError, missing_module
from benchmarks.workloads import PREPARED_BATCHES, SHAPES, STEPS
from minibert.errors import DeviceError, MinibertError, SettingsError

PEER_STEPS = {
    "notebook": STEPS,
    "keras-hub": ("masked_lm",),
    "pytorch": ("masked_lm",),
    "pytorch-full": ("masked_lm",),
}
"""Peer -> the steps of ours that it has, by the memory that they need."""

PAIRS = 21
QUICK_PAIRS, QUICK_SECONDS, LEAST_PAIRS = 11, 7.0, 3
TURN_SECONDS = 0.4
"""A turn is as many steps as take about this long, so that the first one's cold caches do not count."""
LOSS_TOLERANCE = 1e-4
"""Relative distance that the first losses on a device may have from the CPU's."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        shapes: Presets' names.
        peers: Names of `PEER_STEPS`.
        pairs: Pairs for each row.
        seconds: A row takes no further pair after so long, from `LEAST_PAIRS` on.
        fresh: Whether each row has processes of its own; else one shape's rows share them, smallest first.
        device: ``cpu``, ``cuda`` or ``metal``.
    """

    shapes: Sequence[str] = ("imdb", "amazon")
    peers: Sequence[str] = tuple(PEER_STEPS)
    pairs: int = PAIRS
    seconds: float = math.inf
    fresh: bool = True
    device: str = "cpu"


def measure(plan: Plan) -> Iterator[Row]:
    """Measures row by row.

    Raises:
        DeviceError: The device is not there, or its losses are not the CPU's.
        WorkerError: A side failed, or its step does not train.
    """
    for peer in plan.peers:
        for shape in plan.shapes:
            missing = missing_module(peer)
            if missing:
                for step in PEER_STEPS[peer]:
                    yield Row(shape=shape, step=step, peer=peer, not_run=f"{missing} is not installed")
                continue
            for steps in [(step,) for step in PEER_STEPS[peer]] if plan.fresh else [PEER_STEPS[peer]]:
                with Worker(OURS, shape, plan.device) as ours, Worker(peer, shape, plan.device) as theirs:
                    for step in steps:
                        yield measure_row(plan, shape, step, ours, theirs)


def measure_row(plan: Plan, shape: str, step: str, ours: Worker, theirs: Worker) -> Row:
    """One step of two sides, interleaved."""
    ours.send("prepare", step)
    theirs.send("prepare", step)
    prepared, peer_prepared = ours.answer(), theirs.answer()
    require_training(OURS, step, prepared["losses"])
    require_training(theirs.side, step, peer_prepared["losses"])
    if plan.device != "cpu":
        with Worker(OURS, shape) as on_cpu:
            require_same_losses(plan.device, prepared["losses"], on_cpu.ask("prepare", step)["losses"])
    counts = [_steps_in_a_turn(side) for side in (ours, theirs)]
    measured, started = Measured(), time.perf_counter()
    state, peer_state = ours.ask("describe"), theirs.ask("describe")
    for pair in range(plan.pairs):
        if pair >= LEAST_PAIRS and time.perf_counter() - started > plan.seconds:
            break
        turns = [(ours, counts[0], measured.ours), (theirs, counts[1], measured.theirs)]
        for side, count, seconds in turns if pair % 2 == 0 else turns[::-1]:
            turn = side.ask("turn", count)
            seconds.append(turn["seconds"])
            measured.others.append(turn["others_rate"])
        measured.rates.append(ours.ask("matrix_rate"))
    facts = {
        "shape": shape,
        "step": step,
        "peer": theirs.side,
        "masked_tokens": prepared["rows"],
        "ours_first_loss": prepared["losses"][0],
        "peer_first_loss": peer_prepared["losses"][0],
        "ours_first_call_seconds": prepared["first_call_seconds"],
        "peer_first_call_seconds": peer_prepared["first_call_seconds"],
        "peak_bytes": state["peak_bytes"],
        "peer_peak_bytes": peer_state["peak_bytes"],
        "environment": {"ours": state["environment"], "peer": peer_state["environment"]},
    }
    return make_row(measured, facts)


def require_training(side: str, step: str, losses: Sequence[float]) -> None:
    """A fast wrong step is no step: losses are numbers, and a batch's is lower the second time.

    Raises:
        WorkerError: They are not.
    """
    if not all(math.isfinite(loss) for loss in losses):
        raise WorkerError(f"{side}: {step}: finite losses are required, but {losses} came")
    first, again = losses[:PREPARED_BATCHES], losses[PREPARED_BATCHES : 2 * PREPARED_BATCHES]
    if step == "masked_lm" and not sum(again) < sum(first):
        raise WorkerError(f"{side}: {step}: a loss that falls is required, but {losses} came")


def require_same_losses(device: str, losses: Sequence[float], on_cpu: Sequence[float]) -> None:
    """No figure of a device counts that computes something else than the CPU.

    Raises:
        DeviceError: A first loss is further off than `LOSS_TOLERANCE`.
    """
    for number, (loss, wanted) in enumerate(zip(losses, on_cpu, strict=True)):
        if not abs(loss - wanted) <= LOSS_TOLERANCE * abs(wanted):
            raise DeviceError(
                f"--device {device}: the CPU's loss {wanted:.6f} is required in step {number}, but {loss:.6f} came"
            )


def _steps_in_a_turn(side: Worker) -> int:
    return max(1, round(TURN_SECONDS / side.ask("turn", 2)["seconds"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (MinibertError, WorkerError) as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print a list of rows instead of the table")
    parser.add_argument("--quick", action="store_true", help="under two minutes: the notebook's step as the only peer")
    parser.add_argument("--pairs", type=int, metavar="N", help=f"pairs for each row (default: {PAIRS})")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="also draw the ratios")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where to train (default: cpu)")
    parser.add_argument("--require-device", action="store_true", help="fail where the device is missing")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="only this shape; may be repeated")
    parser.add_argument("--peer", action="append", choices=tuple(PEER_STEPS), help="only this peer; may be repeated")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.pairs is not None and options.pairs < 1:
        raise SettingsError(f"--pairs: 1 or more is required, but {options.pairs} came")
    if options.picture is not None and options.picture.suffix != ".svg":
        raise SettingsError(f"--picture: a name that ends in .svg is required, but {str(options.picture)!r} came")
    plan = Plan(
        shapes=options.shape or Plan.shapes,
        peers=options.peer or (("notebook",) if options.quick else Plan.peers),
        pairs=options.pairs or (QUICK_PAIRS if options.quick else PAIRS),
        seconds=QUICK_SECONDS if options.quick and not options.pairs else math.inf,
        fresh=not options.quick,
        device=options.device,
    )
    rows = []
    try:
        for row in measure(plan):
            rows.append(row)
            print(line(row), file=sys.stderr, flush=True)
    except DeviceError as error:
        if options.require_device:
            raise
        rows = [
            Row(shape=shape, step=step, peer=peer, not_run=str(error))
            for peer in plan.peers
            for shape in plan.shapes
            for step in PEER_STEPS[peer]
        ]
    if options.picture is not None:
        options.picture.write_text(picture([asdict(row) for row in rows], STEP_NAMES), encoding="utf-8")
    print(json.dumps([asdict(row) for row in rows], indent=2) if options.json else markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
