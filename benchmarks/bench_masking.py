"""How long does masking take for each token, beside the notebooks' own unseeded NumPy code and the peers' layers?

    pytest benchmarks/bench_masking.py

Both notebooks' shapes, the whole array at once (as the notebooks do) and in batches of 32 (as a
training step does). keras-hub's layer selects 15 % of each example's tokens, rounded, the others each token by itself.
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
from minibert.settings import MaskingSettings

SIZES = {"imdb": (4_096, 256), "amazon": (4_096, 128)}
"""Preset -> (examples, sequence length)."""

BATCH_SIZES = {"whole": 4_096, "batches of 32": 32}
ROUNDS = 31
SETTINGS = MaskingSettings(vocabulary_size=30_000)

Masked = tuple[np.ndarray, np.ndarray, np.ndarray]


def by_minibert(token_ids: np.ndarray, batch_size: int) -> list[Masked]:
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


def by_notebook(token_ids: np.ndarray, batch_size: int) -> list[Masked]:
    return [
        notebook_masking.mask_tokens(token_ids[start : start + batch_size], SETTINGS.mask_id)
        for start in range(0, len(token_ids), batch_size)
    ]


def by_keras_hub(size: str) -> Callable[[np.ndarray, int], list[Any]]:
    """keras-hub's layer, whose results stay as it gives them."""
    from benchmarks import keras_hub_text

    masker = keras_hub_text.masker(dataclasses.replace(shape_settings(size), masking=SETTINGS))

    def masked(token_ids: np.ndarray, batch_size: int) -> list[Any]:
        return [masker(token_ids[start : start + batch_size]) for start in range(0, len(token_ids), batch_size)]

    return masked


def by_pytorch(size: str) -> Callable[[np.ndarray, int], list[Any]]:
    """Transformers' collator, likewise."""
    import torch

    from benchmarks import torch_text

    masker = torch_text.masker(SETTINGS)

    def masked(token_ids: np.ndarray, batch_size: int) -> list[Any]:
        return [masker(batch) for batch in torch.from_numpy(token_ids).split(batch_size)]

    return masked


def own_masking(code: str, size: str) -> Callable[[np.ndarray, int], list[Any]]:
    """A side's masking of an array in batches."""
    if code in ("keras-hub", "pytorch"):
        return by_keras_hub(size) if code == "keras-hub" else by_pytorch(size)
    return by_minibert if code == "minibert" else by_notebook


def as_arrays(code: str, token_ids: np.ndarray, batches: list[Any]) -> list[Masked]:
    """A side's results as masked ids, labels and weights, each of the ids' shape."""
    if code in ("minibert", "notebook"):
        return batches
    masked, labels, weight = [], token_ids.copy(), np.zeros(token_ids.shape)
    rows = 0
    for batch in batches:
        if code == "keras-hub":
            found, positions, ids, counted = (
                np.asarray(batch[name]) for name in ("token_ids", "mask_positions", "mask_ids", "mask_weights")
            )
            examples, places = np.nonzero(counted)
            at = (rows + examples, positions[examples, places])
            of_labels = ids[examples, places]
        else:
            found, targets = (array.numpy() for array in batch)
            examples, places = np.nonzero(targets != -100)
            at, of_labels = (rows + examples, places), targets[examples, places]
        weight[at], labels[at] = 1, of_labels
        masked.append(found)
        rows += len(found)
    return [(np.concatenate(masked), labels, weight)]


def check_result(token_ids: np.ndarray, batches: list[Masked], *, is_rounded: bool = False) -> int:
    """The number of selected tokens, if the recipe was followed; of each example, it may be rounded."""
    masked, labels, weight = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    selected = weight == 1
    count, selectable = int(selected.sum()), int((token_ids > 2).sum())
    assert np.array_equal(labels, token_ids)
    assert np.array_equal(masked[~selected], token_ids[~selected])
    assert not selected[token_ids <= 2].any()
    assert abs(count / selectable - 0.15) < (0.01 if is_rounded else 0.003)
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
    batch_size = BATCH_SIZES[way]

    masking = own_masking(code, size)

    def work() -> list[Any]:
        return masking(token_ids, batch_size)

    def theirs() -> list[Masked]:
        return by_notebook(token_ids, batch_size)

    reference = None if code == "notebook" else theirs
    found = time_beside(benchmark, work, reference, {"tokens": token_ids.size}, side=code, rounds=ROUNDS)

    batches = as_arrays(code, token_ids, found)
    benchmark.extra_info["masked_tokens"] = check_result(token_ids, batches, is_rounded=code == "keras-hub")
    benchmark.extra_info["bytes"] = token_ids.nbytes + sum(array.nbytes for batch in batches for array in batch)
