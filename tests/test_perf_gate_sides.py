"""What stands in the answer beside the times: environments, equal code, changed benchmarks; and a saved answer."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minibert.cli import main
from minibert.errors import ArtifactError, SettingsError
from minibert.perf import benchmark_files, gate_commands, numeric, stored_base, table
from minibert.perf.benchmark_files import FILES, changed_files, in_tree, own_files, own_gate, without_silent_passes
from minibert.perf.decision import FASTER, MISSING, SAME, SLOWER
from minibert.perf.gate import TIME_LIMIT_SECONDS
from minibert.perf.gate_answer import read_gate
from minibert.perf.trees import Side, environment_differences, file_of_commit, same_code
from tests.perf_results import made_up_machine, made_up_result, write_result
from tests.test_perf_gate import (  # noqa: F401  fixtures
    answer,
    benchmark,
    checkout,
    committed,
    edit,
    gate,
    git,
    two_cores,
)

VERSIONS = {"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.0"}
OLDER = {**VERSIONS, "tensorflow": "2.20.0", "numpy": "2.2.1"}
HEAD, BASE = (Side(kind="worktree", name=name, versions=versions) for name, versions in (("a", VERSIONS), ("b", OLDER)))
CHANGED = "differs: tensorflow 2.20.0 (base) and 2.21.0 (head), numpy 2.2.1 (base) and 2.4.0 (head)"


# Sides


def test_versions_that_differ_are_named() -> None:
    assert environment_differences(HEAD, HEAD) == []
    assert f"differs: {', '.join(environment_differences(BASE, HEAD))}" == CHANGED


def test_a_side_in_json_holds_no_path(checkout: Path, tmp_path: Path) -> None:  # noqa: F811
    side = gate_commands.working_side(checkout, tmp_path / "base", python=Path(sys.executable))
    assert (side.kind, side.name) == ("python", "working tree in another environment")
    assert os.sep not in json.dumps(side.to_dict())


def test_a_python_is_found_from_this_folder_and_stays_the_link_that_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path means nothing in the folders of the workers, and a link's target is another environment."""
    link = tmp_path / "environment" / "bin" / "python"
    link.parent.mkdir(parents=True)
    link.symlink_to(sys.executable)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert gate_commands._absolute(Path("../environment/bin/python")) == link


