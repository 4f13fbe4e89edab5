"""The gate: what makes it slower, same, unproven or missing, and that nothing bad ever reads as a pass."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minibert
from minibert.cli import main
from minibert.errors import ArtifactError, SettingsError
from minibert.perf import gate_commands, numeric, table
from minibert.perf.answer import EXIT_CODES, BenchmarkAnswer, CounterAnswer, GateAnswer, NumericAnswer
from minibert.perf.benchmark_files import own_files
from minibert.perf.decision import FAILED, FASTER, MISSING, SAME, SLOWER, UNPROVEN, Decision, Rules, Trial
from minibert.perf.gate import SIDES, Comparison
from minibert.perf.gate_answer import read_gate
from minibert.perf.history_commands import FOLDER
from minibert.perf.history_page import render_page
from minibert.perf.numeric import compare_bits
from minibert.perf.pair import CONTROL
from minibert.perf.process import Worker, WorkerError
from minibert.perf.statistics import estimate
from minibert.perf.trees import Side, described, environment_differences, revision_side, working_side
from minibert.perf.workloads import BUILDERS, DEFAULT
from minibert.progress import Progress

VERSIONS = "tensorflow 2.21 keras 3.15"
MACHINES = ("other processes took the cores", "the control workload moved")
"""What only the machine can have done."""


def counters_of(name: str, **values: Any) -> dict[str, Any]:
    empty = {
        "traces": 1,
        "operators": {"MatMul": 14},
        "flops": 10,
        "forward_flops": 5,
        "parameters": 3,
        "array_bytes": 8,
    }
    return {"workload": name, "versions": VERSIONS, **empty, "device_peaks": {}, **values}


class FakeWorker:
    """A worker without a process, whose clock follows a plan.

    Args:
        side: ``base``, ``head`` or ``control``.
        plan: Of all: seconds a step by side and name, the control's by the side that stepped before; what goes wrong.
        generator: Of the noise.
    """

    def __init__(self, side: str, plan: dict[str, Any], generator: np.random.Generator) -> None:
        self.side, self._plan, self._generator = side, plan, generator
        self._process_factor = math.exp(generator.normal(0.0, plan.get("process_noise", 0.003)))
        self._order: dict[str, Any] = {}

    def __enter__(self) -> FakeWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._plan.setdefault("closed", []).append(self.side)

    def send(self, order: str, **arguments: Any) -> None:
        self._order = {"order": order, **arguments}

    def ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        self.send(order, **arguments)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        order, name = self._order["order"], self._order.get("name")
        trouble = self._plan.get("trouble", {}).get((self.side, order, name))
        if trouble is not None:
            raise trouble
        if order == "build":
            return {"step_seconds": self._seconds(name)}
        if order == "turn":
            noise = math.exp(self._generator.normal(0.0, 0.01))
            seconds = self._order["steps"] * self._seconds(name) * noise
            if name != CONTROL:
                seconds *= self._process_factor
                self._plan["stepped"] = self.side
            busy = seconds * (1 + 2 * self._plan.get("others_rate", 0.0))
            waiting = self._plan.get("waiting", {}).get(self.side, 0.001)
            return {"seconds": seconds, "busy_seconds": busy, "own_seconds": seconds, "waiting_rate": waiting}
        if order == "count":
            return self._plan.get("counters", {}).get(self.side, counters_of(name))
        if order == "describe":
            return {"device": self._plan.get("devices", {}).get(self.side, "cpu")}
        assert order == "check"
        return {}

    def _seconds(self, name: str) -> float:
        side = self._plan.get("stepped") if name == CONTROL else self.side
        return float(self._plan.get("seconds", {}).get((side, name), 0.01))


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minibert.perf.gate.available_cores", lambda: 2)


def compared(names: tuple[str, ...] = ("masking",), seed: int = 3, **plan: Any) -> dict[str, BenchmarkAnswer]:
    generator = np.random.Generator(np.random.PCG64(seed))
    comparison = Comparison(
        start=lambda side: FakeWorker(side, plan, generator), names=names, rules=Rules(), time_limit_seconds=60.0
    )
    answers = comparison.run()
    assert [answer.name for answer in answers] == list(names)
    assert plan.get("closed", []).count("base") == plan.get("closed", []).count("head")
    return {answer.name: answer for answer in answers}


def verdict_of(**plan: Any) -> tuple[str, str]:
    decision = compared(**plan)["masking"].decision
    return decision.verdict, decision.reason


# Comparison


def test_the_same_code_is_the_same() -> None:
    assert verdict_of()[0] == SAME


def test_a_slowdown_of_one_benchmark_is_that_ones_alone() -> None:
    found = compared(("masking", "encoding"), seconds={("head", "masking"): 0.0105})
    assert found["masking"].decision.verdict == SLOWER
    assert found["encoding"].decision.verdict == SAME
    ratio = found["masking"].to_dict()["ratio"]
    assert ratio == pytest.approx(1.05, abs=0.01)


def test_a_speedup_is_faster() -> None:
    assert verdict_of(seconds={("head", "masking"): 0.008})[0] == FASTER


def test_the_time_of_stepping_stays_within_its_limit() -> None:
    for answer in compared(("masking",), process_noise=0.2).values():
        assert answer.stepping_seconds <= 63.0  # a last pair may go over by half of itself


def test_a_control_that_moves_is_unproven() -> None:
    verdict, reason = verdict_of(seconds={("head", CONTROL): 0.0103})
    assert verdict == UNPROVEN
    assert re.fullmatch(
        r"the control workload moved by \+[23]\.\d%: after the head's turns the machine was another .*", reason
    )


def test_the_control_runs_in_one_process_of_neither_side() -> None:
    closed: list[str] = []
    compared(("masking", "encoding"), closed=closed)
    assert closed.count("control") == 1
    assert closed[-1] == "control"


def test_a_busy_neighbour_is_unproven() -> None:
    verdict, reason = verdict_of(others_rate=0.5, seconds={("head", "masking"): 0.011})
    assert verdict == UNPROVEN
    assert "other processes took 50% of the cores" in reason


def test_a_head_that_works_on_while_it_waits_has_failed_and_a_base_leaves_it_open() -> None:
    """What it does then slows the base's turns, so no time of either says anything."""
    verdict, reason = verdict_of(waiting={"head": 0.9})
    assert (verdict, reason) == (
        FAILED, "head: it works on while it waits for its turn: it keeps 0.90 cores busy, the base 0.00",
    )  # fmt: skip
    for waiting in ({"base": 0.9}, {"base": 0.9, "head": 0.9}):
        verdict, reason = verdict_of(waiting=waiting)
        assert verdict == UNPROVEN
        assert "the sides kept 0.90 (base) and" in reason


