"""A batch is a function of the step alone: order, masks and selected positions, built in any order, on any thread."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minibert.batches import (
    QUERY_MULTIPLE,
    ROW_MULTIPLE,
    ClassifierBatches,
    ExampleOrder,
    MaskedLMBatches,
    Prefetch,
    locate_rows,
)
from minibert.settings import MaskingSettings
from tests import oracles, strategies
from tests.golden import make

MASKING = MaskingSettings(vocabulary_size=30, selection_rate=0.4, random_rate=0.3, static=False)
NAMES = [
    "example_ids",
    "token_ids",
    "positions",
    "labels",
    "sample_weight",
    "row_of_place",
    "row_of_query",
    "query_of_row",
]


def token_ids(examples: int, length: int, *, vocabulary_size: int = 30, dtype: str = "uint16") -> np.ndarray:
    numbers = np.random.Generator(np.random.PCG64(1)).integers(0, vocabulary_size, (examples, length))
    return numbers.astype(dtype)


def masked_lm_batches(batch_size: int, *, examples: int = 11, length: int = 9, seed: int = 5) -> MaskedLMBatches:
    return MaskedLMBatches(token_ids(examples, length), seed=seed, masking=MASKING, batch_size=batch_size)


def assert_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert list(left) == list(right)
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert np.array_equal(left[name], right[name]), name


# Order


@given(
    seed=strategies.seeds, epoch=strategies.epochs, examples=st.integers(1, 40), stage=st.sampled_from(["a", "frozen"])
)
def test_order_agrees_with_the_oracle(seed, epoch, examples, stage):
    order = ExampleOrder(seed=seed, stage=stage, examples=examples, batch_size=8)
    assert order.epoch_order(epoch).tolist() == oracles.permutation(seed, "order", stage, epoch, count=examples)
    assert order.steps_per_epoch == len(range(0, examples, 8))


def test_order_is_the_known_answer():
    assert make.GOLDENS["epoch_order.txt"]() == make.read("epoch_order.txt")
    for line in make.read("epoch_order.txt").splitlines():
        name, _, numbers = line.partition(": ")
        seed, stage, epoch, count = name.split()
        known = oracles.permutation(int(seed), "order", stage, int(epoch), count=int(count))
        assert [int(number) for number in numbers.split()] == known


@pytest.mark.parametrize("batch_size", [1, 4, 11, 50])
def test_an_epoch_is_every_example_once(batch_size):
    batches = masked_lm_batches(batch_size)
    for epoch in range(3):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        seen = [batches.batch(step)["example_ids"] for step in steps]
        assert sorted(np.concatenate(seen).tolist()) == list(range(11))
        assert [len(part) for part in seen[:-1]] == [batch_size] * (len(seen) - 1)


def test_epochs_seeds_and_stages_have_other_orders():
    def order(seed: int, stage: str, epoch: int) -> list[int]:
        return ExampleOrder(seed=seed, stage=stage, examples=50, batch_size=8).epoch_order(epoch).tolist()

    names = [(0, "pretrain", 0), (0, "pretrain", 1), (1, "pretrain", 0), (0, "frozen", 0), (0, "unfrozen", 0)]
    assert len({tuple(order(*name)) for name in names}) == len(names)


# Masked-LM batches


@given(seed=strategies.seeds, batch_size=st.integers(1, 6), step=st.integers(0, 30), static=st.booleans())
@example(seed=0, batch_size=5, step=2, static=True)  # the small last batch of the first epoch
def test_masked_lm_batch_agrees_with_the_oracle(seed, batch_size, step, static):
    ids, masking = token_ids(11, 9), dataclasses.replace(MASKING, static=static)
    batches = MaskedLMBatches(ids, seed=seed, masking=masking, batch_size=batch_size)
    batch = batches.batch(step)
    assert list(batch) == NAMES
    epoch, place = divmod(step, len(range(0, 11, batch_size)))
    order = oracles.permutation(seed, "order", "pretrain", epoch, count=11)
    chosen = order[place * batch_size :][:batch_size]
    assert batch["example_ids"].tolist() == chosen
    known = list(
        oracles.mask_tokens(ids[chosen].tolist(), seed=seed, epoch=epoch, example_ids=chosen, settings=masking)
    )
    assert batch["token_ids"].tolist() == [[token for token, _, _ in row] for row in known]
    flat = [entry for row in known for entry in row]
    selected = [place for place, (_, _, weight) in enumerate(flat) if weight]
    assert batch["positions"][: len(selected)].tolist() == selected
    assert batch["labels"][: len(selected)].tolist() == [flat[place][1] for place in selected]
    assert batch["sample_weight"].tolist() == [1.0] * len(selected) + [0.0] * (len(batch["labels"]) - len(selected))


@given(
    selected=st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=6), more=st.integers(0, 5)
)
@example(selected=[[False] * 9] * 3, more=0)  # nothing is selected
@example(selected=[[True] * 9, [False] * 9], more=1)  # more than one multiple of queries, and an example without any
def test_rows_are_located_where_each_selected_token_stands(selected, more):
    """By the obvious way: rows are numbered place by place, and each example's stand together."""
    numbers, known_places, known_queries = itertools.count(1), [], []
    for example_selected in selected:
        row = [next(numbers) if is_selected else 0 for is_selected in example_selected]
        known_places += row
        known_queries.append([number for number in row if number])
    count = sum(map(len, known_queries))
    found = locate_rows(np.array(selected), count + more)
    assert [str(array.dtype) for array in found.values()] == ["int32"] * 3
    assert found["row_of_place"].tolist() == known_places
    queries = found["row_of_query"].reshape(len(selected), -1)
    assert [[number for number in row if number] for row in queries.tolist()] == known_queries
    assert [
        list(row[: len(known)]) for row, known in zip(queries.tolist(), known_queries, strict=True)
    ] == known_queries
    most = max(map(len, known_queries))
    assert queries.shape[1] % QUERY_MULTIPLE == 0
    assert most <= queries.shape[1] < max(most, 1) + QUERY_MULTIPLE
    assert found["query_of_row"].tolist()[count:] == [0] * more
    assert found["row_of_query"][found["query_of_row"][:count] - 1].tolist() == list(range(1, count + 1))


