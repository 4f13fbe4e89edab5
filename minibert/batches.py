"""The arrays of training step n, for any n: order, masks and selected positions.

Nothing here remembers the step before, so a resumed run, a replay and a parallel reader build the
same batch. A batch of the masked language model carries the flat places of its selected tokens: the
loss is zero everywhere else, so only these rows go through the last block and the vocabulary projection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from minibert.masking import mask_tokens
from minibert.settings import MaskingSettings
from minibert.streams import permutation

ROW_MULTIPLE = 64
"""Selected positions are filled up to a multiple of this with rows of weight 0, so that matrix
products and compiled parts meet few different shapes."""
QUERY_MULTIPLE = 8
"""Likewise the queries of an example."""
DERIVED = ("row_of_place", "row_of_query", "query_of_row")
"""Arrays of a masked-LM batch that follow from its others: neither the trace nor a digest of batches has them."""

Arrays = dict[str, np.ndarray]


class Batches(Protocol):
    """A training set as a function of the step."""

    steps_per_epoch: int

    def batch(self, step: int) -> Arrays:
        """The arrays of global step ``step``, counted from 0 over all epochs."""
        ...


@dataclass(frozen=True)
class ExampleOrder:
    """Which examples make up step n: a new permutation for every epoch, never a carried-on one.

    Attributes:
        seed: The run's root seed.
        stage: The training stage's name, part of the stream's name.
        examples: Number of examples.
        batch_size: Examples per step; the last batch of an epoch may be smaller.
    """

    seed: int
    stage: str
    examples: int
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the examples."""
        return math.ceil(self.examples / self.batch_size)

    def epoch_order(self, epoch: int) -> np.ndarray:
        """The example ids of an epoch in training order, int64 (examples,)."""
        return permutation(self.seed, "order", self.stage, epoch, count=self.examples)


class _LastEpoch:
    """Keeps one epoch's order, since consecutive steps ask for the same one.

    Epoch and order are one tuple, so that two threads never see the order of one epoch under the number of another.
    """

    def __init__(self, order: ExampleOrder) -> None:
        self._order, self._kept = order, (-1, np.empty(0, dtype=np.int64))

    def example_ids(self, step: int) -> tuple[int, np.ndarray]:
        epoch, place = divmod(step, self._order.steps_per_epoch)
        kept = self._kept
        if kept[0] != epoch:
            kept = self._kept = (epoch, self._order.epoch_order(epoch))
        start = place * self._order.batch_size
        return epoch, kept[1][start : start + self._order.batch_size]


class MaskedLMBatches:
    """Batches of the masked language model.

    A batch has ``example_ids`` int64 (batch,), ``token_ids`` int32 (batch, sequence) after
    replacement, and for the selected tokens, row by row, ``positions`` int32 (rows,) into the flattened
    batch, ``labels`` int32 (rows,) and ``sample_weight`` float32 (rows,): 1, and 0 for the rows that
    fill up to a multiple of `ROW_MULTIPLE` (at least one multiple is there). Where these rows stand is
    what `locate_rows` gives.

    Args:
        token_ids: Encoded texts, integers (examples, sequence).
        seed: The run's root seed.
        masking: Rates, and the vocabulary's size.
        batch_size: Examples per step.
        stage: Part of the order stream's name.
    """

    def __init__(
        self, token_ids: np.ndarray, *, seed: int, masking: MaskingSettings, batch_size: int, stage: str = "pretrain"
    ) -> None:
        self._token_ids, self._seed, self._masking = token_ids, seed, masking
        order = ExampleOrder(seed=seed, stage=stage, examples=len(token_ids), batch_size=batch_size)
        self._last, self.steps_per_epoch = _LastEpoch(order), order.steps_per_epoch

    def batch(self, step: int) -> Arrays:
        """The arrays of global step ``step``."""
        epoch, example_ids = self._last.example_ids(step)
        masked = mask_tokens(
            self._token_ids[example_ids].astype(np.int32),
            seed=self._seed,
            epoch=epoch,
            example_ids=example_ids,
            settings=self._masking,
        )
        positions = np.flatnonzero(masked.sample_weight)
        rows = filled_up(len(positions), ROW_MULTIPLE)
        filled = np.zeros(rows, dtype=np.int32)
        filled[: len(positions)] = positions
        weight = np.zeros(rows, dtype=np.float32)
        weight[: len(positions)] = 1.0
        return {
            "example_ids": example_ids,
            "token_ids": masked.token_ids,
            "positions": filled,
            "labels": masked.labels.reshape(-1)[filled],
            "sample_weight": weight,
            **locate_rows(masked.sample_weight != 0, rows),
        }


