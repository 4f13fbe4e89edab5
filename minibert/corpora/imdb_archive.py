"""The archive of the Large Movie Review Dataset, read as a stream and never unpacked.

    open_archive(Path("aclImdb_v1.tar.gz"), cache_folder(), class_names) -> a corpus' reader

The members come in the archive's own order, so the first reading writes the sorted reviews to an
Arrow file in the cache folder, named by the SHA-256 of the archive and the digest of its content;
afterwards that file is mapped into memory, and memory use stays bounded whatever the archive's
size. A cached file whose content does not have the digest in its name is made anew.

Nothing of an archive reaches the file system under a name of its own; one with a member that would
lie outside the folder, a link, a device or a file with holes is refused all the same, since somebody
made it so, and so is one that unpacks to far more than texts do.
"""

from __future__ import annotations

import contextlib
import gzip
import mmap
import os
import tarfile
import tempfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from minibert.artifacts import locked
from minibert.corpora.corpus import BATCH_ROWS, Split, TextBatch, content_digest, text_array
from minibert.corpora.download import file_digest
from minibert.corpora.imdb_layout import (
    LAYOUT,
    LONGEST_REVIEW_BYTES,
    Review,
    parse_name,
    require_all_folders,
    require_text,
)
from minibert.errors import CorpusError

LONGEST_HEADER_BYTES = 2**16
"""Longer headers of a member are no file's name or time; tarfile would read them into memory whole."""
HIGHEST_RATIO = 100
"""Bytes that one byte of an archive may unpack to: texts have about 4, what is made to fill a disk up to 1,000."""

_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int8())])
_PART = ".part"
_PROGRESS_REVIEWS = 500
_Reader = Callable[[Split], Iterator[TextBatch]]


def open_archive(path: Path, cache: Path, class_names: tuple[str, str], *, progress: Any = None) -> _Reader:
    """Gives the reader of an archive's reviews, in the corpus' order.

    Args:
        path: A gzip-compressed tar archive of the layout.
        cache: Where its sorted reviews are kept; made if missing.
        class_names: Part of the digest that guards the cached file.
        progress: Has ``start(description, total)``; None: silent.

    Raises:
        CorpusError: The archive is missing, damaged or not of the layout, or the cache folder cannot
            be written; the message names the one that it is.
    """
    try:
        key = f"imdb-{file_digest(path, 'sha256')[:32]}"
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache, wait=True) as is_alone:  # one process at a time reads an archive; the next finds it cached
            if is_alone:
                _remove_parts(cache)
            for cached in sorted(cache.glob(f"{key}-*.arrow")):
                reader = _checked_reader(cached, class_names)
                if reader is not None:
                    return reader
                cached.unlink(missing_ok=True)
            return _sort_into(cache, key, path, class_names, progress)
    except OSError as error:
        raise CorpusError(f"{cache}: cannot be written: {error.strerror or error}; MINIBERT_CACHE names "
                          "another folder") from None  # fmt: skip


def _remove_parts(cache: Path) -> None:
    """Removes what killed processes left, where this one may: a folder that is read-only can still be read."""
    for part in cache.glob(f"imdb-*{_PART}"):
        with contextlib.suppress(OSError):
            part.unlink()


def _checked_reader(cached: Path, class_names: tuple[str, str]) -> _Reader | None:
    """The cached file's reader, or None if its content is not what its name says."""
    try:
        reader = _arrow_reader(cached)
        digest, _ = content_digest(reader, class_names)
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None
    return reader if cached.stem.rpartition("-")[2] == digest else None


def _arrow_reader(cached: Path) -> _Reader:
    file = pa.ipc.open_file(pa.memory_map(str(cached)))
    train = int(file.schema.metadata[b"train_batches"])
    ranges = {"train": range(train), "test": range(train, file.num_record_batches)}

    def read(split: Split) -> Iterator[TextBatch]:
        for number in ranges[split]:
            batch = file.get_batch(number)
            yield TextBatch(batch.column(0), batch.column(1).to_numpy())

    return read


