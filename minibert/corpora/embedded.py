r"""The embedded corpus: film reviews made from a few sentences and words, for runs without any data.

    >>> print(*embedded_reviews("train", 0, 2).texts, sep="\n")  # doctest: +NORMALIZE_WHITESPACE
    I have watched this thriller and it was clumsy. I didn't find the queen awesome at all.
    I would call it really awful.
    I saw this picture tonight and did not resent it. <br />You will not find the direction slow.<br
    /><br />The mystery is anything but silly. The direction was really splendid. We saw it at the hotel
    in London with my brother. They made this atmosphere into something wonderful!! This feature is no
    letdown, I promise you.
    >>> embedded_corpus().examples
    {'train': 5000, 'test': 1000}

Every review is a pure function of its split and row number: no run's seed, platform, number of
examples or batch size changes a byte of it. Row r draws the words of row r of the stream
(`EMBEDDED_SEED`, ``embedded corpus``, split); a choice takes the top 12 bits of one word and looks
them up in a table of 4,096 entries that was filled by integer arithmetic. Invented titles follow a
long-tailed distribution, so that the vocabulary grows with the corpus, as real ones do.

Label 1 is positive. Labels follow the Thue-Morse sequence (the parity of the row number's bits), so
that each pair of rows has one of each. A review's sentences express its sentiment directly (``was
awesome``), by negation (``not a single scene was boring``), by contrast, or not at all (there are
negations in neutral sentences too). So words alone say something, words in order nearly everything:
2.5 % of the labels are wrong on purpose.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minibert.checked import require
from minibert.corpora import embedded_lexicon as lexicon
from minibert.corpora.corpus import BATCH_ROWS, Corpus, Split, TextBatch, make_corpus
from minibert.streams import stream, threshold

EMBEDDED_SEED = 2011
"""The corpus' own seed (the year of the IMDb reviews' publication)."""
TRAIN_EXAMPLES, TEST_EXAMPLES = 5_000, 1_000
"""As many as the preset `tiny` needs to learn something in a minute."""
CLASS_NAMES = ("negative", "positive")
NOISE_RATE = 0.025
"""Share of reviews whose text expresses the opposite of their label."""

_TABLE_BITS = 12
_SENTENCES = ((30, 3), (24, 4), (17, 5), (11, 6), (8, 7), (5, 8), (3, 9), (2, 10))
"""Weights of the numbers of sentences."""
_MOST_SENTENCES = 10
_SHOUTED = 32
"""One in so many adjectives is in capitals."""


def embedded_corpus(
    train_examples: int | None = None, test_examples: int | None = None, *, progress: Any = None
) -> Corpus:
    """The corpus with so many examples; its first rows are the same for any number.

    Args:
        train_examples: None or 0: 5,000.
        test_examples: None or 0: 1,000.
        progress: Has ``start(description, total)``; None: silent.

    Raises:
        SettingsError: One training example was asked for: it is of one class.
    """
    require(train_examples != 1, "corpus.train_examples", "two examples or more, for both classes,", train_examples)
    counts: dict[Split, int] = {"train": train_examples or TRAIN_EXAMPLES, "test": test_examples or TEST_EXAMPLES}

    def read(split: Split) -> Iterator[TextBatch]:
        for start in range(0, counts[split], BATCH_ROWS):
            yield embedded_reviews(split, start, min(start + BATCH_ROWS, counts[split]))

    return make_corpus("embedded", CLASS_NAMES, read, progress=progress)


def embedded_reviews(split: Split, start: int, stop: int) -> TextBatch:
    """The reviews of the rows from ``start`` up to ``stop``.

    Returns:
        Texts of 15 to 120 words, and labels 0 or 1.
    """
    grammar = _grammar()
    rows = np.arange(start, stop, dtype=np.uint64)
    width = 1 + grammar.codes.shape[2]  # the choice of a template, then one for each of its pieces
    words = stream(EMBEDDED_SEED, "embedded corpus", split).rows(rows, 2 + _MOST_SENTENCES * width)
    labels = _thue_morse(rows)
    noisy = words[:, 1] < np.uint64(threshold(NOISE_RATE))
    sentiments = labels ^ noisy
    counts = _choose(grammar.counts, words[:, 0])
    fragments = _fragments(grammar, counts, sentiments, words[:, 2:].reshape(len(rows), _MOST_SENTENCES, width))
    return TextBatch(_join(grammar.fragments, fragments), labels)


def _fragments(grammar: _Grammar, counts: np.ndarray, sentiments: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Numbers of text fragments, (rows, sentences * pieces), 0 where there is none."""
    place = np.arange(_MOST_SENTENCES)
    roles = np.where(place == 0, 0, np.where(place < counts[:, None] - 1, 1, 2))
    drawn = (words >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)
    templates = grammar.roles[roles, drawn[:, :, 0]]
    codes = grammar.codes[sentiments[:, None], templates]
    last = place == counts[:, None] - 1
    codes[:, :, -1] = np.where(last, grammar.last_end, grammar.end)
    is_slot = codes < 0
    slots = np.where(is_slot, -codes - 1, 0)
    fragments = np.where(is_slot, grammar.slots[slots, drawn[:, :, 1:]], codes)
    shouted = is_slot & grammar.can_shout[slots] & (words[:, :, 1:] % np.uint64(_SHOUTED) == 0)
    fragments += np.where(shouted, len(grammar.fragments) // 2, 0)
    fragments[place >= counts[:, None]] = 0
    return fragments.reshape(len(counts), -1)


def _join(texts: pa.StringArray, fragments: np.ndarray) -> pa.StringArray:
    """Joins each row's fragments into one text."""
    used = fragments > 0
    offsets = np.zeros(len(fragments) + 1, dtype=np.int32)
    np.cumsum(used.sum(axis=1), out=offsets[1:])
    pieces = texts.take(pa.array(fragments[used]))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), pieces), "")


