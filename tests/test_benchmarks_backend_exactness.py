"""Fresh processes on another backend: which of them agree, and where two of them part."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
backends, exactness, installed, stored, workers = (
    importlib.import_module(f"benchmarks.{name}")
    for name in ("backends", "backend_exactness", "installed", "stored", "workers")
)

LOSSES = [10.0, 9.0]
TASK = {"backend": "jax", "device": "cuda", "shape": "imdb", "precision": "float32", "deterministic": True}


def made_up_run(losses=LOSSES, tensors=("m", "a", "b")):
    """One process' digests: the tensors are as they are after the last step, and were ``s`` before."""
    names = ("adam/word", "word", "head")
    steps = [{"loss": loss.hex(), "tensors": dict.fromkeys(names, "s")} for loss in losses]
    steps[-1]["tensors"] = dict(zip(names, tensors, strict=True))
    return {
        "start": {"batches": "x", "weights": "y"},
        "steps": steps,
        "losses": losses,
        "loss_distance": 0.0,
        "device_name": "a GPU",
        "conditions": {"processor": "p", "cores": 2, "instruction_sets": [], "versions": {"jax": "1"}, "date": "d"},
    }


def made_up_row(**changes):
    return {**TASK, "device_name": "a GPU", **exactness.compared([made_up_run(), made_up_run()]), **changes}


