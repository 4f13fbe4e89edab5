"""The notebooks' text layer, written anew from their description: Keras' ``TextVectorization``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from minibert.settings import TextSettings


@keras.saving.register_keras_serializable(package="benchmarks")
def standardize(texts: Any) -> Any:
    """Lower case, ``<br />`` as a space, punctuation removed; square brackets and the double quote stay."""
    lowercase = tf.strings.regex_replace(tf.strings.lower(texts), "<br />", " ")
    return tf.strings.regex_replace(lowercase, f"[{re.escape('!#$%&()*+,-./:;<=>?@^_`{|}~' + chr(39) + chr(92))}]", "")


def learned_layer(texts: list[str], settings: TextSettings) -> Any:
    """The layer, its vocabulary learned and ``[mask]`` in the place of the least frequent word."""
    layer = _layer(settings)
    layer.adapt(tf.data.Dataset.from_tensor_slices(texts).batch(1_024))
    words = layer.get_vocabulary()
    layer.set_vocabulary([*words[2 : settings.vocabulary_size - 1], "[mask]"])
    return layer


def layer_of(words: Sequence[str], settings: TextSettings) -> Any:
    """The layer with a vocabulary that is known: words by id, padding and unknown among them."""
    layer = _layer(settings)
    layer.set_vocabulary(list(words[2:]))
    return layer


def _layer(settings: TextSettings) -> Any:
    return keras.layers.TextVectorization(
        max_tokens=settings.vocabulary_size,
        output_mode="int",
        standardize=standardize,
        output_sequence_length=settings.sequence_length,
    )


def encode(layer: Any, texts: list[str]) -> np.ndarray:
    """Ids, int64 (examples, sequence)."""
    return layer(tf.constant(texts)).numpy()
