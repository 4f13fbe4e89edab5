"""Our training steps at named shapes, on batches that look like the real ones.

A workload is a function of the step's number: it runs one step on one of a few prepared batches, waits
until the device has done it (it fetches the loss and an updated variable), and gives the loss. A shape
is a preset's: the size of its model, batch, sequence and vocabulary, without its corpus.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from minibert.batches import Arrays, ClassifierBatches, MaskedLMBatches
from minibert.presets import preset
from minibert.settings import RunSettings

SHAPES = ("imdb", "amazon", "tiny")
STEPS = ("frozen", "unfrozen", "masked_lm")
"""The training steps, by the memory that they need."""
PREPARED_BATCHES = 4

Workload = Callable[[int], float]


def shape_settings(name: str) -> RunSettings:
    """A preset's settings, its vocabulary taken as full."""
    settings = preset(name)
    masking = dataclasses.replace(settings.masking, vocabulary_size=settings.text.vocabulary_size)
    return dataclasses.replace(settings, masking=masking)


def realistic_token_ids(examples: int, length: int, vocabulary_size: int) -> np.ndarray:
    """int64 ids as the notebooks' text layer gives them: Zipf's words, 3 % unknown, 31 % padding."""
    generator = np.random.Generator(np.random.PCG64(0))
    words = vocabulary_size - 3
    ranks = np.minimum(np.exp(generator.uniform(0.0, np.log(words), (examples, length))), words - 1.0)
    token_ids = 1 + ranks.astype(np.int64)
    token_ids[generator.random((examples, length)) < 0.028] = 1
    lengths = np.minimum(generator.exponential(1.24 * length, examples), length).astype(int)
    token_ids[np.arange(length) >= lengths[:, None]] = 0
    return token_ids


def shape_token_ids(settings: RunSettings, batches: int = PREPARED_BATCHES) -> np.ndarray:
    """Ids for so many batches of a shape, (examples, sequence)."""
    return realistic_token_ids(
        batches * settings.pretrain.batch_size, settings.text.sequence_length, settings.masking.required_vocabulary_size
    )


def masked_lm_batches(settings: RunSettings) -> list[Arrays]:
    """Prepared batches of the masked language model, as a run makes them."""
    made = MaskedLMBatches(
        shape_token_ids(settings),
        seed=settings.seed,
        masking=settings.masking,
        batch_size=settings.pretrain.batch_size,
    )
    return [made.batch(step) for step in range(PREPARED_BATCHES)]


def classifier_batches(settings: RunSettings) -> list[Arrays]:
    """Prepared batches of the classifier; the label says whether the third word is a frequent one."""
    token_ids = shape_token_ids(settings)
    labels = (token_ids[:, 2] < np.median(token_ids[:, 2])).astype(np.int8)
    made = ClassifierBatches(
        token_ids, labels, seed=settings.seed, batch_size=settings.finetune.batch_size, stage="unfrozen"
    )
    return [made.batch(step) for step in range(PREPARED_BATCHES)]


def batches_of(settings: RunSettings, step: str) -> list[Arrays]:
    """The prepared batches of one of `STEPS`."""
    return masked_lm_batches(settings) if step == "masked_lm" else classifier_batches(settings)


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


def selected_rows(batches: list[Arrays]) -> float:
    """Positions that are selected for prediction, in the mean over batches; 0 for a classifier's."""
    return float(np.mean([batch.get("sample_weight", np.zeros(1)).sum() for batch in batches]))


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
        self.training_step = TrainingStep(
            _objective(settings, step, model),
            learning_rate=settings.pretrain.learning_rate if step == "masked_lm" else settings.finetune.learning_rate,
            seed=settings.seed,
            stage="pretrain" if step == "masked_lm" else step,
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
