"""The same run on another backend or device: its losses beside TensorFlow's on the CPU."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minibert.batches import ROW_MULTIPLE, locate_rows

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
backend_run, stored = (importlib.import_module(f"benchmarks.{name}") for name in ("backend_run", "stored"))

UNDER = {"processor": "p", "cores": 2, "instruction_sets": [], "versions": {"jax": "1"}, "date": "d", "gpu": ["G"]}
INPUTS = {"digest": "d", "vocabulary_sha256": "v", "ids_sha256": "i"}


def made_up_row(losses=(10.0, 9.0, 8.0), **changes):
    row = {
        "backend": "tensorflow",
        "device": "cpu",
        "device_name": "a CPU",
        "precision": "float32",
        "compiled": False,
        "deterministic": False,
        "steps": 3 * backend_run.SMOOTHED_STEPS,
        "seconds": 5.0,
        "first_losses": list(losses),
        "losses": list(losses),
        "epochs": [9.0],
        "inputs": INPUTS,
    }
    return {**row, **changes}


def run_backend_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.backend_run", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done


def test_deviations_are_relative_and_of_the_same_steps():
    other = made_up_row((10.001, 9.0, 8.08, 1.0), steps=4 * backend_run.SMOOTHED_STEPS)
    found = backend_run.deviations(other, made_up_row())
    assert found == pytest.approx({"first": 1e-4, "ten": 1e-2, "first_steps": 1e-2, "smoothed": 1e-2, "steps": 75})
    assert set(backend_run.deviations(made_up_row(), made_up_row()).values()) == {0.0, 75}


def test_table_says_what_it_compares_with():
    jax = made_up_row((10.0, 9.0, 8.08), backend="jax", device="cuda", device_name="a GPU", epochs=[])
    elsewhere = made_up_row(backend="jax", inputs={"ids_sha256": "other"})
    short = made_up_row(backend="torch", steps=3)
    _, _, *lines = backend_run.markdown([made_up_row(), jax, elsewhere, short]).splitlines()
    assert lines == [
        "| tensorflow | a CPU | float32 | 9.0000 | reference |  |  |  |",
        "| jax | a GPU | float32 | none whole (75 steps) | nothing | 1e-02 | 1e-02 | 1.00% in 75 steps |",
        "| jax | a CPU | float32 | 9.0000 | not compared |  |  |  |",
        "| torch | a CPU | float32 | 9.0000 | nothing | nothing | nothing | too few |",
    ]
    assert "not compared" in backend_run.markdown([jax])


@pytest.mark.parametrize("name", INPUTS)
def test_runs_on_other_inputs_are_not_compared(name):
    assert backend_run.deviations(made_up_row(inputs={**INPUTS, name: "other"}), made_up_row()) is None


def test_more_rows_have_no_weight():
    backend_steps = importlib.import_module("benchmarks.backend_steps")
    is_selected = np.arange(2 * ROW_MULTIPLE).reshape(2, -1) % 2 == 0
    batch = {
        "token_ids": np.ones((2, ROW_MULTIPLE), np.int32),
        "positions": np.flatnonzero(is_selected).astype(np.int32),
        "labels": np.ones(ROW_MULTIPLE, np.int32),
        "sample_weight": np.ones(ROW_MULTIPLE, np.float32),
        **locate_rows(is_selected, ROW_MULTIPLE),
    }
    assert (backend_steps.rows_of(batch), backend_steps.queries_of(batch)) == (64, 32)
    wide = backend_steps.with_rows(batch, 3 * ROW_MULTIPLE, 40)
    assert {name: len(array) for name, array in wide.items()} == {
        "token_ids": 2,
        "row_of_place": 2 * ROW_MULTIPLE,
        "row_of_query": 2 * 40,
        **dict.fromkeys(("positions", "labels", "sample_weight", "query_of_row"), 3 * ROW_MULTIPLE),
    }
    assert wide["sample_weight"].sum() == ROW_MULTIPLE
    assert wide["row_of_query"][wide["query_of_row"][:ROW_MULTIPLE] - 1].tolist() == list(range(1, ROW_MULTIPLE + 1))
    assert not wide["query_of_row"][ROW_MULTIPLE:].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data: a table of reviews is required, but none came"),
        (["--data", "x.csv", "--steps", "0"], "--steps: 1 or more is required, but 0 came"),
        (["--precision", "tensorfloat32"], "--precision tensorfloat32: --device cuda is required, but cpu came"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    assert backend_run.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_kept_rows_are_drawn(tmp_path, capsys):
    results = stored.Results(tmp_path / "runs.json", backend_run.KEYS)
    results.keep(made_up_row(), under=UNDER)
    results.keep(made_up_row((10.0, 9.5, 8.5), backend="jax", device_name="a GPU"), under=UNDER)
    assert backend_run.main(["--redraw", str(results.path)]) == 0
    picture = (tmp_path / "runs.svg").read_text()
    assert "masked LM, tensorflow, float32: from 10 to 8." in picture
    assert "masked LM, jax, float32: from 10 to 8.5." in picture
    capsys.readouterr()
    assert backend_run.main(["--table", str(results.path)]) == 0
    assert "| jax | a GPU | float32 | 9.0000 | nothing | 6e-02 |" in capsys.readouterr().out
    assert backend_run.main(["--table", str(tmp_path / "none.json")]) != 0
    assert "none.json: a file of results is required, but it is missing" in capsys.readouterr().err


@pytest.mark.parametrize("printed", [(), ("--json",)])
def test_a_run_is_kept_however_it_is_printed(printed, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(backend_run, "run_apart", lambda _, task: {**made_up_row(), "conditions": UNDER})
    kept = tmp_path / "runs.json"
    assert backend_run.main(["--data", "x.csv", "--keep", str(kept), *printed]) == 0
    (row,) = stored.Results.kept(kept, backend_run.KEYS).rows
    assert row["losses"] == [10.0, 9.0, 8.0]
    out = capsys.readouterr().out
    assert json.loads(out)[0]["epochs"] == [9.0] if printed else "| 9.0000 | reference |" in out


@pytest.mark.slow
def test_losses_are_the_runs_own(tmp_path):
    """Without the padding rows, fetched one by one: the package's step on the same batches."""
    table = tmp_path / "reviews.csv"
    texts = [f"{word} film with a {other} end" for word in ("good", "bad", "long") for other in ("sad", "happy", "odd")]
    table.write_text("review,sentiment\n" + "".join(f"{text},{number % 2}\n" for number, text in enumerate(texts * 8)))
    arguments = ["--data", str(table), "--json", "--set", "text.sequence_length=8"]
    more = ["--set", "model.hidden_size=16", "--set", "model.heads=2", "--set", "corpus.split_column="]
    (row,), (shorter,) = (
        json.loads(run_backend_run(*arguments, *more, "--steps", steps).stdout) for steps in ("4", "2")
    )
    assert row["inputs"] == shorter["inputs"]  # else a whole run and its beginning would not be compared
    assert shorter["first_losses"] == row["first_losses"][:2]
    from minibert.preparation import prepare
    from minibert.presets import resolve_settings
    from minibert.stages import fresh_stages

    assignments = [*backend_run.SETTINGS, *(value for value in arguments + more if "=" in value)]
    settings = resolve_settings("imdb", assignments=assignments)
    stage = next(fresh_stages(prepare(settings, data=table)))
    metrics = [stage.step(number, stage.batches.batch(number)).metrics for number in range(4)]
    assert row["first_losses"] == pytest.approx([one["loss"] / one["count"] for one in metrics], rel=1e-5)
    assert row["steps"] == 4
