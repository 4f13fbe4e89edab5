"""Streams are what their page says, word for word, and as random as words can be seen to be."""

from __future__ import annotations

import itertools
import json
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minibert import streams
from minibert.errors import SettingsError
from minibert.streams import Stream, integers_below, permutation, stream, threshold, uniform_float32
from tests import oracles, strategies
from tests.chance import z_of_correlation, z_of_count, z_of_counts
from tests.golden import make
from tests.strategies import times

ROW_IDS = st.integers(0, 2**64 - 1)
COUNTS = st.integers(0, 70)


# The oracle itself, against the known answers that its authors publish (Random123, kat_vectors).

PI_64 = "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89 452821e638d01377 be5466cf34e90c6c"
PHILOX_4X64 = {
    "0000000000000000 " * 6: "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
    "ffffffffffffffff " * 6: "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
    PI_64: "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
}
PHILOX_4X32 = {
    "00000000 " * 6: "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "ffffffff " * 6: "408f276d 41c83b0e a20bc7c6 6d5451fd",
    "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0": "d16cfe09 94fdcceb 5001e420 24126ea1",
}


@pytest.mark.parametrize(
    ("philox", "asked", "answer"),
    [(oracles.philox4x64_10, *pair) for pair in PHILOX_4X64.items()]
    + [(oracles.philox4x32_10, *pair) for pair in PHILOX_4X32.items()],
)
def test_oracle_gives_the_published_philox_answers(philox, asked, answer):
    words = [int(word, 16) for word in asked.split()]
    assert list(philox(words[:4], words[4:])) == [int(word, 16) for word in answer.split()]


# Names

_ONES = np.array([bin(number).count("1") for number in range(2**16)], dtype=np.uint8)
"""Ones in each 16-bit number."""


@times(3)
@given(seed=strategies.seeds, purpose=strategies.purposes, identity=strategies.identities)
@example(seed=0, purpose="", identity=())
@example(seed=0, purpose="masking", identity=(0,))
def test_key_agrees_with_the_oracle(seed, purpose, identity):
    assert stream(seed, purpose, *identity).key == oracles.stream_key(seed, purpose, *identity)


@times(3)
@given(
    left=st.tuples(strategies.seeds, strategies.purposes, strategies.identities),
    right=st.tuples(strategies.seeds, strategies.purposes, strategies.identities),
)
@example(left=(1, "masking", (0,)), right=(0, "masking", (1,)))
@example(left=(0, "order", (1,)), right=(0, "order", ("1",)))
@example(left=(0, "order", (1,)), right=(0, "order", ("i1",)))
@example(left=(0, "order", (1, 2)), right=(0, "order", (12,)))
@example(left=(0, "order", ("ab", "c")), right=(0, "order", ("a", "bc")))
@example(left=(0, "order", ("",)), right=(0, "order", ()))
@example(left=(0, "order", (1, -1)), right=(0, "order", (-1, 1)))
@example(left=(0, "orderi0", ()), right=(0, "order", ("i0",)))
@example(left=(12, "order", (3,)), right=(1, "order", (23,)))
def test_different_names_have_different_keys(left, right):
    keys = [stream(seed, purpose, *identity).key for seed, purpose, identity in (left, right)]
    assert (keys[0] == keys[1]) == (left == right)


def test_numpy_integers_name_the_same_stream_as_pythons():
    assert stream(np.int64(3), "order", np.uint8(4)) == stream(3, "order", 4)


@pytest.mark.parametrize("hash_seed", ["0", "1", "random"])
def test_keys_do_not_depend_on_the_process(hash_seed):
    program = "from minibert.streams import stream; print(*stream(5, 'order', 'pretrain', 1).key)"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
    assert tuple(map(int, printed.split())) == stream(5, "order", "pretrain", 1).key


