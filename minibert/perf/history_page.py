"""The page of ``minibert perf report``: one file, no network, no script; the history and the last gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import groupby
from typing import Any

from minibert.perf.change_points import AFTER, BEFORE
from minibert.perf.history_chart import series_chart
from minibert.perf.history_text import cause_text, disturbed_text, noise_text, unit_text
from minibert.perf.series import machine_name
from minibert.perf.since_when import Analysis, AnalyzedSeries, TimeChange
from minibert.report import figures
from minibert.report.markup import Content, Markup, element, escape, section, table

TITLE = "Since when?"
_SAID = {
    "same": "no slowdown",
    "faster": "faster",
    "slower": "slower",
    "unproven": "unproven",
    "missing": "a benchmark is missing",
    "counters changed": "counters changed",
    "different": "it computes something else",
}


def render_page(analysis: Analysis, gate: dict[str, Any] | None, not_searched: str | None) -> str:
    """The whole page.

    Args:
        analysis: Of `minibert.perf.since_when`.
        gate: From `read_gate`; None: no gate is shown.
        not_searched: Why no change point was searched; None where it was done.

    Determinism: the same arguments give the same text.
    """
    body = [
        element("header", element("p", "minibert perf", class_="over"), element("h1", TITLE),
                _warning(not_searched), element("p", _verdict(analysis, not_searched), class_="verdict")),
        _newest(analysis),
        None if gate is None else _gate(gate),
        (_benchmark(name, [*found]) for name, found in groupby(analysis.series, lambda found: found.series.benchmark)),
        _foot(analysis, not_searched),
    ]  # fmt: skip
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{TITLE} · minibert perf"),
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


def _verdict(analysis: Analysis, not_searched: str | None) -> str:
    series = [found.series for found in analysis.series]
    machines = len({found.machine["identity"] for found in series})
    records = len({(point.commit.id, point.measured) for found in series for point in found.points})
    where = f"{_many(records, 'record')} on {_many(machines, 'machine')}, {_many(len(series), 'series', 'series')}"
    if not_searched is not None:
        return f"{where}; whether a time has changed was not looked at."
    changes = [change for found in analysis.series for change in found.changes or ()]
    slower = sum(change.change > 0 for change in changes)
    counted = sum(len(found.counter_changes) for found in analysis.series)
    if not changes and not counted:
        return f"{where}; nothing has changed."
    counts = ((slower, "slower"), (len(changes) - slower, "faster"), (counted, "with other counters"))
    said = [f"{_many(count, 'time')} {what}" for count, what in counts if count]
    return f"{where}: {', '.join(said)}."


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _newest(analysis: Analysis) -> Markup | None:
    """All changes of time, the newest first."""
    changes = [(found, change) for found in analysis.series for change in found.changes or ()]
    if not changes:
        return None
    changes.sort(key=lambda pair: pair[0].series.points[pair[1].index].commit.author_time, reverse=True)
    rows = [(_day(found, change.index), found.series.benchmark, _machine(found), _change(change),
             element("code", change.commit_range)) for found, change in changes]  # fmt: skip
    return section("Changes, the newest first", table(("since", "benchmark", "machine", "change", "commits"), rows,
                                                      numeric=(3,)))  # fmt: skip


def _benchmark(name: str, series: Sequence[AnalyzedSeries]) -> Markup:
    return section(name, (_series(found) for found in series))


def _series(found: AnalyzedSeries) -> Iterator[Markup]:
    device = "" if found.series.device == "cpu" else f", on {found.series.device}"
    said = [unit_text(found), noise_text(found), disturbed_text(found)]
    yield element("h3", f"{machine_name(found.series.machine)}{device}")
    yield element("p", f"{_many(len(found.series.points), 'record')}, {'; '.join(text for text in said if text)}.",
                  class_="quiet")  # fmt: skip
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


def _gate(gate: dict[str, Any]) -> Markup:
    settings, numeric = gate["settings"], gate["numeric"]
    rows = [_gate_row(benchmark) for benchmark in gate["benchmarks"]]
    threshold = settings.get("threshold")
    explained = numeric.get("explanation") or [numeric.get("verdict", "not compared")]
    return section(
        "The last gate",
        element("p", element("mark", _SAID.get(gate["verdict"], gate["verdict"])), f" · {_side(gate['head'])} "
                f"against {_side(gate['base'])}, {gate['created'][:10]}"),
        table(("benchmark", "verdict", "ratio", "interval", "detectable", "base", "head", "pairs", "counters"), rows,
              numeric=(2, 3, 4, 5, 6, 7)),
        element("p", "A ratio above 1 is slower than the base. ",
                f"Threshold {figures.percent(threshold)}. " if isinstance(threshold, int | float) else "",
                f"Bits: {'; '.join(map(str, explained))}.", class_="quiet"),
    )  # fmt: skip


def _gate_row(benchmark: dict[str, Any]) -> tuple[Content, ...]:
    low, high, detectable = benchmark["low"], benchmark["high"], benchmark["detectable"]
    counters = benchmark.get("counters") or {}
    verdict = benchmark["verdict"]
    reason = element("div", benchmark["reason"], class_="quiet") if verdict not in ("same", "faster") else None
    return (
        [benchmark["name"], reason],
        element("span", verdict, class_=f"word {verdict}"),
        figures.decimal(benchmark["ratio"], 3),
        figures.NOTHING if low is None or high is None else f"{low:.3f} to {high:.3f}",
        figures.NOTHING if detectable is None else f"{figures.signed(100 * detectable, 1)} %",
        figures.duration(benchmark["base_seconds"]),
        figures.duration(benchmark["head_seconds"]),
        figures.count(benchmark["pairs"]),
        ", ".join(map(str, counters.get("changes") or [])) or str(counters.get("verdict", "not compared")),
    )


def _side(side: dict[str, Any]) -> str:
    commit = f" ({str(side['commit'])[:10]})" if side.get("commit") else ""
    return f"{side.get('name', '?')}{commit}{', with changes' if side.get('is_dirty') else ''}"


def _foot(analysis: Analysis, not_searched: str | None) -> Markup:
    how = "A dot is one record, the thin line its quartiles; records stand in the order of their commits. "
    how += "Figures of different machines, devices and controls are never put into one series. "
    if not_searched is None:
        how += "Lines across are medians between changes, which Apache Otava proposed and a second rule confirmed. "
    how += "A diamond is a change of exact counters, an empty dot a record beside other work."
    return element("footer", element("p", how), (element("p", f"Note: {notice}.") for notice in analysis.notices))
