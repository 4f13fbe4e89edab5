"""``minibert perf report``: one self-contained page, honest about what was not looked at."""

from __future__ import annotations

import copy
import html
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.cli import main
from minibert.errors import ArtifactError
from minibert.perf.gate_answer import read_gate
from minibert.perf.history_page import render_page
from minibert.perf.history_text import as_lines
from minibert.perf.since_when import Analysis, analyze
from tests.perf_results import (
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
    write_result,
)
from tests.test_report import Page

GATE: dict[str, Any] = {
    "format": "minibert perf gate 1",
    "created": "2026-11-22T20:30:00+00:00",
    "base": {"kind": "revision", "name": "main", "commit": "8" * 40, "is_dirty": False, "versions": {}},
    "head": {"kind": "worktree", "name": "working tree", "commit": "9" * 40, "is_dirty": True, "versions": {}},
    "machine": made_up_machine(),
    "settings": {"threshold": 0.025, "confidence": 0.99},
    "verdict": "slower",
    "exit_code": 20,
    "numeric": {"verdict": "exact", "explanation": ["exact: every tensor"]},
    "benchmarks": [
        {
            "name": STEP, "verdict": "slower", "reason": "slower by 5.1 %", "ratio": 1.051, "low": 1.042, "high": 1.06,
            "detectable": 0.012, "base_seconds": 0.0123, "head_seconds": 0.0129, "pairs": 6,
            "control": {"ratio": 1.001, "low": 0.998, "high": 1.004},
            "counters": {"verdict": "changed", "changes": ["MatMul 14 -> 16"]},
        },
        {
            "name": MASKING, "verdict": "missing", "reason": "the base has none", "ratio": None, "low": None,
            "high": None, "detectable": None, "base_seconds": None, "head_seconds": None, "pairs": 0,
            "counters": {"verdict": "not compared", "changes": []},
        },
    ],
}  # fmt: skip


def with_a_change(count: int = 24) -> list[dict[str, Any]]:
    """A step of the time at 20, and counters that change at 10."""
    results = noisy_results(count, changes={20: 1.06})
    for result in results[10:]:
        result["benchmarks"][0]["extra_info"]["counters"] = made_up_counters(STEP, MatMul=16)
    return results


def analysis_of(tmp_path: Path, results: list[dict[str, Any]], *proposals: int) -> Analysis:
    history = write_history(tmp_path / "history", results)
    return analyze(history, repository=tmp_path, propose=proposing(*proposals))


def words_in(page: str) -> str:
    """The page's text, with a space where a tag was."""
    without_style = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", without_style)).split())


def test_the_page_shows_the_change_with_its_commits_and_both_times(tmp_path):
    page = render_page(analysis_of(tmp_path, with_a_change(), 20), None, None)
    words = words_in(page)
    assert (
        "24 records on 1 kind of machine, 2 series, all searched: 1 time slower, 1 time with other counters." in words
    )
    commits = f"{made_up_commit(19)[:10]}..{made_up_commit(20)[:10]}"
    assert words.count(commits) >= 3  # newest first, in the picture, below it
    assert re.search(r"slower 15\.\d ms 16\.\d ms \+6\.\d %", words)
    assert "counters MatMul 14 16" in words
    assert re.search(rf"\+6\.\d\s%\s{made_up_commit(20)[:7]}", words)  # in the picture
    assert "No change of the time found." in words  # of masking


def test_the_page_is_self_contained_and_the_same_every_time(tmp_path):
    analysis = analysis_of(tmp_path, with_a_change(), 20)
    page = render_page(analysis, GATE, None)
    assert render_page(analysis, GATE, None) == page
    assert not re.search(r"(src|href)=|url\(|@import|<script|https?://", page)
    names = {name for name, _ in Page(page).elements}
    assert not names & {"script", "link", "img", "iframe", "object"}


def test_every_record_is_a_dot_and_every_change_a_line(tmp_path):
    elements = Page(render_page(analysis_of(tmp_path, with_a_change(), 20), None, None)).elements
    kinds = [(name, attributes.get("class")) for name, attributes in elements]
    assert sum(name == "circle" for name, _ in kinds) == 48
    assert kinds.count(("line", "change slower")) == 1
    assert kinds.count(("line", "counters")) == 1
    assert kinds.count(("line", "segment")) == 3


