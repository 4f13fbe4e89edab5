"""The history for a terminal: a heading for each series, and a line for each change in it."""

from __future__ import annotations

from collections.abc import Iterator

from minibert.perf.change_points import AFTER, BEFORE, NOISY, OFF_BY
from minibert.perf.environments import EnvironmentChange, kind_of
from minibert.perf.series import LARGEST_FACTOR, machine_name
from minibert.perf.since_when import Analysis, AnalyzedSeries, CounterChange, TimeChange
from minibert.report.figures import decimal, duration, percent, signed

_NOT_KNOWN = "whether a time has changed is not known"
ANOTHER_ENVIRONMENT = "another environment, not a change point"


def as_lines(analysis: Analysis) -> Iterator[str]:
    """Lines for a terminal."""
    for found in analysis.series:
        yield from _series_lines(found)
        yield ""
    yield headline(analysis)
    for notice in analysis.notices:
        yield f"note: {notice}"


def headline(analysis: Analysis, not_searched: str | None = None) -> str:
    """All of it in a sentence; that nothing has changed is said only where every series was searched.

    Args:
        analysis: What was found.
        not_searched: Why no change point was searched; None where it was done.
    """
    series = [found.series for found in analysis.series]
    kinds = many(len({kind_of(one.machine) for one in series}), "kind of machine", "kinds of machine")
    records = many(len({(point.commit.id, point.measured) for one in series for point in one.points}), "record")
    where = f"{records} on {kinds}, {many(len(series), 'series', 'series')}"
    if not_searched is not None:
        return f"{where}; whether a time has changed was not looked at."
    searched = sum(found.is_searched for found in analysis.series)
    is_whole = 0 < searched == len(series)
    where += ", all searched" if is_whole else f", {searched} of them long enough to be searched"
    what = _counts(analysis)
    if not what:
        return f"{where}; {'nothing has changed' if is_whole else _NOT_KNOWN}."
    return f"{where}: {', '.join(what)}{'' if is_whole else f'; in the others {_NOT_KNOWN}'}."


def many(count: int, one: str, several: str | None = None) -> str:
    """``1 record``, ``2,000 records``."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def unit_text(found: AnalyzedSeries) -> str:
    """What the values of a series are."""
    series = found.series
    if series.is_normalized:
        return f"in units of the {series.unit} timed beside it"
    return "in seconds: NOT normalized, no control was timed beside it"


def noise_text(found: AnalyzedSeries) -> str | None:
    """How much a single record is off, and what that means where it is much."""
    if found.noise is None:
        return None
    late = f"; above {percent(NOISY)} a change of 5 % may take more than {AFTER} records" if found.is_noisy else ""
    return f"noise of a record {percent(found.noise)}{late}"


def disturbed_text(found: AnalyzedSeries) -> str | None:
    """What was not searched."""
    if not found.disturbed:
        return None
    records = "1 record" if found.disturbed == 1 else f"{found.disturbed} records"
    return (
        f"{records} not searched: the control was {LARGEST_FACTOR:g} times off those around, other work had the cores"
    )


def change_text(change: TimeChange) -> str:
    """``+5.1 %: 12.3 ms -> 12.9 ms``."""
    times = f"{duration(change.before_seconds)} -> {duration(change.after_seconds)}"
    return f"{signed(100 * change.change, 1)} %: {times}"


def cause_text(change: TimeChange) -> str:
    """Between which commits, and what else changed there."""
    if change.commits == 0:
        where = "within one commit: the cause is not in the code"
    else:
        where = range_text(change.commit_range, change.commits)
    notes = [f"also {text}" for text in change.environment]
    if change.is_within_commit and change.commits != 0:
        doubt = f"open: both sides are records of one commit, but a place may be off by {OFF_BY} records"
        notes = [f"{doubt}, so it is one of these commits or not the code", *notes]
    return "; ".join([where, *notes])


def range_text(commits_range: str, commits: int | None) -> str:
    """``abc123..def456 (2 commits)``."""
    if commits is None:
        return commits_range
    if commits == 0:
        return "one commit on both sides"
    return f"{commits_range} ({commits} commit{'' if commits == 1 else 's'})"


def environment_text(found: AnalyzedSeries, began: EnvironmentChange) -> str:
    """``1.5200 -> 1.4700 in units of ... (ratio 0.967; medians of the last 8 records and the first 3)``."""
    unit = f"of the {found.series.unit}'s time" if found.series.is_normalized else "seconds, NOT normalized"
    last = "record" if began.before_records == 1 else f"{began.before_records} records"
    first = "one" if began.after_records == 1 else f"{began.after_records}"
    beside = "; the old environment has later records too" if began.goes_on else ""
    if found.series.is_of_gates:
        return "the base ran in the same environment as the head: what the change of it did to the time is not in here"
    medians = f"{decimal(began.before)} -> {decimal(began.after)} {unit}"
    return f"{medians} (ratio {decimal(began.ratio, 3)}; medians of the last {last} and the first {first}{beside})"


def counters_text(change: CounterChange) -> str:
    """What was counted before and after."""
    return ", ".join(change.differences)


def _counts(analysis: Analysis) -> list[str]:
    changes = [change for found in analysis.series for change in found.changes or ()]
    slower = sum(change.change > 0 for change in changes)
    counted = sum(len(found.counter_changes) for found in analysis.series)
    counts = ((slower, "slower"), (len(changes) - slower, "faster"), (counted, "with other counters"))
    began = sum(found.began is not None for found in analysis.series)
    said = [f"{many(count, 'time')} {what}" for count, what in counts if count]
    return [*said, f"{many(began, 'series', 'series')} begun in another environment"] if began else said


def _series_lines(found: AnalyzedSeries) -> Iterator[str]:
    series = found.series
    count = len(series.points)
    device = "" if series.device == "cpu" else f" on {series.device}"
    yield f"{series.benchmark}{device}  {count} point{'' if count == 1 else 's'}, {unit_text(found)}"
    yield f"  {machine_name(series.machine)}"
    yield from (f"  {text}" for text in (noise_text(found), disturbed_text(found)) if text is not None)
    if found.began is not None:
        day, versions = series.points[0].commit.author_time[:10], ", ".join(found.began.versions)
        yield f"  {day}  {ANOTHER_ENVIRONMENT}: {versions} (before: {found.began.old_identity[:6]})"
        yield f"              {environment_text(found, found.began)}"
        yield f"              {range_text(found.began.commit_range, found.began.commits)}"
    for change in found.changes or ():
        word = "slower" if change.change > 0 else "faster"
        yield f"  {series.points[change.index].commit.author_time[:10]}  {word} {change_text(change)}"
        yield f"              {cause_text(change)}"
    for counted in found.counter_changes:
        day = series.points[counted.index].commit.author_time[:10]
        yield f"  {day}  counters {counters_text(counted)}"
        yield f"              {counted.commit_range}"
    if found.is_too_short:
        yield f"  too short to find a change: {BEFORE} points before it and {AFTER} after it are required"
    elif not found.changes:
        yield "  no change of the time found"
