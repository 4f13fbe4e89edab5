"""How fast are finished models, from raw text to the answer, beside the notebook's own cells and the peers?

    pytest benchmarks/bench_prediction.py -m "slow or not slow"

``classify`` computes one probability for each review; the notebook's ``evaluate`` on raw text does the
same by Keras. ``fill mask`` sends one position through the vocabulary projection, the notebook's cell all; ``fill 32
masks`` does it for a batch of sentences. Ours is compiled, as in a `minibert.FinishedRun`. The peers' models
have weights of their own, so their answers are compared with theirs in other batches, or part by part; of a sentence,
both send one position, too. FLOPs are the task's: what a side does beyond them is not counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.arithmetic import answer_flops
from benchmarks.measuring import SHAPE_PARAMETERS, Work, peak_facts, require_side, time_beside
from benchmarks.workers import GROUP_SIDES, OURS, PEERS, build_for
from benchmarks.workloads import shape_settings
from minibert.perf.shapes import raw_reviews
from minibert.scoring import score
from minibert.settings import RunSettings
from minibert.text import Vocabulary, encode, learn_vocabulary, sample_ids

REVIEWS = {"tiny": 256, "amazon": 1_024, "imdb": 512}
BATCH_SIZE, TOP_K = 32, 5
SENTENCES = [f"word{number} word4 word5 [mask] word7 word8" for number in range(3, 35)]
ANSWERS = {
    "keras-hub": ("benchmarks.keras_hub_models", "KerasHubAnswers"),
    "pytorch": ("benchmarks.torch_models", "TorchAnswers"),
}
"""Peer -> the module and the class of its models."""


class Prepared:
    """Reviews, their vocabulary, and each side's models, which are made when they are asked for.

    Args:
        settings: The shape.
        texts: Raw reviews.
        vocabulary: Words by id.
        device: One of `benchmarks.devices.DEVICES`.
    """

    def __init__(self, settings: RunSettings, texts: list[str], vocabulary: Vocabulary, device: str) -> None:
        masking = dataclasses.replace(settings.masking, vocabulary_size=len(vocabulary))
        self.settings = dataclasses.replace(settings, masking=masking)
        self.texts, self.labels = texts, np.arange(len(texts)) % 2
        self.vocabulary, self._device = vocabulary, device
        self._answers: dict[tuple[str, str], Any] = {}

    @cached_property
    def masked_lm(self) -> Any:
        from minibert.stages import initial_masked_lm

        return initial_masked_lm(self.settings)

    @cached_property
    def classifier(self) -> Any:
        from minibert.stages import initial_classifier

        return initial_classifier(self.settings, self.masked_lm)

    @cached_property
    def notebook_masked_lm(self) -> Any:
        from benchmarks import notebook_models

        return notebook_models.build_masked_lm(self.settings)

    @cached_property
    def notebook_classifier(self) -> Any:
        from benchmarks import notebook_models

        return notebook_models.build_classifier(self.notebook_masked_lm, self.settings, frozen=True)

    def answers_of(self, side: str, answer: str) -> Any:
        """A peer's model, the same at every call."""
        if (side, answer) not in self._answers:
            made = build_for(side, *ANSWERS[side], self.settings, self.vocabulary, answer, device=self._device)
            self._answers[side, answer] = made
        return self._answers[side, answer]

    def share_weights(self, answer: str) -> None:
        """Gives the notebook's models the weights of ours."""
        from benchmarks import notebook_models

        notebook_models.copy_weights(self.masked_lm, self.notebook_masked_lm)
        if answer == "classify":
            for layer, name in zip(self.notebook_classifier.layers[-2:], ("hidden", "logits"), strict=True):
                layer.set_weights(self.classifier.get_layer(name).get_weights())

    def classify(self, side: str) -> Callable[[], tuple[float, float]]:
        """A side's loss and accuracy on the raw reviews."""
        if side == "notebook":
            return self._classify_by_notebook()
        logits_of = self._our_logits() if side == OURS else self._peers_logits(side)

        def classify() -> tuple[float, float]:
            found = score(logits_of(), self.labels)
            return found.loss, found.accuracy

        return classify

    def fill_mask(self, side: str) -> Callable[[], list[list[str]]]:
        """A side's likeliest words for the first of `SENTENCES`."""
        return self._fill(side, SENTENCES[:1])

    def fill_masks(self, side: str) -> Callable[[], list[list[str]]]:
        """A side's likeliest words for each of `SENTENCES`, in one batch."""
        return self._fill(side, SENTENCES)

    def _fill(self, side: str, sentences: list[str]) -> Callable[[], list[list[str]]]:
        if side == OURS:
            return self._fill_by_minibert(sentences)
        if side == "notebook":
            return self._fill_by_notebook(sentences)
        answers = self.answers_of(side, "fill_mask")
        return lambda: answers.fill(sentences, TOP_K)

    def _peers_logits(self, side: str) -> Callable[[], np.ndarray]:
        answers = self.answers_of(side, "classify")
        return lambda: answers.logits(self.texts, BATCH_SIZE)

    def _our_logits(self) -> Callable[[], np.ndarray]:
        from minibert.training.finetune import ClassifierForward

        forward, settings = ClassifierForward(self.classifier), self.settings.text
        return lambda: forward.logits(encode(pa.array(self.texts), self.vocabulary, settings), batch_size=BATCH_SIZE)

    def _classify_by_notebook(self) -> Callable[[], tuple[float, float]]:
        from benchmarks import notebook_text

        model, layer = self.notebook_classifier, notebook_text.layer_of(self.vocabulary.words, self.settings.text)

        def classify() -> tuple[float, float]:
            ids = notebook_text.encode(layer, self.texts)
            loss, accuracy = model.evaluate(ids, self.labels, batch_size=BATCH_SIZE, verbose=0)
            return loss, accuracy

        return classify

    def _fill_by_minibert(self, sentences: list[str]) -> Callable[[], list[list[str]]]:
        from minibert.training.pretrain import compiled_words, masked_words, predict_masked

        vocabulary, settings = self.vocabulary, self.settings.text
        words = compiled_words(masked_words(self.masked_lm), settings.sequence_length)

        def fill() -> list[list[str]]:
            sample = sample_ids(sentences, vocabulary, settings)
            found = predict_masked(words, sentences, *sample, vocabulary=vocabulary, top_k=TOP_K)
            return [[prediction.token for prediction in predictions] for predictions in found]

        return fill

    def _fill_by_notebook(self, sentences: list[str]) -> Callable[[], list[list[str]]]:
        from benchmarks import notebook_text

        model, layer = self.notebook_masked_lm, notebook_text.layer_of(self.vocabulary.words, self.settings.text)

        def fill() -> list[list[str]]:
            ids = notebook_text.encode(layer, sentences)
            probabilities = model.predict(ids, batch_size=BATCH_SIZE, verbose=0)
            best = probabilities[ids == self.vocabulary.mask_id].argsort()[:, -TOP_K:][:, ::-1]
            return [[self.vocabulary.words[i] for i in row] for row in best]

        return fill