@pytest.mark.parametrize(("rate", "rows"), [(0.0, 64), (0.15, 64), (1.0, 320)])
def test_rows_are_filled_up_to_a_multiple_with_weight_0(rate, rows):
    """A whole multiple at least: a batch without a selected token still has the same kind of arrays."""
    masking = MaskingSettings(vocabulary_size=30, selection_rate=rate, protected_ids=())
    ids = np.full((32, 9), 3, dtype=np.uint16)
    batch = MaskedLMBatches(ids, seed=0, masking=masking, batch_size=32).batch(0)
    queries = len(batch["row_of_query"])
    assert queries % (32 * QUERY_MULTIPLE) == 0
    assert {name: (len(batch[name]), str(batch[name].dtype)) for name in NAMES} == {
        "example_ids": (32, "int64"),
        "token_ids": (32, "int32"),
        "positions": (rows, "int32"),
        "labels": (rows, "int32"),
        "sample_weight": (rows, "float32"),
        "row_of_place": (32 * 9, "int32"),
        "row_of_query": (queries, "int32"),
        "query_of_row": (rows, "int32"),
    }
    assert rows % ROW_MULTIPLE == 0
    assert batch["positions"].min() >= 0
    assert batch["positions"].max() < 32 * 9
    assert batch["sample_weight"].sum() == {0.0: 0, 1.0: 288}.get(rate, batch["sample_weight"].sum())


