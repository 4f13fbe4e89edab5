"""The change points with Apache Otava itself, and the study of how often they are wrong.

``tox -e history`` has Otava, which pins an old NumPy, and requires it; elsewhere its tests are not run.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minibert.cli import main
from minibert.perf.change_points import AFTER, BEFORE, find_change_points
from minibert.perf.error_study.recording import Recording, write_recording
from minibert.perf.pair import Block
from tests.perf_results import STEP, made_up_commit, noisy_results, proposing, write_history

# Last, so that the package that is installed stays the one that is tested.
sys.path.append(str(Path(__file__).parents[1]))
study: Any = importlib.import_module("benchmarks.change_points")


@pytest.fixture
def otava() -> None:
    if importlib.util.find_spec("otava") is None:
        if os.environ.get("MINIBERT_REQUIRE_OTAVA"):
            pytest.fail("apache-otava is required, but it is not installed")
        pytest.skip("not run: apache-otava is not installed (tox -e history has it)")


# The study's own counting


def test_an_alarm_is_counted_once_though_it_moves_or_goes_away():
    answers = {12: [5], 13: [6], 14: [], 15: [5, 12], 20: [12]}
    found = study.alarms_as_it_grows([1.0] * 20, lambda values: answers.get(len(values), []))
    assert found == [5, 12]


def test_nothing_is_asked_before_a_change_could_be_found():
    asked: list[int] = []
    study.alarms_as_it_grows([1.0] * 15, lambda values: asked.append(len(values)) or [])
    assert asked == list(range(BEFORE + AFTER, 16))


def test_a_step_is_shown_to_the_third_record_that_has_it():
    assert study.with_step([1.0] * 10, 4, 1.5) == [1.0] * 4 + [1.5] * 3


@pytest.mark.parametrize("noise", ["normal", "heavy tails", "shared machine"])
def test_noise_has_the_scale_that_it_claims(noise):
    values = study.NOISES[noise](np.random.Generator(np.random.PCG64(1)), 100_000)
    assert 1.4826 * np.median(np.abs(values - np.median(values))) == pytest.approx(1.0, abs=0.05)


def test_bounds_stand_in_the_table():
    counts = study.Counts(points=1_000, alarms=0, steps=200, found=199, exact=190)
    row = study.make_row("normal", 0.01, counts)
    assert row.false_alarms_per_1000_high == pytest.approx(1000 * (1 - 0.025 ** (1 / 1000)))
    assert row.found_rate_low < row.found_rate == 0.995
    assert "| normal | 1.0 % | 0.00 (≤ 3.68; 1,000 records) | 99.5 % (≥ 97.2 %) | 95.0 % |" in study.markdown([row])


def recording(pairs: int, *levels: float) -> Recording:
    draw = np.random.Generator(np.random.PCG64(3))

    def block(level: float) -> Block:
        control, factors = 0.005 * draw.uniform(0.8, 1.2), np.exp(draw.normal(0.0, 0.003, 2))
        base, head = 3 * control * factors * (1, 1 + level / 100)
        return Block((base, base), (head, head), control, control, 0.0)

    levels = levels or (0,)
    header = {"neighbour": "none", "steps": 5, "pair_seconds": 1.5, "machine": {}}
    found = Recording({**header, "products": {f"{one:g}": 0 for one in levels}})
    found.pairs = [{f"{one:g}": [block(one) for _ in range(5)] for one in levels} for _ in range(pairs)]
    return found


def every_place(values: list[float]) -> list[int]:
    return list(range(len(values)))


def test_a_replayed_process_is_a_record_in_units_of_its_control():
    (row,) = study.replay("study", recording(20), every_place)
    assert (row.points, row.false_alarms, row.steps) == (40, 0, 40 - AFTER + 1 - study.FEWEST_BEFORE)
    assert row.found == row.steps
    assert row.exact_rate == 1.0
    assert row.level == pytest.approx(0.002, abs=0.001)


def test_a_replayed_step_is_the_recordings_own_where_it_has_one():
    for level, found_rate in ((5, 1.0), (10, None), (0.5, None)):
        rows = study.replay("study", recording(20, 0, level), every_place)
        assert len(rows) == (2 if level == 5 else 1)
        if found_rate is not None:
            assert rows[1].noise == "replayed: study, its own 5 % of work"
            assert (rows[1].points, rows[1].found_rate) == (0, found_rate)
            assert rows[1].steps == rows[0].steps - 2  # a place needs two pairs after its own
    nothing_slower = recording(20, 0, 5)
    for pair in nothing_slower.pairs:
        pair["5"] = pair["0"]
    assert study.replay("study", nothing_slower, every_place)[1].found == 0


def test_a_process_beside_other_work_is_not_replayed():
    found = recording(20)
    blocks = found.pairs[4]["0"]
    found.pairs[4] = {"0": [dataclasses.replace(b, control_base_seconds=3 * b.control_base_seconds) for b in blocks]}
    (row,) = study.replay("study", found, every_place)
    assert (row.points, row.false_alarms) == (39, 0)


def test_records_that_are_gates_are_drawn_from_pairs_and_their_step_is_the_recordings_own(monkeypatch):
    monkeypatch.setattr(study, "DRAWN_GATES", 12)
    monkeypatch.setattr(study, "FEWEST_GATES", 6)
    shown = []

    def propose(values):
        shown.append(values)
        return every_place(values)

    (row,) = study.replay_gates(recording(20, 0, 5), propose, points=100, steps=4)
    assert row.noise == "gates drawn from 20 pairs, neighbour: none"
    assert (row.points, row.false_alarms, row.steps, row.found_rate) == (100, 0, 4, 1.0)
    steps = shown[-4:]
    assert all(np.mean(values[-AFTER:]) / np.mean(values[:-AFTER]) == pytest.approx(1.05, abs=0.01) for values in steps)
    assert "| 0.00 (100 drawn) | 100.0 % |" in study.markdown([row]), "no bounds hold for what is drawn"
    assert study.replay_gates(recording(20), propose, points=100, steps=4) == [], "it has no step of its own"
    assert study.replay_gates(recording(4, 0, 5), propose, points=100, steps=4) == [], "a gate takes eight pairs"


def test_wrong_arguments_and_files_are_named(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit, match="2"):
        study.main(["--points", "0"])
    assert "--points: 1 or more is required" in capsys.readouterr().err
    monkeypatch.setattr(study, "require_otava", proposing)
    assert study.main(["--replay", str(tmp_path / "nothing.jsonl")]) == 4
    assert "nothing.jsonl" in capsys.readouterr().err


# With Otava


@pytest.mark.usefixtures("otava")
def test_otava_finds_a_step_in_a_list_and_the_command_names_it(tmp_path, capsys):
    history = write_history(tmp_path / "history", noisy_results(23, changes={20: 1.05}))
    assert main(["perf", "history", "--history", str(history), "--repository", str(tmp_path), "--json"]) == 0
    step, masking = json.loads(capsys.readouterr().out)["series"]
    assert (step["benchmark"], masking["changes"]) == (STEP, [])
    (change,) = step["changes"]
    assert change["commit_range"] == f"{made_up_commit(19)[:10]}..{made_up_commit(20)[:10]}"
    page = tmp_path / "page.html"
    assert main(["perf", "report", "--history", str(history), "--out", str(page)]) == 0
    assert "NOT searched" not in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("otava")
@pytest.mark.parametrize("values", [[1.0] * 60, [2.0] * 30 + [1.0] * 30, [1.0 + 1e-12 * i for i in range(60)]])
def test_otava_survives_series_without_noise(values):
    found = [change.index for change in find_change_points(values)]
    assert found == ([30] if values[0] == 2.0 else [])


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute of two cores, but of a machine that may be busy
@pytest.mark.usefixtures("otava")
def test_few_false_alarms_and_few_missed_steps():
    rows = {(row.noise, row.level): row for row in study.study(2_000, 200, (0.005, 0.01), processes=2)}
    assert len(rows) == 6
    for row in rows.values():
        assert row.points == 2_000
        assert row.false_alarms_per_1000 <= 1.0, row
    for noise, least in (("normal", 0.99), ("heavy tails", 0.95), ("shared machine", 0.95)):
        assert rows[noise, 0.005].found_rate >= least, rows[noise, 0.005]
    assert rows["normal", 0.01].found_rate >= 0.93


@pytest.mark.slow
@pytest.mark.usefixtures("otava")
def test_the_study_is_one_command(tmp_path, capsys):
    path = tmp_path / "study.jsonl"
    write_recording(path, recording(20))
    words = ["--points", "200", "--steps", "10", "--level", "0.01", "--processes", "2", "--replay", str(path)]
    assert study.main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["noise"] for row in rows] == [*study.NOISES, "replayed: study"]
    assert all(math.isfinite(row["false_alarms_per_1000_high"]) for row in rows)
    assert study.main(["--only-replay", "--replay", str(path)]) == 0
    assert capsys.readouterr().out.count("| 0.2 % |") == 1
    assert study.main([*words[:-2], "--otava-alone"]) == 0
    assert capsys.readouterr().out.count("| 1.0 % |") == 3
