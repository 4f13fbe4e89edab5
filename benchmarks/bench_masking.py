"""How long does masking take for each token, beside the notebooks' own unseeded NumPy code and the peers' layers?

    pytest benchmarks/bench_masking.py

Both notebooks' shapes, the whole array at once (as the notebooks do) and in batches of 32 (as a
training step does). keras-hub's layer selects 15 % of each example's tokens, rounded up and not more than it keeps, the
others each token by itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks import notebook_masking
from benchmarks.measuring import Work, peak_facts, require_side, time_beside
from benchmarks.workers import GROUP_SIDES, OURS, PEERS, TEXT_MODULES
from benchmarks.workloads import realistic_token_ids, shape_settings
from minibert.masking import mask_tokens
from minibert.settings import RunSettings

EXAMPLES = 4_096
BATCH_SIZES = {"whole": EXAMPLES, "batches of 32": 32}
ROUNDS = 31

Masked = tuple[np.ndarray, np.ndarray, np.ndarray]


def build_masking(side: str, settings: RunSettings) -> Callable[[np.ndarray, np.ndarray], Any]:
    """A side's masking of one batch: its ids, and whose they are; the result stays as the side gives it."""
    if side == OURS:
        return lambda token_ids, example_ids: mask_tokens(
            token_ids, seed=0, settings=settings.masking, example_ids=example_ids
        )
    if side == "notebook":
        return lambda token_ids, _: notebook_masking.mask_tokens(token_ids, settings.masking.mask_id)
    mask = importlib.import_module(TEXT_MODULES[side]).build_masker(settings)
    return lambda token_ids, _: mask(token_ids)


def masking_work(side: str, settings: RunSettings, token_ids: np.ndarray, batch_size: int) -> Work:
    """A side's masking of all examples, batch by batch; it gives a list of what the side gives for each."""
    mask, example_ids = build_masking(side, settings), np.arange(len(token_ids))
    batches = slices_of(len(token_ids), batch_size)
    return lambda: [mask(token_ids[batch], example_ids[batch]) for batch in batches]


def slices_of(count: int, batch_size: int) -> list[slice]:
    """The examples of each batch."""
    return [slice(start, start + batch_size) for start in range(0, count, batch_size)]


def arrays_of(batch: Any) -> list[np.ndarray]:
    """The arrays of a batch as a side gives it."""
    return [np.asarray(array) for array in (batch.values() if isinstance(batch, dict) else batch)]


def unpacked(side: str, token_ids: np.ndarray, batch: Any) -> Masked:
    """Masked ids, labels and weights, each of the ids' shape."""
    found: Masked = importlib.import_module(TEXT_MODULES[side]).unpacked(token_ids, batch) if side in PEERS else batch
    return found


def check_result(token_ids: np.ndarray, batches: list[Masked], counts: np.ndarray | None, mask_id: int) -> int:
    """The number of selected tokens, if the recipe was followed; of each example, ``counts`` where they are known."""
    masked, labels, weight = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    selected = weight == 1
    count, selectable = int(selected.sum()), int((token_ids > 2).sum())
    assert np.array_equal(labels, token_ids)
    assert np.array_equal(masked[~selected], token_ids[~selected])
    assert not selected[token_ids <= 2].any()
    if counts is None:
        assert abs(count / selectable - 0.15) < 0.003
    else:
        assert np.array_equal(selected.sum(axis=1), counts)
    assert abs((masked[selected] == mask_id).mean() - 0.8) < 0.01
    assert abs((masked[selected] == token_ids[selected]).mean() - 0.1) < 0.01
    return count


@pytest.mark.bench
@pytest.mark.benchmark(group="masking")
@pytest.mark.parametrize("way", BATCH_SIZES)
@pytest.mark.parametrize("shape", ["imdb", "amazon"])
@pytest.mark.parametrize("side", GROUP_SIDES)
def test_masking(benchmark: Any, side: str, shape: str, way: str) -> None:
    require_side(side)
    settings, counts = shape_settings(shape), None
    token_ids = realistic_token_ids(EXAMPLES, settings.text.sequence_length, settings.masking.required_vocabulary_size)
    if side == "keras-hub":
        from benchmarks.keras_hub_text import selected_counts

        counts = selected_counts(token_ids, settings)

    task = (settings, token_ids, BATCH_SIZES[way])
    work, reference = (masking_work(of, *task) for of in (side, "notebook"))
    beside = None if side == "notebook" else reference
    facts = {"tokens": token_ids.size, **peak_facts(benchmark, side, None, masking_work, *task)}
    found = time_beside(benchmark, work, beside, facts, side=side, rounds=ROUNDS)

    batches = slices_of(EXAMPLES, BATCH_SIZES[way])
    masked = [unpacked(side, token_ids[batch], result) for batch, result in zip(batches, found, strict=True)]
    benchmark.extra_info["masked_tokens"] = check_result(token_ids, masked, counts, settings.masking.mask_id)
    benchmark.extra_info["bytes"] = token_ids.nbytes + sum(array.nbytes for b in found for array in arrays_of(b))
