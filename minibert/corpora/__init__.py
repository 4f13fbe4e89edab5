"""Corpora: where texts come from, one file per source, behind one small interface.

Every reader gives a `Corpus`: a name, the number of examples of each split, optional labels with
class names, a digest of the content, and the texts themselves, in batches that can be read again
and again, so that a corpus never has to fit in memory.

    corpus = open_corpus(settings.corpus, seed=settings.seed, data=Path("reviews.csv"))
    for batch in corpus.batches("train"):
        batch.texts, batch.labels

`open_corpus` (opening.py) chooses the reader. Names are loaded on first use: importing this package
costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minibert.corpora.corpus import Corpus, TextBatch
    from minibert.corpora.opening import open_corpus

__all__ = ["Corpus", "TextBatch", "open_corpus"]

_HOME = {"Corpus": "corpus", "TextBatch": "corpus", "open_corpus": "opening"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
