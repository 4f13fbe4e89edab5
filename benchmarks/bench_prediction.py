"""How fast are finished models, from raw text to the answer, beside the notebook's own cells and the peers?

    pytest benchmarks/bench_prediction.py -m "slow or not slow"

``classify`` computes one probability for each review; the notebook's ``evaluate`` on raw text does the
same by Keras. ``fill mask`` sends one position through the vocabulary projection, the notebook's cell all. The peers'
models have weights of their own, so their answers are compared with theirs in other batches, or part by part; of a
sentence, keras-hub's sends one position, too, and PyTorch's all.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.measuring import SHAPE_PARAMETERS, require_installed, time_beside
from benchmarks.workers import GROUP_SIDES, OURS, PEERS, build_for
from benchmarks.workloads import shape_settings
from minibert.perf.shapes import raw_reviews
from minibert.scoring import score
from minibert.settings import RunSettings
from minibert.text import Vocabulary, encode, learn_vocabulary

REVIEWS = {"tiny": 256, "amazon": 1_024, "imdb": 512}
BATCH_SIZE, TOP_K = 32, 5
ANSWERS = {
    "keras-hub": ("benchmarks.keras_hub_models", "KerasHubAnswers"),
    "pytorch": ("benchmarks.torch_models", "TorchAnswers"),
}
"""Peer -> the module and the class of its models."""


class Prepared:
    """Both sides' models with the same weights, and the same vocabulary."""

    def __init__(self, shape: str) -> None:
        from benchmarks import notebook_models, notebook_text
        from minibert.stages import initial_masked_lm

        settings = shape_settings(shape)
        self.texts = raw_reviews(REVIEWS[shape], settings.text)
        self.vocabulary: Vocabulary = learn_vocabulary([pa.array(self.texts)], settings.text)
        masking = dataclasses.replace(settings.masking, vocabulary_size=len(self.vocabulary))
        self.settings: RunSettings = dataclasses.replace(settings, masking=masking)
        self.masked_lm = initial_masked_lm(self.settings)
        self.notebook_masked_lm = notebook_models.build_masked_lm(self.settings)
        notebook_models.copy_weights(self.masked_lm, self.notebook_masked_lm)
        self.layer = notebook_text.learned_layer(self.texts, settings.text)
        self.facts = {
            "tokens": sum(len(text.split()) for text in self.texts),
            "texts": len(self.texts),
            "bytes": sum(map(len, self.texts)),
        }


def answers_of(side: str, made: Prepared, device: str) -> Any:
    """A peer's models; None for ours and the notebook's, which are prepared."""
    return build_for(side, *ANSWERS[side], made.settings, made.vocabulary, device=device) if side in PEERS else None


def check_answers(answers: Any, made: Prepared) -> None:
    """A peer reads the same ids as we, and its answers depend on them and not on the batch that they are in."""
    assert np.array_equal(answers.encode(made.texts), encode(pa.array(made.texts), made.vocabulary, made.settings.text))
    logits = answers.logits(made.texts, BATCH_SIZE)
    assert len(np.unique(logits)) > len(made.texts) // 2
    assert np.allclose(logits, answers.logits(made.texts, BATCH_SIZE - 5), rtol=1e-3, atol=1e-5)


@pytest.mark.bench
@pytest.mark.benchmark(group="prediction: classify")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", GROUP_SIDES)
def test_classify(benchmark: Any, device: str, side: str, shape: str) -> None:
    require_installed(side)
    from benchmarks import notebook_models, notebook_text
    from minibert.stages import initial_classifier
    from minibert.training.finetune import ClassifierForward

    made = Prepared(shape)
    settings, labels = made.settings, np.arange(len(made.texts)) % 2
    classifier = initial_classifier(settings, made.masked_lm)
    forward = ClassifierForward(classifier)
    notebook = notebook_models.build_classifier(made.notebook_masked_lm, settings, frozen=True)
    for layer, name in zip(notebook.layers[-2:], ("hidden", "logits"), strict=True):
        layer.set_weights(classifier.get_layer(name).get_weights())

    def ours() -> tuple[float, float]:
        ids = encode(pa.array(made.texts), made.vocabulary, settings.text)
        found = score(forward.logits(ids, batch_size=BATCH_SIZE), labels)
        return found.loss, found.accuracy

    def theirs() -> tuple[float, float]:
        ids = notebook_text.encode(made.layer, made.texts)
        loss, accuracy = notebook.evaluate(ids, labels, batch_size=BATCH_SIZE, verbose=0)
        return loss, accuracy

    def answer_by_peer() -> tuple[float, float]:
        found = score(answers.logits(made.texts, BATCH_SIZE), labels)
        return found.loss, found.accuracy

    answers = answers_of(side, made, device)
    work = {OURS: ours, "notebook": theirs}.get(side, answer_by_peer)
    found = time_beside(benchmark, work, None if side == "notebook" else theirs, made.facts, side=side, device=device)

    if answers is None:
        assert found == pytest.approx(theirs() if side == OURS else ours(), rel=1e-5)
    else:
        check_answers(answers, made)
    if benchmark.stats is not None:
        benchmark.extra_info["reviews_per_second"] = round(len(made.texts) / benchmark.stats.stats.median)


@pytest.mark.bench
@pytest.mark.benchmark(group="prediction: fill mask")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", GROUP_SIDES)
def test_fill_mask(benchmark: Any, device: str, side: str, shape: str) -> None:
    require_installed(side)
    from benchmarks import notebook_text
    from minibert.training.pretrain import predict_masked

    made = Prepared(shape)
    sentence = "word3 word4 word5 [mask] word7 word8"

    def ours() -> list[str]:
        found = predict_masked(
            made.masked_lm, sentence, vocabulary=made.vocabulary, settings=made.settings, top_k=TOP_K
        )
        return [prediction.token for prediction in found]

    def theirs() -> list[str]:
        ids = notebook_text.encode(made.layer, [sentence])
        probabilities = made.notebook_masked_lm.predict(ids, verbose=0)
        place = int(np.flatnonzero(ids[0] == made.vocabulary.mask_id)[0])
        best = probabilities[0, place].argsort()[-TOP_K:][::-1]
        return [made.vocabulary.words[i] for i in best]

    facts = {"tokens": made.settings.text.sequence_length, "texts": 1, "masked_tokens": 1}
    answers = answers_of(side, made, device)
    work = {OURS: ours, "notebook": theirs}.get(side) or (lambda: answers.fill(sentence, TOP_K))
    found = time_beside(benchmark, work, None if side == "notebook" else theirs, facts, side=side, device=device)

    others = {OURS: theirs, "notebook": ours}.get(side) or (lambda: answers.fill_by_hand(sentence, TOP_K))
    assert found == others()
