"""What a step waits for its batch: the batches of a run, and a wait that is the wait alone."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Last, so that the package that is installed stays the one that is tested.
sys.path.append(str(ROOT))
documents, input_side, stored, workloads = (
    importlib.import_module(f"benchmarks.{name}") for name in ("documents", "input_side", "stored", "workloads")
)


@pytest.mark.parametrize("step", workloads.STEPS)
def test_every_turn_has_batches_of_its_own(step):
    batches = input_side.batches_for(workloads.shape_settings("tiny"), step)
    numbers = [number for number, _ in input_side.in_line(batches, 3, 6)]
    assert numbers == [3, 4, 5]
    assert batches.steps_per_epoch >= input_side.STEPS_OF_A_TURN


def test_a_turn_parts_the_wait_from_the_step(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 3.5, 5.5, 6.0, 9.0])
    monkeypatch.setattr(input_side.time, "perf_counter", lambda: next(clock))
    waited, stepped = input_side.turn(lambda number, batch: None, [(0, "a"), (1, "b"), (2, "c")])
    assert (waited, stepped) == ([0.5, 0.5], [2.0, 3.0]), "the first batch is waited for in any case"


def test_the_table_has_the_share_of_the_time():
    row = {"shape": "imdb", "step": "masked_lm", "step_seconds": 0.2, "build_seconds": 0.004,
           "prefetched_seconds": 0.0001, "waiting_rate": 0.0005, "waiting_rate_in_line": 0.02}  # fmt: skip
    assert "| imdb | masked LM | 200.00 ms | 4.00 ms | 0.10 ms | **0.05%** | 2.00% |" in input_side.markdown([row])


def test_rows_are_kept_with_their_conditions(tmp_path, monkeypatch, capsys):
    """In their order; a later measurement of the same step takes the place of the one before."""
    seconds = itertools.count(1)
    names = ("step_seconds", "build_seconds", "prefetched_seconds", "waiting_rate", "waiting_rate_in_line")
    monkeypatch.setattr(
        input_side,
        "measure",
        lambda shape, step, *_: {"shape": shape, "step": step} | {n: next(seconds) for n in names},
    )
    monkeypatch.setattr(input_side, "as_a_run", lambda: None)
    kept = tmp_path / "input_side.json"
    for _ in range(2):
        assert input_side.main(["--shape", "tiny", "--keep", str(kept)]) == 0
    rows = stored.Results(kept, input_side.KEYS).rows
    assert [(row["step"], row["step_seconds"]) for row in rows] == list(zip(workloads.STEPS, (16, 21, 26), strict=True))
    assert capsys.readouterr().out.endswith(
        f"{stored.kept_table(stored.Results(kept, input_side.KEYS), input_side.markdown)}\n"
    )
    monkeypatch.setattr(documents, "RESULTS", tmp_path)
    assert f"| tiny | {input_side.STEP_NAMES[workloads.STEPS[0]]} | 16000.00 ms" in documents.input_side()


@pytest.mark.slow
def test_every_step_of_a_shape_is_measured():
    words = ["--shape", "tiny", "--turns", "2", "--steps", "3", "--json"]
    command = [sys.executable, "-m", "benchmarks.input_side", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["step"], row["steps"]) for row in rows] == [(step, 2 * 2) for step in workloads.STEPS]
    for row in rows:
        assert min(row["step_seconds"], row["build_seconds"]) > 0
        assert 0 <= row["waiting_rate"] < 1
