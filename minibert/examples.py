"""A corpus as encoded ids: vocabulary, token ids, labels and what is worth recording about them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibert.corpora.corpus import BATCH_ROWS, SPLITS, Corpus, Split, TextBatch
from minibert.corpora.selection import PLACE, place_rows
from minibert.progress import Progress
from minibert.settings import RunSettings
from minibert.text import PADDING_ID, UNKNOWN_ID, Vocabulary, encode, learn_vocabulary


@dataclass(frozen=True)
class Examples:
    """Encoded examples, train before test.

    Attributes:
        vocabulary: Words by id.
        token_ids: uint16 (uint32 for large vocabularies), (examples, sequence).
        labels: int8 (examples,), or None.
        train_count: How many of them are the train split.
        held_out: bool (train_count,), what the classifier is validated on in the train split; None: on the test split.
    """

    vocabulary: Vocabulary
    token_ids: np.ndarray
    labels: np.ndarray | None
    train_count: int
    held_out: np.ndarray | None = None

    def split(self, name: Split) -> tuple[np.ndarray, np.ndarray]:
        """Ids and labels of one split of a labelled corpus."""
        assert self.labels is not None
        part = slice(0, self.train_count) if name == "train" else slice(self.train_count, None)
        return self.token_ids[part], self.labels[part]

    def for_classifier(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Ids and labels of a labelled corpus that the classifier is trained on, and those that it is validated on."""
        token_ids, labels = self.split("train")
        if self.held_out is None:
            return (token_ids, labels), self.split("test")
        kept = ~self.held_out
        return (token_ids[kept], labels[kept]), (token_ids[self.held_out], labels[self.held_out])

    def statistics(self) -> dict[str, Any]:
        """Counts and rates for the run record."""
        padding, unknown, digest = 0, 0, hashlib.sha256()
        for start in range(0, len(self.token_ids), BATCH_ROWS):  # a copy of all ids would double a run's memory
            ids = self.token_ids[start : start + BATCH_ROWS]
            padding += int(np.count_nonzero(ids == PADDING_ID))
            unknown += int(np.count_nonzero(ids == UNKNOWN_ID))
            digest.update(ids.astype("<i4").data)
        tokens = self.token_ids.size - padding
        class_counts = None
        if self.labels is not None:
            class_counts = {name: np.bincount(self.split(name)[1], minlength=2).tolist() for name in SPLITS}
        return {
            "class_counts": class_counts,
            "vocabulary_size": len(self.vocabulary),
            "vocabulary_sha256": self.vocabulary.digest(),
            "tokens": tokens,
            "unknown_rate": unknown / max(tokens, 1),
            "padding_rate": padding / max(self.token_ids.size, 1),
            "ids_sha256": digest.hexdigest(),
        }


def encode_corpus(
    corpus: Corpus, settings: RunSettings, *, vocabulary: Vocabulary | None = None, progress: Progress | None = None
) -> Examples:
    """Learns the vocabulary (if none is given) and encodes every text, batch by batch.

    The corpus is read twice; besides the result only one batch is held.

    Args:
        corpus: The texts.
        settings: A run's; those of the text are looked at, the seed and `validation_rate`.
        vocabulary: Words by id, if they are known already.
        progress: Shows how far both passes are; None: silent.

    Raises:
        CorpusError: There is no word, or a class has too few examples to hold some out.
    """
    shown = progress or Progress(quiet=True)
    if vocabulary is None:
        counted = SPLITS if settings.text.vocabulary_splits == "train+test" else SPLITS[:1]
        texts = (batch.texts for batch in _batches(corpus, counted, "count words", shown))
        vocabulary = learn_vocabulary(texts, settings.text, source=corpus.source)
    count = sum(corpus.examples.values())
    dtype = np.uint16 if len(vocabulary) <= 1 << 16 else np.uint32
    token_ids = np.zeros((count, settings.text.sequence_length), dtype=dtype)
    labels = np.zeros(count, dtype=np.int8) if corpus.labelled else None
    place = 0
    for batch in _batches(corpus, SPLITS, "encode texts", shown):
        part = slice(place, place + len(batch.texts))
        token_ids[part] = encode(batch.texts, vocabulary, settings.text)
        if labels is not None:
            assert batch.labels is not None
            labels[part] = batch.labels
        place = part.stop
    train_count = corpus.examples["train"]
    held_out = None if labels is None else _held_out(labels[:train_count], settings, source=corpus.source)
    return Examples(vocabulary, token_ids, labels, train_count, held_out)


def _held_out(labels: np.ndarray, settings: RunSettings, *, source: str) -> np.ndarray | None:
    """The seeded share of each class that the classifier is not trained on."""
    rate = settings.finetune.validation_rate
    if not rate:
        return None
    places = place_rows(labels, test_rate=rate, seed=settings.seed, source=source, purpose="validation")
    return places == PLACE["test"]


def _batches(corpus: Corpus, splits: Sequence[Split], description: str, progress: Progress) -> Iterator[TextBatch]:
    """The batches of these splits, one after the other, and how many of their texts are done with."""
    task = progress.start(description, sum(corpus.examples[split] for split in splits))
    for split in splits:
        for batch in corpus.batches(split):
            yield batch
            task.advance(len(batch.texts))
    task.finish()
