"""What `minibert perf gate` times, as pytest-benchmark's own results: for the history, and as a stored base.

    pytest benchmarks/bench_gated.py --benchmark-json result.json
    pytest benchmarks/bench_gated.py -m "slow or not slow" --benchmark-json result.json

Before each round the frozen control runs once, so that a time can be read in units of the machine's
speed at that moment. One file is one process.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from minibert.perf.machine import describe_machine
from minibert.perf.pair import CONTROL
from minibert.perf.worker import Server
from minibert.perf.workloads import BUILDERS, DEFAULT

ROUNDS, LONGEST_SECONDS = 60, 10.0
NAMES = [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow) for name in BUILDERS]


@pytest.fixture(scope="module")
def server() -> Server:
    server = Server()
    server.build(CONTROL)
    return server


@pytest.mark.bench
@pytest.mark.benchmark(group="gated")
@pytest.mark.parametrize("name", NAMES)
def test_gated(benchmark: Any, server: Server, name: str) -> None:
    built = server.build(name)
    controls: list[float] = []

    def run_control() -> None:
        started = time.perf_counter()
        server.step(CONTROL)
        controls.append(time.perf_counter() - started)

    rounds = max(5, min(ROUNDS, int(LONGEST_SECONDS / built["step_seconds"])))
    benchmark.pedantic(server.step, args=(name,), setup=run_control, rounds=rounds, warmup_rounds=0)

    server.check(name)
    benchmark.extra_info.update(
        workload=name,
        counters=server.count(name),
        device=server.describe()["device"],
        machine=describe_machine(),
        first_call_seconds=built["first_call_seconds"],
    )
    if benchmark.stats is not None:  # None where benchmarks run once, untimed
        benchmark.extra_info["control_data"] = controls[-rounds:]
        benchmark.extra_info["control_seconds"] = sorted(controls[-rounds:])[rounds // 2]
    server.drop(name)
