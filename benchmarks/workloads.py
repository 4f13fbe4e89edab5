"""Our training steps at named shapes, on batches that look like the real ones.

A workload is a function of the step's number: it runs one step on one of a few prepared batches, waits
until the device has done it (it fetches the loss and an updated variable), and gives the loss. A shape
is a preset's: the size of its model, batch, sequence and vocabulary, without its corpus.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from minibert.batches import Arrays
from minibert.perf.shapes import (
    PREPARED_BATCHES,
    SHAPES,
    STEPS,
    batches_of,
    classifier_batches,
    masked_lm_batches,
    realistic_token_ids,
    selected_rows,
    shape_settings,
    shape_token_ids,
)
from minibert.settings import RunSettings

__all__ = [
    "PREPARED_BATCHES",
    "SHAPES",
    "STEPS",
    "Bfloat16Step",
    "OurStep",
    "Parts",
    "Workload",
    "batches_of",
    "classifier_batches",
    "fetch",
    "masked_lm_batches",
    "realistic_token_ids",
    "selected_rows",
    "shape_settings",
    "shape_token_ids",
    "weights_by_part",
    "whole_labels",
    "with_precision",
]

Parts = dict[str, list[Any]]
"""``encoder`` and ``head`` -> their weights."""


class Workload(Protocol):
    """A training step on prepared batches."""

    def __call__(self, number: int) -> float:
        """Runs a step, waits for it, and gives its mean loss."""
        ...

    def weights(self) -> Parts:
        """Every weight as it is now, trained or not."""
        ...


def with_precision(settings: RunSettings, precision: str) -> RunSettings:
    """The settings in ``float32`` or ``bfloat16``; TensorFloat-32 is float32 whose products a device rounds."""
    of_model = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, precision=of_model))


def whole_labels(batch: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A masked-LM batch as the notebooks have it: ids, labels and weights, each (batch, sequence).

    Labels are the original ids everywhere, weights float64 and 1 at the selected positions: the same
    masks, the same loss.
    """
    selected = batch["positions"][batch["sample_weight"] == 1]
    labels, weight = batch["token_ids"].astype(np.int64).reshape(-1), np.zeros(batch["token_ids"].size)
    labels[selected] = batch["labels"][: len(selected)]
    weight[selected] = 1.0
    shape = batch["token_ids"].shape
    return batch["token_ids"].astype(np.int64), labels.reshape(shape), weight.reshape(shape)


def as_tensors(batch: Any) -> Any:
    """A batch's arrays as tensors, whatever they are nested in: prefetching makes them while the step before runs."""
    import tensorflow as tf

    return tf.nest.map_structure(lambda array: None if array is None else tf.convert_to_tensor(array), batch)


def fetch(variable: Any) -> np.ndarray:
    """A variable's value on the host, which is there only when the step that updates it is done."""
    return np.asarray(variable.value)


def weights_by_part(model: Any, head: Iterable[Any]) -> Parts:
    """A Keras model's weights: those of the head's layers, and all others as the encoder's."""
    of_head = [weight for layer in head for weight in layer.weights]
    known = {id(weight) for weight in of_head}
    return {"encoder": [weight for weight in model.weights if id(weight) not in known], "head": of_head}


class OurStep:
    """Our own training step as a workload, with everything that a run's step has.

    Args:
        settings: The shape.
        step: One of `STEPS`.
        fingerprints: Whether the step also computes fingerprints; None: as a run's does, but not on a GPU whose
            process is without TensorFlow's switch for determinism, where no step of a run would be.
        checked: As of `TrainingStep`; None: likewise.
        fingerprint_interval: As of `TrainingStep`.

    Attributes:
        model: The masked language model.
        stage: The stage's name.
        training_step: The step on the model, or on a classifier on its encoder.
        batches: The prepared batches.
    """

    def __init__(
        self,
        settings: RunSettings,
        step: str,
        *,
        fingerprints: bool | None = None,
        checked: bool | None = None,
        fingerprint_interval: int | None = None,
    ) -> None:
        from minibert.model.encoder import HEAD_NAME
        from minibert.model.heads import ClassifierObjective, masked_lm_objective
        from minibert.stages import initial_classifier, initial_masked_lm
        from minibert.training.step import TrainingStep, is_deterministic, tensors_of

        self.model, is_masked_lm = initial_masked_lm(settings), step == "masked_lm"
        trained: Any = self.model if is_masked_lm else initial_classifier(settings, self.model)
        of_stage: Any = settings.pretrain if is_masked_lm else settings.finetune
        objective: Any = (
            masked_lm_objective(trained, settings)
            if is_masked_lm
            else ClassifierObjective(trained, encoder_trainable=step == "unfrozen")
        )
        self.stage = "pretrain" if is_masked_lm else step
        self.training_step = TrainingStep(
            objective,
            learning_rate=of_stage.learning_rate,
            seed=settings.seed,
            stage=self.stage,
            embedding_second_moment=of_stage.embedding_second_moment,
            fingerprints=is_deterministic() if fingerprints is None else fingerprints,
            checked=is_deterministic() if checked is None else checked,
            fingerprint_interval=fingerprint_interval,
        )
        self.batches = batches_of(settings, step)
        self._tensors = [tensors_of(batch) for batch in self.batches]
        head = (HEAD_NAME,) if is_masked_lm else ("hidden", "logits")
        self._weights = weights_by_part(trained, map(trained.get_layer, head))

    def __call__(self, number: int) -> float:
        result = self.training_step(number, self._tensors[number % len(self._tensors)])
        fetch(self.training_step.objective.variables[-1])
        return result.metrics["loss"] / result.metrics["count"]

    def weights(self) -> Parts:
        return self._weights


class Bfloat16Step(OurStep):
    """Our own training step in mixed precision."""

    def __init__(self, settings: RunSettings, step: str) -> None:
        super().__init__(with_precision(settings, "bfloat16"), step)
