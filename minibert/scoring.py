"""A classifier's loss and accuracy, defined once: validation, the raw-text model and ``evaluate`` all use this.

    score([2.0, -1.0], [1, 1]) -> Score(loss=0.7201, accuracy=0.5, examples=2)

Losses are of logits, not of probabilities, so none is cut off however sure a wrong answer is. Keras does the
same in ``fit`` and ``evaluate`` where a model ends in a sigmoid, as the notebooks' does: it looks the logits up
behind it. Its clipping of probabilities at 1e-7 is for other models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """A classifier's result on labelled examples.

    Attributes:
        loss: Mean binary cross-entropy, in nats.
        accuracy: Share of examples whose class was found, 0 to 1.
        examples: Their number.
    """

    loss: float
    accuracy: float
    examples: int


def score(logits: np.ndarray, labels: np.ndarray) -> Score:
    """Mean loss and accuracy, computed in float64.

    The loss of a logit x against a label y is max(x, 0) - x y + log(1 + exp(-abs(x))).

    Args:
        logits: Floats of label 1, (examples,), one or more.
        labels: 0 or 1, (examples,).
    """
    wide, target = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    losses = np.maximum(wide, 0.0) - wide * target + np.log1p(np.exp(-np.abs(wide)))
    correct = (wide > 0) == (target > 0.5)
    return Score(float(losses.mean()), float(correct.mean()), len(wide))
