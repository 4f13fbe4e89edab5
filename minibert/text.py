"""Text to token ids: standardize, learn a vocabulary, encode. Arrow's string kernels, no Keras.

    "A GREAT film!<br />Really."  ->  a great film really  ->  [4 89 21 64 0 0 ...]

The result is that of the notebooks' Keras ``TextVectorization``, id for id (a test compares them);
this one reads a corpus in batches, in bounded memory, and does not need TensorFlow.

Ids: 0 is padding, 1 ``[UNK]``, from 2 on words by falling frequency (ties: the greater bytes first,
as Keras sorts them), the last id is ``[mask]``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minibert.checked import is_unicode, require
from minibert.errors import ArtifactError, CorpusError, SettingsError
from minibert.mask_word import MASK, require_one_mask, sentence_names
from minibert.settings import TextSettings
from minibert.word_counts import WordCounts

PADDING, UNKNOWN = "", "[UNK]"
PADDING_ID, UNKNOWN_ID = 0, 1
_FIRST_WORD_ID = 2
_FEW_WORDS = 4
"""Less than one in so many words of the vocabulary: then Arrow's table of it takes longer than looking each up."""


@dataclass(frozen=True)
class Vocabulary:
    """Words by id.

    Attributes:
        words: The word of each id; ``words[0]`` is empty (padding), the last is ``[mask]``.
    """

    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def mask_id(self) -> int:
        """The id of ``[mask]``."""
        return len(self.words) - 1

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each word."""
        return {word: i for i, word in enumerate(self.words)}

    @property
    def content(self) -> bytes:
        """The bytes of ``vocabulary.txt``: one word per line, the line's number is the id."""
        return "".join(f"{word}\n" for word in self.words).encode()

    def digest(self) -> str:
        """SHA-256 of `content`."""
        return hashlib.sha256(self.content).hexdigest()

    @staticmethod
    def read(path: Path) -> Vocabulary:
        """Reads a ``vocabulary.txt``.

        Raises:
            ArtifactError: The file is missing, not UTF-8, or not a vocabulary.
        """
        try:
            lines = path.read_bytes().decode().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path}: a vocabulary is required, but it cannot be read: {error}") from None
        words = tuple(lines[:-1])
        if words[:2] != (PADDING, UNKNOWN) or words[-1:] != (MASK,) or lines[-1] != "" or len(set(words)) < len(words):
            raise ArtifactError(
                f"{path}: an empty line, [UNK], different words and [mask] at the end are required; "
                "the file was cut or edited"
            )
        return Vocabulary(words)


def standardize(texts: pa.Array, settings: TextSettings) -> pa.Array:
    """Lower-cases, turns line breaks into spaces and removes the stripped characters.

    Args:
        texts: Arrow strings, (examples,).
        settings: What is done.

    Returns:
        Arrow strings, (examples,).

    Source: ``custom_standardization`` of both notebooks.
    """
    if settings.lowercase == "ascii":
        texts = pc.ascii_lower(texts)
    elif settings.lowercase == "unicode":
        texts = pc.utf8_lower(texts)
    if settings.line_break:
        texts = pc.replace_substring(texts, pattern=settings.line_break, replacement=" ")
    if settings.stripped_characters:
        pattern = stripped_pattern(settings.stripped_characters)
        texts = pc.replace_substring_regex(texts, pattern=pattern, replacement="")
    return texts


def lower_case_table() -> np.ndarray:
    """What `standardize` makes of every character where `lowercase` is ``unicode``, for those who cannot call Arrow.

    Returns:
        int32, (1114112,): code point to code point; surrogates, which are no characters, to themselves.
    """
    table = np.arange(0x110000, dtype="<i4")
    characters = np.delete(table, slice(0xD800, 0xE000))
    lowered = pc.utf8_lower(pa.scalar(characters.tobytes().decode("utf-32-le"))).as_py()
    table[characters] = np.frombuffer(lowered.encode("utf-32-le"), dtype="<i4")
    return table.astype(np.int32)


def stripped_pattern(characters: str) -> str:
    """The RE2 character class of the stripped characters."""
    return "[" + "".join(re.escape(c) for c in characters) + "]"


