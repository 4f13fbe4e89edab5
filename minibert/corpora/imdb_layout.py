"""The names in the Large Movie Review Dataset: which file is which review.

parse_name("aclImdb_v1.tar.gz", ("train", "pos", "12_9.txt")) -> Review(0, 0, 12, 9)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from minibert.corpora.selection import PLACE
from minibert.errors import CorpusError

LAYOUT = "aclImdb/{train,test}/{pos,neg}/<number>_<rating>.txt"
CLASS_FOLDERS = {"pos": 0, "neg": 1}
"""Folder names and the notebook's labels, in which the reviews are sorted; `corpus.positive_label` comes after."""
LONGEST_REVIEW_BYTES = 16 * 2**20
"""A longer file is no review; the longest published one has 14 kB."""

_FILE_NAME = re.compile(r"(\d{1,9})_(\d{1,9})\.txt", re.ASCII)


class Review(NamedTuple):
    """A review's identity; tuples sort in the corpus' order."""

    split: int
    label: int
    number: int
    rating: int


def parse_name(source: str, parts: Sequence[str]) -> Review | None:
    """Reads a path below ``aclImdb``: split, class, file name.

    Returns:
        None for what is not a labelled review: ``unsup``, lists, hidden files.

    Raises:
        CorpusError: A file in one of the four folders is not named as a review.
    """
    if len(parts) != 3 or parts[0] not in PLACE or parts[1] not in CLASS_FOLDERS or parts[2].startswith("."):
        return None
    match = _FILE_NAME.fullmatch(parts[2])
    if match is None:
        raise CorpusError(f"{source}: {LAYOUT} is required, but {'/'.join(parts)!r} came")
    return Review(PLACE[parts[0]], CLASS_FOLDERS[parts[1]], int(match[1]), int(match[2]))


def require_text(source: str, content: bytes) -> None:
    """Refuses a review that is not text.

    Raises:
        CorpusError: Empty or blank, or not UTF-8.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{source}: UTF-8 is required, but {error.reason} came at byte {error.start}") from None
    if not text or text.isspace():
        raise CorpusError(f"{source}: a review with text is required, but an empty one came")


def require_all_folders(source: str, found: Collection[tuple[int, int]]) -> None:
    """Refuses a corpus without reviews in one of the four folders.

    Raises:
        CorpusError: It names the first empty folder.
    """
    for split, place in PLACE.items():
        for name, label in CLASS_FOLDERS.items():
            if (place, label) not in found:
                raise CorpusError(f"{source}: {LAYOUT} is required, but there is no review in {split}/{name}")
