"""Any table of the user's as a corpus: columns by name, two label values, a split or a seeded one.

    read_table(open_table_file(Path("reviews.csv")), settings, seed=0) -> Corpus

Columns: the text is ``review``, ``text``, ``content`` or ``Joke``, the label ``sentiment`` or
``label``; where several are there, the first in this order is taken; settings name others. Without
a label column the corpus is unlabelled and, unless it says otherwise, all of it is ``train``.

Labels: any two values, as they stand. Label 0 is the smaller one: numbers, and text that is a finite
number, by value, all else by code point. So 0/1 keep their numbers, and neg/pos become 0/1. Names that
the settings give go by this order too, but a value that is one of them already keeps it.

Splits: the splits of a `datasets` folder, or a column ``split`` (settings name another, or none) with
``train`` or ``test`` in every row; else a seeded choice, see selection.py. A first pass checks every row
and keeps a byte or two of each; the texts are read from the file again whenever they are wanted.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minibert.corpora.corpus import SPLITS, Corpus, make_corpus
from minibert.corpora.selection import PLACE, keep_examples, place_rows, require_trainable, split_reader
from minibert.corpora.table_files import TableFile, is_utf_8, unique_columns
from minibert.errors import CorpusError
from minibert.settings import CorpusSettings

TEXT_COLUMNS = ("review", "text", "content", "Joke")
LABEL_COLUMNS = ("sentiment", "label")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?", re.ASCII)


def read_table(
    table: TableFile,
    settings: CorpusSettings,
    *,
    seed: int,
    name: str = "table",
    labelled: bool = True,
    blanks: bool = False,
    for_evaluation: bool = False,
    progress: Any = None,
) -> Corpus:
    """Reads and checks a table.

    Args:
        table: What `open_table_file` gives.
        settings: Column and class names, test rate, numbers of examples.
        seed: Root of the streams that choose the splits.
        name: The corpus' name.
        labelled: False: a label column is looked at only if the settings name one.
        blanks: Whether empty, blank and null texts are kept, as empty ones, or refused.
        for_evaluation: Without splits of its own the table is all test, and no train split is required.
        progress: Has ``start(description, total)`` and ``note(line)``; None: silent.

    Raises:
        CorpusError: The table is not what a corpus must be; the message names the row or column.
    """
    unique_columns(table.path, table.columns)
    text_column = _column(table, settings.text_column, TEXT_COLUMNS, "text")
    label_column = _column(table, settings.label_column, LABEL_COLUMNS if labelled else (), "label")
    assert text_column is not None
    if text_column == label_column:
        raise CorpusError(f"{table.path}: two columns are required, but {text_column!r} is both text and label")
    split_column = _split_column(table, settings, text_column, label_column)
    scan = _Scan(table, text_column, label_column, split_column, blanks=blanks)
    scan.run(progress)
    class_names, labels = (None, None) if label_column is None else scan.classes(settings, progress)
    source, places = str(table.path), scan.places()
    if places is None and labels is not None and not for_evaluation:
        where = f"{source}: column {label_column!r}"
        places = place_rows(labels, test_rate=settings.test_rate, seed=seed, source=where)
    elif places is None:
        places = np.full(scan.rows, PLACE["test" if for_evaluation else "train"], dtype=np.int8)
    places = keep_examples(places, labels, settings, seed=seed)
    if not for_evaluation:
        require_trainable(source, places, labels)
    elif not (places == PLACE["test"]).any():
        raise CorpusError(f"{source}: a test split with rows is required to evaluate, but all rows are train")
    found = make_corpus(name, class_names, split_reader(scan.texts, labels, places), source=source, progress=progress)
    read = (text_column, label_column, split_column)
    return dataclasses.replace(found, unread_columns=tuple(c for c in table.columns if c not in read))


def _column(table: TableFile, wanted: str, candidates: tuple[str, ...], what: str) -> str | None:
    """The column of that name, or the first candidate that is there."""
    there = ", ".join(map(repr, table.columns))
    if wanted:
        if wanted not in table.columns:
            raise CorpusError(f"{table.path}: {what} column {wanted!r} is required, but there are {there}")
        return wanted
    found = next((column for column in candidates if column in table.columns), None)
    if found is None and what == "text":
        required = ", ".join(candidates)
        semicolons = "; it seems to be separated by semicolons, where commas are required"
        raise CorpusError(f"{table.path}: a text column {required}, or the one that corpus.text_column names, is "
                          f"required, but there are {there}"
                          f"{semicolons if len(table.columns) == 1 and ';' in table.columns[0] else ''}")  # fmt: skip
    return found


def _split_column(table: TableFile, settings: CorpusSettings, *others: str | None) -> str | None:
    """The column that says each row's split, unless the container has splits or the settings want none.

    The default name may be missing, or be one of the ``others``; a column that the settings name must be there.
    """
    wanted = settings.split_column
    if table.split_rows is not None or not wanted:
        return None
    if wanted in table.columns and wanted not in others:
        return wanted
    if wanted == CorpusSettings.split_column:
        return None
    if wanted in others:
        raise CorpusError(f"{table.path}: three columns are required, but {wanted!r} is split and text or label")
    return _column(table, wanted, (), "split")  # which says what columns there are


class _Scan:
    """The pass that checks every row and remembers its label and split."""

    def __init__(
        self, table: TableFile, text_column: str, label_column: str | None, split_column: str | None, *, blanks: bool
    ) -> None:
        self.rows = 0
        self._table, self._text, self._label, self._split = table, text_column, label_column, split_column
        self._blanks = blanks
        self._columns = [c for c in (text_column, label_column, split_column) if c is not None]
        self._label_codes: dict[Any, int] = {}
        self._labels: list[np.ndarray] = []
        self._places: list[np.ndarray] = []

    def run(self, progress: Any) -> None:
        """Reads the table once."""
        task = progress.start(f"check {self._table.path.name}", None) if progress else None
        for batch in self._table.batches(self._columns):
            self._plain_text(batch.column(self._text), self.rows)
            if self._label is not None:
                self._labels.append(self._label_codes_of(batch.column(self._label)))
            if self._split is not None:
                self._places.append(self._places_of(batch.column(self._split)))
            self.rows += len(batch)
            if task:
                task.advance(len(batch))
        if task:
            task.finish()
        if not self.rows:
            raise CorpusError(f"{self._table.path}: a table with rows is required, but it has none")

    def texts(self) -> Iterator[pa.StringArray]:
        """All texts in order, read again."""
        start = 0
        for batch in self._table.batches([self._text]):
            yield self._plain_text(batch.column(self._text), start)
            start += len(batch)

    def classes(self, settings: CorpusSettings, progress: Any) -> tuple[tuple[str, str], np.ndarray]:
        """The classes' names and every row's label, 0 or 1, by the order of the two values.

        Which value has which name is shown, where the settings have given other names.

        The names of the settings go by that order too, but never against what the values are called: with the names
        positive and negative, a value ``negative`` is the smaller one and stays negative.
        """
        values = sorted(self._label_codes, key=_label_order)
        if len(values) != 2:
            raise CorpusError(f"{self._table.path}: two label values are required in column {self._label!r}, "
                              f"but {len(values)} came: {_listed(values)}")  # fmt: skip
        new_codes = np.zeros(2, dtype=np.int8)
        new_codes[[self._label_codes[value] for value in values]] = (0, 1)
        given = self._table.value_names(str(self._label))
        own = [given[v] if given and isinstance(v, int) and 0 <= v < len(given) else str(v) for v in values]
        names = settings.class_names or own
        if own[0] == names[1] or own[1] == names[0]:
            names = names[::-1]
        if progress and settings.class_names and list(names) != own:
            named = ", ".join(f"{value} is called {name}" for value, name in zip(own, names, strict=True))
            progress.note(f"column {self._label!r}: {named}")
        elif progress and settings.class_names and tuple(names) != tuple(settings.class_names):
            progress.note(f"column {self._label!r}: its values keep their names: 0 = {names[0]}, 1 = {names[1]}")
        return (names[0], names[1]), new_codes[np.concatenate(self._labels)]

    def places(self) -> np.ndarray | None:
        """Every row's split, if the table says it."""
        if self._table.split_rows is not None:
            counts = [self._table.split_rows[split] for split in SPLITS]
            return np.repeat(np.arange(2, dtype=np.int8), counts)
        return np.concatenate(self._places) if self._split is not None else None

    def _plain_text(self, column: pa.Array, start: int) -> pa.StringArray:
        """The texts of the rows from ``start`` on, checked."""
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not (_is_text(kind) or pa.types.is_null(kind)):
            raise CorpusError(f"{self._table.path}: column {self._text!r}: text is required, but {kind} came")
        texts = column.cast(pa.string())
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            values = texts.cast(pa.binary()).to_pylist()
            row = next(row for row, value in enumerate(values, start + 1) if value is not None and not is_utf_8(value))
            raise CorpusError(f"{self._table.path}: row {row}: column {self._text!r}: UTF-8 is required") from None
        if self._blanks:
            return texts.fill_null("")
        self._refuse(pc.is_null(texts), self._text, "text is required, but null came", start)
        blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
        self._refuse(blank, self._text, "text is required, but an empty one came", start)
        return texts

    def _label_codes_of(self, column: pa.Array) -> np.ndarray:
        """The batch's labels as 0, 1 (or 2, refused later) in the order of first sight."""
        assert self._label is not None
        self._refuse(pc.is_null(column, nan_is_null=True), self._label, "a label is required, but null came")
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        kind = encoded.type.value_type
        if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise CorpusError(f"{self._table.path}: column {self._label!r}: text, numbers or booleans are required, "
                              f"but {kind} came")  # fmt: skip
        indices = encoded.indices.to_numpy(zero_copy_only=False)
        values = encoded.dictionary.to_pylist()
        codes = np.zeros(len(values), dtype=np.int8)
        for index in np.unique(indices):
            codes[index] = self._label_codes.setdefault(values[index], len(self._label_codes))
            if values[index] == "":
                empty = pa.array(indices == index)
                self._refuse(empty, self._label, "a label is required, but an empty one came")
            if len(self._label_codes) > 2:
                raise CorpusError(f"{self._table.path}: two label values are required in column {self._label!r}, "
                                  f"but there are more: {_listed(self._label_codes)}")  # fmt: skip
        return codes[indices]

    def _places_of(self, column: pa.Array) -> np.ndarray:
        assert self._split is not None
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not _is_text(kind):
            raise CorpusError(f"{self._table.path}: column {self._split!r}: train or test is required, but {kind} came")
        values = column.cast(pa.string()).to_pylist()
        for row, value in enumerate(values, self.rows + 1):
            if value not in PLACE:
                raise CorpusError(f"{self._table.path}: row {row}: column {self._split!r}: train or test is required, "
                                  f"but {_short(value)} came")  # fmt: skip
        return np.array([PLACE[value] for value in values], dtype=np.int8)

    def _refuse(self, faulty: pa.Array, column: str, message: str, start: int | None = None) -> None:
        """Names the first row at fault, if there is one; the batch begins at row ``start``."""
        place = pc.index(faulty, pa.scalar(True)).as_py()
        if place >= 0:
            row = (self.rows if start is None else start) + place + 1
            raise CorpusError(f"{self._table.path}: row {row}: column {column!r}: {message}")


def _is_text(kind: pa.DataType) -> bool:
    string_view = getattr(pa.types, "is_string_view", lambda kind: False)  # Arrow 16 and later
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or string_view(kind)


def _label_order(value: Any) -> tuple[int, Any, str]:
    """Numbers, and text that is a number, by value; all other text after them, by code point."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return (1, 0, value)
    return (0, Decimal(value), str(value))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _listed(values: Any) -> str:
    return ", ".join(map(_short, values))
