"""The page of ``minibert perf report``: one file, no network, no script; the history and the last gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import groupby
from typing import Any

from minibert.perf.change_points import AFTER, BEFORE
from minibert.perf.history_chart import series_chart
from minibert.perf.history_gate import gate_section
from minibert.perf.history_text import (
    ANOTHER_ENVIRONMENT,
    cause_text,
    disturbed_text,
    environment_text,
    headline,
    many,
    noise_text,
    range_text,
    unit_text,
)
from minibert.perf.series import machine_name
from minibert.perf.since_when import Analysis, AnalyzedSeries, TimeChange
from minibert.report import figures
from minibert.report.markup import Content, Markup, element, escape, section, table

TITLE, GATE_TITLE = "Since when?", "Is it slower?"
"""With a history, and of a gate alone."""


def render_page(analysis: Analysis | None, gate: Mapping[str, Any] | None, not_searched: str | None) -> str:
    """The whole page.

    Args:
        analysis: Of `minibert.perf.since_when`; None: there is no history, and the page says so.
        gate: From `read_gate`; None: no gate is shown.
        not_searched: Why no change point was searched; None where it was done.

    Determinism: the same arguments give the same text.
    """
    body = [
        _header(analysis, not_searched),
        None if analysis is None else (_newest(analysis), _environments(analysis)),
        None if gate is None else gate_section(gate),
        None if analysis is None else _all_series(analysis, not_searched),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{_title(analysis)} · minibert perf"),
        element("style", Markup(_style("minibert.report", "style.css") + _style("minibert.perf", "history.css"))),
    ]
    return f"<!DOCTYPE html>\n{element('html', element('head', head), element('body', escape(body)), lang='en')}\n"


def _style(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _warning(not_searched: str | None) -> Markup | None:
    if not_searched is None:
        return None
    return element("p", element("strong", "Change points were NOT searched. "),
                   f"No mark in a picture below does not mean that nothing changed. {not_searched}",
                   class_="warning", role="alert")  # fmt: skip


def _title(analysis: Analysis | None) -> str:
    return GATE_TITLE if analysis is None else TITLE


def _header(analysis: Analysis | None, not_searched: str | None) -> Markup:
    over, title = element("p", "minibert perf", class_="over"), element("h1", _title(analysis))
    if analysis is None:
        alone = "There is no history yet: this page has the last gate only."
        return element("header", over, title, element("p", alone, class_="verdict"))
    said = element("p", headline(analysis, not_searched), class_="verdict")
    return element("header", over, title, _warning(not_searched), said)


def _all_series(analysis: Analysis, not_searched: str | None) -> Iterator[Markup]:
    for name, found in groupby(analysis.series, lambda found: found.series.benchmark):
        yield section(name, (_series(one) for one in found))
    yield _foot(analysis, not_searched)


def _newest(analysis: Analysis) -> Markup | None:
    """All changes of time, the newest first."""
    changes = [(found, change) for found in analysis.series for change in found.changes or ()]
    if not changes:
        return None
    changes.sort(key=lambda pair: pair[0].series.points[pair[1].index].commit.author_time, reverse=True)
    rows = [(_day(found, change.index), found.series.benchmark, _machine(found), _change(change),
             element("code", change.commit_range)) for found, change in changes]  # fmt: skip
    head = ("since", "benchmark", "kind of machine", "change", "commits")
    return section("Changes, the newest first", table(head, rows, numeric=(3,)))


def _environments(analysis: Analysis) -> Markup | None:
    """Where a series ends because the versions changed, and the next begins; the newest first."""
    found = [(one, one.began) for one in analysis.series if one.began is not None]
    if not found:
        return None
    found.sort(key=lambda pair: pair[0].series.points[0].commit.author_time, reverse=True)
    rows = [(_day(one, 0), one.series.benchmark, f"{began.old_identity[:6]} → {_machine(one)}",
             [element("div", text, class_="version") for text in began.versions], environment_text(one, began),
             element("code", range_text(began.commit_range, began.commits))) for one, began in found]  # fmt: skip
    head = ("since", "benchmark", "environment", "versions", "time", "commits")
    note = element("p", "These are no change points: the versions are part of what a time is measured on, so a series "
                   "ends there and another begins. What the code did between the two is not told apart.",
                   class_="quiet")  # fmt: skip
    return section("Other environments, the newest first", note, table(head, rows))


def _series(found: AnalyzedSeries) -> Iterator[Markup]:
    device = "" if found.series.device == "cpu" else f", on {found.series.device}"
    said = [unit_text(found), noise_text(found), disturbed_text(found)]
    yield element("h3", f"{machine_name(found.series.machine)}{device}")
    yield element("p", f"{many(len(found.series.points), 'record')}, {'; '.join(text for text in said if text)}.",
                  class_="quiet")  # fmt: skip
    if found.began is not None:
        since = f"Begins on {_day(found, 0)} in {ANOTHER_ENVIRONMENT}"
        yield element("p", f"{since}: {', '.join(found.began.versions)}; {environment_text(found, found.began)}.")
    yield series_chart(found)
    rows = sorted([*_time_rows(found), *_counter_rows(found)], key=lambda row: row[0])
    if rows:
        head = ("since", "what", "before", "after", "change", "commits")
        yield table(head, [cells for _, cells in rows], numeric=(4,))
    if found.is_too_short:
        yield element("p", f"Too short to find a change of the time: {BEFORE} records before it and {AFTER} after it "
                      "are required.", class_="quiet")  # fmt: skip
    elif found.changes is not None and not found.changes:
        yield element("p", "No change of the time found.", class_="quiet")


def _time_rows(found: AnalyzedSeries) -> Iterator[tuple[int, tuple[Content, ...]]]:
    for change in found.changes or ():
        what = "slower" if change.change > 0 else "faster"
        yield (
            change.index,
            (
                _day(found, change.index),
                element("span", what, class_=f"word {what}"),
                figures.duration(change.before_seconds),
                figures.duration(change.after_seconds),
                _change(change),
                _cause(change),
            ),
        )


def _counter_rows(found: AnalyzedSeries) -> Iterator[tuple[int, tuple[Content, ...]]]:
    for change in found.counter_changes:
        what = [element("i", class_="diamond"), "counters"]
        yield (
            change.index,
            (
                _day(found, change.index),
                what,
                *_counters_cells(change.differences),
                "",
                element("code", change.commit_range),
            ),
        )


def _counters_cells(differences: Sequence[str]) -> tuple[Content, Content]:
    """What was counted before and after, each in its column."""
    pairs = [text.rsplit(" -> ", 1) for text in differences]
    return [element("div", before) for before, _ in pairs], [element("div", after) for _, after in pairs]


def _cause(change: TimeChange) -> Content:
    where, *others = cause_text(change).split("; ")
    return [element("code", where), *(element("div", text, class_="quiet") for text in others)]


def _change(change: TimeChange) -> str:
    return f"{figures.signed(100 * change.change, 1)} %"


def _day(found: AnalyzedSeries, index: int) -> str:
    return found.series.points[index].commit.author_time[:10]


def _machine(found: AnalyzedSeries) -> str:
    device = "" if found.series.device == "cpu" else f", {found.series.device}"
    return f"{found.series.machine['identity'][:6]}{device}"


def _foot(analysis: Analysis, not_searched: str | None) -> Markup:
    how = "A dot is one record, the thin line its quartiles; records stand in the order of their commits. "
    how += "Figures of different kinds of machine, versions, devices and controls are never put into one series. "
    if not_searched is None:
        how += "Lines across are medians between changes, which Apache Otava proposed and a second rule confirmed. "
    how += "A diamond is a change of exact counters, an empty dot a record beside other work."
    return element("footer", element("p", how), (element("p", f"Note: {notice}.") for notice in analysis.notices))