def test_a_slowdown_that_the_time_limit_cannot_confirm_is_said_at_once() -> None:
    said: list[str] = []
    progress = Progress(quiet=True)
    progress.note = said.append  # type: ignore[method-assign]
    plan = {"seconds": {(side, "masking"): 0.5 for side in SIDES}}
    Comparison(
        start=lambda side: FakeWorker(side, plan, np.random.Generator(np.random.PCG64(3))),
        names=["masking", "encoding"], rules=Rules(), time_limit_seconds=60.0, progress=progress,
    ).run()  # fmt: skip
    (words,) = said
    assert words.startswith("masking: a step takes 0.50 s, so a slowdown can be confirmed only with --time-limit 130")


def test_processes_that_differ_more_than_the_change_are_unproven() -> None:
    """Of 150 seeds 138 were unproven, 10 the same, which they are, and 1 each was slower and faster."""
    found = Counter(verdict_of(process_noise=0.2, seed=seed)[0] for seed in range(12))
    assert found[UNPROVEN] >= 9
    assert found[SLOWER] == 0
    assert found[FASTER] <= 1


@pytest.mark.parametrize("side", ["base", "head"])
def test_what_a_side_cannot_build_is_missing(side: str) -> None:
    trouble = WorkerError(f"{side}: ImportError: cannot import name 'mask_tokens'", "missing")
    found = compared(("masking", "encoding"), trouble={(side, "build", "masking"): trouble})
    assert (found["masking"].decision.verdict, found["masking"].decision.reason) == (MISSING, str(trouble))
    assert found["encoding"].decision.verdict == SAME


@pytest.mark.parametrize("order", ["build", "turn", "check", "count"])
def test_a_side_that_fails_at_a_benchmark_has_failed_it_and_says_why(order: str) -> None:
    found = compared(("masking", "encoding"), trouble={("head", order, "masking"): WorkerError("head: ValueError: no")})
    assert (found["masking"].decision.verdict, found["masking"].decision.reason) == (FAILED, "head: ValueError: no")
    assert found["encoding"].decision.verdict == SAME