def test_what_stands_in_a_picture_stays_inside_it(tmp_path):
    results = [made_up_result(number, [made_up_entry(ratio=1.5 if number % 7 else 90.0)]) for number in range(30)]
    results[3]["benchmarks"][0]["stats"]["q3"] *= 1e6
    for result in (results, results[:1], results[:2]):
        folder = tmp_path / str(len(result))
        folder.mkdir()
        page = render_page(analysis_of(folder, result), None, None)
        for name, attributes in Page(page).elements:
            if name in ("line", "circle"):
                for axis, most in (("x1", 760), ("x2", 760), ("cx", 760), ("y1", 310), ("y2", 310), ("cy", 310)):
                    value = attributes.get(axis)
                    assert value is None or 0 <= float(value) <= most


def test_machines_have_pictures_of_their_own(tmp_path):
    results = [*noisy_results(3), made_up_result(4, machine=made_up_machine(cpu_model="Another Processor"))]
    page = render_page(analysis_of(tmp_path, results), None, None)
    words = words_in(page)
    assert "4 records on 2 kinds of machine" in words
    assert "Another Processor, 2 cores, tensorflow 2.21.0" in words
    assert page.count("<svg") == 3


def test_without_otava_the_page_says_loudly_what_was_not_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "otava", None)
    monkeypatch.setitem(sys.modules, "otava.analysis", None)
    history = write_history(tmp_path / "history", with_a_change())
    target = tmp_path / "page.html"
    assert main(["perf", "report", "--history", str(history), "--out", str(target)]) == 0
    assert "change points were NOT searched" in capsys.readouterr().out
    page = target.read_text(encoding="utf-8")
    words = words_in(page)
    assert "Change points were NOT searched. No mark in a picture below does not mean" in words
    assert 'role="alert"' in page
    assert "whether a time has changed was not looked at" in words
    assert "No change of the time found" not in words
    assert "counters MatMul 14 16" in words  # these need no statistics
    assert 'class="segment"' not in page


