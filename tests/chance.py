"""How far an observation is from what chance would give, in standard deviations.

A fixed seed makes each a fixed number: a test that compares it with 4 fails for good or never.
"""

from __future__ import annotations

import math

import numpy as np


def z_of_count(count: int, trials: int, rate: float) -> float:
    """A count of successes against a binomial distribution."""
    return (count - trials * rate) / math.sqrt(trials * rate * (1.0 - rate))


def z_of_counts(counts: np.ndarray, expected: np.ndarray | float) -> float:
    """Pearson's chi-square of independent cells with a fixed sum; Wilson and Hilferty's normal form of it."""
    expected = np.broadcast_to(np.asarray(expected, dtype=np.float64), counts.shape)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    freedom = counts.size - 1
    spread = 2.0 / (9.0 * freedom)
    return ((chi_square / freedom) ** (1.0 / 3.0) - (1.0 - spread)) / math.sqrt(spread)


def z_of_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Pearson's correlation of two equally long samples of independent pairs, times the root of their number."""
    left, right = (np.asarray(side, dtype=np.float32).ravel() for side in (left, right))
    left, right = (side - np.float32(side.mean(dtype=np.float64)) for side in (left, right))
    return float(np.dot(left, right)) / math.sqrt(float(np.dot(left, left)) * float(np.dot(right, right)) / left.size)
