"""The control: the same arithmetic on both sides, in every version. This file never changes.

It imports nothing of minibert and no framework, so no change of ours and no other TensorFlow moves it.
It keeps every core busy with NumPy's elementwise arithmetic on arrays that fit a core's cache. If it
moves between two processes, the machine has changed under them, and no other time can be trusted; in a
history it says how fast the machine was on that day.

Changing anything here makes every stored result incomparable: give the new one another name instead.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ELEMENTS = 16_384
ROUNDS = 400


class Control:
    """The frozen workload, called with a step's number like every other.

    No matrix product: NumPy's threads for these go on spinning after it and would disturb what comes next.
    """

    def __init__(self) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(cores, thread_name_prefix="control")
        self._scratch = [np.empty((2, ELEMENTS), np.float32) for _ in range(cores)]
        self._last = 0.0

    def __call__(self, number: int) -> float:
        """Runs once; the result is the same every time."""
        self._last = sum(self._pool.map(_chain, self._scratch))
        return self._last

    def check(self) -> None:
        """The result is that of one chain on one core, times the cores."""
        expected = _chain(np.empty((2, ELEMENTS), np.float32)) * len(self._scratch)
        if self._last != expected:
            raise AssertionError(f"control: {expected!r} is required, but {self._last!r} came")


def _chain(scratch: np.ndarray) -> float:
    """The logistic map x -> 3.7 x (1 - x), over and over: bounded, and the same bits on every machine."""
    values, rest = scratch
    values[:] = np.linspace(0.1, 0.9, ELEMENTS, dtype=np.float32)
    for _ in range(ROUNDS):
        np.subtract(np.float32(1.0), values, out=rest)
        np.multiply(values, rest, out=values)
        np.multiply(values, np.float32(3.7), out=values)
    return float(values[::1024].astype(np.float64).sum())
