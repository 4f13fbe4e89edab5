"""Adam, and what its second moment adds up for a word that stands in a batch several times.

    occurrence   v <- v + (1 - b2) (g1^2 + ... + gn^2 - v)       Keras 3 on TensorFlow, and so the notebooks
    word         v <- v + (1 - b2) ((g1 + ... + gn)^2 - v)       Adam of the loss' gradient, which is this sum

g1 to gn are the gradients of the word's n places. TensorFlow hands them out as they are, as ``tf.IndexedSlices``, and
Keras' Adam squares them before they are added up. The first moment is of their sum in both, so a word whose
places agree moves by up to the root of n times as far by occurrence, and one whose places disagree by less.
Every other weight has one gradient in a batch, and the two are the same for it.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops


class Adam(keras.optimizers.Adam):
    """Keras' Adam on dense gradients, told what to take for the square of each; it has Keras' variables.

    Keras' own would need the slices where its update is compiled, and XLA adds them up slowly on a CPU.
    """

    _squares: Any = ()

    def apply_with_squares(self, gradients: list[Any], squares: list[Any], variables: list[Any]) -> None:
        """Updates the variables that the optimizer was built for.

        Args:
            gradients: Dense, one for each variable.
            squares: What each second moment takes in place of the gradient's square; None: the square.
            variables: As they were given to ``build``.
        """
        self._squares = squares
        self.apply(gradients, variables)
        self._squares = ()

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable, by Keras' formula."""
        number = self._get_variable_index(variable)
        square = self._squares[number] if self._squares else None
        if square is None:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum, velocity = self._momentums[number], self._velocities[number]
        step = ops.cast(self.iterations + 1, variable.dtype)
        beta_1_power = ops.power(ops.cast(self.beta_1, variable.dtype), step)
        beta_2_power = ops.power(ops.cast(self.beta_2, variable.dtype), step)
        rate = ops.cast(learning_rate, variable.dtype) * ops.sqrt(1 - beta_2_power) / (1 - beta_1_power)
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (square - velocity) * (1 - self.beta_2))
        self.assign_sub(variable, momentum * rate / (ops.sqrt(velocity) + self.epsilon))


def sum_of_squares(gradient: Any) -> Any:
    """The squares of a gradient's slices, added up row by row.

    Args:
        gradient: As a tape gives it.

    Returns:
        Dense, the shape of the weight; None for a gradient that is dense already.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return None
    squares = tf.square(gradient.values)
    return tf.convert_to_tensor(tf.IndexedSlices(squares, gradient.indices, gradient.dense_shape))
