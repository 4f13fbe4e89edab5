"""The seeded choice of splits and examples."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minibert.corpora.selection import LEFT_OUT, keep_examples, place_rows, require_trainable, split_reader
from minibert.errors import CorpusError
from minibert.settings import CorpusSettings
from minibert.streams import stream
from tests.strategies import seeds

labels_of_both = st.lists(st.integers(0, 1), min_size=4, max_size=40).filter(lambda x: 2 <= sum(x) <= len(x) - 2)
rates = st.floats(0.01, 0.99)


def places_by_hand(labels: list[int], test_rate: float, seed: int) -> list[int]:
    """The rule of `place_rows`, by sorting pairs."""
    words = stream(seed, "split").words(len(labels)).tolist()
    places = [0] * len(labels)
    for label in (0, 1):
        rows = sorted((words[row], row) for row, value in enumerate(labels) if value == label)
        count = min(max(round(test_rate * len(rows)), 1), len(rows) - 1)
        for _, row in rows[:count]:
            places[row] = 1
    return places


@settings(max_examples=60)
@given(labels_of_both, rates, seeds)
@example([0, 0, 1, 1], 0.01, 0)
@example([0, 0, 1, 1], 0.99, 0)
def test_split_is_stratified_and_as_the_rule_says(labels, rate, seed):
    places = place_rows(np.array(labels, dtype=np.int8), test_rate=rate, seed=seed)
    assert places.tolist() == places_by_hand(labels, rate, seed)
    for label in (0, 1):
        of_class = places[np.array(labels) == label]
        assert 0 < of_class.sum() < len(of_class)


def test_split_of_another_seed_is_another():
    labels = np.tile([0, 1], 200).astype(np.int8)
    assert (place_rows(labels, test_rate=0.2, seed=0) != place_rows(labels, test_rate=0.2, seed=1)).any()


def test_split_for_another_purpose_is_another():
    labels = np.tile([0, 1], 200).astype(np.int8)
    places = place_rows(labels, test_rate=0.2, seed=0)
    assert (places == place_rows(labels, test_rate=0.2, seed=0, purpose="split")).all()
    assert (places != place_rows(labels, test_rate=0.2, seed=0, purpose="validation")).any()


def test_a_class_of_one_row_cannot_be_split():
    with pytest.raises(CorpusError, match=r"^reviews\.csv: two rows or more of each class .* but 1 came"):
        place_rows(np.array([0, 0, 1], dtype=np.int8), test_rate=0.5, seed=0, source="reviews.csv")


@pytest.mark.parametrize(
    ("places", "labels", "message"),
    [
        ([1, 1], None, "a train split with rows is required, but all rows are test"),
        ([1, LEFT_OUT], [0, 1], "a train split with rows is required in a labelled table with splits"),
        ([0, 0, LEFT_OUT], [0, 1, 1], "a test split with rows is required in a labelled table with splits"),
        ([0, LEFT_OUT, 1], [0, 1, 1], "two classes are required in the train split, but one came (examples in it: 1)"),
        ([0, 0, 1], [1, 1, 0], "two classes are required in the train split, but one came (examples in it: 2)"),
    ],
)
def test_splits_that_cannot_be_trained_on_are_refused(places, labels, message):
    of_rows = None if labels is None else np.array(labels, dtype=np.int8)
    with pytest.raises(CorpusError) as raised:
        require_trainable("reviews.csv", np.array(places, dtype=np.int8), of_rows)
    assert str(raised.value) == f"reviews.csv: {message}"


def test_splits_that_can_be_trained_on_are_taken():
    require_trainable("t", np.array([0, 1, 0], dtype=np.int8), np.array([0, 0, 1], dtype=np.int8))
    require_trainable("t", np.array([0, LEFT_OUT], dtype=np.int8), None)


@settings(max_examples=60)
@given(labels_of_both, rates, seeds, st.integers(0, 50), st.integers(0, 50), st.booleans())
def test_examples_are_kept_by_class(labels, rate, seed, train, test, labelled):
    of_rows = np.array(labels, dtype=np.int8)
    places = place_rows(of_rows, test_rate=rate, seed=seed)
    wanted_counts = CorpusSettings(train_examples=train, test_examples=test)
    kept = keep_examples(places, of_rows if labelled else None, wanted_counts, seed=seed)
    assert set(np.unique(kept)) <= {LEFT_OUT, 0, 1}
    assert ((kept == places) | (kept == LEFT_OUT)).all()
    for place, wanted in ((0, train), (1, test)):
        there, chosen = (places == place).sum(), (kept == place).sum()
        assert chosen == (min(wanted, there) if wanted else there)
        if labelled and chosen >= 2:
            assert set(of_rows[kept == place]) == {0, 1}


def test_more_examples_contain_fewer_ones():
    """Of an unlabelled corpus: a study over sizes sees growing sets, not different ones."""
    places = np.zeros(300, dtype=np.int8)
    few, many = (
        set(np.flatnonzero(keep_examples(places, None, CorpusSettings(train_examples=n), seed=3) == 0))
        for n in (50, 120)
    )
    assert few < many


def test_reader_filters_batches_in_order():
    batches = [pa.array(["a", "b", "c"]), pa.array(["d"]), pa.array(["e", "f"])]
    labels, places = np.array([0, 1, 0, 1, 0, 1], dtype=np.int8), np.array([0, 1, 0, -1, 1, 0], dtype=np.int8)
    read = split_reader(lambda: iter(batches), labels, places)
    assert [(b.texts.to_pylist(), b.labels.tolist()) for b in read("train")] == [(["a", "c"], [0, 0]), (["f"], [1])]
    assert [(b.texts.to_pylist(), b.labels.tolist()) for b in read("test")] == [(["b"], [1]), (["e"], [0])]