@pytest.mark.long
def test_no_two_of_500_000_names_share_a_key():
    """Adjacent seeds, epochs and purposes: exactly where seeds that are added up collide."""
    grid = itertools.product(range(500), ("masking", "order"), range(500))
    keys = np.array([stream(*name).key for name in grid], dtype=np.uint64)
    assert len(keys) == 500_000
    assert len(np.unique(keys[:, 0])) == len(np.unique(keys[:, 1])) == len(keys), "each half alone tells them apart"

    halves = keys.reshape(500, 2, 500, 2)
    for axis, what in enumerate(("seeds", "purposes", "epochs")):
        flipped = np.take(halves, range(1, halves.shape[axis]), axis) ^ np.take(
            halves, range(halves.shape[axis] - 1), axis
        )
        bits = int(_ONES[flipped.view(np.uint16)].sum())
        assert abs(z_of_count(bits, flipped.nbytes * 8, 0.5)) < 4, f"adjacent {what} share key bits"


# Words


@times(2)
@given(
    key=st.tuples(strategies.words, strategies.words),
    row_ids=st.lists(ROW_IDS, max_size=5),
    count=COUNTS,
)
@example(key=(0, 0), row_ids=[0], count=4)
@example(key=(2**64 - 1, 2**64 - 1), row_ids=[2**64 - 1, 0, 2**63], count=5)
def test_rows_agree_with_the_oracle(key, row_ids, count):
    words = Stream(key=key).rows(row_ids, count)
    assert words.dtype == np.uint64
    assert words.shape == (len(row_ids), count)
    assert words.tolist() == [oracles.words(key, row, count) for row in row_ids]


@given(
    name=st.tuples(strategies.seeds, strategies.purposes),
    row_ids=st.lists(st.integers(0, 20) | ROW_IDS, min_size=1, max_size=8),
    count=COUNTS,
    more=st.integers(0, 9),
    order=st.randoms(use_true_random=False),
)
def test_a_row_does_not_depend_on_the_other_rows_or_on_how_many_words_are_asked_for(name, row_ids, count, more, order):
    one = stream(*name)
    together = one.rows(row_ids, count + more)
    shuffled = order.sample(range(len(row_ids)), len(row_ids))
    assert np.array_equal(one.rows([row_ids[place] for place in shuffled], count), together[shuffled, :count])
    for row, words in zip(row_ids, together, strict=True):
        assert np.array_equal(one.words(count, row=row), words[:count])


@pytest.mark.parametrize("row_ids", [range(2, 6), (2, 3, 4, 5), iter([2, 3, 4, 5]), np.arange(2, 6, dtype=np.uint8)])
def test_rows_take_any_list_of_integers(row_ids):
    one = stream(0, "order")
    assert np.array_equal(one.rows(row_ids, 3), [one.words(3, row=row) for row in range(2, 6)])


@pytest.mark.parametrize("row_ids", [[], np.empty(0, dtype=np.int64), range(0)])
def test_no_rows_are_no_words(row_ids):
    assert stream(0, "order").rows(row_ids, 3).shape == (0, 3)


def test_words_neither_read_nor_move_the_global_generators():
    np.random.seed(1)  # noqa: NPY002  (the global generator is what must not matter)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    words = stream(0, "order").words(100)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(stream(0, "order").words(100), words)


def test_threads_do_not_disturb_each_other():
    """Long rows: NumPy lets other threads run while it draws, and they set their counters then."""
    seeds = range(8)
    alone = [stream(seed, "order").rows(range(30), 20_001) for seed in seeds]
    with ThreadPoolExecutor(len(seeds)) as pool:
        together = list(pool.map(lambda seed: stream(seed, "order").rows(range(30), 20_001), seeds))
    assert np.array_equal(together, alone)


# Numbers out of words


@times(4)
@given(rate=strategies.rates)
@example(rate=2.0**-64)
@example(rate=2.0**-65)
@example(rate=5e-324)
@example(rate=1.0 - 2.0**-53)
def test_threshold_agrees_with_the_oracle(rate):
    assert threshold(rate) == oracles.threshold(rate)
    assert 0 <= threshold(rate) <= 2**64


@times(4)
@given(words=st.lists(strategies.words, max_size=6), count=st.integers(1, 10) | st.integers(1, 2**40))
@example(words=[2**64 - 1], count=1)
@example(words=[2**64 - 1], count=3)
def test_integers_below_agree_with_the_oracle(words, count):
    integers = integers_below(np.array(words, dtype=np.uint64), count)
    assert integers.dtype == np.int64
    assert integers.tolist() == [oracles.integer_below(word, count) for word in words]
    assert all(0 <= integer < count for integer in integers.tolist())


