"""A run that is small enough to be trained many times over: 50 steps in three stages, 10 epochs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from minibert.corpora.embedded import embedded_reviews
from minibert.settings import (
    CorpusSettings,
    FinetuneSettings,
    ModelSettings,
    PretrainSettings,
    RecordSettings,
    RunSettings,
    TextSettings,
    replace_setting,
)

TRAIN_EXAMPLES, TEST_EXAMPLES = 29, 9
STEPS = {"pretrain": 20, "frozen": 15, "unfrozen": 15}
"""Steps of each stage: epochs of five, and the last batch of each is smaller than the others."""


def small_settings(*assignments: str, checkpoint_steps: int = 3) -> RunSettings:
    """38 embedded reviews, 29 of them for the classifier; changed by ``stage.field=value``.

    Every step is fingerprinted, so that what a test looks for is found at its step on a GPU, too.
    """
    settings = RunSettings(
        preset="small",
        corpus=CorpusSettings(name="embedded", train_examples=TRAIN_EXAMPLES, test_examples=TEST_EXAMPLES),
        text=TextSettings(vocabulary_size=300, sequence_length=24),
        model=ModelSettings(hidden_size=16, heads=2, feed_forward_size=16),
        pretrain=PretrainSettings(epochs=4, batch_size=8),
        finetune=FinetuneSettings(frozen_epochs=3, unfrozen_epochs=3, batch_size=6, classifier_size=8),
        record=RecordSettings(checkpoint_steps=checkpoint_steps, fingerprinted_steps="all"),
    )
    for assignment in assignments:
        settings = replace_setting(settings, assignment)
    return settings


def fingerprint_seldom(monkeypatch: pytest.MonkeyPatch, interval: int) -> RunSettings:
    """From now on steps have fingerprints at one in so many, on either device; settings that ask for it."""
    from minibert.training import step

    monkeypatch.setattr(step, "CPU_INTERVAL", interval)
    monkeypatch.setattr(step, "GPU_INTERVAL", interval)
    return small_settings("record.fingerprinted_steps=by_device")


def write_texts(path: Path, *, labelled: bool = False) -> Path:
    """A table of the run's 38 texts, with or without their labels."""
    rows = []
    for split, count in (("train", TRAIN_EXAMPLES), ("test", TEST_EXAMPLES)):
        batch = embedded_reviews(split, 0, count)
        assert batch.labels is not None
        rows += [[text, split, label] for text, label in zip(batch.texts.to_pylist(), batch.labels, strict=True)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "split", "label"][: 3 if labelled else 1])
        writer.writerows([row[: 3 if labelled else 1] for row in rows])
    return path
