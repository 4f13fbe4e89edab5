"""Short Jokes: 231,657 jokes without labels, from the published CSV or from the hub.

    read_jokes(CorpusSettings(name="jokes"), seed=0, data=Path("shortjokes.csv"))

The CSV has the columns ID and Joke; any table with a text column does. All of it is ``train``
unless it has a ``split`` column. Blank jokes are kept, as empty texts: a published corpus is taken
as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.corpora.corpus import Corpus
from minibert.corpora.hub import DatasetTable, load_hub_dataset
from minibert.corpora.table import read_table
from minibert.corpora.table_files import TableFile, open_table_file
from minibert.settings import CorpusSettings

HUB_NAME = "ysharma/short_jokes"
"""The published ``shortjokes.csv``, as it is on the hub."""


def read_jokes(settings: CorpusSettings, *, seed: int, data: Path | None = None, progress: Any = None) -> Corpus:
    """Reads the jokes.

    Args:
        settings: Column names and ``train_examples``; a label is read only if ``label_column`` names one.
        seed: Root of the stream that chooses ``train_examples``.
        data: The CSV or another table; None: the hub.
        progress: Has ``start(description, total)``; None: silent.

    Raises:
        CorpusError: The table is not what a corpus must be.
        DownloadError: The hub cannot be reached.
    """
    if data is None:
        table: TableFile = DatasetTable(load_hub_dataset(HUB_NAME, progress=progress), Path(HUB_NAME))
    else:
        table = open_table_file(data)
    return read_table(table, settings, seed=seed, name="jokes", labelled=False, blanks=True, progress=progress)
