"""``minibert perf history``: series that never mix machines, in the commits' order, and a rule for changes."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minibert.cli import main
from minibert.errors import MinibertError, SettingsError
from minibert.perf import since_when
from minibert.perf.change_points import AFTER, BEFORE, find_change_points, noise_of, require_otava
from minibert.perf.commit_order import in_commit_order
from minibert.perf.history import read_history
from minibert.perf.history_text import as_lines
from minibert.perf.series import SECONDS, make_series
from minibert.perf.since_when import Analysis, analyze, as_json
from tests.perf_results import (
    CONTROL_SECONDS,
    MASKING,
    STEP,
    made_up_commit,
    made_up_counters,
    made_up_entry,
    made_up_machine,
    made_up_result,
    noisy_results,
    proposing,
    write_history,
)


def analyzed(tmp_path: Path, results: list[dict[str, Any]], *proposals: int, **options: Any) -> Analysis:
    tmp_path.mkdir(exist_ok=True)
    history = write_history(tmp_path / "history", results)
    return analyze(history, repository=tmp_path, propose=proposing(*proposals), **options)


# Series


def test_machines_devices_and_controls_are_never_in_one_series(tmp_path):
    bare = made_up_entry()
    del bare["extra_info"]["control_seconds"], bare["extra_info"]["control_data"]
    results = [
        made_up_result(0),
        made_up_result(1, machine=made_up_machine(cores=64)),
        made_up_result(2, machine=made_up_machine(tensorflow="tensorflow 2.20.0")),
        made_up_result(3, [made_up_entry(device="cuda")]),
        made_up_result(4, [made_up_entry(control_name="another")]),
        made_up_result(5, [bare]),
        made_up_result(6),
    ]
    series = [found.series for found in analyzed(tmp_path, results).series]
    assert sorted(len(one.points) for one in series) == [1, 1, 1, 1, 1, 2]
    assert len({(one.machine["identity"], one.device, one.unit) for one in series}) == 6
    assert [one.points[0].value for one in series if one.unit == SECONDS] == [bare["stats"]["median"]]
    assert not any(one.is_normalized for one in series if one.unit == SECONDS)


def test_a_slow_day_of_the_machine_is_no_slow_day_of_the_benchmark(tmp_path):
    results = noisy_results(40, noise=0.0)
    for result in results[20:]:  # everything is twice as slow, the control too
        for entry in result["benchmarks"]:
            for field in ("q1", "median", "q3"):
                entry["stats"][field] *= 2
            entry["stats"]["data"] = [2 * seconds for seconds in entry["stats"]["data"]]
            entry["extra_info"]["control_data"] = [2 * seconds for seconds in entry["extra_info"]["control_data"]]
            entry["extra_info"]["control_seconds"] *= 2
    analysis = analyzed(tmp_path, results, 20)
    assert [found.changes for found in analysis.series] == [[], []]
    for found in analysis.series:
        values = [point.value for point in found.series.points]
        assert values == pytest.approx([values[0]] * 40)
        assert not found.disturbed
        assert found.series.points[-1].seconds == pytest.approx(2 * found.series.points[0].seconds)


def test_records_beside_other_work_are_shown_and_not_searched(tmp_path):
    results = noisy_results(40, changes={24: 1.06})
    for place in (5, 21, 22, 23):  # the control lost its cores, the benchmark did not
        extra = results[place]["benchmarks"][0]["extra_info"]
        extra["control_data"] = [4 * seconds for seconds in extra["control_data"]]
        extra["control_seconds"] *= 4
    step, masking = analyzed(tmp_path, results, 20).series
    assert [index for index, point in enumerate(step.series.points) if point.is_disturbed] == [5, 21, 22, 23]
    assert (step.disturbed, masking.disturbed) == (4, 0)
    (change,) = step.changes or ()
    assert change.index == 24
    assert change.commit_range == f"{made_up_commit(20)[:10]}..{made_up_commit(24)[:10]}"
    text = "\n".join(as_lines(Analysis(series=[step], notices=[])))
    assert "4 records not searched: the control was 1.5 times off those around" in text


# The order of commits


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three commits on main, and one beside it that was merged; all author times run backwards."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for number in range(2):
        git(folder, "commit", "-q", "--allow-empty", "-m", str(number))
    git(folder, "checkout", "-q", "-b", "side", "HEAD~1")
    git(folder, "commit", "-q", "--allow-empty", "-m", "side")
    git(folder, "checkout", "-q", "main")
    git(folder, "merge", "-q", "--no-ff", "--no-edit", "side")
    return folder


def line_of(repository: Path) -> list[str]:
    return git(repository, "rev-list", "--first-parent", "--reverse", "HEAD").split()


def read_results(tmp_path: Path, results: list[dict[str, Any]]) -> list[Any]:
    return read_history(write_history(tmp_path / "history", results))


def test_commits_stand_in_first_parent_order_whatever_their_clocks_say(tmp_path, repository):
    line = line_of(repository)
    results = [made_up_result(10 - number, commit=commit) for number, commit in enumerate(line)]
    ordered = in_commit_order(read_results(tmp_path, results), repository)
    assert [result.commit.id for result in ordered.results] == line
    assert ordered.notices == []
    assert ordered.commits_between(line[0], line[2]) == 2
    assert ordered.commits_between(line[0], made_up_commit(9)) is None


def test_results_of_one_commit_stand_in_the_order_of_their_measurement(tmp_path, repository):
    commit = line_of(repository)[0]
    results = [made_up_result(number, commit=commit) for number in (3, 1, 2)]
    ordered = in_commit_order(read_results(tmp_path, results), repository)
    assert [result.measured[:10] for result in ordered.results] == ["2026-01-02", "2026-01-03", "2026-01-04"]


def test_commits_beside_the_line_and_of_a_changed_tree_are_left_out_aloud(tmp_path, repository):
    side = git(repository, "rev-parse", "side").strip()
    line = line_of(repository)
    results = [
        made_up_result(0, commit=line[0]),
        made_up_result(1, commit=side),
        made_up_result(2, commit=line[1], dirty=True),
    ]
    found = read_results(tmp_path, results)
    ordered = in_commit_order(found, repository)
    assert [result.commit.id for result in ordered.results] == [line[0]]
    assert any("1 record of a working tree with changes left out" in notice for notice in ordered.notices)
    assert any("1 record of commits that are not on the first-parent line" in notice for notice in ordered.notices)
    with_dirty = in_commit_order(found, repository, with_dirty=True)
    assert [result.commit.id for result in with_dirty.results] == line[:2]


def test_without_a_repository_author_times_give_the_order_and_that_is_said(tmp_path):
    ordered = in_commit_order(read_results(tmp_path, noisy_results(3)), tmp_path)
    assert [result.commit.id for result in ordered.results] == [made_up_commit(number) for number in range(3)]
    assert ordered.notices == ["ordered by author time: no git repository with these commits is at hand"]
    assert ordered.commits_between(made_up_commit(0), made_up_commit(1)) is None


def test_a_shallow_clone_orders_by_author_time_and_says_so(tmp_path, repository):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", repository.as_uri(), str(clone))
    results = [made_up_result(number, commit=commit) for number, commit in enumerate(line_of(repository))]
    ordered = in_commit_order(read_results(tmp_path, results), clone)
    assert len(ordered.results) == 3
    assert ordered.notices == ["ordered by author time: this clone is shallow and does not have all commits"]


# The rule that confirms a change


def noisy(count: int, *, sigma: float = 0.005, seed: int = 0, **steps: float) -> list[float]:
    draw, level, values = random.Random(seed), 1.0, []
    for number in range(count):
        level *= steps.get(f"at_{number}", 1.0)
        values.append(level * math.exp(draw.gauss(0.0, sigma)))
    return values


def indexes(values: list[float], *proposals: int) -> list[int]:
    return [change.index for change in find_change_points(values, proposing(*proposals))]


@pytest.mark.parametrize("factor", [1.05, 0.95, 1.3, 5.0])
def test_a_step_is_confirmed_three_points_after_it(factor):
    values = noisy(23, at_20=factor)
    assert indexes(values, 20) == [20]
    (change,) = find_change_points(values, proposing(20))
    assert change.after / change.before == pytest.approx(factor, rel=0.01)
    assert change.before == pytest.approx(1.0, abs=0.005)
    assert noise_of(values, [20]) == pytest.approx(0.005, abs=0.003)
    assert indexes(values[:22], 20) == []


def test_a_proposal_beside_the_step_is_moved_onto_it():
    assert indexes(noisy(40, at_20=1.05), 18) == [20]
    assert indexes(noisy(40, at_20=1.05), 22) == [20]
    assert indexes(noisy(40, at_20=1.05), 15) == [20]
    assert indexes(noisy(40, at_20=1.05), 35) == []


def test_two_steps_are_two_changes():
    assert indexes(noisy(60, at_20=1.06, at_40=0.95), 20, 40) == [20, 40]
    assert indexes(noisy(60, at_20=1.06, at_40=0.95), 19, 21, 30, 41) == [20, 40]


@pytest.mark.parametrize(
    ("values", "proposal"),
    [
        (noisy(40), 20),
        (noisy(40, at_20=1.02), 20),  # less than counts
        (noisy(40, sigma=0.05, at_37=1.05), 37),  # less than the noise allows
        (noisy(23, at_20=1.05, at_22=0.95), 20),  # two points of three
        (noisy(20, at_5=1.2), 5),  # too early
        (noisy(20, at_18=1.2), 18),  # too late
        ([1.0] * 40, 20),
    ],
)
def test_what_is_no_change_is_not_confirmed(values, proposal):
    assert indexes(values, proposal) == []


def test_a_single_spike_is_no_change_however_high():
    for place in range(40):
        values = noisy(40, seed=place)
        values[place] *= 10
        assert indexes(values, *range(40)) == []


@given(st.lists(st.floats(1e-9, 1e9), max_size=60), st.sets(st.integers(-5, 70)), st.floats(1e-6, 1e6))
@example([1.0] * 8 + [2.0] * 3, {8}, 3.0)
@example([1.0] * 36 + [2.0] * 4 + [10.0] * 20, {36, 40}, 1.0)  # four points before the second
def test_changes_do_not_depend_on_the_unit_and_keep_their_distance(values, proposals, unit):
    found = indexes(values, *proposals)
    assert indexes([unit * value for value in values], *proposals) == found
    edges = [0, *found, len(values)]
    gaps = [after - before for before, after in pairwise(edges)]
    assert not found or (all(gap >= BEFORE for gap in gaps[:-1]) and gaps[-1] >= AFTER)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_values_that_are_no_times_are_refused(value):
    with pytest.raises(ValueError, match="finite times above 0"):
        find_change_points([1.0] * 20 + [value], proposing())


def test_otava_is_asked_for_plain_lists_and_its_absence_is_named(monkeypatch):
    asked: list[tuple[Any, dict[str, Any]]] = []

    def compute_change_points(series: list[float], **options: Any) -> tuple[list[Any], list[Any]]:
        asked.append((series, options))
        return [type("Point", (), {"index": 20})()], []

    package, analysis = ModuleType("otava"), ModuleType("otava.analysis")
    analysis.compute_change_points = compute_change_points  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "otava", package)
    monkeypatch.setitem(sys.modules, "otava.analysis", analysis)
    assert require_otava()((1.0, 2.0)) == [20]
    assert asked[0][0] == [1.0, 2.0]
    assert type(asked[0][0]) is list
    monkeypatch.setitem(sys.modules, "otava", None)
    monkeypatch.setitem(sys.modules, "otava.analysis", None)
    with pytest.raises(
        MinibertError, match=r"apache-otava is required .* environment of its own .*pip install \"\.\[history\]\""
    ):
        require_otava()


# Since when


def test_names_that_two_parts_of_an_environment_share_are_both_looked_at() -> None:
    before, after = (
        SimpleNamespace(environment={"packages": {"numpy": "2.3"}, "cpu": {"name": cpu}, "gpu": {"name": "b"}})
        for cpu in ("a", "c")
    )
    after.environment["packages"] = {"numpy": "2.4"}
    assert since_when._environment_changes(before, after) == ["numpy 2.3 -> 2.4", "cpu.name a -> c"]


def test_a_package_that_is_no_longer_recorded_has_not_changed() -> None:
    before, after = (SimpleNamespace(environment={"packages": packages}) for packages in
                     ({"keras-hub": "0.32", "datasets": "5.2"}, {"tensorflow-metal": "1.2"}))  # fmt: skip
    assert since_when._environment_changes(before, after) == ["datasets 5.2 -> None", "tensorflow-metal None -> 1.2"]


def test_a_change_names_its_commits_its_times_and_what_else_changed(tmp_path):
    results = noisy_results(24, changes={20: 1.06})
    for result in results[20:]:
        result["machine_info"]["environment"]["packages"]["pyarrow"] = "26.0"
    step = analyzed(tmp_path, results, 20).series[0]
    assert step.series.benchmark == STEP
    assert step.changes is not None
    (change,) = step.changes
    assert change.commit_range == f"{made_up_commit(19)[:10]}..{made_up_commit(20)[:10]}"
    assert (change.index, change.commits, change.environment) == (20, None, ["pyarrow None -> 26.0"])
    assert change.change == pytest.approx(0.06, abs=0.01)
    assert change.after_seconds / change.before_seconds == pytest.approx(1 + change.change)
    assert change.before_seconds == pytest.approx(1.5 * 1.02 * CONTROL_SECONDS, rel=0.01)


def test_a_change_within_one_commit_is_not_the_codes(tmp_path, repository):
    commits = line_of(repository)
    results = noisy_results(24, changes={20: 1.06})
    for number, result in enumerate(results):
        result["commit_info"]["id"] = commits[0] if number < 12 else commits[2]
    history = write_history(tmp_path / "history", results)
    analysis = analyze(history, repository=repository, propose=proposing(20))
    (change,) = analysis.series[0].changes or ()
    assert change.commits == 0
    assert "within one commit: the cause is not in the code" in "\n".join(as_lines(analysis))


@pytest.mark.parametrize("place", [10, 11, 13, 14])
def test_a_change_within_a_commit_but_near_another_is_open(place, tmp_path, repository):
    commits = line_of(repository)
    results = noisy_results(24, changes={place: 1.06}, noise=0.001)
    for number, result in enumerate(results):
        result["commit_info"]["id"] = commits[0] if number < 12 else commits[1]
    history = write_history(tmp_path / "history", results)
    analysis = analyze(history, repository=repository, propose=proposing(place))
    (change,) = analysis.series[0].changes or ()
    assert (change.index, change.is_within_commit, change.commits) == (place, True, 1)
    text = "\n".join(as_lines(analysis))
    assert f"{commits[0][:10]}..{commits[1][:10]} (1 commit); open: both sides are records of one commit" in text
    assert "the cause is not in the code" not in text


def test_one_commit_is_one_without_a_repository_too(tmp_path):
    results = noisy_results(24, changes={12: 1.06})
    for result in results:
        result["commit_info"]["id"] = made_up_commit(0)
    (change,) = analyzed(tmp_path, results, 12).series[0].changes or ()
    assert change.commits == 0


def test_the_number_of_commits_in_a_range_is_said(tmp_path, repository):
    commits = line_of(repository)
    results = noisy_results(24, changes={12: 1.06})
    for number, result in enumerate(results):
        result["commit_info"]["id"] = commits[0] if number < 12 else commits[2]
    history = write_history(tmp_path / "history", results)
    text = "\n".join(as_lines(analyze(history, repository=repository, propose=proposing(12))))
    assert f"{commits[0][:10]}..{commits[2][:10]} (2 commits)" in text


# Another environment


OLD = made_up_machine(tensorflow="tensorflow 2.20.0", python="3.10")


def in_environments(*machines: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A result for each machine; None is the newest."""
    results = noisy_results(len(machines))
    for result, machine in zip(results, machines, strict=True):
        result["machine_info"]["minibert"] = machine or made_up_machine()
    return results


