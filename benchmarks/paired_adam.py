"""Keras' Adam by word, for the notebooks' code: ours has a setting for it (see `minibert.training.adam`)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class ByWordAdam(keras.optimizers.Adam):
    """Keras' Adam on the sum of an embedding's gradients."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(tf.convert_to_tensor(gradient), variable, learning_rate)
