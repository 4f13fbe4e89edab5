"""Our training steps at named shapes, on batches that look like the real ones.

A workload is a function of the step's number: it runs one step on one of a few prepared batches, waits
until the device has done it (it fetches the loss and an updated variable), and gives the loss. A shape
is a preset's: the size of its model, batch, sequence and vocabulary, without its corpus.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    "OurStep",
    "Workload",
    "batches_of",
    "classifier_batches",
    "fetch",
    "masked_lm_batches",
    "realistic_token_ids",
    "selected_rows",
    "shape_settings",
    "shape_token_ids",
    "whole_labels",
]

Workload = Callable[[int], float]


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


def fetch(variable: Any) -> np.ndarray:
    """A variable's value on the host, which is there only when the step that updates it is done."""
    return np.asarray(variable.value)


class OurStep:
    """Our own training step as a workload, with everything that a run's step has.

    Args:
        settings: The shape.
        step: One of `STEPS`.
    """

    def __init__(self, settings: RunSettings, step: str) -> None:
        from minibert.model.encoder import build_masked_lm
        from minibert.training.step import TrainingStep

        model = build_masked_lm(
            settings.model,
            vocabulary_size=settings.masking.required_vocabulary_size,
            sequence_length=settings.text.sequence_length,
            seed=settings.seed,
        )
        trained = settings.pretrain if step == "masked_lm" else settings.finetune
        self.training_step = TrainingStep(
            _objective(settings, step, model),
            learning_rate=trained.learning_rate,
            seed=settings.seed,
            stage="pretrain" if step == "masked_lm" else step,
            embedding_second_moment=trained.embedding_second_moment,
        )
        self.model, self.batches = model, batches_of(settings, step)

    def __call__(self, number: int) -> float:
        result = self.training_step(number, self.batches[number % len(self.batches)])
        fetch(self.training_step.objective.variables[-1])
        return result.metrics["loss"] / result.metrics["count"]


def _objective(settings: RunSettings, step: str, model: Any) -> Any:
    from minibert.model.heads import ClassifierObjective, MaskedLMObjective, build_classifier

    if step == "masked_lm":
        return MaskedLMObjective(model, reduction=settings.pretrain.loss_reduction)
    classifier = build_classifier(model, settings.finetune, settings.model, seed=settings.seed)
    return ClassifierObjective(classifier, encoder_trainable=step == "unfrozen")