def _choose(table: np.ndarray, words: np.ndarray) -> np.ndarray:
    return table[(words >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)]


def _thue_morse(rows: np.ndarray) -> np.ndarray:
    """The parity of each number's bits: int8, (rows,)."""
    folded = rows.copy()
    for shift in (32, 16, 8, 4, 2, 1):
        folded ^= folded >> np.uint64(shift)
    return (folded & np.uint64(1)).astype(np.int8)


@dataclass(frozen=True)
class _Grammar:
    """The lexicon as tables of numbers.

    Attributes:
        fragments: All literal texts and words; the second half holds the first in capitals. Number
            0 is the empty one.
        codes: (sentiment, template, piece): a fragment's number, or -1 - slot.
        roles: (first / middle / last sentence, 4096): templates.
        slots: (slot, 4096): fragments.
        can_shout: (slot,): whether its words are sometimes in capitals.
        counts: (4096,): numbers of sentences.
        end: The code of the slot behind a sentence; `last_end`: behind the last one.
    """

    fragments: pa.StringArray
    codes: np.ndarray
    roles: np.ndarray
    slots: np.ndarray
    can_shout: np.ndarray
    counts: np.ndarray
    end: int
    last_end: int


@functools.cache
def _grammar() -> _Grammar:
    """Builds the tables from the lexicon."""
    middle = [(share * 1000 * weight // sum(w for w, _ in kind), text)
              for share, kind in lexicon.MIDDLE for weight, text in kind]  # fmt: skip
    groups = (lexicon.OPENINGS, middle, lexicon.VERDICTS)
    templates = [re.split(r"\{(\w+)\}", text) for group in groups for _, text in group]
    slots = _slot_words()
    names = list(slots)
    texts = ["", *sorted({part for pieces in templates for part in pieces[::2] if part}
                          | {word for words in slots.values() for _, word in words if word})]  # fmt: skip
    number = {text: place for place, text in enumerate(texts)}
    width = max(map(len, templates)) + 1  # one more for the end
    codes = np.zeros((2, len(templates), width), dtype=np.int64)
    for sentiment in (0, 1):
        for row, pieces in enumerate(templates):
            for column, piece in enumerate(pieces):
                is_slot = column % 2
                codes[sentiment, row, column] = (
                    -1 - names.index(_resolve(piece, sentiment)) if is_slot else number[piece]
                )
    first = np.cumsum([0, *map(len, groups)])
    roles = [_table([(w, first[g] + i) for i, (w, _) in enumerate(group)]) for g, group in enumerate(groups)]
    return _Grammar(
        fragments=pa.array(texts + [text.upper() for text in texts]),
        codes=codes,
        roles=np.stack(roles),
        slots=np.stack([_table([(weight, number[word]) for weight, word in words]) for words in slots.values()]),
        can_shout=np.array([name.startswith("adjective") for name in names]),
        counts=_table(_SENTENCES),
        end=-1 - names.index("end"),
        last_end=-1 - names.index("last_end"),
    )


def _slot_words() -> dict[str, Sequence[tuple[int, str]]]:
    """The weighted words of each slot, those with a sentiment as ``adjective0``, ``adjective1``."""
    slots: dict[str, Sequence[tuple[int, str]]] = {"end": lexicon.ENDS, "last_end": lexicon.LAST_ENDS}
    for name, by_sentiment in lexicon.WORDS.items():
        for sentiment, words in enumerate(by_sentiment):
            slots[f"{name}{sentiment}"] = _zipf(words)
    return slots | {name: _zipf(words) for name, words in lexicon.NEUTRAL.items()}


def _zipf(words: str) -> list[tuple[int, str]]:
    """Weights that fall as 1 / (rank + 3)."""
    return [(1_000_000 // (rank + 3), word) for rank, word in enumerate(words.split())]


def _resolve(slot: str, sentiment: int) -> str:
    """``same`` and ``other`` as the word list they mean in a review of this sentiment."""
    kind, _, part = slot.partition("_")
    if kind not in ("same", "other"):
        return slot
    return f"{part or 'adjective'}{sentiment if kind == 'same' else 1 - sentiment}"


def _table(weighted: Sequence[tuple[int, int]]) -> np.ndarray:
    """4,096 entries with as many of each value as its weight says, by exact integer arithmetic."""
    size, total, done = 1 << _TABLE_BITS, sum(weight for weight, _ in weighted), 0
    entries: list[int] = []
    for weight, value in weighted:
        done += weight
        entries += [int(value)] * (size * done // total - len(entries))
    return np.array(entries, dtype=np.int64)