@given(steps=st.lists(st.integers(0, 20), min_size=1, max_size=8))
@example(steps=[7, 0, 20, 7])
def test_a_batch_does_not_depend_on_the_steps_before(steps):
    """Resuming, replaying and skipping ahead all build the same arrays."""
    shared = masked_lm_batches(3)
    for step in steps:
        assert_equal(shared.batch(step), masked_lm_batches(3).batch(step))


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_masks_are_the_same_in_micro_batches(parts):
    whole, split = masked_lm_batches(8, examples=16), masked_lm_batches(8 // parts, examples=16)
    for step in range(4):
        batch = whole.batch(step)
        pieces = [split.batch(step * parts + part) for part in range(parts)]
        for name in ("example_ids", "token_ids"):
            assert np.array_equal(np.concatenate([piece[name] for piece in pieces]), batch[name])
        labels = [piece["labels"][piece["sample_weight"] == 1] for piece in pieces]
        assert np.array_equal(np.concatenate(labels), batch["labels"][batch["sample_weight"] == 1])
        size = 9 * 8 // parts
        places = [
            piece["positions"][piece["sample_weight"] == 1] + size * number for number, piece in enumerate(pieces)
        ]
        assert np.array_equal(np.concatenate(places), batch["positions"][batch["sample_weight"] == 1])


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int64"])
def test_batches_do_not_depend_on_the_stored_type_and_leave_the_ids_alone(dtype):
    ids = token_ids(11, 9, dtype=dtype)
    ids.setflags(write=False)
    batches = MaskedLMBatches(ids, seed=5, masking=MASKING, batch_size=4)
    assert_equal(batches.batch(1), masked_lm_batches(4).batch(1))


# Classifier batches


def test_classifier_batches_pair_ids_with_their_labels():
    ids, labels = token_ids(11, 9), (np.arange(11) % 2).astype(np.int8)
    batches = ClassifierBatches(ids, labels, seed=3, batch_size=4, stage="frozen")
    assert batches.steps_per_epoch == 3
    for step in (0, 2, 4):
        batch = batches.batch(step)
        order = oracles.permutation(3, "order", "frozen", step // 3, count=11)
        chosen = order[step % 3 * 4 :][:4]
        assert batch["example_ids"].tolist() == chosen
        assert np.array_equal(batch["token_ids"], ids[chosen])
        assert batch["labels"].tolist() == [float(number % 2) for number in chosen]
        assert (batch["token_ids"].dtype, batch["labels"].dtype) == (np.int32, np.float32)


# Prefetch


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (3, 3), (0, 1), (2, 9)])
def test_prefetch_gives_every_item_in_order(start, stop):
    made = []

    def make_item(step: int) -> int:
        made.append(step)
        return step * step

    assert list(Prefetch(make_item, start, stop)) == [(step, step * step) for step in range(start, stop)]
    assert made == list(range(start, stop))


def test_prefetch_works_one_item_ahead_on_another_thread():
    second_begun, threads = threading.Event(), set()

    def make_item(step: int) -> int:
        threads.add(threading.current_thread())
        if step == 1:
            second_begun.set()
        return step

    items = iter(Prefetch(make_item, 0, 3))
    next(items)
    assert second_begun.wait(60), "item 1 is made while the caller has item 0"
    assert list(items) == [(1, 1), (2, 2)]
    assert threading.current_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_prefetch_hands_on_an_exception_and_ends_its_thread():
    def make_item(step: int) -> int:
        if step == 2:
            raise ValueError("step 2")
        return step

    items = iter(Prefetch(make_item, 0, 5))
    assert [next(items), next(items)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="step 2"):
        next(items)
    assert not any(thread.name.startswith("minibert-batches") for thread in threading.enumerate())


def test_prefetch_that_is_left_early_ends_its_thread():
    items = iter(Prefetch(lambda step: step, 0, 100))
    next(items)
    items.close()
    assert not any(thread.name.startswith("minibert-batches") for thread in threading.enumerate())


def test_threads_that_ask_for_different_epochs_get_their_own():
    shared = ClassifierBatches(np.arange(64)[:, None], np.zeros(64), seed=0, batch_size=8, stage="frozen")
    expected = {step: shared.batch(step)["example_ids"].tolist() for step in (0, 8, 16, 24)}

    def found(step: int) -> list[list[int]]:
        return [shared.batch(step)["example_ids"].tolist() for _ in range(300)]

    with ThreadPoolExecutor(len(expected)) as pool:
        for step, batches in zip(expected, pool.map(found, expected), strict=True):
            assert all(batch == expected[step] for batch in batches)
