"""The power curve as an SVG file that stands alone: how often is so much extra work called slower?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from minibert.perf.decision import SLOWER, UNPROVEN
from minibert.perf.error_study.replay import Rates
from minibert.report.markup import Markup, element

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 380, 64, 170, 48, 56
LARGEST_LEVEL = 10.0
_BESIDE = {"none": -3, "light": 0, "busy": 3}
"""How far right of its level a neighbour's bar stands, in pixels."""

_STYLE = Markup(
    "text{font:13px system-ui,sans-serif;fill:#1f2933}.title{font-weight:600}.quiet{fill:#5b6770}"
    ".grid{stroke:#d5dbe0}.goal{stroke:#5b6770;stroke-dasharray:4 3}"
    "polyline{fill:none;stroke-width:2}.none{stroke:#2f6f9f}.light{stroke:#3c8a5b;stroke-dasharray:2 3}"
    ".busy{stroke:#c2762b;stroke-dasharray:7 4}"
    "circle.none{fill:#2f6f9f}circle.light{fill:#3c8a5b}circle.busy{fill:#c2762b}"
    "text.none{fill:#2f6f9f;stroke:none}text.light{fill:#3c8a5b;stroke:none}text.busy{fill:#c2762b;stroke:none}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e9ec}.quiet{fill:#a4adb5}.grid{stroke:#3a444d}"
    ".goal{stroke:#a4adb5}.none{stroke:#5fa3d6}.light{stroke:#6fbf8f}.busy{stroke:#e09a52}"
    "circle.none,text.none{fill:#5fa3d6}circle.light,text.light{fill:#6fbf8f}circle.busy,text.busy{fill:#e09a52}}"
)


def power_curve(found: Mapping[str, Sequence[Rates]], *, threshold: float) -> str:
    """Draws the share of gates that call a level slower, by neighbour.

    A vertical bar is the Clopper-Pearson interval of the separate gates.

    Args:
        found: Rates by neighbour: ``none``, ``light``, ``busy``.
        threshold: The gate's, relative.
    """
    return element(
        "svg",
        element("style", _STYLE),
        element("text", "How often the gate calls a step with extra arithmetic slower", x=8, y=20, class_="title"),
        _axes(threshold),
        (_curve(kind, rates) for kind, rates in found.items()),
        _names(found),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        role="img",
        aria_label="; ".join(
            f"neighbour {kind}: " + ", ".join(f"{each.level:g} %: {each.rate(SLOWER):.1%}" for each in rates)
            for kind, rates in found.items()
        ),
    )


def _x(level: float) -> float:
    return round(LEFT + level / LARGEST_LEVEL * (WIDTH - LEFT - RIGHT), 1)


def _y(rate: float) -> float:
    return round(HEIGHT - BOTTOM - rate * (HEIGHT - TOP - BOTTOM), 1)


def _axes(threshold: float) -> Iterator[Markup]:
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=_y(share), y2=_y(share), class_="grid")
        yield element("text", f"{share:.0%}", x=LEFT - 8, y=_y(share) + 4, text_anchor="end", class_="quiet")
    for level in (0, 1, 2, 3, 5, 10):
        yield element(
            "text",
            f"+{level} %" if level else "none",
            x=_x(level),
            y=HEIGHT - BOTTOM + 20,
            text_anchor="middle",
            class_="quiet",
        )
    place = _x(100 * threshold)
    yield element("line", x1=place, x2=place, y1=_y(1) - 4, y2=_y(0), class_="goal")
    yield element("text", f"threshold {threshold:.1%}", x=place + 6, y=_y(0) - 8, class_="quiet")
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield element("text", "extra arithmetic in the step", x=middle, y=HEIGHT - 12, text_anchor="middle", class_="quiet")


def _curve(kind: str, rates: Sequence[Rates]) -> Markup:
    points = [(_x(each.level), _y(each.rate(SLOWER))) for each in rates]
    return element(
        "g",
        (_bar(kind, each) for each in rates if each.separate.total()),
        element("polyline", points=" ".join(f"{x},{y}" for x, y in points), class_=kind),
        (element("circle", cx=x, cy=y, r=4, class_=kind) for x, y in points),
    )


def _bar(kind: str, each: Rates) -> Markup:
    low, high = each.bounds(SLOWER)
    place = _x(each.level) + _BESIDE[kind]
    return element("line", x1=place, x2=place, y1=_y(low), y2=_y(high), class_=kind, opacity="0.45")


def _names(found: Mapping[str, Sequence[Rates]]) -> Iterator[Markup]:
    for place, (kind, rates) in enumerate(found.items()):
        words = {"none": "quiet machine", "light": "light neighbour", "busy": "busy neighbour"}[kind]
        y = TOP + 12 + 44 * place
        yield element("text", words, x=WIDTH - RIGHT + 14, y=y, class_=kind)
        unproven = sum(each.rate(UNPROVEN) for each in rates) / max(1, len(rates))
        yield element("text", f"{unproven:.0%} unproven", x=WIDTH - RIGHT + 14, y=y + 18, class_="quiet")
    for place, words in enumerate(("bars: 95 % bounds", "of separate gates")):
        yield element("text", words, x=WIDTH - RIGHT + 14, y=_y(0) - 18 + 18 * place, class_="quiet")
