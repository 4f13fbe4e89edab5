"""Measures: pairs of fresh processes, in each of which the head has more and more to do."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from minibert.environment import available_cores
from minibert.perf.error_study.recording import Recording
from minibert.perf.gate import gate_pair_seconds
from minibert.perf.machine import describe_machine
from minibert.perf.pair import CONTROL, TURN_SECONDS, Block, time_pair
from minibert.perf.process import Worker
from minibert.progress import Progress

LEVELS = (0, 1, 2, 3, 5, 10)
"""Extra work, in percent of the step."""
PAIR_SECONDS = gate_pair_seconds()
"""Of stepping at each level in one pair: the gate's own."""
CALIBRATION_PRODUCTS, CALIBRATION_TURNS = 1_000, 9

_NEIGHBOUR = """
import os, random, sys, time
import numpy as np
random.seed(0)
matrix = np.full((192, 192), 1e-3, np.float32)
parent, longest, longest_rest = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
while os.getppid() == parent:
    until = time.perf_counter() + random.uniform(0.05, longest)
    while time.perf_counter() < until:
        matrix @ matrix
    time.sleep(random.uniform(0.05, longest_rest))
"""
_BURSTS = {"busy": (1.5, 1.5), "light": (0.25, 2.5)}
"""By neighbour: the longest burst and the longest rest, in seconds; the shortest of either is 0.05."""


@contextlib.contextmanager
def neighbour(kind: str) -> Iterator[None]:
    """Beside what is measured: nothing, or a process that multiplies matrices in bursts.

    ``busy`` does so half of the time, ``light`` about a tenth of it.

    It ends with this process, even where that is killed.
    """
    if kind == "none":
        yield
        return
    words = [sys.executable, "-c", _NEIGHBOUR, str(os.getpid()), *map(str, _BURSTS[kind])]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Study:
    """Collects pairs.

    Args:
        tree: The folder whose ``minibert`` both sides import.
        perf: The gate's own files.
        progress: Is told of every pair.
    """

    def __init__(self, tree: Path, perf: Path, progress: Progress) -> None:
        self._tree, self._perf, self._progress = tree, perf, progress

    def collect(self, *, minutes: float, kind: str, save: Callable[[Recording], None] | None = None) -> Recording:
        """Takes pairs until the time is over; one that would go beyond it is not begun.

        Args:
            minutes: Wall time, calibration included.
            kind: ``none``, ``light`` or ``busy``: the neighbour.
            save: Keeps what there is so far; called after every pair.
        """
        until, longest = time.monotonic() + 60 * minutes, 0.0
        step_seconds, product_seconds = self._calibrate()
        products = {str(level): round(level / 100 * step_seconds / product_seconds) for level in LEVELS}
        recording = Recording(
            {
                "neighbour": kind,
                "control": "in a process of neither side",
                "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "machine": describe_machine(),
                "pair_seconds": PAIR_SECONDS,
                "steps": max(1, round(TURN_SECONDS / step_seconds)),
                "step_seconds": round(step_seconds, 6),
                "product_seconds": round(product_seconds, 9),
                "products": products,
            }
        )
        task = self._progress.start(f"pairs of processes, neighbour: {kind}")
        with neighbour(kind), self._worker(CONTROL) as control:
            control_seconds = control.ask("build", name=CONTROL)["step_seconds"]
            while time.monotonic() + longest < until:
                started = time.monotonic()
                recording.pairs.append(
                    self._one_pair(products, step_seconds, control, control_seconds, len(recording.pairs))
                )
                if save is not None:
                    save(recording)
                longest = max(longest, time.monotonic() - started)
                task.advance()
        task.finish()
        return recording

    def _worker(self, side: str) -> Worker:
        return Worker(side, python=Path(sys.executable), tree=self._tree, perf=self._perf)

    def _calibrate(self) -> tuple[float, float]:
        """Seconds of the step, and of one product in it."""
        names = ("study[0]", f"study[{CALIBRATION_PRODUCTS}]")
        seconds: dict[str, list[float]] = {name: [] for name in names}
        with self._worker("base") as worker:
            for name in names:
                worker.ask("build", name=name)
            for _ in range(CALIBRATION_TURNS):
                for name in names:
                    seconds[name].append(worker.ask("turn", name=name, steps=4)["seconds"] / 4)
        without, beside = (statistics.median(seconds[name]) for name in names)
        return without, (beside - without) / CALIBRATION_PRODUCTS

    def _one_pair(
        self, products: dict[str, int], step_seconds: float, control: Worker, control_seconds: float, number: int
    ) -> dict[str, list[Block]]:
        with self._worker("base") as base, self._worker("head") as head:
            for level, count in products.items():
                base.send("build", name=level, workload="study[0]")
                head.send("build", name=level, workload=f"study[{count}]")
                base.answer()
                head.answer()
            levels = list(products)
            turned = levels[number % len(levels) :] + levels[: number % len(levels)]
            return {
                level: list(
                    time_pair(
                        base,
                        head,
                        control,
                        level,
                        seconds=PAIR_SECONDS,
                        step_seconds=step_seconds,
                        control_seconds=control_seconds,
                        cores=available_cores(),
                    ).blocks
                )
                for level in turned
            }