def test_a_series_says_which_environment_it_goes_on_from(tmp_path):
    analysis = analyzed(tmp_path, in_environments(OLD, OLD, OLD, None, None), benchmarks=[STEP])
    old, new = analysis.series
    assert old.began is None
    began = new.began
    assert began is not None
    assert began.versions == ["tensorflow 2.20.0 -> 2.21.0", "python 3.10 -> 3.11"]
    assert (began.old_identity, began.before_records, began.after_records) == (OLD["identity"], 3, 2)
    assert began.commit_range == f"{made_up_commit(2)[:10]}..{made_up_commit(3)[:10]}"
    assert (began.commits, began.goes_on) == (None, False)
    assert began.before == sorted(point.value for point in old.series.points)[1]
    assert as_json(analysis)["series"][1]["began"]["ratio"] == began.after / began.before


def test_an_environment_that_goes_on_beside_the_new_one_is_said_once(tmp_path):
    old, new = analyzed(tmp_path, in_environments(OLD, None, OLD, None, OLD), benchmarks=[STEP]).series
    assert old.began is None
    assert new.began is not None
    assert (new.began.before_records, new.began.goes_on) == (1, True)


def test_one_commit_measured_in_both_environments_is_said(tmp_path):
    results = in_environments(OLD, OLD, None)
    for result in results[1:]:
        result["commit_info"]["id"] = made_up_commit(1)
    analysis = analyzed(tmp_path, results, benchmarks=[STEP])
    began = analysis.series[1].began
    assert began is not None
    assert began.commits == 0
    assert "one commit on both sides" in "\n".join(as_lines(analysis))


