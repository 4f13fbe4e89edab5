"""Since when? Otava proposes where a series changed, and a second rule confirms it or does not.

Apache Otava finds the split of a series that is least likely to be chance (E-divisive means with a
t-test). That is right for few points and normal noise. On a shared machine, whose times have heavy tails
and spikes, its own answers were 10 to 20 false alarms in 1,000 points. So it is asked with a loose
threshold, and of its proposals those are confirmed, the strongest first, that

1. have at least `BEFORE` points before and `AFTER` points after them, up to the neighbouring changes (and a
   change that follows has its `BEFORE` points too);
2. move the median by at least `LEAST_CHANGE`, and by `STANDARD_ERRORS` standard errors of the difference,
   where the noise is the scaled median absolute deviation of all points from their segment's median;
3. while there are fewer than `FEW_AFTER` points after, hold for every single one of them: each lies at
   least `SHARE` of the way from the old median to the new one.

A change stands where it explains most, within `REACH` points of a proposal: a proposal on the slope of
another change, or of one that has too few points yet, is none. The figures were chosen by
``python -m benchmarks.change_points``, which measures how often this is wrong.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from minibert.errors import MinibertError

WINDOW = 30
"""Points that Otava looks at together, and that count on either side of a change."""
PROPOSAL_P_VALUE = 0.1
BEFORE, AFTER, FEW_AFTER = 8, 3, 6
LEAST_CHANGE = 0.03
STANDARD_ERRORS = 4.0
REACH = 5
SHARE = 0.3
OFF_BY = 2
"""A change may be found so many points beside its place; further off counts as not found."""
NOISY = 0.01
"""Above this relative noise of a single point a change of 5 % may need more than `AFTER` points."""
LEAST_NOISE = 0.002
"""Relative noise that is assumed at least, however still a short series is."""
_NORMAL_MAD = 1.4826
"""Standard deviation of a normal distribution by its median absolute deviation."""

Propose = Callable[[Sequence[float]], list[int]]


@dataclass(frozen=True, kw_only=True)
class ChangePoint:
    """A confirmed change: the first point that has it, and the medians on both sides."""

    index: int
    before: float
    after: float

    @property
    def change(self) -> float:
        """Relative change; above 0 is slower."""
        return self.after / self.before - 1.0


def find_change_points(values: Sequence[float], propose: Propose | None = None) -> list[ChangePoint]:
    """Finds where a series of times changed for good.

    Args:
        values: Times, each finite and above 0, in the order of their commits.
        propose: Gives indexes where the series may have changed; default: Otava.

    Returns:
        The confirmed changes in order; none in a series that is too short for one.

    Determinism: the same values give the same changes.

    Raises:
        MinibertError: Otava is not installed.
    """
    propose = propose or require_otava()
    if len(values) < BEFORE + AFTER:
        return []
    if not all(0 < value < math.inf for value in values):
        raise ValueError("values: finite times above 0 are required")
    logs = [math.log(value) for value in values]
    edges = _confirm(logs, {int(index) for index in propose(values)})
    levels = [math.exp(statistics.median(logs[a:b])) for a, b in pairwise(edges)]
    return [
        ChangePoint(index=index, before=before, after=after)
        for index, (before, after) in zip(edges[1:], pairwise(levels), strict=False)
    ]


def noise_of(values: Sequence[float], changes: Sequence[int]) -> float:
    """Relative noise of a single point, as the rule takes it: what is left when the levels are taken away."""
    return math.expm1(_noise([math.log(value) for value in values], [0, *changes, len(values)]))


def require_otava() -> Propose:
    """Otava's proposals as a function.

    Raises:
        MinibertError: It is not installed.
    """
    try:
        from otava.analysis import compute_change_points
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "otava":
            raise
        raise MinibertError(
            "perf history: apache-otava is required to find change points, but it is not installed; it pins an old "
            'NumPy, so give it an environment of its own and there, in a checkout: pip install ".[history]"'
        ) from None

    def propose(values: Sequence[float]) -> list[int]:
        found: tuple[list[Any], Any] = compute_change_points(
            list(values), window_len=WINDOW, max_pvalue=PROPOSAL_P_VALUE, min_magnitude=0.0
        )
        return [int(point.index) for point in found[0]]

    return propose


def _confirm(logs: list[float], proposed: set[int]) -> list[int]:
    """Edges of the segments: 0, each confirmed change in order, and the length."""
    edges = [0, len(logs)]
    splits = _peaks(logs, edges, proposed)
    while splits:
        best = splits.pop()
        widened = sorted([*edges, best.index])
        if best.is_change(_noise(logs, widened)):
            edges = widened
            splits = _peaks(logs, edges, proposed)
    return edges


def _peaks(logs: list[float], edges: list[int], proposed: set[int]) -> list[_Split]:
    """The splits near a proposal that explain more than all others near them; the best is the last."""
    inside = set(range(len(logs))) - set(edges)
    near = {index for centre in proposed for index in _around(centre)} & inside
    looked_at = {index for centre in near for index in _around(centre)} & inside
    splits = {index: _Split.at(logs, edges, index) for index in looked_at}
    peaks = []
    for index in sorted(near):
        found = splits[index]
        others = (splits[other].explained for other in _around(index) if other in splits and found.is_beside(other))
        if found.has_enough_points and found.explained >= max(others):
            peaks.append(found)
    return sorted(peaks, key=lambda split: split.explained)


def _around(index: int) -> range:
    return range(index - REACH, index + REACH + 1)


@dataclass(frozen=True)
class _Split:
    """A place in a segment, and the points on both sides of it.

    ``explained`` is how much nearer they are to their own side's median than to that of both together.
    """

    index: int
    start: int
    end: int
    is_last: bool
    before: list[float]
    after: list[float]
    explained: float

    @classmethod
    def at(cls, logs: list[float], edges: list[int], index: int) -> _Split:
        start = max(edge for edge in edges if edge < index)
        end = min(edge for edge in edges if edge > index)
        before, after = logs[max(start, index - WINDOW) : index], logs[index : min(end, index + WINDOW)]
        explained = _deviation([*before, *after]) - _deviation(before) - _deviation(after)
        return cls(index, start, end, end == len(logs), before, after, explained)

    @property
    def has_enough_points(self) -> bool:
        """On both sides; a segment that ends with another change is what that change has before it."""
        after = AFTER if self.is_last else BEFORE
        return self.index - self.start >= BEFORE and self.end - self.index >= after

    def is_beside(self, index: int) -> bool:
        """Whether a place is in the same segment."""
        return self.start < index < self.end

    def is_change(self, noise: float) -> bool:
        """Whether the move is large, by itself and beside the noise of a point, and the first points all have it."""
        old, new = statistics.median(self.before), statistics.median(self.after)
        move = new - old
        error = noise * math.sqrt(1 / len(self.before) + 1 / len(self.after))
        if abs(move) < max(math.log1p(LEAST_CHANGE), STANDARD_ERRORS * error):
            return False
        return len(self.after) >= FEW_AFTER or all((log - old) / move >= SHARE for log in self.after)


def _deviation(logs: list[float]) -> float:
    middle = statistics.median(logs)
    return sum(abs(log - middle) for log in logs)


def _noise(logs: list[float], edges: Sequence[int]) -> float:
    """A single point's noise on the log scale; a median of every segment was taken from the same points."""
    residuals: list[float] = []
    for start, end in pairwise(edges):
        middle = statistics.median(logs[start:end])
        residuals += [abs(log - middle) for log in logs[start:end]]
    freedom = max(len(logs) - len(edges) + 1, 1)
    return max(_NORMAL_MAD * statistics.median(residuals) * math.sqrt(len(logs) / freedom), LEAST_NOISE)
