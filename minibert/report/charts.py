"""Line charts as inline SVG: axes with units, round ticks, and each line named at its end.

Colours come from the page's style sheet, so one drawing serves light, dark and print. Lines differ in
dash and marker too, because a reader may not tell colours apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from minibert.report.figures import decimal
from minibert.report.markup import Markup, element

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 92, 30, 46
LABEL_HEIGHT = 16
LARGEST = 1e300
"""What is drawn is smaller: the difference of two such values is still a number."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line: its name, its points, and its role, which the style sheet draws.

    A point without a value that can be drawn is left out, and the line is broken there.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    role: str = "first"

    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if y is not None and abs(y) < LARGEST]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn: lines over epochs, levels across, and boundaries between stages."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    levels: Sequence[tuple[float, str]] = ()
    boundaries: Sequence[tuple[float, str, str]] = ()
    """Where one stage ends and the next begins, and the names of both."""
    y_end: float | None = None
    """Where the values end by their nature, such as 1 for an accuracy; the axis ends there too."""


def line_chart(chart: Chart) -> Markup:
    """Draws a chart; with nothing to draw, says so."""
    drawn = [series for series in chart.series if series.finite()]
    if not drawn:
        return element("p", f"{chart.title}: nothing to draw yet.", class_="quiet")
    scale = _Scale.around([p for s in drawn for p in s.finite()], [level for level, _ in chart.levels], chart.y_end)
    alternative = f"{chart.title}. " + " ".join(
        f"{s.name}: {', '.join(decimal(y) for _, y in s.finite())}." for s in drawn
    )
    picture = element(
        "svg",
        _axes(scale, chart),
        _levels(scale, chart),
        _boundaries(scale, chart),
        (_line(scale, series) for series in drawn),
        _end_labels(scale, drawn),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=alternative,
    )
    return element("figure", element("figcaption", chart.title), picture)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that cover a range, about ``count`` of them."""
    span = high - low
    if not span > 0:
        raise ValueError(f"a range above 0 is required, but {low} to {high} came")
    rough = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def integer_ticks(low: int, high: int, count: int = 10) -> list[int]:
    """Whole numbers from ``low`` on, with a round step, about ``count`` at the most."""
    step = 1
    while (high - low) / step >= count:
        step = next(s for s in _round_steps() if s > step)
    start = low if step == 1 else -(-low // step) * step
    return list(range(start, high + 1, step))


def _round_steps() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


@dataclass(frozen=True)
class _Scale:
    """Maps epochs and values to the picture."""

    x_low: float
    x_high: float
    y_ticks: tuple[float, ...]

    @classmethod
    def around(
        cls, points: Sequence[tuple[float, float]], levels: Sequence[float], y_end: float | None = None
    ) -> _Scale:
        xs, ys = [x for x, _ in points], [y for _, y in points] + list(levels)
        low, high = min(ys), max(ys)
        room = (high - low) * 0.04 or abs(high) * 0.1 or 0.5
        top = high + room if y_end is None or high > y_end else y_end
        ticks = nice_ticks(max(low - room, 0.0) if low >= 0 else low - room, top)
        alone = 0.5 if min(xs) == max(xs) else 0.0
        return cls(min(xs) - alone, max(xs) + alone, tuple(ticks))

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _text(x: float, y: float, text: str, anchor: str = "start", class_: str | None = None, **more: str) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=class_, **more)


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Tick labels with just the digits that tell them apart."""
    step = ticks[1] - ticks[0]
    if max(abs(t) for t in ticks) >= 1e5 or step < 1e-4:
        return [f"{tick:.3g}" for tick in ticks]
    digits = next((d for d in range(6) if abs(step * 10**d - round(step * 10**d)) < 1e-6 * step * 10**d), 6)
    return [f"{tick:.{digits}f}" for tick in ticks]


def _axes(scale: _Scale, chart: Chart) -> Iterator[Markup]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick, text in zip(scale.y_ticks, tick_texts(scale.y_ticks), strict=True):
        y = scale.y(tick)
        yield element("line", x1=LEFT, x2=right, y1=y, y2=y, class_="grid")
        yield _text(LEFT - 8, y + 4, text, "end")
    for tick in integer_ticks(math.ceil(scale.x_low), math.floor(scale.x_high)):
        x = scale.x(tick)
        yield element("line", x1=x, x2=x, y1=bottom, y2=bottom + 5, class_="axis")
        yield _text(x, bottom + 19, str(tick), "middle")
    yield element("line", x1=LEFT, x2=right, y1=bottom, y2=bottom, class_="axis")
    yield _text((LEFT + right) / 2, HEIGHT - 8, chart.x_label, "middle", "label")
    yield _text(0, 14, chart.y_label, "start", "label")


def _levels(scale: _Scale, chart: Chart) -> Iterator[Markup]:
    for value, name in chart.levels:
        y = scale.y(value)
        yield element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="level")
        below = y + 15 < HEIGHT - BOTTOM  # in the end, lines are above a level more often than below it
        yield _text(WIDTH - RIGHT - 4, y + 15 if below else y - 5, name, "end", "halo")


def _boundaries(scale: _Scale, chart: Chart) -> Iterator[Markup]:
    for value, before, after in chart.boundaries:
        x = scale.x(value)
        yield element("line", x1=x, x2=x, y1=TOP - 4, y2=HEIGHT - BOTTOM, class_="boundary")
        yield _text(x - 6, TOP + 6, before, "end", "halo")
        yield _text(x + 6, TOP + 6, after, "start", "halo")


def _line(scale: _Scale, series: Series) -> Markup:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in series.points:
        if y is None or not abs(y) < LARGEST:
            runs.append([])
        else:
            runs[-1].append((x, y))
    lines = (
        element("polyline", points=" ".join(f"{scale.x(x)},{scale.y(y)}" for x, y in run))
        for run in runs
        if len(run) > 1
    )
    points = series.finite()
    radius = 3.5 if len(points) <= 30 else 1.5
    dots = (
        element(
            "circle",
            element("title", f"{series.name}, epoch {x:g}: {decimal(y)}"),
            cx=scale.x(x),
            cy=scale.y(y),
            r=radius,
        )
        for x, y in points
    )
    return element("g", lines, dots, class_=f"series {series.role}")


def _end_labels(scale: _Scale, drawn: Sequence[Series]) -> Iterator[Markup]:
    """Names at the right edge, each as near to its line's end as the others let it be."""
    wanted = sorted((scale.y(s.finite()[-1][1]), i) for i, s in enumerate(drawn))
    places: list[float] = []
    for y, _ in wanted:
        places.append(max(y, places[-1] + LABEL_HEIGHT) if places else max(y, TOP))
    overflow = max(0.0, places[-1] - (HEIGHT - BOTTOM))
    for i in reversed(range(len(places))):
        limit = places[i + 1] - LABEL_HEIGHT if i + 1 < len(places) else places[i] - overflow
        places[i] = min(places[i], limit)
    for (y, i), place in zip(wanted, places, strict=True):
        series = drawn[i]
        x_end = scale.x(series.finite()[-1][0])
        edge = WIDTH - RIGHT
        leader = element("line", x1=x_end + 5, x2=edge + 7, y1=y, y2=place, class_="leader")
        if x_end + 5 < edge + 7 and (abs(place - y) > 2 or x_end < edge - 2):
            yield element("g", leader, class_=f"series {series.role}")
        yield _text(edge + 10, place + 4, series.name, "start", f"name {series.role}")