def test_a_worker_that_ends_has_failed_at_everything() -> None:
    ended = WorkerError("head: its process ended with code -11: Segmentation fault", has_ended=True)
    found = compared(("masking", "encoding"), trouble={("head", "turn", "masking"): ended})
    assert {answer.decision.verdict for answer in found.values()} == {FAILED}
    assert all("code -11" in answer.decision.reason for answer in found.values())


def test_a_control_that_computes_something_else_has_failed() -> None:
    wrong = WorkerError("control: AssertionError: control: 1.0 is required, but 2.0 came")
    assert verdict_of(trouble={("control", "check", CONTROL): wrong}) == (FAILED, str(wrong))


def test_a_control_that_ends_has_failed_what_is_not_answered() -> None:
    ended = WorkerError("control: its process ended with code -9", has_ended=True)
    assert verdict_of(trouble={("control", "turn", CONTROL): ended}) == (FAILED, str(ended))


def test_a_benchmark_that_was_answered_stays_so_when_another_one_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended, plan = WorkerError("head: its process ended with code -11", has_ended=True), {"trouble": {}}
    monkeypatch.setattr(Trial, "add", lambda self, figure: once_answered(self, figure, plan, ended))
    found = compared(("encoding", "masking"), seconds={("head", "encoding"): 0.0105}, **plan)
    assert found["masking"].decision.verdict == SAME
    assert found["encoding"].decision.verdict == FAILED


_add = Trial.add


def once_answered(trial: Trial, figure: Any, plan: dict[str, Any], error: WorkerError) -> None:
    """Has the head end at its next step of `encoding`, once a trial was answered."""
    _add(trial, figure)
    if not trial.is_open:
        plan["trouble"]["head", "turn", "encoding"] = error


def test_another_device_is_missing() -> None:
    verdict, reason = verdict_of(devices={"head": "NVIDIA H200"})
    assert verdict == MISSING
    assert reason == "the same device is required, but the base ran on cpu, the head on NVIDIA H200"


@pytest.mark.parametrize("seconds", [0.0, math.nan])
def test_a_zero_baseline_is_unproven_and_never_infinite(seconds: float) -> None:
    answer = compared(("masking",), seconds={("base", "masking"): seconds, ("head", "masking"): 0.01})["masking"]
    assert answer.decision.verdict == UNPROVEN
    json.dumps(answer.to_dict(), allow_nan=False)


def test_counters_that_changed_are_named_with_both_numbers() -> None:
    found = compared(("masking",), counters={"head": counters_of("masking", operators={"MatMul": 16})})["masking"]
    assert found.counters == CounterAnswer(verdict="changed", against="the base's", changes=("MatMul 14 -> 16",))
    assert found.decision.verdict == SAME


# The answer


def benchmark(verdict: str = SAME, name: str = "masking", counters: str = "same") -> BenchmarkAnswer:
    found = estimate([0.01, 0.012, 0.008, 0.011], confidence=0.99)
    decision = Decision(verdict, "because", found=found, first=found, repeat=found, control=found, detectable=0.03)
    changes = ("MatMul 14 -> 16",) if counters == "changed" else ()
    return BenchmarkAnswer(
        name=name, decision=decision, counters=CounterAnswer(verdict=counters, against="the base's", changes=changes)
    )


def answer(
    *benchmarks: BenchmarkAnswer, numeric: str = "exact", allowed: str | None = None, one_environment: bool = True
) -> GateAnswer:
    side = {"kind": "revision", "name": "main", "commit": "a" * 40, "is_dirty": False, "versions": {"keras": "3.15.1"}}
    return GateAnswer(
        base=side,
        head={**side, "kind": "worktree", "name": "working tree", "is_dirty": True},
        machine={"identity": "0123456789ab", "cpu_model": "a processor", "cores": 2},
        rules=Rules(),
        time_limit_seconds=60.0,
        numeric=NumericAnswer(
            verdict=numeric,
            explanation=(f"{numeric}: 611 steps compared",),
            allowed=allowed,
            one_environment=one_environment,
        ),
        benchmarks=benchmarks,
    )


