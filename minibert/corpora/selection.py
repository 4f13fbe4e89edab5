"""Which row of a source goes into which split: a seeded, stratified choice by the smallest words.

    place_rows(labels, test_rate=0.2, seed=0) -> int8 [0 0 1 0 ...]   0 train, 1 test, -1 left out

Every row has a 64-bit word of a named stream. Of each class, the rows with the smallest words are
chosen; the rows themselves stay in the order of the source. The choice depends on the seed, the
number of rows and their labels, never on how the rows were read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from minibert.corpora.corpus import SPLITS, Split, TextBatch
from minibert.errors import CorpusError
from minibert.settings import CorpusSettings
from minibert.streams import stream

LEFT_OUT = -1
PLACE: dict[Split, int] = {"train": 0, "test": 1}


def place_rows(
    labels: np.ndarray, *, test_rate: float, seed: int, source: str = "labels", purpose: str = "split"
) -> np.ndarray:
    """Puts round(test_rate * n) of the n rows of each class into the test split.

    Each class has at least one row in each split.

    Args:
        labels: int8, (rows,), both classes present.
        test_rate: Share of each class, between 0 and 1.
        seed: Root of the stream that ``purpose`` names, row 0: word i is row i's.
        source: Where the labels come from, for errors.
        purpose: The stream's name.

    Returns:
        int8, (rows,): 0 = train, 1 = test.

    Raises:
        CorpusError: A class has one row only.
    """
    words = stream(seed, purpose).words(len(labels))
    places = np.zeros(len(labels), dtype=np.int8)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise CorpusError(
                f"{source}: two rows or more of each class are required for a split, but {len(rows)} came"
            )
        count = min(max(round(test_rate * len(rows)), 1), len(rows) - 1)
        places[_smallest(words, rows, count)] = PLACE["test"]
    return places


def keep_examples(places: np.ndarray, labels: np.ndarray | None, settings: CorpusSettings, *, seed: int) -> np.ndarray:
    """Leaves out what exceeds ``train_examples`` and ``test_examples``, with the classes' shares kept.

    Args:
        places: int8, (rows,), as `place_rows` gives it.
        labels: int8, (rows,); None: unlabelled.
        settings: The two numbers; None, 0 or more than there are: all.
        seed: Root of the streams ``examples``, ``train`` and ``examples``, ``test``.

    Returns:
        int8, (rows,), with -1 where a row is left out.
    """
    places = places.copy()
    counts: dict[Split, int] = {"train": settings.train_examples or 0, "test": settings.test_examples or 0}
    for split, count in counts.items():
        rows = np.flatnonzero(places == PLACE[split])
        if not 0 < count < len(rows):
            continue
        words = stream(seed, "examples", split).words(len(places))
        kept = np.concatenate([_smallest(words, r, n) for r, n in _shares(rows, labels, count)])
        places[rows] = LEFT_OUT
        places[kept] = PLACE[split]
    return places


def split_reader(
    read_texts: Callable[[], Iterator[pa.StringArray]], labels: np.ndarray | None, places: np.ndarray
) -> Callable[[Split], Iterator[TextBatch]]:
    """A corpus' reader from all texts in the source's order and the place of each."""

    def read(split: Split) -> Iterator[TextBatch]:
        start = 0
        for texts in read_texts():
            rows = slice(start, start + len(texts))
            start = rows.stop
            chosen = places[rows] == PLACE[split]
            if chosen.any():
                yield TextBatch(texts.filter(pa.array(chosen)), None if labels is None else labels[rows][chosen])

    return read


def require_trainable(source: str, places: np.ndarray, labels: np.ndarray | None) -> None:
    """Refuses splits that cannot be trained and validated on; asked of the rows that are kept.

    Args:
        source: Named in errors.
        places: int8, (rows,), as `keep_examples` gives it.
        labels: int8, (rows,); None: unlabelled.

    Raises:
        CorpusError: There is no row to train on or, where there are labels, none to validate on, or one class only to
            train on.
    """
    if labels is None:
        if not (places == PLACE["train"]).any():
            raise CorpusError(f"{source}: a train split with rows is required, but all rows are test")
        return
    for split in SPLITS:
        if not (places == PLACE[split]).any():
            raise CorpusError(f"{source}: a {split} split with rows is required in a labelled table with splits")
    kept = labels[places == PLACE["train"]]
    if kept.min() == kept.max():
        raise CorpusError(
            f"{source}: two classes are required in the train split, but one came (examples in it: {len(kept)})"
        )


def _shares(rows: np.ndarray, labels: np.ndarray | None, count: int) -> list[tuple[np.ndarray, int]]:
    """The rows of each class, and how many of them to keep: rounded, one or more where there is room."""
    if labels is None:
        return [(rows, count)]
    first, second = rows[labels[rows] == 0], rows[labels[rows] == 1]
    lowest = max(count - len(second), min(1, len(first)))
    highest = min(count - min(1, len(second)), len(first))
    share = min(max(round(count * len(first) / len(rows)), lowest), max(highest, lowest))
    return [(first, share), (second, count - share)]


def _smallest(words: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.argsort(words[rows], kind="stable")[:count]]
