"""Named random streams: every random choice as a pure function of what it is for.

    stream(seed, "masking", epoch).rows(example_ids, 256) -> uint64 words (examples, 256)

There is no generator state to carry, to split or to restore. A stream is named by the run's seed, a
purpose and an identity (an epoch, a layer, a weight's path); a *row* of it belongs to one example,
and a *word* of a row to one position. Asking for more rows, fewer, in another order, or on another
machine never changes a word.

Re-implementing it takes this paragraph. The key of a stream is the first 16 bytes of the SHA-256 of
the text ``minibert-stream-1``, a NUL, the purpose, and then for each part of the identity (the seed
first) a NUL, ``i`` or ``s`` for an integer or a text, and its decimal digits or UTF-8 bytes; read as
two little-endian 64-bit integers (k0, k1). No text contains a NUL, so no two names are one text.
Word ``w`` of row ``r`` is output ``w mod 4`` of Philox4x64-10 with key (k0, k1) at the counter
(w div 4 + 1, r, 0, 0), least significant first. Names are hashed, never added up, so seed 1 epoch 0
has nothing to do with seed 0 epoch 1.

| purpose             | identity behind the seed | row     | word          | what it becomes              |
|---------------------|--------------------------|---------|---------------|------------------------------|
| ``masking``         | epoch; 0 if static       | example | position      | `minibert.masking`           |
| ``order``           | stage, epoch             | 0       | example       | `permutation`                |
| ``weights``         | the variable's path      | 0       | element       | `uniform_float32`            |
| ``dropout``         | stage, layer             | below   | element       | `minibert.model.dropout`     |
| ``split``           |                          | 0       | row of table  | `minibert.corpora.selection` |
| ``validation``      |                          | 0       | train example | `minibert.corpora.selection` |
| ``examples``        | split                    | 0       | row of split  | `minibert.corpora.selection` |
| ``embedded corpus`` | split; a seed of its own | review  | choice        | `minibert.corpora.embedded`  |

Dropout draws on the device, where words have 32 bits: half h of the words of step s is the (h mod 2)-th 16-bit half,
the lower first, of output ``h div 2 mod 4`` of Philox4x32-10 at the counter with the low 64 bits ``h div 2 div 4`` and
the high 64 bits s, and its key is k0 of the stream. Element e of a layer's output, in row-major order, has half e.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. NumPy's compatibility
policy fixes the raw words of `numpy.random.Philox`, but not what `Generator` makes of them, so
nothing here uses a `Generator`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibert.errors import SettingsError

_WORD_BITS = 64


class _Kept(threading.local):
    """One generator for each thread. Its state is set before every use; making one costs ten rows."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)


_KEPT = _Kept()


@dataclass(frozen=True)
class Stream:
    """One named stream of 64-bit words, in rows.

    Attributes:
        key: The two words of the Philox key.
    """

    key: tuple[int, int]

    def words(self, count: int, *, row: int = 0) -> np.ndarray:
        """The first ``count`` words of one row: uint64, (count,)."""
        return self.rows([row], count)[0]

    def rows(self, row_ids: Iterable[int] | np.ndarray, count: int) -> np.ndarray:
        """The first ``count`` words of each of these rows.

        Setting the counter costs well under a microsecond a row, so that rows are as cheap apart as
        together.

        Args:
            row_ids: Integers from 0 to 2**64 - 1, in any order, repeated or not.
            count: Words wanted of each row, 0 or more.

        Returns:
            uint64, (rows, count).

        Raises:
            SettingsError: A row id is not such an integer.
        """
        wanted = _checked_row_ids(row_ids)
        if not wanted or not count:
            return np.empty((len(wanted), count), dtype=np.uint64)
        generator = _KEPT.philox
        draw = generator.random_raw
        # Plain integers in place of arrays are set in less than half the time, and masking lives on it.
        counter = [0, 0, 0, 0]
        state: Any = {
            "bit_generator": "Philox",
            "state": {"counter": counter, "key": self.key},
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        words = []
        for row in wanted:
            counter[1] = row
            generator.state = state
            words.append(draw(count))
        return np.concatenate(words).reshape(len(wanted), count)


def _checked_row_ids(row_ids: Iterable[int] | np.ndarray) -> list[int]:
    """Plain integers. NumPy is not asked to make an array of a list: 0 and 2**63 together become floats."""
    if not isinstance(row_ids, np.ndarray):
        rows = list(row_ids)
        wrong = [row for row in rows if not isinstance(row, int | np.integer) or not 0 <= row < 1 << _WORD_BITS]
    elif row_ids.ndim != 1 or row_ids.dtype.kind not in "iu":
        raise SettingsError(f"row_ids: a list of integers is required, but {row_ids.dtype} {row_ids.shape} came")
    else:
        rows, wrong = row_ids.tolist(), row_ids[row_ids < 0].tolist()
    if wrong:
        raise SettingsError(f"row_ids: integers from 0 to 2**64 - 1 are required, but {wrong[0]!r} came")
    return rows


def stream(seed: int, purpose: str, *identity: int | str) -> Stream:
    """Names a stream; equal names give equal words, all others are unrelated.

    Args:
        seed: The run's root seed.
        purpose: What the words are for, ``masking`` for example.
        identity: What distinguishes this stream from others of the purpose: integers and texts.

    Raises:
        SettingsError: A part is neither an integer nor a text, or a text contains a NUL.
    """
    name = "\0".join(["minibert-stream-1", purpose, *[_named(part) for part in (seed, *identity)]])
    if name.count("\0") != len(identity) + 2:
        raise SettingsError(f"stream: texts without a NUL are required, but {(purpose, *identity)!r} came")
    digest = hashlib.sha256(name.encode()).digest()
    return Stream(key=(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")))


def _named(part: int | str) -> str:
    if isinstance(part, str):
        return f"s{part}"
    if isinstance(part, bool) or not isinstance(part, int | np.integer):
        raise SettingsError(f"stream: integers and texts are required, but {part!r} came")
    return f"i{int(part)}"


def threshold(rate: float) -> int:
    """How many of the 2**64 words fall below a rate, rounded down: the exact integer form of it."""
    numerator, denominator = float(rate).as_integer_ratio()
    return (numerator << _WORD_BITS) // denominator


def integers_below(words: np.ndarray, count: int, *, below: int = 1 << _WORD_BITS) -> np.ndarray:
    """Maps words to integers 0 .. count - 1, each equally likely to within count / below.

    A word w gives w div (below div count), or count - 1 where that is more.

    Args:
        words: uint64, any shape.
        count: 1 or more.
        below: The words are those that fell below this, 1 to 2**64: all of them by default.

    Returns:
        int64, the shape of ``words``.
    """
    width = np.uint64(min(max(below // count, 1), (1 << _WORD_BITS) - 1))
    return np.minimum(words // width, np.uint64(count - 1)).astype(np.int64)


def uniform_float32(words: np.ndarray, limit: float) -> np.ndarray:
    """Maps words to float32 values, uniform over [-limit, limit).

    The top 24 bits k of a word give (k * 2**-23 - 1) * limit. Everything but the last product is exact
    in float32, so the bits are the same on every machine.
    """
    fraction = (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    return fraction * np.float32(limit)


def permutation(seed: int, purpose: str, *identity: int | str, count: int) -> np.ndarray:
    """The order of ``count`` things: the ranks of their words, ties by number. int64, (count,)."""
    return np.argsort(stream(seed, purpose, *identity).words(count), kind="stable")