@pytest.mark.parametrize("change", [{"cpu_model": "B"}, {"cores": 4}, {"threads": {"OMP_NUM_THREADS": "1"}}])
def test_another_kind_of_machine_goes_on_from_nothing(change, tmp_path):
    results = in_environments(OLD, OLD, made_up_machine(**change))
    assert [found.began for found in analyzed(tmp_path, results).series] == [None] * 4


def test_disturbed_records_do_not_count_around_an_upgrade(tmp_path):
    results = in_environments(*[OLD] * 9, None)
    extra = results[8]["benchmarks"][0]["extra_info"]
    extra["control_data"] = [4 * seconds for seconds in extra["control_data"]]
    extra["control_seconds"] *= 4
    began = analyzed(tmp_path, results, benchmarks=[STEP]).series[1].began
    assert began is not None
    assert began.ratio == pytest.approx(1.0, abs=0.02)
    assert began.before_records == 8


# What is said of a series


def test_counters_that_change_are_found_without_any_statistics(tmp_path):
    results = noisy_results(6)
    for result in results[4:]:
        result["benchmarks"][0]["extra_info"]["counters"] = made_up_counters(STEP, MatMul=16, Exp=1)
    for result in results[2:3]:  # one without counters is stepped over
        del result["benchmarks"][0]["extra_info"]["counters"]
    analysis = analyzed(tmp_path, results)
    (change,) = analysis.series[0].counter_changes
    assert (change.index, change.differences) == (4, ["Exp 0 -> 1", "MatMul 14 -> 16"])
    assert analysis.series[1].counter_changes == []
    assert analysis.series[0].is_too_short