def test_the_command_writes_the_page_with_the_gate(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minibert.perf.change_points.require_otava", lambda: proposing(20))
    history = write_history(tmp_path / "history", with_a_change())
    gate = write_result(tmp_path / "gate.json", GATE)
    target = tmp_path / "page.html"
    words = ["perf", "report", "--history", str(history), "--out", str(target), "--repository", str(tmp_path)]
    assert main([*words, "--gate", str(gate)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    shown = words_in(target.read_text(encoding="utf-8"))
    assert "The last gate slower · working tree (9999999999), with changes against main (8888888888)" in shown
    assert "1.051 1.042 to 1.060 +1.2 % 12.3 ms 12.9 ms 0.998 to 1.004 6 MatMul 14 -> 16" in shown
    assert "missing – – – – – – 0 not compared" in shown
    assert "NOT searched" not in shown
    assert main([*words]) == 0
    assert "The last gate" not in words_in(target.read_text(encoding="utf-8"))


# What was not looked at, or is not there


LONG_ENOUGH = "of them long enough to be searched"


def test_nothing_has_changed_is_said_only_where_every_series_was_searched(tmp_path):
    another = made_up_result(30, machine=made_up_machine(cpu_model="Another Processor"))
    unknown, counted = "whether a time has changed is not known.", "1 time with other counters"
    for name, results, said in (
        ("steady", noisy_results(24), "24 records on 1 kind of machine, 2 series, all searched; nothing has changed."),
        ("short", noisy_results(5), f"5 records on 1 kind of machine, 2 series, 0 {LONG_ENOUGH}; {unknown}"),
        ("some", [*noisy_results(24), another], f"2 kinds of machine, 3 series, 2 {LONG_ENOUGH}; {unknown}"),
        ("counters", with_a_change(12), f"2 series, all searched: {counted}."),
        ("few", [*with_a_change(12), another], f"2 {LONG_ENOUGH}: {counted}; in the others {unknown}"),
    ):
        (tmp_path / name).mkdir()
        analysis = analysis_of(tmp_path / name, results)
        assert said in words_in(render_page(analysis, None, None)), name
        assert any(said in line for line in as_lines(analysis)), name


def test_a_history_of_which_no_record_can_be_used_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minibert.perf.change_points.require_otava", lambda: proposing(20))
    history = write_history(tmp_path / "history", noisy_results(3, dirty=True))
    gate = write_result(tmp_path / "gate.json", GATE)
    page = tmp_path / "page.html"
    for words in (["history"], ["report", "--out", str(page)], ["report", "--out", str(page), "--gate", str(gate)]):
        assert main(["perf", *words, "--history", str(history)]) == ArtifactError.exit_code
        assert "history: a record of a commit is required, but 3 of a working tree with" in capsys.readouterr().err
    assert not page.exists()
    assert main(["perf", "report", "--history", str(history), "--out", str(page), "--dirty"]) == 0


def test_a_gate_alone_makes_a_page_that_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "otava", None)
    monkeypatch.chdir(tmp_path)
    gate, page = write_result(tmp_path / "gate.json", GATE), tmp_path / "page.html"
    words = ["perf", "report", "--gate", str(gate), "--out", str(page)]
    assert main(words) == 0
    assert "there is no history in perf-history; the page has the last gate only" in capsys.readouterr().out
    shown = words_in(page.read_text(encoding="utf-8"))
    assert "Is it slower? There is no history yet: this page has the last gate only. The last gate slower" in shown
    assert "NOT searched" not in shown
    assert "nothing has changed" not in shown
    page.unlink()
    assert main([*words, "--history", "elsewhere"]) == ArtifactError.exit_code  # it was asked for
    assert main(words[:2] + words[4:]) == ArtifactError.exit_code
    assert not page.exists()
    write_history(tmp_path / "perf-history", noisy_results(2))
    assert main(words) == 0
    assert "2 records on 1 kind of machine" in words_in(page.read_text(encoding="utf-8"))


# An upgrade


def upgraded(count: int = 24, at: int = 12) -> list[dict[str, Any]]:
    """TensorFlow and Keras are newer from one record on, and the step takes 4 % less."""
    results = noisy_results(count, changes={at: 0.96})
    old = made_up_machine(tensorflow="tensorflow 2.20.0", keras="3.12.0")
    for result in results[:at]:
        result["machine_info"]["minibert"] = old
    return results


def test_an_upgrade_is_another_environment_and_no_change_point(tmp_path):
    analysis = analysis_of(tmp_path, upgraded(), 12)
    versions = "tensorflow 2.20.0 -> 2.21.0"
    commits = f"{made_up_commit(11)[:10]}..{made_up_commit(12)[:10]}"
    for said in (words_in(render_page(analysis, None, None)), "\n".join(as_lines(analysis))):
        assert "all searched: 2 series begun in another environment." in said
        assert versions in said
        assert "keras 3.12.0 -> 3.15.1" in said
        assert commits in said
        assert re.search(r"1\.[45]\d+ -> 1\.4\d+ of the control's time \(ratio 0\.9[56]\d; medians of the last 8", said)
        assert "another environment, not a change point" in said
        assert "slower" not in said
        assert "faster" not in said
        assert "nothing has changed" not in said
    page = words_in(render_page(analysis, None, None))
    assert "Other environments, the newest first These are no change points" in page
    assert (
        f"2026-01-13 {STEP} {made_up_machine(tensorflow='tensorflow 2.20.0', keras='3.12.0')['identity'][:6]} →" in page
    )


def test_an_upgrades_gate_shows_both_sides_versions_the_control_and_what_was_allowed():
    gate = copy.deepcopy(GATE)
    gate["base"]["versions"] = {"python": "3.11.7", "tensorflow": "2.20.0", "tensorflow-metal": None}
    gate["head"]["versions"] = {"python": "3.11.7", "tensorflow": "2.21.0", "tensorflow-metal": None}
    gate["numeric"] = {"verdict": "numeric", "explanation": ["numeric: 3e-7"], "allowed": "another order of summing"}
    gate["same_code"] = True
    gate["changed_benchmarks"] = {"files": ["minibert/perf/pair.py"], "allowed": "a better count"}
    gate["benchmarks"][0]["counters"] = {"verdict": "other versions", "changes": [], "between": ["MatMul 14 -> 16"]}
    page = render_page(None, gate, None)
    words = words_in(page)
    assert "version of base head python 3.11.7 3.11.7 tensorflow 2.20.0 2.21.0" in words
    assert "<strong>2.21.0</strong>" in page
    assert "metal" not in words
    assert "base head control pairs" in words
    assert "0.998 to 1.004 6 other versions MatMul 14 -> 16" in words
    assert "Bits: numeric: 3e-7; other ones are meant: another order of summing." in words
    assert "Both sides are the same code" in words
    assert "minibert/perf/pair.py changed, which is meant: a better count." in words


def test_a_gate_of_an_older_minibert_is_shown_without_what_it_lacks():
    gate = copy.deepcopy(GATE)
    for side in ("base", "head"):
        gate[side] = {"name": side}
    gate["numeric"], gate["settings"] = {}, {}
    for benchmark in gate["benchmarks"]:
        benchmark["control"] = benchmark["counters"] = None
    words = words_in(render_page(None, gate, None))
    assert "slower · head against base, 2026-11-22" in words
    assert "Bits: not compared." in words


Edit = Callable[[dict[str, Any]], Any]
BAD_GATES: list[tuple[Edit, str]] = [
    (
        lambda g: g.update(format="minibert perf gate 2"),
        "'minibert perf gate 1' is required, but 'minibert perf gate 2'",
    ),
    (lambda g: g.clear(), "field 'format'"),
    (lambda g: g.pop("verdict"), "field 'verdict': str is required, but None came"),
    (lambda g: g["benchmarks"].append(1), r"field 'benchmarks\[2\]': an object is required"),
    (lambda g: g["benchmarks"][0].pop("ratio"), r"field 'benchmarks\[0\].ratio' is required"),
    (lambda g: g["benchmarks"][0].update(low="1"), r"field 'benchmarks\[0\].low': a number or null is required"),
    (lambda g: g["benchmarks"][1].update(name=None), r"field 'benchmarks\[1\].name': text is required"),
]


@pytest.mark.parametrize(("edit", "message"), BAD_GATES)
def test_another_file_is_no_gate_and_no_page_is_written(edit, message, tmp_path, capsys):
    gate = copy.deepcopy(GATE)
    edit(gate)
    path = write_result(tmp_path / "gate.json", gate)
    with pytest.raises(ArtifactError, match=message):
        read_gate(path)
    history = write_history(tmp_path / "history", noisy_results(2))
    words = ["perf", "report", "--history", str(history), "--gate", str(path), "--out", str(tmp_path / "p.html")]
    assert main(words) == ArtifactError.exit_code
    assert not (tmp_path / "p.html").exists()


def test_an_old_page_stays_where_a_new_one_cannot_be_made(tmp_path, capsys):
    target = tmp_path / "page.html"
    target.write_text("old")
    assert main(["perf", "report", "--history", str(tmp_path / "nothing"), "--out", str(target)]) == 4
    assert target.read_text() == "old"


hostile = st.text(max_size=30) | st.sampled_from(["<script>alert(1)</script>", '"><b x="', "</style>", "&amp;", "\0"])


@given(hostile, hostile)
def test_no_text_of_a_result_becomes_markup(tmp_path_factory, one, other):
    name = "".join(c for c in one if c.isprintable()).strip() or "name"
    result = made_up_result(0, [made_up_entry(name)], machine=made_up_machine(cpu_model=other))
    result["commit_info"]["branch"] = other
    gate = copy.deepcopy(GATE)
    gate["benchmarks"][0].update(name=one, reason=other, verdict=one)
    gate["head"]["name"] = gate["numeric"]["explanation"][0] = other
    folder = tmp_path_factory.mktemp("hostile")
    page = render_page(analysis_of(folder, [result]), gate, other)
    assert not {name for name, _ in Page(page).elements} & {"script", "b"}


def test_a_gates_json_is_taken_as_the_gate_writes_it(tmp_path):
    path = tmp_path / "gate.json"
    path.write_text(json.dumps(GATE))
    assert read_gate(path) == GATE
