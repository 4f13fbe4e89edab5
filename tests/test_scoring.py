"""The one definition of a classifier's loss is Keras', and holds for any logit."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minibert.scoring import score
from tests import oracles

logits = st.floats(-1e4, 1e4, width=32)
examples = st.lists(st.tuples(logits, st.integers(0, 1)), min_size=1, max_size=20)


@given(examples)
@example([(0.0, 1)])
@example([(50.0, 0), (-800.0, 1)])
def test_loss_and_accuracy_are_those_of_the_slow_formula(pairs: list[tuple[float, int]]) -> None:
    values, labels = np.array([x for x, _ in pairs], dtype=np.float32), np.array([y for _, y in pairs], dtype=np.int8)
    found = score(values, labels)
    assert found.loss == pytest.approx(oracles.binary_cross_entropy(labels, values).mean(), rel=1e-12)
    assert found.accuracy == sum((x > 0) == bool(y) for x, y in pairs) / len(pairs)
    assert found.examples == len(pairs)


def test_the_loss_is_what_keras_evaluates_behind_a_sigmoid() -> None:
    """Also where the probability is 1 in float32 and the answer wrong: Keras finds the logits and clips nothing."""
    values, labels = np.array([[-3.0], [0.25], [40.0], [25.0]], np.float32), np.array([[1.0], [1.0], [0.0], [1.0]])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Activation("sigmoid")])
    model.compile(optimizer="sgd", loss="binary_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(values, labels, verbose=0)
    found = score(values[:, 0], labels[:, 0])
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert found.loss > 10
    assert found.accuracy == pytest.approx(accuracy)
