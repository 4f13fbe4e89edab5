"""The classifier's two stages, frozen and unfrozen, and its evaluation on encoded texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from minibert.batches import ClassifierBatches
from minibert.model.heads import ClassifierObjective, classifier_layers, pool
from minibert.settings import RunSettings
from minibert.training.loop import Figures, Stage
from minibert.training.step import TrainingStep


class ClassifierForward:
    """A classifier's logits for ids, without dropout; traced once.

    Args:
        classifier: From `minibert.model.heads.build_classifier`.
    """

    def __init__(self, classifier: keras.Model) -> None:
        self._encoder, self._layers = classifier.get_layer("encoder"), classifier_layers(classifier)
        length = classifier.input_shape[1]
        self._function = tf.function(self._run, input_signature=[tf.TensorSpec([None, length], tf.int32)])

    def logits(self, token_ids: np.ndarray, *, batch_size: int) -> np.ndarray:
        """The logits of label 1: float32 (examples,), computed in batches."""
        parts = [
            self._function(tf.convert_to_tensor(token_ids[start : start + batch_size].astype(np.int32))).numpy()
            for start in range(0, len(token_ids), batch_size)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)

    def _run(self, token_ids: Any) -> Any:
        hidden = self._encoder(token_ids, training=False)
        for layer in self._layers:
            hidden = pool(layer, hidden, token_ids) if layer.name == "pooling" else layer(hidden)
        return tf.reshape(hidden, [-1])


@dataclass(frozen=True)
class Score:
    """A classifier's result on labelled examples.

    Attributes:
        loss: Mean binary cross-entropy.
        accuracy: Share of examples whose class was found, 0 to 1.
        examples: Their number.
    """

    loss: float
    accuracy: float
    examples: int


def score(logits: np.ndarray, labels: np.ndarray) -> Score:
    """Mean loss and accuracy of logits (examples,) against labels 0 or 1 (examples,), in float64."""
    wide, target = logits.astype(np.float64), labels.astype(np.float64)
    losses = np.maximum(wide, 0.0) - wide * target + np.log1p(np.exp(-np.abs(wide)))
    correct = (wide > 0) == (target > 0.5)
    return Score(float(losses.mean()), float(correct.mean()), len(logits))


def finetune_stage(
    classifier: keras.Model,
    *,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    settings: RunSettings,
    frozen: bool,
    checked: bool = True,
) -> Stage:
    """The frozen or the unfrozen stage of a run, each with a fresh optimizer.

    Args:
        classifier: From `minibert.model.heads.build_classifier`.
        train: Ids (examples, sequence) and labels (examples,) to train on.
        test: Likewise, to validate on after every epoch.
        settings: The run's.
        frozen: Whether the encoder's weights are held.
        checked: Whether a step that may race is refused.
    """
    finetune, name = settings.finetune, "frozen" if frozen else "unfrozen"
    forward = ClassifierForward(classifier)

    def evaluate(epoch: int) -> Figures:
        found = score(forward.logits(test[0], batch_size=finetune.batch_size), test[1])
        return {"val_loss": found.loss, "val_accuracy": found.accuracy}

    return Stage(
        name=name,
        index=1 if frozen else 2,
        step=TrainingStep(
            ClassifierObjective(classifier, encoder_trainable=not frozen),
            learning_rate=finetune.learning_rate,
            seed=settings.seed,
            stage=name,
            checked=checked,
        ),
        batches=ClassifierBatches(*train, seed=settings.seed, batch_size=finetune.batch_size, stage=name),
        epochs=finetune.frozen_epochs if frozen else finetune.unfrozen_epochs,
        variables=list(classifier.variables),
        evaluate=evaluate,
    )