@times(4)
@given(
    words=st.lists(strategies.words, max_size=6), count=st.integers(1, 10) | st.integers(1, 2**40),
    below=st.integers(1, 2**64),
)  # fmt: skip
@example(words=[2**64 - 1], count=1, below=2**64)
@example(words=[0, 1, 2], count=5, below=3)
def test_integers_of_the_words_below_a_bound_take_equal_parts_of_it(words, count, below):
    words = [word % below for word in words]
    integers = integers_below(np.array(words, dtype=np.uint64), count, below=below)
    assert integers.tolist() == [min(word // max(below // count, 1), count - 1) for word in words]


@times(4)
@given(words=st.lists(strategies.words, max_size=6), limit=st.floats(0.0, 2.0**100) | st.floats(1e-3, 1.0))
@example(words=[0, 2**63 - 1, 2**63, 2**64 - 1], limit=1.0)
@example(words=[0, 2**63 - 1, 2**63, 2**64 - 1], limit=0.1)
@example(words=[0, 2**63 - 1, 2**63, 2**64 - 1], limit=0.0)
@example(words=[0, 2**63 - 1, 2**63, 2**64 - 1], limit=1e-45)
def test_uniform_float32_agrees_with_the_oracle_bit_for_bit(words, limit):
    values = uniform_float32(np.array(words, dtype=np.uint64), limit)
    assert values.dtype == np.float32
    assert values.view(np.uint32).tolist() == [oracles.uniform_float32_bits(word, limit) for word in words]


def test_uniform_float32_includes_the_lower_limit_and_not_the_upper():
    lowest, highest = uniform_float32(np.array([0, 2**64 - 1], dtype=np.uint64), 0.25).tolist()
    assert lowest == -0.25
    assert highest == struct.unpack("<f", struct.pack("<f", 0.25 * (1 - 2**-23)))[0] < 0.25


@given(seed=strategies.seeds, epoch=strategies.epochs, count=st.integers(0, 60))
def test_permutation_agrees_with_the_oracle(seed, epoch, count):
    order = permutation(seed, "order", "pretrain", epoch, count=count)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))
    assert order.tolist() == oracles.permutation(seed, "order", "pretrain", epoch, count=count)


