"""The embedded corpus: the same bytes everywhere, and sentiment that only the order of words tells well."""

from __future__ import annotations

import doctest
import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minibert.corpora import embedded
from minibert.corpora import embedded_lexicon as lexicon
from minibert.corpora.embedded import EMBEDDED_SEED, NOISE_RATE, embedded_corpus, embedded_reviews
from minibert.errors import SettingsError
from minibert.streams import stream, threshold
from tests.golden import make


def words_of(text: str) -> list[str]:
    """Words as the notebooks split them, near enough."""
    return re.sub(r"[^\w\s\[\]]", "", text.replace("<br />", " ").lower()).split()


@pytest.fixture(scope="module")
def reviews() -> tuple[list[str], np.ndarray]:
    batch = embedded_reviews("train", 0, 8000)
    return batch.texts.to_pylist(), batch.labels


def test_docstring_shows_what_comes():
    results = doctest.testmod(embedded)
    assert (results.failed, results.attempted) == (0, 2)


def test_known_answer():
    known, corpus = json.loads(make.read("embedded_corpus.json")), embedded_corpus(2_400, 600)
    assert corpus.digest == known["digest"]
    assert {**corpus.examples} == known["examples"]
    assert list(corpus.class_names) == known["class_names"]
    assert embedded_reviews("train", 0, 4).texts.to_pylist() == known["first_texts"]


@settings(max_examples=30)
@given(st.sampled_from(["train", "test"]), st.integers(0, 5000) | st.integers(0, 2**40), st.integers(1, 40))
@example("train", 2047, 2)
def test_a_review_depends_on_split_and_row_only(split, start, count):
    together = embedded_reviews(split, start, start + count)
    for place in {0, count // 2, count - 1}:
        alone = embedded_reviews(split, start + place, start + place + 1)
        assert alone.texts[0] == together.texts[place]
        assert alone.labels[0] == together.labels[place]


def test_more_examples_begin_with_the_same_ones():
    few, many = embedded_corpus(50, 20), embedded_corpus(3000, 20)
    assert next(few.batches("train")).texts.equals(next(many.batches("train")).texts[:50])
    assert next(few.batches("test")).texts.equals(next(many.batches("test")).texts)
    assert (few.examples, many.examples) == ({"train": 50, "test": 20}, {"train": 3000, "test": 20})


def test_a_number_that_is_not_given_is_the_corpus_own():
    for nothing in (None, 0):
        assert embedded_corpus(nothing, nothing).examples == {"train": 5_000, "test": 1_000}
        assert embedded_corpus(nothing, 7).examples == {"train": 5_000, "test": 7}


def test_one_training_example_is_refused():
    """It would be of one class, and a classifier learns to say nothing else."""
    with pytest.raises(
        SettingsError, match=r"corpus\.train_examples: two examples or more, .* is required, but 1 came"
    ):
        embedded_corpus(1)
    assert embedded_corpus(2, 1).examples == {"train": 2, "test": 1}
    (batch,) = embedded_corpus(2, 1).batches("train")
    assert sorted(batch.labels) == [0, 1]


def test_splits_share_no_review():
    train, test = (
        {t for b in embedded_corpus(2_400, 600).batches(s) for t in b.texts.to_pylist()} for s in ("train", "test")
    )
    assert len(train) > 2300
    assert not train & test


@pytest.mark.parametrize("count", [2, 3, 600, 2401])
def test_labels_are_balanced(count):
    labels = embedded_reviews("train", 0, count).labels
    assert abs(int((labels == 1).sum()) - int((labels == 0).sum())) <= 1


def test_texts_are_as_long_and_as_varied_as_promised(reviews):
    texts, _ = reviews
    lengths = [len(words_of(text)) for text in texts]
    assert 15 <= min(lengths) < 25
    assert 80 < max(lengths) <= 120
    whole = " ".join(texts)
    for part in ("<br />", "café", "naïve", "Amélie", "José", "über", "señor", "…", "—", "!!", "...", "didn't", "["):
        assert part in whole, part
    assert re.search(r"\b[A-Z]{5,}\b", whole)
    assert re.search("[\u0400-\u04ff]", whole)
    assert sum("I have watched this" in text for text in texts) > len(texts) / 2
    assert re.search(r"I have watched this movie and it was awesome\b", whole)
    assert "{" not in whole


def test_vocabulary_is_long_tailed_and_grows(reviews):
    counts = Counter(word for text in reviews[0] for word in words_of(text))
    first = {word for text in reviews[0][:1000] for word in words_of(text)}
    assert 400 < len(first) < len(counts) / 2
    assert sum(count == 1 for count in counts.values()) > len(counts) / 4


def test_every_word_and_template_of_the_lexicon_can_come():
    texts = [t for s in range(0, 40_000, 4000) for t in embedded_reviews("train", s, s + 4000).texts.to_pylist()]
    whole = " ".join(texts)
    for words in [*lexicon.NEUTRAL.values(), *(words for pair in lexicon.WORDS.values() for words in pair)]:
        missing = [word for word in words.split() if word not in whole]
        assert not missing


def test_sentiments_words_are_distinct():
    for negative, positive in lexicon.WORDS.values():
        words = negative.split() + positive.split()
        assert len(set(words)) == len(words)


def test_some_labels_are_wrong_on_purpose():
    """A direct opening says the text's sentiment; it contradicts the label where the noise does."""
    rows, counted, wrong = 30_000, 0, 0
    batch = embedded_reviews("train", 0, rows)
    noisy = stream(EMBEDDED_SEED, "embedded corpus", "train").rows(np.arange(rows), 2)[:, 1] < threshold(NOISE_RATE)
    positive = set(lexicon.WORDS["adjective"][1].split())
    for text, label, is_noisy in zip(batch.texts.to_pylist(), batch.labels, noisy, strict=True):
        opening = re.match(r"I have watched this [\w-]+ and it was (?!not)([\w-]+)", text)
        if opening:
            counted += 1
            says = opening[1].lower() in positive
            wrong += says != label
            assert (says != label) == is_noisy
    assert 0.02 < wrong / counted < 0.03


def accuracy(features: list[set], labels: np.ndarray, train: int) -> float:
    """Test accuracy of a logistic regression on the presence of features (plain gradient descent)."""
    common = [f for f, _ in Counter(f for row in features[:train] for f in row).most_common(3000)]
    column = {feature: place for place, feature in enumerate(common)}
    present = np.zeros((len(features), len(common)), dtype=np.float32)
    for row, of_row in enumerate(features):
        present[row, [column[f] for f in of_row if f in column]] = 1
    weights, velocity, bias = np.zeros(len(common), np.float32), np.zeros(len(common), np.float32), 0.0
    for _ in range(60):
        error = 1 / (1 + np.exp(-(present[:train] @ weights + bias))) - labels[:train]
        velocity = 0.9 * velocity + (error @ present[:train]) / train + 1e-3 * weights
        weights, bias = weights - velocity.astype(np.float32), bias - error.mean()
    return float(((present[train:] @ weights + bias > 0) == labels[train:]).mean())


def test_words_alone_tell_something_and_words_in_order_far_more(reviews):
    """About 0.68 and 0.92; the label noise allows 0.975."""
    documents = [words_of(text) for text in reviews[0][:6000]]
    labels = reviews[1][:6000]
    words = accuracy([set(d) for d in documents], labels, 4500)
    pairs = accuracy([{*d, *itertools.pairwise(d)} for d in documents], labels, 4500)
    assert 0.6 < words < 0.78
    assert 0.86 < pairs < 0.98
