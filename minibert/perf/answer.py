"""The gate's answer: a verdict for each benchmark, one for all, and the exit code.

| holds                                            | exit code |
|--------------------------------------------------|-----------|
| it computes something else                       | 24        |
| a side failed: a crash, a wrong result           | 25        |
| a counter changed that nobody accepted           | 23        |
| a benchmark is slower                            | 20        |
| a benchmark, or its counters, are missing        | 22        |
| the machine let nothing be proven                | 21        |
| none of these                                    | 0         |

The first that holds decides. 21 is about the machine alone: time, the control, neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from minibert.perf.decision import FAILED, FASTER, MISSING, RULED_OUT, SAME, SLOWER, UNPROVEN, Decision, Rules
from minibert.perf.statistics import Estimate, PairFigure

_LARGEST_LOGARITHM = 700.0

FORMAT = "minibert perf gate 1"
EXIT_CODES = {
    SAME: 0, FASTER: 0, SLOWER: 20, UNPROVEN: 21, MISSING: 22, "counters changed": 23, "different": 24, FAILED: 25,
}  # fmt: skip
"""Exit code of each verdict on the whole."""
_WORST_FIRST = ("different", FAILED, "counters changed", SLOWER, MISSING, UNPROVEN)


@dataclass(frozen=True, kw_only=True)
class CounterAnswer:
    """What became of a benchmark's counters.

    Attributes:
        verdict: ``same``; ``changed``; ``other versions``, where another TensorFlow or Keras was all that there
            was to compare with; or ``not compared``, which is no pass.
        against: What they were compared with, in words.
        changes: Such as ``MatMul 14 -> 16``.
        between: What differs between sides of other versions: information, no verdict.
    """

    verdict: str
    against: str = ""
    changes: tuple[str, ...] = ()
    between: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BenchmarkAnswer:
    """One benchmark's line."""

    name: str
    decision: Decision
    figures: Sequence[PairFigure] = ()
    discarded: int = 0
    stepping_seconds: float = 0.0
    device: str | None = None
    counters: CounterAnswer = field(default_factory=lambda: CounterAnswer(verdict="not compared"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a figure that is not there, or no number, is null."""
        decision, found = self.decision, self.decision.found
        return {
            "name": self.name,
            "verdict": decision.verdict,
            "reason": decision.reason,
            **_ratios(found),
            "detectable": finite(decision.detectable),
            "base_seconds": _median([figure.base_seconds for figure in self.figures]),
            "head_seconds": _median([figure.head_seconds for figure in self.figures]),
            "pairs": len(self.figures),
            "samples": sum(figure.blocks for figure in self.figures),
            "discarded": self.discarded,
            "stepping_seconds": finite(self.stepping_seconds),
            "control": _ratios(decision.control) if decision.control else None,
            "repeat": {**_ratios(decision.repeat), "pairs": decision.repeat.pairs} if decision.repeat else None,
            "pair_log_ratios": [finite(figure.log_ratio) for figure in self.figures],
            "device": self.device,
            "counters": {
                "verdict": self.counters.verdict,
                "against": self.counters.against,
                "changes": list(self.counters.changes),
                "between": list(self.counters.between),
            },
        }


@dataclass(frozen=True, kw_only=True)
class NumericAnswer:
    """Whether both sides compute the same.

    Attributes:
        verdict: `verify`'s, ``not compared`` where it was not asked, or ``failed`` where a side's run did.
        explanation: Lines for a person.
        stage: Where the runs part; likewise ``step`` and ``tensor``.
        largest_deviation: Of a loss, relative.
        allowed: Why other bits, or runs that cannot be compared, are meant; without a reason they are not.
        one_environment: Whether both sides ran on the same versions, where only the code can change a bit.
    """

    verdict: str
    explanation: tuple[str, ...] = ()
    stage: str | None = None
    step: int | None = None
    tensor: str | None = None
    largest_deviation: float | None = None
    allowed: str | None = None
    one_environment: bool = True

    @property
    def fault(self) -> str | None:
        """The verdict on the whole that it asks for; None: it passes."""
        if self.verdict == FAILED:
            return FAILED
        if self.allowed:
            return None
        if self.verdict == "different" or (self.verdict == "numeric" and self.one_environment):
            return "different"
        return FAILED if self.verdict == "not comparable" else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "verdict": self.verdict,
            "stage": self.stage,
            "step": self.step,
            "tensor": self.tensor,
            "largest_deviation": finite(self.largest_deviation),
            "allowed": self.allowed,
            "one_environment": self.one_environment,
            "explanation": list(self.explanation),
        }


@dataclass(frozen=True, kw_only=True)
class GateAnswer:
    """Everything that one run of the gate found.

    Attributes:
        base: What `Side.to_dict` gave; likewise ``head``.
        machine: From `describe_machine`.
        rules: When a benchmark was answered.
        time_limit_seconds: Of stepping, for each.
        numeric: Whether both compute the same.
        benchmarks: An answer for each.
        same_code: Whether both sides are the same package, byte for byte.
        changed_benchmarks: Files of the benchmarks that are not the base's.
        allowed_benchmarks: Why these are meant.
    """

    base: dict[str, Any]
    head: dict[str, Any]
    machine: dict[str, Any]
    rules: Rules
    time_limit_seconds: float
    numeric: NumericAnswer
    benchmarks: Sequence[BenchmarkAnswer]
    same_code: bool = False
    changed_benchmarks: Sequence[str] = ()
    allowed_benchmarks: str | None = None

    @property
    def verdict(self) -> str:
        """The worst that was found; ``faster`` only if nothing is worse and something is."""
        found = {benchmark.decision.verdict for benchmark in self.benchmarks}
        if any(benchmark.counters.verdict == "changed" for benchmark in self.benchmarks):
            found.add("counters changed")
        if any(benchmark.counters.verdict == "not compared" for benchmark in self.benchmarks):
            found.add(MISSING)
        if self.numeric.fault is not None:
            found.add(self.numeric.fault)
        if not self.benchmarks:
            found.add(FAILED)
        for verdict in _WORST_FIRST:
            if verdict in found:
                return verdict
        return FASTER if FASTER in found else SAME

    @property
    def exit_code(self) -> int:
        """The process's exit code."""
        return EXIT_CODES[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: no NaN and no infinity."""
        rules = self.rules
        return {
            "format": FORMAT,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "base": self.base,
            "head": self.head,
            "machine": self.machine,
            "settings": {
                "threshold": rules.threshold,
                "ruled_out": RULED_OUT * rules.threshold,
                "confidence": rules.confidence,
                "control_threshold": rules.control_threshold,
                "control_confidence": rules.control_confidence,
                "fewest_pairs": rules.fewest_pairs,
                "fewest_pairs_for_same": rules.fewest_pairs_for_same,
                "most_pairs": rules.most_pairs,
                "time_limit_seconds": self.time_limit_seconds,
            },
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "same_code": self.same_code,
            "changed_benchmarks": {"files": list(self.changed_benchmarks), "allowed": self.allowed_benchmarks},
            "numeric": self.numeric.to_dict(),
            "benchmarks": [benchmark.to_dict() for benchmark in self.benchmarks],
        }


def finite(value: float | None) -> float | None:
    """The number, or None for what is none."""
    return value if value is not None and math.isfinite(value) else None


def _ratios(found: Estimate | None) -> dict[str, float | None]:
    if found is None:
        return {"ratio": None, "low": None, "high": None}
    logarithms = {"ratio": found.log_ratio, "low": found.low, "high": found.high}
    return {name: finite(_exponential(value)) for name, value in logarithms.items()}


def _exponential(value: float) -> float:
    """Infinite, where `math.exp` raises."""
    return math.exp(value) if value < _LARGEST_LOGARITHM else math.inf


def _median(values: list[float]) -> float | None:
    import statistics

    return statistics.median(values) if values else None
