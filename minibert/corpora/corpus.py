"""The interface that every corpus reader fills: `Corpus` and its `TextBatch`.

{"train": 25000, "test": 25000}, ("positive", "negative"), digest
    batches("train") -> TextBatch(texts=<2048 strings>, labels=[0 1 1 0 ...]), ...
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
BATCH_ROWS = 2048
"""Examples in a reader's batch: some megabytes of text. No result depends on it."""


@dataclass(frozen=True)
class TextBatch:
    """Consecutive examples of one split.

    Attributes:
        texts: Arrow string array, (examples,), no nulls.
        labels: int8, (examples,), 0 or 1; None in an unlabelled corpus.
    """

    texts: pa.StringArray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Corpus:
    """Texts with an identity.

    The order of the examples is the source's own and always the same; training shuffles by a named
    stream. `batches` may be called any number of times.

    Attributes:
        name: The reader's name, ``imdb`` for example.
        examples: Number of examples of each split.
        class_names: The names of label 0 and label 1; None in an unlabelled corpus.
        digest: SHA-256 of content (see `content_digest`): equal digests, equal corpora.
        read: Gives the batches of a split.
        source: Where the texts come from, for errors about them: a path, or a name on the web.
        unread_columns: Those of a table that are not read.
    """

    name: str
    examples: dict[Split, int]
    class_names: tuple[str, str] | None
    digest: str
    read: Callable[[Split], Iterator[TextBatch]]
    source: str
    unread_columns: tuple[str, ...] = ()

    def batches(self, split: Split) -> Iterator[TextBatch]:
        """The examples of one split, in order, in batches of the reader's size."""
        return self.read(split)

    @property
    def labelled(self) -> bool:
        """Whether the examples have labels."""
        return self.class_names is not None


def make_corpus(
    name: str,
    class_names: tuple[str, str] | None,
    read: Callable[[Split], Iterator[TextBatch]],
    *,
    source: str | None = None,
    progress: Any = None,
) -> Corpus:
    """Reads everything once, for the counts and the digest, and gives the corpus.

    Args:
        name: The reader's name.
        class_names: The names of label 0 and label 1; None: unlabelled.
        read: Gives the batches of a split, as often as it is asked.
        source: Named in errors; None: the corpus of that name.
        progress: Has ``start(description, total)``; None: silent.
    """
    task = progress.start("digest of the texts", None) if progress else None
    digest, examples = content_digest(read, class_names, advance=task.advance if task else lambda count: None)
    if task:
        task.finish()
    where = f"the corpus {name!r}" if source is None else source
    return Corpus(name=name, examples=examples, class_names=class_names, digest=digest, read=read, source=where)


def content_digest(
    read: Callable[[Split], Iterator[TextBatch]],
    class_names: tuple[str, str] | None,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[str, dict[Split, int]]:
    """SHA-256 over class names, labels, text lengths and text bytes of both splits; and the counts.

    It does not depend on the size of the batches. Layout: SHA-256 of the class names as a JSON list
    in UTF-8 without spaces between them (``[]`` if unlabelled); then for each split, in the order
    ``train``, ``test``: its number of examples as 8 bytes little-endian, SHA-256 of the texts' UTF-8
    bytes joined, SHA-256 of their lengths in bytes as int64 little-endian, SHA-256 of the labels as
    int8 (of nothing, if unlabelled). Every part has a fixed length, so that no two contents are one sequence of bytes.
    ``advance`` is told of every batch: its number of texts.
    """
    names = json.dumps(list(class_names or ()), ensure_ascii=False, separators=(",", ":"))
    total = hashlib.sha256(hashlib.sha256(names.encode()).digest())
    counts: dict[Split, int] = {}
    for split in SPLITS:
        texts, lengths, labels, count = hashlib.sha256(), hashlib.sha256(), hashlib.sha256(), 0
        for batch in read(split):
            offsets, data = _text_buffers(batch.texts)
            texts.update(data)
            lengths.update(np.diff(offsets).astype("<i8").tobytes())
            if batch.labels is not None:
                labels.update(np.asarray(batch.labels, dtype=np.int8).tobytes())
            count += len(batch.texts)
            advance(len(batch.texts))
        total.update(count.to_bytes(8, "little"))
        for part in (texts, lengths, labels):
            total.update(part.digest())
        counts[split] = count
    return total.hexdigest(), counts


def text_array(texts: list[bytes]) -> pa.StringArray:
    """A string array of texts that are known to be UTF-8, without decoding them."""
    offsets = np.zeros(len(texts) + 1, dtype=np.int32)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))


def _text_buffers(texts: pa.StringArray) -> tuple[np.ndarray, memoryview]:
    """Offsets (examples + 1,) and the UTF-8 bytes that they index, of a string array or a slice of one."""
    if not len(texts):
        return np.zeros(1, dtype=np.int64), memoryview(b"")
    _, offset_buffer, data_buffer = texts.buffers()
    every_offset = np.frombuffer(offset_buffer, dtype=np.int32, count=texts.offset + len(texts) + 1)
    offsets = every_offset[texts.offset :].astype(np.int64)
    data = memoryview(data_buffer or b"")[offsets[0] : offsets[-1]]
    return offsets, data
