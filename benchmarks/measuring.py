"""How a benchmark is timed: beside its reference, checked afterwards, with what it processed.

Before each timed round the reference runs once, so that both meet the same machine; ``extra_info["ratio"]``
is the median of the reference's seconds by ours, pair by pair, and above 1 means that ours is faster.
The first call (tracing, compiling) is reported apart.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.peers import require_same_losses
from benchmarks.workers import NEEDED, OURS, SIDES, Worker, environment, peak_bytes
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
    warm_up: int = 1,
    side: str = OURS,
    device: str = "cpu",
) -> Any:
    """Times ``work``, each round right after one call of ``reference``; the result of the last call.

    Args:
        benchmark: pytest-benchmark's fixture.
        work: What is timed.
        reference: The notebook's version; None where that is what is timed.
        facts: What one call processes, ``tokens`` among them: goes into ``extra_info``.
        warm_up: Calls of each before the first round, the very first aside, where anything is timed.
        side: One of `benchmarks.workers.SIDES`: what `extra_info` says about versions and compiling.
        device: One of `benchmarks.workers.DEVICES`.
    """
    first_call_seconds = seconds_of(work)
    for _ in range(warm_up if benchmark.enabled else 0):
        work()
        if reference is not None:
            reference()
    of_reference: list[float] = []

    def run_reference() -> None:
        if reference is not None:
            of_reference.append(seconds_of(reference))

    result = benchmark.pedantic(work, setup=run_reference, rounds=ROUNDS, warmup_rounds=0)
    benchmark.extra_info.update(
        facts,
        first_call_seconds=round(first_call_seconds, 3),
        peak_bytes=peak_bytes(),
        **environment(side, device),
    )
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
    """A workload that is called without a number, and remembers its losses.

    Args:
        side: One of `benchmarks.workers.SIDES`.
        shape: One of `benchmarks.workloads.SHAPES`.
        step: One of `benchmarks.workloads.STEPS`.
    """

    def __init__(self, side: str, shape: str, step: str) -> None:
        self.side, self.shape, self.step = side, shape, step
        module, name = SIDES[side]
        self.workload = getattr(importlib.import_module(module), name)(shape_settings(shape), step)
        self.losses: list[float] = []

    def __call__(self) -> float:
        self.losses.append(self.workload(len(self.losses)))
        return self.losses[-1]

    def check_device(self, device: str) -> None:
        """On another device than the CPU, our first losses are the CPU's; called before anything is timed.

        Raises:
            DeviceError: They are not.
        """
        if device == "cpu" or self.side != OURS:
            return
        while len(self.losses) < 2 * PREPARED_BATCHES:
            self()
        with Worker(OURS, self.shape) as on_cpu:
            require_same_losses(device, self.losses, on_cpu.ask("prepare", self.step)["losses"])

    def check(self) -> None:
        """The step trains: on the same batches the loss is lower the next time."""
        while len(self.losses) < 3 * PREPARED_BATCHES:
            self()
        assert sum(self.losses[-PREPARED_BATCHES:]) < sum(self.losses[:PREPARED_BATCHES]), self.losses


def require_installed(side: str) -> None:
    """Leaves a benchmark out, aloud, whose framework is not installed."""
    for name in NEEDED.get(side, ()):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"not run: {name} is not installed (the extra `peers` has it)")


def step_facts(shape: str, step: str) -> dict[str, Any]:
    """What one training step processes."""
    from benchmarks.arithmetic import step_flops

    settings = shape_settings(shape)
    batches = batches_of(settings, step)
    rows = selected_rows(batches)
    return {
        "tokens": batches[0]["token_ids"].size,
        "masked_tokens": rows,
        "flops": step_flops(settings, step, rows=rows),
        "bytes": sum(array.nbytes for array in batches[0].values()),
    }
