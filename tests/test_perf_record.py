"""``minibert perf record``: what is believed of a result, and a history that merges in git."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.checked import canonical_json
from minibert.cli import main
from minibert.errors import ArtifactError
from minibert.perf.fields import LONGEST_NAME
from minibert.perf.history import append, read_history, read_record
from minibert.perf.history_page import render_page
from minibert.perf.history_text import as_lines
from minibert.perf.results import read_result
from minibert.perf.since_when import analyze, as_json
from tests.perf_results import (
    MASKING,
    STEP,
    made_up_commit,
    made_up_entry,
    made_up_machine,
    made_up_result,
    noisy_results,
    proposing,
    write_history,
    write_result,
)

Edit = Callable[[dict[str, Any]], Any]
ROOT = Path(__file__).parents[1]


# What is kept of a result


def test_a_result_is_read_with_its_control_machine_and_counters(tmp_path):
    result = read_result(write_result(tmp_path / "result.json", made_up_result(3)))
    assert result.commit.id == made_up_commit(3)
    assert (result.commit.author_time, result.commit.branch, result.commit.is_dirty) == (
        "2026-01-04T12:00:00+00:00",
        "main",
        False,
    )
    assert result.machine["cores"] == 2
    assert result.environment == {"pytest_benchmark": "5.3.1", "packages": {"tensorflow": "2.21.0"}}
    (timing,) = result.timings
    assert (timing.name, timing.device, timing.rounds) == (STEP, "cpu", 5)
    assert timing.q1_seconds < timing.median_seconds < timing.q3_seconds
    assert timing.control is not None
    assert timing.control.ratio == pytest.approx(1.5)
    assert timing.counters is not None
    assert timing.counters["operators"]["MatMul"] == 14


def test_the_ratio_is_that_of_each_round_and_the_control_beside_it(tmp_path):
    entry = made_up_entry()
    # The machine is twice as slow in the last three rounds, for both.
    for place in (2, 3, 4):
        entry["stats"]["data"][place] *= 2
        entry["extra_info"]["control_data"][place] *= 2
    (timing,) = read_result(write_result(tmp_path / "r.json", made_up_result(0, [entry]))).timings
    assert timing.control is not None
    assert timing.control.ratio == pytest.approx(1.5)


def test_without_rounds_the_ratio_is_that_of_the_medians(tmp_path):
    entry = made_up_entry()
    del entry["stats"]["data"], entry["extra_info"]["control_data"]
    entry["extra_info"]["control_seconds"] = entry["stats"]["median"] / 2
    (timing,) = read_result(write_result(tmp_path / "r.json", made_up_result(0, [entry]))).timings
    assert timing.control is not None
    assert timing.control.ratio == pytest.approx(2.0)


def test_a_reference_that_was_timed_beside_counts_where_there_is_no_control(tmp_path):
    entry = made_up_entry()
    extra = entry["extra_info"]
    extra["reference_seconds"], extra["reference_data"] = extra.pop("control_seconds"), extra.pop("control_data")
    del extra["workload"]
    (timing,) = read_result(write_result(tmp_path / "r.json", made_up_result(0, [entry]))).timings
    assert timing.control is not None
    assert (timing.control.name, timing.name) == ("reference", f"benchmarks/bench_gated.py::test_gated[{STEP}]")


# What is not believed


def _entry(result: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = result["benchmarks"][0]
    return entry


def _set(*path: str, to: Any) -> Edit:
    def edit(result: dict[str, Any]) -> None:
        place: Any = _entry(result) if path[0] in ("stats", "extra_info", "fullname") else result
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = to

    return edit


def _drop(*path: str) -> Edit:
    def edit(result: dict[str, Any]) -> None:
        place: Any = _entry(result) if path[0] in ("stats", "extra_info") else result
        for name in path[:-1]:
            place = place[name]
        del place[path[-1]]

    return edit


BAD_RESULTS: list[tuple[str, Edit, str]] = [
    ("record", _set("format", to="minibert perf record 1"), "but this is a 'minibert perf record 1'"),
    ("long", _set("benchmarks", to={f"name {i}": "text" * 50 for i in range(90)}), r"but \{[^}]{,500}\} came"),
    ("long text", _set("machine_info", to="text " * 9_000), "field 'machine_info': an object is required, but 'text t"),
    ("google", _set("context", to={}), "this looks like one of Google Benchmark"),
    ("hyperfine", lambda r: (r.clear(), r.update(results=[])), "this looks like one of hyperfine or asv"),
    ("other", lambda r: r.pop("benchmarks"), "field 'benchmarks' is required, but it is missing"),
    ("no version", _drop("version"), "field 'version' is required"),
    ("no machine info", _drop("machine_info"), "field 'machine_info' is required"),
    ("no fingerprint", _drop("machine_info", "minibert"), "field 'machine_info.minibert' is required"),
    ("edited machine", lambda r: r["machine_info"]["minibert"].update(cores=4), "'machine.identity' does not fit"),
    ("nothing", _set("benchmarks", to=[]), "one benchmark or more is required, but the list is empty"),
    ("not a list", _set("benchmarks", to={}), "field 'benchmarks': a list is required"),
    ("not an object", _set("benchmarks", to=[1]), r"field 'benchmarks\[0\]': an object is required"),
    ("no stats", lambda r: _entry(r).pop("stats"), r"field 'benchmarks\[0\].stats' is required"),
    ("zero", _set("stats", "median", to=0.0), r"'benchmarks\[0\].stats.median': a finite number above 0 .* 0.0 came"),
    ("negative", _set("stats", "q1", to=-1.0), "stats.q1': a finite number above 0 is required"),
    ("NaN", _set("stats", "q3", to=math.nan), "stats.q3': a finite number above 0 is required, but nan came"),
    ("infinite", _set("stats", "data", to=[math.inf] * 5), r"stats.data\[0\]': a finite number above 0 .* inf came"),
    ("text", _set("stats", "median", to="1"), "stats.median': a finite number above 0 is required, but '1' came"),
    ("quartiles", _set("stats", "q1", to=100.0), "a median between the quartiles is required"),
    ("no rounds", _set("stats", "rounds", to=0), "stats.rounds': 1 or more is required"),
    ("true rounds", _set("stats", "rounds", to=True), "stats.rounds': an integer is required, but True came"),
    ("lost rounds", _set("stats", "rounds", to=7), "one time for each of the 7 rounds is required, but 5 came"),
    ("zero control", _set("extra_info", "control_seconds", to=0), "control_seconds': a finite number above 0"),
    ("NaN control", _set("extra_info", "control_data", to=[math.nan] * 5), r"control_data\[0\]': a finite number"),
    ("NaN counter", _set("extra_info", "counters", to={"flops": math.nan}), "counters.flops': an integer is required"),
    ("other NaN", _set("extra_info", "counters", to={"other": math.nan}), "counters of .*other': a finite number"),
    ("counted text", _set("extra_info", "counters", to={"flops": "a"}), "counters.flops': an integer .* 'a' came"),
    ("counted list", _set("extra_info", "counters", to={"operators": 5}), "counters.operators': an object is required"),
    ("half", _set("extra_info", "counters", to={"operators": {"A": 0.5}}), "operators.A': an integer is required"),
    ("no number", _set("extra_info", "counters", to={"operators": {"A": None}}), "operators.A': an integer is req"),
    ("below 0", _set("extra_info", "counters", to={"parameters": -1}), "parameters': 0 or more is required"),
    ("peaks", _set("extra_info", "counters", to={"device_peaks": 5}), "counters.device_peaks': an object is required"),
    ("a peak", _set("extra_info", "counters", to={"device_peaks": {"A": 0.5}}), "device_peaks.A': an integer is req"),
    ("peak", _set("extra_info", "peak_bytes", to=-1), "peak_bytes': 0 or more is required, but -1 came"),
    ("device", _set("extra_info", "device", to="a\x1b[2Jb"), "device': a printable name"),
    ("huge", _set("stats", "q3", to=10**400), "stats.q3': a finite number above 0 is required"),
    ("NaN machine", lambda r: r["machine_info"]["minibert"].update(cores=math.nan), "'machine.cores': a finite number"),
    ("half a branch", _set("commit_info", "branch", to="\ud800"), "commit_info.branch': a text of whole characters"),
    ("half a character", lambda r: r["machine_info"]["environment"].update(a="\ud800"), "text of whole characters"),
    ("counters", _set("extra_info", "counters", to=[]), "counters': an object is required"),
    ("unversioned", _set("commit_info", "id", to="unversioned"), "full hash of a commit"),
    ("traversal", _set("commit_info", "id", to="../../../../etc/passwd"), "full hash of a commit"),
    ("no time", _set("commit_info", "time", to=None), "'commit_info.time': text is required, but None came"),
    ("bad time", _set("commit_info", "author_time", to="yesterday"), "an ISO 8601 time is required"),
    ("dirty", _set("commit_info", "dirty", to="no"), "'commit_info.dirty': true or false is required"),
    ("empty name", _set("extra_info", "workload", to="   "), "a printable name"),
    ("control name", _set("extra_info", "workload", to="a\x1b[2Jb"), "a printable name"),
    ("long name", _set("extra_info", "workload", to="a" * (LONGEST_NAME + 1)), "a printable name"),
    ("twice", lambda r: r["benchmarks"].append(_entry(r)), "each benchmark is required once, but .* came 2 times"),
]


@pytest.mark.parametrize(("edit", "message"), [case[1:] for case in BAD_RESULTS], ids=[case[0] for case in BAD_RESULTS])
def test_a_result_that_cannot_be_true_is_named_and_nothing_is_written(edit, message, tmp_path, capsys):
    result = made_up_result()
    edit(result)
    path = write_result(tmp_path / "result.json", result)
    with pytest.raises(ArtifactError, match=message):
        read_result(path)
    assert main(["perf", "record", str(path), "--history", str(tmp_path / "history")]) == ArtifactError.exit_code
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "history").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "JSON is required"),
        (b"\xff\xfe", "JSON is required"),
        (b"[1]", "a JSON object is required, but list came"),
        (b'{"benchmarks": [', "JSON is required"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_result_is_named(content, message, tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read_result(path)
    with pytest.raises(ArtifactError, match="there is no such file"):
        read_result(tmp_path / "other.json")


def test_one_bad_file_of_several_and_none_is_recorded(tmp_path, capsys):
    good, bad = write_result(tmp_path / "a.json"), write_result(tmp_path / "b.json", {"results": []})
    assert main(["perf", "record", str(good), str(bad), "--history", str(tmp_path / "h")]) == ArtifactError.exit_code
    assert not (tmp_path / "h").exists()


any_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(any_value, st.data())
def test_no_value_of_any_field_ends_in_another_error(tmp_path_factory, value, data):
    result = made_up_result()
    place: Any = result
    while isinstance(place, dict | list) and place:
        inner = list(place.items()) if isinstance(place, dict) else list(enumerate(place))
        name, part = data.draw(st.sampled_from(inner))
        if not isinstance(part, dict | list) or not part or data.draw(st.booleans()):
            place[name] = value
            break
        place = part
    folder = tmp_path_factory.mktemp("any")
    path = write_result(folder / "result.json", result)
    said = ""
    try:
        append(folder / "history", read_result(path))
    except ArtifactError as error:
        said = str(error)
    if said:
        assert str(path) in said
        return
    assert read_history(folder / "history") == [read_result(path)]
    write_history(folder / "history", [made_up_result(1)])  # beside a plain one, so that the two are compared
    analysis = analyze(folder / "history", repository=folder, propose=proposing(), with_dirty=True)
    assert render_page(analysis, None, None)
    assert json.dumps(as_json(analysis), allow_nan=False)
    assert [*as_lines(analysis)]


# The history


def test_a_record_is_the_result_again(tmp_path):
    result = read_result(
        write_result(tmp_path / "r.json", made_up_result(0, [made_up_entry(MASKING), made_up_entry()]))
    )
    recorded = append(tmp_path / "history", result)
    assert recorded.is_new
    assert read_record(recorded.path) == result
    assert recorded.path.stat().st_size < 4_000
    moment, commit, machine, digest = recorded.path.stem.split("-")
    assert (moment, commit, machine) == ("20260101T120000Z", made_up_commit(0)[:12], result.machine["identity"])
    assert json.loads(recorded.path.read_text())["digest"].startswith(digest)


def test_the_same_result_twice_is_one_record_and_that_is_said(tmp_path, capsys):
    path, history = write_result(tmp_path / "r.json"), tmp_path / "history"
    words = ["perf", "record", str(path), "--history", str(history)]
    assert main(words) == 0
    (record,) = history.iterdir()
    before = record.read_bytes(), record.stat().st_mtime_ns
    assert "1 benchmark" in capsys.readouterr().out
    assert main(words) == 0
    assert "recorded before, nothing changed" in capsys.readouterr().out
    assert [*history.iterdir()] == [record]
    assert (record.read_bytes(), record.stat().st_mtime_ns) == before
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"path": str(record), "is_new": False}]


def test_record_says_what_is_left_out_of_a_series_later(tmp_path, capsys):
    entry = made_up_entry()
    del entry["extra_info"]["control_seconds"]
    path = write_result(tmp_path / "r.json", made_up_result(0, [entry], dirty=True))
    assert main(["perf", "record", str(path), "--history", str(tmp_path / "history")]) == 0
    said = capsys.readouterr().out
    assert "the working tree had changes" in said
    assert f"no control was timed beside {STEP}" in said


def test_names_that_differ_in_case_only_are_different(tmp_path):
    entries = [made_up_entry("Masking", ratio=1.0), made_up_entry("masking", ratio=2.0)]
    history = write_history(tmp_path / "history", [made_up_result(0, entries)])
    (result,) = read_history(history)
    assert [timing.name for timing in result.timings] == ["Masking", "masking"]


def test_names_are_content_and_never_paths(tmp_path):
    name = "../../../outside/../a[b].json"
    history = write_history(tmp_path / "history", [made_up_result(0, [made_up_entry(name)])])
    assert [path.name for path in tmp_path.iterdir()] == ["history"]
    assert [path.suffix for path in history.iterdir()] == [".json"]
    assert read_history(history)[0].timings[0].name == name


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: (p.mkdir(), (p / "README").touch())])
def test_an_empty_history_is_named(make, tmp_path):
    make(tmp_path / "history")
    with pytest.raises(ArtifactError, match="history: a history is required, but"):
        read_history(tmp_path / "history")


def _edited(path: Path, edit: Edit) -> None:
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


DAMAGES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("cut", lambda p: p.write_bytes(p.read_bytes()[:-20]), "JSON is required"),
    ("conflict", lambda p: p.write_text(f"<<<<<<< HEAD\n{p.read_text()}"), "JSON is required"),
    ("edited", lambda p: _edited(p, lambda r: r["benchmarks"][STEP].update(median_seconds=1.0)), "field 'digest'"),
    ("digest", lambda p: _edited(p, lambda r: r.pop("digest")), "field 'digest' does not fit the content"),
    ("newer", lambda p: _edited(p, lambda r: r.update(format="minibert perf record 2")), "2 is newer than 1"),
    ("other", lambda p: p.write_text("{}"), "field 'format': 'minibert perf record 1' is required, but None came"),
    ("renamed", lambda p: p.rename(p.with_name("mine.json")), "it was renamed or copied"),
    ("copied", lambda p: shutil.copy(p, p.with_name("copy.json")), "it was renamed or copied"),
]


@pytest.mark.parametrize(("damage", "message"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_a_damaged_record_is_named_and_not_left_out(damage, message, tmp_path):
    history = write_history(tmp_path / "history", noisy_results(3))
    damage(sorted(history.iterdir())[1])
    with pytest.raises(ArtifactError, match=message) as raised:
        read_history(history)
    assert ".json:" in str(raised.value)
    assert "\n" not in str(raised.value)


def _rewritten(path: Path, edit: Edit) -> None:
    """A record that somebody edited and gave the right digest and name."""
    record = json.loads(path.read_text())
    del record["digest"]
    edit(record)
    digest = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    path.unlink()
    name = f"{path.stem.rpartition('-')[0]}-{digest[:12]}.json"
    path.with_name(name).write_text(json.dumps({**record, "digest": digest}))


def _benchmark(record: dict[str, Any]) -> dict[str, Any]:
    benchmark: dict[str, Any] = record["benchmarks"][STEP]
    return benchmark


BAD_RECORDS: list[tuple[Edit, str]] = [
    (lambda r: _benchmark(r).update(device=5), "device': text is required, but 5 came"),
    (lambda r: _benchmark(r).update(rounds="a"), "rounds': an integer is required, but 'a' came"),
    (lambda r: _benchmark(r).update(median_seconds="1"), "median_seconds': a finite number above 0"),
    (
        lambda r: _benchmark(r).update(control=[]),
        "control': an object is required, but list came|an object is required",
    ),
    (lambda r: _benchmark(r)["control"].update(ratio=0), "control.ratio': a finite number above 0 is required"),
    (lambda r: _benchmark(r).update(counters={"operators": 5}), "counters.operators': an object is required"),
    (lambda r: _benchmark(r).update(counters={"flops": "a"}), "counters.flops': an integer is required, but 'a' came"),
    (lambda r: _benchmark(r).update(counters={"device_peaks": "a"}), "counters.device_peaks': an object is required"),
    (lambda r: _benchmark(r).update(counters={"device_peaks": {"A": "a"}}), "device_peaks.A': an integer is required"),
    (lambda r: _benchmark(r).update(first_call_seconds="a"), "first_call_seconds': a finite number above 0"),
    (lambda r: _benchmark(r).update(peak_bytes=1.5), "peak_bytes': an integer is required, but 1.5 came"),
    (lambda r: r["benchmarks"].update({STEP: 1}), r"benchmarks.masked_lm_step\[tiny\]': an object is required"),
    (lambda r: r["benchmarks"].clear(), "benchmarks': one benchmark or more is required"),
    (lambda r: r["commit"].update(is_dirty=0), "commit.is_dirty': true or false is required, but 0 came"),
    (lambda r: r["commit"].update(author_time=1), "commit.author_time': text is required, but 1 came"),
    (lambda r: r["commit"].pop("branch"), "commit.branch' is required, but it is missing"),
    (lambda r: r.update(measured="yesterday"), "measured': an ISO 8601 time is required, but 'yesterday' came"),
    (lambda r: r.update(environment=[]), "environment': an object is required, but"),
]


@pytest.mark.parametrize(("edit", "message"), BAD_RECORDS)
def test_a_record_with_the_right_digest_is_not_believed_for_that(edit, message, tmp_path):
    history = write_history(tmp_path / "history", noisy_results(1))
    (path,) = history.iterdir()
    _rewritten(path, edit)
    with pytest.raises(ArtifactError, match=message) as raised:
        read_history(history)
    assert ".json: field '" in str(raised.value)


def test_a_record_that_was_rewritten_rightly_is_one(tmp_path):
    history = write_history(tmp_path / "history", noisy_results(1))
    (path,) = history.iterdir()
    _rewritten(path, lambda r: _benchmark(r).update(rounds=7))
    assert read_history(history)[0].timings[0].rounds == 7


def test_a_name_that_is_taken_by_something_else_is_not_overwritten(tmp_path):
    path = write_result(tmp_path / "r.json")
    recorded = append(tmp_path / "history", read_result(path))
    recorded.path.write_text("{}")
    with pytest.raises(ArtifactError, match="field 'format'"):
        append(tmp_path / "history", read_result(path))
    assert recorded.path.read_text() == "{}"


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    path = write_result(tmp_path / "r.json")
    code = main(["perf", "record", str(path), "--history", str(tmp_path / "file" / "history")])
    assert code == ArtifactError.exit_code
    assert "a folder is required, but it cannot be made" in capsys.readouterr().err


def test_a_record_survives_other_line_ends(tmp_path):
    history = write_history(tmp_path / "history", noisy_results(1))
    (path,) = history.iterdir()
    before = read_record(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_record(path) == before


def _git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_two_branches_that_record_merge_without_a_conflict(tmp_path):
    results = noisy_results(4)
    history = write_history(tmp_path / "history", results[:1])
    _git(tmp_path, "init", "-q", "-b", "main")
    _git(tmp_path, "add", "history")
    _git(tmp_path, "commit", "-q", "-m", "first")
    other_machine = made_up_machine(cores=64)
    theirs = copy.deepcopy(results[1])
    theirs["machine_info"]["minibert"] = other_machine
    for branch, recorded in (("ours", results[1:3]), ("theirs", [theirs, results[3], results[2]])):
        _git(tmp_path, "checkout", "-q", "-b", branch, "main")
        write_history(history, recorded)
        _git(tmp_path, "add", "history")
        _git(tmp_path, "commit", "-q", "-m", branch)
    _git(tmp_path, "merge", "-q", "--no-edit", "ours")
    assert _git(tmp_path, "status", "--porcelain") == ""
    assert len(read_history(history)) == 5


# What is measured is what the commit says

# Last, so that the package that is installed stays the one that is tested.
sys.path.append(str(ROOT))
measured_code: Any = importlib.import_module("benchmarks.measured_code")


def _package(folder: Path) -> Path:
    """A checkout with a package of two files, as its commit has it."""
    package = folder / "minibert"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "style.css").write_text("")
    (package / "__pycache__" / "a.pyc").write_text("")
    (folder / ".gitignore").write_text("__pycache__/\n")
    _git(folder, "init", "-q", "-b", "main")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "first")
    return package


def test_an_installed_package_with_other_files_is_another(tmp_path):
    here = _package(tmp_path / "checkout")
    installed = tmp_path / "site-packages" / "minibert"
    shutil.copytree(here, installed)
    (installed / "__pycache__" / "b.pyc").write_text("b")
    assert measured_code.differing_files(installed, here) == []
    (here / "masking.py").write_text("")
    (installed / "style.css").write_text("b")
    (installed / "old.py").write_text("")
    assert measured_code.differing_files(installed, here) == ["masking.py", "old.py", "style.css"]
    assert measured_code.differing_files(here, here) == []


@pytest.mark.parametrize("name", ["__init__.py", "new.py"])
def test_a_checkout_with_a_changed_or_new_module_is_not_its_commit(name, tmp_path):
    package = _package(tmp_path)
    (tmp_path / "result.json").write_text("{}")  # is not measured
    assert not measured_code.has_changes(tmp_path)
    (package / name).write_text("a = 1")
    assert measured_code.has_changes(tmp_path)
    assert not measured_code.has_changes(tmp_path.parent)


def test_benchmarks_of_another_package_than_the_checkouts_are_refused(tmp_path):
    shutil.copytree(ROOT / "minibert", tmp_path / "minibert", ignore=shutil.ignore_patterns("*.pyc"))
    with (tmp_path / "minibert" / "masking.py").open("a") as module:
        module.write("# another\n")
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(tmp_path), "--collect-only", "-q", "-p", "no:cacheprovider",
               "benchmarks/bench_gated.py"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "minibert: the checkout's package in " in done.stderr
    assert "is timed and masking.py differs" in done.stderr


def test_a_new_module_makes_a_result_dirty(monkeypatch):
    conftest: Any = importlib.import_module("benchmarks.conftest")
    for changes, before, after in ((True, False, True), (False, False, False), (False, True, True)):
        monkeypatch.setattr(conftest, "has_changes", lambda checkout, changes=changes: changes)
        info = {"dirty": before}
        conftest.pytest_benchmark_update_commit_info(commit_info=info)
        assert info == {"dirty": after}


# The file stays pytest-benchmark's own


def test_pytest_benchmark_compares_such_files(tmp_path):
    for number, result in enumerate(noisy_results(2)):
        write_result(tmp_path / f"000{number}_run.json", result)
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "--columns=median,ops", "--sort=name",
               *map(str, sorted(tmp_path.iterdir()))]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"test_gated[{STEP}]") == 2


def _read_by_dashboards(result: dict[str, Any]) -> None:
    """The fields that github-action-benchmark and Bencher read, with the types that they require.

    Source: `extractPytestResult` in benchmark-action/github-action-benchmark, src/extract.ts (fullname, ops,
    stddev, mean, rounds); `Pytest` and `Stats` in bencherdev/bencher, lib/bencher_adapter/src/adapters/python/
    pytest.rs (machine_info, commit_info, fullname; mean and stddev, formerly median and iqr, as decimals).
    """
    assert isinstance(result["machine_info"], dict)
    assert isinstance(result["commit_info"], dict)
    assert result["benchmarks"]
    for entry in result["benchmarks"]:
        assert isinstance(entry["fullname"], str)
        assert 0 < len(entry["fullname"]) <= 1024
        for field in ("ops", "mean", "stddev", "median", "iqr", "rounds"):
            assert isinstance(entry["stats"][field], int | float)
            assert math.isfinite(entry["stats"][field])


def test_dashboards_find_their_fields():
    _read_by_dashboards(made_up_result(0, [made_up_entry(), made_up_entry(MASKING)]))


def _run_benchmarks(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)


@pytest.mark.slow
def test_a_real_result_of_the_gated_benchmarks_is_recorded_drawn_and_read_by_dashboards(tmp_path):
    path = tmp_path / "result.json"
    done = _run_benchmarks("benchmarks/bench_gated.py", "-k", "masking or encoding", "--benchmark-json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    _read_by_dashboards(json.loads(path.read_text()))
    if json.loads(path.read_text())["commit_info"]["id"] in ("unversioned", "unknown"):
        pytest.skip("not run further: this is no git checkout")
    append(tmp_path / "history", read_result(path))
    analysis = analyze(tmp_path / "history", repository=ROOT, propose=proposing(), with_dirty=True)
    assert [found.series.benchmark for found in analysis.series] == ["encoding", MASKING]
    assert all(found.series.is_normalized and found.series.points[0].counters for found in analysis.series)
    assert "1 record on 1 kind of machine, 2 series" in render_page(analysis, None, None)


@pytest.mark.slow
def test_a_real_result_is_recorded_compared_and_read_by_dashboards(tmp_path):
    paths = [tmp_path / "0001_a.json", tmp_path / "0002_b.json"]
    for path in paths:
        done = _run_benchmarks("benchmarks/bench_masking.py", "-k", "amazon and whole", "--benchmark-json", str(path))
        assert done.returncode == 0, done.stdout + done.stderr
        _read_by_dashboards(json.loads(path.read_text()))
    if json.loads(paths[0].read_text())["commit_info"]["id"] in ("unversioned", "unknown"):
        pytest.skip("not run further: this is no git checkout")
    for path in paths:
        assert append(tmp_path / "history", read_result(path)).is_new
    first, second = read_history(tmp_path / "history")
    assert first.machine == second.machine
    controls = {timing.name.rpartition("[")[2]: timing.control for timing in first.timings}
    assert controls["notebook-amazon-whole]"] is None
    assert controls["minibert-amazon-whole]"] is not None
    compare = [sys.executable, "-m", "pytest_benchmark", "compare", *map(str, paths)]
    done = subprocess.run(compare, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "test_masking" in done.stdout


def test_record_and_help_import_nothing_heavy():
    program = (
        "import sys; from minibert.cli import main\n"
        "try: main(['perf', 'record', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'pandas', 'scipy', 'otava'} & set(sys.modules)\n"
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
