"""A corpus becomes one array of ids, the same for every size of the reader's batches."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.corpora import open_corpus
from minibert.corpora.corpus import Corpus, Split, TextBatch, make_corpus
from minibert.errors import CorpusError
from minibert.examples import encode_corpus
from minibert.progress import Progress, Task
from minibert.settings import CorpusSettings, FinetuneSettings, RunSettings, TextSettings
from minibert.streams import stream
from minibert.text import Vocabulary
from tests import oracles
from tests.golden import make

TRAIN = ["The film was good.<br />Good!", "bad film", "", "a [mask] film", "Good, good, bad"]
TEST = ["Unseen words", "the film"]
LABELS = {"train": [1, 0, 0, 1, 1], "test": [0, 1]}
SETTINGS = RunSettings(text=TextSettings(vocabulary_size=8, sequence_length=4))


def corpus_of(*, batch_rows: int = 3, labelled: bool = True) -> Corpus:
    texts: dict[Split, list[str]] = {"train": TRAIN, "test": TEST}

    def read(split: Split) -> Iterator[TextBatch]:
        for start in range(0, len(texts[split]), batch_rows):
            part = slice(start, start + batch_rows)
            labels = np.array(LABELS[split][part], dtype=np.int8) if labelled else None
            yield TextBatch(pa.array(texts[split][part], type=pa.string()), labels)

    return make_corpus("test", ("bad", "good") if labelled else None, read)


def with_text(**fields: object) -> RunSettings:
    return RunSettings(text=TextSettings(**{"vocabulary_size": 8, "sequence_length": 4, **fields}))


def test_examples_are_train_before_test_with_the_oracles_ids():
    examples = encode_corpus(corpus_of(), SETTINGS)
    words = oracles.vocabulary(TRAIN + TEST, 8)
    assert list(examples.vocabulary.words) == words
    assert examples.token_ids.tolist() == [oracles.encode(text, words, 4) for text in TRAIN + TEST]
    assert (examples.token_ids.dtype, examples.labels.dtype) == (np.uint16, np.int8)
    assert examples.labels.tolist() == LABELS["train"] + LABELS["test"]
    assert examples.train_count == 5


@given(batch_rows=st.integers(1, 9))
def test_examples_do_not_depend_on_the_readers_batches(batch_rows):
    one, other = encode_corpus(corpus_of(), SETTINGS), encode_corpus(corpus_of(batch_rows=batch_rows), SETTINGS)
    assert one.vocabulary == other.vocabulary
    assert np.array_equal(one.token_ids, other.token_ids)
    assert np.array_equal(one.labels, other.labels)
    assert one.statistics() == other.statistics()


def test_splits_are_the_parts():
    examples = encode_corpus(corpus_of(), SETTINGS)
    for name, part in (("train", slice(0, 5)), ("test", slice(5, 7))):
        ids, labels = examples.split(name)
        assert np.array_equal(ids, examples.token_ids[part])
        assert labels.tolist() == LABELS[name]


def test_the_classifier_is_validated_on_the_test_split():
    examples = encode_corpus(corpus_of(), SETTINGS)
    for found, name in zip(examples.for_classifier(), ("train", "test"), strict=True):
        for array, expected in zip(found, examples.split(name), strict=True):
            assert np.array_equal(array, expected)


def holding_out(rate: float, *, seed: int = 0) -> RunSettings:
    return dataclasses.replace(SETTINGS, seed=seed, finetune=FinetuneSettings(validation_rate=rate))


@pytest.mark.parametrize(("rate", "counts"), [(0.01, [1, 1]), (0.5, [1, 2]), (0.99, [1, 2])])
def test_or_on_a_seeded_share_of_each_class_of_the_train_split_which_it_is_not_trained_on(rate, counts):
    examples, words = encode_corpus(corpus_of(), holding_out(rate)), stream(0, "validation").words(5)
    held = [
        row
        for label, count in enumerate(counts)
        for row in sorted((i for i in range(5) if LABELS["train"][i] == label), key=lambda i: words[i])[:count]
    ]
    trained = [row for row in range(5) if row not in held]
    ids, labels = examples.split("train")
    for rows, (found_ids, found_labels) in zip((trained, sorted(held)), examples.for_classifier(), strict=True):
        assert np.array_equal(found_ids, ids[rows])
        assert np.array_equal(found_labels, labels[rows])
    assert examples.statistics() == encode_corpus(corpus_of(), SETTINGS).statistics()


def test_what_is_held_out_depends_on_the_seed():
    held = {tuple(encode_corpus(corpus_of(), holding_out(0.5, seed=seed)).held_out) for seed in range(9)}
    assert len(held) > 1


def test_a_class_of_which_none_can_be_held_out_is_named_before_anything_is_trained(monkeypatch):
    monkeypatch.setitem(LABELS, "train", [1, 0, 1, 1, 1])
    with pytest.raises(CorpusError, match="two rows or more of each class are required for a split, but 1 came"):
        encode_corpus(corpus_of(), holding_out(0.1))
    assert encode_corpus(corpus_of(labelled=False), holding_out(0.1)).held_out is None


def test_the_test_split_stays_out_of_the_vocabulary_if_asked():
    examples = encode_corpus(corpus_of(), with_text(vocabulary_splits="train", vocabulary_size=100))
    assert list(examples.vocabulary.words) == oracles.vocabulary(TRAIN, 100)
    assert examples.token_ids[5].tolist() == [1, 1, 0, 0], "unseen words"


def test_a_given_vocabulary_is_used_as_it_is():
    vocabulary = Vocabulary(("", "[UNK]", "film", "[mask]"))
    examples = encode_corpus(corpus_of(), SETTINGS, vocabulary=vocabulary)
    assert examples.vocabulary is vocabulary
    assert examples.token_ids[3].tolist() == [1, 3, 2, 0]


def test_large_vocabularies_have_wider_ids():
    words = ("", "[UNK]", *map(str, range(65_534)), "[mask]")
    for size, dtype in ((65_537, np.uint32), (65_536, np.uint16)):
        vocabulary = Vocabulary((*words[: size - 1], "[mask]"))
        examples = encode_corpus(corpus_of(), SETTINGS, vocabulary=vocabulary)
        assert examples.token_ids.dtype == dtype
        assert examples.token_ids[3].max() == size - 1, "[mask] has the greatest id"


def test_statistics_count_what_is_there():
    examples = encode_corpus(corpus_of(), SETTINGS)
    ids = [i for row in examples.token_ids.tolist() for i in row]
    tokens = sum(i != 0 for i in ids)
    assert examples.statistics() == {
        "class_counts": {"train": [2, 3], "test": [1, 1]},
        "vocabulary_size": 8,
        "vocabulary_sha256": hashlib.sha256("\n".join([*examples.vocabulary.words, ""]).encode()).hexdigest(),
        "tokens": tokens,
        "unknown_rate": ids.count(1) / tokens,
        "padding_rate": ids.count(0) / len(ids),
        "ids_sha256": hashlib.sha256(b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest(),
    }


def test_an_unlabelled_corpus_has_no_labels():
    examples = encode_corpus(corpus_of(labelled=False), SETTINGS)
    assert examples.labels is None
    assert examples.statistics()["class_counts"] is None
    assert np.array_equal(examples.token_ids, encode_corpus(corpus_of(), SETTINGS).token_ids)


def test_a_corpus_without_words_is_refused():
    with pytest.raises(CorpusError, match=r"^the corpus 'test': texts with at least one word are required"):
        encode_corpus(corpus_of(), with_text(stripped_characters="abcdefghijklmnopqrstuvwxyz!,.[]"))


def test_a_table_without_words_is_named(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("text\n!!!\n...\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=f"^{path}: texts with at least one word are required, but none came"):
        encode_corpus(open_corpus(CorpusSettings(), seed=0, data=path), SETTINGS)


def test_ids_of_embedded_sentences_are_the_known_answer():
    assert make.GOLDENS["token_ids.json"]() == make.read("token_ids.json")


class Recorder(Progress):
    """Remembers every task: its description, its total and how much of it is done."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.tasks: list[list[object]] = []

    def start(self, description: str, total: int | None = None) -> Task:
        done: list[object] = [description, total, 0, False]
        self.tasks.append(done)

        class Recorded(Task):
            def advance(self, n: int = 1, **figures: float) -> None:
                done[2] += n  # type: ignore[operator]

            def finish(self) -> None:
                done[3] = True

        return Recorded()


@pytest.mark.parametrize(("splits", "counted"), [("train+test", 7), ("train", 5)])
def test_both_passes_show_how_far_they_are(splits, counted):
    recorder = Recorder()
    encode_corpus(corpus_of(), with_text(vocabulary_splits=splits), progress=recorder)
    assert recorder.tasks == [["count words", counted, counted, True], ["encode texts", 7, 7, True]]
    recorder = Recorder()
    encode_corpus(corpus_of(), SETTINGS, vocabulary=encode_corpus(corpus_of(), SETTINGS).vocabulary, progress=recorder)
    assert [task[0] for task in recorder.tasks] == ["encode texts"]
