"""Amazon Polarity with notebook 2's shuffle and selection, from the hub or a folder on disk.

    read_amazon(CorpusSettings(name="amazon"), seed=0).examples  ->  {"train": 40000, "test": 10000}

Labels are as given: 0 = negative, 1 = positive. The choice of examples is that of `datasets`' own
generator, so that it is the notebook's; the run's seed does not change it.

Source: notebook 2, cell "Load the data": ``load_dataset("amazon_polarity")``, ``shuffle(seed=42)``,
the first 40,000 of train and the first 10,000 of test, column ``content``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from minibert.corpora.corpus import SPLITS, Corpus
from minibert.corpora.hub import DatasetTable, load_hub_dataset, open_saved_dataset
from minibert.corpora.table import read_table
from minibert.errors import CorpusError
from minibert.settings import CorpusSettings

HUB_NAMES = ("fancyzhx/amazon_polarity", "amazon_polarity")
"""Where the dataset lives now, and the notebook's name, which a cache may know it by."""
TRAIN_EXAMPLES, TEST_EXAMPLES = 40_000, 10_000
"""The notebook's, of 3,600,000 and 400,000."""
_COLUMNS = frozenset({"label", "title", "content"})


def read_amazon(settings: CorpusSettings, *, seed: int, data: Path | None = None, progress: Any = None) -> Corpus:
    """Reads the reviews, shuffled and cut as the notebook does.

    Args:
        settings: ``shuffle_seed``, ``train_examples`` and ``test_examples`` (None: the notebook's; 0: all, shuffled).
        seed: Not used for the choice.
        data: A folder saved by `datasets` with both splits; None: the hub.
        progress: Has ``start(description, total)``; None: silent.

    Raises:
        CorpusError: A split or a column is missing.
        DownloadError: The hub cannot be reached.
    """
    if data is None:
        path, dataset = Path(HUB_NAMES[0]), load_hub_dataset(*HUB_NAMES, progress=progress)
    else:
        path, dataset = data, open_saved_dataset(data).dataset
    for split in SPLITS:
        if not isinstance(dataset, dict) or split not in dataset:
            raise CorpusError(f"{path}: the splits train and test are required, but there is no {split}")
    counts = {
        "train": TRAIN_EXAMPLES if settings.train_examples is None else settings.train_examples,
        "test": TEST_EXAMPLES if settings.test_examples is None else settings.test_examples,
    }
    chosen = {split: _choose(dataset[split], counts[split], settings.shuffle_seed) for split in SPLITS}
    columns = replace(
        settings,
        text_column=settings.text_column or "content",
        label_column=settings.label_column or "label",
        train_examples=None,
        test_examples=None,
    )
    return read_table(DatasetTable(chosen, path), columns, seed=seed, name="amazon", blanks=True, progress=progress)


def is_amazon_folder(path: Path) -> bool:
    """Whether a folder saved by `datasets` has Amazon Polarity's splits and columns."""
    dataset = open_saved_dataset(path).dataset
    return isinstance(dataset, dict) and all(
        split in dataset and set(dataset[split].column_names) == _COLUMNS for split in SPLITS
    )


def _choose(part: Any, count: int, shuffle_seed: int) -> Any:
    shuffled = part.shuffle(seed=shuffle_seed)
    return shuffled.select(range(min(count, len(part)))) if count else shuffled
