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
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.measuring import SHAPE_PARAMETERS, Work, require_installed, time_beside
from benchmarks.workers import GROUP_SIDES, TEXT_MODULES
from benchmarks.workloads import shape_settings
from minibert.perf.shapes import raw_reviews
from minibert.text import Vocabulary, encode, learn_vocabulary, split_words

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

    def learn_by_minibert() -> Vocabulary:
        return learn_vocabulary([arrow(texts)], settings)

    def learn_by_notebook() -> Any:
        return notebook_text.learned_layer(texts, settings)

    def learn_by_pytorch() -> list[str]:
        from benchmarks import torch_text

        return torch_text.learned_words(texts, settings)

    work: Any = {"minibert": learn_by_minibert, "notebook": learn_by_notebook, "pytorch": learn_by_pytorch}[side]
    reference = None if side == "notebook" else learn_by_notebook
    learned = time_beside(benchmark, work, reference, facts_of(texts), side=side)

    ours = learn_by_minibert().words
    if side != "pytorch":
        of_layer = learned if side == "notebook" else learn_by_notebook()
        assert ours == tuple(of_layer.get_vocabulary())
        assert side == "notebook" or ours == learned.words
    else:  # it breaks ties by another rule
        counts = Counter(split_words(arrow(texts), settings)[0].to_pylist())
        assert [counts[word] for word in learned[2:-1]] == [counts[word] for word in ours[2:-1]]
        assert len(set(learned)) == len(ours)


@pytest.mark.bench
@pytest.mark.benchmark(group="encoding: ids")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", GROUP_SIDES)
def test_encode(benchmark: Any, side: str, shape: str) -> None:
    require_installed(side)
    from benchmarks import notebook_text

    settings = shape_settings(shape).text
    texts = raw_reviews(REVIEWS[shape], settings)
    vocabulary, layer = learn_vocabulary([arrow(texts)], settings), notebook_text.learned_layer(texts, settings)

    def encode_by_minibert() -> np.ndarray:
        return encode(arrow(texts), vocabulary, settings)

    def encode_by_notebook() -> np.ndarray:
        return notebook_text.encode(layer, texts)

    def peers_encoding() -> Work:
        encode_by_peer = importlib.import_module(TEXT_MODULES[side]).build_encoder(settings, vocabulary)
        return lambda: encode_by_peer(texts)

    work = {"minibert": encode_by_minibert, "notebook": encode_by_notebook}.get(side) or peers_encoding()
    reference = None if side == "notebook" else encode_by_notebook
    ids = time_beside(benchmark, work, reference, facts_of(texts), side=side)

    assert np.array_equal(ids, encode_by_minibert() if side == "notebook" else encode_by_notebook())
