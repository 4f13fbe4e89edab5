"""Masked-LM inputs as a pure function of seed, epoch, example and position.

    token_ids           17   4   9   0   0
    mask_tokens(...)    17 999   9   0   0    token_ids: what the model reads (999 = [mask])
                        17   4   9   0   0    labels: the original ids
                         0   1   0   0   0    sample_weight: 1 where selected, the only places with a loss

One 64-bit word decides everything about a token. With S = 2**64 * selection_rate, R = S *
replacement_rate and D = R * random_rate (each rounded down), a word below D makes the token a random
word, from D to R ``[mask]``, from R to S it stays but is predicted, and from S on it is left alone. A
random word is number ``word div (D div n)``, at most n - 1, of the n unprotected ids in ascending
order. Word ``p`` of row ``example_id`` of the stream ``(seed, "masking", epoch)`` belongs to position
``p``, so the masks of an example depend on nothing else: not on the batch, its order, padding,
workers, or where a run was resumed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minibert.errors import SettingsError
from minibert.settings import MaskingSettings
from minibert.streams import Stream, integers_below, stream, threshold

_ROWS_AT_ONCE = 256
"""Examples masked in one pass: their words stay in cache."""


class MaskedTokens(NamedTuple):
    """What the masked language model trains on.

    Attributes:
        token_ids: Input ids after replacement, shape and dtype of the input.
        labels: The original ids, shape and dtype of the input.
        sample_weight: float32, shape of the input: 1 where selected, else 0.
    """

    token_ids: np.ndarray
    labels: np.ndarray
    sample_weight: np.ndarray


def mask_tokens(
    token_ids: np.ndarray | Sequence[Sequence[int]],
    *,
    seed: int,
    settings: MaskingSettings,
    epoch: int = 0,
    example_ids: np.ndarray | Sequence[int] | None = None,
) -> MaskedTokens:
    """Selects tokens for prediction and replaces most of them.

    Args:
        token_ids: Integers, (examples, sequence), or (sequence,) for a single example.
        seed: The root seed, 0 or more.
        settings: Rates, protected ids and the vocabulary's size.
        epoch: Which pass over the corpus the masks are for, 0 or more. It is looked at only where
            ``settings.static`` is False: with static masks, which are the default as in the notebooks, every
            epoch gives the masks of epoch 0.
        example_ids: The identity of each example, (examples,), 0 or more; None: 0, 1, 2, ...

    Returns:
        The masked ids, the labels and the weights, each of the input's shape.

    Raises:
        SettingsError: An argument has the wrong shape, type or range.

    Determinism:
        A pure function of (seed, epoch, example id, position, token id, settings); of epoch 0 for any epoch
        where ``settings.static``.

    Source: ``get_masked_input_and_labels`` of both notebooks; Devlin et al. 2019, section 3.1.
    """
    if not isinstance(settings, MaskingSettings):
        raise SettingsError(f"settings: MaskingSettings are required, but {type(settings).__name__} came")
    ids = _checked_token_ids(token_ids, settings)
    examples = np.atleast_2d(ids)
    numbers = _checked_example_ids(example_ids, len(examples))
    for name, value in (("seed", seed), ("epoch", epoch)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise SettingsError(f"{name}: an integer of 0 or more is required, but {value!r} came")

    masked = examples.copy()
    weight = np.zeros(examples.shape, dtype=np.float32)
    rule = _rule_of(settings)
    words_of = _stream_of(int(seed), 0 if settings.static else int(epoch))
    for start in range(0, len(examples), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        words = words_of.rows(numbers[rows], examples.shape[1])
        rule.apply(words.reshape(-1), masked[rows].reshape(-1), weight[rows].reshape(-1))
    return MaskedTokens(token_ids=masked.reshape(ids.shape), labels=ids.copy(), sample_weight=weight.reshape(ids.shape))


@dataclass(frozen=True)
class _Rule:
    """The settings as integer thresholds on a word, and the ids that take part."""

    selected_below: int
    replaced_below: int
    random_below: int
    candidates: np.ndarray
    selectable: np.ndarray
    mask_id: int

    def apply(self, words: np.ndarray, token_ids: np.ndarray, weight: np.ndarray) -> None:
        """Masks flat ``token_ids`` and writes ``weight``, both in place."""
        if not self.selected_below:
            return
        places = (words <= np.uint64(self.selected_below - 1)).nonzero()[0]
        places = places[self.selectable[token_ids[places]]]
        weight[places] = 1.0
        chosen = words[places]
        if self.replaced_below:
            token_ids[places[chosen <= np.uint64(self.replaced_below - 1)]] = self.mask_id
        if self.random_below and len(self.candidates):
            is_random = chosen <= np.uint64(self.random_below - 1)
            numbers = integers_below(chosen[is_random], len(self.candidates), below=self.random_below)
            token_ids[places[is_random]] = self.candidates[numbers]


@functools.lru_cache(maxsize=16)
def _rule_of(settings: MaskingSettings) -> _Rule:
    """The rule of these settings; kept, because a batch of 32 takes hardly longer than making it."""
    selectable = np.ones(settings.required_vocabulary_size, dtype=bool)
    selectable[[*settings.protected_ids, settings.mask_id]] = False
    selected = threshold(settings.selection_rate)
    replaced = _share(selected, settings.replacement_rate)
    return _Rule(
        selected_below=selected,
        replaced_below=replaced,
        random_below=_share(replaced, settings.random_rate),
        candidates=np.flatnonzero(selectable),
        selectable=selectable,
        mask_id=settings.mask_id,
    )


@functools.lru_cache(maxsize=16)
def _stream_of(seed: int, epoch: int) -> Stream:
    return stream(seed, "masking", epoch)


def _share(below: int, rate: float) -> int:
    """``below`` times a rate, rounded down, in exact integers."""
    numerator, denominator = float(rate).as_integer_ratio()
    return below * numerator // denominator


def _checked_token_ids(token_ids: np.ndarray | Sequence[Sequence[int]], settings: MaskingSettings) -> np.ndarray:
    try:
        ids = np.asarray(token_ids)
    except ValueError:
        raise SettingsError("token_ids: rows of equal length are required, but ragged ones came") from None
    if ids.ndim not in (1, 2):
        raise SettingsError(f"token_ids: shape (examples, sequence) is required, but {ids.shape} came")
    if ids.size == 0:
        ids = ids.astype(np.int32) if ids.dtype.kind not in "iu" else ids
    if ids.dtype.kind not in "iu":
        raise SettingsError(f"token_ids: integers are required, but {ids.dtype} came")
    size = settings.required_vocabulary_size
    unsigned = ids.view(ids.dtype.str.replace("i", "u"))  # ids below 0 are the largest: they are looked at once
    if ids.size and int(unsigned.max()) >= size:
        worst = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise SettingsError(f"token_ids: ids from 0 to {size - 1} are required, but {worst} came")
    if (size - 1).bit_length() > 8 * ids.dtype.itemsize - (ids.dtype.kind == "i"):
        raise SettingsError(f"token_ids: a dtype that holds the [mask] id {size - 1} is required, but {ids.dtype} came")
    return ids


def _checked_example_ids(example_ids: np.ndarray | Sequence[int] | None, count: int) -> np.ndarray:
    if example_ids is None:
        return np.arange(count)
    numbers = np.atleast_1d(np.asarray(example_ids))
    if numbers.shape != (count,):
        raise SettingsError(f"example_ids: one per example, shape ({count},), is required, but {numbers.shape} came")
    if count and numbers.dtype.kind not in "iu":
        raise SettingsError(f"example_ids: integers are required, but {numbers.dtype} came")
    if count and int(numbers.min()) < 0:
        raise SettingsError(f"example_ids: integers of 0 or more are required, but {int(numbers.min())} came")
    return numbers
