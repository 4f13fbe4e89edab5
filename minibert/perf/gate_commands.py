"""``minibert perf gate`` and ``minibert perf accept``: prepare both sides, compare, print the answer."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minibert.artifacts import write_bytes
from minibert.errors import ArtifactError, MinibertError, SettingsError
from minibert.perf import counters_file, table
from minibert.perf.answer import BenchmarkAnswer, GateAnswer, NumericAnswer
from minibert.perf.benchmark_files import changed_files, in_tree, own_gate, without_silent_passes
from minibert.perf.counters import Counters
from minibert.perf.counters_file import Key
from minibert.perf.decision import MISSING, Decision, Rules
from minibert.perf.gate import Comparison
from minibert.perf.history_commands import FOLDER
from minibert.perf.machine import describe_machine
from minibert.perf.page import write_page
from minibert.perf.pair import CONTROL
from minibert.perf.process import Worker
from minibert.perf.trees import (
    PACKAGE,
    Side,
    checkout_root,
    described,
    environment_differences,
    revision_side,
    same_code,
    working_side,
)
from minibert.perf.workloads import BUILDERS, DEFAULT
from minibert.progress import Progress


def gate(options: Namespace) -> int:
    """Compares, prints, saves, and gives the verdict's exit code."""
    names = chosen_names(options.benchmark)
    if options.list:
        return _list(list(names if options.benchmark else BUILDERS), as_json=options.json)
    if options.base == "":  # as an unset variable of a CI job is: HEAD in its place would compare with something else
        raise SettingsError("--base: a revision is required, but an empty text came")
    for option, file in (("--save", options.save), ("--page", options.page)):
        if file is not None:
            _require_place(file, option)
    if options.page is not None and options.page == options.save:
        raise SettingsError(f"--page: another file than --save's is required, but both are {options.page}")
    _require_extra()
    if options.base_result is not None:
        from minibert.perf.stored_base import compare_with_result

        answer = compare_with_result(options, names)
    else:
        answer = _compare(options, names)
    content = answer.to_dict()
    text = json.dumps(content, indent=2, allow_nan=False)
    if options.json:
        print(text)
    elif options.markdown:
        print(table.as_markdown(content))
    else:
        print("\n".join(table.as_lines(content)))
    if options.save is not None:  # behind what is printed: minutes of measuring are not lost to a full disk
        write_bytes(options.save, f"{text}\n".encode())
    if options.page is not None:
        _draw(options.page, content)
    return answer.exit_code


def _draw(page: Path, content: dict[str, Any]) -> None:
    """The page of an answer, with the checkout's history if there is one: one that cannot be read costs no verdict."""
    root = checkout_root(Path.cwd())
    try:
        notes = write_page(page, content, root / FOLDER, may_miss=True, repository=root)
    except ArtifactError as error:
        notes = [f"the page has the last gate only: {error}"]
        write_page(page, content, None, may_miss=True, repository=root)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _list(names: list[str], *, as_json: bool) -> int:
    """Shows the benchmarks, and which of them are timed by default."""
    if as_json:
        print(json.dumps([{"name": name, "default": name in DEFAULT} for name in names], indent=2))
        return 0
    for name in names:
        print(f"{name}{' (default)' if name in DEFAULT else ''}")
    return 0


def accept(options: Namespace) -> int:
    """Counts every workload of the working tree once, and writes what changed with the reason."""
    names, root = chosen_names(options.benchmark or list(BUILDERS)), checkout_root(Path.cwd())
    counters_file.read_counters(root / counters_file.FILE)  # one that cannot be read is named before all is counted
    with tempfile.TemporaryDirectory(prefix="minibert-perf-") as folder:
        side = working_side(root, Path(folder) / "head")
        counted = []
        perf = own_gate(Path(folder), side.tree)
        with Worker("head", python=side.python, tree=side.tree, perf=perf) as worker:
            for name in names:
                worker.ask("build", name=name)
                worker.ask("check", name=name)
                counted.append(worker.ask("count", name=name))
    said = counters_file.accept(root / counters_file.FILE, counted, reason=options.reason)
    print("\n".join(said) if said else "no counter has changed; nothing was written")
    return 0


def chosen_names(given: Sequence[str] | None) -> list[str]:
    """The benchmarks to compare.

    Raises:
        SettingsError: There is none of such a name; the nearest one is named.
    """
    for name in given or ():
        if name not in BUILDERS:
            close = difflib.get_close_matches(name, BUILDERS, n=1, cutoff=0.4)
            hint = f"the nearest is {close[0]!r}" if close else "`minibert perf gate --list` shows all"
            raise SettingsError(f"--benchmark: {name!r} is not a benchmark; {hint}")
    return list(dict.fromkeys(given or DEFAULT))


