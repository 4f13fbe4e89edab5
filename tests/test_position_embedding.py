"""The places' vectors are keras-hub's, forward and backward, and the layer comes back from a file."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from minibert.model.position_embedding import PositionEmbedding

BATCH, LENGTH, SIZE = 3, 5, 4


def value_and_gradient(layer: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(0))
    inputs = tf.constant(generator.standard_normal((BATCH, LENGTH, SIZE)).astype(np.float32))
    upstream = tf.constant(generator.standard_normal((BATCH, LENGTH, SIZE)).astype(np.float32))
    layer.build(inputs.shape)
    (embeddings,) = layer.weights
    embeddings.assign(generator.standard_normal((LENGTH, SIZE)).astype(np.float32))
    with tf.GradientTape() as tape:
        outputs = layer(inputs)
        total = tf.reduce_sum(outputs * upstream)
    return outputs.numpy(), np.asarray(tf.convert_to_tensor(tape.gradient(total, embeddings.value)))


def test_value_and_gradient_are_keras_hubs_bits():
    from keras_nlp.layers import PositionEmbedding as Reference

    ours, theirs = value_and_gradient(PositionEmbedding(LENGTH)), value_and_gradient(Reference(LENGTH))
    for found, known in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(found.view(np.uint32), known.view(np.uint32))


def test_weight_has_keras_hubs_name():
    from keras_nlp.layers import PositionEmbedding as Reference

    layers = [kind(LENGTH, name="position_embedding") for kind in (PositionEmbedding, Reference)]
    for layer in layers:
        layer.build((None, LENGTH, SIZE))
    ours, theirs = ([weight.path for weight in layer.weights] for layer in layers)
    assert ours == theirs == ["position_embedding/embeddings"]


def test_layer_comes_back_from_its_config():
    layer = PositionEmbedding(LENGTH, name="places")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert isinstance(again, PositionEmbedding)
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("length", [1, LENGTH - 1, LENGTH + 1])
def test_another_length_is_refused_before_and_after_the_first_call(length):
    layer, wrong = PositionEmbedding(LENGTH), np.zeros((BATCH, length, SIZE), np.float32)
    for _ in range(2):
        with pytest.raises(ValueError, match="a sequence of 5 is required"):
            layer(wrong)
        layer(np.zeros((BATCH, LENGTH, SIZE), np.float32))


def test_no_place_at_all_is_refused():
    with pytest.raises(ValueError, match="sequence_length: 1 or more is required, but 0 came"):
        PositionEmbedding(0)


def test_a_model_does_not_load_keras_nlp():
    """Loading it takes a second and 0.15 GB."""
    code = (
        "import sys; from minibert.model.encoder import build_masked_lm; from minibert.settings import ModelSettings;"
    )
    code += "build_masked_lm(ModelSettings(hidden_size=8, heads=2), vocabulary_size=9, sequence_length=4, seed=0);"
    code += "print([name for name in ('keras_nlp', 'keras_hub', 'tensorflow_text') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