def split_words(texts: pa.Array, settings: TextSettings) -> tuple[pa.Array, np.ndarray]:
    """Standardizes and splits on ASCII whitespace.

    Returns:
        All words in order, Arrow strings (words,), and the number of words of each text, int64
        (examples,).
    """
    lists = pc.ascii_split_whitespace(standardize(texts, settings))
    words = lists.flatten()
    row = np.repeat(np.arange(len(lists)), pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    present = pc.not_equal(words, "")
    counts = np.bincount(row[present.to_numpy(zero_copy_only=False)], minlength=len(lists))
    return words.filter(present), counts.astype(np.int64)


def learn_vocabulary(batches: Iterable[pa.Array], settings: TextSettings, *, source: str = "texts") -> Vocabulary:
    """Counts words and keeps the most frequent.

    When the corpus has more words than fit, the least frequent one that would fit gives way to
    ``[mask]``; a corpus with fewer gives a smaller vocabulary.

    Args:
        batches: Arrow string arrays, read once.
        settings: Standardization and `vocabulary_size`.
        source: Where the texts come from, for errors.

    Raises:
        CorpusError: There is no word at all, or one ends in a NUL character, which Keras cuts off.
    """
    specials = (UNKNOWN, MASK)
    with WordCounts() as counts:
        for texts in batches:
            words, _ = split_words(texts, settings)
            counts.add({entry["values"]: entry["counts"] for entry in pc.value_counts(words).to_pylist()})
        ranked = counts.most_common(settings.vocabulary_size + len(specials))
    ranked = [item for item in ranked if item[0] not in specials]
    if not ranked:
        raise CorpusError(f"{source}: texts with at least one word are required, but none came")
    kept = [word for word, _ in ranked[: settings.vocabulary_size - _FIRST_WORD_ID - 1]]
    for word in kept:
        if word.endswith("\0"):
            raise CorpusError(f"{source}: words that do not end in a NUL character are required, but {word!r} came")
    return Vocabulary((PADDING, UNKNOWN, *kept, MASK))


def encode(texts: pa.Array, vocabulary: Vocabulary, settings: TextSettings) -> np.ndarray:
    """Turns texts into ids, cut or padded with 0 to the sequence length.

    Args:
        texts: Arrow strings, (examples,).
        vocabulary: Words by id.
        settings: Standardization and `sequence_length`.

    Returns:
        int32, (examples, sequence).
    """
    words, counts = split_words(texts, settings)
    if _FEW_WORDS * len(words) < len(vocabulary):
        ids = np.array([vocabulary.ids.get(word, UNKNOWN_ID) for word in words.to_pylist()], dtype=np.int32)
    else:
        found = pc.index_in(words, value_set=pa.array(vocabulary.words, type=words.type))
        ids = pc.fill_null(found, UNKNOWN_ID).to_numpy(zero_copy_only=False)
    starts = np.cumsum(counts) - counts
    row = np.repeat(np.arange(len(counts)), counts)
    position = np.arange(len(ids)) - starts[row]
    kept = position < settings.sequence_length
    encoded = np.zeros((len(counts), settings.sequence_length), dtype=np.int32)
    encoded[row[kept], position[kept]] = ids[kept]
    return encoded


def sample_ids(
    sentences: Sequence[str],
    vocabulary: Vocabulary,
    settings: TextSettings,
    *,
    names: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes sentences with one ``[mask]`` each.

    Args:
        sentences: Raw texts; a ``[mask]`` may be in capitals where `lowercase` makes them small.
        vocabulary: Words by id.
        settings: Standardization and `sequence_length`.
        names: What messages call the sentences, as many; None: by their numbers.

    Returns:
        int32 (sentences, sequence), and the position of each ``[mask]``, int64 (sentences,).

    Raises:
        SettingsError: Names are more or fewer than sentences; or in a sentence there is no ``[mask]``, there are
            several, it is part of another word, or it stands beyond the sequence length; the message has the
            sentence's name.
    """
    names = sentence_names(len(sentences)) if names is None else names
    require(len(names) == len(sentences), "names", f"as many as there are sentences, {len(sentences)},", names)
    for name, sentence in zip(names, sentences, strict=True):
        require(isinstance(sentence, str) and is_unicode(sentence), name, "Unicode text", sentence)
        require_one_mask(name, sentence)
    texts = pa.array(sentences, type=pa.string())
    words, word_counts = split_words(texts, settings)
    is_mask = pc.equal(words, MASK).to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(word_counts)), word_counts)
    mask_counts = np.bincount(row[is_mask], minlength=len(word_counts))
    wrong = np.flatnonzero(mask_counts != 1).tolist()
    if wrong:
        capitals = " in small letters" if settings.lowercase == "none" else ""
        raise SettingsError(
            f"{names[wrong[0]]}: one [mask]{capitals}, as a word of its own, is required, "
            f"but {mask_counts[wrong[0]]} came in {sentences[wrong[0]]!r}"
        )
    places = np.flatnonzero(is_mask) - (np.cumsum(word_counts) - word_counts)
    beyond = np.flatnonzero(places >= settings.sequence_length).tolist()
    if beyond:
        raise SettingsError(
            f"{names[beyond[0]]}: [mask] among the first {settings.sequence_length} words (text.sequence_length) is "
            f"required, but it is word {places[beyond[0]] + 1}"
        )
    return encode(texts, vocabulary, settings), places
