"""What the gate would have said: recorded pairs of processes, fed to the gate's own decision.

One gate takes pairs until it is answered. *Drawn* gates take theirs from all recorded pairs in a random
order, so the same pairs serve in many of them: their rate is the best estimate, but they are not
independent. *Separate* gates take the pairs in the order of time and none twice: they are, and the
Clopper-Pearson bounds are theirs.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibert.perf.decision import SLOWER, UNPROVEN, Decision, Rules, Trial
from minibert.perf.error_study.recording import Recording
from minibert.perf.statistics import PairFigure, pair_figure

_COLUMNS = (
    *("neighbour", "extra work", "measured", "called slower", "same or faster", "unproven"),
    *("separate gates: slower", "95 % bounds", "stepping"),
)


@dataclass(frozen=True)
class Rates:
    """How often each verdict came at one level of extra work.

    Attributes:
        level: Extra work, in percent.
        pairs: Recorded pairs.
        ratio: Mean over pairs of the measured ratio, less 1.
        scatter: Standard deviation over pairs of the measured log ratio.
        drawn: Verdict to count, of drawn gates.
        separate: Verdict to count, of separate gates.
        stepping_seconds: Median over drawn gates of the seconds of stepping.
    """

    level: float
    pairs: int
    ratio: float | None
    scatter: float | None
    drawn: Counter[str]
    separate: Counter[str]
    stepping_seconds: float

    def rate(self, verdict: str) -> float:
        """Share of the drawn gates with this verdict."""
        return self.drawn[verdict] / max(1, self.drawn.total())

    def bounds(self, verdict: str) -> tuple[float, float]:
        """Clopper-Pearson bounds, 95 %, of the separate gates' share with this verdict."""
        return clopper_pearson(self.separate[verdict], self.separate.total())


def clopper_pearson(count: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a binomial share.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 26, 1934.
    """
    from scipy import stats

    rest = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(stats.beta.ppf(rest, count, total - count + 1))
    high = 1.0 if count == total else float(stats.beta.ppf(1 - rest, count + 1, total - count))
    return low, high


def rates(recording: Recording, level: str, *, gates: int, rules: Rules, seed: int = 0) -> Rates:
    """Replays a level.

    Args:
        recording: The timings.
        level: Extra work, in percent.
        gates: Drawn gates.
        rules: The decision's.
        seed: Of the order in which pairs are drawn.

    Determinism: depends on the arguments alone.
    """
    figures = [pair_figure(times) for times in recording.times(level)]
    generator = np.random.Generator(np.random.PCG64([seed, round(100 * float(level))]))
    ended = [_gate([figures[i] for i in generator.permutation(len(figures))], rules)[0] for _ in range(gates)]
    ratios = [figure.log_ratio for figure in figures if not figure.trouble]
    return Rates(
        level=float(level),
        pairs=len(figures),
        ratio=float(np.expm1(statistics.fmean(ratios))) if ratios else None,
        scatter=statistics.stdev(ratios) if len(ratios) > 1 else None,
        drawn=Counter(trial.end("").verdict for trial in ended),
        separate=Counter(decision.verdict for decision in _separate(figures, rules)),
        stepping_seconds=statistics.median(trial.stepping_seconds for trial in ended) if ended else 0.0,
    )


def _gate(figures: Sequence[PairFigure], rules: Rules) -> tuple[Trial, int]:
    """One gate, and how many pairs it took."""
    trial = Trial(rules)
    for taken, figure in enumerate(figures, start=1):
        trial.add(figure)
        if not trial.is_open:
            return trial, taken
    trial.end("there are no more pairs")
    return trial, len(figures)


def _separate(figures: Sequence[PairFigure], rules: Rules) -> list[Decision]:
    """Gates on pairs of their own; what is left over at the end is too little for one."""
    found, remaining = [], list(figures)
    while remaining:
        trial, taken = _gate(remaining, rules)
        if taken == len(remaining) and trial.end("").reason.endswith("there are no more pairs"):
            break
        found.append(trial.end(""))
        remaining = remaining[taken:]
    return found


def as_table(neighbour: str, found: Sequence[Rates]) -> str:
    """A Markdown table of the rates."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for each in found:
        low, high = each.bounds(SLOWER)
        passed = 1 - each.rate(SLOWER) - each.rate(UNPROVEN)
        cells = (
            neighbour,
            f"{each.level:g} %",
            "-" if each.ratio is None else f"{each.ratio:+.2%}",
            f"{each.rate(SLOWER):.1%}",
            f"{passed:.1%}",
            f"{each.rate(UNPROVEN):.1%}",
            f"{each.separate[SLOWER]} of {each.separate.total()}",
            f"{low:.1%} to {high:.1%}",
            f"{each.stepping_seconds:.0f} s",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