def _sort_into(cache: Path, key: str, path: Path, class_names: tuple[str, str], progress: Any) -> _Reader:
    """Reads the archive and leaves its sorted reviews in the cache folder."""
    handle, name = tempfile.mkstemp(prefix=f"{key}.", suffix=_PART, dir=cache)
    os.close(handle)
    part = Path(name)
    try:
        with tempfile.TemporaryFile(dir=cache) as spool:
            places = _spool(path, spool, progress)
            with mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ) as texts:
                _write_sorted(part, places, texts)
        digest, _ = content_digest(_arrow_reader(part), class_names)
        target = cache / f"{key}-{digest}.arrow"
        part.replace(target)
        return _arrow_reader(target)
    finally:
        part.unlink(missing_ok=True)


def _spool(path: Path, spool: Any, progress: Any) -> np.ndarray:
    """Copies all reviews, as they come, one behind the other.

    Returns:
        int64, (reviews, 6), sorted: split, label, number, rating, first byte, byte after the last.
    """
    places, end = array("q"), 0
    task = progress.start(f"read {path.name} (reviews)", None) if progress else None
    for review, content in _reviews(path):
        spool.write(content)
        places.extend((*review, end, end + len(content)))
        end += len(content)
        if task and len(places) % (6 * _PROGRESS_REVIEWS) == 0:
            task.advance(_PROGRESS_REVIEWS)
    if task:
        task.finish()
    spool.flush()
    table = np.frombuffer(places, dtype=np.int64).reshape(-1, 6) if places else np.zeros((0, 6), dtype=np.int64)
    require_all_folders(str(path), {(int(s), int(k)) for s, k in np.unique(table[:, :2], axis=0)})
    table = table[np.lexsort(table[:, 3::-1].T)]
    twice = np.flatnonzero((table[1:, :4] == table[:-1, :4]).all(axis=1))
    if len(twice):
        raise CorpusError(
            f"{path}: each review once is required, but {tuple(table[twice[0], 2:4].tolist())} comes twice"
        )
    return table


def _write_sorted(target: Path, places: np.ndarray, texts: mmap.mmap) -> None:
    """Writes the reviews in order, no batch across the two splits."""
    train = int((places[:, 0] == 0).sum())
    parts = [(start, min(start + BATCH_ROWS, end)) for first, end in ((0, train), (train, len(places)))
             for start in range(first, end, BATCH_ROWS)]  # fmt: skip
    train_batches = -(-train // BATCH_ROWS)
    schema = _SCHEMA.with_metadata({"train_batches": str(train_batches)})
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start, end in parts:
            rows = places[start:end]
            column = text_array([texts[first:last] for first, last in rows[:, 4:].tolist()])
            labels = pa.array(rows[:, 1].astype(np.int8))
            writer.write_batch(pa.RecordBatch.from_arrays([column, labels], schema=schema))


def _reviews(path: Path) -> Iterator[tuple[Review, bytes]]:
    """The labelled reviews in the archive's order; reads to the very end, where gzip's CRC is."""
    try:
        most = LONGEST_REVIEW_BYTES + HIGHEST_RATIO * path.stat().st_size
        with gzip.open(path) as stream:
            rationed = _Rationed(stream)
            source: Any = rationed  # reading is all that tarfile does with it
            with tarfile.open(fileobj=source, mode="r|", tarinfo=_StrictHeader) as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all headers
                    parts = _checked_parts(path, member)
                    if rationed.position + member.size > most:  # before it is read: tarfile would look for any end
                        raise CorpusError(f"{path}: members of {most} bytes or less in all are required, but more came")
                    _require_short(archive.pax_headers)
                    rationed.ration_until(archive.offset)
                    review = parse_name(str(path), parts[1:] if parts[:1] == ("aclImdb",) else parts)
                    if review is None or member.isdir():
                        continue
                    yield review, _content(path, archive, member)
            while stream.read(2**20):
                pass
    except CorpusError:
        raise
    except _DAMAGED as error:
        raise CorpusError(f"{path}: a whole gzip-compressed tar archive is required, but this one is truncated or "
                          f"damaged ({error})") from None  # fmt: skip
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror or error}") from None