def test_a_noisy_series_says_that_it_finds_things_late(tmp_path):
    quiet, noisy_one = (analyzed(tmp_path / name, results) for name, results in
                        (("a", noisy_results(40)), ("b", noisy_results(40, noise=0.02))))  # fmt: skip
    assert quiet.series[0].noise == pytest.approx(0.005, abs=0.003)
    assert noisy_one.series[0].noise == pytest.approx(0.02, abs=0.01)
    late = "a change of 5 % may take more than 3 records"
    assert [late in "\n".join(as_lines(one)) for one in (quiet, noisy_one)] == [False, True]


def test_a_short_series_says_so_instead_of_no_change(tmp_path):
    text = "\n".join(as_lines(analyzed(tmp_path, noisy_results(5))))
    assert "too short to find a change" in text
    assert "no change of the time found" not in text


def test_only_the_benchmarks_asked_for(tmp_path):
    analysis = analyzed(tmp_path, noisy_results(3), benchmarks=[MASKING])
    assert [found.series.benchmark for found in analysis.series] == [MASKING]
    hints = {MASKING.upper(): f"there are {STEP}, {MASKING}", "masked_lm_step[tine]": f"the nearest is '{STEP}'"}
    for name, hint in hints.items():
        with pytest.raises(SettingsError, match=rf"--benchmark: .* {re.escape(hint)}"):
            analyze(tmp_path / "history", repository=tmp_path, propose=proposing(), benchmarks=[name])


