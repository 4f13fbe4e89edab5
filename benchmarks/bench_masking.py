"""How long does masking take for each token, beside the notebooks' own unseeded NumPy code and the peers' layers?

    pytest benchmarks/bench_masking.py

Both notebooks' shapes, the whole array at once (as the notebooks do) and in batches of 32 (as a
training step does). keras-hub's layer selects 15 % of each example's tokens, rounded up and not more than it keeps, the
others each token by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks import notebook_masking
from benchmarks.measuring import require_installed, time_beside
from benchmarks.workloads import realistic_token_ids, shape_settings
from minibert.masking import mask_tokens
from minibert.settings import MaskingSettings, RunSettings

SIZES = {"imdb": (4_096, 256), "amazon": (4_096, 128)}
"""Preset -> (examples, sequence length)."""

BATCH_SIZES = {"whole": 4_096, "batches of 32": 32}
ROUNDS = 31
SETTINGS = MaskingSettings(vocabulary_size=30_000)

Masked = tuple[np.ndarray, np.ndarray, np.ndarray]


def mask_by_minibert(token_ids: np.ndarray, batch_size: int) -> list[Masked]:
    example_ids = np.arange(len(token_ids))
    return [
        mask_tokens(
            token_ids[start : start + batch_size],
            seed=0,
            settings=SETTINGS,
            example_ids=example_ids[start : start + batch_size],
        )
        for start in range(0, len(token_ids), batch_size)
    ]


def mask_by_notebook(token_ids: np.ndarray, batch_size: int) -> list[Masked]:
    return [
        notebook_masking.mask_tokens(token_ids[start : start + batch_size], SETTINGS.mask_id)
        for start in range(0, len(token_ids), batch_size)
    ]


def build_masking(side: str, size: str) -> Callable[[np.ndarray, int], list[Any]]:
    """A side's masking of ids in batches; its results stay as it gives them."""
    if side == "keras-hub":
        from benchmarks import keras_hub_text

        mask_by_keras_hub = keras_hub_text.build_masker(keras_hub_settings(size))
        return lambda token_ids, batch_size: [
            mask_by_keras_hub(token_ids[start : start + batch_size]) for start in range(0, len(token_ids), batch_size)
        ]
    if side == "pytorch":
        import torch

        from benchmarks import torch_text

        mask_by_pytorch = torch_text.build_masker(SETTINGS)
        return lambda token_ids, batch_size: [
            mask_by_pytorch(batch) for batch in torch.from_numpy(token_ids).split(batch_size)
        ]
    return mask_by_minibert if side == "minibert" else mask_by_notebook


def keras_hub_settings(size: str) -> RunSettings:
    return dataclasses.replace(shape_settings(size), masking=SETTINGS)


def arrays_of(batch: Any) -> list[np.ndarray]:
    """The arrays of a batch as a side gives it."""
    return [np.asarray(array) for array in (batch.values() if isinstance(batch, dict) else batch)]


def unpacked(side: str, token_ids: np.ndarray, batch: Any) -> Masked:
    """Masked ids, labels and weights, each of the ids' shape."""
    if side in ("minibert", "notebook"):
        return batch
    labels, weight = token_ids.copy(), np.zeros(token_ids.shape)
    if side == "pytorch":
        masked, targets = arrays_of(batch)
        at = np.nonzero(targets != -100)
        labels[at], weight[at] = targets[at], 1
        return masked, labels, weight
    masked, positions, ids, counted = (
        np.asarray(batch[name]) for name in ("token_ids", "mask_positions", "mask_ids", "mask_weights")
    )
    examples, places = np.nonzero(counted)
    at = (examples, positions[examples, places])
    labels[at], weight[at] = ids[examples, places], 1
    return masked, labels, weight


def check_result(token_ids: np.ndarray, batches: list[Masked], counts: np.ndarray | None) -> int:
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
    assert abs((masked[selected] == SETTINGS.mask_id).mean() - 0.8) < 0.01
    assert abs((masked[selected] == token_ids[selected]).mean() - 0.1) < 0.01
    return count


@pytest.mark.bench
@pytest.mark.benchmark(group="masking")
@pytest.mark.parametrize("way", BATCH_SIZES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("code", ["minibert", "notebook", "keras-hub", "pytorch"])
def test_masking(benchmark: Any, code: str, size: str, way: str) -> None:
    require_installed(code)
    token_ids = realistic_token_ids(*SIZES[size], SETTINGS.required_vocabulary_size)
    batch_size, mask, counts = BATCH_SIZES[way], build_masking(code, size), None
    if code == "keras-hub":
        from benchmarks.keras_hub_text import selected_counts

        counts = selected_counts(token_ids, keras_hub_settings(size))

    def work() -> list[Any]:
        return mask(token_ids, batch_size)

    def reference() -> list[Masked]:
        return mask_by_notebook(token_ids, batch_size)

    beside = None if code == "notebook" else reference
    found = time_beside(benchmark, work, beside, {"tokens": token_ids.size}, side=code, rounds=ROUNDS)

    starts = range(0, len(token_ids), batch_size)
    batches = [unpacked(code, token_ids[at : at + batch_size], b) for at, b in zip(starts, found, strict=True)]
    benchmark.extra_info["masked_tokens"] = check_result(token_ids, batches, counts)
    benchmark.extra_info["bytes"] = token_ids.nbytes + sum(array.nbytes for b in found for array in arrays_of(b))