def run_exactness(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.backend_exactness", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False, env=os.environ)


def test_equal_processes_part_nowhere():
    found = exactness.compared([made_up_run() for _ in range(3)])
    assert [found[name] for name in ("processes", "same_losses", "same_state")] == [3, 3, 3]
    assert (found["different"], found["parts_at"], found["parts_in"], found["loss_deviation"]) == (1, None, [], 0.0)


@pytest.mark.parametrize(
    ("other", "parts_at", "parts_in", "same"),
    [
        (made_up_run(tensors=("m", "a", "c")), 1, ["head"], (3, 2)),
        (made_up_run(tensors=("n", "c", "c")), 1, ["adam/word", "word", "head"], (3, 2)),
        (made_up_run(losses=[10.5, 9.0]), 0, ["loss"], (2, 2)),
        (made_up_run(losses=[10.0, 9.5], tensors=("m", "c", "b")), 1, ["loss", "word"], (2, 2)),
    ],
)
def test_the_first_difference_is_named(other, parts_at, parts_in, same):
    found = exactness.compared([made_up_run(), made_up_run(), other])
    assert (found["parts_at"], found["parts_in"], found["different"]) == (parts_at, parts_in, 2)
    assert (found["same_losses"], found["same_state"]) == same


def test_deviation_is_of_the_same_step():
    assert exactness.deviation([[10.0, 2.0], [10.1, 2.0]]) == pytest.approx(0.01)
    assert exactness.deviation([[10.0, 2.0], [10.0, 2.0]]) == 0.0


def test_table_compares_with_tensorflow_on_the_cpu():
    different = exactness.compared([made_up_run(), made_up_run(losses=[10.0, 9.09], tensors=("n", "c", "d"))])
    reference = made_up_row(backend="tensorflow", device="cpu", losses=[10.0, 9.9, 9.0])
    rows = [
        made_up_row(backend="tensorflow", device="cpu", precision="bfloat16", losses=[1.0, 1.0]),
        reference,
        made_up_row(backend="tensorflow", device="cpu", losses=[1.0, 1.0]),
        made_up_row(cost=0.5, cost_low=0.4, cost_high=0.6),
        {**made_up_row(deterministic=False), **different},
    ]
    *_, switched, off = exactness.markdown(rows).splitlines()
    assert "| on | **2 of 2**, 2 steps | 1 | nothing | nothing | 1e-01 | +50.0% (+40.0% to +60.0%) |" in switched
    assert "| off | **1 of 2**, 2 steps | 2 | step 2: loss and 3 more | 1e-02 | 1e-01 |  |" in off
    assert "not compared" in exactness.markdown(rows[3:])


@pytest.mark.parametrize(
    ("deterministic", "code"),
    [(True, 1), (False, 0)],
)
def test_different_bits_fail_only_where_they_were_ruled_out(deterministic, code, monkeypatch, capsys, tmp_path):
    def measured(task, **_):
        differs = task["deterministic"] == deterministic
        runs = [made_up_run(), made_up_run(tensors=("m", "a", "c" if differs else "b"))]
        shared = {name: runs[0][name] for name in ("device_name", "conditions")}
        return {**{name: task[name] for name in TASK}, **shared, **exactness.compared(runs)}

    monkeypatch.setattr(exactness, "measure", measured)
    kept = tmp_path / "kept.json"
    assert exactness.main(["--backend", "jax", "--shape", "imdb", "--keep", str(kept)]) == code
    assert len(stored.Results(kept, exactness.KEYS).rows) == 2
    assert "**1 of 2**" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--backend: one of jax, torch, tensorflow is required, but none came"),
        (["--processes", "1"], "--processes: 2 or more is required, but 1 came"),
        (["--side-by-side", "0"], "--side-by-side: 1 or more is required, but 0 came"),
        (["--turns", "-1"], "--turns: 0 or more is required, but -1 came"),
        (["--precision", "tensorfloat32"], "--precision tensorfloat32: --device cuda is required, but cpu came"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    assert exactness.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_what_cannot_run_is_said(monkeypatch, capsys):
    def missing(task, **_):
        raise backends.DeviceError("--backend jax: it is not installed")

    monkeypatch.setattr(exactness, "measure", missing)
    assert exactness.main(["--backend", "jax"]) == 0
    assert "not run: --backend jax: it is not installed" in capsys.readouterr().err
    assert exactness.main(["--backend", "jax", "--require-device"]) == backends.DeviceError.exit_code

    def failing(task, **_):
        raise workers.WorkerError("its process ended")

    monkeypatch.setattr(exactness, "measure", failing)
    assert exactness.main(["--backend", "jax"]) == workers.WorkerError.exit_code


def test_processes_do_not_crowd_a_cpu(monkeypatch):
    asked = []

    def measured(task, *, processes, side_by_side, turns):
        asked.append((processes, side_by_side, turns))
        raise workers.WorkerError("its process ended")

    monkeypatch.setattr(exactness, "measure", measured)
    for arguments in ([], ["--device", "cuda"], ["--side-by-side", "5"]):
        exactness.main(["--backend", "jax", "--shape", "tiny", "--processes", "8", "--turns", "3", *arguments])
    assert asked[::2] == [(8, 2, 3), (8, 8, 3), (8, 5, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflow"])
def test_processes_agree_on_the_cpu(backend):
    installed.require_installed(backend)
    arguments = ["--backend", backend, "--shape", "tiny", "--processes", "2", "--steps", "2", "--turns", "1", "--json"]
    done = run_exactness(*arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["deterministic"], row["same_state"]) for row in rows] == [(False, 2), (True, 2)]
    assert ["cost" in row for row in rows] == [False, backend != "jax"]  # on the CPU JAX has no switch
    assert rows[0]["losses"][0] > rows[0]["losses"][1] > 0


def test_stored_rows_are_what_the_readme_says():
    rows = stored.Results.kept(stored.RESULTS / "backend_exactness.json", exactness.KEYS).rows
    on_gpu = {row["deterministic"]: row for row in rows if (row["backend"], row["device"]) == ("torch", "cuda")}
    assert on_gpu[True]["same_state"] == on_gpu[True]["processes"] == 12
    assert (on_gpu[False]["same_state"], on_gpu[False]["different"]) == (1, 12)
    of_runs_backend = [row for row in rows if row["backend"] == "tensorflow"]
    assert {(row["device"], row["shape"], row["deterministic"]): (row["same_state"], row["processes"], row["different"])
            for row in of_runs_backend} == {
        ("cuda", "imdb", False): (1, 6, 6),
        ("cuda", "imdb", True): (6, 6, 1),
        ("cpu", "imdb", False): (12, 12, 1),
        ("cpu", "imdb", True): (12, 12, 1),
    }  # fmt: skip
    assert len(of_runs_backend) == 4
    reference = next(row for row in of_runs_backend if row["device"] == "cpu")
    assert all(exactness.deviation([row["losses"], reference["losses"]]) < 2.5e-7 for row in of_runs_backend)
    for row in rows:
        start = stored.Results(backends.FIRST_LOSSES, ("shape",)).find(shape=row["shape"])["start"]
        assert row["start"]["weights"] == start["weights"]


def test_a_missing_file_of_results_is_named(tmp_path, capsys):
    assert exactness.main(["--table", str(tmp_path / "none.json")]) != 0
    assert "none.json: a file of results is required, but it is missing" in capsys.readouterr().err
