"""Initial weights are named words, bit for bit, in the distributions that Keras' layers start from."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.model.initial_weights import initial_weight, set_initial_weights
from tests import oracles, small_models, strategies
from tests.chance import z_of_counts
from tests.golden import make

HEADS = 4
SHAPES = {
    "word_embedding/embeddings": (7, 8),
    "position_embedding/embeddings": (5, 8),
    "encoder_0_multiheadattention/qkv_kernel": (8, 24),
    "encoder_0_multiheadattention/qkv_bias": (24,),
    "encoder_0_multiheadattention/output_kernel": (8, 8),
    "encoder_0_multiheadattention/output_bias": (8,),
    "encoder_1_att_layernormalization/gamma": (8,),
    "encoder_1_att_layernormalization/beta": (8,),
    "encoder_0_ffn/inner/kernel": (8, 12),
    "encoder_0_ffn/inner/bias": (12,),
    "mlm_cls/kernel": (8, 7),
}


def bits(array: np.ndarray) -> list[int]:
    assert array.dtype == np.float32
    return array.reshape(-1).view(np.uint32).tolist()


@given(seed=strategies.seeds, path=st.sampled_from(sorted(SHAPES)))
def test_weights_agree_with_the_oracle_bit_for_bit(seed, path):
    weight = initial_weight(seed, path, SHAPES[path], heads=HEADS)
    assert weight.shape == SHAPES[path]
    assert bits(weight) == oracles.initial_weight_bits(seed, path, SHAPES[path], HEADS)


def test_weights_are_the_known_answer():
    assert make.GOLDENS["initial_weights.json"]() == make.read("initial_weights.json")
    for name, known in json.loads(make.read("initial_weights.json")).items():
        seed, _, path = name.partition(" ")
        found = oracles.initial_weight_bits(int(seed), path, known["shape"], known["heads"], 16)
        assert [f"{word:08x}" for word in found] == known["first_bits"].split()


def test_a_model_starts_from_its_streams():
    model = small_models.build(seed=3)
    for variable in model.weights:
        if "seed_generator" not in variable.path:
            known = oracles.initial_weight_bits(3, variable.path, variable.shape, small_models.SETTINGS.heads)
            assert bits(variable.numpy()) == known, variable.path


def test_every_call_gives_the_same_bits_and_every_seed_others():
    """Keras counts its layers up within a process; the paths, and so the bits, must not depend on it."""
    one, other = (small_models.build_classifier(seed=3) for _ in range(2))
    assert [v.path for v in one.weights if "seed" not in v.path] == [
        v.path for v in other.weights if "seed" not in v.path
    ]
    for left, right in zip(one.trainable_weights, other.trainable_weights, strict=True):
        assert bits(left.numpy()) == bits(right.numpy())
    another = small_models.build_classifier(seed=4)
    kernel = [weight.path for weight in one.trainable_weights].index("hidden/kernel")
    assert bits(another.trainable_weights[kernel].numpy()) != bits(one.trainable_weights[kernel].numpy())


def test_no_two_weights_of_a_model_have_the_same_path():
    paths = [weight.path for weight in small_models.build_classifier().trainable_weights]
    assert len(set(paths)) == len(paths)


def test_setting_is_the_same_as_making():
    layer = keras.layers.Dense(5, name="hidden")
    layer.build((None, 3))
    set_initial_weights(layer, 9, heads=1)
    assert bits(layer.kernel.numpy()) == bits(initial_weight(9, "hidden/kernel", (3, 5)))
    assert not layer.bias.numpy().any()


# The limits are Keras'


@pytest.mark.parametrize(("hidden", "heads"), [(128, 8), (64, 4), (64, 1)])
def test_attention_starts_where_the_notebooks_attention_did(hidden, heads):
    """Their Keras drew a (hidden, heads, size) kernel by its shape alone, as if it were a convolution.

    Since Keras' pull request 22789 (April 2026) its attention starts as a square matrix does, wider; what
    Keras makes of a bare shape is as it was.
    """
    size = hidden // heads
    for ours, shape, keras_shape in (
        ("qkv_kernel", (hidden, 3 * hidden), (hidden, heads, size)),
        ("output_kernel", (hidden, hidden), (heads, size, hidden)),
    ):
        limit = oracles.initial_weight_limit(f"a/{ours}", shape, heads)
        drawn = keras.initializers.GlorotUniform(seed=0)(keras_shape)
        for values in (drawn, initial_weight(0, f"a/{ours}", shape, heads=heads)):
            largest = float(np.abs(np.asarray(values)).max())
            assert 0.99 * limit < largest <= np.float32(limit), ours
    if heads > 1:
        square = math.sqrt(6.0 / (hidden + hidden))
        assert oracles.initial_weight_limit("a/qkv_kernel", (hidden, 3 * hidden), heads) < 0.8 * square


def test_the_other_layers_start_where_keras_layers_do():
    from keras_nlp.layers import PositionEmbedding

    built: list[tuple[str, keras.layers.Layer, tuple[int, ...]]] = [
        ("word_embedding/embeddings", keras.layers.Embedding(500, 32), (None, 9)),
        ("position_embedding/embeddings", PositionEmbedding(200), (None, 9, 32)),
        ("encoder_0_ffn/inner/kernel", keras.layers.Dense(100), (None, 60)),
    ]
    for path, layer, shape in built:
        layer.build(shape)
        weight = layer.weights[0]
        limit = oracles.initial_weight_limit(path, tuple(weight.shape), 1)
        largest = float(np.abs(initial_weight(0, path, tuple(weight.shape))).max())
        for found in (float(np.abs(weight.numpy()).max()), largest):
            assert 0.99 * limit < found <= np.float32(limit), path


def test_values_are_uniform():
    weight = initial_weight(0, "word_embedding/embeddings", (30_000, 32)).reshape(-1)
    counts = np.histogram(weight, bins=100, range=(-0.05, 0.05))[0]
    assert counts.sum() == weight.size
    assert abs(z_of_counts(counts, weight.size / 100)) < 4
