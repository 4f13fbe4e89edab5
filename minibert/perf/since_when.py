"""Answers "since when?": every series of a history with its changes, each with the commits it lies between."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from minibert.checked import flat, nearest
from minibert.environment import PACKAGES
from minibert.errors import ArtifactError, SettingsError
from minibert.perf.change_points import (
    AFTER,
    BEFORE,
    NOISY,
    OFF_BY,
    ChangePoint,
    Propose,
    find_change_points,
    noise_of,
)
from minibert.perf.commit_order import Ordered, in_commit_order
from minibert.perf.counters import differences
from minibert.perf.environments import EnvironmentChange, environment_change
from minibert.perf.history import read_history
from minibert.perf.series import Point, Series, commit_range, machine_name, make_series


@dataclass(frozen=True, kw_only=True)
class TimeChange:
    """Where a series' time changed for good, and what else changed there.

    ``index`` is the first point that has it. ``commits`` is how many commits the range has, None where
    git's order is not known. Where the points on both sides are of one commit, ``is_within_commit`` is true
    and the range holds every commit within `OFF_BY` points of the place; with 0 commits there is no other,
    and the cause is not in the code.
    """

    index: int
    before: float
    after: float
    before_seconds: float
    after_seconds: float
    commit_range: str
    commits: int | None
    is_within_commit: bool
    environment: Sequence[str]

    @property
    def change(self) -> float:
        """Relative change; above 0 is slower."""
        return self.after / self.before - 1.0


@dataclass(frozen=True, kw_only=True)
class CounterChange:
    """Where exact counters differ from the point before: ``MatMul 14 -> 16``."""

    index: int
    commit_range: str
    differences: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class AnalyzedSeries:
    """A series with its changes; ``changes`` is None where nothing was searched.

    ``noise`` is that of a single record, relative, with the changes taken away; None where it is not known.
    ``began`` is the environment before it, where it goes on with what another one's series had.
    """

    series: Series
    noise: float | None
    changes: Sequence[TimeChange] | None
    counter_changes: Sequence[CounterChange]
    began: EnvironmentChange | None = None

    @property
    def is_searched(self) -> bool:
        """Whether a change of the time would have been found."""
        return self.changes is not None and not self.is_too_short

    @property
    def is_too_short(self) -> bool:
        """Whether it has too few points for a change to be found at all."""
        return len(self.series.points) - self.disturbed < BEFORE + AFTER

    @property
    def disturbed(self) -> int:
        """How many points are not searched, because other work had the cores."""
        return sum(point.is_disturbed for point in self.series.points)

    @property
    def is_noisy(self) -> bool:
        """Whether a change of 5 % may take more than three records to be found."""
        return self.noise is not None and self.noise > NOISY


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All series, and what a reader must know of what was left out."""

    series: Sequence[AnalyzedSeries]
    notices: Sequence[str]


def analyze(
    folder: Path,
    *,
    repository: Path,
    propose: Propose | None,
    benchmarks: Sequence[str] | None = None,
    with_dirty: bool = False,
) -> Analysis:
    """Reads a history and looks for changes in each of its series.

    Args:
        folder: The history.
        repository: A folder in the git repository that knows the commits' order.
        propose: From `require_otava`; None searches for no change in time.
        benchmarks: Names to look at; default: all.
        with_dirty: Also records of a working tree with changes.

    Raises:
        ArtifactError: The history is missing, empty or damaged, or none of its records can be used.
        SettingsError: It has no benchmark of that name.
    """
    results = read_history(folder)
    ordered = in_commit_order(results, repository, with_dirty=with_dirty)
    if not ordered.results:
        came = f"{len(results)} of a working tree with changes came (--dirty)"
        raise ArtifactError(f"{folder}: a record of a commit is required, but {came}")
    found = make_series(ordered.results)
    if benchmarks:
        _require_known(benchmarks, [series.benchmark for series in found])
        found = [series for series in found if series.benchmark in benchmarks]
    return Analysis(series=[_analyze(series, found, ordered, propose) for series in found], notices=ordered.notices)


def as_json(analysis: Analysis) -> dict[str, Any]:
    """Plain values: each series with its points and changes."""
    return {"notices": list(analysis.notices), "series": [_series_json(found) for found in analysis.series]}


