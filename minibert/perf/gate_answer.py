"""Reads what ``minibert perf gate --save`` wrote, for the page: every field that is shown is checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from minibert.errors import ArtifactError
from minibert.perf.answer import EXIT_CODES, FORMAT
from minibert.perf.fields import Fields
from minibert.perf.results import read_object

_FIELDS: dict[str, type] = {
    "created": str, "base": dict, "head": dict, "machine": dict, "settings": dict, "verdict": str, "numeric": dict,
    "benchmarks": list,
}  # fmt: skip
_RATIOS = ("ratio", "low", "high")
_NUMBERS = (*_RATIOS, "detectable", "base_seconds", "head_seconds", "pairs")


def read_gate(path: Path) -> dict[str, Any]:
    """Reads a gate's answer.

    Raises:
        ArtifactError: It is missing, another file, of another format, or a field does not fit.
    """
    return checked_gate(path, read_object(path, hint="what perf gate --save wrote is required"))


def checked_gate(path: Path, answer: dict[str, Any]) -> dict[str, Any]:
    """A gate's answer, once every field that is used is what it has to be.

    Raises:
        ArtifactError: It is another file, of another format, or a field does not fit.
    """
    if answer.get("format") != FORMAT:
        raise ArtifactError(f"{path}: field 'format': {FORMAT!r} is required, but {answer.get('format')!r} came")
    for name, kind in _FIELDS.items():
        if not isinstance(answer.get(name), kind):
            raise ArtifactError(f"{path}: field {name!r}: {kind.__name__} is required, but {answer.get(name)!r} came")
    fields = Fields(answer, f"{path}: ")
    for name, value in answer.items():
        fields.require_plain(name, value)
    _check_whole(fields)
    for number, benchmark in enumerate(answer["benchmarks"]):
        _check_benchmark(Fields(benchmark, f"{path}: ", f"benchmarks[{number}]"))
    return answer


def _check_whole(fields: Fields) -> None:
    fields.time("created")
    _require_verdict(fields)
    code = fields.optional("exit_code", int, EXIT_CODES[fields.values["verdict"]])
    if code != EXIT_CODES[fields.values["verdict"]]:
        raise fields.error("exit_code", f"that of {fields.values['verdict']!r}", code)
    for name in ("base", "head"):
        side = fields.fields(name)
        side.take("name", str)
        for field in ("commit", "commit_time", "author_time"):
            side.optional(field, str, None)
        side.optional("is_dirty", bool, False)
        versions = side.fields("versions")
        for package in versions.values:
            versions.optional(package, str, None)
    for limit in ("threshold", "control_threshold"):
        _number_or_null(fields.fields("settings"), limit)
    numeric = fields.fields("numeric")
    numeric.take("verdict", str)
    numeric.optional("allowed", str, None)
    _require_texts(numeric, "explanation")


def _check_benchmark(benchmark: Fields) -> None:
    for name in ("name", "verdict", "reason"):
        benchmark.take(name, str)
    _require_verdict(benchmark)
    for name in _NUMBERS:
        if name not in benchmark.values:
            benchmark.take(name, float)
        _number_or_null(benchmark, name)
    benchmark.count("pairs")
    if benchmark.optional("control", dict, None) is not None:
        for name in _RATIOS:
            _number_or_null(benchmark.fields("control"), name)
    counters = benchmark.fields("counters")
    counters.take("verdict", str)
    _require_texts(counters, "changes")


def _require_verdict(fields: Fields) -> None:
    if fields.values["verdict"] not in EXIT_CODES:
        raise fields.error("verdict", f"one of {', '.join(EXIT_CODES)}", fields.values["verdict"])


def _require_texts(fields: Fields, name: str) -> None:
    for number, value in enumerate(fields.take(name, list)):
        if not isinstance(value, str):
            raise fields.error(f"{name}[{number}]", "text", value)


def _number_or_null(fields: Fields, name: str) -> None:
    value = fields.values.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value)):
        raise fields.error(name, "a number or null", value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False
