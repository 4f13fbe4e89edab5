"""The gate against stored results: only of this machine, with their control, and with their own scatter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minibert.errors import ArtifactError
from minibert.perf import stored_base
from minibert.perf.answer import BenchmarkAnswer
from minibert.perf.decision import FAILED, MISSING, SAME, SLOWER, UNPROVEN, Rules
from minibert.perf.pair import CONTROL
from minibert.perf.process import WorkerError
from minibert.perf.stored_base import CONTROL_FACTOR, StoredBase, StoredComparison, read_results, stored_bases
from tests.perf_results import (
    CONTROL_SECONDS,
    STEP,
    made_up_counters,
    made_up_entry,
    made_up_machine,
    made_up_result,
    write_result,
)


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_base, "describe_machine", made_up_machine)
    monkeypatch.setattr(stored_base, "available_cores", lambda: 2)


class FakeHead:
    """Steps in a ratio to the control that differs a little from process to process."""

    def __init__(self, plan: dict[str, Any], generator: np.random.Generator) -> None:
        self.side, self._plan = "head", plan
        self._ratio = plan["ratio"] * math.exp(generator.normal(0.0, plan.get("scatter", 0.003)))

    def __enter__(self) -> FakeHead:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, order: str, **arguments: Any) -> None:
        raise NotImplementedError

    answer = send

    def ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        if order == self._plan.get("fails"):
            raise WorkerError(f"head: {order} failed", self._plan.get("kind", "failed"))
        if order == "build":
            return {"step_seconds": 0.01}
        if order == "rounds":
            assert arguments["name"] != CONTROL
            control = [self._plan.get("control", 0.005)] * arguments["count"]
            steps = [self._ratio * seconds for seconds in control]
            seconds = sum(steps + control)
            busy = seconds * (1 + 2 * self._plan.get("others_rate", 0.0))
            return {"control_seconds": control, "step_seconds": steps, "seconds": seconds, "busy_seconds": busy,
                    "own_seconds": seconds}  # fmt: skip
        if order == "describe":
            return {"device": self._plan.get("device", "cpu")}
        return made_up_counters(STEP) if order == "count" else {}


STORED = StoredBase((2.0, 2.002, 1.998), 0.01, "cpu", 0.005)


def answered(base: StoredBase | str = STORED, **plan: Any) -> tuple[str, str]:
    found = compared(base, **plan)
    return found.decision.verdict, found.decision.reason


def compared(base: StoredBase | str = STORED, **plan: Any) -> BenchmarkAnswer:
    generator = np.random.Generator(np.random.PCG64(4))
    plan = {"ratio": 2.0, **plan}
    comparison = StoredComparison(
        start=lambda: FakeHead(plan, generator),
        bases={STEP: base},
        rules=Rules(control_threshold=CONTROL_FACTOR - 1),
        time_limit_seconds=60.0,
    )
    (found,) = comparison.run()
    return found


def test_a_stored_result_is_read_by_benchmark(tmp_path: Path) -> None:
    paths = [
        write_result(tmp_path / f"{n}.json", made_up_result(entries=[made_up_entry(ratio=ratio)]))
        for n, ratio in enumerate((1.5, 1.6))
    ]
    found = stored_bases(read_results(paths), [STEP, "masking"])
    base = found[STEP]
    assert isinstance(base, StoredBase)
    assert base.ratios == pytest.approx((1.5, 1.6))
    assert base.control_seconds == pytest.approx(1.02 * CONTROL_SECONDS)
    assert found["masking"] == "2 of 2 stored results have no benchmark of this name"


def test_a_result_of_another_machine_is_an_error_that_says_what_differs(tmp_path: Path) -> None:
    path = write_result(tmp_path / "other.json", made_up_result(machine=made_up_machine(cores=4)))
    with pytest.raises(
        ArtifactError, match=r"other\.json: a result of this machine is required, but cores was 4 and is 2"
    ):
        read_results([path])


def test_results_of_two_commits_are_no_base(tmp_path: Path) -> None:
    paths = [
        write_result(tmp_path / f"{n}.json", made_up_result(n, [made_up_entry(ratio=1.5 + n / 100)])) for n in range(2)
    ]
    with pytest.raises(ArtifactError, match=r"1\.json: a result of \w{10}, as in .*0\.json, is required, but one of"):
        read_results(paths)
    dirty = write_result(tmp_path / "dirty.json", made_up_result(entries=[made_up_entry(ratio=1.6)], dirty=True))
    for given in ([dirty], [paths[0], dirty]):
        with pytest.raises(
            ArtifactError, match=r"dirty\.json: a result of a commit is required, but .* with changes came"
        ):
            read_results(given)


def test_a_process_counts_once(tmp_path: Path) -> None:
    """Whatever its file is called, and whenever it says it was measured."""
    again = {**made_up_result(), "datetime": "2026-03-01T00:00:00+00:00"}
    paths = [write_result(tmp_path / "a.json"), write_result(tmp_path / "b.json", again)]
    with pytest.raises(ArtifactError, match=r"b\.json: a result of another process is required, but that of .*a\.json"):
        read_results(paths)


def test_what_is_stored_and_not_timed_any_more_is_missing(tmp_path: Path) -> None:
    other = made_up_entry("benchmarks/bench_epoch.py::test_epoch")
    other["extra_info"]["control_name"] = "the notebook's"
    entries = [made_up_entry(), made_up_entry("gone"), other]
    results = read_results([write_result(tmp_path / "a.json", made_up_result(entries=entries))])
    found = stored_bases(results, [STEP], with_dropped=True)
    assert set(found) == {STEP, "gone"}
    assert answered(found["gone"]) == (MISSING, "it is stored, and not timed; --benchmark says what is meant")
    assert set(stored_bases(results, [STEP])) == {STEP}


def test_stored_counters_are_compared_where_none_are_accepted(tmp_path: Path) -> None:
    def base_with(**operators: int) -> StoredBase | str:
        counters = {**made_up_counters(STEP, **operators), "forward_flops": None, "device_peaks": {}}
        entries = [made_up_entry(ratio=2.0, counters=counters)]
        return stored_bases(read_results([write_result(tmp_path / "a.json", made_up_result(entries=entries))]), [STEP])[
            STEP
        ]

    assert compared(base_with()).counters.verdict == "same"
    assert compared(base_with(MatMul=12)).counters.changes == ("MatMul 12 -> 14",)
    assert compared(STORED).counters.verdict == "not compared"


def test_a_json_of_another_tool_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "hyperfine.json"
    path.write_text('{"results": [{"mean": 0.1}]}', encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"hyperfine\.json: .*hyperfine"):
        read_results([path])


def test_a_stored_time_without_its_control_is_missing(tmp_path: Path) -> None:
    entry = made_up_entry()
    del entry["extra_info"]["control_seconds"], entry["extra_info"]["control_data"]
    found = stored_bases(read_results([write_result(tmp_path / "a.json", made_up_result(entries=[entry]))]), [STEP])
    assert found[STEP] == "a stored time without its control cannot be compared"
    assert answered(found[STEP]) == (MISSING, "a stored time without its control cannot be compared")


def test_a_slowdown_against_stored_processes_is_found() -> None:
    assert answered()[0] == SAME
    assert answered(ratio=2.2)[0] == SLOWER


def test_one_stored_process_that_differs_as_processes_do_proves_nothing() -> None:
    assert answered(StoredBase((2.0,), 0.01, "cpu", 0.005), ratio=2.08, scatter=0.02)[0] == UNPROVEN


@pytest.mark.parametrize(("factor", "verdict"), [(1.08, SAME), (0.93, SAME), (1.13, UNPROVEN), (0.88, UNPROVEN)])
def test_a_control_that_moved_too_far_since_then_proves_nothing(factor: float, verdict: str) -> None:
    found = answered(control=0.005 * factor)
    assert found[0] == verdict
    assert ("the control workload moved" in found[1]) == (verdict == UNPROVEN)


def test_a_busy_neighbour_is_unproven() -> None:
    verdict, reason = answered(others_rate=0.4, ratio=2.2)
    assert verdict == UNPROVEN
    assert "other processes took 40% of the cores" in reason


def test_another_device_is_missing() -> None:
    assert answered(device="NVIDIA H200")[0] == MISSING


@pytest.mark.parametrize(("kind", "verdict"), [("missing", MISSING), ("failed", FAILED)])
@pytest.mark.parametrize("order", ["build", "rounds", "check"])
def test_a_worker_that_fails_is_no_pass(order: str, kind: str, verdict: str) -> None:
    assert answered(fails=order, kind=kind) == (verdict, f"head: {order} failed")
