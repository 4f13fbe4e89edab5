"""Which reader a corpus has: by what ``--data`` is, else by the corpus' name.

open_corpus(CorpusSettings(), seed=0)                              the embedded corpus
open_corpus(settings, seed=0, data=Path("aclImdb_v1.tar.gz"))      the IMDb archive
open_corpus(settings, seed=0, data=Path("reviews.csv"))            a table
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.corpora.corpus import Corpus
from minibert.errors import CorpusError, SettingsError
from minibert.settings import CorpusSettings

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")


def open_corpus(
    settings: CorpusSettings,
    *,
    seed: int,
    data: Path | None = None,
    for_evaluation: bool = False,
    progress: Any = None,
) -> Corpus:
    """Opens a corpus, reads it once and checks every row.

    Args:
        settings: Which corpus, which columns, how many examples.
        seed: The run's seed, for the choices that are seeded.
        data: The user's data: an aclImdb folder (or the one that holds it) or ``.tar.gz``, a folder
            saved by `datasets`, or a table (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``; ``.gz`` of the
            text formats). It replaces the reader that `settings` names, with two exceptions: with
            ``amazon`` a saved folder that has Amazon Polarity's columns is selected as notebook 2 does,
            with ``jokes`` a table's labels are not looked at.
        for_evaluation: Only the test split is wanted; a table that names no splits is all test.
        progress: Has ``start(description, total)`` and ``note(line)``; None: silent.

    Raises:
        SettingsError: The corpus is ``table``, and there are no data.
        CorpusError: The data are missing, damaged, or not what a corpus must be.
        DownloadError: A corpus cannot be fetched.

    Determinism: The corpus is a function of the data, the settings and, where it chooses, the seed.
    """
    if data is not None:
        return _open_data(settings, Path(data), seed, for_evaluation, progress)
    if settings.name == "table":
        raise SettingsError("--data: a table is required for the corpus 'table', but none came")
    if settings.name == "embedded":
        from minibert.corpora.embedded import embedded_corpus

        return embedded_corpus(settings.train_examples, settings.test_examples, progress=progress)
    if settings.name == "imdb":
        from minibert.corpora.imdb import read_imdb

        return read_imdb(settings, seed=seed, progress=progress)
    if settings.name == "amazon":
        from minibert.corpora.amazon import read_amazon

        return read_amazon(settings, seed=seed, progress=progress)
    from minibert.corpora.jokes import read_jokes

    return read_jokes(settings, seed=seed, progress=progress)


def _open_data(settings: CorpusSettings, data: Path, seed: int, for_evaluation: bool, progress: Any) -> Corpus:
    if not data.exists():
        raise CorpusError(f"{data}: a file or folder is required, but there is none")
    from minibert.corpora.imdb import is_imdb_folder, read_imdb

    if is_imdb_folder(data) if data.is_dir() else data.name.lower().endswith(ARCHIVE_SUFFIXES):
        return read_imdb(settings, seed=seed, data=data, progress=progress)
    if settings.name == "amazon" and data.is_dir():
        from minibert.corpora.amazon import is_amazon_folder, read_amazon

        if is_amazon_folder(data):
            return read_amazon(settings, seed=seed, data=data, progress=progress)
    if settings.name == "jokes":
        from minibert.corpora.jokes import read_jokes

        return read_jokes(settings, seed=seed, data=data, progress=progress)
    from minibert.corpora.table import read_table
    from minibert.corpora.table_files import open_table_file

    return read_table(open_table_file(data), settings, seed=seed, for_evaluation=for_evaluation, progress=progress)
