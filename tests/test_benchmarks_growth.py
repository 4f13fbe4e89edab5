"""What the commands that keep figures do with them: exponents, tables, pictures, and going on after a stop."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from minibert.errors import ArtifactError
from minibert.perf.statistics import estimate
from minibert.settings import replace_setting

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
growth, growth_points, precision, stored, whole_run = (
    importlib.import_module(f"benchmarks.{name}")
    for name in ("growth", "growth_points", "precision", "stored", "whole_run")
)

CONDITIONS = {"processor": "a processor", "cores": 2, "instruction_sets": [], "versions": {"keras": "3"}, "date": "now"}


def point(axis: str, value: int, seconds: float, **more: Any) -> dict[str, Any]:
    figures = {
        "seconds": seconds,
        "cpu_seconds": 2 * seconds,
        "work": value,
        "peak_bytes": 1_000_000 * value + 500,
        "baseline_bytes": 500,
        "others_rate": 0.02,
        "ids_bytes": 128 * value,
    }
    return {"axis": axis, "value": value, "not_run": None, **figures, **more}


# Results


def test_results_are_kept_one_by_one_and_found_again(tmp_path):
    path = tmp_path / "results" / "growth.json"
    results = stored.Results(path, ("axis", "value"))
    results.keep(point("blocks", 1, 0.1), under=CONDITIONS)
    results.keep(point("blocks", 2, 0.2), under=CONDITIONS)
    results.keep(point("blocks", 1, 0.3), under={**CONDITIONS, "date": "later"})
    read = stored.Results(path, ("axis", "value"))
    assert [(row["value"], row["seconds"], row["conditions"]) for row in read.rows] == [(1, 0.3, 1), (2, 0.2, 0)]
    assert read.find(axis="blocks", value=2)["seconds"] == 0.2
    assert read.find(axis="blocks", value=4) is None
    assert [found["date"] for found in read.conditions_of(read.rows)] == ["now", "later"]
    assert stored.conditions_line(read.conditions_of(read.rows[:1])) == "a processor, 2 cores; keras 3; later."


def test_conditions_name_the_commit_where_they_know_it():
    under = {**CONDITIONS, "commit": "0123456789abcdef", "dirty": True}
    line = "a processor, 2 cores; keras 3; now, commit 0123456789 (with changes)."
    assert stored.conditions_line([under]) == line
    assert stored.conditions_line([{**under, "dirty": False}]) == line.replace(" (with changes)", "")
    assert stored.conditions_line([{**under, "commit": None, "dirty": False}, CONDITIONS]) == (
        "a processor, 2 cores; keras 3; now."
    )
    assert stored.conditions_line([CONDITIONS, {**under, "dirty": False}]) == (
        "a processor, 2 cores; keras 3; now; now, commit 0123456789."
    )
    later = {**under, "commit": "fedcba9876543210", "dirty": False}
    assert stored.conditions_line([under, later, under, {**later, "date": "later"}, {**later, "cores": 4}]) == (
        "a processor, 2 cores; keras 3; now, commits 0123456789 (with changes), fedcba9876; later, commit fedcba9876. "
        "a processor, 4 cores; keras 3; now, commit fedcba9876."
    )


@pytest.mark.parametrize("content", ["", "[]", '{"rows": []}'])
def test_a_file_that_holds_no_results_is_named(content, tmp_path):
    path = tmp_path / "growth.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=r"growth\.json: results as JSON are required"):
        stored.Results(path, ("axis",))


def test_conditions_are_plain_values():
    found = stored.conditions("pytest", gpu=["a GPU"])
    assert json.loads(json.dumps(found)) == found
    assert found["cores"] >= 1
    assert {"numpy", "pytest"} <= found["versions"].keys()
    assert found["dirty"] in (True, False)
    assert found["gpu"] == ["a GPU"]


@pytest.mark.parametrize(
    ("content", "version"),
    [("__version__ = '9.8.7+cu130'\n", "9.8.7+cu130"), ("version = 1\n", "9.8.7"), (None, "9.8.7")],
)
def test_pytorchs_version_says_which_wheel_it_is(content, version, tmp_path, monkeypatch):
    (tmp_path / "torch-9.8.7.dist-info").mkdir()
    (tmp_path / "torch-9.8.7.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.8.7\n")
    if content is not None:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "version.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    assert stored.conditions()["versions"]["torch"] == version


# Growth


def test_exponent_is_the_slope_through_the_last_points():
    xs = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert growth.exponent(xs, [7.0, 7.0, 4.0**2, 8.0**2, 16.0**2]) == pytest.approx(2.0)
    assert growth.exponent(xs[:1], [1.0]) is None
    assert growth.exponent(xs, [0.0, 0.0, 0.0, 0.0, 1.0]) is None


def test_each_axis_changes_one_size_only():
    base = growth_points.shape_settings("imdb")
    for axis, read in (
        ("vocabulary_size", lambda s: s.masking.required_vocabulary_size),
        ("sequence_length", lambda s: s.text.sequence_length),
        ("batch_size", lambda s: s.pretrain.batch_size),
        ("blocks", lambda s: s.model.blocks),
    ):
        changed = growth_points.settings_at(axis, 7)
        assert read(changed) == 7
        assert growth_points.settings_at(axis, read(base)) == base
    assert [axis.name for axis in growth.AXES] == [*growth_points.STEP_AXES, growth_points.CORPUS_AXIS]


def test_table_and_picture_have_expected_beside_fitted():
    rows = [point("blocks", value, 0.1 * value) for value in (4, 1, 2, 8)]
    rows += [point("corpus_rows", value, 1e-4 * value) for value in (1_000, 10_000)]
    rows.append({"axis": "blocks", "value": 16, "not_run": "took more than 900 s"})
    table = growth.markdown(rows)
    assert "| blocks | 1 | 8 | 100 ms to 800 ms |" in table
    assert "| 1.00 | **1.00** (1.00) | 1: activations kept for the gradient | **1.00** |" in table
    assert "blocks 16: not run: took more than 900 s" in table
    tree = ElementTree.fromstring(growth.picture(growth.drawn_axes(rows)))
    svg = "{http://www.w3.org/2000/svg}"
    assert len(list(tree.iter(f"{svg}circle"))) == 2 * (4 + 2)
    assert len(list(tree.iter(f"{svg}polyline"))) == 2 * 2 * 2


def test_a_disturbed_time_is_marked_and_in_no_fit():
    rows = [point("blocks", value, 0.1 * value) for value in (1, 2, 4)]
    rows.append(point("blocks", 8, 99.0, others_rate=0.06))
    (axis,) = (axis for axis in growth.AXES if axis.name == "blocks")
    slopes = growth.fitted(axis, rows)
    assert [slopes[name] for name in ("time", "time_expected", "cpu_time")] == pytest.approx([1.0] * 3)
    assert slopes["memory"] == pytest.approx(1.0), "nobody else is in the memory of the process"
    table = growth.markdown(rows)
    assert "| 100 ms to 99.0 s† |" in table
    assert "† Others took more than 5% of the cores meanwhile: such a time is in no fit (blocks 8)." in table
    assert "†" not in growth.markdown(rows[:3])
    assert growth.fitted(axis, rows[3:])["time"] is None
    tree = ElementTree.fromstring(growth.picture(growth.drawn_axes(rows)))
    circles = [circle.get("class") for circle in tree.iter("{http://www.w3.org/2000/svg}circle")]
    assert circles == ["point"] * 3 + ["point disturbed"] + ["point"] * 4


def test_memory_of_a_row_stands_beside_its_ids():
    rows = [point("corpus_rows", n, 1.0, peak_bytes=500 + 128 * n + 24 * n + 10_000_000) for n in (1_000, 1_000_000)]
    note = "From 1,000 to 1,000,000 rows memory grows by 152 bytes a row; the encoded ids alone are 128."
    assert growth.corpus_note(rows) == note


def test_only_what_is_missing_is_measured(tmp_path, monkeypatch, capsys):
    asked = []

    def measured(axis: str, value: int, *, quick: bool) -> dict[str, Any]:
        asked.append(value)
        return point(axis, value, 0.1 * value)

    monkeypatch.setattr(growth, "measure_point", measured)
    arguments = ["--axis", "blocks", "--results", str(tmp_path / "growth.json")]
    assert growth.main(arguments) == 0
    assert asked == [1, 2, 4, 8, 16]
    assert growth.main(arguments) == 0
    assert len(asked) == 5
    assert growth.main([*arguments, "--again", "blocks"]) == 0
    assert len(asked) == 10
    results = stored.Results(tmp_path / "growth.json", ("axis", "value"))
    results.keep(point("blocks", 4, 1.0, others_rate=0.5), under=CONDITIONS)
    assert growth.main(arguments) == 0
    assert asked[10:] == [4], "others took half of the cores"
    assert growth.main([*arguments, "--redraw"]) == 0
    assert "| blocks | 1 | 16 |" in capsys.readouterr().out
    ElementTree.parse(tmp_path / "growth.svg")


def test_a_point_that_fails_or_takes_too_long_says_so(monkeypatch):
    assert growth.measure_point("no_such_axis", 1, quick=True)["not_run"].startswith("exit code 2: ")
    monkeypatch.setattr(growth, "QUICK_TIMEOUT_SECONDS", 0.01)
    assert growth.measure_point("corpus_rows", 1_000, quick=True)["not_run"] == "took more than 0.01 s"


def test_a_corpus_point_measures_every_part():
    found = growth_points.measure_corpus(200)
    assert found["ids_bytes"] == 200 * 64 * 2
    assert found["seconds"] == pytest.approx(sum(found[f"{part}_seconds"] for part in growth_points.PARTS))
    assert found["peak_bytes"] >= found["baseline_bytes"]


# Precision


def test_precisions_stand_beside_each_other():
    run = {"what": "run", "steps": 30, "seconds": 1.0, "seed": 0}
    rows = [
        {**run, "stage": "pretrain", "precision": "float32", "losses": [7.0, 5.0]},
        {**run, "stage": "pretrain", "precision": "bfloat16", "losses": [7.0, 5.1]},
        {**run, "stage": "frozen", "precision": "float32", "losses": [0.7, 0.6], "val_accuracy": 0.75},
    ]
    table = precision.run_table(rows)
    assert "| masked LM | 30 | 5.0000 | 5.1000 | 2.00% | – | – |" in table
    assert "frozen" not in table
    tree = ElementTree.fromstring(precision.picture(rows))
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}polyline"))) == 3 + 2  # and two in the legend


def test_what_precisions_differ_by_is_averaged_over_seeds_of_both():
    ends = {"float32": [0.80, 0.78, 0.82, 0.99], "bfloat16": [0.79, 0.78, 0.80]}  # one seed has no partner yet
    rows = [
        {
            "stage": "unfrozen",
            "precision": name,
            "seed": seed,
            "losses": [9.0, 1.1 - accuracy],
            "val_accuracy": accuracy,
        }
        for name, accuracies in ends.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    rows += [
        {"stage": "pretrain", "precision": name, "seed": seed, "losses": [5.0 + (name == "bfloat16") * 0.05]}
        for name in ends
        for seed in range(2)
    ]
    pretrain, unfrozen = precision.seeds_table(rows).splitlines()[2:]
    assert pretrain == "| masked LM | 2 | **+1.00 %** (+1.00 to +1.00) | – | – | – |"
    points = estimate([-0.01, 0.0, -0.02], confidence=0.95)
    assert unfrozen.endswith(f"| 0.8000 | 0.7900 | **-1.00** ({100 * points.low:+.2f} to {100 * points.high:+.2f}) |")
    assert precision.seeds_table([row for row in rows if row["seed"] == 0]) == ""
    assert precision.main(["--seeds", "0", "--only", "run"]) == 2


def test_runs_in_both_precisions_differ_in_it_alone():
    assert precision.run_settings("float32", seed=3).seed == 3
    wide, narrow = (precision.run_settings(name) for name in precision.PRECISIONS)
    assert (wide.model.precision, narrow.model.precision) == ("float32", "mixed_bfloat16")
    assert replace_setting(narrow, "model.precision=float32") == wide


# Whole run


def test_the_notebooks_time_is_ours_times_the_ratios():
    epochs = [{"seconds": 10.0, "evaluation_seconds": 2.0, "steps": 100}]
    trained = {"epochs": epochs, "steps": 100, "seconds": 12.0, "waiting_seconds": 0.5, "writing_seconds": 0.5}
    record = {"stages": {"encode": {"seconds": 3.0}, "pretrain": trained, "end_to_end": {"seconds": 4.0}}}
    ratios = {"masked_lm": 10.0, "frozen": 2.0, "unfrozen": 2.0, "evaluate": 1.5, "text": 3.0}
    rows = whole_run.table_of(record, ratios, {"pretrain": 0.4})
    assert [row["seconds"] for row in rows] == [3.0, 13.0, 4.0]
    assert [row["notebook_seconds"] for row in rows] == pytest.approx([9.0, 100.0 + 1.5 * 1.6, 6.0])
    assert "| **whole run** |  | 20.0 s | 10.0 s | 6.0 s | 0.5 s | 117.4 s | **5.9×** |" in whole_run.markdown(
        rows, ratios
    )


def test_step_ratios_are_read_from_kept_rows_and_from_printed_ones(tmp_path):
    rows = [{"shape": "imdb", "peer": "notebook", "step": step, "ratio": 2.0} for step in whole_run.TRAINED.values()]
    for content in (rows, {"conditions": [], "rows": rows}):
        path = tmp_path / "peers.json"
        path.write_text(json.dumps(content))
        assert whole_run.step_ratios(path, "imdb") == dict.fromkeys(whole_run.TRAINED.values(), 2.0)


def test_an_evaluation_ratio_is_required(tmp_path):
    path = tmp_path / "classify.json"
    path.write_text(json.dumps({"ratio": 1.5}))
    assert whole_run.evaluation_ratio(path) == 1.5
    path.write_text(json.dumps({"ratio": None}))
    with pytest.raises(whole_run.SettingsError, match="there were too few reviews for it"):
        whole_run.evaluation_ratio(path)


def test_digests_are_timed_for_every_trained_stage():
    settings = growth_points.shape_settings("tiny")
    seconds = whole_run.digest_seconds(settings)
    assert seconds.keys() == whole_run.TRAINED.keys()
    assert min(seconds.values()) > 0


def test_step_ratios_of_a_missing_step_are_required(tmp_path):
    path = tmp_path / "peers.json"
    path.write_text(json.dumps([{"shape": "imdb", "peer": "notebook", "step": "frozen", "ratio": 2.0}]))
    with pytest.raises(whole_run.SettingsError, match="are missing"):
        whole_run.step_ratios(path, "imdb")
