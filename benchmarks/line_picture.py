"""Lines over steps as one SVG that stands alone: a panel for each stage, for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from minibert.report.charts import nice_ticks
from minibert.report.markup import Markup, element

PANEL, PANEL_HEIGHT, LEFT, TOP, GAP, BOTTOM, LEGEND = 260, 190, 52, 62, 66, 46, 110

_STYLE = Markup(
    "text{font:12px system-ui,sans-serif;fill:#1f2933}.title{font-size:14px;font-weight:600}.name{font-weight:600}"
    ".quiet{fill:#5b6770}.grid{stroke:#d5dbe0}polyline{fill:none;stroke-width:1.6}"
    ".line0{stroke:#2f6f9f}.line1{stroke:#c2762b;stroke-dasharray:5 3}.line2{stroke:#7a4f9c;stroke-dasharray:2 3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e9ec}.quiet{fill:#a4adb5}.grid{stroke:#3a444d}"
    ".line0{stroke:#5fa3d6}.line1{stroke:#e09a52}.line2{stroke:#a981cc}}"
)


@dataclass(frozen=True)
class Line:
    """A name and its points."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Lines over one pair of axes."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]


def line_picture(title: str, panels: Sequence[Panel]) -> str:
    """Draws panels side by side; the same line has the same dash in each, and its name at the right."""
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    width, height = LEFT + len(panels) * (PANEL + GAP) + LEGEND, TOP + PANEL_HEIGHT + BOTTOM
    return element(
        "svg",
        element("style", _STYLE),
        element("text", title, x=8, y=20, class_="title"),
        (_panel(LEFT + number * (PANEL + GAP), panel, names) for number, panel in enumerate(panels)),
        (_legend(width - LEGEND, TOP + 12 + 22 * number, name, number) for number, name in enumerate(names)),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=f"{title}. "
        + " ".join(
            f"{panel.title}, {line.name}: from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}."
            for panel in panels
            for line in panel.lines
            if line.points
        ),
    )


def _legend(x: float, y: float, name: str, number: int) -> Iterator[Markup]:
    yield element("polyline", points=f"{x},{y} {x + 26},{y}", class_=f"line{number}")
    yield element("text", name, x=x + 32, y=y + 4)


def _panel(left: float, panel: Panel, names: Sequence[str]) -> Iterator[Markup]:
    points = [point for line in panel.lines for point in line.points]
    ys = [y for _, y in points]
    room = (max(ys) - min(ys)) * 0.03 or 0.5
    y_ticks = nice_ticks(min(ys) - room, max(ys) + room, 4)
    x_ticks = nice_ticks(0.0, max(x for x, _ in points), 3)

    def place(x: float, y: float) -> tuple[float, float]:
        across = x / x_ticks[-1]
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(left + across * PANEL, 1), round(TOP + PANEL_HEIGHT * (1.0 - up), 1)

    bottom = TOP + PANEL_HEIGHT
    yield element("text", panel.title, x=left, y=TOP - 14, class_="name")
    for tick in y_ticks:
        y = place(0.0, tick)[1]
        yield element("line", x1=left, x2=left + PANEL, y1=y, y2=y, class_="grid")
        yield element("text", f"{tick:.4g}", x=left - 6, y=y + 4, text_anchor="end", class_="quiet")
    for tick in x_ticks:
        x = place(tick, y_ticks[0])[0]
        yield element("text", f"{tick:g}", x=x, y=bottom + 16, text_anchor="middle", class_="quiet")
    yield element("text", panel.x_label, x=left + PANEL / 2, y=bottom + 34, text_anchor="middle", class_="quiet")
    yield element("text", panel.y_label, x=left + PANEL, y=TOP - 14, text_anchor="end", class_="quiet")
    for line in panel.lines:
        drawn = " ".join("{},{}".format(*place(x, y)) for x, y in line.points)
        yield element("polyline", points=drawn, class_=f"line{names.index(line.name)}")
