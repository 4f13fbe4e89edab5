"""The gate's answer for a person: lines for a terminal, a Markdown table for a pull request.

Both are made of the answer's JSON, so that a saved answer can be shown again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_COLUMNS = ("benchmark", "verdict", "ratio", "interval", "detectable", "base", "head", "pairs", "counters")
_SAID = {
    "same": "no slowdown",
    "faster": "faster",
    "slower": "SLOWER",
    "unproven": "UNPROVEN",
    "missing": "MISSING",
    "counters changed": "COUNTERS CHANGED",
    "different": "COMPUTES SOMETHING ELSE",
    "failed": "FAILED",
}


def as_lines(answer: dict[str, Any]) -> list[str]:
    """Lines for a terminal."""
    rows = [_COLUMNS, *(_row(benchmark) for benchmark in answer["benchmarks"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [
        *_head(answer),
        "",
        *shown,
        "",
        *_notes(answer),
        f"{_SAID[answer['verdict']]} (exit code {answer['exit_code']})",
    ]


def as_markdown(answer: dict[str, Any]) -> str:
    """A table for a pull request, with what stands beside it."""
    lines = [f"**{_SAID[answer['verdict']]}** (`minibert perf gate`, exit code {answer['exit_code']})", ""]
    lines += ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    for benchmark in answer["benchmarks"]:
        cells = list(_row(benchmark))
        cells[0], cells[1] = f"`{cells[0]}`", f"**{cells[1]}**" if cells[1] not in ("same", "faster") else cells[1]
        lines.append("| " + " | ".join(_escaped(cell) for cell in cells) + " |")
    lines += ["", *(f"- {_escaped(line)}" for line in [*_notes(answer), *_head(answer)])]
    return "\n".join(lines)


def _row(benchmark: dict[str, Any]) -> tuple[str, ...]:
    ratio, low, high = (benchmark[name] for name in ("ratio", "low", "high"))
    return (
        benchmark["name"],
        benchmark["verdict"],
        "-" if ratio is None else f"{ratio:.3f}",
        "-" if low is None or high is None else f"{low:.3f} to {high:.3f}",
        "-" if benchmark["detectable"] is None else f"+{benchmark['detectable']:.1%}",
        seconds(benchmark["base_seconds"]),
        seconds(benchmark["head_seconds"]),
        str(benchmark["pairs"]),
        benchmark["counters"]["verdict"],
    )


def seconds(value: float | None) -> str:
    """A time with its unit: ``13.2 ms``."""
    if value is None:
        return "-"
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def _head(answer: dict[str, Any]) -> Iterator[str]:
    yield f"head: {_side(answer['head'])}"
    yield f"base: {_side(answer['base'])}"
    settings, machine = answer["settings"], answer["machine"]
    confidence = settings["confidence"]
    yield (
        f"machine {machine['identity']}: {machine['cpu_model']}, {machine['cores']} cores; a ratio above 1 is slower; "
        f"threshold {settings['threshold']:.1%}, {confidence:.0%} intervals, detectable in 95 % of such runs"
    )


def _side(side: dict[str, Any]) -> str:
    commit = f" ({side['commit'][:10]})" if side["commit"] else ""
    changed = ", with changes that are not committed" if side["is_dirty"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in side["versions"].items() if version)
    return f"{side['name']}{commit}{changed}{'; ' if versions else ''}{versions}"


def _notes(answer: dict[str, Any]) -> Iterator[str]:
    numeric = answer["numeric"]
    lines = numeric["explanation"] or [numeric["verdict"]]
    yield f"bits: {lines[0]}"
    yield from (f"bits: {line}" for line in lines[1:])
    if numeric["allowed"]:
        yield f"bits: other ones are meant: {numeric['allowed']}"
    if answer["same_code"]:
        yield "both sides are the same code: all that is left to find is their environments, and this gate's own errors"
    changed = answer["changed_benchmarks"]
    if changed["files"]:
        why = f"which is meant: {changed['allowed']}" if changed["allowed"] else "so no pass of theirs counts"
        yield f"the gate is not the base's: {', '.join(changed['files'])} changed, {why}"
    for benchmark in answer["benchmarks"]:
        yield from _benchmark_notes(benchmark)


def _benchmark_notes(benchmark: dict[str, Any]) -> Iterator[str]:
    name, counters, device = benchmark["name"], benchmark["counters"], benchmark["device"]
    where = f" ({device})" if device not in (None, "cpu") else ""
    yield f"{name}{where}: {benchmark['verdict']}: {benchmark['reason']}"
    against = counters["against"]
    if counters["changes"]:
        yield f"{name}: counters against {against}: {', '.join(counters['changes'])}"
    elif counters["verdict"] == "not compared":
        yield f"{name}: counters not compared{': ' if against else ''}{against}"
    elif counters["verdict"] == "other versions":
        yield f"{name}: counters of two versions, which is no fault: {against}"
    if counters["between"]:
        yield f"{name}: counters of the base and of the head, for information: {', '.join(counters['between'])}"


def _escaped(text: str) -> str:
    """A pipe in a cell, or a reason from anywhere, must not break the table or become markup."""
    return "".join(f"\\{c}" if c in "|<>" else c for c in text)
