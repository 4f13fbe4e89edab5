"""How long does it take to learn a vocabulary, and to encode texts, beside the notebooks' layer and the peers' own?

    pytest benchmarks/bench_encoding.py -m "slow or not slow"

All get the same raw reviews in memory, and their ids are compared one by one. The notebooks' is Keras'
``TextVectorization``, keras-hub's its word pieces with whole words only, PyTorch's Hugging Face's tokenizers. keras-hub
learns no vocabulary of whole words. A review has capitals,
punctuation and line breaks; its words follow Zipf's law, so that the vocabulary is as large as a real one.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.measuring import SHAPE_PARAMETERS, Work, require_installed, time_beside
from benchmarks.workloads import shape_settings
from minibert.perf.shapes import raw_reviews
from minibert.text import encode, learn_vocabulary, split_words

REVIEWS = {"tiny": 500, "amazon": 10_000, "imdb": 10_000}


def facts_of(texts: list[str]) -> dict[str, Any]:
    """What one call processes."""
    return {"tokens": sum(len(text.split()) for text in texts), "bytes": sum(map(len, texts)), "texts": len(texts)}


def arrow(texts: list[str]) -> pa.Array:
    return pa.array(texts, type=pa.string())


@pytest.mark.bench
@pytest.mark.benchmark(group="encoding: vocabulary")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", ["minibert", "notebook", "pytorch"])
def test_learn_vocabulary(benchmark: Any, side: str, shape: str) -> None:
    require_installed(side)
    from benchmarks import notebook_text

    settings = shape_settings(shape).text
    texts = raw_reviews(REVIEWS[shape], settings)

    def ours() -> Sequence[str]:
        return learn_vocabulary([arrow(texts)], settings).words

    def notebooks() -> Sequence[str]:
        return tuple(notebook_text.learned_layer(texts, settings).get_vocabulary())

    def pytorchs() -> Sequence[str]:
        from benchmarks import torch_text

        return torch_text.learned_words(texts, settings)

    work = {"minibert": ours, "notebook": notebooks, "pytorch": pytorchs}[side]
    words = time_beside(benchmark, work, None if side == "notebook" else notebooks, facts_of(texts), side=side)

    if side != "pytorch":
        assert words == (notebooks() if side == "minibert" else ours())
    else:  # it breaks ties by another rule, and so differs in the words of the least count
        counts = Counter(split_words(arrow(texts), settings)[0].to_pylist())
        least = min(counts[word] for word in ours()[2:-1])
        assert {word for word, count in counts.items() if count > least} <= set(words)
        assert len(words) == len(ours())


@pytest.mark.bench
@pytest.mark.benchmark(group="encoding: ids")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", ["minibert", "notebook", "keras-hub", "pytorch"])
def test_encode(benchmark: Any, side: str, shape: str) -> None:
    require_installed(side)
    from benchmarks import notebook_text

    settings = shape_settings(shape).text
    texts = raw_reviews(REVIEWS[shape], settings)
    vocabulary, layer = learn_vocabulary([arrow(texts)], settings), notebook_text.learned_layer(texts, settings)

    def ours() -> np.ndarray:
        return encode(arrow(texts), vocabulary, settings)

    def notebooks() -> np.ndarray:
        return notebook_text.encode(layer, texts)

    def of_peer() -> Work:
        text: Any = importlib.import_module(f"benchmarks.{'torch' if side == 'pytorch' else 'keras_hub'}_text")
        made = text.tokenizer(settings, vocabulary)
        return lambda: text.encode(made, texts)

    work = {"minibert": ours, "notebook": notebooks}.get(side) or of_peer()
    ids = time_beside(benchmark, work, None if side == "notebook" else notebooks, facts_of(texts), side=side)

    assert np.array_equal(ids, ours() if side == "notebook" else notebooks())
