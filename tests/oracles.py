"""Slow, obvious reference versions in plain Python, one word and one token at a time; NumPy for real numbers only.

Each is written from the published algorithm or from the docstring of the module it checks, never
from that module's code. `tests/test_streams.py` checks the two Philox against the known answers of
their authors.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, and Random123.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

from minibert.settings import MaskingSettings

WORDS = 2**64
"""How many values a word of a stream can have."""


def _philox4x(
    bits: int, multipliers: tuple[int, int], weyl: tuple[int, int], counter: Sequence[int], key: Sequence[int]
) -> tuple[int, int, int, int]:
    low = 2**bits - 1
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = multipliers[0] * c0, multipliers[1] * c2
        c0, c1, c2, c3 = (product1 >> bits) ^ c1 ^ k0, product1 & low, (product0 >> bits) ^ c3 ^ k1, product0 & low
        k0, k1 = (k0 + weyl[0]) & low, (k1 + weyl[1]) & low
    return c0, c1, c2, c3


def philox4x64_10(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Four 64-bit words from four counter words and two key words."""
    multipliers = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
    weyl = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
    return _philox4x(64, multipliers, weyl, counter, key)


def philox4x32_10(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Four 32-bit words from four counter words and two key words."""
    return _philox4x(32, (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), counter, key)


def stream_key(seed: int, purpose: str, *identity: int | str) -> tuple[int, int]:
    """The Philox key of a named stream."""
    name = b"minibert-stream-1\x00" + purpose.encode("utf-8")
    for part in (seed, *identity):
        tag, text = ("s", part) if isinstance(part, str) else ("i", str(part))
        name += b"\x00" + tag.encode("ascii") + text.encode("utf-8")
    return struct.unpack("<QQ", hashlib.sha256(name).digest()[:16])


@lru_cache(maxsize=4096)
def _block(key: tuple[int, int], row: int, number: int) -> tuple[int, int, int, int]:
    return philox4x64_10((number + 1, row, 0, 0), key)


def word(key: tuple[int, int], row: int, number: int) -> int:
    """Word ``number`` of row ``row`` of the stream with this key."""
    return _block(key, row, number // 4)[number % 4]


def words(key: tuple[int, int], row: int, count: int) -> list[int]:
    """The first words of a row."""
    return [word(key, row, number) for number in range(count)]


def threshold(rate: float) -> int:
    """The largest integer that is not above 2**64 times the rate."""
    return int(Fraction(rate) * WORDS)


def integer_below(a_word: int, count: int) -> int:
    """One of 0 .. count - 1."""
    return min(a_word // (WORDS // count), count - 1)


def float32(value: float | Fraction) -> Fraction:
    """The float32 nearest to a value, as an exact fraction. The value must be exact in float64."""
    assert Fraction(float(value)) == value
    return Fraction(struct.unpack("<f", struct.pack("<f", float(value)))[0])


def uniform_float32_bits(a_word: int, limit: float) -> int:
    """The bit pattern of the uniform float32 in [-limit, limit) that a word stands for.

    A factor of 24 bits times one of 24 bits is exact in float64, so there is one rounding, at the end.
    """
    top_bits = a_word // 2**40
    value = float32((Fraction(top_bits, 2**23) - 1) * float32(limit))
    sign = "-" if top_bits < 2**23 and value == 0 else ""
    return struct.unpack("<I", struct.pack("<f", float(f"{sign}{float(value)!r}")))[0]


def permutation(seed: int, purpose: str, *identity: int | str, count: int) -> list[int]:
    """The things 0 .. count - 1 by ascending word, ties by number."""
    key = stream_key(seed, purpose, *identity)
    return [thing for _, thing in sorted((word(key, 0, thing), thing) for thing in range(count))]


@lru_cache(maxsize=16)
def _candidates(vocabulary_size: int, protected: frozenset[int]) -> list[int]:
    return [candidate for candidate in range(vocabulary_size) if candidate not in protected]


def mask_token(
    token_id: int, *, seed: int, epoch: int, example_id: int, position: int, settings: MaskingSettings
) -> tuple[int, int, float]:
    """One token's masked id, label and sample weight."""
    vocabulary_size = settings.vocabulary_size
    assert vocabulary_size is not None
    mask_id = vocabulary_size - 1
    protected = {*settings.protected_ids, mask_id}
    if token_id in protected:
        return token_id, token_id, 0.0

    selected_below = int(WORDS * Fraction(settings.selection_rate))
    replaced_below = int(selected_below * Fraction(settings.replacement_rate))
    random_below = int(replaced_below * Fraction(settings.random_rate))
    key = stream_key(seed, "masking", 0 if settings.static else epoch)
    a_word = word(key, example_id, position)
    if a_word >= selected_below:
        return token_id, token_id, 0.0
    if a_word >= replaced_below:
        return token_id, token_id, 1.0
    if a_word >= random_below:
        return mask_id, token_id, 1.0
    candidates = _candidates(vocabulary_size, frozenset(protected))
    width = max(random_below // len(candidates), 1)
    return candidates[min(a_word // width, len(candidates) - 1)], token_id, 1.0


def mask_tokens(
    token_ids: Sequence[Sequence[int]],
    *,
    seed: int,
    epoch: int,
    example_ids: Sequence[int],
    settings: MaskingSettings,
) -> Iterator[list[tuple[int, int, float]]]:
    """`mask_token` for each token of each example."""
    for example_id, row in zip(example_ids, token_ids, strict=True):
        yield [
            mask_token(token_id, seed=seed, epoch=epoch, example_id=example_id, position=position, settings=settings)
            for position, token_id in enumerate(row)
        ]


# Text


def standardize(text: str) -> str:
    """The notebooks' standardization, one character at a time."""
    lowered = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)
    return "".join(c for c in lowered.replace("<br />", " ") if c not in "!#$%&'()*+,-./:;<=>?@\\^_`{|}~")


def text_words(text: str) -> list[str]:
    """The words between ASCII whitespace."""
    found, word_so_far = [], ""
    for character in standardize(text) + " ":
        if character in " \t\n\v\f\r":
            found += [word_so_far] if word_so_far else []
            word_so_far = ""
        else:
            word_so_far += character
    return found


def vocabulary(texts: Sequence[str], size: int) -> list[str]:
    """Padding, unknown, the words by falling count (ties: the greater UTF-8 bytes first), ``[mask]``."""
    every_word = [a_word for text in texts for a_word in text_words(text)]
    ranked = sorted(set(every_word) - {"[UNK]", "[mask]"}, key=lambda w: (every_word.count(w), w.encode()))[::-1]
    return ["", "[UNK]", *ranked[: size - 3], "[mask]"]


def encode(text: str, words_by_id: Sequence[str], length: int) -> list[int]:
    """Ids of one text, cut or padded to a length."""
    ids = [words_by_id.index(a_word) if a_word in words_by_id else 1 for a_word in text_words(text)]
    return [*ids, *[0] * length][:length]


# Dropout and initial weights


def dropout_kept(seed: int, stage: str, layer: str, step: int, count: int, rate: float) -> list[bool]:
    """Whether each of the flat elements of a layer's output stays at a step."""
    key = stream_key(seed, "dropout", stage, layer)[0]
    kept = []
    for element in range(count):
        block, place = divmod(element // 2, 4)
        counter = (block % 2**32, block >> 32, step % 2**32, step >> 32)
        a_word = philox4x32_10(counter, (key % 2**32, key >> 32))[place]
        drawn = a_word >> 16 if element % 2 else a_word % 2**16
        kept.append(drawn >= round(rate * 65536))
    return kept


def initial_weight_limit(path: str, shape: Sequence[int], heads: int) -> float:
    """Half the width of a kernel's uniform distribution: that of the notebooks' layers, in their Keras."""
    if path == "word_embedding/embeddings":
        return 0.05
    fans = sum(shape) if len(shape) == 2 else None
    if path.endswith("/qkv_kernel"):  # Keras' own kernels are (hidden, heads, size)
        fans = shape[0] * heads + shape[0] * (shape[0] // heads)
    if path.endswith("/output_kernel"):  # (heads, size, hidden)
        fans = heads * (shape[0] // heads) + heads * shape[1]
    assert fans is not None
    return (6.0 / fans) ** 0.5


def initial_weight_bits(seed: int, path: str, shape: Sequence[int], heads: int, count: int | None = None) -> list[int]:
    """The bit patterns of a weight's initial values, flat; of the first ``count`` or of all."""
    name = path.split("/")[-1]
    count = math.prod(shape) if count is None else count
    if "bias" in name or name == "beta":
        return [0] * count
    if name == "gamma":
        return [0x3F800000] * count
    limit = initial_weight_limit(path, shape, heads)
    return [uniform_float32_bits(a_word, limit) for a_word in words(stream_key(seed, "weights", path), 0, count)]


# Real numbers, in float64 NumPy: values from the textbook's formula, gradients from differences


def numeric_gradient(function: Callable[..., float], *arrays: np.ndarray, step: float = 1e-5) -> tuple[np.ndarray, ...]:
    """Central differences of a scalar function of float64 arrays, by each of them."""
    arrays = tuple(np.array(array, dtype=np.float64) for array in arrays)
    gradients = []
    for array in arrays:
        gradient = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + step
            above = function(*arrays)
            array[place] = kept - step
            below = function(*arrays)
            array[place] = kept
            gradient[place] = (above - below) / (2.0 * step)
        gradients.append(gradient)
    return tuple(gradients)


def weighted_cross_entropy(
    hidden: np.ndarray, kernel: np.ndarray, bias: np.ndarray, labels: np.ndarray, weight: np.ndarray
) -> float:
    """The notebooks' loss, summed: softmax over the vocabulary at every position, times the weight."""
    logits = np.asarray(hidden, dtype=np.float64) @ np.asarray(kernel, dtype=np.float64) + bias
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_probabilities, np.asarray(labels)[..., None].astype(np.int64), axis=-1)[..., 0]
    return float(-(chosen * weight).sum())


def binary_cross_entropy(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """-log of the probability of what is true, for each example."""
    wide = np.asarray(logits, dtype=np.float64)
    return np.where(np.asarray(labels) == 1, np.logaddexp(0.0, -wide), np.logaddexp(0.0, wide))


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Softmax attention of (..., sequence, size), the query scaled already."""
    scores = query @ np.swapaxes(key, -1, -2)
    exponential = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True) @ value


def layer_norm(inputs: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float) -> np.ndarray:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis."""
    mean, variance = inputs.mean(axis=-1, keepdims=True), inputs.var(axis=-1, keepdims=True)
    return (inputs - mean) / np.sqrt(variance + epsilon) * gamma + beta


def adam(value: np.ndarray, gradients: Sequence[np.ndarray], learning_rate: float) -> np.ndarray:
    """A weight after one update for each gradient. Source: Kingma and Ba 2015, in Keras' form of the epsilon."""
    value = np.array(value, dtype=np.float64)
    first, second = np.zeros_like(value), np.zeros_like(value)
    for number, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        corrected = learning_rate * np.sqrt(1.0 - 0.999**number) / (1.0 - 0.9**number)
        value -= corrected * first / (np.sqrt(second) + 1e-7)
    return value


def adam_of_rows(
    value: np.ndarray,
    steps: Sequence[Sequence[tuple[int, Sequence[float]]]],
    learning_rate: float,
    *,
    second_moment: str,
) -> np.ndarray:
    """A table, (rows, columns), after Adam's updates by gradients that come row by row, float64.

    Args:
        value: Before.
        steps: Of each update, pairs of a row's number and its gradient; a row may come several times, or never.
        learning_rate: Of every update.
        second_moment: Of what: ``occurrence`` is the sum of a row's squares, ``word`` the square of its sum.
    """
    table = [[float(x) for x in row] for row in value]
    first, second = ([[0.0] * len(row) for row in table] for _ in range(2))
    for number, pairs in enumerate(steps, start=1):
        for row, weights in enumerate(table):
            for column in range(len(weights)):
                found = [float(gradient[column]) for place, gradient in pairs if place == row]
                square = sum(g * g for g in found) if second_moment == "occurrence" else sum(found) ** 2
                first[row][column] = 0.9 * first[row][column] + 0.1 * sum(found)
                second[row][column] = 0.999 * second[row][column] + 0.001 * square
                corrected = learning_rate * math.sqrt(1 - 0.999**number) / (1 - 0.9**number)
                weights[column] -= corrected * first[row][column] / (math.sqrt(second[row][column]) + 1e-7)
    return np.array(table)


def farm_hash_64(data: bytes) -> int:
    """FarmHash's Fingerprint64 of 8 to 16 bytes, from its published source (farmhashna::HashLen0to16)."""
    assert 8 <= len(data) <= 16
    k2, word = 0x9AE16A3B2F90404F, 2**64

    def rotated(x: int, bits: int) -> int:
        return ((x >> bits) | (x << (64 - bits))) % word

    mul = (k2 + 2 * len(data)) % word
    a = (int.from_bytes(data[:8], "little") + k2) % word
    b = int.from_bytes(data[-8:], "little")
    c, d = (rotated(b, 37) * mul + a) % word, ((rotated(a, 25) + b) % word) * mul % word
    first = ((c ^ d) * mul) % word
    first ^= first >> 47
    second = ((d ^ first) * mul) % word
    second ^= second >> 47
    return second * mul % word
