"""The last gate's answer on the page: what it said of each benchmark, and of which versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minibert.report import figures
from minibert.report.markup import Content, Markup, element, section, table

_SAID = {
    "same": "no slowdown",
    "faster": "faster",
    "slower": "slower",
    "unproven": "unproven",
    "missing": "a benchmark is missing",
    "counters changed": "counters changed",
    "different": "it computes something else",
    "failed": "a side failed",
}
_HEAD = ("benchmark", "verdict", "ratio", "interval", "detectable", "base", "head", "control", "pairs", "counters")


def gate_section(gate: Mapping[str, Any]) -> Markup:
    """The section.

    Args:
        gate: From `read_gate`.
    """
    said = _SAID.get(gate["verdict"], gate["verdict"])
    return section(
        "The last gate",
        element("p", element("mark", said), f" · {_side(gate['head'])} against {_side(gate['base'])}, "
                f"{gate['created'][:10]}"),
        _versions(gate["base"], gate["head"]),
        table(_HEAD, [_row(benchmark) for benchmark in gate["benchmarks"]], numeric=(2, 3, 4, 5, 6, 7, 8)),
        (element("p", sentence, class_="quiet") for sentence in _sentences(gate)),
    )  # fmt: skip


def _row(benchmark: Mapping[str, Any]) -> tuple[Content, ...]:
    verdict, detectable = benchmark["verdict"], benchmark["detectable"]
    reason = element("div", benchmark["reason"], class_="quiet") if verdict not in ("same", "faster") else None
    return (
        [benchmark["name"], reason],
        element("span", verdict, class_=f"word {verdict}"),
        figures.decimal(benchmark["ratio"], 3),
        _interval(benchmark),
        figures.NOTHING if detectable is None else f"{figures.signed(100 * detectable, 1)} %",
        figures.duration(benchmark["base_seconds"]),
        figures.duration(benchmark["head_seconds"]),
        _interval(_object(benchmark, "control")),
        figures.count(benchmark["pairs"]),
        _counters(_object(benchmark, "counters")),
    )


def _counters(counters: Mapping[str, Any]) -> Content:
    """What has changed, else the verdict; what differs between two versions is information."""
    between = ", ".join(map(str, _list(counters, "between")))
    said = ", ".join(map(str, _list(counters, "changes"))) or str(counters.get("verdict", "not compared"))
    return [said, element("div", between, class_="quiet") if between else None]


def _interval(found: Mapping[str, Any]) -> str:
    low, high = found.get("low"), found.get("high")
    is_there = isinstance(low, int | float) and isinstance(high, int | float)
    return f"{low:.3f} to {high:.3f}" if is_there else figures.NOTHING


def _sentences(gate: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the table must know, and what was allowed and why."""
    numeric, threshold = gate["numeric"], gate["settings"].get("threshold")
    limit = f"Threshold {figures.percent(threshold)}. " if isinstance(threshold, int | float) else ""
    yield f"A ratio above 1 is slower than the base. {limit}The control is timed after each side's turns."
    said = [str(line) for line in _list(numeric, "explanation")] or [str(numeric.get("verdict", "not compared"))]
    allowed = numeric.get("allowed")
    if allowed and not any(str(allowed) in line for line in said):
        said.append(f"other ones are meant: {allowed}")
    yield f"Bits: {'; '.join(said)}."
    if gate.get("same_code") is True:
        yield "Both sides are the same code: what differs is their environment, or the gate's own error."
    changed = _object(gate, "changed_benchmarks")
    if files := _list(changed, "files"):
        why = f"which is meant: {changed['allowed']}" if changed.get("allowed") else "so no pass of theirs counts"
        yield f"The gate is not the base's: {', '.join(map(str, files))} changed, {why}."


def _versions(base: Mapping[str, Any], head: Mapping[str, Any]) -> Markup | None:
    """Both sides' versions; what differs stands out."""
    old, new = _object(base, "versions"), _object(head, "versions")
    names = [name for name in {**old, **new} if old.get(name) or new.get(name)]
    if not names:
        return None
    rows = []
    for name in names:
        pair = [str(versions.get(name) or figures.NOTHING) for versions in (old, new)]
        rows.append((name, pair[0], pair[1] if pair[0] == pair[1] else element("strong", pair[1])))
    return element("div", table(("version of", "base", "head"), rows), class_="compact")


def _object(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part that is shown where it is there."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _list(values: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = values.get(name)
    return found if isinstance(found, list) else ()


def _side(side: Mapping[str, Any]) -> str:
    commit = f" ({str(side['commit'])[:10]})" if side.get("commit") else ""
    return f"{side.get('name', '?')}{commit}{', with changes' if side.get('is_dirty') else ''}"
