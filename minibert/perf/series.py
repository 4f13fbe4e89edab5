"""Series: the times of one benchmark on one kind of machine, in units of one control, commit by commit.

What is put into one series can be compared. So another kind of machine, other versions, another device,
another control or no control at all is another series, and nothing is ever scaled from one into the other.
Two machines of the same kind are not told apart: the control that is timed beside is what they share.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minibert.perf.results import GATE_UNIT, Commit, Result, Timing

SECONDS = "seconds"
"""The unit of a benchmark that had no control beside it."""
AROUND, FEWEST_AROUND = 11, 5
LARGEST_FACTOR = 1.5
"""A control that is further than this from its median in the `AROUND` nearest records was disturbed."""
_SHORT = 10


@dataclass(frozen=True, kw_only=True)
class Point:
    """One record's value: the time by the control's, or in seconds where there was no control.

    ``is_disturbed``: the control took so much longer or shorter than in the records around that other work
    must have had the cores; a time measured then proves nothing. ``order`` is the record's place among all
    records, those of other series too.
    """

    value: float
    low: float
    high: float
    seconds: float
    commit: Commit
    measured: str
    environment: Mapping[str, Any]
    counters: Mapping[str, Any] | None
    order: int = 0
    control_seconds: float | None = None
    is_disturbed: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that may be compared with each other."""

    benchmark: str
    machine: Mapping[str, Any]
    device: str
    unit: str
    points: Sequence[Point]

    @property
    def is_normalized(self) -> bool:
        """Whether the values are in units of a control that was timed beside the benchmark."""
        return self.unit != SECONDS

    @property
    def is_of_gates(self) -> bool:
        """Whether the values are a gate's: in units of a commit's own step, which ran in the same environment."""
        return self.unit.startswith(GATE_UNIT)


def make_series(results: Sequence[Result]) -> list[Series]:
    """Puts results into series, by benchmark, machine, device and unit; points keep the results' order.

    Series stand by name, device and unit, and then the one that began first.
    """
    points: dict[tuple[str, str, str, str], list[Point]] = {}
    machines = {result.machine["identity"]: result.machine for result in results}
    for order, result in enumerate(results):
        for timing in result.timings:
            unit = SECONDS if timing.control is None else timing.control.name
            key = (timing.name, result.machine["identity"], timing.device, unit)
            points.setdefault(key, []).append(_point(result, timing, order))
    series = [
        Series(
            benchmark=name, machine=machines[identity], device=device, unit=unit, points=_with_disturbed(found, unit)
        )
        for (name, identity, device, unit), found in points.items()
    ]
    return sorted(series, key=lambda one: (one.benchmark, one.device, one.unit, one.points[0].order))


def machine_name(machine: Mapping[str, Any]) -> str:
    """A kind of machine in a line: processor or GPU, cores, TensorFlow's build, and the short identity."""
    gpus = machine.get("gpus") or []
    parts = [*gpus, machine.get("cpu_model"), f"{machine.get('cores')} cores", machine.get("tensorflow")]
    return ", ".join(str(part) for part in parts if part) + f" ({str(machine['identity'])[:6]})"


def are_disturbed(control_seconds: Sequence[float | None]) -> list[bool]:
    """Which records' control is far from its median in the records around; None had no control."""
    found = []
    for index, seconds in enumerate(control_seconds):
        start = max(0, min(index - AROUND // 2, len(control_seconds) - AROUND))
        near = [around for around in control_seconds[start : start + AROUND] if around]
        factor = seconds / statistics.median(near) if seconds and len(near) >= FEWEST_AROUND else 1.0
        found.append(not 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR)
    return found


def commit_range(before: Point, after: Point) -> str:
    """``abc123..def456``, as git takes it."""
    return f"{before.commit.id[:_SHORT]}..{after.commit.id[:_SHORT]}"


def _point(result: Result, timing: Timing, order: int) -> Point:
    scale = 1.0 if timing.control is None else timing.control.ratio / timing.median_seconds
    return Point(
        value=scale * timing.median_seconds,
        low=scale * timing.q1_seconds,
        high=scale * timing.q3_seconds,
        seconds=timing.median_seconds,
        commit=result.commit,
        measured=result.measured,
        environment=result.environment,
        counters=timing.counters,
        order=order,
        control_seconds=None if timing.control is None else timing.control.median_seconds,
    )


def _with_disturbed(points: Sequence[Point], unit: str) -> list[Point]:
    """A gate has judged its own control; its base's seconds follow the machine, and are no sign of other work."""
    if unit.startswith(GATE_UNIT):
        return list(points)
    disturbed = are_disturbed([point.control_seconds for point in points])
    return [dataclasses.replace(point, is_disturbed=is_so) for point, is_so in zip(points, disturbed, strict=True)]
