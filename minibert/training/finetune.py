"""The classifier's two stages, frozen and unfrozen, and its evaluation on encoded texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from minibert.batches import ClassifierBatches
from minibert.model.heads import ClassifierObjective, classifier_layers, pool
from minibert.progress import Progress
from minibert.scoring import score
from minibert.settings import RunSettings
from minibert.training.loop import Figures, Stage
from minibert.training.memory import within_memory
from minibert.training.state import state_digest, weight_arrays
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

    def logits(
        self, token_ids: np.ndarray, *, batch_size: int, advance: Callable[[int], None] = lambda count: None
    ) -> np.ndarray:
        """The logits of label 1, computed in batches.

        Args:
            token_ids: Integers, (examples, sequence).
            batch_size: Examples per call of the model.
            advance: Is told of every batch: its number of examples.

        Returns:
            float32, (examples,).
        """
        found = np.empty(len(token_ids), dtype=np.float32)
        for number, start in enumerate(range(0, len(token_ids), batch_size)):
            batch = token_ids[start : start + batch_size]
            found[start : start + batch_size] = self._logits_of(number, batch).numpy()
            advance(len(batch))
        return found

    def _logits_of(self, number: int, batch: np.ndarray) -> Any:
        """Those of one batch of a call, by its number."""
        return self._function(tf.convert_to_tensor(batch.astype(np.int32)))

    def _run(self, token_ids: Any) -> Any:
        return self._classify(self._encode(token_ids))

    def _encode(self, token_ids: Any) -> Any:
        """What the encoder gives, pooled: (examples, hidden)."""
        return pool(self._layers[0], self._encoder(token_ids, training=False), token_ids)

    def _classify(self, pooled: Any) -> Any:
        for layer in self._layers[1:]:
            pooled = layer(pooled)
        return tf.reshape(pooled, [-1])


class HeldEncoderForward(ClassifierForward):
    """The same logits, bit for bit, for ids that are asked for again while the encoder's weights are held.

    What the encoder gives is kept, and computed anew where its weights, the ids or the batch size are others than at
    the call before. It is 13 MB for 25,000 texts and a hidden size of 128.

    Args:
        classifier: As of `ClassifierForward`.
    """

    def __init__(self, classifier: keras.Model) -> None:
        super().__init__(classifier)
        pooled = self._layers[0].output
        self._kept, self._kept_of = list[Any](), ""
        self._encoding = tf.function(self._encode, input_signature=self._function.input_signature)
        self._classifying = tf.function(
            self._classify, input_signature=[tf.TensorSpec([None, *pooled.shape[1:]], pooled.dtype)]
        )

    def logits(
        self, token_ids: np.ndarray, *, batch_size: int, advance: Callable[[int], None] = lambda count: None
    ) -> np.ndarray:
        """As `ClassifierForward.logits`."""
        given = {"token_ids": token_ids, "batch_size": np.asarray(batch_size), **weight_arrays(self._encoder.variables)}
        if (kept_of := state_digest(given)) != self._kept_of:
            self._kept, self._kept_of = [], kept_of
        return super().logits(token_ids, batch_size=batch_size, advance=advance)

    def _logits_of(self, number: int, batch: np.ndarray) -> Any:
        if number == len(self._kept):
            self._kept.append(self._encoding(tf.convert_to_tensor(batch.astype(np.int32))))
        return self._classifying(self._kept[number])


def finetune_stage(
    classifier: keras.Model,
    *,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    settings: RunSettings,
    frozen: bool,
    checked: bool = True,
    progress: Progress | None = None,
) -> Stage:
    """The frozen or the unfrozen stage of a run, each with a fresh optimizer.

    Args:
        classifier: From `minibert.model.heads.build_classifier`.
        train: Ids (examples, sequence) and labels (examples,) to train on.
        validation: Likewise, to validate on after every epoch.
        settings: The run's.
        frozen: Whether the encoder's weights are held.
        checked: Whether a step that may race is refused.
        progress: Shows how far a validation is; None: silent.
    """
    finetune, name = settings.finetune, "frozen" if frozen else "unfrozen"
    epochs = finetune.frozen_epochs if frozen else finetune.unfrozen_epochs
    shown, (token_ids, labels) = progress or Progress(quiet=True), validation
    forward = (HeldEncoderForward if frozen else ClassifierForward)(classifier)

    def evaluate(epoch: int) -> Figures:
        task = shown.start(f"{name} {epoch}/{epochs}, validation", len(token_ids))
        with within_memory(f"{name}, validation", finetune.batch_size, "a smaller finetune.batch_size may help"):
            logits = forward.logits(token_ids, batch_size=finetune.batch_size, advance=task.advance)
        found = score(logits, labels)
        task.advance(0, loss=found.loss, accuracy=found.accuracy)
        task.finish()
        return {"val_loss": found.loss, "val_accuracy": found.accuracy}

    return Stage(
        name=name,
        step=TrainingStep(
            ClassifierObjective(
                classifier, encoder_trainable=not frozen, encoder_dropout=finetune.frozen_dropout or not frozen
            ),
            learning_rate=finetune.learning_rate,
            seed=settings.seed,
            stage=name,
            embedding_second_moment=finetune.embedding_second_moment,
            fingerprint_interval=settings.record.fingerprint_interval,
            checked=checked,
        ),
        batches=ClassifierBatches(*train, seed=settings.seed, batch_size=finetune.batch_size, stage=name),
        epochs=epochs,
        variables=list(classifier.variables),
        evaluate=evaluate,
    )
