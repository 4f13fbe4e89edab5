"""The Large Movie Review Dataset: 50,000 film reviews, from the web, an archive or a folder.

    read_imdb(CorpusSettings(name="imdb"), seed=0, data=Path("aclImdb_v1.tar.gz")) -> Corpus

Layout: ``aclImdb/{train,test}/{pos,neg}/<number>_<rating>.txt``, one review a file. Labels are the
notebook's, 0 = positive, 1 = negative, unless ``positive_label`` says otherwise. Order: train, test; pos,
neg; number; rating; it depends neither on the labels nor on the order in the archive or on the file
system. ``train/unsup`` is not read.

An archive is read once, see imdb_archive.py; a folder at every pass. The checksum is asked of the
downloaded archive only: a local one is the user's own, and the corpus digest says what was in it.

Source: Maas et al., "Learning word vectors for sentiment analysis", ACL 2011; notebook 1, cell
"Load the data".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from minibert.corpora.corpus import BATCH_ROWS, Corpus, Split, TextBatch, make_corpus, text_array
from minibert.corpora.download import cache_folder, fetch
from minibert.corpora.imdb_archive import open_archive
from minibert.corpora.imdb_layout import CLASS_FOLDERS, LAYOUT, Review, parse_name, require_all_folders, require_text
from minibert.corpora.selection import PLACE, keep_examples, require_trainable
from minibert.errors import CorpusError
from minibert.settings import CorpusSettings

ARCHIVE_URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
CLASS_NAMES = ("positive", "negative")
"""The notebook's."""


def read_imdb(settings: CorpusSettings, *, seed: int, data: Path | None = None, progress: Any = None) -> Corpus:
    """Reads the reviews.

    Args:
        settings: ``positive_label``; ``train_examples`` and ``test_examples``, None or 0: all.
        seed: Root of the streams that choose them.
        data: A ``.tar.gz`` of the layout, or a folder: aclImdb itself or the one that holds it; None:
            the published archive, downloaded once into the cache folder.
        progress: Has ``start(description, total)``; None: silent.

    Raises:
        CorpusError: The archive or folder is damaged or not of the layout.
        DownloadError: The archive cannot be fetched.
    """
    if data is not None and data.is_dir():
        source, read = data, _folder_reader(_top_folder(data))
    else:
        source = data or fetch(ARCHIVE_URL, cache_folder() / "aclImdb_v1.tar.gz", md5=ARCHIVE_MD5, progress=progress)
        read = open_archive(source, cache_folder(), CLASS_NAMES, progress=progress)
    if settings.train_examples or settings.test_examples:
        read = _subset(read, str(source), settings, seed)
    class_names = CLASS_NAMES
    if settings.positive_label == 1:
        read, class_names = _with_other_labels(read), CLASS_NAMES[::-1]
    return make_corpus("imdb", class_names, read, source=str(source), progress=progress)


def is_imdb_folder(path: Path) -> bool:
    """Whether a folder is an unpacked archive, or holds one."""
    in_it = (path / split / name for split in PLACE for name in CLASS_FOLDERS)
    return (path / "aclImdb").is_dir() or any(folder.is_dir() for folder in in_it)


def _top_folder(path: Path) -> Path:
    return path / "aclImdb" if (path / "aclImdb").is_dir() else path


def _folder_reader(top: Path) -> Callable[[Split], Iterator[TextBatch]]:
    """Lists and sorts the reviews now; reads the files at every pass."""
    reviews: list[tuple[Review, str]] = []
    for split in PLACE:
        for name in CLASS_FOLDERS:
            folder = top / split / name
            if not folder.is_dir():
                raise CorpusError(f"{top}: {LAYOUT} is required, but there is no {split}/{name}")
            for file in folder.iterdir():
                review = parse_name(str(top), (split, name, file.name))
                if review is not None:
                    reviews.append((review, str(file)))
    reviews.sort()
    require_all_folders(str(top), {(review.split, review.label) for review, _ in reviews})

    def read(split: Split) -> Iterator[TextBatch]:
        chosen = [(review.label, file) for review, file in reviews if review.split == PLACE[split]]
        for start in range(0, len(chosen), BATCH_ROWS):
            part = chosen[start : start + BATCH_ROWS]
            yield TextBatch(text_array([_read_file(file) for _, file in part]),
                            np.array([label for label, _ in part], dtype=np.int8))  # fmt: skip

    return read


def _read_file(file: str) -> bytes:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise CorpusError(f"{file}: cannot be read: {error.strerror}") from None
    require_text(file, content)
    return content


def _with_other_labels(read: Callable[[Split], Iterator[TextBatch]]) -> Callable[[Split], Iterator[TextBatch]]:
    """The same reviews in the same order, with 0 and 1 in each other's place."""

    def read_other(split: Split) -> Iterator[TextBatch]:
        for batch in read(split):
            yield TextBatch(batch.texts, 1 - _labels(batch))

    return read_other


def _subset(
    read: Callable[[Split], Iterator[TextBatch]], source: str, settings: CorpusSettings, seed: int
) -> Callable[[Split], Iterator[TextBatch]]:
    """The same corpus with as many examples as the settings ask for."""
    labels = {split: np.concatenate([_labels(batch) for batch in read(split)]) for split in PLACE}
    places = np.repeat(np.arange(2, dtype=np.int8), [len(labels[split]) for split in PLACE])
    of_rows = np.concatenate(list(labels.values()))
    places = keep_examples(places, of_rows, settings, seed=seed)
    require_trainable(source, places, of_rows)
    kept = {"train": places[: len(labels["train"])] >= 0, "test": places[len(labels["train"]) :] >= 0}

    def read_kept(split: Split) -> Iterator[TextBatch]:
        start = 0
        for batch in read(split):
            chosen = kept[split][start : start + len(batch.texts)]
            start += len(batch.texts)
            if chosen.any():
                yield TextBatch(batch.texts.filter(pa.array(chosen)), _labels(batch)[chosen])

    return read_kept


def _labels(batch: TextBatch) -> np.ndarray:
    assert batch.labels is not None
    return batch.labels
