"""Counting words in bounded memory gives what one dictionary would."""

from __future__ import annotations

import collections
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.word_counts import WordCounts

WORDS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters=" \t\n\r\x0b\x0c"), min_size=1)
PARTS = st.lists(st.dictionaries(WORDS | st.sampled_from("abcdef"), st.integers(1, 9)), max_size=8)


@given(parts=PARTS, most_held=st.integers(0, 5), number=st.integers(0, 6))
def test_counts_do_not_depend_on_how_many_are_held(parts: list[dict[str, int]], most_held: int, number: int) -> None:
    known: collections.Counter[str] = collections.Counter()
    with WordCounts(most_held=most_held) as counts:
        for part in parts:
            known.update(part)
            counts.add(part)
        ranked = sorted(known.items(), key=lambda item: (item[1], item[0]), reverse=True)
        assert counts.most_common(number) == ranked[:number]
        assert counts.most_common(1_000) == ranked


def test_no_more_than_asked_for_are_held_and_files_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, open_file = [], tempfile.TemporaryFile
    monkeypatch.setattr(
        tempfile, "TemporaryFile", lambda *given, **named: opened.append(open_file(*given, **named)) or opened[-1]
    )
    with WordCounts(most_held=100) as counts:
        for start in range(0, 1_000, 50):
            counts.add({f"word{number}": 1 for number in range(start, start + 50)})
            assert len(counts._held) <= 100
        assert len(counts.most_common(2_000)) == 1_000
    assert len(opened) == 6
    assert all(file.closed for file in opened)
