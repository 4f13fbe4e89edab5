"""A gate's answer as a record: the head in units of a commit that stays, and nothing that proves nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minibert.cli import main
from minibert.errors import ArtifactError
from minibert.perf.gate_record import gate_result
from minibert.perf.history import read_history
from minibert.perf.history_text import as_lines
from minibert.perf.series import make_series
from minibert.perf.since_when import analyze
from tests.perf_results import MASKING, STEP, made_up_commit, made_up_machine, proposing

BASE = "b" * 40
UNIT = f"step of {BASE[:10]}"
VERSIONS = {"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6"}


def line(name: str = STEP, *, at: float = 1.02, **changes: Any) -> dict[str, Any]:
    """A benchmark's part of an answer."""
    made: dict[str, Any] = {
        "name": name, "verdict": "same", "reason": "a slowdown of 5.0% is ruled out", "ratio": at,
        "low": 0.99 * at, "high": 1.01 * at, "detectable": 0.04, "base_seconds": 0.0125,
        "head_seconds": 0.0125 * at, "pairs": 17, "control": {"ratio": 1.001, "low": 0.996, "high": 1.006},
        "pair_log_ratios": [math.log(at) + 0.01 * step for step in range(-8, 9)],
        "device": "cpu", "counters": {"verdict": "same", "changes": []},
    }  # fmt: skip
    return made | changes


def answer(number: int = 0, *lines: dict[str, Any]) -> dict[str, Any]:
    """What a gate of a commit against `BASE` saved."""
    day = f"2026-01-{number + 1:02}"
    times = {"commit_time": f"{day}T12:00:00+01:00", "author_time": f"{day}T11:00:00+01:00"}
    return {
        "format": "minibert perf gate 1",
        "created": f"2026-02-{number + 1:02}T20:30:00+00:00",
        "base": {"kind": "revision", "name": "v0.1", "commit": BASE, "is_dirty": False, "versions": VERSIONS},
        "head": {"kind": "worktree", "name": "working tree", "commit": made_up_commit(number), **times,
                 "is_dirty": False, "versions": VERSIONS},
        "machine": made_up_machine(),
        "settings": {"threshold": 0.02, "control_threshold": 0.015},
        "verdict": "same",
        "exit_code": 0,
        "numeric": {"verdict": "exact", "explanation": []},
        "benchmarks": list(lines) or [line()],
    }  # fmt: skip


def read_gate_result(path: Path) -> Any:
    return gate_result(path, json.loads(path.read_text(encoding="utf-8")))


def save(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_gate_is_a_record_in_units_of_its_base(tmp_path: Path) -> None:
    result, left_out = read_gate_result(save(tmp_path / "gate.json", answer(0, line(at=1.1))))
    (timing,) = result.timings
    assert (timing.name, timing.rounds, left_out) == (STEP, 17, [])
    assert timing.control is not None
    assert (timing.control.name, timing.control.ratio, timing.control.median_seconds) == (UNIT, 1.1, 0.0125)
    quartiles = (0.0125 * 1.1 * math.exp(-0.04), 0.0125 * 1.1 * math.exp(0.04))
    assert (timing.q1_seconds, timing.q3_seconds) == pytest.approx(quartiles)
    assert result.commit.commit_time == "2026-01-01T11:00:00+00:00"
    packages = {name: version for name, version in VERSIONS.items() if name != "python"}
    assert result.environment == {"python": "3.11.7", "packages": packages}


def test_recorded_gates_are_a_series_that_is_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ratios = [1.0 + 0.004 * (number % 3) for number in range(14)] + [1.06 + 0.004 * (number % 3) for number in range(6)]
    saved = [save(tmp_path / f"{number}.json", answer(number, line(at=r))) for number, r in enumerate(ratios)]
    history = tmp_path / "history"
    assert main(["perf", "record", *map(str, saved), "--history", str(history)]) == 0
    assert capsys.readouterr().out.count(": 1 benchmark\n") == 20
    (series,) = make_series(read_history(history))
    assert (series.unit, len(series.points)) == (UNIT, 20)
    assert [point.value for point in series.points] == pytest.approx(ratios)
    said = "\n".join(as_lines(analyze(history, repository=tmp_path, propose=proposing(14))))
    assert f"in units of the {UNIT} timed beside it" in said
    assert "slower +6.0 %" in said
    assert f"{made_up_commit(13)[:10]}..{made_up_commit(14)[:10]}" in said


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pairs": 7}, "at least 8 pairs of processes are required, but 7 came"),
        ({"control": {"ratio": 1.02, "low": 1.01, "high": 1.03}}, "the control moved by +2.0%"),
        ({"control": {"ratio": 0.97, "low": 0.96, "high": 0.98}}, "the control moved by -3.0%"),
        ({"control": None}, "a control beside it is required, but there was none"),
        ({"verdict": "missing", "reason": "the base has none", "ratio": None}, "missing: the base has none"),
    ],
)
def test_what_proves_nothing_is_left_out_and_named(
    change: dict[str, Any], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "gate.json", answer(0, line(MASKING), line(**change)))
    result, left_out = read_gate_result(path)
    assert [timing.name for timing in result.timings] == [MASKING]
    assert left_out == [f"{STEP}: {why}"]
    assert main(["perf", "record", str(path), "--history", str(tmp_path / "history")]) == 0
    assert f"  note: left out: {STEP}: {why}" in capsys.readouterr().out
    with pytest.raises(ArtifactError, match="field 'benchmarks': one that was timed is required, but"):
        read_gate_result(save(path, answer(0, line(**change))))


