"""What decides what is timed, and how: a change of these files could hide a slowdown, so it is never a silent pass.

Both sides run the head's benchmarks, because only the same ones can be compared. Where they are not those
that the base has, nobody knows whether the base's own would still say the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from minibert.perf.answer import BenchmarkAnswer
from minibert.perf.decision import FASTER, MISSING, SAME

FILES = (
    *("workloads.py", "shapes.py", "control.py", "worker.py", "pair.py", "process.py", "neighbours.py"),
    "error_study/injection.py",  # has the workloads of the study of errors, and says which names are theirs
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


def in_tree(tree: Path) -> Callable[[str], bytes | None]:
    """Reads the files of a side's tree."""

    def content(name: str) -> bytes | None:
        path = tree / "minibert" / "perf" / name
        return path.read_bytes() if path.is_file() else None

    return content


def without_silent_passes(
    benchmarks: Sequence[BenchmarkAnswer], changed: Sequence[str], allowed: str | None
) -> list[BenchmarkAnswer]:
    """The answers, with a pass of a benchmark that was changed as missing, unless a reason allows it."""
    if not changed or allowed:
        return list(benchmarks)
    reason = f"the benchmark is not the base's: {', '.join(changed)} changed; --allow-changed-benchmarks takes a reason"
    return [_missing(each, reason) if each.decision.verdict in (SAME, FASTER) else each for each in benchmarks]


def _missing(answer: BenchmarkAnswer, reason: str) -> BenchmarkAnswer:
    decision = answer.decision
    text = f"{decision.verdict}, but {reason}"
    return dataclasses.replace(answer, decision=dataclasses.replace(decision, verdict=MISSING, reason=text))
