"""Tables on disk as streams of Arrow batches: CSV, TSV, JSON lines, Parquet, and `datasets` folders.

    open_table_file(Path("reviews.csv")).columns          -> ("review", "sentiment")
    ....batches(("review",)) -> <2048 rows>, <2048 rows>, ...

A file is read from its beginning at every pass and never held. CSV and JSON lines are read by
Python's own parsers: they say in which row an error is, and give every value as it is written, on
every version of everything; nothing guesses that ``NA`` is missing or ``123`` a number. Row numbers
in errors count data rows from 1, without the header and without blank lines.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from minibert.corpora.corpus import BATCH_ROWS, Split
from minibert.errors import CorpusError

LONGEST_FIELD_BYTES = 16 * 2**20
"""A longer field is a quote that is never closed, or no review."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
COMPRESSIBLE = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")


class TableFile:
    """A table that can be read again and again.

    Attributes:
        path: Where it is; named in every error.
        columns: The names of its columns.
        split_rows: Rows of each split, if the container itself has splits; the rows of ``train``
            come first then.
    """

    path: Path
    columns: tuple[str, ...]
    split_rows: dict[Split, int] | None = None

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in order, with these columns only."""
        raise NotImplementedError

    def value_names(self, column: str) -> tuple[str, ...] | None:
        """Names of the integer values of a column, if the file has them."""
        return None


def open_table_file(path: Path) -> TableFile:
    """Opens a table by its suffix, or a folder saved by `datasets`.

    Raises:
        CorpusError: Not there, empty, not UTF-8, malformed, or of a suffix that is not read.
    """
    if path.is_dir():
        from minibert.corpora.hub import open_saved_dataset

        return open_saved_dataset(path)
    if not path.exists():
        raise CorpusError(f"{path}: a file or folder is required, but there is none")
    if not path.stat().st_size:
        raise CorpusError(f"{path}: a table with rows is required, but the file is empty")
    suffix = table_suffix(path)
    if suffix in (".csv", ".tsv"):
        return DelimitedFile(path, delimiter="," if suffix == ".csv" else "\t")
    return ParquetFile(path) if suffix == ".parquet" else JsonLinesFile(path)


def table_suffix(path: Path) -> str:
    """The format's suffix, without ``.gz``.

    Raises:
        CorpusError: It is none of `SUFFIXES`.
    """
    name = path.name.lower()
    plain = name.removesuffix(".gz")
    suffix = Path(plain).suffix
    if suffix not in (COMPRESSIBLE if plain != name else SUFFIXES):
        required = f"{', '.join(SUFFIXES)} (all but .parquet also as .gz)"
        raise CorpusError(f"{path}: {required}, .tar.gz or a folder is required, but {path.suffix or 'no suffix'} came")
    return suffix


class _OneFile(TableFile):
    """A file that must stay as it is from the first pass to the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = self._stat()

    def _stat(self) -> tuple[int, int]:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read: {error.strerror}") from None
        return stat.st_size, stat.st_mtime_ns

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turns what a parser raises into one line that names the file."""
        if self._stat() != self._identity:
            raise CorpusError(f"{self.path}: the file must not change while it is used, but it has changed")
        try:
            yield
        except UnicodeDecodeError:
            raise CorpusError(f"{self.path}: line {self._first_bad_line()}: UTF-8 is required") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CorpusError(f"{self.path}: the compressed file is truncated or damaged ({error})") from None
        except pa.ArrowException as error:
            raise CorpusError(f"{self.path}: cannot be read: {str(error).splitlines()[0][:200]}") from None
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read: {error.strerror or error}") from None

    def _open_text(self) -> IO[str]:
        with self.path.open("rb") as file:
            start = file.read(4)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise CorpusError(f"{self.path}: UTF-8 is required, but UTF-16 came")
        return self._opener(self.path, "rt", encoding="utf-8-sig", newline="")

    @property
    def _opener(self) -> Any:
        return gzip.open if self.path.name.lower().endswith(".gz") else open

    def _first_bad_line(self) -> int:
        """The first line, counted from 1, that is not UTF-8: a text that is read by blocks does not say which."""
        with self._opener(self.path, "rb") as file:
            return next(number for number, line in enumerate(file, 1) if not is_utf_8(line))


class DelimitedFile(_OneFile):
    """CSV or TSV with a header; every value is text, exactly as it is written.

    In CSV a field may stand in quotes: a quote is doubled there, and commas and line ends are allowed. TSV has no
    quoting: a quote is a character like any other, and no field holds a tab or a line end.
    """

    def __init__(self, path: Path, *, delimiter: str) -> None:
        super().__init__(path)
        self._delimiter = delimiter
        self.columns = tuple(next(self._rows()))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in order; every column is a string array."""
        places = [self.columns.index(column) for column in columns]
        rows = itertools.islice(self._rows(), 1, None)
        while part := list(itertools.islice(rows, BATCH_ROWS)):
            arrays = [pa.array([row[place] for row in part], pa.string()) for place in places]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def _rows(self) -> Iterator[list[str]]:
        """The header and the rows, blank lines left out, each with as many fields as the header."""
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD_BYTES))  # the module's own is 128 KiB
        width, number = 0, -1
        with self._reading(), self._open_text() as file:
            reader = csv.reader(file, delimiter=self._delimiter, strict=True,
                                quoting=csv.QUOTE_NONE if self._delimiter == "\t" else csv.QUOTE_MINIMAL)  # fmt: skip
            try:
                for row in filter(None, reader):
                    width, number = width or len(row), number + 1
                    if len(row) != width:
                        raise CorpusError(
                            f"{self.path}: row {number} (line {reader.line_num}): {width} fields are required, "
                            f"as in the header, but {len(row)} came"
                        )
                    yield row
            except csv.Error as error:
                raise CorpusError(
                    f"{self.path}: row {number + 1} (line {reader.line_num}): malformed: {error}"
                ) from None
        if not width:
            raise CorpusError(f"{self.path}: a header is required, but there are blank lines only")


