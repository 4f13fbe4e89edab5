"""Shared hypothesis strategies."""

from __future__ import annotations

import numpy as np
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minibert.settings import MaskingSettings


def times(factor: int) -> hypothesis_settings:
    """So many times the examples that the loaded profile asks for: cheap properties with much to get wrong."""
    return hypothesis_settings(max_examples=factor * hypothesis_settings().max_examples)


seeds = st.integers(0, 2**63 - 1)
"""Root seeds that a run accepts."""

epochs = st.integers(0, 100)
"""Passes over a corpus."""

example_ids = st.integers(0, 50) | st.integers(0, 2**63 - 1)
"""Identities of examples: near ones, and any that an int64 holds."""

rates = st.sampled_from([0.0, 0.15, 1.0 / 9.0, 0.5, 0.9, 1.0]) | st.floats(0.0, 1.0)
"""Rates with their ends, and the published ones."""

words = st.sampled_from([0, 1, 2**40 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
"""64-bit words with the edges of their ranges."""

integer_dtypes = st.sampled_from(["int16", "int32", "int64", "uint16", "uint32", "uint64", ">i2", ">i4", ">u8"])
"""Integer types of either byte order that hold 32,767 ids."""

identities = st.lists(st.integers(-(2**70), 2**70) | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
                      max_size=4).map(tuple)  # fmt: skip
"""The parts of a stream's name behind its purpose."""

purposes = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)
"""The purpose of a stream."""


@st.composite
def masking_settings(draw: st.DrawFn, *, max_vocabulary_size: int = 40) -> MaskingSettings:
    """Any valid masking settings over a small vocabulary."""
    vocabulary_size = draw(st.integers(2, max_vocabulary_size))
    protected_ids = draw(st.lists(st.integers(0, vocabulary_size - 1), unique=True, max_size=vocabulary_size))
    return MaskingSettings(
        vocabulary_size=vocabulary_size,
        selection_rate=draw(rates),
        replacement_rate=draw(rates),
        random_rate=draw(rates),
        protected_ids=tuple(protected_ids),
        static=draw(st.booleans()),
    )


@st.composite
def token_arrays(draw: st.DrawFn, *, vocabulary_size: int, max_examples: int = 5, max_length: int = 10) -> np.ndarray:
    """Token ids of a vocabulary, (examples, sequence), int32; either side may be 0."""
    examples, length = draw(st.integers(0, max_examples)), draw(st.integers(0, max_length))
    ids = st.integers(0, vocabulary_size - 1)
    rows = draw(st.lists(st.lists(ids, min_size=length, max_size=length), min_size=examples, max_size=examples))
    return np.array(rows, dtype=np.int32).reshape(examples, length)


@st.composite
def masking_cases(draw: st.DrawFn) -> dict[str, object]:
    """Everything that `minibert.masking.mask_tokens` takes, by argument name."""
    settings = draw(masking_settings())
    token_ids = draw(token_arrays(vocabulary_size=settings.vocabulary_size or 0))
    numbers = draw(st.lists(example_ids, min_size=len(token_ids), max_size=len(token_ids)))
    return {
        "token_ids": token_ids,
        "seed": draw(seeds),
        "epoch": draw(epochs),
        "example_ids": np.array(numbers, dtype=np.int64),
        "settings": settings,
    }