@pytest.mark.parametrize(
    ("made", "verdict", "code"),
    [
        (answer(benchmark()), "same", 0),
        (answer(benchmark(FASTER), benchmark()), "faster", 0),
        (answer(benchmark(FASTER), benchmark(SLOWER)), "slower", 20),
        (answer(benchmark(UNPROVEN), benchmark()), "unproven", 21),
        (answer(benchmark(MISSING), benchmark(UNPROVEN)), "missing", 22),
        (answer(benchmark(SLOWER), benchmark(MISSING)), "slower", 20),
        (answer(benchmark(counters="changed"), benchmark(SLOWER)), "counters changed", 23),
        (answer(benchmark(counters="changed"), numeric="different"), "different", 24),
        (answer(benchmark(), numeric="different", allowed="a new order of sums"), "same", 0),
        (answer(benchmark(), numeric="different", allowed=""), "different", 24),
        (answer(benchmark(), numeric="numeric"), "different", 24),
        (answer(benchmark(), numeric="numeric", allowed="another order of sums"), "same", 0),
        (answer(benchmark(), numeric="numeric", one_environment=False), "same", 0),
        (answer(benchmark(), numeric="different", one_environment=False), "different", 24),
        (answer(benchmark(), numeric="not compared"), "same", 0),
        (answer(benchmark(), numeric="not comparable"), "failed", 25),
        (answer(benchmark(), numeric="not comparable", allowed="another tiny preset"), "same", 0),
        (answer(benchmark(), numeric="failed"), "failed", 25),
        (answer(benchmark(), numeric="failed", allowed="no reason is good enough"), "failed", 25),
        (answer(benchmark(FAILED), benchmark(UNPROVEN), benchmark(counters="changed")), "failed", 25),
        (answer(benchmark(FAILED), benchmark(SLOWER)), "failed", 25),
        (answer(benchmark(FAILED), numeric="different"), "different", 24),
        (answer(benchmark(counters="not compared")), "missing", 22),
        (answer(benchmark(counters="other versions")), "same", 0),
        (answer(), "failed", 25),
    ],
)
def test_the_worst_decides_the_exit_code(made: GateAnswer, verdict: str, code: int) -> None:
    assert (made.verdict, made.exit_code) == (verdict, code)
    assert made.to_dict()["exit_code"] == code


def test_exit_codes_are_those_of_no_other_answer() -> None:
    from minibert import errors
    from minibert.verify import comparison

    taken = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type)} | {130, 141, 2}
    taken |= set(comparison.EXIT_CODES.values()) - {0}
    failures = [code for code in EXIT_CODES.values() if code]
    assert not taken & set(failures)
    assert len(set(failures)) == len(failures)


def test_an_answer_in_json_has_no_infinity() -> None:
    broken = Decision(UNPROVEN, "no time", detectable=math.inf)
    content = answer(BenchmarkAnswer(name="masking", decision=broken, stepping_seconds=math.nan)).to_dict()
    json.dumps(content, allow_nan=False)
    assert content["benchmarks"][0]["ratio"] is None
    assert content["benchmarks"][0]["detectable"] is None


def test_lines_for_a_person_hold_ratio_interval_and_reason() -> None:
    lines = "\n".join(
        table.as_lines(answer(benchmark(SLOWER), benchmark(counters="changed", name="encoding")).to_dict())
    )
    assert "COUNTERS CHANGED (exit code 23)" in lines
    assert "1.010" in lines
    assert "MatMul 14 -> 16" in lines
    assert "masking: slower: because" in lines
    assert "exact: 611 steps compared" in lines
    assert "with changes that are not committed" in lines


def test_markdown_is_a_table_that_no_name_breaks() -> None:
    text = table.as_markdown(answer(benchmark(MISSING, name="a|b<script>")).to_dict())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "<script" not in text.replace("\\<", "")


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (2.5, "2.5 s"), (0.0132, "13.2 ms"), (4.5e-5, "45 µs"), (3e-9, "3 ns")]
)
def test_times_have_units(value: float | None, shown: str) -> None:
    assert table.seconds(value) == shown


