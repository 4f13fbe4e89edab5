"""Layer normalization and its written-out gradient are those of Keras and of float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minibert.model.normalization import LayerNormalization, layer_norm
from tests import oracles
from tests.closeness import deviation

EPSILON = 1e-6
few = hypothesis_settings(max_examples=15)


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)


def value_and_gradients(call, arrays, upstream):
    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = call(*tensors)
        total = tf.reduce_sum(outputs * upstream)
    return outputs.numpy(), [gradient.numpy() for gradient in tape.gradient(total, tensors)]


@few
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1e-2, 1.0, 50.0]), offset=st.sampled_from([0.0, 3.0]))
def test_value_and_gradients_agree_with_the_oracle(seed, scale, offset):
    inputs = random(seed, 2, 3, 8) * np.float32(scale) + np.float32(offset)
    gamma, beta, upstream = (random(seed + n, *shape) for n, shape in ((1, (8,)), (2, (8,)), (3, (2, 3, 8))))

    def total(*arrays):
        return float((oracles.layer_norm(*arrays, EPSILON) * upstream).sum())

    value, gradients = value_and_gradients(lambda *t: layer_norm(*t, EPSILON), (inputs, gamma, beta), upstream)
    wide = [array.astype(np.float64) for array in (inputs, gamma, beta)]
    # An offset takes bits of float32 away from what is left after the mean.
    tolerance = 1e-6 * (1.0 + 2.0 * offset / scale)
    assert deviation(value, oracles.layer_norm(*wide, EPSILON)) < tolerance
    known = oracles.numeric_gradient(total, *wide, step=1e-6 * scale)
    for found, gradient in zip(gradients, known, strict=True):
        assert deviation(found, gradient) < 10 * tolerance


def test_value_and_gradients_are_those_of_keras():
    ours, theirs = LayerNormalization(epsilon=EPSILON), keras.layers.LayerNormalization(epsilon=EPSILON)
    inputs, upstream = random(0, 4, 5, 16), random(1, 4, 5, 16)
    found = []
    for layer in (ours, theirs):
        layer.build(inputs.shape)
        layer.gamma.assign(random(2, 16))
        layer.beta.assign(random(3, 16))
        x = tf.constant(inputs)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x)
            total = tf.reduce_sum(outputs * upstream)
        gradients = tape.gradient(total, [x, layer.gamma.value, layer.beta.value])
        found.append([np.asarray(part) for part in (outputs, *gradients)])
    for our_part, their_part in zip(*found, strict=True):
        assert deviation(our_part, their_part) < 1e-5


@pytest.mark.parametrize("value", [0.0, 7.0, -1e6])
def test_a_constant_row_is_beta_and_its_gradient_is_finite(value):
    inputs, gamma, beta = np.full((1, 8), value, np.float32), random(1, 8), random(2, 8)
    outputs, gradients = value_and_gradients(lambda *t: layer_norm(*t, EPSILON), (inputs, gamma, beta), random(3, 1, 8))
    assert np.array_equal(outputs[0], beta)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_bfloat16_is_normalized_in_float32():
    inputs = tf.cast(random(0, 4, 16), tf.bfloat16)
    outputs = LayerNormalization(epsilon=EPSILON, dtype="mixed_bfloat16")(inputs)
    assert outputs.dtype == tf.bfloat16
    known = LayerNormalization(epsilon=EPSILON)(tf.cast(inputs, tf.float32))
    assert np.array_equal(tf.cast(outputs, tf.float32), tf.cast(tf.cast(known, tf.bfloat16), tf.float32))


def test_its_config_makes_it_again():
    made = keras.saving.serialize_keras_object(LayerNormalization(epsilon=1e-4, name="a"))
    layer = keras.saving.deserialize_keras_object(made)
    assert isinstance(layer, LayerNormalization)
    assert (layer.epsilon, layer.name) == (1e-4, "a")