def test_permutation_breaks_ties_by_number(monkeypatch):
    """No two words of a row will ever be equal by chance; an unstable sort must not wait for it."""
    monkeypatch.setattr(streams.Stream, "words", lambda self, count: np.arange(count, dtype=np.uint64) // 100 % 2)
    evens_then_odds = sorted(range(1_000), key=lambda thing: (thing // 100 % 2, thing))
    assert permutation(0, "order", count=1_000).tolist() == evens_then_odds


# Chance


@pytest.fixture(scope="module")
def ten_million_words():
    """Of seed 0, epoch 0: 39,063 rows of 256."""
    return stream(0, "masking", 0).rows(range(39_063), 256)


def test_every_bit_of_a_word_is_even(ten_million_words):
    for bit in range(64):
        ones = int(((ten_million_words >> np.uint64(bit)) & np.uint64(1)).sum())
        assert abs(z_of_count(ones, ten_million_words.size, 0.5)) < 4, f"bit {bit}"


def test_words_are_uniform(ten_million_words):
    for shift, part in ((48, "top"), (0, "bottom")):
        bins = (ten_million_words >> np.uint64(shift)).astype(np.uint16)
        assert abs(z_of_counts(np.bincount(bins.ravel(), minlength=2**16), bins.size / 2**16)) < 4, part


@pytest.mark.long
def test_words_of_neighbours_do_not_correlate(ten_million_words):
    """Positions (also a whole Philox block away), examples, epochs and seeds."""
    words = (ten_million_words >> np.uint64(40)).astype(np.float32)
    pairs = {f"positions {gap} apart": (words[:, gap:], words[:, :-gap]) for gap in (1, 2, 3, 4, 8)}
    pairs |= {f"examples {gap} apart": (words[gap:], words[:-gap]) for gap in (1, 2)}
    for what, name in {"epochs": (0, "masking", 1), "seeds": (1, "masking", 0)}.items():
        other = stream(*name).rows(range(len(words)), 256)
        pairs[f"adjacent {what}"] = (words, (other >> np.uint64(40)).astype(np.float32))
    for what, (left, right) in pairs.items():
        assert abs(z_of_correlation(left, right)) < 4, what


@pytest.mark.long
def test_no_two_of_500_000_rows_start_with_the_same_word():
    first_words = stream(0, "masking", 0).rows(range(500_000), 1)
    assert len(np.unique(first_words)) == 500_000


def test_permutations_are_equally_likely():
    orders = [permutation(7, "order", epoch, count=4).tolist() for epoch in range(24_000)]
    ranks = {order: rank for rank, order in enumerate(itertools.permutations(range(4)))}
    counts = np.bincount([ranks[tuple(order)] for order in orders], minlength=24)
    assert abs(z_of_counts(counts, 1_000.0)) < 4


def test_permutations_of_neighbours_do_not_correlate():
    count = 100_000
    order, next_epoch, next_seed = (
        permutation(seed, "order", epoch, count=count) for seed, epoch in ((0, 0), (0, 1), (1, 0))
    )
    assert abs(z_of_correlation(order, np.arange(count))) < 4
    assert abs(z_of_correlation(order, next_epoch)) < 4
    assert abs(z_of_correlation(order, next_seed)) < 4
    assert abs(z_of_correlation(order[1:], order[:-1])) < 4


# Known answers and bad input


def test_known_answers_are_what_the_code_gives():
    assert make.GOLDENS["streams.json"]() == make.read("streams.json")


def test_known_answers_are_what_the_oracle_gives():
    known = json.loads(make.read("streams.json"))
    for name, of_name in known["streams"].items():
        key = oracles.stream_key(*json.loads(name))
        assert of_name["key"] == [f"{half:016x}" for half in key]
        for row, words in zip(known["rows"], of_name["words"], strict=True):
            assert words.split() == [f"{word:016x}" for word in oracles.words(key, row, 9)]
    for name, order in known["permutations"].items():
        *identity, count = json.loads(name)
        assert list(map(int, order.split())) == oracles.permutation(*identity, count=count)
    weights = oracles.words(oracles.stream_key(0, "weights", "word_embedding/embeddings"), 0, 256)
    for limit, bits in known["uniform_float32_bits"].items():
        assert bits.split() == [f"{oracles.uniform_float32_bits(word, float(limit)):08x}" for word in weights]
    for count, integers in known["integers_below"].items():
        assert list(map(int, integers.split())) == [oracles.integer_below(word, int(count)) for word in weights[:64]]
    for rate, below in known["thresholds"].items():
        assert below == f"{oracles.threshold(float(rate)):016x}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ((0, "order", "a\0sb"), "stream: texts without a NUL are required, but ('order', 'a\\x00sb') came"),
        ((0, "a\0i0"), "stream: texts without a NUL are required, but ('a\\x00i0',) came"),
        ((0, "order", 0.5), "stream: integers and texts are required, but 0.5 came"),
        ((0, "order", None), "stream: integers and texts are required, but None came"),
        ((0, "order", True), "stream: integers and texts are required, but True came"),
        ((1.0, "order"), "stream: integers and texts are required, but 1.0 came"),
    ],
)
def test_a_name_that_could_be_another_is_refused(name, message):
    with pytest.raises(SettingsError) as caught:
        stream(*name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("row_ids", "message"),
    [
        ([3, -1], "row_ids: integers from 0 to 2**64 - 1 are required, but -1 came"),
        (np.array([3, -1]), "row_ids: integers from 0 to 2**64 - 1 are required, but -1 came"),
        ([2**64], "row_ids: integers from 0 to 2**64 - 1 are required, but 18446744073709551616 came"),
        ([0.5], "row_ids: integers from 0 to 2**64 - 1 are required, but 0.5 came"),
        (["a"], "row_ids: integers from 0 to 2**64 - 1 are required, but 'a' came"),
        (np.array([0.5]), "row_ids: a list of integers is required, but float64 (1,) came"),
        (np.array([[1, 2]]), "row_ids: a list of integers is required, but int64 (1, 2) came"),
    ],
)
def test_row_ids_that_are_none_are_refused(row_ids, message):
    with pytest.raises(SettingsError) as caught:
        stream(0, "order").rows(row_ids, 3)
    assert str(caught.value) == message
