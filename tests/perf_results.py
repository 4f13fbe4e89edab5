"""Made-up results of pytest-benchmark, and a history of them, for the tests of ``minibert perf``."""

from __future__ import annotations

import hashlib
import json
import random
import statistics
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from pytest_benchmark.stats import Stats

from minibert.perf.history import append
from minibert.perf.machine import machine_identity
from minibert.perf.results import read_result

STEP, MASKING = "masked_lm_step[tiny]", "masking"
CONTROL_SECONDS = 0.01
FIRST_DAY = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def made_up_machine(**changes: Any) -> dict[str, Any]:
    """A fingerprint whose identity is right."""
    machine: dict[str, Any] = {
        "cpu_model": "A Processor",
        "cores": 2,
        "instruction_sets": ["avx2"],
        "memory_gib": 16,
        "gpus": [],
        "driver": None,
        "threads": {},
        "tensorflow": "tensorflow 2.21.0",
        "keras": "3.15.1",
        "numpy": "2.4.0",
        "python": "3.11",
        "os": "Linux 6.1 x86_64",
        **changes,
    }
    return {**machine, "identity": machine_identity(machine)}


def made_up_commit(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()


def made_up_entry(name: str = STEP, *, ratio: float = 1.5, rounds: int = 5, **extra: Any) -> dict[str, Any]:
    """A benchmark's entry: its rounds take ``ratio`` times the control's."""
    control = [CONTROL_SECONDS * (1 + 0.01 * i) for i in range(rounds)]
    data = [ratio * seconds for seconds in control]
    stats = Stats()
    for seconds in data:
        stats.update(seconds)
    return {
        "group": "gated",
        "name": f"test_gated[{name}]",
        "fullname": f"benchmarks/bench_gated.py::test_gated[{name}]",
        "params": {"name": name},
        "param": name,
        "extra_info": {
            "workload": name,
            "control_seconds": statistics.median(control),
            "control_data": control,
            "counters": made_up_counters(name),
            "device": "cpu",
            "first_call_seconds": 1.5,
            "peak_bytes": 700_000_000,
            **extra,
        },
        "options": {},
        "stats": {**stats.as_dict(), "data": data, "iterations": 1},
    }


def made_up_counters(name: str, **operators: int) -> dict[str, Any]:
    return {
        "workload": name,
        "versions": "tensorflow 2.21 keras 3.15",
        "traces": 1,
        "operators": {"AddV2": 20, "MatMul": 14, **operators},
        "flops": 1_000_000,
        "graph_flops": 1_100_000,
        "parameters": 50_000,
        "array_bytes": 10_000,
        "peak_device_bytes": None,
    }


def made_up_result(
    number: int = 0, entries: Sequence[dict[str, Any]] | None = None, *, machine: dict[str, Any] | None = None,
    dirty: bool = False, commit: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A whole file of commit ``number``, one day after the commit before it."""
    moment = FIRST_DAY + timedelta(days=number)
    return {
        "machine_info": {
            "node": "here",
            "cpu": {"brand_raw": "A Processor"},
            "python_version": "3.11.7",
            "minibert": made_up_machine() if machine is None else machine,
            "environment": {"packages": {"tensorflow": "2.21.0"}},
        },
        "commit_info": {
            "id": commit or made_up_commit(number),
            "time": moment.isoformat(),
            "author_time": moment.isoformat(),
            "dirty": dirty,
            "project": "minibert",
            "branch": "main",
        },
        "benchmarks": [made_up_entry()] if entries is None else list(entries),
        "datetime": (moment + timedelta(hours=1)).isoformat(),
        "version": "5.3.1",
    }


def write_result(path: Path, result: dict[str, Any] | None = None) -> Path:
    path.write_text(json.dumps(made_up_result() if result is None else result, indent=4), encoding="utf-8")
    return path


def write_history(folder: Path, results: Sequence[dict[str, Any]]) -> Path:
    """Appends each result as the command does."""
    for number, result in enumerate(results):
        path = write_result(folder.parent / f"result-{number}.json", result)
        append(folder, read_result(path))
        path.unlink()
    return folder


def noisy_results(
    count: int, *, changes: dict[int, float] | None = None, noise: float = 0.005, seed: int = 0, **options: Any
) -> list[dict[str, Any]]:
    """Results with a little noise; at each number in ``changes`` the step's time is multiplied for good."""
    draw, level, made = random.Random(seed), 1.5, []
    for number in range(count):
        level *= (changes or {}).get(number, 1.0)
        entries = [
            made_up_entry(STEP, ratio=level * draw.gauss(1.0, noise)),
            made_up_entry(MASKING, ratio=0.2 * draw.gauss(1.0, noise)),
        ]
        made.append(made_up_result(number, entries, **options))
    return made


def proposing(*indexes: int) -> Any:
    """Stands for Otava, where it is not installed."""
    return lambda values: [index for index in indexes if index < len(values)]