def _analyze(series: Series, others: Sequence[Series], ordered: Ordered, propose: Propose | None) -> AnalyzedSeries:
    points, changes, noise = series.points, None, None
    # Beside other work a time proves nothing: such a point is shown, and not searched.
    searched = [index for index, point in enumerate(points) if not point.is_disturbed]
    values = [points[index].value for index in searched]
    if propose is not None:
        found = find_change_points(values, propose)
        changes = [_time_change(change, points, searched, ordered) for change in found]
        if len(values) >= BEFORE + AFTER:
            noise = noise_of(values, [change.index for change in found])
    return AnalyzedSeries(
        series=series,
        noise=noise,
        changes=changes,
        counter_changes=_counter_changes(points),
        began=environment_change(series, others, ordered),
    )


def _time_change(found: ChangePoint, points: Sequence[Point], searched: Sequence[int], ordered: Ordered) -> TimeChange:
    before, after = (points[searched[place]] for place in (found.index - 1, found.index))
    is_within_commit = before.commit.id == after.commit.id
    if is_within_commit:  # the place may be off, so any commit that begins near it may be the cause
        before = points[searched[max(found.index - 1 - OFF_BY, 0)]]
        after = points[searched[min(found.index + OFF_BY, len(searched) - 1)]]
    # What a value is in seconds, when the control takes as long as it mostly does.
    scale = statistics.median(point.seconds / point.value for point in points)
    return TimeChange(
        index=searched[found.index],
        before=found.before,
        after=found.after,
        before_seconds=scale * found.before,
        after_seconds=scale * found.after,
        commit_range=commit_range(before, after),
        commits=ordered.commits_between(before.commit.id, after.commit.id),
        is_within_commit=is_within_commit,
        environment=_environment_changes(before, after),
    )


def _counter_changes(points: Sequence[Point]) -> list[CounterChange]:
    counted = [(index, point) for index, point in enumerate(points) if point.counters is not None]
    return [
        CounterChange(index=index, commit_range=commit_range(before, after), differences=changed)
        for (_, before), (index, after) in pairwise(counted)
        if (changed := differences(dict(before.counters or {}), dict(after.counters or {})))
    ]


def _environment_changes(before: Point, after: Point) -> list[str]:
    """What differs in the environment of two points: ``numpy 2.3.1 -> 2.4.0``, ``cpu.cores 2 -> 4``.

    A package that is no longer recorded (`minibert.environment.PACKAGES`) is in older points alone, and no change.
    """
    old, new = flat(before.environment), flat(after.environment)
    recorded = {f"packages.{name}" for name in PACKAGES}
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    names = [name for name in names if name in recorded or not name.startswith("packages.")]
    return [f"{name.removeprefix('packages.')} {old.get(name)} -> {new.get(name)}" for name in names]


def _require_known(wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise SettingsError(f"--benchmark: {name!r} is not in this history; {nearest(name, sorted(set(known)))}")


def _series_json(found: AnalyzedSeries) -> dict[str, Any]:
    series = found.series
    changes = found.changes
    return {
        "benchmark": series.benchmark,
        "machine": dict(series.machine),
        "machine_name": machine_name(series.machine),
        "device": series.device,
        "unit": series.unit,
        "is_normalized": series.is_normalized,
        "points": [
            {"commit": point.commit.id, "author_time": point.commit.author_time, "measured": point.measured,
             "is_dirty": point.commit.is_dirty, "is_disturbed": point.is_disturbed, "value": point.value,
             "seconds": point.seconds}
            for point in series.points
        ],
        "is_too_short": found.is_too_short,
        "noise": found.noise,
        "began": None if found.began is None else {
            **dataclasses.asdict(found.began), "versions": list(found.began.versions), "ratio": found.began.ratio
        },
        "changes": None if changes is None else [
            {**dataclasses.asdict(change), "environment": list(change.environment), "change": change.change}
            for change in changes
        ],
        "counter_changes": [
            {**dataclasses.asdict(change), "differences": list(change.differences)} for change in found.counter_changes
        ],
    }  # fmt: skip