def test_a_base_without_the_benchmarks_of_the_head_is_another_unit(tmp_path: Path) -> None:
    """What is timed is not what was timed: the two must not come into one series."""
    content = answer()
    content["changed_benchmarks"] = {"files": ["gate.py", "workloads.py"], "allowed": "a new shape"}
    (timing,) = read_gate_result(save(tmp_path / "gate.json", content))[0].timings
    assert timing.control is not None
    assert timing.control.name == f"{UNIT} with the head's workloads.py"


def test_a_machine_that_is_twice_as_slow_disturbs_no_gate_and_an_upgrade_has_no_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line(base_seconds=0.0125 * factor) for factor in (1, 1, 1, 2, 1, 1, 1, 1)]
    contents = [answer(number, one) for number, one in enumerate(lines)]
    upgraded = answer(9)
    upgraded["machine"] = made_up_machine(tensorflow="tensorflow 2.22.0")
    saved = [save(tmp_path / f"{number}.json", content) for number, content in enumerate([*contents, upgraded])]
    history = tmp_path / "history"
    assert main(["perf", "record", *map(str, saved), "--history", str(history)]) == 0
    capsys.readouterr()
    old, new = make_series(read_history(history))
    assert not any(point.is_disturbed for point in old.points)
    assert len(new.points) == 1
    said = "\n".join(as_lines(analyze(history, repository=tmp_path, propose=proposing())))
    assert "another environment, not a change point" in said
    assert "the base ran in the same environment as the head" in said
    assert "(ratio" not in said


def test_a_control_whose_interval_has_one_in_it_has_not_moved(tmp_path: Path) -> None:
    wide = line(control={"ratio": 1.03, "low": 0.99, "high": 1.07})
    assert read_gate_result(save(tmp_path / "gate.json", answer(0, wide)))[1] == []


Change = Callable[[dict[str, Any]], Any]
REFUSED: dict[str, tuple[Change, str]] = {
    "another environment": (lambda a: a["base"].update(kind="python"), "'base.kind': 'revision' .* is required"),
    "a stored base": (lambda a: a["base"].update(kind="result"), "'base.kind': 'revision' .* is required"),
    "other versions": (lambda a: a["base"].update(versions={}), "'base.versions': the head's versions is required"),
    "no commit": (lambda a: a["head"].update(commit=None), "'head.commit'"),
    "a short commit": (lambda a: a["base"].update(commit="abc"), "'base.commit': the full hash of a commit"),
    "no time": (lambda a: a["head"].pop("commit_time"), "'head.commit_time' is required"),
    "no moment": (lambda a: a["head"].update(author_time="today"), "'head.author_time': an ISO 8601 time is required"),
    "an edited machine": (lambda a: a["machine"].update(cores=96), "'machine.identity' does not fit"),
    "a zero base": (lambda a: a["benchmarks"][0].update(base_seconds=0), "base_seconds"),
    "a ratio outside": (lambda a: a["benchmarks"][0].update(ratio=9), "a ratio within its interval is required"),
    "no pairs": (lambda a: a["benchmarks"][0].update(pairs=None), r"'benchmarks\[0\].pairs'"),
    "no limit": (lambda a: a["settings"].update(control_threshold="x"), "'settings.control_threshold': a number"),
    "one twice": (lambda a: a["benchmarks"].append(line()), "each benchmark is required once"),
    "another format": (lambda a: a.update(format="minibert perf gate 2"), "'format'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_record_is_refused_by_field_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = REFUSED[name]
    content = answer()
    change(content)
    path = save(tmp_path / "gate.json", content)
    with pytest.raises(ArtifactError, match=message):
        read_gate_result(path)
    good = save(tmp_path / "good.json", answer(1))
    words = ["perf", "record", str(good), str(path), "--history", str(tmp_path / "history")]
    assert main(words) == ArtifactError.exit_code
    assert not (tmp_path / "history").exists()
