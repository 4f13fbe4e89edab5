"""In which order commits were made, and how many lie between two of them.

Git's first-parent line is the order in which changes reached the branch; an author's clock is not, but
it is all that a history has where the repository is not at hand, and then that is said.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minibert.perf.results import Result

_GIT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """Results in the order of their commits, and how that order was found.

    ``notices`` are sentences for a reader: what was left out, and why the order is not git's.
    """

    results: Sequence[Result]
    positions: Mapping[str, int]
    notices: Sequence[str]

    def commits_between(self, before: str, after: str) -> int | None:
        """How many commits the range ``before..after`` has; None where git's order is not known."""
        if before == after:
            return 0
        if before not in self.positions or after not in self.positions:
            return None
        return self.positions[after] - self.positions[before]


def in_commit_order(results: Sequence[Result], repository: Path, *, with_dirty: bool = False) -> Ordered:
    """Orders results by commit, several of one commit by when they were measured.

    Args:
        results: In any order.
        repository: A folder in the repository whose ``HEAD`` has the first-parent line.
        with_dirty: Also those whose working tree was not the commit.

    Returns:
        The ordered results. Those of a working tree with changes are left out unless asked for, and
        those of commits beside the first-parent line always: they are no points of this line.
    """
    notices = []
    kept = [result for result in results if with_dirty or not result.commit.is_dirty]
    if len(kept) < len(results):
        notices.append(f"{_records(len(results) - len(kept))} of a working tree with changes left out (--dirty)")
    line = first_parent_line(repository)
    positions = {commit: number for number, commit in enumerate(line)}
    known = [result for result in kept if result.commit.id in positions]
    if line and is_shallow(repository) and len(known) < len(kept):
        known = []
        notices.append("ordered by author time: this clone is shallow and does not have all commits")
    elif kept and not known:
        notices.append("ordered by author time: no git repository with these commits is at hand")
    if not known:
        return Ordered(results=sorted(kept, key=_by_author_time), positions={}, notices=notices)
    if len(known) < len(kept):
        notices.append(
            f"{_records(len(kept) - len(known))} of commits that are not on the first-parent line of HEAD left out"
        )
    ordered = sorted(known, key=lambda result: (positions[result.commit.id], result.measured))
    return Ordered(results=ordered, positions=positions, notices=notices)


def first_parent_line(repository: Path) -> list[str]:
    """Hashes from the oldest commit to ``HEAD``, first parents only; empty where there is no repository."""
    return _git(repository, "rev-list", "--first-parent", "--reverse", "HEAD")


def is_shallow(repository: Path) -> bool:
    """Whether old commits are missing, as in a CI job's clone."""
    return _git(repository, "rev-parse", "--is-shallow-repository") == ["true"]


def _by_author_time(result: Result) -> tuple[str, str, str]:
    return result.commit.author_time, result.commit.commit_time, result.measured


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"


def _git(repository: Path, *words: str) -> list[str]:
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *words], capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()
