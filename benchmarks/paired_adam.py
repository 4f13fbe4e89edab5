"""Both codes with the other's Adam: what its second moment of the word embedding sums.

    by word         v <- v + (1 - b2) ((g1 + ... + gn)^2 - v)     the package: Adam of the summed gradient
    by occurrence   v <- v + (1 - b2) (g1^2 + ... + gn^2 - v)     Keras 3 on TensorFlow

g1 to gn are the gradients of a word's n places in a batch. The first moment is of their sum in both, so a
word whose places agree moves by up to the root of n times as far in a step by occurrence, and one whose
places disagree by less. All other weights have one gradient, and the two are the same for them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from minibert.model.dropout import DropoutStream
from minibert.training.loop import Stage
from minibert.training.step import TrainingStep


class ByWordAdam(keras.optimizers.Adam):
    """Keras' Adam on the sum of an embedding's gradients."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(tf.convert_to_tensor(gradient), variable, learning_rate)


class _GivenSquaresAdam(keras.optimizers.Adam):
    """Keras' Adam, told what to take for the square of a gradient."""

    squares: list[Any]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        number = self._get_variable_index(variable)
        momentum, velocity = self._momentums[number], self._velocities[number]
        step = ops.cast(self.iterations + 1, variable.dtype)
        root = ops.sqrt(1 - ops.power(self.beta_2, step))
        rate = ops.cast(learning_rate, variable.dtype) * root / (1 - ops.power(self.beta_1, step))
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (self.squares[number] - velocity) * (1 - self.beta_2))
        self.assign_sub(variable, momentum * rate / (ops.sqrt(velocity) + self.epsilon))


class ByOccurrenceStep(TrainingStep):
    """The package's training step with Keras' second moment of embeddings; without fingerprints."""

    @classmethod
    def in_place_of(cls, stage: Stage) -> Stage:
        """The stage with this step; its own must not have been called yet."""
        step = stage.step
        rate = float(step.optimizer.learning_rate)
        return dataclasses.replace(
            stage, step=cls(step.objective, learning_rate=rate, seed=step._seed, stage=stage.name, fingerprints=False)
        )

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.optimizer = _GivenSquaresAdam(named["learning_rate"], name="adam")
        self.optimizer.build(self.objective.variables)

    def _run(self, step: Any, batch: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        variables = [variable.value for variable in self.objective.variables]
        with (
            DropoutStream(seed=self._seed, stage=self._stage, step=step),
            tf.GradientTape(watch_accessed_variables=False) as tape,
        ):
            tape.watch(variables)
            objective, metrics, _ = self.objective(batch)
        gradients = tape.gradient(objective, variables)
        self._update([tf.convert_to_tensor(gradient) for gradient in gradients], [_square(g) for g in gradients])
        return metrics, tf.zeros([0], tf.int32)

    def _apply(self, gradients: list[Any], squares: list[Any] | None = None) -> None:
        self.optimizer.squares = squares or []
        self.optimizer.apply(gradients, self.objective.variables)


def _square(gradient: Any) -> Any:
    """What goes into the second moment: dense."""
    if isinstance(gradient, tf.IndexedSlices):
        values = gradient.values
        return tf.convert_to_tensor(tf.IndexedSlices(values * values, gradient.indices, gradient.dense_shape))
    return gradient * gradient
