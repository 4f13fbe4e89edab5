"""The ratios as a horizontal bar chart: an SVG file that stands alone, for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.peers_table import PEER_NAMES, STEP_NAMES, Row, outcome
from minibert.report.charts import nice_ticks
from minibert.report.markup import Markup, element

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 250, 70, 44, 44
BAR, GAP, GROUP_GAP = 18, 8, 30

_STYLE = Markup(
    "text{font:13px system-ui,sans-serif;fill:#1f2933}.title{font-weight:600}.quiet{fill:#5b6770}"
    ".grid{stroke:#d5dbe0}.one{stroke:#5b6770;stroke-dasharray:4 3}.range{stroke:#1f2933;stroke-width:1.5}"
    ".notebook{fill:#2f6f9f}.keras-hub{fill:#c2762b}.pytorch{fill:#7a4f9c}.pytorch-full{fill:#4f8f5b}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e9ec}.quiet{fill:#a4adb5}.grid{stroke:#3a444d}"
    ".one{stroke:#a4adb5}.range{stroke:#e6e9ec}.notebook{fill:#5fa3d6}.keras-hub{fill:#e09a52}.pytorch{fill:#a981cc}.pytorch-full{fill:#7cba88}}"
)


def picture(rows: Sequence[Row]) -> str:
    """Draws measured rows, grouped by shape; a bar is how many of our steps fit into one of the peer's.

    Args:
        rows: Those without figures are named, without a bar.
    """
    shapes = list(dict.fromkeys(row.shape for row in rows))
    longest = max((row.ratio_high for row in rows if row.ratio_high is not None), default=1.0)
    ticks = nice_ticks(0.0, max(longest, 1.0))
    height = TOP + BOTTOM + len(rows) * (BAR + GAP) + len(shapes) * GROUP_GAP

    def x(ratio: float) -> float:
        return round(LEFT + ratio / ticks[-1] * (WIDTH - LEFT - RIGHT), 1)

    def drawn() -> Iterator[Markup]:
        yield element("text", "Our training steps beside others': how many times faster", x=8, y=20, class_="title")
        for tick in ticks:
            yield element("line", x1=x(tick), x2=x(tick), y1=TOP, y2=height - BOTTOM, class_="grid")
            label = f"{tick:g}×"
            yield element("text", label, x=x(tick), y=height - BOTTOM + 18, text_anchor="middle", class_="quiet")
        yield element("line", x1=x(1.0), x2=x(1.0), y1=TOP, y2=height - BOTTOM, class_="one")
        y = float(TOP)
        for shape in shapes:
            yield element("text", f"shape {shape}", x=8, y=y + 18, class_="title")
            y += GROUP_GAP
            for row in rows:
                if row.shape == shape:
                    yield _bar(row, x, y)
                    y += BAR + GAP

    return element(
        "svg",
        element("style", _STYLE),
        drawn(),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        height=height,
        role="img",
        aria_label="; ".join(f"{row.shape}, {_name(row)}: {outcome(row)}" for row in rows),
    )


def _name(row: Row) -> str:
    return f"{STEP_NAMES[row.step]}, {PEER_NAMES.get(row.peer, row.peer)}"


def _bar(row: Row, x: Any, y: float) -> Markup:
    baseline, middle = y + BAR - 4, y + BAR / 2
    label = element("text", _name(row), x=LEFT - 8, y=baseline, text_anchor="end")
    if row.ratio is None:
        return element("g", label, element("text", outcome(row), x=x(0) + 6, y=baseline, class_="quiet"))
    end, low, high = x(row.ratio), x(row.ratio_low), x(row.ratio_high)
    return element(
        "g",
        label,
        element("rect", x=x(0), y=y, width=round(end - x(0), 1), height=BAR, class_=row.peer),
        element("line", x1=low, x2=high, y1=middle, y2=middle, class_="range"),
        element("text", outcome(row), x=max(high, end) + 6, y=baseline),
    )
