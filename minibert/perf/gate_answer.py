"""Reads what ``minibert perf gate --save`` wrote, for the page: every field that is shown is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.errors import ArtifactError
from minibert.perf.results import read_object

FORMAT = "minibert perf gate 1"
_FIELDS: dict[str, type] = {
    "created": str, "base": dict, "head": dict, "machine": dict, "settings": dict, "verdict": str, "numeric": dict,
    "benchmarks": list,
}  # fmt: skip
_TEXTS = ("name", "verdict", "reason")
_NUMBERS = ("ratio", "low", "high", "detectable", "base_seconds", "head_seconds", "pairs")


def read_gate(path: Path) -> dict[str, Any]:
    """Reads a gate's answer.

    Raises:
        ArtifactError: It is missing, another file, of another format, or a field does not fit.
    """
    answer = read_object(path)
    if answer.get("format") != FORMAT:
        raise ArtifactError(f"{path}: field 'format': {FORMAT!r} is required, but {answer.get('format')!r} came")
    for name, kind in _FIELDS.items():
        if not isinstance(answer.get(name), kind):
            raise ArtifactError(f"{path}: field {name!r}: {kind.__name__} is required, but {answer.get(name)!r} came")
    for number, benchmark in enumerate(answer["benchmarks"]):
        _check_benchmark(path, f"benchmarks[{number}]", benchmark)
    return answer


def _check_benchmark(path: Path, where: str, benchmark: Any) -> None:
    if not isinstance(benchmark, dict):
        raise ArtifactError(f"{path}: field {where!r}: an object is required, but {benchmark!r} came")
    for name in (*_TEXTS, *_NUMBERS):
        if name not in benchmark:
            raise ArtifactError(f"{path}: field '{where}.{name}' is required, but it is missing")
        value = benchmark[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number or value is None if name in _NUMBERS else isinstance(value, str)):
            required = "a number or null" if name in _NUMBERS else "text"
            raise ArtifactError(f"{path}: field '{where}.{name}': {required} is required, but {value!r} came")