def test_the_json_is_whole_and_plain(tmp_path):
    analysis = analyzed(tmp_path, noisy_results(24, changes={20: 1.06}), 20)
    found = json.loads(json.dumps(as_json(analysis), allow_nan=False))
    step, masking = found["series"]
    assert (step["benchmark"], masking["changes"]) == (STEP, [])
    assert step["changes"][0]["change"] == pytest.approx(0.06, abs=0.01)
    assert len(step["points"]) == 24
    assert step["is_normalized"]


def test_the_command_prints_text_and_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minibert.perf.change_points.require_otava", lambda: proposing(20))
    history = write_history(tmp_path / "history", noisy_results(24, changes={20: 1.06}))
    words = ["perf", "history", "--history", str(history), "--repository", str(tmp_path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "slower +6." in said
    assert f"{made_up_commit(19)[:10]}..{made_up_commit(20)[:10]}" in said
    assert "note: ordered by author time" in said
    assert main([*words, "--json", "--benchmark", STEP]) == 0
    assert len(json.loads(capsys.readouterr().out)["series"]) == 1
    assert main([*words, "--benchmark", "nothing"]) == SettingsError.exit_code


def test_without_otava_the_command_fails_with_the_way_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "otava", None)
    monkeypatch.setitem(sys.modules, "otava.analysis", None)
    history = write_history(tmp_path / "history", noisy_results(1))
    assert main(["perf", "history", "--history", str(history)]) == 1
    assert 'pip install ".[history]"' in capsys.readouterr().err


def test_a_series_of_many_results_keeps_them_all(tmp_path):
    results = read_history(write_history(tmp_path / "history", noisy_results(30)))
    assert [len(series.points) for series in make_series(results)] == [30, 30]