def filled_up(count: int, multiple: int) -> int:
    """The next multiple that has room for so many; one multiple at least."""
    return max(math.ceil(count / multiple), 1) * multiple


def drawn_arrays(batch: Arrays) -> Arrays:
    """What makes a batch: its arrays but for those that follow from the others."""
    return {name: array for name, array in batch.items() if name not in DERIVED}


def locate_rows(is_selected: np.ndarray, rows: int, *, least_queries: int = 0) -> Arrays:
    """Where the selected tokens' rows stand, so that each example's can ask for themselves in attention.

    Rows are counted from 1 in the order of their places, and 0 stands for none: rows that only fill up are none.

    Args:
        is_selected: bool, (batch, sequence).
        rows: Number of rows, those that fill up included.
        least_queries: An example has room for so many rows at least.

    Returns:
        int32 each: ``row_of_place`` (batch * sequence,), the row of each place; ``row_of_query`` (batch * queries,),
        the rows of each example, where ``queries`` is the largest number that an example has, filled up to a multiple
        of `QUERY_MULTIPLE`; ``query_of_row`` (rows,), the place of each row in ``row_of_query``, counted from 1.
    """
    count = int(is_selected.sum())
    row_of_place = np.zeros(is_selected.size, dtype=np.int32)
    row_of_place[is_selected.reshape(-1)] = np.arange(1, count + 1)
    of_example = is_selected.sum(axis=1)
    queries = filled_up(max(int(of_example.max(initial=0)), least_queries), QUERY_MULTIPLE)
    is_query = np.arange(queries) < of_example[:, None]
    row_of_query, query_of_row = np.zeros(is_query.size, dtype=np.int32), np.zeros(rows, dtype=np.int32)
    row_of_query[is_query.reshape(-1)] = np.arange(1, count + 1)
    query_of_row[:count] = np.flatnonzero(is_query) + 1
    return {"row_of_place": row_of_place, "row_of_query": row_of_query, "query_of_row": query_of_row}


class ClassifierBatches:
    """Batches of the classifier: ``example_ids``, ``token_ids`` int32 (batch, sequence), ``labels`` float32 (batch,).

    Args:
        token_ids: Encoded texts, integers (examples, sequence).
        labels: 0 or 1, (examples,).
        seed: The run's root seed.
        batch_size: Examples per step.
        stage: Part of the order stream's name, ``frozen`` or ``unfrozen``.
    """

    def __init__(self, token_ids: np.ndarray, labels: np.ndarray, *, seed: int, batch_size: int, stage: str) -> None:
        self._token_ids, self._labels = token_ids, labels
        order = ExampleOrder(seed=seed, stage=stage, examples=len(token_ids), batch_size=batch_size)
        self._last, self.steps_per_epoch = _LastEpoch(order), order.steps_per_epoch

    def batch(self, step: int) -> Arrays:
        """The arrays of global step ``step``."""
        _, example_ids = self._last.example_ids(step)
        return {
            "example_ids": example_ids,
            "token_ids": self._token_ids[example_ids].astype(np.int32),
            "labels": self._labels[example_ids].astype(np.float32),
        }


T = TypeVar("T")


class Prefetch(Generic[T]):
    """Builds item n + 1 on a thread while the caller works on item n.

    Args:
        make: Gives the item of a step; called in order, by one thread.
        start: The first step.
        stop: One after the last.
    """

    def __init__(self, make: Callable[[int], T], start: int, stop: int) -> None:
        self._make, self._steps = make, range(start, stop)

    def __iter__(self) -> Iterator[tuple[int, T]]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="minibert-batches") as pool:
            pending = pool.submit(self._make, self._steps[0]) if self._steps else None
            for step in self._steps:
                assert pending is not None
                item = pending.result()
                pending = pool.submit(self._make, step + 1) if step + 1 in self._steps else None
                yield step, item
