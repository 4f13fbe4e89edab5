"""The studies of exactness judge by what they have shown, and their fresh processes agree."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minibert.errors import DeviceError, RepeatabilityError
from minibert.fingerprints import TraceHeader
from minibert.verify.verdict import Verdict

ROOT = Path(__file__).resolve().parents[1]
# Last, so that the package that is installed stays the one that is tested.
sys.path.append(str(ROOT))
exactness: Any = importlib.import_module("benchmarks.exactness")
tolerance: Any = importlib.import_module("benchmarks.tolerance")
WHAT = "fingerprints and trace"


def rounds(*ratios: float) -> np.ndarray:
    """Seconds of rounds in which the exact step took so many times as long as the plain one."""
    return np.array([(ratio * 0.1, 0.1) for ratio in ratios for _ in range(2)])


@pytest.mark.parametrize(
    ("costs", "judged"),
    [
        ([1.0] * 5, "within"),
        ([1.5] * 5, "beyond"),
        ([1.019] * 5, "within"),
        ([1.021] * 5, "beyond"),
        ([0.995, 1.0, 1.005, 1.0], "within"),
        ([1.03, 1.05, 1.04, 1.04], "beyond"),
        ([0.98, 1.01, 1.03, 1.0], "not shown"),  # the mean alone is within
        ([0.98, 1.03, 1.08, 1.03], "not shown"),  # the mean alone is beyond
        ([1.0], "not shown"),  # of one process nobody knows what another would say
    ],
)
def test_a_cost_is_judged_by_its_interval_over_processes(costs: list[float], judged: str) -> None:
    line, found = exactness.cost_line(1, "masked_lm", WHAT, [rounds(cost, cost, cost) for cost in costs])
    assert found == judged
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    mean = float(np.exp(np.mean(np.log(costs))))
    assert cells[:4] == ["1", "masked_lm", WHAT, "100.0"]
    assert cells[5] == f"{mean - 1:+.2%}"
    assert (cells[6] == "not known") == (len(costs) == 1)
    assert cells[7:] == [f"2%: {judged}", f"{3 * len(costs)} in {len(costs)}"]


def test_the_figure_of_a_process_is_deaf_to_a_wild_round() -> None:
    assert math.expm1(exactness.process_cost(rounds(1.01, 1.01, 1.01, 1.01, 1.01, 9.0))) == pytest.approx(0.01)


def test_the_interval_has_the_cost_as_often_as_it_says() -> None:
    """Processes that differ by 1 %, 500 times: the true cost is outside in some 5 % of them."""
    generator = np.random.Generator(np.random.PCG64(0))
    intervals = [exactness.cost_interval(generator.normal(0.01, 0.01, 5).tolist()) for _ in range(500)]
    outside = sum(not low <= math.expm1(0.01) <= high for _, low, high in intervals)
    assert 10 <= outside <= 42


def test_a_whole_training_has_each_kind_of_step_as_often_as_the_notebook() -> None:
    steps = [[exactness.training_steps(shape, kind) for kind in exactness.STEPS] for shape in (1, 2)]
    assert steps == [[{"masked_lm": 7815}.get(kind, 3910) for kind in exactness.STEPS],
                     [{"masked_lm": 7815}.get(kind, 6250) for kind in exactness.STEPS]]  # fmt: skip


def test_the_cost_of_a_whole_training_is_weighted_by_the_time_of_its_steps() -> None:
    costs = {"masked_lm": [1.0, 1.01, 1.02], "frozen": [1.04] * 3, "unfrozen": [1.02, 1.03, 1.04]}
    plain = {"masked_lm": 0.1, "frozen": 0.02, "unfrozen": 0.05}
    kinds = {kind: [rounds(cost) * plain[kind] / 0.1 for cost in costs[kind]] for kind in costs}
    weights = np.array([7815 * 0.1, 6250 * 0.02, 6250 * 0.05])
    shares, lows, highs = np.array([exactness.cost_interval(np.log(costs[kind]).tolist()) for kind in costs]).T
    share = float(weights @ shares / weights.sum())
    below, above = (np.sqrt(np.sum((weights * (ends - shares)) ** 2)) / weights.sum() for ends in (lows, highs))
    line, judged = exactness.training_line(2, kinds)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:2] == ["2", "whole training"]
    assert cells[3] == f"{weights.sum() / 60:.1f} min"
    assert cells[5:7] == [f"{share:+.2%}", f"{share - below:+.2%} to {share + above:+.2%}"]
    assert judged == ("within" if share + above <= 0.02 else "not shown")
    one_process = {kind: found[:1] for kind, found in kinds.items()}
    assert exactness.training_line(2, one_process)[1] == "not shown"


def test_rounds_are_shared_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def whole(shape: int, count: int, device: str) -> np.ndarray:
        taken.append((count, device))
        return rounds(*[1.0] * count)

    monkeypatch.setattr(exactness, "_whole_seconds", whole)
    lines, good = exactness.cost_table(2, 10, 4, [("masked_lm", "all")], device="metal")
    assert (taken, good) == ([(3, "metal"), (3, "metal"), (2, "metal"), (2, "metal")], True)
    assert lines[0].endswith("| 10 in 4 |")


def test_a_drift_of_the_machine_cancels_within_a_round() -> None:
    """A B B A while everything becomes slower: A is no slower than B."""
    times = iter(np.arange(1.0, 41.0))
    seconds = exactness.interleaved(lambda: next(times), lambda: next(times), 10)
    assert seconds.shape == (20, 2)
    _, judged = exactness.cost_line(1, "masked_lm", WHAT, [seconds, seconds])
    assert judged == "within"


@pytest.mark.long
@pytest.mark.parametrize(
    "words", [("--processes", "1", "--steps", "1", "--rounds", "0"),
              ("--processes", "0", "--rounds", "1", "--cost-processes", "1", "--step", "masked_lm"),
              ("--processes", "0", "--rounds", "1", "--cost-processes", "1", "--step", "frozen")]
)  # fmt: skip
def test_a_device_that_is_not_there_is_said_in_one_line(words: tuple[str, ...]) -> None:
    absent = "metal" if sys.platform == "linux" else "cuda"
    command = [sys.executable, "-m", "benchmarks.exactness", "--shape", "2", "--device", absent, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == DeviceError.exit_code
    assert "Traceback" not in done.stderr
    assert f"--device {absent}: TensorFlow " in done.stderr


@pytest.mark.long
def test_the_plain_step_is_taken_on_a_gpu_without_the_switch_that_it_is_measured_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from minibert.training import step

    monkeypatch.setattr(step, "is_deterministic", lambda: False)
    assert exactness.Stepper(2, "masked_lm", traced=False)() > 0.0
    with pytest.raises(RepeatabilityError, match="on a GPU"):
        exactness.Stepper(2, "masked_lm", traced=True)


def test_the_writing_of_many_rows_is_owed_by_each_of_their_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 64))
    monkeypatch.setattr(exactness.time, "perf_counter", lambda: float(next(clock)))  # each writing takes 64 s
    trace = exactness._SpreadTrace(tmp_path / "a.trace", TraceHeader("frozen", (), ("a",)), steps=0)
    owed = []
    for step in range(3 * trace.held_rows):
        trace.append(step, loss_bits=0, batch={}, fingerprint=np.zeros(1, np.int32))
        owed.append(trace.owed_seconds())
    trace.close()
    assert trace.held_rows == 32
    assert owed[40:50] == [2.0] * 10
    assert owed[63] == 2.0 - 64.0
    assert sum(owed[32:]) == 0.0


@pytest.mark.parametrize(("other", "is_good"), [("within", True), ("not shown", False), ("beyond", False)])
def test_every_kind_of_step_must_be_shown_to_be_within(
    other: str, is_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def line(shape: int, kind: str, what: str, processes: Any) -> tuple[str, str]:
        asked.append((kind, what))
        return f"{kind}: {what}", other if kind == "frozen" else "within"

    monkeypatch.setattr(exactness, "cost_line", line)
    monkeypatch.setattr(exactness, "training_line", lambda shape, kinds: ("whole", "within" if is_good else other))
    monkeypatch.setattr(exactness, "_whole_seconds", lambda *given: rounds(1.0))
    monkeypatch.setattr(exactness, "_in_fresh_process", lambda *given: rounds(1.0))
    lines, good = exactness.cost_table(1, 1, 1)
    assert (len(lines), lines[-1], good) == (5, "whole", is_good)
    assert asked == [("masked_lm", "all"), *((kind, WHAT) for kind in exactness.STEPS)]


def test_processes_that_disagree_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = iter(["a" * 64, "b" * 64, "a" * 64])
    monkeypatch.setattr(exactness, "fresh_process", lambda *given: {"weights": next(digests), "metrics": "c" * 64})
    monkeypatch.setattr(exactness, "busy_neighbour", contextlib.nullcontext)
    lines, agree = exactness.repeatability_table(2, 3, 1)
    assert not agree
    assert lines[0].startswith("| 2 | weights | 2 of 3 | 2 |")
    assert lines[1].startswith("| 2 | metrics | 3 of 3 | 1 |")


@pytest.mark.slow
def test_two_fresh_processes_have_the_same_bits_at_a_notebooks_shape() -> None:
    words = [sys.executable, "-m", "benchmarks.exactness", "--processes", "2", "--steps", "2", "--shape", "2",
             "--rounds", "0"]  # fmt: skip
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| 2 ")]
    assert [row[1] for row in rows] == [f"{kind}: {part}" for kind in exactness.STEPS for part in exactness.PARTS]
    assert {row[2] for row in rows} == {"2 of 2"}


def test_a_row_of_the_tolerances_says_what_deviates_and_where() -> None:
    found = Verdict("numeric", 50, largest_deviation=2.4e-7, largest_at="frozen, step 3: loss", late_deviation=0.1,
                    late_at="end_to_end: loss", accuracy_deviation=0.013, accuracy_at="end_to_end: accuracy",
                    environment=("threads was 0 and is 1", "python was 3 and is 4"))  # fmt: skip
    assert tolerance.row("one thread", found) == (
        "| one thread | numeric | 2.4e-07 | frozen, step 3: loss | 0.1 | end_to_end: loss "
        "| 0.013 | end_to_end: accuracy | threads was 0 and is 1; python was 3 and is 4 |"
    )
    assert tolerance.row("the same", Verdict("exact", 50)) == "| the same | exact | 0 | - | 0 | - | 0 | - |  |"
