"""HTML and SVG as escaped text: what is not marked as markup is escaped, wherever it came from.

Corpus texts, class names, paths and settings are a user's and go into the page; only `element` makes
`Markup`, so nothing of theirs can become a tag.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is already safe HTML."""

    __slots__ = ()


Content = str | int | float | Iterable["Content"] | None  # a str that is not Markup is escaped

_VOID = frozenset({"meta", "br", "hr", "line", "circle", "rect", "polyline", "path"})


def escape(content: Content) -> Markup:
    """Content as safe markup: Markup as it stands, text escaped, an iterable joined, None nothing."""
    if content is None:
        return Markup("")
    if isinstance(content, Markup):
        return content
    if isinstance(content, str | int | float):
        return Markup(html.escape(_without_controls(str(content))))
    return Markup("".join(escape(part) for part in content))


def element(name: str, /, *content: Content, **attributes: str | int | float | None) -> Markup:
    """An element; ``class_`` is class, ``stroke_width`` is stroke-width, None leaves an attribute out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-") if key != "viewBox" else key}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not content:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")


def table(
    head: Sequence[Content], rows: Iterable[Sequence[Content]], *, numeric: Sequence[int] = (), grouped: bool = False
) -> Markup:
    """A table that scrolls by itself on a narrow screen.

    Args:
        head: The columns' titles.
        rows: The cells.
        numeric: Columns that are set to the right.
        grouped: Each row's first cell names its group; it becomes a heading row above the group.
    """

    def cells(name: str, values: Sequence[Content]) -> Markup:
        return escape(element(name, v, class_="number" if i in numeric else None) for i, v in enumerate(values))

    body, group = [], None
    for row in rows:
        if grouped and row[0] != group:
            group = row[0]
            body.append(element("tr", element("th", group, colspan=len(head), scope="rowgroup"), class_="group"))
        body.append(element("tr", cells("td", row[1:] if grouped else row)))
    top = element("thead", element("tr", cells("th", head)))
    return element("div", element("table", top, element("tbody", body)), class_="scroll")


def facts(pairs: Iterable[tuple[Content, Content]]) -> Markup:
    """A list of named values; a pair whose value is None is left out."""
    return element("dl", (element("div", element("dt", k), element("dd", v)) for k, v in pairs if v is not None))


def section(title: str, *content: Content) -> Markup:
    """A section of the page with its heading."""
    return element("section", element("h2", title), *content)


def _without_controls(text: str) -> str:
    """Control characters are not allowed in HTML; line ends and tabs are."""
    return "".join(c if c >= " " or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text if c != "\x7f")
