"""One side of a paired run: masked language model, then the classifier on it after some of its epochs.

All sides get the same batches, number by number, and the same initial weights. `OurSide` trains as a run
of the package does. `NotebookSide` trains the notebooks' own models by Keras' ``fit``: every position goes
through the vocabulary projection, and attention, dropout and Adam are Keras'.

Each comes in two kinds, by what Adam's second moment takes of a word that repeats (see `minibert.training.adam`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from benchmarks import notebook_models
from benchmarks.paired_adam import ByWordAdam
from benchmarks.workloads import whole_labels
from minibert.batches import ClassifierBatches, MaskedLMBatches
from minibert.examples import Examples
from minibert.settings import EmbeddingSecondMoment, RunSettings
from minibert.stages import initial_classifier, initial_masked_lm
from minibert.training.finetune import finetune_stage
from minibert.training.loop import Stage
from minibert.training.pretrain import pretrain_stage

Snapshot = list[np.ndarray]


@dataclass(frozen=True)
class Data:
    """What a side is trained on.

    Attributes:
        settings: Of the run; the seed decides masks, order, initial weights and dropout.
        examples: The encoded texts, train and test.
    """

    settings: RunSettings
    examples: Examples


@dataclass(frozen=True)
class Classified:
    """A classifier's two stages: validation accuracies epoch by epoch, training losses step by step."""

    frozen: list[float]
    unfrozen: list[float]
    losses: list[float]


class Side(Protocol):
    """What is done with a side, in this order."""

    def pretrain(self, epochs: set[int]) -> tuple[list[float], dict[int, Snapshot]]:
        """Trains the masked language model: the loss of every step, and the weights after these epochs (0: before)."""
        ...

    def classify(self, snapshot: Snapshot) -> Classified:
        """Trains the classifier, from its initial weights, on the encoder as it was then."""
        ...


class _Kept:
    """The weights of a model after some epochs."""

    def __init__(self, model: Any, epochs: set[int]) -> None:
        self._model, self._epochs = model, epochs
        self.snapshots: dict[int, Snapshot] = {}
        self.keep(0)

    def keep(self, epoch: int) -> None:
        if epoch in self._epochs:
            self.snapshots[epoch] = self._model.get_weights()


class _Fresh:
    """Brings variables back to what they were when this was made, so that nothing is traced anew."""

    def __init__(self, variables: list[Any]) -> None:
        self._variables = [(variable, np.array(variable)) for variable in variables]

    def restore(self) -> None:
        for variable, value in self._variables:
            variable.assign(value)


class OurSide:
    """The package's models and training step.

    Args:
        data: What it is trained on.
        moment: The package's default is ``occurrence``.
    """

    def __init__(self, data: Data, moment: EmbeddingSecondMoment = "occurrence") -> None:
        settings, examples = _with_moment(data.settings, moment), data.examples
        self._masked_lm = initial_masked_lm(settings)
        self._pretraining = pretrain_stage(self._masked_lm, examples.token_ids, examples.vocabulary, settings)
        classifier = initial_classifier(settings, self._masked_lm)
        train, test = examples.split("train"), examples.split("test")
        self._finetuning = [
            finetune_stage(classifier, train=train, validation=test, settings=settings, frozen=frozen)
            for frozen in (True, False)
        ]
        optimizers = [variable for stage in self._finetuning for variable in stage.step.optimizer.variables]
        self._fresh = _Fresh([*classifier.variables, *optimizers])

    def pretrain(self, epochs: set[int]) -> tuple[list[float], dict[int, Snapshot]]:
        kept = _Kept(self._masked_lm, epochs)
        return _train(self._pretraining, kept.keep), kept.snapshots

    def classify(self, snapshot: Snapshot) -> Classified:
        self._fresh.restore()
        self._masked_lm.set_weights(snapshot)
        accuracies: list[list[float]] = [[], []]
        losses: list[float] = []
        for stage, found in zip(self._finetuning, accuracies, strict=True):
            losses += _train(stage, partial(_validate, stage, found))
        return Classified(*accuracies, losses)


def _with_moment(settings: RunSettings, moment: EmbeddingSecondMoment) -> RunSettings:
    return replace(
        settings,
        pretrain=replace(settings.pretrain, embedding_second_moment=moment),
        finetune=replace(settings.finetune, embedding_second_moment=moment),
    )


def _validate(stage: Stage, accuracies: list[float], epoch: int) -> None:
    accuracies.append(stage.evaluate(epoch)["val_accuracy"])


