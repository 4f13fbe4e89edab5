"""The history for a terminal: a heading for each series, and a line for each change in it."""

from __future__ import annotations

from collections.abc import Iterator

from minibert.perf.change_points import AFTER, BEFORE, NOISY
from minibert.perf.series import LARGEST_FACTOR, machine_name
from minibert.perf.since_when import Analysis, AnalyzedSeries, CounterChange, TimeChange
from minibert.report.figures import duration, percent, signed


def as_lines(analysis: Analysis) -> Iterator[str]:
    """Lines for a terminal."""
    for found in analysis.series:
        yield from _series_lines(found)
        yield ""
    for notice in analysis.notices:
        yield f"note: {notice}"


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
    elif change.commits is None:
        where = change.commit_range
    else:
        where = f"{change.commit_range} ({change.commits} commit{'' if change.commits == 1 else 's'})"
    return "; ".join([where, *(f"also {text}" for text in change.environment)])


def counters_text(change: CounterChange) -> str:
    """What was counted before and after."""
    return ", ".join(change.differences)


def _series_lines(found: AnalyzedSeries) -> Iterator[str]:
    series = found.series
    count = len(series.points)
    device = "" if series.device == "cpu" else f" on {series.device}"
    yield f"{series.benchmark}{device}  {count} point{'' if count == 1 else 's'}, {unit_text(found)}"
    yield f"  {machine_name(series.machine)}"
    yield from (f"  {text}" for text in (noise_text(found), disturbed_text(found)) if text is not None)
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
