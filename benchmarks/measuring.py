"""How a benchmark is timed: beside its reference, checked afterwards, with what it processed.

Before each timed round the reference runs once, so that both meet the same machine; ``extra_info["ratio"]``
is the median of the reference's seconds by ours, pair by pair, and above 1 means that ours is faster.
The first call (tracing, compiling) is reported apart. Both sides and all that was timed before are in this one
process, so its peak memory says nothing: that is measured in a process of its own. Op determinism is a
process' setting, too, and off here for both sides; in ``python -m benchmarks.peers`` ours has it, as a run does. On a
GPU, where without it no step of ours repeats, ours has then neither fingerprints nor the check of its graph.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.checks import moved_rates, require_fall, require_same_losses, require_training, weight_digests
from benchmarks.installed import require_installed
from benchmarks.workers import (
    NEEDED,
    OURS,
    Worker,
    build_workload,
    environment,
    jit_compile,
    peak_bytes_alone,
)
from benchmarks.workloads import PREPARED_BATCHES, SHAPES, batches_of, selected_rows, shape_settings

ROUNDS = 15

SHAPE_PARAMETERS = [pytest.param(name, marks=() if name == "tiny" else pytest.mark.slow) for name in SHAPES]
"""``tiny`` by default; ``pytest benchmarks -m "slow or not slow"`` runs the notebooks' shapes too."""

Work = Callable[[], Any]


def seconds_of(work: Work) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def time_beside(
    benchmark: Any,
    work: Work,
    reference: Work | None,
    facts: dict[str, Any],
    *,
    side: str,
    warm_up: int = 1,
    rounds: int = ROUNDS,
    device: str = "cpu",
) -> Any:
    """Times ``work``, each round right after one call of ``reference``; the result of the last call.

    Args:
        benchmark: pytest-benchmark's fixture.
        work: What is timed.
        reference: The notebook's version; None where that is what is timed.
        facts: What one call processes, ``tokens`` and ``bytes`` among them, and ``masked_tokens`` and the ``flops`` of
            its matrix products, if it has any: goes into ``extra_info``.
        side: One of `benchmarks.workers.SIDES`: whose code ``work`` is, and so whose versions `extra_info` names.
        warm_up: Calls of each before the first round, the very first aside, where anything is timed.
        rounds: Timed calls.
        device: One of `benchmarks.devices.DEVICES`.
    """
    first_call_seconds = seconds_of(work)
    if isinstance(work, Steps):  # another device was checked before
        first_call_seconds = work.first_call_seconds
    for _ in range(warm_up if benchmark.enabled else 0):
        work()
        if reference is not None:
            reference()
    of_reference: list[float] = []

    def run_reference() -> None:
        if reference is not None:
            of_reference.append(seconds_of(reference))

    result = benchmark.pedantic(work, setup=run_reference, rounds=rounds, warmup_rounds=0)
    facts = {"masked_tokens": 0, "flops": 0, **facts}
    benchmark.extra_info.update(facts, first_call_seconds=round(first_call_seconds, 3), **environment(side, device))
    if benchmark.stats is not None:  # None where benchmarks run once, untimed
        seconds = benchmark.stats.stats.data
        pairs = zip(seconds, of_reference[-len(seconds) :], strict=True) if reference is not None else ()
        ratios = [theirs / ours for ours, theirs in pairs] or [1.0]
        benchmark.extra_info["ratio"] = round(statistics.median(ratios), 3)
        if reference is not None:  # in these units a history keeps the time
            beside = of_reference[-len(seconds) :]
            benchmark.extra_info["reference_data"] = beside
            benchmark.extra_info["reference_seconds"] = statistics.median(beside)
        benchmark.extra_info["tokens_per_second"] = round(facts["tokens"] / statistics.median(seconds))
    return result


class Steps:
    """A workload that is called without a number, and remembers its losses and how long the first call took.

    Args:
        side: One of `benchmarks.workers.SIDES`.
        shape: One of `benchmarks.workloads.SHAPES`.
        step: One of `benchmarks.workloads.STEPS`.
        device: One of `benchmarks.devices.DEVICES`.

    Raises:
        DeviceError: The side's framework does not see the device.
    """

    def __init__(self, side: str, shape: str, step: str, device: str) -> None:
        self.side, self.shape, self.step = side, shape, step
        self.workload: Any = build_workload(side, shape_settings(shape), step, device)
        self.losses: list[float] = []
        self.first_call_seconds = math.nan
        self._before = weight_digests(self.workload.weights())

    def __call__(self) -> float:
        started = time.perf_counter()
        self.losses.append(self.workload(len(self.losses)))
        if len(self.losses) == 1:
            self.first_call_seconds = time.perf_counter() - started
        return self.losses[-1]

    def check_device(self, device: str) -> None:
        """On another device than the CPU, our first losses are the CPU's; called before anything is timed.

        Raises:
            WrongLossError: They are not.
        """
        if device == "cpu" or self.side != OURS:
            return
        while len(self.losses) < 2 * PREPARED_BATCHES:
            self()
        with Worker(OURS, self.shape) as on_cpu:
            require_same_losses(device, self.losses, on_cpu.ask("prepare", self.step)["losses"])

    def check(self) -> None:
        """The step trains what it should, and on the same batches the loss of what can learn is lower the next time.

        A new head on a frozen encoder that has learned nothing need not get anywhere.

        Raises:
            WrongLossError: It does not.
        """
        while len(self.losses) < 3 * PREPARED_BATCHES:
            self()
        moved = moved_rates(self._before, weight_digests(self.workload.weights()))
        require_training(self.side, self.step, self.losses, moved)
        if self.step == "unfrozen":
            require_fall(f"{self.side}: {self.step}", self.losses)


def require_side(side: str) -> None:
    """Leaves a benchmark out, aloud, whose framework is not installed."""
    require_installed(*NEEDED.get(side, ()))


def step_facts(benchmark: Any, steps: Steps, device: str) -> dict[str, Any]:
    """What one training step processes, what XLA compiles of it, and, where anything is timed, its peak memory."""
    from benchmarks.arithmetic import step_flops

    settings = shape_settings(steps.shape)
    batches = batches_of(settings, steps.step)
    rows = selected_rows(batches)
    return {
        "tokens": batches[0]["token_ids"].size,
        "masked_tokens": rows,
        "flops": step_flops(settings, steps.step, rows=rows),
        "bytes": sum(array.nbytes for array in batches[0].values()),
        "jit_compile": jit_compile(steps.side),
        **peak_facts(benchmark, steps.side, device, repeated_step, steps.shape, steps.step, device),
    }


def repeated_step(side: str, shape: str, step: str, device: str) -> Work:
    """A side's step on each prepared batch."""
    workload = build_workload(side, shape_settings(shape), step, device)
    return lambda: [workload(number) for number in range(PREPARED_BATCHES)]


def peak_facts(benchmark: Any, side: str, device: str | None, make: Callable[..., Work], *arguments: Any) -> Any:
    """``peak_bytes`` of a process of its own, where anything is timed; arguments as of `peak_bytes_alone`."""
    return {"peak_bytes": peak_bytes_alone(side, device, make, *arguments)} if benchmark.enabled else {}
