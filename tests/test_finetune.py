"""The classifier's stages: what they validate on, what they show, and logits that no batch size changes."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf

from minibert.errors import OutOfMemoryError
from minibert.progress import Progress
from minibert.scoring import score
from minibert.settings import FinetuneSettings, RunSettings
from minibert.training.finetune import ClassifierForward, HeldEncoderForward, finetune_stage
from tests import small_models
from tests.closeness import deviation

RUN = RunSettings(finetune=FinetuneSettings(frozen_epochs=2, unfrozen_epochs=3, batch_size=8, classifier_size=6))


@pytest.fixture(scope="module")
def classifier():
    return small_models.build_classifier()


@pytest.fixture(scope="module")
def forward(classifier):
    return ClassifierForward(classifier)


def test_logits_are_those_of_the_model_in_batches_of_any_size(classifier, forward):
    ids, told = small_models.token_ids(), []
    expected = classifier(ids.astype(np.int32), training=False).numpy()[:, 0]
    for batch_size in (1, 8, 22, 100):
        logits = forward.logits(ids, batch_size=batch_size, advance=told.append)
        assert logits.dtype == np.float32
        assert deviation(1 / (1 + np.exp(-logits.astype(np.float64))), expected) < 1e-6
    assert sum(told) == 4 * len(ids)
    assert told[22:25] == [8, 8, 6]
    assert forward.logits(ids[:0], batch_size=8).shape == (0,)


def shift(layer, by: float) -> None:
    for weight in layer.weights:
        weight.assign(weight.value + by)


@pytest.mark.parametrize("settings", [small_models.SETTINGS, small_models.WITH_PADDING_MASK], ids=["", "padding mask"])
def test_a_held_encoders_outputs_are_computed_once_and_the_logits_have_the_same_bits(settings):
    classifier, ids, told = small_models.build_classifier(settings), small_models.token_ids(), []
    held = HeldEncoderForward(classifier)
    for epoch in range(3):
        shift(classifier.get_layer("hidden"), 0.1 * epoch)
        shift(classifier.get_layer("logits"), 0.1 * epoch)
        found = held.logits(ids, batch_size=8, advance=told.append)
        assert np.array_equal(found, ClassifierForward(classifier).logits(ids, batch_size=8))
    assert told == [8, 8, 6] * 3


def test_a_held_encoders_outputs_are_kept_for_the_same_ids_batches_and_weights_alone(monkeypatch):
    classifier, ids, encoded = small_models.build_classifier(), small_models.token_ids().copy(), []
    forward = HeldEncoderForward(classifier)
    encoding = forward._encoding
    monkeypatch.setattr(forward, "_encoding", lambda batch: encoded.append(len(batch)) or encoding(batch))
    for _ in range(2):
        forward.logits(ids, batch_size=8)
    assert encoded == [8, 8, 6]
    forward.logits(ids, batch_size=11)
    assert encoded[3:] == [11, 11]
    ids[3, 0] += 1  # in place
    other = forward.logits(ids, batch_size=11)
    assert encoded[5:] == [11, 11]
    shift(classifier.get_layer("encoder"), 0.1)
    found = forward.logits(ids, batch_size=11)
    assert encoded[7:] == [11, 11]
    assert np.array_equal(found, ClassifierForward(classifier).logits(ids, batch_size=11))
    assert not np.array_equal(found, other)


def test_a_frozen_stage_validates_to_the_same_bits_as_without_what_is_kept():
    classifier, examples = small_models.build_classifier(), (small_models.token_ids(), small_models.labels())
    stage = finetune_stage(classifier, train=examples, validation=examples, settings=RUN, frozen=True)
    losses = []
    for step in range(6):
        stage.step(step, stage.batches.batch(step))
        figures = stage.evaluate(step)
        expected = score(ClassifierForward(classifier).logits(examples[0], batch_size=8), examples[1])
        assert figures == {"val_loss": expected.loss, "val_accuracy": expected.accuracy}
        losses.append(expected.loss)
    assert len(set(losses)) == 6


@pytest.mark.parametrize(("frozen", "name", "index", "epochs"), [(True, "frozen", 1, 2), (False, "unfrozen", 2, 3)])
def test_a_stage_validates_and_shows_how_far_it_is(classifier, forward, frozen, name, index, epochs):
    ids, labels, stream = small_models.token_ids(), small_models.labels(), io.StringIO()
    stage = finetune_stage(
        classifier,
        train=(ids[:12], labels[:12]),
        validation=(ids[12:], labels[12:]),
        settings=RUN,
        frozen=frozen,
        progress=Progress(stream=stream, interval_seconds=1e9),
    )
    assert (stage.name, stage.index, stage.epochs, stage.batches.steps_per_epoch) == (name, index, epochs, 2)
    figures = stage.evaluate(2)
    expected = score(forward.logits(ids[12:], batch_size=8), labels[12:])
    assert figures == {"val_loss": pytest.approx(expected.loss), "val_accuracy": expected.accuracy}
    assert stream.getvalue().startswith(
        f"{name} 2/{epochs}, validation: done, 10/10, loss {expected.loss:.4f} accuracy {expected.accuracy:.4f}, "
    )


@pytest.mark.parametrize(
    ("frozen", "frozen_dropout", "drops"),
    [
        pytest.param(True, True, True, marks=pytest.mark.long),
        (True, False, False),
        pytest.param(False, False, True, marks=pytest.mark.long),
    ],
)
def test_a_frozen_encoder_drops_out_if_the_settings_say_so_and_an_unfrozen_one_always(frozen, frozen_dropout, drops):
    finetune = dataclasses.replace(RUN.finetune, frozen_dropout=frozen_dropout)
    classifier, examples = small_models.build_classifier(), (small_models.token_ids(), small_models.labels())
    stage = finetune_stage(
        classifier,
        train=examples,
        validation=examples,
        settings=dataclasses.replace(RUN, finetune=finetune),
        frozen=frozen,
    )
    batch = stage.batches.batch(0)
    without = score(ClassifierForward(classifier).logits(batch["token_ids"], batch_size=8), batch["labels"])
    loss = stage.step(0, batch).metrics["loss"]
    assert (loss != pytest.approx(without.loss * without.examples, rel=1e-5)) == drops


def test_memory_that_runs_out_in_a_validation_names_it(classifier, monkeypatch):
    def large(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    examples = (small_models.token_ids(), small_models.labels())
    stage = finetune_stage(classifier, train=examples, validation=examples, settings=RUN, frozen=True)
    monkeypatch.setattr(HeldEncoderForward, "logits", large)
    with pytest.raises(OutOfMemoryError, match="frozen, validation: memory for a batch of 8 is required"):
        stage.evaluate(1)
