"""From timed blocks to an interval: the middle within a pair of processes, then the mean over pairs.

Two processes of the same code can differ by more than two rounds of one process do (where their memory lies,
which core their threads took), so a pair is one observation, however many blocks it has. Everything is
in logarithms: twice as fast and half as fast are equally far from the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from minibert.errors import MinibertError
from minibert.perf.pair import WAITING_LIMIT, Block, PairTimes

FEWEST_KEPT_BLOCKS = 3
OTHERS_MEAN_LIMIT = 0.15
"""A pair of processes in which others took more than this share of the cores on average proves nothing. Beside one that
multiplies matrices half of the time it is 0.3, with nothing else running mostly less than 0.06."""
BOOTSTRAP_FROM = 8
"""Pairs from which on the bootstrap has something to draw from; with fewer, Student's t alone is used."""
RESAMPLES = 2_000


@dataclass(frozen=True)
class PairFigure:
    """What one pair of processes says about one benchmark.

    Attributes:
        log_ratio: `pseudo_median` over its turns of log(head / base); above 0 the head is slower.
        control_log_ratio: Likewise of the control, over blocks.
        base_seconds: Median of the base's step.
        head_seconds: Likewise of the head's.
        blocks: Blocks that count.
        discarded: Blocks that do not, because other processes took the cores.
        stepping_seconds: What it cost.
        trouble: Why it cannot count at all; empty if it does.
    """

    log_ratio: float
    control_log_ratio: float
    base_seconds: float
    head_seconds: float
    blocks: int
    discarded: int
    stepping_seconds: float
    trouble: str = ""


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs, with its interval.

    Attributes:
        log_ratio: The mean.
        low: Lower end of the interval.
        high: Upper end.
        standard_error: Of the mean.
        pairs: How many.
        freedom: Degrees of freedom of the standard error.
    """

    log_ratio: float
    low: float
    high: float
    standard_error: float
    pairs: int
    freedom: int

    @property
    def excludes_zero(self) -> bool:
        """Whether no change at all is outside the interval."""
        return self.low > 0 or self.high < 0


def pair_figure(times: PairTimes) -> PairFigure:
    """Reduces a pair's blocks to one observation; one that proves nothing says so in ``trouble``."""
    kept = [block for block in times.blocks if block.is_quiet]
    discarded = len(times.blocks) - len(kept)
    known = [block.others_rate for block in times.blocks if block.others_rate is not None]
    others = statistics.fmean(known) if known else 0.0
    if not all(_is_positive(block) for block in times.blocks):
        trouble = "a time that is not a positive number came"
    elif max(times.base_waiting_rate, times.head_waiting_rate) > WAITING_LIMIT:
        rates = f"{times.base_waiting_rate:.2f} (base) and {times.head_waiting_rate:.2f} (head)"
        trouble = f"the sides kept {rates} cores busy while they waited for their turns"
    elif others > OTHERS_MEAN_LIMIT:
        trouble = f"other processes took {others:.0%} of the cores"
    elif len(kept) < FEWEST_KEPT_BLOCKS or discarded > len(kept):
        trouble = f"other processes took the cores in {discarded} of {len(times.blocks)} blocks"
    else:
        return PairFigure(
            log_ratio=pseudo_median(
                [math.log(head / base) for b in kept for head, base in zip(b.head_turns, b.base_turns, strict=True)]
            ),
            control_log_ratio=pseudo_median([math.log(b.control_head_seconds / b.control_base_seconds) for b in kept]),
            base_seconds=statistics.median(b.base_seconds for b in kept),
            head_seconds=statistics.median(b.head_seconds for b in kept),
            blocks=len(kept),
            discarded=discarded,
            stepping_seconds=times.stepping_seconds,
        )
    return PairFigure(0.0, 0.0, 0.0, 0.0, len(kept), discarded, times.stepping_seconds, trouble)


