"""What the gate would have said: recorded pairs of processes, fed to the gate's own decision.

One gate takes pairs until it is answered. *Drawn* gates take theirs at random from all recorded pairs, any of them
again and again: their rate is the best estimate, as good as the recording is like the machine, but they are not
independent. With fewer recorded pairs than a gate takes at least, there is nothing to draw from. *Separate* gates
take the pairs in the order of time and none twice: they are, and the Clopper-Pearson bounds are theirs.

The gate's time limit holds. Where a recording stepped for longer in a pair than the gate does now, a pair's
first blocks count, as many as the gate would have taken; where it stepped for less, its seconds are scaled.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibert.errors import SettingsError
from minibert.perf.decision import SLOWER, UNPROVEN, Decision, Rules, Trial, is_moved
from minibert.perf.error_study.recording import Recording
from minibert.perf.gate import TIME_LIMIT_SECONDS, add_within, gate_pair_seconds
from minibert.perf.pair import Block, shortened
from minibert.perf.statistics import PairFigure, pair_figure

_RESAMPLES = 2_000
_COLUMNS = (
    *("neighbour", "extra work", "measured", "scatter of a pair", "called slower", "same or faster", "unproven"),
    *("separate gates: slower", "95 % bounds", "stepping of a gate"),
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
        stepping_seconds: Median over drawn gates of the seconds that a gate would step.
        factor: How many times longer a gate steps in a pair than the study did; 1 where it steps for less.
    """

    level: float
    pairs: int
    ratio: float | None
    scatter: float | None
    drawn: Counter[str]
    separate: Counter[str]
    stepping_seconds: float
    factor: float

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
    figures, factor = _figures(recording, level), _factor(recording)
    generator = np.random.Generator(np.random.PCG64([seed, round(100 * float(level))]))
    count = 2 * rules.most_pairs if len(figures) >= rules.fewest_pairs else 0
    drawn = (
        [figures[i] for i in generator.integers(0, len(figures), count)] if count else figures for _ in range(gates)
    )
    ended = [_gate(each, rules).trial for each in drawn]
    ratios = [figure.log_ratio for figure in figures if not figure.trouble]
    return Rates(
        level=float(level),
        pairs=len(figures),
        ratio=float(np.expm1(statistics.fmean(ratios))) if ratios else None,
        scatter=statistics.stdev(ratios) if len(ratios) > 1 else None,
        drawn=Counter(trial.end("").verdict for trial in ended),
        separate=Counter(decision.verdict for decision in _separate(figures, rules)),
        stepping_seconds=statistics.median(trial.stepping_seconds for trial in ended) if ended else 0.0,
        factor=factor,
    )


def drawn_ratios(recording: Recording, level: str, *, gates: int, rules: Rules, seed: int = 0) -> list[float]:
    """What drawn gates would have recorded: head by base, of each gate that ended without a control that moved.

    Args:
        recording: The timings; of at least as many pairs as a gate takes.
        level: Extra work, in percent.
        gates: How many are drawn.
        rules: The decision's.
        seed: Of the order in which pairs are drawn.

    Determinism: depends on the arguments alone.
    """
    figures = _figures(recording, level)
    generator = np.random.Generator(np.random.PCG64([seed, round(100 * float(level)), 1]))
    found = []
    for _ in range(gates if len(figures) >= rules.fewest_pairs else 0):
        drawn = [figures[i] for i in generator.integers(0, len(figures), 2 * rules.most_pairs)]
        decision = _gate(drawn, rules).trial.end("")
        ratio, control = decision.found, decision.control
        if ratio is None or control is None or ratio.pairs < rules.fewest_pairs:
            continue
        if not is_moved(control.log_ratio, control.low, control.high, threshold=rules.control_threshold):
            found.append(math.exp(ratio.log_ratio))
    return found


@dataclass(frozen=True)
class _Gate:
    """One gate: its trial, how many pairs it took, and whether it was answered before these were used up."""

    trial: Trial
    taken: int
    is_finished: bool