def _train(stage: Stage, end_epoch: Callable[[int], None]) -> list[float]:
    """Runs every step of a stage: the mean loss of each."""
    losses = []
    for number in range(stage.steps):
        metrics = stage.step(number, stage.batches.batch(number)).metrics
        losses.append(metrics["loss"] / metrics["count"])
        if (number + 1) % stage.batches.steps_per_epoch == 0:
            end_epoch((number + 1) // stage.batches.steps_per_epoch)
    return losses


class NotebookSide:
    """The notebooks' models, trained by ``compile`` and ``fit``.

    Args:
        data: What it is trained on.
        moment: The notebooks' own is ``occurrence``.
    """

    def __init__(self, data: Data, moment: EmbeddingSecondMoment = "occurrence") -> None:
        self._settings, self._examples, self._moment = data.settings, data.examples, moment
        keras.utils.set_random_seed(data.settings.seed % 2**32)  # Keras' dropout; all else has streams of its own
        ours = initial_masked_lm(data.settings)
        self._masked_lm = self._of_this_kind(notebook_models.build_masked_lm(data.settings))
        notebook_models.copy_weights(ours, self._masked_lm)
        head = initial_classifier(data.settings, ours)
        self._head = [value for name in ("hidden", "logits") for value in head.get_layer(name).get_weights()]

    def _of_this_kind(self, model: Any) -> Any:
        if self._moment == "word":
            model.optimizer = ByWordAdam(float(model.optimizer.learning_rate))
        return model

    def pretrain(self, epochs: set[int]) -> tuple[list[float], dict[int, Snapshot]]:
        pretrain, kept = self._settings.pretrain, _Kept(self._masked_lm, epochs)
        batches = MaskedLMBatches(
            self._examples.token_ids,
            seed=self._settings.seed,
            masking=self._settings.masking,
            batch_size=pretrain.batch_size,
        )
        return _fit(self._masked_lm, batches, whole_labels, pretrain.epochs, kept.keep), kept.snapshots

    def classify(self, snapshot: Snapshot) -> Classified:
        finetune = self._settings.finetune
        self._masked_lm.set_weights(snapshot)
        classifier = self._of_this_kind(notebook_models.build_classifier(self._masked_lm, self._settings, frozen=True))
        for layer, values in zip(classifier.layers[-2:], (self._head[:2], self._head[2:]), strict=True):
            layer.set_weights(values)
        frozen: list[float] = []
        unfrozen: list[float] = []
        losses = self._fit_classifier(classifier, "frozen", finetune.frozen_epochs, frozen)
        classifier.layers[1].trainable = True  # the encoder that was held: another model of its layers would not do
        notebook_models.compile_classifier(classifier, self._settings)
        losses += self._fit_classifier(self._of_this_kind(classifier), "unfrozen", finetune.unfrozen_epochs, unfrozen)
        return Classified(frozen, unfrozen, losses)

    def _fit_classifier(self, classifier: Any, stage: str, epochs: int, accuracies: list[float]) -> list[float]:
        size, (test_ids, test_labels) = self._settings.finetune.batch_size, self._examples.split("test")
        test = tf.data.Dataset.from_tensor_slices((test_ids.astype(np.int64), test_labels)).batch(size)
        train = self._examples.split("train")
        batches = ClassifierBatches(*train, seed=self._settings.seed, batch_size=size, stage=stage)

        def validate(epoch: int) -> None:
            accuracies.append(float(classifier.evaluate(test, verbose=0, return_dict=True)["accuracy"]))

        return _fit(classifier, batches, _ids_and_labels, epochs, validate)


def _ids_and_labels(batch: Any) -> tuple[np.ndarray, np.ndarray]:
    return batch["token_ids"].astype(np.int64), batch["labels"]


class _EachStep(keras.callbacks.Callback):
    """Keeps the loss of every step by itself, where Keras shows a running mean, and tells of an epoch's end."""

    def __init__(self, end_epoch: Callable[[int], None]) -> None:
        super().__init__()
        self.losses: list[float] = []
        self._end_epoch = end_epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.append(float(logs["loss"]))
        self.model.reset_metrics()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._end_epoch(epoch + 1)


def _fit(
    model: Any, batches: Any, form: Callable[[Any], Any], epochs: int, end_epoch: Callable[[int], None]
) -> list[float]:
    """Keras' ``fit`` on the batches of these epochs: the loss of every step."""

    def of_every_step() -> Iterator[Any]:
        for number in range(epochs * batches.steps_per_epoch):
            yield form(batches.batch(number))

    if not epochs:
        return []
    callback, steps = _EachStep(end_epoch), batches.steps_per_epoch
    model.fit(of_every_step(), epochs=epochs, steps_per_epoch=steps, callbacks=[callback], shuffle=False, verbose=0)
    return callback.losses


SIDES: dict[str, Callable[[Data], Side]] = {
    "notebook": partial(NotebookSide, moment="occurrence"),
    "ours": partial(OurSide, moment="occurrence"),
    "ours-by-word": partial(OurSide, moment="word"),
    "notebook-by-word": partial(NotebookSide, moment="word"),
}
"""Two codes by two kinds of Adam; ``notebook`` and ``ours`` are what each of them does by itself."""
