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
from pathlib import Path
from typing import Any

from minibert.errors import ArtifactError
from minibert.perf.fields import SHORT, Fields

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_HINT = "a file of pytest-benchmark's --benchmark-json is required"
_OTHER_TOOLS = {"context": "Google Benchmark", "results": "hyperfine or asv", "Benchmarks": "BenchmarkDotNet"}
GATE_UNIT = "step of "
"""What the unit of a record that is a gate's answer begins with; the base's commit follows."""
_OURS = "minibert perf"
"""What the formats of records and answers begin with."""


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
    return checked_result(path, read_object(path))


def checked_result(path: Path, values: dict[str, Any]) -> Result:
    """A result from what its file holds.

    Args:
        path: The file, for messages.
        values: What it holds.

    Raises:
        ArtifactError: As `read_result`.
    """
    reader = Fields(values, f"{path}: ", hint=_HINT)
    for name, tool in _OTHER_TOOLS.items():
        if name in reader.values:
            raise ArtifactError(f"{path}: {_HINT}, but this looks like one of {tool} (it has a field {name!r})")
    if str(reader.values.get("format")).startswith(_OURS):
        raise ArtifactError(f"{path}: {_HINT}, but this is a {SHORT.repr(reader.values['format'])}")
    entries = reader.take("benchmarks", list)
    machine_info, version = reader.fields("machine_info"), reader.take("version", str)
    if not entries:
        raise ArtifactError(f"{path}: field 'benchmarks': one benchmark or more is required, but the list is empty")
    found = [Fields(entry, f"{path}: ", f"benchmarks[{number}]", _HINT) for number, entry in enumerate(entries)]
    timings = tuple(sorted((_timing(entry) for entry in found), key=lambda timing: timing.name))
    require_different_names(path, [timing.name for timing in timings])
    environment = {"pytest_benchmark": version, **machine_info.optional("environment", dict, {})}
    machine = _machine(path, machine_info, found)
    reader.require_plain("machine_info.environment", environment)
    reader.require_plain("commit_info", reader.take("commit_info", dict))
    for timing in timings:
        reader.require_plain(f"counters of {timing.name}", timing.counters)
    commit = _commit(reader.fields("commit_info"))
    return Result(
        measured=reader.time("datetime"), commit=commit, machine=machine, environment=environment, timings=timings
    )


def is_gate_answer(values: Mapping[str, Any]) -> bool:
    """Whether a file's object is an answer of ``minibert perf gate``, of whatever format."""
    return str(values.get("format")).startswith(f"{_OURS} gate ")


def read_object(path: Path, *, hint: str = _HINT) -> dict[str, Any]:
    """A JSON file's object; ``hint`` says what file is required where there is none.

    Raises:
        ArtifactError: It cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: {hint}, but there is no such file") from None
    except RecursionError:
        raise ArtifactError(f"{path}: JSON is required, but it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: JSON is required, but it cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: a JSON object is required, but {type(value).__name__} came")
    return value


def _timing(entry: Fields) -> Timing:
    extra, stats = entry.fields("extra_info"), entry.fields("stats")
    name = extra.name("workload") if extra.values.get("workload") else entry.name("fullname")
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
        device=extra.name("device", "cpu"),
        rounds=rounds,
        median_seconds=quartiles[1],
        q1_seconds=quartiles[0],
        q3_seconds=quartiles[2],
        control=_control(extra, data, quartiles[1]),
        counters=extra.counters("counters"),
        first_call_seconds=extra.optional_seconds("first_call_seconds"),
        peak_bytes=extra.count("peak_bytes"),
    )


def _control(extra: Fields, data: list[float] | None, median: float) -> Control | None:
    """The frozen control where a result has one, else the reference that was timed beside the benchmark."""
    for kind in ("control", "reference"):
        if f"{kind}_seconds" in extra.values:
            seconds, beside = extra.seconds(f"{kind}_seconds"), extra.seconds_list(f"{kind}_data")
            ratio = median / seconds
            if data is not None and beside is not None and len(data) == len(beside):
                ratio = statistics.median(ours / theirs for ours, theirs in zip(data, beside, strict=True))
            if not 0 < ratio < math.inf:
                raise extra.error(f"{kind}_seconds", "a time that a ratio can be taken of", seconds)
            name = extra.name(f"{kind}_name", kind)
            return Control(name=name, median_seconds=seconds, ratio=ratio)
    return None


def require_commit(fields: Fields, name: str) -> str:
    """A field that has the full hash of a commit.

    Raises:
        ArtifactError: It has not.
    """
    commit: str = fields.take(name, str)
    if not _COMMIT.fullmatch(commit):
        came = fields.values.get("error") or commit
        raise fields.error(name, "the full hash of a commit (run the benchmarks in a git checkout)", came)
    return commit


def _commit(info: Fields) -> Commit:
    return Commit(
        id=require_commit(info, "id"),
        commit_time=info.time("time"),
        author_time=info.time("author_time"),
        branch=info.optional("branch", str, "(unknown)"),
        is_dirty=info.take("dirty", bool),
    )


def _machine(path: Path, machine_info: Fields, entries: list[Fields]) -> Mapping[str, Any]:
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

    Fields(dict(machine), f"{path}: ").require_plain("machine", dict(machine))
    if machine.get("identity") != machine_identity(dict(machine)):
        raise ArtifactError(f"{path}: field 'machine.identity' does not fit the machine's description")


def require_different_names(path: Path, names: list[str]) -> None:
    """Requires that no benchmark is there twice.

    Raises:
        ArtifactError: One is.
    """
    for name in names:
        if names.count(name) > 1:
            raise ArtifactError(f"{path}: each benchmark is required once, but {name!r} came {names.count(name)} times")