def with_moved_control(recording: Recording, rate: float) -> Recording:
    """The recording as if the control had taken ``rate`` longer in the head: does the gate see that it moved?

    Raises:
        SettingsError: A control that took no time at all, or less, is asked for.
    """
    if not -1 < rate < math.inf:
        raise SettingsError(f"control_moved: a rate above -1 is required, but {rate} came")

    def moved(block: Block) -> Block:
        return dataclasses.replace(block, control_head_seconds=(1 + rate) * block.control_head_seconds)

    found = Recording(recording.header)
    for pair in recording.pairs:
        found.pairs.append({level: [moved(block) for block in blocks] for level, blocks in pair.items()})
    return found


@dataclass(frozen=True)
class ProcessScatter:
    """By how much two processes of the same code differ, apart from what the machine does to the single blocks.

    The levels of a pair are timed one after the other in the same two processes, so what they have in common is the
    processes'. Its variance is the mean covariance of two levels over pairs. Where the memory of a level's own graph
    lies is not in it.

    Attributes:
        log_ratio: The standard deviation over pairs; 0 where the levels have nothing in common.
        high: Upper end of its 95 % interval, from drawing the pairs anew.
    """

    log_ratio: float
    high: float


def process_scatter(recording: Recording, *, seed: int = 0) -> ProcessScatter | None:
    """What the levels of a pair have in common; None with fewer than two levels, or three undisturbed pairs.

    Determinism: depends on the arguments alone.
    """
    having_all = Recording(recording.header, [pair for pair in recording.pairs if pair.keys() >= set(recording.levels)])
    figures = zip(*(_figures(having_all, level) for level in recording.levels), strict=True)
    whole = np.array([[each.log_ratio for each in pair] for pair in figures if not any(e.trouble for e in pair)])
    if len(recording.levels) < 2 or len(whole) < 3:
        return None
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = [_common_scatter(whole[generator.integers(0, len(whole), len(whole))]) for _ in range(_RESAMPLES)]
    return ProcessScatter(_common_scatter(whole), float(np.quantile(drawn, 0.975)))


def _common_scatter(log_ratios: np.ndarray) -> float:
    """Of (pairs, levels): the root of the mean covariance of two levels; 0 if that is below 0."""
    covariance = np.cov(log_ratios, rowvar=False)
    return float(max(0.0, covariance[np.triu_indices(len(covariance), k=1)].mean())) ** 0.5


def _factor(recording: Recording) -> float:
    """How many times longer a gate steps in a pair than the study did; 1 where it steps for less."""
    return max(1.0, gate_pair_seconds() / recording.pair_seconds)


def _figures(recording: Recording, level: str) -> list[PairFigure]:
    """What each pair of a level would have said in a gate."""
    factor = _factor(recording)
    figures = [pair_figure(shortened(times, gate_pair_seconds() / factor)) for times in recording.times(level)]
    return [dataclasses.replace(each, stepping_seconds=factor * each.stepping_seconds) for each in figures]


def _gate(figures: Sequence[PairFigure], rules: Rules) -> _Gate:
    trial = Trial(rules)
    for taken, figure in enumerate(figures, start=1):
        add_within(trial, figure, TIME_LIMIT_SECONDS)
        if not trial.is_open:
            return _Gate(trial, taken, is_finished=True)
    trial.end("there are no more pairs")
    return _Gate(trial, len(figures), is_finished=False)


def _separate(figures: Sequence[PairFigure], rules: Rules) -> list[Decision]:
    """Gates on pairs of their own; what is left over at the end is too little for one."""
    found, remaining = [], list(figures)
    while remaining and (gate := _gate(remaining, rules)).is_finished:
        found.append(gate.trial.end(""))
        remaining = remaining[gate.taken :]
    return found


def as_table(neighbour: str, found: Sequence[Rates]) -> str:
    """A Markdown table of the rates."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for each in found:
        low, high = each.bounds(SLOWER)
        times = "" if each.factor == 1 else f" ({each.factor:g} times the study's)"
        passed = max(0.0, 1 - each.rate(SLOWER) - each.rate(UNPROVEN))
        cells = (
            neighbour,
            f"{each.level:g} %",
            "-" if each.ratio is None else f"{each.ratio:+.2%}",
            "-" if each.scatter is None else f"{each.scatter:.1%}",
            f"{each.rate(SLOWER):.1%}",
            f"{passed:.1%}",
            f"{each.rate(UNPROVEN):.1%}",
            f"{each.separate[SLOWER]} of {each.separate.total()}",
            f"{low:.1%} to {high:.1%}",
            f"{each.stepping_seconds:.0f} s{times}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
