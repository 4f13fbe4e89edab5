"""Where a benchmark goes on in another environment: the versions changed, the kind of machine did not.

Versions are part of a machine's identity, so an upgrade of TensorFlow ends one series and begins another.
No change point can lie between the two: what the code did and what the upgrade did is not told apart
there. So the place is said, with the times on both sides of it, and is called another environment.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minibert.checked import canonical_json
from minibert.perf.commit_order import Ordered
from minibert.perf.series import Point, Series, commit_range

VERSIONS = ("tensorflow", "keras", "numpy", "python", "driver", "os")
"""What may change in a machine's description while it stays the same kind of machine."""
AROUND = 8
"""So many records at most on either side: the last before, and the first after."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentChange:
    """A series that begins where another environment's was.

    ``before`` and ``after`` are medians, in the series' unit, of so many records. ``commits`` is how many
    commits lie between the two: with 0, one commit was measured in both. ``goes_on`` says whether the old
    environment has later records too.
    """

    old_identity: str
    versions: Sequence[str]
    commit_range: str
    commits: int | None
    before: float
    after: float
    before_records: int
    after_records: int
    goes_on: bool

    @property
    def ratio(self) -> float:
        """After by before."""
        return self.after / self.before


def environment_change(series: Series, others: Sequence[Series], ordered: Ordered) -> EnvironmentChange | None:
    """Finds the environment that a series' benchmark had before the series' first record.

    Args:
        series: The series that begins.
        others: All series; those of other benchmarks, devices, units or kinds of machine do not count.
        ordered: The commits' order.

    Returns:
        The change from the environment whose record is the last before it; None where there is none.
    """
    first = series.points[0]
    earlier = [other for other in others if _is_continued(other, series) and other.points[0].order < first.order]
    if not earlier:
        return None
    old = max(earlier, key=lambda other: _before(other, first)[-1].order)
    points = _before(old, first)
    before, after = _undisturbed(points)[-AROUND:], _undisturbed(series.points)[:AROUND]
    return EnvironmentChange(
        old_identity=str(old.machine["identity"]),
        versions=_changed_versions(old.machine, series.machine),
        commit_range=commit_range(points[-1], first),
        commits=ordered.commits_between(points[-1].commit.id, first.commit.id),
        before=statistics.median(point.value for point in before),
        after=statistics.median(point.value for point in after),
        before_records=len(before),
        after_records=len(after),
        goes_on=len(points) < len(old.points),
    )


def kind_of(machine: Mapping[str, Any]) -> str:
    """What a machine is without its versions, as text that can be compared."""
    return canonical_json({name: value for name, value in machine.items() if name not in ("identity", *VERSIONS)})


def _is_continued(old: Series, new: Series) -> bool:
    return old is not new and _subject(old) == _subject(new)


def _subject(series: Series) -> tuple[str, str, str, str]:
    return series.benchmark, series.device, series.unit, kind_of(series.machine)


def _before(series: Series, first: Point) -> Sequence[Point]:
    return [point for point in series.points if point.order < first.order]


def _undisturbed(points: Sequence[Point]) -> Sequence[Point]:
    return [point for point in points if not point.is_disturbed] or points


def _changed_versions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``tensorflow 2.20.0 -> 2.21.0``."""
    changed = [name for name in VERSIONS if old.get(name) != new.get(name)]
    return [f"{name} {_version(name, old)} -> {_version(name, new)}" for name in changed]


def _version(name: str, machine: Mapping[str, Any]) -> str:
    return str(machine.get(name)).removeprefix(f"{name} ")