@pytest.mark.slow
def test_the_gate_takes_a_relative_path_of_another_python(
    checkout: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the README's command has it: both the package's description and the workers start in other folders."""
    script = tmp_path / "other" / "bin" / "python"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    words = ["--base-python", "../other/bin/python", "--benchmark", "masking", "--time-limit", "2"]
    code, content = gate(checkout, monkeypatch, capsys, *words)
    (found,) = content["benchmarks"]
    assert code in (0, 20, 21), content  # two seconds prove nothing: what counts is that both sides ran
    assert found["stepping_seconds"] > 0
    assert found["device"] == "cpu"
    assert content["same_code"]
    assert content["base"]["versions"] == content["head"]["versions"]


def test_a_tree_without_changes_and_without_a_base_is_an_error_that_says_what_to_name(
    checkout: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(checkout)
    assert main(["perf", "gate", "--quiet", "--no-numeric"]) == 2
    said = capsys.readouterr().err
    assert "--base: a revision to compare with is required, such as --base origin/main" in said
    assert said.count("\n") == 1


def test_equal_code_is_equal_whatever_was_imported_from_it(checkout: Path, tmp_path: Path) -> None:  # noqa: F811
    head = gate_commands.working_side(checkout, tmp_path / "head")
    base = gate_commands.revision_side(checkout, "HEAD", tmp_path / "base")
    (head.tree / "minibert" / "__pycache__").mkdir()
    (head.tree / "minibert" / "__pycache__" / "cli.pyc").write_bytes(b"1")
    assert same_code(base, head)
    (head.tree / "minibert" / "new.py").write_text("", encoding="utf-8")
    assert not same_code(base, head)


def test_equal_code_stands_in_the_answer() -> None:
    content = {**answer(benchmark()).to_dict(), "same_code": True}
    for text in ("\n".join(table.as_lines(content)), table.as_markdown(content)):
        assert "both sides are the same code" in text


# Environments


def test_both_sides_versions_and_the_reason_are_shown() -> None:
    made = answer(benchmark(), numeric="different", allowed="another order of sums").to_dict()
    made["base"]["versions"], made["head"]["versions"] = OLDER, VERSIONS
    made["benchmarks"][0]["counters"].update(verdict="other versions", between=["MatMul 14 -> 16"])
    for text in ("\n".join(table.as_lines(made)), table.as_markdown(made)):
        for version in (*VERSIONS.values(), *OLDER.values()):
            assert version in text
        assert "bits: other ones are meant: another order of sums" in text
        assert "counters of the base and of the head, for information: MatMul 14 -\\> 16".replace(
            "\\", ""
        ) in text.replace("\\", "")


@pytest.mark.parametrize(("versions", "passes"), [(VERSIONS, False), (OLDER, True)])
def test_other_bits_pass_between_environments_alone(
    versions: dict[str, str], passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minibert.verify.verdict import Verdict

    found = Verdict("numeric", 611, largest_deviation=1e-6)
    monkeypatch.setattr("minibert.verify.comparison.compare_runs", lambda *_: found)
    monkeypatch.setattr(numeric, "_start", lambda *_: SimpleNamespace(poll=lambda: 0))
    monkeypatch.setattr(numeric, "_failure", lambda *_: "")
    base = Side(kind="python", name="b", versions=dict(versions))
    made = numeric.compare_bits(base, HEAD, tmp_path)
    assert (made.fault is None) == passes
    assert made.explanation[-1].endswith("between two environments" if passes else "without --allow-different")


def test_a_gate_that_cannot_start_the_second_run_leaves_no_first_one_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []

    def start(*_: object) -> subprocess.Popen[str]:
        if started:
            raise OSError("no more processes")
        started.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True))
        return started[0]

    monkeypatch.setattr(numeric, "_start", start)
    with pytest.raises(OSError, match="no more processes"):
        numeric.compare_bits(HEAD, HEAD, tmp_path)
    assert started[0].returncode is not None
    started[0].stdin.close()


@pytest.mark.long
def test_a_gate_that_is_terminated_leaves_nothing_behind(checkout: Path, tmp_path: Path) -> None:  # noqa: F811
    edit(checkout, "masking.py", lambda text: f"{text}\n")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ["perf", "gate", "--benchmark", "masking", "--no-numeric", "--quiet"]
    with subprocess.Popen(
        [sys.executable, "-m", "minibert", *words], cwd=checkout, env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        until = time.monotonic() + 60
        while not list(temporary.glob("minibert-worker-*")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        assert list(temporary.glob("minibert-perf-*"))
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert list(temporary.iterdir()) == []


# Changed benchmarks


def test_a_gate_that_is_not_the_working_trees_is_refused(tmp_path: Path) -> None:
    """Else an edited benchmark would be neither run nor seen, where minibert is installed from another state."""
    own, tree = tmp_path / "own", tmp_path / "tree"
    own_files(tree / "minibert")
    own_gate(own, tree)
    for name, content in (("workloads.py", b"# edited\n"), ("added.py", b"")):
        file = tree / "minibert" / "perf" / name
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=f"the working tree's own gate is required, .* another {name}: install"):
            own_gate(own, tree)
        file.unlink()
        if before is not None:
            with pytest.raises(SettingsError, match=name):
                own_gate(own, tree)
            file.write_bytes(before)
    own_gate(own, tree)


def test_a_change_of_what_is_timed_is_seen_and_a_base_without_a_gate_has_none(tmp_path: Path) -> None:
    own = own_files(tmp_path / "own")
    base = tmp_path / "base" / "minibert" / "perf"
    assert changed_files(own, in_tree(tmp_path / "base")) == ()
    base.parent.mkdir(parents=True)
    own_files(base.parent)
    assert changed_files(own, in_tree(tmp_path / "base")) == ()
    for name in FILES:
        (base / name).write_bytes((own / name).read_bytes() + b"\n# one line more\n")
    (base / "shapes.py").unlink()
    assert changed_files(own, in_tree(tmp_path / "base")) == FILES


COUNTED_ALONE = {"__init__.py", "error_study/__init__.py"}
"""What a worker imports and no answer depends on."""


def test_all_that_a_worker_times_with_is_looked_at(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom minibert.perf import worker\nworker.build('control')\n"
        "print('\\n'.join(m.__file__ for n, m in sys.modules.items() if n.startswith('minibert.perf')))"
    )
    # In another folder: the checkout, if this is it, would be imported in place of what is installed.
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    package = Path(benchmark_files.__file__).parent
    imported = {Path(line).relative_to(package).as_posix() for line in done.stdout.splitlines()}
    sides = {"gate_commands.py", "trees.py", "environments.py", "benchmark_files.py", "results.py", "machine.py"}
    asking = {"pair.py", "process.py", "gate.py", "stored_base.py"}
    judging = {"statistics.py", "decision.py", "answer.py", "gate_answer.py", "numeric.py"}
    counting = {"counters_file.py", "operators.py"}
    assert (imported - COUNTED_ALONE) | sides | asking | judging | counting == set(FILES)


def test_an_edited_benchmark_passes_with_a_reason_only() -> None:
    answers = [benchmark(verdict) for verdict in (SAME, FASTER, SLOWER)]
    changed = without_silent_passes(answers, ("shapes.py",), None)
    assert [each.decision.verdict for each in changed] == [MISSING, MISSING, SLOWER]
    assert "the gate is not the base's: shapes.py changed" in changed[0].decision.reason
    assert without_silent_passes(answers, ("shapes.py",), "a shape more") == answers
    assert without_silent_passes(answers, ("shapes.py",), "") == changed, "an empty reason is none"
    assert without_silent_passes(answers, (), None) == answers


def test_a_head_that_makes_its_benchmark_cheaper_does_not_pass(
    checkout: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The base's own benchmark is another one; the gate's here plays the part of the edited one."""
    edit(checkout, "perf/workloads.py", lambda text: text.replace("256, 128", "512, 128"))
    git(checkout, "commit", "-qam", "the benchmark as it was")
    edit(checkout, "perf/workloads.py", lambda text: text.replace("512, 128", "256, 128"))
    monkeypatch.setattr(gate_commands, "_timed", lambda *_: [benchmark()])
    code, content = gate(checkout, monkeypatch, capsys, "--benchmark", "masking")
    assert (code, content["benchmarks"][0]["verdict"]) == (22, MISSING)
    assert content["changed_benchmarks"] == {"files": ["workloads.py"], "allowed": None}
    assert "the gate is not the base's: workloads.py changed, so no pass" in table.as_markdown(content)
    words = ["--benchmark", "masking", "--allow-changed-benchmarks", "half as many texts"]
    code, content = gate(checkout, monkeypatch, capsys, *words)
    assert (code, content["benchmarks"][0]["verdict"]) == (0, SAME)
    assert "workloads.py changed, which is meant: half as many texts" in table.as_markdown(content)


def test_a_stored_result_of_other_benchmarks_or_of_an_unknown_commit_is_told(
    checkout: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored_base, "describe_machine", made_up_machine)
    perf, paths = own_files(tmp_path), [tmp_path / "known.json", tmp_path / "unknown.json"]
    write_result(paths[0], made_up_result(commit=git(checkout, "rev-parse", "HEAD")))
    write_result(paths[1])
    known, unknown = (stored_base.read_results([path])[0] for path in paths)
    assert stored_base._changed_since(known, checkout, perf) == ()
    assert stored_base._changed_since(unknown, checkout, perf) == FILES
    (perf / "pair.py").write_text("", encoding="utf-8")
    assert stored_base._changed_since(known, checkout, perf) == ("pair.py",)
    assert file_of_commit(checkout, "HEAD", "minibert/none.py") is None
    side = stored_base._side(paths, known).to_dict()
    assert side["name"] == "known.json, unknown.json"
    assert side["versions"]["tensorflow"] == "2.21.0"


# A saved answer


def test_a_saved_answer_is_read_as_it_was_written(tmp_path: Path) -> None:
    content = answer(benchmark(), benchmark(SLOWER, name="encoding")).to_dict()
    assert read_gate(write_result(tmp_path / "gate.json", content)) == content
    with pytest.raises(ArtifactError, match="what perf gate --save wrote is required, but there is no such file"):
        read_gate(tmp_path / "other.json")


Edit = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda g: g.update(created="yesterday"), "'created'"),
        (lambda g: g.update(verdict="fine"), "'verdict': one of same, faster"),
        (lambda g: g.update(verdict="faster", exit_code=20), "'exit_code': that of 'faster' is required, but 20"),
        (lambda g: g["base"].update(name=7), "'base.name': text"),
        (lambda g: g["head"].update(commit=1), "'head.commit': text"),
        (lambda g: g["head"].update(is_dirty="no"), "'head.is_dirty': true or false"),
        (lambda g: g["base"].update(versions=[]), "'base.versions': an object"),
        (lambda g: g["base"]["versions"].update(keras=3.15), "'base.versions.keras': text"),
        (lambda g: g["settings"].update(threshold="2 %"), "'settings.threshold': a number or null"),
        (lambda g: g["numeric"].update(explanation="exact"), "'numeric.explanation': a list"),
        (lambda g: g["numeric"].update(explanation=["exact", 1]), r"'numeric.explanation\[1\]': text"),
        (lambda g: g["numeric"].update(allowed=True), "'numeric.allowed': text"),
        (lambda g: g["benchmarks"][0].update(verdict="fine"), r"'benchmarks\[0\].verdict': one of"),
        (lambda g: g["benchmarks"][0].update(ratio=float("nan")), r"'benchmarks.*ratio': a finite number"),
        (lambda g: g["benchmarks"][0].update(high=10**400), r"'benchmarks\[0\].high': a number or null"),
        (lambda g: g["benchmarks"][0].update(pairs=-1), r"'benchmarks\[0\].pairs': 0 or more"),
        (lambda g: g["benchmarks"][0].update(counters=None), r"'benchmarks\[0\].counters': an object"),
        (lambda g: g["benchmarks"][0]["counters"].update(changes=[14]), r"counters.changes\[0\]': text"),
        (lambda g: g["benchmarks"][0]["control"].update(low="1"), r"'benchmarks\[0\].control.low': a number or null"),
    ],
)
def test_an_edited_answer_is_an_error_that_names_file_and_field(change: Edit, field: str, tmp_path: Path) -> None:
    content = copy.deepcopy(answer(benchmark()).to_dict())
    change(content)
    with pytest.raises(ArtifactError, match=rf"gate\.json: field {field}|gate\.json: field 'benchmarks.*{field}"):
        read_gate(write_result(tmp_path / "gate.json", content))


def test_the_command_and_the_study_of_errors_have_one_time_limit() -> None:
    import argparse

    from minibert.perf.arguments import add_perf

    parser = argparse.ArgumentParser()
    add_perf(parser.add_subparsers())
    assert parser.parse_args(["perf", "gate"]).time_limit == TIME_LIMIT_SECONDS
