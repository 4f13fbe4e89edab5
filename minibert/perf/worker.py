"""One side's process: builds workloads and steps them when told, one line of JSON for each order.

    <- {"order": "turn", "name": "masking", "steps": 12}
    -> {"answer": {"seconds": 0.0981, "busy_seconds": 0.11, "own_seconds": 0.1, "waiting_rate": 0.002}}

The process imports its own side's minibert, but the gate's own files and the workloads of the newer
side (see `minibert.perf.process`). Whatever else writes to stdout goes to stderr, so that only answers
stand on it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from minibert.perf.counters import count, peaks_of
from minibert.perf.neighbours import busy_seconds
from minibert.perf.workloads import CONTROL, WARM_UP_STEPS, build

COUNTED_STEPS = 2
_CANNOT = (ImportError, AttributeError, TypeError, KeyError)
"""What a side raises that lacks something a workload calls."""


class Server:
    """The orders that a worker understands.

    Args:
        make: Builds a workload of a name.
    """

    def __init__(self, make: Callable[[str], Any] = build) -> None:
        self._make = make
        self._workloads: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}
        self.rest()

    def build(self, name: str, workload: str | None = None) -> dict[str, Any]:
        """Builds a workload, and runs it until it is warm.

        Args:
            name: What it is called from now on.
            workload: What is built; default: the workload of this name.
        """
        if name != CONTROL:
            _as_in_a_run()
        self._workloads[name], self._numbers[name] = self._make(workload or name), 0
        started = time.perf_counter()
        self.step(name)
        first_call_seconds = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(WARM_UP_STEPS):
            self.step(name)
        step_seconds = (time.perf_counter() - started) / WARM_UP_STEPS
        gc.collect()
        gc.freeze()  # what building left behind is not looked through again while a step is timed
        return {"first_call_seconds": first_call_seconds, "step_seconds": step_seconds}

    def step(self, name: str) -> None:
        """Runs one step."""
        self._workloads[name](self._numbers[name])
        self._numbers[name] += 1

    def turn(self, name: str, steps: int) -> dict[str, Any]:
        """Runs some steps: wall seconds, and what all processes and this one took of the cores meanwhile.

        The ``waiting_rate`` is what this process took while it waited for the order: cores, 0 to all of them.
        """
        busy, own, started = busy_seconds(), time.process_time(), time.perf_counter()
        waiting_rate = (own - self._rested_own) / max(started - self._rested, 1e-9)
        self._steps(name, steps)
        seconds, own = time.perf_counter() - started, time.process_time() - own
        return {
            "seconds": seconds,
            "busy_seconds": None if busy is None else (busy_seconds() or 0.0) - busy,
            "own_seconds": own,
            "waiting_rate": waiting_rate,
        }

    def rest(self) -> None:
        """From now on this process waits, and should do nothing."""
        self._rested, self._rested_own = time.perf_counter(), time.process_time()

    def rounds(self, name: str, count: int) -> dict[str, Any]:
        """Runs the control and one step in turn, as a stored result does: seconds of each round."""
        busy, own, started = busy_seconds(), time.process_time(), time.perf_counter()
        controls, steps = [], []
        for _ in range(count):
            controls.append(self._timed(CONTROL))
            steps.append(self._timed(name))
        seconds, own = time.perf_counter() - started, time.process_time() - own
        return {
            "step_seconds": steps,
            "control_seconds": controls,
            "seconds": seconds,
            "busy_seconds": None if busy is None else (busy_seconds() or 0.0) - busy,
            "own_seconds": own,
        }

    def drop(self, name: str) -> dict[str, Any]:
        """Forgets a workload, and gives its memory back."""
        del self._workloads[name], self._numbers[name]
        gc.unfreeze()
        gc.collect()
        return {}

    def check(self, name: str) -> dict[str, Any]:
        """Whether the workload computes what it should."""
        self._workloads[name].check()
        return {}

    def count(self, name: str) -> dict[str, Any]:
        """The exact counters of a workload."""
        peaks = peaks_of(lambda: self._steps(name, COUNTED_STEPS))
        return count(name, self._workloads[name].subject(), peaks)

    def describe(self) -> dict[str, Any]:
        """The device of this process."""
        return {"device": _device()}

    def _steps(self, name: str, count: int) -> None:
        for _ in range(count):
            self.step(name)

    def _timed(self, name: str) -> float:
        started = time.perf_counter()
        self.step(name)
        return time.perf_counter() - started


def main() -> None:
    """Answers orders on stdin until it is closed."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers, Server())


def serve(orders: Any, answers: Any, server: Server) -> None:
    """Answers each line of orders with one line."""
    for line in orders:
        order = json.loads(line)
        print(json.dumps(_answer(server, order)), file=answers, flush=True)
        server.rest()


def _answer(server: Server, order: dict[str, Any]) -> dict[str, Any]:
    name = order.pop("order")
    try:
        return {"answer": getattr(server, name)(**order)}
    except Exception as error:  # noqa: BLE001  told to the other process, whatever it is
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"error": message, "kind": "missing" if name == "build" and isinstance(error, _CANNOT) else "failed"}


def _as_in_a_run() -> None:
    """Puts TensorFlow, once a workload needs it, into the state in which a run of this side trains."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from minibert.quiet import quiet_tensorflow

    quiet_tensorflow()
    with contextlib.suppress(ImportError):  # a base from before it was there
        from minibert.allocator import keep_freed_memory

        keep_freed_memory()


def _device() -> str:
    """What TensorFlow computes on, if it is loaded; else the processor."""
    tensorflow = sys.modules.get("tensorflow")
    gpus = [] if tensorflow is None else tensorflow.config.list_logical_devices("GPU")
    if tensorflow is None or not gpus:
        return "cpu"
    details = tensorflow.config.experimental.get_device_details(tensorflow.config.list_physical_devices("GPU")[0])
    return str(details.get("device_name") or "gpu")
