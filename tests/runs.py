"""A run that is small enough to be trained many times over: 50 steps in three stages, 10 epochs."""

from __future__ import annotations

from minibert.settings import (
    CorpusSettings,
    FinetuneSettings,
    ModelSettings,
    PretrainSettings,
    RecordSettings,
    RunSettings,
    TextSettings,
)

STEPS = {"pretrain": 20, "frozen": 15, "unfrozen": 15}
"""Steps of each stage: epochs of five, and the last batch of each is smaller than the others."""


def small_settings(*, checkpoint_steps: int = 3) -> RunSettings:
    """38 embedded reviews, 29 of them for the classifier."""
    return RunSettings(
        preset="small",
        corpus=CorpusSettings(name="embedded", train_examples=29, test_examples=9),
        text=TextSettings(vocabulary_size=300, sequence_length=24),
        model=ModelSettings(hidden_size=16, heads=2, feed_forward_size=16),
        pretrain=PretrainSettings(epochs=4, batch_size=8),
        finetune=FinetuneSettings(frozen_epochs=3, unfrozen_epochs=3, batch_size=6, classifier_size=8),
        record=RecordSettings(checkpoint_steps=checkpoint_steps),
    )
