"""The word ``[mask]`` in a raw sentence: counted, filled in, and looked around.

``[MASK]`` is the same word: texts are lower-cased before they are encoded. No library is needed here, so a
sentence without it is refused before anything is loaded.
"""

from __future__ import annotations

import re

from minibert.errors import SettingsError

MASK = "[mask]"
_IN_ANY_CASE = re.compile(re.escape(MASK), re.IGNORECASE | re.ASCII)


def sentence_names(count: int) -> list[str]:
    """What messages call so many sentences that have no better names: each by its number."""
    return [f"sentences, number {number}" for number in range(1, count + 1)]


def require_one_mask(argument: str, sentence: str) -> None:
    """Refuses a sentence without ``[mask]``, or with several.

    Args:
        argument: The name of what holds the sentence, for the message.
        sentence: Raw text.

    Raises:
        SettingsError: There is not exactly one.
    """
    count = len(_IN_ANY_CASE.findall(sentence))
    if count != 1:
        raise SettingsError(f"{argument}: exactly one [mask] is required, but {count} came in {sentence!r}")


def shown_token(token: str) -> str:
    """A predicted token for a person: the empty one, which pads short texts, is named."""
    return token or "(padding)"


def fill_in(sentence: str, word: str) -> str:
    """The sentence with a word in place of ``[mask]``."""
    return _IN_ANY_CASE.sub(lambda _: word, sentence)


def around_mask(sentence: str) -> tuple[str, str]:
    """What stands before ``[mask]`` and what stands behind it; all of a sentence without it stands before."""
    before, *behind = _IN_ANY_CASE.split(sentence, maxsplit=1)
    return before, "".join(behind)
