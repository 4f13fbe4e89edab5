"""A gate's answer as a record of the history: the head's time in units of its base's, which ran beside it.

A control of other code follows a machine whose speed goes up and down only so far. The step itself, of a commit that
stays, follows it best: so where a record of `bench_gated` is too noisy, the gate against one fixed commit is the
record, and that commit's step the unit of its series.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from minibert.errors import ArtifactError
from minibert.perf.decision import Rules, is_moved
from minibert.perf.fields import Fields
from minibert.perf.gate_answer import checked_gate
from minibert.perf.results import (
    GATE_UNIT,
    Commit,
    Control,
    Result,
    Timing,
    require_commit,
    require_different_names,
    require_machine,
)

_SHORT, _LARGEST_LOGARITHM = 10, 100.0
_TIMED = ("workloads.py", "shapes.py")
"""Files of the gate that say what is timed."""


def gate_result(path: Path, values: dict[str, Any]) -> tuple[Result, list[str]]:
    """What ``minibert perf gate --save`` wrote, of a working tree against a revision, as a result of the head.

    Args:
        path: The file, for messages.
        values: What it holds.

    Returns:
        The result, and of each benchmark that is left out why: too few pairs of processes could be timed, or the
        control moved.

    Raises:
        ArtifactError: It is no such answer, its base ran in another environment or is no commit, or no benchmark is
            left; the message names file and field.
    """
    answer = checked_gate(path, values)
    fields = Fields(answer, f"{path}: ")
    base, head = fields.fields("base"), fields.fields("head")
    for side, kind in ((base, "revision"), (head, "worktree")):
        if side.take("kind", str) != kind:
            raise side.error("kind", f"{kind!r} (perf gate --base REV)", side.values["kind"])
    if base.values["versions"] != head.values["versions"]:
        raise base.error("versions", "the head's versions", base.values["versions"])
    commit, unit = _commit(head), _unit(base, fields)
    require_machine(path, answer["machine"])
    require_different_names(path, [found["name"] for found in answer["benchmarks"]])
    timings, left_out = [], []
    for number, found in enumerate(answer["benchmarks"]):
        benchmark = Fields(found, f"{path}: ", f"benchmarks[{number}]")
        reason = _why_not(benchmark, fields.fields("settings"))
        if reason is None:
            timings.append(_timing(benchmark, unit))
        else:
            left_out.append(f"{found['name']}: {reason}")
    if not timings:
        raise ArtifactError(f"{path}: field 'benchmarks': one that was timed is required, but {'; '.join(left_out)}")
    versions = dict(head.values["versions"])
    result = Result(
        measured=fields.time("created"),
        commit=commit,
        machine=answer["machine"],
        environment={"python": versions.pop("python", None), "packages": versions},
        timings=tuple(sorted(timings, key=lambda timing: timing.name)),
    )
    return result, left_out


def _unit(base: Fields, answer: Fields) -> str:
    """What the ratios are in units of; where what is timed is not the base's, another unit, and so another series."""
    is_told = answer.values.get("changed_benchmarks") is not None
    changed = answer.fields("changed_benchmarks").optional("files", list, []) if is_told else []
    timed = sorted(str(name) for name in changed if name in _TIMED)
    beside = f" with the head's {', '.join(timed)}" if timed else ""
    return f"{GATE_UNIT}{require_commit(base, 'commit')[:_SHORT]}{beside}"


def _commit(head: Fields) -> Commit:
    return Commit(
        id=require_commit(head, "commit"),
        commit_time=head.time("commit_time"),
        author_time=head.time("author_time"),
        branch="(unknown)",
        is_dirty=head.take("is_dirty", bool),
    )


def _why_not(benchmark: Fields, settings: Fields) -> str | None:
    """Why a benchmark's ratio is no record; None if it is one."""
    values = benchmark.values
    if any(values[name] is None for name in ("ratio", "low", "high", "base_seconds", "head_seconds")):
        return f"{values['verdict']}: {values['reason']}"
    fewest = settings.count("fewest_pairs") or Rules.fewest_pairs
    if benchmark.take("pairs", int) < fewest:
        return f"at least {fewest} pairs of processes are required, but {values['pairs']} came"
    if values.get("control") is None or any(values["control"].get(name) is None for name in ("ratio", "low", "high")):
        return "a control beside it is required, but there was none"
    control = benchmark.fields("control")
    ends = (math.log(control.seconds(name)) for name in ("ratio", "low", "high"))
    threshold = settings.optional_seconds("control_threshold") or Rules.control_threshold
    if is_moved(*ends, threshold=threshold):
        return f"the control moved by {control.values['ratio'] - 1:+.1%}"
    return None


def _timing(benchmark: Fields, unit: str) -> Timing:
    ratio, low, high = (benchmark.seconds(name) for name in ("ratio", "low", "high"))
    if not low <= ratio <= high:
        raise benchmark.error("ratio", "a ratio within its interval", ratio)
    seconds = benchmark.seconds("head_seconds")
    q1, q3 = _quartiles(benchmark, ratio)
    return Timing(
        name=benchmark.name("name"),
        device=benchmark.name("device", "cpu"),
        rounds=benchmark.take("pairs", int),
        median_seconds=seconds,
        q1_seconds=seconds * q1 / ratio,
        q3_seconds=seconds * q3 / ratio,
        control=Control(name=unit, median_seconds=benchmark.seconds("base_seconds"), ratio=ratio),
        counters=None,
        first_call_seconds=None,
        peak_bytes=None,
    )


def _quartiles(benchmark: Fields, ratio: float) -> tuple[float, float]:
    """Of the ratios of the pairs of processes, with their mean between them; the mean where they are not there."""
    found = benchmark.optional("pair_log_ratios", list, [])
    logarithms = [value for value in found if isinstance(value, int | float) and abs(value) < _LARGEST_LOGARITHM]
    if len(logarithms) < 2:
        return ratio, ratio
    low, _, high = (math.exp(value) for value in statistics.quantiles(logarithms, n=4, method="inclusive"))
    return min(low, ratio), max(high, ratio)
