"""How cost grows, as one SVG: a column of two log-log panels, time above memory, for each thing that grows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minibert.report.markup import Markup, element

PANEL, PANEL_HEIGHT, LEFT, TOP, GAP, ROW_GAP, BOTTOM = 150, 130, 70, 58, 76, 56, 40

Points = Sequence[tuple[float, float]]

_TITLE = "How cost grows: measured, and dashed as expected (logarithmic axes; hollow: others took cores meanwhile)"
_STYLE = Markup(
    "text{font:12px system-ui,sans-serif;fill:#1f2933}.title{font-size:14px;font-weight:600}.name{font-weight:600}"
    ".quiet{fill:#5b6770}.grid{stroke:#d5dbe0}.measured{stroke:#2f6f9f;stroke-width:2;fill:none}"
    ".point{fill:#2f6f9f;stroke:#2f6f9f;stroke-width:1.5}.point.disturbed{fill:none}"
    ".expected{stroke:#c2762b;stroke-width:1.5;stroke-dasharray:5 4;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e9ec}.quiet{fill:#a4adb5}.grid{stroke:#3a444d}"
    ".measured{stroke:#5fa3d6}.point{fill:#5fa3d6;stroke:#5fa3d6}.expected{stroke:#e09a52}}"
)


@dataclass(frozen=True)
class Drawn:
    """One thing that grows.

    Attributes:
        title: For people.
        slopes: Exponents of `benchmarks.growth.fitted`.
        rows: By size.
        disturbed: Of each row, whether its time is not its own.
    """

    title: str
    slopes: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    disturbed: Sequence[bool]


def picture(axes: Sequence[Drawn]) -> str:
    """Draws the measured points; a dashed line through the last one, of the times that are not
    disturbed, has the expected growth.

    Args:
        axes: Left to right.
    """
    width = LEFT + len(axes) * (PANEL + GAP)
    height = TOP + 2 * PANEL_HEIGHT + ROW_GAP + BOTTOM
    return element(
        "svg",
        element("style", _STYLE),
        element("text", _TITLE, x=8, y=20, class_="title"),
        (_column(number, axis) for number, axis in enumerate(axes)),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label="; ".join(
            f"{axis.title}: time with exponent {_figure(axis.slopes['time'])}, "
            f"expected {_figure(axis.slopes['time_expected'])}; "
            f"memory {_figure(axis.slopes['memory'])}, expected {_figure(axis.slopes['memory_expected'])}"
            for axis in axes
        ),
    )


def _figure(slope: float | None) -> str:
    return "not known" if slope is None else f"{slope:.2f}"


def _column(number: int, axis: Drawn) -> Iterator[Markup]:
    left, slopes, rows = LEFT + number * (PANEL + GAP), axis.slopes, axis.rows
    xs = [float(row["value"]) for row in rows]
    last = ([row for row, hollow in zip(rows, axis.disturbed, strict=True) if not hollow] or rows)[-1]
    seconds = [(x, row["seconds"]) for x, row in zip(xs, rows, strict=True)]
    work = [(x, last["seconds"] * row["work"] / last["work"]) for x, row in zip(xs, rows, strict=True)]
    memory = [(x, (row["peak_bytes"] - row["baseline_bytes"]) / 1e9) for x, row in zip(xs, rows, strict=True)]
    limit = [(x, memory[-1][1] * (x / xs[-1]) ** slopes["memory_expected"]) for x in xs[-3:]]
    yield element("text", axis.title, x=left, y=TOP - 14, class_="name")
    caption = f"time: {_figure(slopes['time'])}, expected {_figure(slopes['time_expected'])}"
    yield from _panel(left, TOP, seconds, work, "s", caption, hollow=axis.disturbed)
    caption = f"memory: {_figure(slopes['memory'])}, limit {_figure(slopes['memory_expected'])}"
    top = TOP + PANEL_HEIGHT + ROW_GAP
    yield from _panel(left, top, memory, limit, "GB", caption, hollow=[False] * len(rows))


def _panel(
    left: float, top: float, measured: Points, expected: Points, unit: str, caption: str, *, hollow: Sequence[bool]
) -> Iterator[Markup]:
    values = [y for _, y in [*measured, *expected] if y > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    first, last = math.log10(measured[0][0]), math.log10(measured[-1][0])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - first) / ((last - first) or 1.0)
        up = (math.log10(y) - low) / (high - low)
        return round(left + across * PANEL, 1), round(top + PANEL_HEIGHT * (1.0 - up), 1)

    for power in range(low, high + 1):
        y = place(measured[0][0], 10.0**power)[1]
        yield element("line", x1=left, x2=left + PANEL, y1=y, y2=y, class_="grid")
        yield element("text", f"{10.0**power:g} {unit}", x=left - 6, y=y + 4, text_anchor="end", class_="quiet")
    for (x, _), anchor in ((measured[0], "start"), (measured[-1], "end")):
        at = place(x, 10.0**low)[0]
        yield element("text", f"{x:,.0f}", x=at, y=top + PANEL_HEIGHT + 16, text_anchor=anchor, class_="quiet")
    yield element("text", caption, x=left, y=top + PANEL_HEIGHT + 32)
    for points, class_ in ((expected, "expected"), (measured, "measured")):
        drawn = " ".join("{},{}".format(*place(x, y)) for x, y in points if y > 0)
        yield element("polyline", points=drawn, class_=class_)
    for (x, y), is_hollow in zip(measured, hollow, strict=True):
        if y > 0:
            at, up = place(x, y)
            said = element("title", f"{x:,.0f}: {y:.3g} {unit}")
            yield element("circle", said, cx=at, cy=up, r=3, class_="point disturbed" if is_hollow else "point")
