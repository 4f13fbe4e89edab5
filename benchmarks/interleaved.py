"""A step of two sides, interleaved: each in a process of its own, some steps of one, then some of the other.

A pair is some steps of ours and some of the peer's, one right after the other, in the order A B, B A,
A B, ... A row may be of several fresh pairs of processes, as one process differs from another by more than the steps in
it do. Between the pairs the machine's matrix rate is measured, in a third process, so that its matrices are in
neither side's memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.checks import WrongLossError, require_same_losses, require_training
from benchmarks.peers_table import Measured, Row, make_row
from benchmarks.workers import OURS, Worker, WorkerError
from minibert.errors import DeviceError

LEAST_PAIRS = 3
TURN_SECONDS = 0.4
"""A turn is as many steps as take about this long, so that the first one's cold caches do not count."""


@dataclass(frozen=True)
class Workers:
    """Three processes.

    Attributes:
        ours: Our side's.
        theirs: The peer's.
        rates: One in which only the matrix rate is measured.
    """

    ours: Worker
    theirs: Worker
    rates: Worker


@contextmanager
def beside(theirs: str, shape: str, rates: Worker) -> Iterator[Workers]:
    """Fresh processes of our side and of another.

    Args:
        theirs: One of `benchmarks.workers.SIDES`.
        shape: One of `benchmarks.workloads.SHAPES`.
        rates: A process of our side that trains nothing; they train on its device.
    """
    with Worker(OURS, shape, rates.device) as ours, Worker(theirs, shape, rates.device) as other:
        yield Workers(ours, other, rates)


def measure_row(
    workers: Workers, step: str, *, pairs: int, seconds: float = math.inf, measured: Measured | None = None
) -> Row:
    """One step of two sides, interleaved.

    Args:
        workers: The sides' processes.
        step: One of `benchmarks.workloads.STEPS`.
        pairs: Pairs of turns.
        seconds: No further pair is begun after so long, from `LEAST_PAIRS` on.
        measured: What earlier processes gave of this row; the pairs are added to it, and the row is of all of them.

    Raises:
        DeviceError: The device is not there.
        WorkerError: A side failed.
        WrongLossError: A step does not train, or our losses on the device are not the CPU's.
    """
    ours, theirs = workers.ours, workers.theirs
    prepared, peer_prepared = _prepare(step, ours, theirs)
    if ours.device != "cpu":
        with Worker(OURS, ours.shape) as on_cpu:
            require_same_losses(ours.device, prepared["losses"], on_cpu.ask("prepare", step)["losses"])
    measured = _in_turns(workers, step, pairs, seconds, Measured() if measured is None else measured)
    state, peer_state = ours.ask("describe"), theirs.ask("describe")
    for known, described in ((measured.peaks, state), (measured.peer_peaks, peer_state)):
        known.append(described["peak_bytes"])
    facts = {
        "shape": ours.shape,
        "step": step,
        "peer": theirs.side,
        "masked_tokens": prepared["rows"],
        "ours_first_loss": prepared["losses"][0],
        "peer_first_loss": peer_prepared["losses"][0],
        "ours_first_call_seconds": prepared["first_call_seconds"],
        "peer_first_call_seconds": peer_prepared["first_call_seconds"],
        "peak_bytes": _largest(measured.peaks),
        "peer_peak_bytes": _largest(measured.peer_peaks),
        "environment": {"ours": state["environment"], "peer": peer_state["environment"]},
    }
    return make_row(measured, facts)


def _largest(sizes: Sequence[int | None]) -> int | None:
    """The most that any process had; None where one of them has run another step before."""
    known = [size for size in sizes if size is not None]
    return max(known) if len(known) == len(sizes) else None


def _prepare(step: str, *sides: Worker) -> list[dict[str, Any]]:
    """What each side's first steps gave, if they train; both answers are read before an error counts."""
    for side in sides:
        side.send("prepare", step)
    answers, errors = [], []
    for side in sides:
        try:
            answers.append(side.answer())
        except (DeviceError, WorkerError) as error:
            errors.append(error)
    if errors:
        raise errors[0]
    for side, answer in zip(sides, answers, strict=True):
        require_training(side.side, step, answer["losses"], answer["moved"])
    return answers


def _in_turns(workers: Workers, step: str, pairs: int, seconds: float, measured: Measured) -> Measured:
    sides = (workers.ours, workers.theirs)
    measured.processes += 1
    counts = [max(1, round(TURN_SECONDS / side.ask("turn", 2)["seconds"])) for side in sides]
    turns = list(zip(sides, counts, (measured.ours, measured.theirs), strict=True))
    started = time.perf_counter()
    for pair in range(pairs):
        if pair >= LEAST_PAIRS and time.perf_counter() - started > seconds:
            break
        for side, count, taken in turns if pair % 2 == 0 else turns[::-1]:
            turn = side.ask("turn", count)
            if not math.isfinite(turn["loss"]):
                raise WrongLossError(f"{side.side}: {step}: a finite loss is required, but {turn['loss']} came")
            taken.append(turn["seconds"])
            measured.others.append(turn["others_rate"])
        measured.rates.append(workers.rates.ask("matrix_rate"))
    return measured