def pseudo_median(values: Sequence[float]) -> float:
    """The median of the means of all pairs of values, each with itself too.

    As deaf to a few wild values as a median, and for the noise of a shared machine less uncertain.

    Source: Hodges and Lehmann, "Estimates of location based on rank tests", Annals of Mathematical Statistics 34, 1963.
    """
    if not values:
        raise MinibertError("values: at least 1 is required, but none came")
    return statistics.median((one + other) / 2 for one, other in combinations_with_replacement(values, 2))


def _is_positive(block: Block) -> bool:
    seconds = (*block.base_turns, *block.head_turns, block.control_base_seconds, block.control_head_seconds)
    return all(0 < value < math.inf for value in seconds)  # false for NaN


def estimate(log_ratios: Sequence[float], *, confidence: float, base: Sequence[float] = ()) -> Estimate:
    """The mean of paired log ratios over pairs, and an interval for it.

    Student's t interval; from `BOOTSTRAP_FROM` pairs on, the hull of it and of scipy's bootstrap over
    pairs (BCa). A bootstrap of a few values knows nothing beyond them and is too narrow; t knows nothing
    of a skew. The wider of the two at either end is wrong the least often.

    Args:
        log_ratios: One for each pair, at least 2.
        confidence: 0 to 1.
        base: Where the base was measured in other processes, at another time: the logarithms of its own
            times, one for each process. Their scatter is added to the interval (Student's t for two
            samples of one variance), and there is no bootstrap.

    Determinism: the same values give the same interval: the resampling has a fixed seed.
    """
    count = len(log_ratios)
    if count < 2 or not all(map(math.isfinite, log_ratios)):
        raise MinibertError(f"log_ratios: at least 2 finite numbers are required, but {list(log_ratios)} came")
    mean, (freedom, error) = statistics.fmean(log_ratios), _freedom_and_error(log_ratios, base)
    reach = quantile(confidence, freedom) * error
    low, high = mean - reach, mean + reach
    if count >= BOOTSTRAP_FROM and error > 0 and not base:
        lower, upper = _bootstrap(log_ratios, confidence)
        low, high = min(low, lower), max(high, upper)
    return Estimate(mean, low, high, error, count, freedom)


def _freedom_and_error(log_ratios: Sequence[float], base: Sequence[float]) -> tuple[int, float]:
    """Degrees of freedom, and the standard error of the mean."""
    if not base:
        return len(log_ratios) - 1, statistics.stdev(log_ratios) / math.sqrt(len(log_ratios))
    freedom = len(log_ratios) + len(base) - 2
    squares = sum((len(values) - 1) * statistics.variance(values) for values in (log_ratios, base) if len(values) > 1)
    return freedom, math.sqrt(squares / freedom * (1 / len(log_ratios) + 1 / len(base)))


def quantile(confidence: float, freedom: int) -> float:
    """How many standard errors the two-sided t interval reaches to either side."""
    from scipy import stats

    return float(stats.t.ppf(0.5 + confidence / 2, freedom))


def _bootstrap(values: Sequence[float], confidence: float) -> tuple[float, float]:
    import numpy as np
    from scipy import stats

    found = stats.bootstrap(
        (np.asarray(values),),
        np.mean,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        method="BCa",
        random_state=np.random.Generator(np.random.PCG64(0)),
    ).confidence_interval
    ends = float(found.low), float(found.high)
    return ends if all(map(math.isfinite, ends)) else (math.inf, -math.inf)  # adds nothing to the hull


def detectable_change(found: Estimate, *, threshold: float, confidence: float, power: float = 0.95) -> float:
    """The smallest slowdown that a gate with this scatter calls one in ``power`` of the cases, relative.

    It must get over the threshold and out of the interval twice, in the first part and in the repeat, so each
    has the root of the power. The room for its own scatter is Student's, because the scatter is an estimate.
    """
    from scipy import stats

    needed = max(math.log1p(threshold), quantile(confidence, found.freedom) * found.standard_error)
    return math.expm1(needed + float(stats.t.ppf(math.sqrt(power), found.freedom)) * found.standard_error)