_JSON_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


class JsonLinesFile(_OneFile):
    """One JSON object a line; the columns are the keys of all of them, a missing key is a null.

    The values of a column that is used are of one type: text, integers, numbers or booleans.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        names: dict[str, None] = {}
        for record in self._records():
            if not names.keys() >= record.keys():
                names.update(dict.fromkeys(record))
        if not names:
            raise CorpusError(f"{path}: a table with rows is required, but it has none")
        self.columns = tuple(names)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in order; a column's type is that of its first value."""
        types: dict[str, type] = {}
        records, start = self._records(), 0
        while part := list(itertools.islice(records, BATCH_ROWS)):
            arrays = [self._array(column, [r.get(column) for r in part], start, types) for column in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
            start += len(part)

    def _array(self, column: str, values: list[Any], start: int, types: dict[str, type]) -> pa.Array:
        for row, value in enumerate(values, start + 1):
            kind = type(value)
            if value is not None and types.setdefault(column, kind) is not kind:
                raise self._error(row, f"column {column!r}: {_json_type(types[column])} as before is required, "
                                       f"but {_json_type(kind)} came")  # fmt: skip
        kind = types.get(column, str)
        if kind not in _JSON_TYPES:
            raise self._error(
                start + 1, f"column {column!r}: text or a number is required, but {_json_type(kind)} came"
            )
        try:
            return pa.array(values, _JSON_TYPES[kind])
        except (UnicodeEncodeError, OverflowError, pa.ArrowInvalid):
            row = next(row for row, value in enumerate(values, start + 1) if not _fits(value))
            raise self._error(row, f"column {column!r}: Unicode text or a 64-bit number is required") from None

    def _records(self) -> Iterator[dict[str, Any]]:
        row = 0
        with self._reading(), self._open_text() as file:
            for line in filter(str.strip, file):
                row += 1
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    reason = getattr(error, "msg", error)  # without a place: it would be the line's, not the file's
                    raise self._error(row, f"one JSON object a line is required ({reason})") from None
                if not isinstance(record, dict):
                    raise self._error(row, f"one JSON object a line is required, but {_json_type(type(record))} came")
                yield record

    def _error(self, row: int, message: str) -> CorpusError:
        return CorpusError(f"{self.path}: row {row}: {message}")


class ParquetFile(_OneFile):
    """A Parquet file, read by row groups."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        import pyarrow.parquet as pq

        with self._reading(), pq.ParquetFile(path) as file:
            self.columns = tuple(file.schema_arrow.names)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in order, with the file's types."""
        import pyarrow.parquet as pq

        with self._reading(), pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns), use_threads=False)


def is_utf_8(value: bytes) -> bool:
    """Whether bytes are text in UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fits(value: object) -> bool:
    """Whether Arrow has room for a JSON value: no lone surrogate, no more than 64 bits."""
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _json_type(kind: type) -> str:
    names: dict[type, str] = {str: "text", int: "an integer", float: "a number", bool: "a boolean",
                              list: "a list", dict: "an object", type(None): "null"}  # fmt: skip
    return names[kind]


def unique_columns(path: Path, columns: Iterable[str]) -> None:
    """Refuses a table in which a name stands for two columns.

    Raises:
        CorpusError: A name comes twice.
    """
    seen: set[str] = set()
    for column in columns:
        if column in seen:
            raise CorpusError(f"{path}: different column names are required, but {column!r} comes twice")
        seen.add(column)
