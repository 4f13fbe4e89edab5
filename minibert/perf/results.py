"""Reads what pytest-benchmark's ``--benchmark-json`` wrote, and believes no field of it unseen.

A result of another tool, a time that is zero or no number, or a benchmark that is there twice would
spoil every figure that is computed from the history later: each is an error that names file and field.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from minibert.errors import ArtifactError

LONGEST_NAME = 300
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_HINT = "a file of pytest-benchmark's --benchmark-json is required"
_OTHER_TOOLS = {"context": "Google Benchmark", "results": "hyperfine or asv", "Benchmarks": "BenchmarkDotNet"}


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What was measured: the full hash, its times in UTC, and whether the working tree differed from it."""

    id: str
    commit_time: str
    author_time: str
    branch: str
    is_dirty: bool


@dataclass(frozen=True, kw_only=True)
class Control:
    """The reference that was timed between the rounds, so that both met the same machine.

    ``ratio`` is the benchmark's time in units of the control's: the median over rounds of each round
    by the control's run beside it, or the medians' ratio where the rounds were not kept.
    """

    name: str
    median_seconds: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One benchmark's figures."""

    name: str
    device: str
    rounds: int
    median_seconds: float
    q1_seconds: float
    q3_seconds: float
    control: Control | None
    counters: Mapping[str, Any] | None
    first_call_seconds: float | None
    peak_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One process of benchmarks: when, what, on which machine, and each benchmark's figures."""

    measured: str
    commit: Commit
    machine: Mapping[str, Any]
    environment: Mapping[str, Any]
    timings: tuple[Timing, ...]


def read_result(path: Path) -> Result:
    """Reads a result file.

    Raises:
        ArtifactError: It is missing, not JSON, another tool's, or a field is missing or cannot be
            true; the message names file and field.
    """
    reader = _Fields(read_object(path), f"{path}: ")
    for name, tool in _OTHER_TOOLS.items():
        if name in reader.values:
            raise ArtifactError(f"{path}: {_HINT}, but this looks like one of {tool} (it has a field {name!r})")
    entries = reader.take("benchmarks", list)
    machine_info, version = reader.fields("machine_info"), reader.take("version", str)
    if not entries:
        raise ArtifactError(f"{path}: field 'benchmarks': one benchmark or more is required, but the list is empty")
    found = [_Fields(entry, f"{path}: ", f"benchmarks[{number}]") for number, entry in enumerate(entries)]
    timings = tuple(sorted((_timing(entry) for entry in found), key=lambda timing: timing.name))
    _require_different_names(path, [timing.name for timing in timings])
    environment = {"pytest_benchmark": version, **machine_info.optional("environment", dict, {})}
    machine = _machine(path, machine_info, found)
    for field, value in (("machine", machine), ("machine_info.environment", environment)):
        _require_finite(path, field, value)
    for timing in timings:
        _require_finite(path, f"counters of {timing.name}", timing.counters)
    commit = _commit(reader.fields("commit_info"))
    return Result(
        measured=reader.time("datetime"), commit=commit, machine=machine, environment=environment, timings=timings
    )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object.

    Raises:
        ArtifactError: It cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: {_HINT}, but there is no such file") from None
    except RecursionError:
        raise ArtifactError(f"{path}: JSON is required, but it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: JSON is required, but it cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: a JSON object is required, but {type(value).__name__} came")
    return value


def _timing(entry: _Fields) -> Timing:
    extra, stats = entry.fields("extra_info"), entry.fields("stats")
    name = extra.optional("workload", str, None) or entry.take("fullname", str)
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise entry.error("fullname", f"a printable name of at most {LONGEST_NAME} characters", name)
    rounds, iterations = stats.take("rounds", int), stats.optional("iterations", int, 1)
    if rounds < 1:
        raise stats.error("rounds", "1 or more", rounds)
    if iterations < 1:
        raise stats.error("iterations", "1 or more", iterations)
    data = stats.seconds_list("data")
    if data is not None and len(data) != rounds:
        raise stats.error("data", f"one time for each of the {rounds} rounds", len(data))
    quartiles = tuple(stats.seconds(field) for field in ("q1", "median", "q3"))
    if not quartiles[0] <= quartiles[1] <= quartiles[2]:
        raise stats.error("median", "a median between the quartiles", quartiles[1])
    return Timing(
        name=name,
        device=extra.optional("device", str, "cpu"),
        rounds=rounds,
        median_seconds=quartiles[1],
        q1_seconds=quartiles[0],
        q3_seconds=quartiles[2],
        control=_control(extra, data, quartiles[1]),
        counters=extra.optional("counters", dict, None),
        first_call_seconds=extra.optional_seconds("first_call_seconds"),
        peak_bytes=extra.optional("peak_bytes", int, None),
    )


