"""Dropout's mask is a function of seed, stage, layer, step and place; outside a stream it is Keras' own."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from minibert.model.dropout import DropoutStream, Rows, StreamDropout, drop
from tests import oracles, strategies
from tests.chance import z_of_correlation, z_of_count

ONES = np.ones((3, 5), dtype=np.float32)


def kept(count: int, *, seed: int = 0, stage: str = "pretrain", layer: str = "a", step: int = 0, rate: float = 0.1):
    drawn = DropoutStream(seed=seed, stage=stage, step=step).drawn(layer, (count,))
    return drop(tf.ones([count]), drawn, rate).numpy() != 0


@given(
    seed=strategies.seeds,
    stage=st.sampled_from(["pretrain", "frozen"]),
    layer=st.sampled_from(["encoder_0_att_dropout", "é"]),
    step=st.integers(0, 10**6) | st.integers(0, 2**40),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    rate=st.sampled_from([0.1, 0.5, 1e-9, 0.99999]) | st.floats(0.0, 0.999),
)
@example(seed=0, stage="pretrain", layer="encoder_0_ffn_dropout", step=0, shape=(3, 3), rate=0.1)
def test_masks_agree_with_the_oracle(seed, stage, layer, step, shape, rate):
    drawn = DropoutStream(seed=seed, stage=stage, step=step).drawn(layer, shape)
    found, count = drop(tf.ones(shape), drawn, rate).numpy() != 0, int(np.prod(shape))
    assert found.shape == drawn.shape == shape
    assert found.reshape(-1).tolist() == oracles.dropout_kept(seed, stage, layer, step, count, rate)


@pytest.mark.parametrize("features", [1, 4, 5])
@pytest.mark.parametrize("positions", [[0], [6, 2, 2, 0], [0, 1, 2, 3, 4, 5, 6]])
def test_rows_are_dropped_as_in_the_whole(features, positions):
    layer = StreamDropout(0.5, name="a")
    rows = Rows(tf.constant(positions), tf.zeros([7]))
    with DropoutStream(seed=4, stage="pretrain", step=2):
        found = layer(tf.ones([len(positions), features]), training=True, rows=rows)
    known = np.reshape(oracles.dropout_kept(4, "pretrain", "a", 2, 7 * features, 0.5), (7, features))
    assert np.array_equal(found, 2.0 * known[positions])


def test_a_traced_step_gives_the_mask_of_that_step():
    layer = StreamDropout(0.5, name="a")

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.int64), tf.TensorSpec([None, 5])])
    def run(step, inputs):
        with DropoutStream(seed=4, stage="frozen", step=step):
            return layer(inputs, training=True)

    for step, rows in ((0, 3), (1, 3), (123, 2)):
        known = np.reshape(oracles.dropout_kept(4, "frozen", "a", step, rows * 5, 0.5), (rows, 5))
        assert np.array_equal(run(step, ONES[:rows]).numpy(), known * 2.0)


def test_masks_of_fewer_examples_are_the_beginning():
    assert np.array_equal(kept(10), kept(1000)[:10])


def test_what_stays_is_scaled_and_the_rest_is_0():
    inputs = np.arange(1, 16, dtype=np.float32).reshape(3, 5)
    with DropoutStream(seed=0, stage="pretrain", step=2):
        outputs = StreamDropout(0.1, name="a")(inputs, training=True).numpy()
    stays = np.reshape(oracles.dropout_kept(0, "pretrain", "a", 2, 15, 0.1), (3, 5))
    assert np.array_equal(outputs, np.where(stays, inputs * np.float32(1.0 / 0.9), np.float32(0.0)))


def test_the_gradient_goes_through_the_same_mask():
    inputs = tf.constant(ONES)
    with DropoutStream(seed=0, stage="pretrain", step=2), tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = StreamDropout(0.5, name="a")(inputs, training=True)
    assert np.array_equal(tape.gradient(outputs, inputs), outputs)


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.5, None), (0.0, True)])
def test_nothing_is_dropped_without_a_reason(rate, training):
    with DropoutStream(seed=0, stage="pretrain", step=0):
        assert np.array_equal(StreamDropout(rate)(ONES, training=training), ONES)


# The scope


def test_outside_a_stream_it_is_keras_dropout():
    ours, keras_own = StreamDropout(0.5, seed=3), keras.layers.Dropout(0.5, seed=3)
    for _ in range(3):
        assert np.array_equal(ours(ONES, training=True), keras_own(ONES, training=True))
    assert np.array_equal(ours(ONES), ONES)


def test_a_stream_ends_with_its_block_even_if_that_fails():
    layer = StreamDropout(0.5, seed=3, name="a")

    def fail(drop, outer) -> None:
        with DropoutStream(seed=0, stage="pretrain", step=1):
            assert drop() != outer
            raise ValueError("inside")

    def drop() -> list[list[float]]:
        return layer(ONES, training=True).numpy().tolist()

    with DropoutStream(seed=0, stage="pretrain", step=0):
        outer = drop()
        with pytest.raises(ValueError, match="inside"):
            fail(drop, outer)
        assert drop() == outer
    assert drop() != drop(), "Keras draws anew"


def test_a_stream_is_of_its_thread_alone():
    layer, found = StreamDropout(0.5, seed=3, name="a"), []
    with DropoutStream(seed=0, stage="pretrain", step=0):
        here = layer(ONES, training=True).numpy()
        other = threading.Thread(target=lambda: found.append(layer(ONES, training=True).numpy()))
        other.start()
        other.join()
    assert not np.array_equal(here, found[0])


def test_its_config_makes_it_again():
    layer = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(StreamDropout(0.25, name="a")))
    assert isinstance(layer, StreamDropout)
    assert (layer.rate, layer.name) == (0.25, "a")


def test_bfloat16_stays_bfloat16():
    with DropoutStream(seed=0, stage="pretrain", step=0):
        outputs = StreamDropout(0.5, name="a", dtype="mixed_bfloat16")(ONES, training=True)
    assert outputs.dtype == tf.bfloat16


# Chance


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_share_that_stays_is_what_was_asked_for(rate):
    count = 4_000_000
    assert abs(z_of_count(int(kept(count, rate=rate).sum()), count, 1.0 - round(rate * 65536) / 65536)) < 4


def test_masks_of_neighbours_do_not_correlate():
    count = 1_000_000
    mask = kept(count)
    others = {
        "seed": kept(count, seed=1),
        "stage": kept(count, stage="frozen"),
        "layer": kept(count, layer="b"),
        "step": kept(count, step=1),
    }
    for what, other in others.items():
        assert abs(z_of_correlation(mask, other)) < 4, what
    for gap in (1, 2, 8):
        assert abs(z_of_correlation(mask[gap:], mask[:-gap])) < 4, gap
