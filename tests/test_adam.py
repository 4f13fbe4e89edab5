"""By occurrence the update is Keras' own of ``IndexedSlices``, by word it is Keras' own of their sum."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from minibert.training.adam import Adam, sum_of_squares
from minibert.training.state import optimizer_arrays
from minibert.training.step import TrainingStep
from tests import oracles
from tests.closeness import deviation

ROWS, COLUMNS, RATE = 7, 3, 0.01
PLACES = ([2, 2, 2, 5], [5, 0, 5, 2], [6, 6, 6, 6], [1, 2, 3, 4], [2, 0, 2, 0])
"""Rows that each batch uses; row 2 comes three times, twice, once and never, row 6 in one batch only."""
MOMENTS = ("occurrence", "word")


def start() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(0)).uniform(-0.05, 0.05, (ROWS, COLUMNS)).astype(np.float32)


def slopes() -> list[np.ndarray]:
    """Gradients of each batch's places: their sizes differ by powers of ten, and some cancel."""
    generator, scales = np.random.Generator(np.random.PCG64(1)), (1.0, 1e-3, 1e2, 1e-6, 1.0)
    found = [(generator.standard_normal((4, COLUMNS)) * scale).astype(np.float32) for scale in scales]
    found[0][1] = -found[0][0]
    return found


def slices() -> list[tf.IndexedSlices]:
    shape = tf.constant([ROWS, COLUMNS])
    return [
        tf.IndexedSlices(tf.constant(slope), tf.constant(places), shape)
        for slope, places in zip(slopes(), PLACES, strict=True)
    ]


def updated_by_keras(gradients: list[object]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The weight and Keras' own Adam after these updates."""
    weight, optimizer = keras.Variable(start(), name="table"), keras.optimizers.Adam(RATE, name="adam")
    optimizer.build([weight])
    for gradient in gradients:
        optimizer.apply([gradient], [weight])
    return weight.numpy(), optimizer_arrays(optimizer)


def updated_by_ours(moment: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    weight, optimizer = keras.Variable(start(), name="table"), Adam(RATE, name="adam")
    optimizer.build([weight])
    for gradient in slices():
        square = sum_of_squares(gradient) if moment == "occurrence" else None
        optimizer.apply_with_squares([tf.convert_to_tensor(gradient)], [square], [weight])
    return weight.numpy(), optimizer_arrays(optimizer)


def known(moment: str) -> np.ndarray:
    steps = [list(zip(places, slope, strict=True)) for places, slope in zip(PLACES, slopes(), strict=True)]
    return oracles.adam_of_rows(start(), steps, RATE, second_moment=moment)


@pytest.mark.parametrize("moment", MOMENTS)
def test_weight_and_moments_are_keras_bit_for_bit(moment):
    gradients = slices() if moment == "occurrence" else [tf.convert_to_tensor(gradient) for gradient in slices()]
    weight, state = updated_by_keras(gradients)
    our_weight, our_state = updated_by_ours(moment)
    assert np.array_equal(our_weight, weight)
    assert list(our_state) == list(state), "the variables' order and names"
    for name, value in state.items():
        assert np.array_equal(our_state[name], value), name


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_update_is_the_formula(moment):
    assert deviation(updated_by_ours(moment)[0] - start(), known(moment) - start()) < 1e-5


def test_the_two_moments_differ_where_a_row_comes_twice():
    moved = np.abs(known("occurrence") - known("word")).max(axis=1) / RATE
    assert (moved[[0, 2, 5, 6]] > 1e-5).all()
    assert (moved[[1, 3, 4]] == 0).all(), "these come at most once in a batch"


class Table:
    """An objective that looks rows up in a table and multiplies them by a dense weight."""

    def __init__(self) -> None:
        self.variables = [
            keras.Variable(start(), name="table"),
            keras.Variable(np.ones(COLUMNS, np.float32), name="weight"),
        ]

    def __call__(self, batch):
        table, weight = (variable.value for variable in self.variables)
        total = tf.reduce_sum(tf.gather(table, batch["places"]) * batch["slopes"] * weight)
        return total, {"loss": total, "count": tf.constant(1.0)}, {}


BATCHES = [{"places": np.array(p, np.int32), "slopes": s} for p, s in zip(PLACES, slopes(), strict=True)]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_training_step_updates_as_a_loop_with_keras_does(moment):
    objective, table = Table(), Table()
    step = TrainingStep(objective, learning_rate=RATE, seed=0, stage="pretrain", embedding_second_moment=moment)
    optimizer = keras.optimizers.Adam(RATE)
    for number, batch in enumerate(BATCHES):
        step(number, batch)
        with tf.GradientTape() as tape:
            total = table(batch)[0]
        gradients = tape.gradient(total, [variable.value for variable in table.variables])
        assert isinstance(gradients[0], tf.IndexedSlices)
        if moment == "word":
            gradients[0] = tf.convert_to_tensor(gradients[0])
        optimizer.apply(gradients, table.variables)
    assert step.trace_count == len(step.graphs)
    for found, wanted, before in zip(objective.variables, table.variables, Table().variables, strict=True):
        assert deviation(found.numpy() - before.numpy(), wanted.numpy() - before.numpy()) < 1e-5, found.path


def test_a_step_is_by_occurrence_unless_it_is_told():
    tables = {}
    for options in ({}, *({"embedding_second_moment": moment} for moment in MOMENTS)):
        objective = Table()
        TrainingStep(objective, learning_rate=RATE, seed=0, stage="pretrain", **options)(0, BATCHES[0])
        tables[options.get("embedding_second_moment")] = objective.variables[0].numpy()
    assert np.array_equal(tables[None], tables["occurrence"])
    assert not np.array_equal(tables[None], tables["word"])


def test_a_dense_gradient_has_no_squares_of_its_own():
    assert sum_of_squares(tf.ones([2, 2])) is None