def _control(extra: _Fields, data: list[float] | None, median: float) -> Control | None:
    """The frozen control where a result has one, else the reference that was timed beside the benchmark."""
    for kind in ("control", "reference"):
        if f"{kind}_seconds" in extra.values:
            seconds, beside = extra.seconds(f"{kind}_seconds"), extra.seconds_list(f"{kind}_data")
            ratio = median / seconds
            if data is not None and beside is not None and len(data) == len(beside):
                ratio = statistics.median(ours / theirs for ours, theirs in zip(data, beside, strict=True))
            if not 0 < ratio < math.inf:
                raise extra.error(f"{kind}_seconds", "a time that a ratio can be taken of", seconds)
            name = extra.optional(f"{kind}_name", str, kind)
            return Control(name=name, median_seconds=seconds, ratio=ratio)
    return None


def _commit(info: _Fields) -> Commit:
    commit = info.take("id", str)
    if not _COMMIT.fullmatch(commit):
        came = info.values.get("error") or commit
        raise info.error("id", "the full hash of a commit (run the benchmarks in a git checkout)", came)
    return Commit(
        id=commit,
        commit_time=info.time("time"),
        author_time=info.time("author_time"),
        branch=info.optional("branch", str, "(unknown)"),
        is_dirty=info.take("dirty", bool),
    )


def _machine(path: Path, machine_info: _Fields, entries: list[_Fields]) -> Mapping[str, Any]:
    """The machine's fingerprint, which the benchmarks write into each entry or into ``machine_info``."""
    found = [machine for entry in entries if (machine := entry.fields("extra_info").optional("machine", dict, None))]
    found = found or [machine_info.optional("minibert", dict, {})]
    if not found[0]:
        raise ArtifactError(
            f"{path}: field 'machine_info.minibert' is required, but it is missing: "
            "without the machine's fingerprint nobody can tell which figures belong together"
        )
    for machine in found:
        require_machine(path, machine)
        if machine != found[0]:
            raise ArtifactError(f"{path}: one machine is required for all benchmarks, but several came")
    return found[0]


def require_machine(path: Path, machine: Mapping[str, Any]) -> None:
    """Requires a fingerprint whose identity is that of its content.

    Raises:
        ArtifactError: It was edited, or is not one.
    """
    from minibert.perf.machine import machine_identity

    if machine.get("identity") != machine_identity(dict(machine)):
        raise ArtifactError(f"{path}: field 'machine.identity' does not fit the machine's description")


def _require_finite(path: Path, field: str, value: Any) -> None:
    """Python reads NaN and Infinity from JSON; what is stored must be readable by others."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ArtifactError(f"{path}: field {field!r}: a finite number is required, but {value!r} came")
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        _require_finite(path, f"{field}.{name}", part)


def _require_different_names(path: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ArtifactError(f"{path}: each benchmark is required once, but {name!r} came {names.count(name)} times")


class _Fields:
    """An object's fields, each checked when it is taken; errors name the file and the field's path."""

    def __init__(self, values: Any, where: str, path: str = "") -> None:
        self.where, self.path = where, path
        if not isinstance(values, dict):
            raise ArtifactError(f"{where}field {path!r}: an object is required, but {type(values).__name__} came")
        self.values: dict[str, Any] = values

    def error(self, name: str, required: str, came: object) -> ArtifactError:
        return ArtifactError(f"{self.where}field {self._full(name)!r}: {required} is required, but {came!r} came")

    def take(self, name: str, kind: type) -> Any:
        if name not in self.values:
            raise ArtifactError(f"{self.where}field {self._full(name)!r} is required, but it is missing; {_HINT}")
        value = self.values[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(name, _KINDS[kind], value)
        return value

    def optional(self, name: str, kind: type, default: Any) -> Any:
        return default if self.values.get(name) is None else self.take(name, kind)

    def fields(self, name: str) -> _Fields:
        return _Fields(self.take(name, dict), self.where, self._full(name))

    def seconds(self, name: str) -> float:
        """A time: finite and above 0."""
        if name not in self.values:
            self.take(name, float)
        return self._positive(name, self.values[name])

    def seconds_list(self, name: str) -> list[float] | None:
        values = self.optional(name, list, None)
        return None if values is None else [self._positive(f"{name}[{i}]", value) for i, value in enumerate(values)]

    def optional_seconds(self, name: str) -> float | None:
        """A time that may be missing, or too short for its digits."""
        return None if self.values.get(name) in (None, 0) else self.seconds(name)

    def time(self, name: str) -> str:
        """A moment as ISO 8601 in UTC, whole seconds; one without a zone is taken for UTC, as old versions wrote it."""
        text = self.take(name, str)
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise self.error(name, "an ISO 8601 time", text) from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return moment.astimezone(timezone.utc).isoformat(timespec="seconds")

    def _positive(self, name: str, value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value <= 0:
            raise self.error(name, "a finite number above 0", value)
        return float(value)

    def _full(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


_KINDS: dict[type, str] = {
    bool: "true or false", dict: "an object", float: "a number", int: "an integer", list: "a list", str: "text",
}  # fmt: skip
