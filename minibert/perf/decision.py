"""The verdict on one benchmark, pair by pair: is it open still, and if not, what is the answer?

`slower` asks for three things: the ratio is beyond the threshold, the interval excludes zero, and a
repeat with fresh processes says both again. `same` asks that a slowdown of `RULED_OUT` times the threshold is
outside the interval, and that no repeat says slower. Whatever time, the control or neighbours leave open is
`unproven`, which is no pass; `missing` and `failed` are not about time, and are said elsewhere.

The same code decides in the gate and in the study of its errors, which replays recorded pairs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from minibert.perf.statistics import Estimate, PairFigure, detectable_change, estimate

FASTER, SAME, SLOWER, UNPROVEN = "faster", "same", "slower", "unproven"
MISSING, FAILED = "missing", "failed"
RULED_OUT = 2.5
"""`same` rules out a slowdown of so many times the threshold."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When an answer is given.

    Attributes:
        threshold: A smaller change is none, relative.
        confidence: Of the intervals.
        fewest_pairs: Pairs of processes before anything is said, and before a repeat says anything.
        fewest_pairs_for_same: Pairs before `same` is said while there is time left: the scatter of a few can be small
            by chance, and what is called the same is asked no more.
        most_pairs: Pairs at the most in the first part, and in the repeat.
        control_threshold: The control has moved beyond this, if its interval excludes zero too.
        control_confidence: Of the control's interval. It is looked at for a machine that has changed, not for small
            changes, and each time that it seems to have moved by chance takes an answer away.
        most_troubled: Pairs that prove nothing, after which no more are taken.
    """

    threshold: float = 0.02
    confidence: float = 0.98
    fewest_pairs: int = 8
    fewest_pairs_for_same: int = 16
    most_pairs: int = 40
    control_threshold: float = 0.015
    control_confidence: float = 0.999
    most_troubled: int = 6


@dataclass(frozen=True)
class Decision:
    """The answer for one benchmark.

    Attributes:
        verdict: ``faster``, ``same``, ``slower``, ``unproven``, ``missing`` or ``failed``.
        reason: Why, in one line.
        found: The estimate over all pairs that counted; None with fewer than two.
        first: The estimate before the repeat; ``found`` if there was none.
        repeat: The repeat's estimate, if there was one.
        control: The control's estimate.
        detectable: The smallest slowdown that would have been called one in 95 % of such runs, relative.
    """

    verdict: str
    reason: str
    found: Estimate | None = None
    first: Estimate | None = None
    repeat: Estimate | None = None
    control: Estimate | None = None
    detectable: float | None = None


def is_moved(log_ratio: float, low: float, high: float, *, threshold: float) -> bool:
    """Whether a control took longer after one side's turns than after the other's, beyond the threshold and chance."""
    return abs(log_ratio) > math.log1p(threshold) and (low > 0 or high < 0)


@dataclass
class Trial:
    """Collects pairs of one benchmark until it can be answered.

    Attributes:
        rules: When that is.
        base: Where the base is a stored result: the logarithms of its times, for their scatter.
        control_cause: What a control that moved says.
        first: Figures of the first part.
        repeat: Figures of the repeat.
        troubled: Figures that prove nothing.
    """

    rules: Rules
    base: Sequence[float] = ()
    control_cause: str = "the machine changed"
    first: list[PairFigure] = field(default_factory=list)
    repeat: list[PairFigure] = field(default_factory=list)
    troubled: list[PairFigure] = field(default_factory=list)
    _claim: str = ""
    _decision: Decision | None = None

    @property
    def is_open(self) -> bool:
        """Whether more pairs are wanted."""
        return self._decision is None

    @property
    def stepping_seconds(self) -> float:
        """What it has cost so far."""
        return sum(figure.stepping_seconds for figure in (*self.first, *self.repeat, *self.troubled))

    def add(self, figure: PairFigure) -> None:
        """Takes one more pair into account."""
        if figure.trouble:
            self.troubled.append(figure)
            if len(self.troubled) >= self.rules.most_troubled:
                self.end("")
            return
        if not self._claim:
            self.first.append(figure)
            self._after_first()
        else:
            self.repeat.append(figure)
            self._after_repeat()

    def end(self, reason: str) -> Decision:
        """Decides with what there is, because no more can be had.

        Args:
            reason: Why not, such as ``the time limit is reached``.
        """
        if self._decision is None:
            self._decision = self._last_word(reason)
        return self._decision

    def _after_first(self) -> None:
        if len(self.first) < self.rules.fewest_pairs:
            return
        found = self._estimate(self.first)
        if self._is_beyond(found):
            self._claim = SLOWER if found.log_ratio > 0 else FASTER
        elif self._is_same(found) and self._has_enough_for_same() and not self._control_moved():
            self._decision = self._made(SAME, self._bound(found))
        elif len(self.first) >= self.rules.most_pairs:
            self.end("")

    def _after_repeat(self) -> None:
        if len(self.repeat) < self.rules.fewest_pairs:
            return
        again = self._estimate(self.repeat)
        if self._is_beyond(again) and (again.log_ratio > 0) == (self._claim == SLOWER):
            if self._control_moved():
                self._decision = self._made(UNPROVEN, self._control_words())
            else:
                self._decision = self._made(self._claim, "a repeat with fresh processes confirms it")
        elif len(self.repeat) >= self.rules.most_pairs:
            self.end("a repeat did not confirm the change")

    def _last_word(self, reason: str) -> Decision:
        figures = self.first + self.repeat
        if len(self.troubled) >= self.rules.most_troubled or (self.troubled and len(figures) < self.rules.fewest_pairs):
            return self._made(UNPROVEN, f"{self.troubled[-1].trouble}, in {len(self.troubled)} pairs of processes")
        if len(figures) < self.rules.fewest_pairs:
            return self._made(
                UNPROVEN, f"{len(figures)} pairs of processes are too few{': ' if reason else ''}{reason}"
            )
        if self._control_moved():
            return self._made(UNPROVEN, self._control_words())
        if self._is_contradicted():
            return self._made(UNPROVEN, f"the first part says {self._claim}, and its repeat the opposite")
        found = self._estimate(figures)
        if self._is_same(found):
            return self._made(SAME, f"{self._bound(found)}{'; ' if reason else ''}{reason}")
        if found.high < self._far and self._claim != SLOWER:
            return self._made(SAME, f"not slower, and how much faster is open; {self._bound(found)}")
        return self._made(UNPROVEN, reason or "the scatter is too large to tell")

    def _made(self, verdict: str, reason: str) -> Decision:
        figures = self.first + self.repeat
        if len(figures) < 2:
            return Decision(verdict, reason)
        found, rules = self._estimate(figures), self.rules
        first = self._estimate(self.first) if len(self.first) >= 2 else found
        return Decision(
            verdict,
            reason,
            found=found,
            first=first,
            repeat=self._estimate(self.repeat) if len(self.repeat) >= 2 else None,
            control=self._control(),
            detectable=detectable_change(first, threshold=rules.threshold, confidence=rules.confidence),
        )

    @property
    def _near(self) -> float:
        return math.log1p(self.rules.threshold)

    @property
    def _far(self) -> float:
        return math.log1p(RULED_OUT * self.rules.threshold)

    def _has_enough_for_same(self) -> bool:
        return len(self.first) >= min(self.rules.fewest_pairs_for_same, self.rules.most_pairs)

    def _is_contradicted(self) -> bool:
        """Whether the repeat, as far as it went, moved beyond the threshold the other way than the first part."""
        if not self.repeat:
            return False
        mean = statistics.fmean(figure.log_ratio for figure in self.repeat)
        return abs(mean) > self._near and (mean > 0) == (self._claim == FASTER)

    def _is_beyond(self, found: Estimate) -> bool:
        return abs(found.log_ratio) > self._near and found.excludes_zero

    def _is_same(self, found: Estimate) -> bool:
        return abs(found.log_ratio) <= self._near and found.high < self._far

    def _bound(self, found: Estimate) -> str:
        return f"a slowdown of {math.expm1(self._far):.1%} is ruled out"

    def _estimate(self, figures: list[PairFigure]) -> Estimate:
        ratios = [figure.log_ratio for figure in figures]
        return estimate(ratios, confidence=self.rules.confidence, base=self.base)

    def _control(self) -> Estimate:
        ratios = [figure.control_log_ratio for figure in self.first + self.repeat]
        return estimate(ratios, confidence=self.rules.control_confidence)

    def _control_moved(self) -> bool:
        control = self._control()
        return is_moved(control.log_ratio, control.low, control.high, threshold=self.rules.control_threshold)

    def _control_words(self) -> str:
        return f"the control workload moved by {math.expm1(self._control().log_ratio):+.1%}: {self.control_cause}"