def _compare(options: Namespace, names: list[str]) -> GateAnswer:
    root = checkout_root(Path.cwd())
    accepted = counters_file.read_counters(root / counters_file.FILE)
    with (
        tempfile.TemporaryDirectory(prefix="minibert-perf-") as name,
        Progress(quiet=options.quiet) as progress,
    ):
        folder = Path(name)
        base, head = _sides(options, root, folder)
        is_same = _is_same_code(options, base, head)
        perf = own_gate(folder, head.tree)
        progress.note(f"head: {head}")
        progress.note(f"base: {base}")
        numeric = _numeric(options, base, head, folder, progress)
        changed = changed_files(perf, in_tree(base.tree))
        benchmarks = _timed(options, names, {"base": base, "head": head}, perf, accepted, progress)
    benchmarks = without_silent_passes(benchmarks, changed, options.allow_changed_benchmarks)
    if not options.benchmark and not options.allow_changed_benchmarks:
        benchmarks += _dropped(base, names)
    return GateAnswer(
        base=base.to_dict(),
        head=head.to_dict(),
        machine=describe_machine(),
        rules=Rules(threshold=options.threshold),
        time_limit_seconds=options.time_limit,
        numeric=numeric,
        benchmarks=benchmarks,
        same_code=is_same,
        changed_benchmarks=changed,
        allowed_benchmarks=options.allow_changed_benchmarks,
    )


def _timed(
    options: Namespace, names: list[str], sides: Mapping[str, Side], perf: Path, accepted: Mapping[Key, Counters],
    progress: Progress,
) -> list[BenchmarkAnswer]:  # fmt: skip
    processes = {**sides, CONTROL: sides["head"]}
    return Comparison(
        start=lambda side: Worker(side, python=processes[side].python, tree=processes[side].tree, perf=perf),
        names=names,
        rules=Rules(threshold=options.threshold),
        time_limit_seconds=options.time_limit,
        accepted=accepted,
        progress=progress,
    ).run()


def _sides(options: Namespace, root: Path, folder: Path) -> tuple[Side, Side]:
    head = described(working_side(root, folder / "head"))
    python = None if options.base_python is None else _absolute(options.base_python)
    if options.base is not None or python is None:
        base = revision_side(root, options.base or "HEAD", folder / "base", python=python)
    else:
        base = working_side(root, folder / "base", python=python)
    return described(base), head


def _absolute(python: Path) -> Path:
    """Where a Python is, for processes in other folders; a link stays one, because it is what makes the environment.

    Raises:
        SettingsError: It cannot be run.
    """
    found = shutil.which(str(python))
    if found is None:
        raise SettingsError(f"--base-python: a Python is required, but {python} is none that can be run")
    return Path(os.path.abspath(found))  # noqa: PTH100  Path.resolve would follow the link


def _is_same_code(options: Namespace, base: Side, head: Side) -> bool:
    """Whether both sides are the same package.

    Raises:
        SettingsError: They are, and nobody asked for that: without a base there is nothing to compare.
    """
    is_same = same_code(base, head)
    if is_same and options.base is None and options.base_python is None:
        raise SettingsError(
            "--base: a revision to compare with is required, such as --base origin/main, "
            f"but none came and the working tree's {PACKAGE}/ is HEAD's, unchanged"
        )
    return is_same


def _numeric(options: Namespace, base: Side, head: Side, folder: Path, progress: Progress) -> NumericAnswer:
    if options.no_numeric:
        found = NumericAnswer(verdict="not compared", explanation=("not compared: --no-numeric was given",))
    else:
        from minibert.perf.numeric import compare_bits

        task = progress.start("a short tiny run of both sides, compared bit by bit")
        found = compare_bits(base, head, folder)
        task.finish()
        progress.note(f"bits: {found.explanation[0]}")
    said = list(found.explanation)
    if differences := environment_differences(base, head):
        said.append(f"the environments differ: {', '.join(differences)}")
    return dataclasses.replace(found, explanation=tuple(said), allowed=options.allow_different)


def _dropped(base: Side, names: list[str]) -> list[BenchmarkAnswer]:
    """What the base's own gate times and this one does not: without a reason, removing one is no way to pass it."""
    gone = [name for name in base.benchmarks if name not in names]
    return [
        BenchmarkAnswer(
            name=name, decision=Decision(MISSING, "the base times it by default, the working tree does not")
        )
        for name in gone
    ]


def _require_place(file: Path, option: str) -> None:
    """Refuses a file that could not be written, as far as that can be seen before anything is measured.

    Raises:
        ArtifactError: It is a folder, or its folder is not there or read-only.
    """
    if file.is_dir():  # as the empty path is, of an unset variable
        raise ArtifactError(f"{option}: a file is required, but {file} is a folder")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        came = "is read-only for this user" if file.parent.is_dir() else "is not there"
        raise ArtifactError(f"{option}: a folder to write to is required, but {file.parent} {came}")


def _require_extra() -> None:
    if importlib.util.find_spec("scipy") is None:
        raise MinibertError(
            f"perf gate: scipy is required, but {sys.executable} has none: pip install '.[perf]' in a checkout"
        )
