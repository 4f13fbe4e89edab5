"""``[mask]`` is found and filled in whatever its letters' size, and nothing else is."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minibert.errors import SettingsError
from minibert.mask_word import around_mask, fill_in, require_one_mask

plain = st.text(st.characters(exclude_characters="[]"))
words = st.text() | st.sampled_from([r"\1", r"\g<0>", "[mask]", "\\"])


@given(plain, st.sampled_from(["[mask]", "[MASK]", "[Mask]"]), plain, words)
@example("", "[mask]", "", r"\g<0>")
def test_a_word_stands_where_the_mask_stood(before: str, mask: str, after: str, word: str) -> None:
    require_one_mask("sentence", before + mask + after)
    assert fill_in(before + mask + after, word) == before + word + after
    assert around_mask(before + mask + after) == (before, after)


def test_without_a_mask_everything_stands_before_it() -> None:
    assert around_mask("a film") == ("a film", "")


@pytest.mark.parametrize(
    ("sentence", "count"),
    [("", 0), ("a film", 0), ("[ mask ]", 0), ("[mas\N{KELVIN SIGN}]", 0), ("[mask][MASK]", 2), ("[mask] " * 3, 3)],
)
def test_one_mask_is_required(sentence: str, count: int) -> None:
    message = f"text: exactly one [mask] is required, but {count} came in {sentence!r}"
    with pytest.raises(SettingsError, match=re.escape(message)):
        require_one_mask("text", sentence)