Task = tuple[RunSettings, list[str], Vocabulary, str]
"""What `Prepared` is made of."""


def task_of(shape: str, device: str) -> Task:
    """Settings, raw reviews, their vocabulary, and the device."""
    settings = shape_settings(shape)
    texts = raw_reviews(REVIEWS[shape], settings.text)
    return settings, texts, learn_vocabulary([pa.array(texts)], settings.text), device


def answering_work(side: str, answer: str, *task: Any) -> Work:
    """A side's work alone: ``classify``, ``fill_mask`` or ``fill_masks``."""
    work: Work = getattr(Prepared(*task), answer)(side)
    return work


def check_classified(found: tuple[float, float], answers: Any, made: Prepared) -> None:
    """A peer reads the same ids as we, and its answers depend on them and not on the batch that they are in."""
    assert np.array_equal(answers.encode(made.texts), encode(pa.array(made.texts), made.vocabulary, made.settings.text))
    logits = answers.logits(made.texts, BATCH_SIZE - 5)
    assert len(np.unique(logits)) > len(made.texts) // 2
    again = score(logits, made.labels)
    assert found[0] == pytest.approx(again.loss, rel=1e-3)
    assert abs(found[1] - again.accuracy) <= 2 / len(made.texts)  # a logit so near 0 may round to either side


@pytest.mark.bench
@pytest.mark.benchmark(group="prediction: classify")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", GROUP_SIDES)
def test_classify(benchmark: Any, device: str, side: str, shape: str) -> None:
    require_side(side)
    task = task_of(shape, device)
    made = Prepared(*task)
    made.share_weights("classify")
    work, of_notebook = made.classify(side), made.classify("notebook")
    facts = {
        "tokens": sum(len(text.split()) for text in made.texts),
        "texts": len(made.texts),
        "bytes": sum(map(len, made.texts)),
        "flops": answer_flops(made.settings, "classify", texts=len(made.texts)),
        **peak_facts(benchmark, side, device, answering_work, "classify", *task),
    }

    found = time_beside(benchmark, work, None if side == "notebook" else of_notebook, facts, side=side, device=device)

    if side not in PEERS:
        assert found == pytest.approx(of_notebook() if side == OURS else made.classify(OURS)(), rel=1e-5)
    else:
        check_classified(found, made.answers_of(side, "classify"), made)
    if benchmark.stats is not None:
        benchmark.extra_info["reviews_per_second"] = round(len(made.texts) / benchmark.stats.stats.median)


@pytest.mark.bench
@pytest.mark.benchmark(group="prediction: fill mask")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", GROUP_SIDES)
def test_fill_mask(benchmark: Any, device: str, side: str, shape: str) -> None:
    time_filling(benchmark, device, side, shape, "fill_mask", SENTENCES[:1])


@pytest.mark.bench
@pytest.mark.benchmark(group=f"prediction: fill {len(SENTENCES)} masks")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", GROUP_SIDES)
def test_fill_masks(benchmark: Any, device: str, side: str, shape: str) -> None:
    time_filling(benchmark, device, side, shape, "fill_masks", SENTENCES)


def time_filling(benchmark: Any, device: str, side: str, shape: str, answer: str, sentences: list[str]) -> None:
    require_side(side)
    task = task_of(shape, device)
    made = Prepared(*task)
    made.share_weights("fill_mask")
    fill = getattr(made, answer)
    work, of_notebook = fill(side), fill("notebook")
    facts = {
        "tokens": made.settings.text.sequence_length * len(sentences),
        "texts": len(sentences),
        "masked_tokens": len(sentences),
        "bytes": sum(map(len, sentences)),
        "flops": answer_flops(made.settings, "fill_mask", texts=len(sentences)),
        **peak_facts(benchmark, side, device, answering_work, answer, *task),
    }

    found = time_beside(benchmark, work, None if side == "notebook" else of_notebook, facts, side=side, device=device)

    assert len(found) == len(sentences)
    if side not in PEERS:
        assert found == (of_notebook() if side == OURS else fill(OURS)())
        return
    answers = made.answers_of(side, "fill_mask")
    assert np.array_equal(answers.encode(sentences), sample_ids(sentences, made.vocabulary, made.settings.text)[0])
    assert found == answers.fill_by_hand(sentences, TOP_K)
    assert found == [answers.fill([sentence], TOP_K)[0] for sentence in sentences]
