"""A series as inline SVG: a dot for each record, a level between changes, and what changed where.

Colours and type come from the style of minibert's other page. Points stand at equal distances, in the
order of their commits: time without a record has no width. The axis stands at the newest.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise

from minibert.perf.history_text import change_text, counters_text
from minibert.perf.since_when import AnalyzedSeries, TimeChange
from minibert.report.charts import integer_ticks, nice_ticks, tick_texts
from minibert.report.figures import decimal, duration, signed
from minibert.report.markup import Markup, element

WIDTH, HEIGHT = 760, 310
LEFT, RIGHT, TOP, BOTTOM = 14, 60, 58, 50
_MOST_WHISKERS = 150
_MOST_WORDS = 4
_WIDEST_SPREAD = 0.5
"""A quartile further away than so many ranges of the medians is cut: it would flatten the rest."""


def series_chart(found: AnalyzedSeries) -> Markup:
    """Draws one series."""
    frame = _Frame(found)
    changes = found.changes or ()
    picture = element(
        "svg",
        frame.axes(),
        _counter_marks(frame),
        _levels(frame, changes) if found.changes is not None else None,
        _points(frame),
        _change_marks(frame, changes),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=_alternative(found),
    )
    return element("div", picture, class_="scroll history")


class _Frame:
    """Maps record numbers and times to the picture."""

    def __init__(self, found: AnalyzedSeries) -> None:
        self.found, self.points = found, found.series.points
        proving = [point for point in self.points if not point.is_disturbed] or self.points
        medians = [point.value for point in proving]
        low, high = min(medians), max(medians)
        reach = _WIDEST_SPREAD * max(high - low, 0.02 * high)
        self.low = max(min(point.low for point in proving), low - reach, 0.0)
        self.high = min(max(point.high for point in proving), high + reach)
        room = 0.06 * (self.high - self.low) or 0.05 * high
        self.ticks = nice_ticks(max(self.low - room, 0.0), self.high + room)

    def x(self, place: float) -> float:
        share = (place + 0.5) / len(self.points)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def axes(self) -> Iterator[Markup]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for tick, text in zip(self.ticks, tick_texts(self.ticks), strict=True):
            share = (tick - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
            y = round(bottom - share * (bottom - TOP), 1)
            yield element("line", x1=LEFT, x2=right, y1=y, y2=y, class_="grid")
            yield _text(right + 8, y + 4, text)
        yield element("line", x1=LEFT, x2=right, y1=bottom, y2=bottom, class_="axis")
        for number in _label_places(len(self.points)):
            x, commit = self.x(number), self.points[number].commit
            yield element("line", x1=x, x2=x, y1=bottom, y2=bottom + 5, class_="axis")
            anchor = "start" if x < LEFT + 40 else "end" if x > right - 40 else "middle"
            yield _text(x, bottom + 19, commit.id[:7], anchor, "commit")
            yield _text(x, bottom + 35, commit.author_time[:10], anchor)
        unit = f"time / {self.found.series.unit}'s" if self.found.series.is_normalized else "seconds, not normalized"
        yield _text(WIDTH, 12, unit, "end", "label")


def _label_places(count: int) -> Sequence[int]:
    """At most six records are labelled, the first and the last among them."""
    if count == 1:
        return [0]
    inner = integer_ticks(0, count - 1, 5)
    least = (count - 1) / 6
    return [0, *(place for place in inner if least < place < count - 1 - least), count - 1]


def _points(frame: _Frame) -> Iterator[Markup]:
    points = frame.points
    radius = 3.5 if len(points) <= 60 else 2.2 if len(points) <= 200 else 1.4
    for number, point in enumerate(points):
        x = frame.x(number)
        when = f"{point.commit.id[:10]}, {point.commit.author_time[:10]}"
        words = f"{when}: {decimal(point.value)} ({duration(point.seconds)})"
        whisker = element("line", x1=x, x2=x, y1=frame.y(point.low), y2=frame.y(point.high), class_="whisker")
        dot = element("circle", element("title", words), cx=x, cy=frame.y(point.value), r=radius)
        yield element("g", whisker if len(points) <= _MOST_WHISKERS else None, dot,
                      class_="series first disturbed" if point.is_disturbed else "series first")  # fmt: skip


def _levels(frame: _Frame, changes: Sequence[TimeChange]) -> Iterator[Markup]:
    """The median between two changes, as a line across it."""
    for start, end in pairwise([0, *(change.index for change in changes), len(frame.points)]):
        inside = frame.points[start:end]
        y = frame.y(statistics.median([p.value for p in inside if not p.is_disturbed] or [p.value for p in inside]))
        yield element("line", x1=frame.x(start - 0.4), x2=frame.x(end - 0.6), y1=y, y2=y, class_="segment")


def _change_marks(frame: _Frame, changes: Sequence[TimeChange]) -> Iterator[Markup]:
    """What changed, above a line through the picture; where there are many, the table below has the commits."""
    width = 126 if len(changes) <= _MOST_WORDS else 62
    taken = [-math.inf, -math.inf]  # where the last word of each of two rows ends
    for change in changes:
        x = frame.x(change.index - 0.5)
        kind = "slower" if change.change > 0 else "faster"
        start = min(max(x - width / 2, 0), WIDTH - RIGHT - width)
        row = 0 if start > taken[0] else 1
        taken[row] = start + width
        yield element("line", x1=x, x2=x, y1=TOP - 4, y2=HEIGHT - BOTTOM, class_=f"change {kind}")
        commit = frame.points[change.index].commit.id[:7] if len(changes) <= _MOST_WORDS else ""
        words = f"{signed(100 * change.change, 1)} % {commit}".rstrip()
        title = element("title", f"{change.commit_range}: {change_text(change)}")
        middle = round(start + width / 2, 1)
        yield element("text", words, title, x=middle, y=TOP - 10 - 15 * row, text_anchor="middle",
                      class_=f"halo change {kind}")  # fmt: skip


def _counter_marks(frame: _Frame) -> Iterator[Markup]:
    """A line with a diamond at the foot, where exact counters changed."""
    foot = HEIGHT - BOTTOM
    for change in frame.found.counter_changes:
        x = frame.x(change.index - 0.5)
        yield element("line", x1=x, x2=x, y1=TOP, y2=foot, class_="counters")
        words = element("title", f"{change.commit_range}: {counters_text(change)}")
        yield element("path", words, d=f"M{x} {foot - 7}l6 7l-6 7l-6 -7z", class_="counters")


def _alternative(found: AnalyzedSeries) -> str:
    series = found.series
    said = [f"{series.benchmark}: {len(series.points)} records."]
    said += [f"{change.commit_range}: {change_text(change)}." for change in found.changes or ()]
    said += [f"{change.commit_range}: counters {counters_text(change)}." for change in found.counter_changes]
    return " ".join(said)


def _text(x: float, y: float, text: str, anchor: str = "start", class_: str | None = None) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=class_)
