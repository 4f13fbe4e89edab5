"""The `datasets` library: corpora from the Hugging Face hub, and folders that it saved on disk.

It is imported here only, and only when it is needed: the import takes a second, and not everybody
has it.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from minibert.corpora.corpus import BATCH_ROWS, SPLITS
from minibert.corpora.table_files import TableFile
from minibert.errors import CorpusError, DownloadError

_MARKS = ("dataset_dict.json", "state.json")


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by `datasets`' ``save_to_disk``."""
    return any((path / mark).is_file() for mark in _MARKS)


def open_saved_dataset(path: Path) -> DatasetTable:
    """Opens a folder written by ``save_to_disk``: one table, or one for each split.

    Raises:
        CorpusError: It is no such folder, or damaged.
    """
    if not is_saved_dataset(path):
        raise CorpusError(f"{path}: a folder with aclImdb/ or one saved by datasets is required, but neither came")
    datasets = _import_datasets(CorpusError, str(path))
    try:
        with _without_bars():  # it is done in a moment
            return DatasetTable(datasets.load_from_disk(str(path)), path)
    except CorpusError:
        raise
    except Exception as error:  # noqa: BLE001 -- a damaged folder shows in any of its readers
        raise CorpusError(f"{path}: datasets cannot read this folder: {_first_line(error)}") from None


def load_hub_dataset(*names: str, progress: Any = None) -> Any:
    """Loads a dataset from the hub, or from the cache of `datasets`, under the first name that works.

    Args:
        *names: What it is and was called.
        progress: Where it is None or quiet, `datasets` and its hub client show no bars of their own either.

    Returns:
        A ``datasets.DatasetDict``.

    Raises:
        DownloadError: None of the names can be loaded; the message says how to do without.
    """
    datasets = _import_datasets(DownloadError, names[0])
    is_quiet = progress is None or getattr(progress, "quiet", False)
    reason = ""
    for name in names:
        if Path(name).exists():  # datasets would take it for the dataset
            reason = reason or f"{name} in the working directory would be taken for it"
            continue
        try:
            with _without_bars() if is_quiet else contextlib.nullcontext():
                return datasets.load_dataset(name)
        except Exception as error:  # noqa: BLE001 -- hub, HTTP and cache errors have no other common class
            reason = _first_line(error)
            if isinstance(error, ConnectionError) and not getattr(datasets.config, "HF_HUB_OFFLINE", False):
                break  # Asking an unreachable hub for the other name takes half a minute more.
    raise DownloadError(f"{names[0]}: cannot be fetched from the hub ({reason}); give a local copy with --data")


class DatasetTable(TableFile):
    """A ``datasets.Dataset`` or ``DatasetDict`` as a table.

    Of a dictionary the splits ``train`` and ``test`` are read and no others (``unsupervised``, for
    example); with one of the two it counts as a table without splits.

    Args:
        dataset: The object; it stays readable as `dataset`.
        path: Named in errors: the folder, or the name on the hub.
    """

    def __init__(self, dataset: Any, path: Path) -> None:
        self.path, self.dataset = path, dataset
        parts: dict[str, Any] = {"": dataset}
        if isinstance(dataset, dict):
            parts = {split: dataset[split] for split in SPLITS if split in dataset}
            if not parts:
                raise CorpusError(f"{path}: a train or test split is required, but there are {', '.join(dataset)}")
            if len(parts) == 2:
                self.split_rows = {split: len(dataset[split]) for split in SPLITS}
        self._parts = list(parts.values())
        self.columns = tuple(self._parts[0].column_names)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of ``train``, then those of ``test``."""
        for part in self._parts:
            for column in columns:
                if column not in part.column_names:
                    raise CorpusError(f"{self.path}: column {column!r} is required in both splits")
            rows = part.select_columns(list(columns)).with_format("arrow")
            for table in rows.iter(batch_size=BATCH_ROWS):
                yield from table.combine_chunks().to_batches()

    def value_names(self, column: str) -> tuple[str, ...] | None:
        """The names of a ``ClassLabel`` column."""
        names = getattr(self._parts[0].features[column], "names", None)
        return tuple(names) if names else None


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps `datasets` and its hub client from drawing bars; what was asked of them before holds again afterwards."""
    libraries = map(importlib.import_module, ("datasets.utils", "huggingface_hub.utils"))
    drawing = [library for library in libraries if not library.are_progress_bars_disabled()]
    for library in drawing:
        library.disable_progress_bars()
    try:
        yield
    finally:
        for library in drawing:
            library.enable_progress_bars()


def _import_datasets(error: Callable[[str], CorpusError], what: str) -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError:
        raise error(
            f"{what}: the package datasets is required, but it is not installed (pip install datasets)"
        ) from None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
