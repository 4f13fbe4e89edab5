"""How long does masking take for each token, beside the notebooks' own unseeded NumPy code?

    pytest benchmarks/bench_masking.py

Both notebooks' shapes, the whole array at once (as the notebooks do) and in batches of 32 (as a
training step does).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import notebook_masking
from benchmarks.measuring import time_beside
from benchmarks.workloads import realistic_token_ids
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


def check_result(token_ids: np.ndarray, batches: list[Masked]) -> int:
    """The number of selected tokens, if the recipe was followed."""
    masked, labels, weight = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    selected = weight == 1
    count, selectable = int(selected.sum()), int((token_ids > 2).sum())
    assert np.array_equal(labels, token_ids)
    assert np.array_equal(masked[~selected], token_ids[~selected])
    assert not selected[token_ids <= 2].any()
    assert abs(count / selectable - 0.15) < 0.003
    assert abs((masked[selected] == SETTINGS.mask_id).mean() - 0.8) < 0.01
    assert abs((masked[selected] == token_ids[selected]).mean() - 0.1) < 0.01
    return count


@pytest.mark.bench
@pytest.mark.benchmark(group="masking")
@pytest.mark.parametrize("way", BATCH_SIZES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("code", ["minibert", "notebook"])
def test_masking(benchmark: Any, code: str, size: str, way: str) -> None:
    token_ids = realistic_token_ids(*SIZES[size], SETTINGS.required_vocabulary_size)
    batch_size = BATCH_SIZES[way]

    def ours() -> list[Masked]:
        return by_minibert(token_ids, batch_size)

    def theirs() -> list[Masked]:
        return by_notebook(token_ids, batch_size)

    works = (ours, theirs) if code == "minibert" else (theirs, None)
    batches = time_beside(benchmark, *works, {"tokens": token_ids.size}, side=code, rounds=ROUNDS)

    benchmark.extra_info["masked_tokens"] = check_result(token_ids, batches)
    benchmark.extra_info["bytes"] = token_ids.nbytes + sum(array.nbytes for batch in batches for array in batch)