# Names and arguments


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmark", "maskin"], "--benchmark: 'maskin' is not a benchmark; the nearest is 'masking'"),
        (["--benchmark", "zzzz"], "`minibert perf gate --list` shows all"),
        (["--list", "--benchmark", "zzzz"], "'zzzz' is not a benchmark"),
        (["--base", ""], "--base: a revision is required, but an empty text came"),
    ],
)
def test_an_unknown_benchmark_is_an_error(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["perf", "gate", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--threshold", "0"], ["--threshold", "x"], ["--time-limit", "-1"], ["--time-limit", "inf"], ["--bas", "x"]],
)
def test_wrong_arguments_are_refused_by_the_parser(words: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["perf", "gate", *words])
    assert raised.value.code == 2


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "a\x1b[2Jb"])
@pytest.mark.parametrize(
    "words", [["gate", "--allow-different"], ["gate", "--allow-changed-benchmarks"], ["accept", "--reason"]]
)
def test_a_reason_that_says_nothing_is_refused_by_the_parser(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unset variable of a CI job gives one, and let anything pass."""
    with pytest.raises(SystemExit) as raised:
        main(["perf", *words, reason])
    assert raised.value.code == 2
    message = f"argument {words[-1]}: one printable line that says why is required, but {reason!r} came"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--save", "--page"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "a file is required, but . is a folder"),
        ("folder", "a file is required, but folder is a folder"),
        ("none/gate.json", "a folder to write to is required, but none is not there"),
        ("file/gate.json", "a folder to write to is required, but file is not there"),
    ],
)
def test_a_place_that_cannot_be_saved_to_is_named_before_anything_is_measured(
    place: str, message: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gate_commands, "_compare", None)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert main(["perf", "gate", option, place]) == ArtifactError.exit_code
    assert f"{option}: {message}" in capsys.readouterr().err


def test_one_command_compares_and_draws_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate_commands, "checkout_root", lambda _: tmp_path)
    monkeypatch.setattr(gate_commands, "_compare", lambda *_: answer(benchmark()))
    saved, page = tmp_path / "gate.json", tmp_path / "page.html"
    assert main(["perf", "gate", "--save", str(saved), "--page", str(page)]) == 0
    assert (
        f"note: there is no history in {tmp_path / FOLDER}; the page has the last gate only" in capsys.readouterr().err
    )
    assert page.read_text(encoding="utf-8") == render_page(None, read_gate(saved), None)


def test_a_history_that_cannot_be_read_costs_neither_the_verdict_nor_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "record.json").write_text("{}")
    monkeypatch.setattr(gate_commands, "checkout_root", lambda _: tmp_path)
    monkeypatch.setattr(gate_commands, "_compare", lambda *_: answer(benchmark(SLOWER)))
    page = tmp_path / "page.html"
    assert main(["perf", "gate", "--page", str(page)]) == EXIT_CODES[SLOWER]
    assert "note: the page has the last gate only: " in capsys.readouterr().err
    assert "The last gate" in page.read_text(encoding="utf-8")


def test_answer_and_page_need_a_file_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gate_commands, "_compare", None)
    assert main(["perf", "gate", "--save", "a", "--page", "a"]) == SettingsError.exit_code
    assert "--page: another file than --save's is required, but both are a" in capsys.readouterr().err


def test_an_answer_that_cannot_be_saved_is_printed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise ArtifactError("gate.json: it cannot be written: the disk is full")

    monkeypatch.setattr(gate_commands, "_compare", lambda *_: answer(benchmark()))
    monkeypatch.setattr(gate_commands, "write_bytes", full)
    assert main(["perf", "gate", "--json", "--save", str(tmp_path / "gate.json")]) == ArtifactError.exit_code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verdict"] == SAME
    assert "the disk is full" in captured.err


def test_the_list_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["perf", "gate", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(BUILDERS)
    assert sum(line.endswith("(default)") for line in lines) == len(DEFAULT)
    assert main(["perf", "gate", "--list", "--benchmark", "masking", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "masking", "default": "masking" in DEFAULT}]


def test_help_and_lists_import_no_framework() -> None:
    code = (
        "import sys\nfrom minibert.cli import main\n"
        "main(['perf', 'gate', '--list'])\n"
        "assert not {'tensorflow', 'keras', 'scipy', 'pyarrow'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


# Trees


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the package as it is, committed once."""
    root = tmp_path_factory.mktemp("repository") / "checkout"
    root.mkdir()
    source = Path(minibert.__file__).parent
    shutil.copytree(source, root / "minibert", ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text("*.secret\n__pycache__/\n", encoding="utf-8")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "all")
    return root


@pytest.fixture
def checkout(committed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(committed, tmp_path / "checkout"))


def edit(root: Path, name: str, change: Callable[[str], str]) -> None:
    path = root / "minibert" / name
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def test_the_head_is_the_working_tree_and_the_base_is_not(checkout: Path, tmp_path: Path) -> None:
    edit(checkout, "masking.py", lambda text: text + "\nCHANGED = True\n")
    (checkout / "minibert" / "new.py").write_text("", encoding="utf-8")
    (checkout / "minibert" / "left.secret").write_text("", encoding="utf-8")
    (checkout / "minibert" / "doctor.py").unlink()
    head, base = working_side(checkout, tmp_path / "head"), revision_side(checkout, "HEAD", tmp_path / "base")
    assert head.is_dirty
    assert not base.is_dirty
    assert head.commit == base.commit == git(checkout, "rev-parse", "HEAD")
    assert "CHANGED" in (head.tree / "minibert" / "masking.py").read_text(encoding="utf-8")
    assert "CHANGED" not in (base.tree / "minibert" / "masking.py").read_text(encoding="utf-8")
    assert (head.tree / "minibert" / "new.py").exists()
    assert not (head.tree / "minibert" / "left.secret").exists()
    assert not (head.tree / "minibert" / "doctor.py").exists()
    assert str(head) == f"working tree at {head.commit[:10]}, with changes that are not committed"
    assert git(checkout, "worktree", "list").count("\n") == 0


def test_a_side_says_its_versions_and_its_benchmarks(checkout: Path, tmp_path: Path) -> None:
    side = described(working_side(checkout, tmp_path / "head"))
    assert side.versions["python"] == sys.version.split()[0]
    assert side.benchmarks == DEFAULT
    times = {"commit_time", "author_time"}
    assert set(side.to_dict()) == {"kind", "name", "commit", "is_dirty", "versions", *times}
    assert all(datetime.fromisoformat(side.to_dict()[name]).tzinfo for name in times)


@pytest.mark.parametrize("revision", ["nowhere", "HEAD~5", "--help", "", "HEAD:minibert"])
def test_a_revision_that_is_none_is_an_error(checkout: Path, tmp_path: Path, revision: str) -> None:
    with pytest.raises(SettingsError, match=r"--base: a revision of .* is required, but"):
        revision_side(checkout, revision, tmp_path / "base")


def test_a_revision_without_the_package_is_an_error(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "rm", "-rq", "minibert")
    git(checkout, "commit", "-q", "-m", "nothing left")
    with pytest.raises(SettingsError, match="a revision with the package minibert is required, but 'HEAD' has none"):
        revision_side(checkout, "HEAD", tmp_path / "base")


def test_a_revision_that_cannot_be_imported_is_an_error(checkout: Path, tmp_path: Path) -> None:
    edit(checkout, "__init__.py", lambda text: text + "\nimport no_such_module_anywhere\n")
    git(checkout, "commit", "-qam", "broken")
    message = r"HEAD: a package that .* can import is required, but it said: ModuleNotFoundError: .*no_such_module"
    with pytest.raises(SettingsError, match=message):
        described(revision_side(checkout, "HEAD", tmp_path / "base"))


def test_a_program_that_is_no_python_is_one_short_line(checkout: Path, tmp_path: Path) -> None:
    program = tmp_path / "talkative"
    program.write_text("#!/bin/sh\nyes 'what is this' | head -c 20000 | tr '\\n' ' ' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(SettingsError, match=r"talkative can import is required, but it said: what .*") as caught:
        described(revision_side(checkout, "HEAD", tmp_path / "base", python=program))
    assert len(str(caught.value)) < 300 + len(str(program))


def test_a_package_that_one_side_lacks_is_said_in_words() -> None:
    base, head = (Side(kind="python", name="", versions={"tensorflow": version}) for version in (None, "2.21.0"))
    assert environment_differences(base, head) == ["tensorflow not installed (base) and 2.21.0 (head)"]


def test_outside_of_a_checkout_the_gate_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["perf", "gate", "--quiet"]) == 2
    assert "a git checkout of minibert is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--base", "nowhere"], "--base: a revision of"),
        (["--base-python", "/no/such/python"], "--base-python: a Python is required"),
        (["--base-python", shutil.which("true") or "true"], "is required to run Python"),
        (["--base-result", "missing.json"], "missing.json"),
        (["--base-result", "missing.json", "--base", "HEAD"], "a gate without --base"),
    ],
)
def test_a_base_that_is_none_is_an_error(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(checkout)
    assert main(["perf", "gate", "--quiet", "--no-numeric", *words]) in (2, 4)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_file_of_counters_that_is_none_is_named_before_anything_is_counted(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkout / gate_commands.counters_file.FILE
    path.parent.mkdir()
    path.write_text("no JSON\n", encoding="utf-8")
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(gate_commands, "Worker", None)
    assert main(["perf", "accept", "--reason", "two more products"]) == ArtifactError.exit_code
    assert "counters.jsonl, line 1: a JSON object is required" in capsys.readouterr().err


# Workers


def test_what_a_worker_says_at_its_end_is_in_the_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('so it is', file=sys.stderr); sys.exit(3)"]
    with (
        Worker("head", python=Path(sys.executable), tree=tmp_path, perf=tmp_path, command=command) as worker,
        pytest.raises(WorkerError, match="head: its process ended with code 3: so it is") as raised,
    ):
        worker.ask("build", name="masking")
    assert raised.value.has_ended


def test_a_worker_that_is_silent_is_given_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        Worker("base", python=Path(sys.executable), tree=tmp_path, perf=tmp_path, command=command) as worker,
        pytest.raises(WorkerError, match=r"base: no answer for 0\.2 s"),
    ):
        worker.ask("build", within_seconds=0.2, name="masking")


def test_a_worker_that_says_something_else_is_given_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('hello'); input()"]
    with (
        Worker("base", python=Path(sys.executable), tree=tmp_path, perf=tmp_path, command=command) as worker,
        pytest.raises(WorkerError, match="an answer in JSON is required, but 'hello"),
    ):
        worker.ask("build", name="masking")


@pytest.mark.parametrize(("given", "expected"), [(None, "true"), ("false", "false")])
def test_two_processes_share_a_gpu_unless_a_user_says_otherwise(
    given: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow takes all of its memory at the start."""
    name, asked = "TF_FORCE_GPU_ALLOW_GROWTH", []
    monkeypatch.delenv(name, raising=False) if given is None else monkeypatch.setenv(name, given)
    command = [sys.executable, "-c", f"import json, os; input(); print(json.dumps({{'answer': os.environ[{name!r}]}}))"]
    with Worker("head", python=Path(sys.executable), tree=tmp_path, perf=tmp_path, command=command) as worker:
        assert worker.ask("tell") == expected
    monkeypatch.setattr(numeric.subprocess, "Popen", lambda *_, env, **__: asked.append(env[name]))
    numeric._start(Side(kind="worktree", name="head", tree=tmp_path), tmp_path / "run", tmp_path)
    assert asked == [expected]


def test_a_python_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="does not start: No such file"):
        Worker("base", python=tmp_path / "python", tree=tmp_path, perf=tmp_path)


def test_a_worker_imports_its_own_side_with_the_gates_own_files(checkout: Path, tmp_path: Path) -> None:
    """The base's own benchmarks are not asked, however they look; what they call is the base's."""
    edit(checkout, "perf/workloads.py", lambda _: "raise ImportError('the edited benchmark')\n")
    edit(checkout, "masking.py", lambda text: text.replace("def mask_tokens(", "def mask_words("))
    perf = own_files(tmp_path)
    with Worker("base", python=Path(sys.executable), tree=checkout, perf=perf) as worker:
        assert worker.ask("build", name=CONTROL)["step_seconds"] > 0
        with pytest.raises(WorkerError, match="cannot import name 'mask_tokens'") as raised:
            worker.ask("build", name="masking")
        assert raised.value.kind == "missing"
        assert not raised.value.has_ended
        assert worker.ask("build", name="encoding")["step_seconds"] > 0
        assert worker.ask("turn", name="encoding", steps=2)["seconds"] > 0
        worker.ask("check", name="encoding")
        assert worker.ask("count", name="encoding")["workload"] == "encoding"
        assert len(worker.ask("rounds", name="encoding", count=3)["control_seconds"]) == 3
        assert worker.ask("describe")["device"] == "cpu"


# Bits


def test_a_side_that_cannot_run_has_failed(checkout: Path, tmp_path: Path) -> None:
    edit(checkout, "cli.py", lambda text: text.replace("def main(", "raise RuntimeError('no main')\n\n\ndef main("))
    side = working_side(checkout, tmp_path / "head")
    found = compare_bits(side, side, tmp_path)
    assert found.verdict == FAILED
    assert found.explanation[0].startswith("failed: base: the tiny run ended with code 1: RuntimeError: no main; head:")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "verdict", "stage"),
    [
        (lambda text: text, "exact", None),
        (lambda text: text.replace("total / count, {", "total / count * 1.5, {"), "different", "frozen"),
    ],
)
def test_bits_of_both_sides_are_compared_step_by_step(
    checkout: Path, tmp_path: Path, change: Callable[[str], str], verdict: str, stage: str | None
) -> None:
    base = working_side(checkout, tmp_path / "base")
    edit(checkout, "model/heads.py", change)
    head = working_side(checkout, tmp_path / "head")
    assert head.is_dirty == (verdict != "exact")
    found = compare_bits(base, head, tmp_path)
    assert (found.verdict, found.stage) == (verdict, stage), found


# The whole


def gate(checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    monkeypatch.chdir(checkout)
    code = main(["perf", "gate", "--quiet", "--json", "--no-numeric", *words])
    return code, json.loads(capsys.readouterr().out)


def test_a_gate_whose_head_computes_wrongly_has_failed_and_one_that_has_lost_a_benchmark_is_missing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    edit(checkout, "text.py", lambda text: text.replace("def encode(", "def encode_all("))
    edit(checkout, "masking.py", lambda text: text + "\n_right = mask_tokens\n\n\ndef mask_tokens(ids, **more):\n"
         "    made = _right(ids, **more)\n    made.token_ids[:] = 7\n    return made\n")  # fmt: skip
    saved = tmp_path / "answer.json"
    words = ["--benchmark", "masking", "encoding", "--time-limit", "4", "--save", str(saved)]
    code, content = gate(checkout, monkeypatch, capsys, *words)
    found = {each["name"]: each for each in content["benchmarks"]}
    assert found["encoding"]["verdict"] == MISSING
    assert "cannot import name 'encode'" in found["encoding"]["reason"]
    assert found["masking"]["verdict"] == FAILED
    assert "a token that was not selected has changed" in found["masking"]["reason"]
    assert (code, content["verdict"], content["exit_code"]) == (25, FAILED, 25)
    assert json.loads(saved.read_text(encoding="utf-8")) == content
    assert content["format"] == "minibert perf gate 1"
    assert content["head"]["is_dirty"]
    assert not content["base"]["is_dirty"]


def test_a_benchmark_that_the_base_has_and_the_head_has_not_is_missing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate_commands, "DEFAULT", ("masking",))
    edit(checkout, "masking.py", lambda text: text.replace("def mask_tokens(", "def mask_words("))
    code, content = gate(checkout, monkeypatch, capsys, "--time-limit", "4")
    found = {each["name"]: each for each in content["benchmarks"]}
    assert code == 22
    assert set(found) == set(DEFAULT)
    assert found["encoding"]["reason"] == "the base times it by default, the working tree does not"


@pytest.mark.slow
@pytest.mark.parametrize(("slowed", "file"), [("masking", "masking.py"), ("encoding", "text.py")])
def test_a_real_slowdown_is_found_or_unproven_and_its_neighbour_does_not_move(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], slowed: str, file: str
) -> None:
    """Half as much work again, so that a busy machine cannot make it look like none."""
    edit(checkout, file, slow_down({"masking": "mask_tokens", "encoding": "encode"}[slowed]))
    code, content = gate(checkout, monkeypatch, capsys, "--benchmark", "masking", "encoding")
    found = {each["name"]: each for each in content["benchmarks"]}
    other = ({"masking", "encoding"} - {slowed}).pop()
    verdict, ratio, reason = (found[slowed][name] for name in ("verdict", "ratio", "reason"))
    if ratio is None:  # of no pair of processes: nothing was shown, which is no pass
        assert (verdict, MACHINES[0] in reason) == (UNPROVEN, True), found
        pytest.skip(reason)
    assert ratio > 1.1, "it moved, whatever could be proven"
    assert verdict == SLOWER or (verdict == UNPROVEN and any(words in reason for words in MACHINES)), found
    assert found[other]["verdict"] in (SAME, UNPROVEN), found
    assert code in (20, 21)


def slow_down(function: str) -> Callable[[str], str]:
    """Has a function do its work once more every other time."""
    return lambda text: (
        text
        + (
            f"\n_once, _calls = {function}, [0]\n\n\ndef {function}(*arguments, **more):\n"
            "    _calls[0] += 1\n"
            "    if _calls[0] % 2:\n"
            "        _once(*arguments, **more)\n"
            "    return _once(*arguments, **more)\n"
        )
    )
