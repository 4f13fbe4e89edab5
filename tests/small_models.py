"""Models that are small enough to be built and traced in a test, and what they are trained on."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from minibert.batches import Arrays, ClassifierBatches, MaskedLMBatches
from minibert.settings import FinetuneSettings, MaskingSettings, ModelSettings

VOCABULARY_SIZE, LENGTH, EXAMPLES = 30, 10, 22
SETTINGS = ModelSettings(hidden_size=8, heads=2, feed_forward_size=12, blocks=2)
WITHOUT_DROPOUT = ModelSettings(hidden_size=8, heads=2, feed_forward_size=12, dropout_rate=0.0)
WITH_PADDING_MASK = ModelSettings(hidden_size=8, heads=2, feed_forward_size=12, dropout_rate=0.0, padding_mask=True)
MASKING = MaskingSettings(vocabulary_size=VOCABULARY_SIZE, selection_rate=0.3)
FINETUNE = FinetuneSettings(classifier_size=6)


def build(settings: ModelSettings = SETTINGS, *, seed: int = 0) -> Any:
    """A new masked language model."""
    from minibert.model.encoder import build_masked_lm

    return build_masked_lm(settings, vocabulary_size=VOCABULARY_SIZE, sequence_length=LENGTH, seed=seed)


@functools.cache
def masked_lm(settings: ModelSettings = SETTINGS) -> Any:
    """A masked language model that tests share: whoever changes its weights builds another."""
    return build(settings)


def build_classifier(settings: ModelSettings = SETTINGS, *, seed: int = 0) -> Any:
    """A new classifier on a new masked language model."""
    from minibert.model import heads

    return heads.build_classifier(build(settings, seed=seed), FINETUNE, settings, seed=seed)


def token_ids() -> np.ndarray:
    """Ids with padding at the end of some rows; never a row of padding alone."""
    generator = np.random.Generator(np.random.PCG64(2))
    ids = generator.integers(1, VOCABULARY_SIZE - 1, (EXAMPLES, LENGTH)).astype(np.uint16)
    ids[np.arange(LENGTH) >= generator.integers(3, LENGTH + 4, EXAMPLES)[:, None]] = 0
    return ids


def labels() -> np.ndarray:
    """One class for each example, to be learned from the first token."""
    return (token_ids()[:, 0] > VOCABULARY_SIZE // 2).astype(np.int8)


def masked_lm_batches(batch_size: int = 8) -> MaskedLMBatches:
    return MaskedLMBatches(token_ids(), seed=0, masking=MASKING, batch_size=batch_size)


def classifier_batches(batch_size: int = 8, *, stage: str = "unfrozen") -> ClassifierBatches:
    return ClassifierBatches(token_ids(), labels(), seed=0, batch_size=batch_size, stage=stage)


def tensors(batch: Arrays) -> dict[str, Any]:
    """What an objective takes of a batch."""
    import tensorflow as tf

    return {name: tf.convert_to_tensor(value) for name, value in batch.items() if name != "example_ids"}


def gradients(objective: Any, batch: Arrays) -> tuple[float, dict[str, np.ndarray]]:
    """The value of an objective and its gradient by every variable, eagerly, without dropout's streams."""
    import tensorflow as tf

    variables = [variable.value for variable in objective.variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        value, _, _ = objective(tensors(batch))
    found = [tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(value, variables)]
    return float(value), {v.path: gradient for v, gradient in zip(objective.variables, found, strict=True)}
