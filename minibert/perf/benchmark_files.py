"""What decides what is timed and what it means: a change of it could hide a slowdown, so it is never a silent pass.

Both sides run the head's benchmarks, because only the same ones can be compared. Where they are not those
that the base has, nobody knows whether the base's own would still say the same.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from minibert.errors import SettingsError
from minibert.perf.answer import BenchmarkAnswer
from minibert.perf.decision import FASTER, MISSING, SAME

FILES = (
    *("workloads.py", "shapes.py", "control.py", "worker.py", "pair.py", "process.py", "neighbours.py"),
    "error_study/injection.py",  # has the workloads of the study of errors, and says which names are theirs
    *("gate.py", "gate_commands.py", "trees.py", "benchmark_files.py", "environments.py"),
    *("statistics.py", "decision.py", "answer.py", "gate_answer.py", "stored_base.py", "results.py", "machine.py"),
    *("counters.py", "counters_file.py", "operators.py", "numeric.py"),
)


def changed_files(own: Path, of_base: Callable[[str], bytes | None]) -> tuple[str, ...]:
    """Which of the files differ from the base's; none if the base is older than the gate and has no benchmarks.

    Args:
        own: The folder of the gate's own files.
        of_base: A file's content in the base's ``perf``; None: it has no such file.
    """
    if of_base(FILES[0]) is None:
        return ()
    return tuple(name for name in FILES if (own / name).read_bytes() != of_base(name))


def own_files(folder: Path) -> Path:
    """A copy of the gate's own files for the workers, which no editor changes while it runs."""
    copy = folder / "perf"
    shutil.copytree(Path(__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return copy


def own_gate(folder: Path, tree: Path) -> Path:
    """Likewise, of a gate that is the working tree's; nobody would look at the tree's own benchmarks otherwise.

    Args:
        folder: Where the copy is made.
        tree: The working tree's copy.

    Raises:
        SettingsError: A file differs; it is named.
    """
    own = own_files(folder)
    theirs = tree / "minibert" / "perf"
    names = {path.relative_to(folder) for folder in (own, theirs) for path in folder.rglob("*.py")}
    if other := sorted(name.as_posix() for name in names if _content(own / name) != _content(theirs / name)):
        raise SettingsError(
            f"perf: the working tree's own gate is required, but minibert is installed with another {other[0]}: "
            "install the working tree again (pip install .)"
        )
    return own


def in_tree(tree: Path) -> Callable[[str], bytes | None]:
    """Reads the files of a side's tree."""
    return lambda name: _content(tree / "minibert" / "perf" / name)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def without_silent_passes(
    benchmarks: Sequence[BenchmarkAnswer], changed: Sequence[str], allowed: str | None
) -> list[BenchmarkAnswer]:
    """The answers, with a pass of a benchmark that was changed as missing, unless a reason allows it."""
    if not changed or allowed:
        return list(benchmarks)
    reason = f"the gate is not the base's: {', '.join(changed)} changed; --allow-changed-benchmarks takes a reason"
    return [_missing(each, reason) if each.decision.verdict in (SAME, FASTER) else each for each in benchmarks]


def _missing(answer: BenchmarkAnswer, reason: str) -> BenchmarkAnswer:
    decision = answer.decision
    text = f"{decision.verdict}, but {reason}"
    return dataclasses.replace(answer, decision=dataclasses.replace(decision, verdict=MISSING, reason=text))
