"""Named shapes, and batches at these shapes that look like the real ones.

A shape is a preset's: the size of its model, batch, sequence and vocabulary, without its corpus.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from minibert.presets import preset
from minibert.settings import RunSettings, TextSettings

SHAPES = ("imdb", "amazon", "tiny")
STEPS = ("frozen", "unfrozen", "masked_lm")
"""The training steps, by the memory that they need."""
PREPARED_BATCHES = 4

Arrays = dict[str, np.ndarray]
_FORMS = ("word{}", "Word{}", "word{},", "WORD{}!", "<br />word{}.", '"word{}"')


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


def raw_reviews(count: int, settings: TextSettings) -> list[str]:
    """Made-up reviews whose words are numbers in capitals and small letters, with punctuation and line breaks."""
    ids = realistic_token_ids(count, settings.sequence_length, 2 * settings.vocabulary_size)
    return [" ".join(_FORMS[(7 * k + i) % len(_FORMS)].format(k) for i, k in enumerate(row[row > 0])) for row in ids]


def shape_token_ids(settings: RunSettings, batches: int = PREPARED_BATCHES) -> np.ndarray:
    """Ids for so many batches of a shape, (examples, sequence)."""
    return realistic_token_ids(
        batches * settings.pretrain.batch_size, settings.text.sequence_length, settings.masking.required_vocabulary_size
    )


def shape_labels(token_ids: np.ndarray) -> np.ndarray:
    """Labels that can be learned, int8 (examples,): whether the third word is a frequent one."""
    return (token_ids[:, 2] < np.median(token_ids[:, 2])).astype(np.int8)


def masked_lm_batches(settings: RunSettings) -> list[Arrays]:
    """Prepared batches of the masked language model, as a run makes them."""
    from minibert.batches import MaskedLMBatches  # the gate's worker must start where this one is broken

    made = MaskedLMBatches(
        shape_token_ids(settings),
        seed=settings.seed,
        masking=settings.masking,
        batch_size=settings.pretrain.batch_size,
    )
    return [made.batch(step) for step in range(PREPARED_BATCHES)]


def classifier_batches(settings: RunSettings) -> list[Arrays]:
    """Prepared batches of the classifier."""
    from minibert.batches import ClassifierBatches

    token_ids = shape_token_ids(settings)
    made = ClassifierBatches(
        token_ids,
        shape_labels(token_ids),
        seed=settings.seed,
        batch_size=settings.finetune.batch_size,
        stage="unfrozen",
    )
    return [made.batch(step) for step in range(PREPARED_BATCHES)]


def batches_of(settings: RunSettings, step: str) -> list[Arrays]:
    """The prepared batches of one of `STEPS`."""
    return masked_lm_batches(settings) if step == "masked_lm" else classifier_batches(settings)


def selected_rows(batches: list[Arrays]) -> float:
    """Positions that are selected for prediction, in the mean over batches; 0 for a classifier's."""
    return float(np.mean([batch.get("sample_weight", np.zeros(1)).sum() for batch in batches]))