def _checked_parts(path: Path, member: tarfile.TarInfo) -> tuple[str, ...]:
    """A member's path in parts.

    Raises:
        CorpusError: It would lie outside the folder, or is neither a file nor a folder.
    """
    name = member.name
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or name[1:2] == ":":
        raise CorpusError(f"{path}: members inside the folder are required, but {name!r} came")
    if member.issparse():
        raise CorpusError(f"{path}: files without holes are required, but {name!r} is sparse")
    if not (member.isreg() or member.isdir()):
        raise CorpusError(f"{path}: files and folders are required, but {name!r} is a link or a device")
    if member.size < 0:
        raise CorpusError(f"{path}: sizes of 0 or more are required, but {name!r} has {member.size}")
    return parts


def _content(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > LONGEST_REVIEW_BYTES:
        raise CorpusError(f"{path}: reviews of {LONGEST_REVIEW_BYTES} bytes or less are required, but {member.name!r} "
                          f"has {member.size}")  # fmt: skip
    file = archive.extractfile(member)
    content = file.read() if file is not None else b""
    if len(content) != member.size:
        raise CorpusError(f"{path}: a whole archive ({LAYOUT}) is required, but {member.name!r} is cut off")
    require_text(f"{path}: {member.name}", content)
    return content


class _DamagedHeaderError(Exception):
    """A block that should be a member's header is none."""


_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, _DamagedHeaderError, ValueError, IndexError)
"""What damage shows itself as; the last two where tarfile trusts a number or a length that stands in a header."""


class _StrictHeader(tarfile.TarInfo):
    """A header that is damaged is an error: tarfile takes one behind the first for the archive's end, silently."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        """Reads a header; only a block of zeros ends an archive."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise _DamagedHeaderError(str(error)) from None


def _require_short(headers: Mapping[str, str]) -> None:
    """Refuses pax records for all members that are long in all: tarfile keeps them.

    Raises:
        _DamagedHeaderError: They are.
    """
    if sum(len(name) + len(value) for name, value in headers.items()) > LONGEST_HEADER_BYTES:
        raise _DamagedHeaderError(f"headers of {LONGEST_HEADER_BYTES} bytes or less are required, but more came")


class _Rationed:
    """What tarfile reads an archive from: so many bytes until the next member, and no more.

    tarfile reads what is no file but says something about the next one (a long name, pax records, the map of a file's
    holes) to its end, however long. Its own methods that see such a header first are others in each Python: those
    that came in 2026 no longer call ``TarInfo.frombuf``.

    Args:
        stream: The archive, no longer compressed.

    Attributes:
        position: Bytes that were read.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self.position = stream, 0
        self.ration_until(0)

    def ration_until(self, next_header: int) -> None:
        """Allows what lies before the next member's headers, and these.

        Args:
            next_header: Where tarfile will look for them. What it does not skip (a folder's content, which has none)
                is no part of it, whatever size the member says that it has.
        """
        self._end = max(next_header, self.position) + LONGEST_HEADER_BYTES + 2 * tarfile.RECORDSIZE  # it reads records

    def read(self, size: int) -> bytes:
        """Reads on.

        Raises:
            _DamagedHeaderError: That is more than is allowed.
        """
        content: bytes = self._stream.read(size)
        self.position += len(content)
        if self.position > self._end:
            raise _DamagedHeaderError(f"headers of {LONGEST_HEADER_BYTES} bytes or less are required, but more came")
        return content
