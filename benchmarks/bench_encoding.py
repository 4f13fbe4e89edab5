"""How long does it take to learn a vocabulary, and to encode texts, beside the notebooks' ``TextVectorization``?

    pytest benchmarks/bench_encoding.py -m "slow or not slow"

Both get the same raw reviews in memory, and their ids are compared one by one. A review has capitals,
punctuation and line breaks; its words follow Zipf's law, so that the vocabulary is as large as a real one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.measuring import SHAPE_PARAMETERS, time_beside
from benchmarks.workloads import shape_settings
from minibert.perf.shapes import raw_reviews
from minibert.text import Vocabulary, encode, learn_vocabulary

REVIEWS = {"tiny": 500, "amazon": 10_000, "imdb": 10_000}


def facts_of(texts: list[str]) -> dict[str, Any]:
    """What one call processes."""
    return {"tokens": sum(len(text.split()) for text in texts), "bytes": sum(map(len, texts)), "texts": len(texts)}


def arrow(texts: list[str]) -> pa.Array:
    return pa.array(texts, type=pa.string())


@pytest.mark.bench
@pytest.mark.benchmark(group="encoding: vocabulary")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", ["minibert", "notebook"])
def test_learn_vocabulary(benchmark: Any, side: str, shape: str) -> None:
    from benchmarks import notebook_text

    settings = shape_settings(shape).text
    texts = raw_reviews(REVIEWS[shape], settings)

    def ours() -> Vocabulary:
        return learn_vocabulary([arrow(texts)], settings)

    def theirs() -> Any:
        return notebook_text.learned_layer(texts, settings)

    works = (ours, theirs) if side == "minibert" else (theirs, None)
    learned = time_beside(benchmark, *works, facts_of(texts), side=side)

    words = learned.words if side == "minibert" else tuple(learned.get_vocabulary())
    assert words == (ours().words if side == "notebook" else tuple(theirs().get_vocabulary()))


@pytest.mark.bench
@pytest.mark.benchmark(group="encoding: ids")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", ["minibert", "notebook"])
def test_encode(benchmark: Any, side: str, shape: str) -> None:
    from benchmarks import notebook_text

    settings = shape_settings(shape).text
    texts = raw_reviews(REVIEWS[shape], settings)
    vocabulary, layer = learn_vocabulary([arrow(texts)], settings), notebook_text.learned_layer(texts, settings)

    def ours() -> np.ndarray:
        return encode(arrow(texts), vocabulary, settings)

    def theirs() -> np.ndarray:
        return notebook_text.encode(layer, texts)

    works = (ours, theirs) if side == "minibert" else (theirs, None)
    ids = time_beside(benchmark, *works, facts_of(texts), side=side)

    assert np.array_equal(ids, theirs() if side == "minibert" else ours())
