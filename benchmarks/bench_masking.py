"""How long does masking take for each token, beside the notebooks' own unseeded NumPy code?

    pytest benchmarks/bench_masking.py

Both notebooks' shapes, the whole array at once (as the notebooks do) and in batches of 32 (as a
training step does). Before each timed round the reference runs once on the same array, so that both
meet the same machine; ``extra_info["ratio"]`` is the median of the pairs' ratios, how many times
faster than the notebooks' code (which itself is near 1). Every result is checked after it was timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks import notebook_masking
from minibert.masking import mask_tokens
from minibert.settings import MaskingSettings

SIZES = {"imdb": (4_096, 256), "amazon": (4_096, 128)}
"""Preset -> (examples, sequence length)."""

BATCH_SIZES = {"whole": 4_096, "batches of 32": 32}
ROUNDS = 31
SETTINGS = MaskingSettings(vocabulary_size=30_000)

Masked = tuple[np.ndarray, np.ndarray, np.ndarray]


def realistic_token_ids(examples: int, length: int) -> np.ndarray:
    """int64 ids as the notebooks' text layer gives them: Zipf's words, 3 % unknown, 31 % padding."""
    generator = np.random.Generator(np.random.PCG64(0))
    ranks = np.minimum(np.exp(generator.uniform(0.0, np.log(29_997), (examples, length))), 29_996.0)
    token_ids = 1 + ranks.astype(np.int64)
    token_ids[generator.random((examples, length)) < 0.028] = 1
    lengths = np.minimum(generator.exponential(1.24 * length, examples), length).astype(int)
    token_ids[np.arange(length) >= lengths[:, None]] = 0
    return token_ids


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


def seconds_of(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.bench
@pytest.mark.benchmark(group="masking")
@pytest.mark.parametrize("way", BATCH_SIZES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("code", ["minibert", "notebook"])
def test_masking(benchmark: Any, code: str, size: str, way: str) -> None:
    token_ids, batch_size = realistic_token_ids(*SIZES[size]), BATCH_SIZES[way]
    mask = by_minibert if code == "minibert" else by_notebook
    reference_seconds: list[float] = []

    def run_reference() -> None:
        reference_seconds.append(seconds_of(lambda: by_notebook(token_ids, batch_size)))

    mask(token_ids, batch_size)
    batches = benchmark.pedantic(
        mask, args=(token_ids, batch_size), setup=run_reference, rounds=ROUNDS, warmup_rounds=0
    )

    benchmark.extra_info["tokens"] = token_ids.size
    benchmark.extra_info["masked_tokens"] = check_result(token_ids, batches)
    benchmark.extra_info["bytes"] = token_ids.nbytes + sum(array.nbytes for batch in batches for array in batch)
    if benchmark.stats is not None:  # None where benchmarks run once, untimed
        seconds = benchmark.stats.stats.data
        ratios = [theirs / ours for ours, theirs in zip(seconds, reference_seconds[-len(seconds) :], strict=True)]
        benchmark.extra_info["ns_per_token"] = round(statistics.median(seconds) / token_ids.size * 1e9, 2)
        benchmark.extra_info["ratio"] = round(statistics.median(ratios), 3)
        if code != "notebook":  # in these units a history keeps the time
            benchmark.extra_info["reference_data"] = reference_seconds[-len(seconds) :]
            benchmark.extra_info["reference_seconds"] = statistics.median(reference_seconds[-len(seconds) :])
