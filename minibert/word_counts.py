"""How often each word stands in a corpus, in bounded memory however many words there are.

    counts = WordCounts(); counts.add({"film": 3, "a": 9}); counts.most_common(1) -> [("a", 9)]

Beyond so many words the counts are written to a temporary file, sorted, and are merged when they are asked for: the
answer is that of one dictionary.
"""

from __future__ import annotations

import heapq
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO

MOST_HELD = 1_000_000
"""Words in memory at a time: some 250 MB of them."""


class WordCounts:
    """Counts of words without spaces or line ends; a context manager, which removes its temporary files.

    Args:
        most_held: Words in memory at a time, about.
    """

    def __init__(self, *, most_held: int = MOST_HELD) -> None:
        self._most_held = most_held
        self._held: dict[str, int] = {}
        self._files: list[IO[str]] = []

    def add(self, counts: Mapping[str, int]) -> None:
        """Adds to what was counted so far."""
        held = self._held
        for word, count in counts.items():
            held[word] = held.get(word, 0) + count
        if len(held) > self._most_held:
            self._write_down()

    def most_common(self, number: int) -> list[tuple[str, int]]:
        """The most frequent words by falling count; of equal counts the word of the greater code points first."""
        return heapq.nlargest(number, self._totals(), key=lambda item: (item[1], item[0]))

    def __enter__(self) -> WordCounts:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()

    def _write_down(self) -> None:
        file = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", prefix="minibert-words-")  # noqa: SIM115
        self._files.append(file)
        file.writelines(f"{word} {count}\n" for word, count in sorted(self._held.items()))
        self._held = {}

    def _totals(self) -> Iterator[tuple[str, int]]:
        if not self._files:
            return iter(self._held.items())
        parts = [*(_read(file) for file in self._files), iter(sorted(self._held.items()))]
        by_word = itertools.groupby(heapq.merge(*parts), key=lambda item: item[0])
        return ((word, sum(count for _, count in group)) for word, group in by_word)


def _read(file: IO[str]) -> Iterator[tuple[str, int]]:
    file.seek(0)
    for line in file:
        word, _, count = line.rpartition(" ")
        yield word, int(count)
