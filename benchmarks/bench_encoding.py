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
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.measuring import SHAPE_PARAMETERS, peak_facts, require_installed, time_beside
from benchmarks.workers import GROUP_SIDES, TEXT_MODULES
from benchmarks.workloads import shape_settings
from minibert.perf.shapes import raw_reviews
from minibert.settings import TextSettings
from minibert.text import encode, learn_vocabulary, split_words

REVIEWS = {"tiny": 500, "amazon": 10_000, "imdb": 10_000}


def reviews(shape: str) -> tuple[TextSettings, list[str]]:
    """The settings, and raw reviews."""
    settings = shape_settings(shape).text
    return settings, raw_reviews(REVIEWS[shape], settings)


def facts_of(texts: list[str]) -> dict[str, Any]:
    """What one call processes."""
    return {"tokens": sum(len(text.split()) for text in texts), "bytes": sum(map(len, texts)), "texts": len(texts)}


def arrow(texts: list[str]) -> pa.Array:
    return pa.array(texts, type=pa.string())


def learning_work(side: str, shape: str) -> Callable[[], tuple[str, ...]]:
    """A side's learning of a vocabulary; it gives the words by id."""
    settings, texts = reviews(shape)
    if side == "minibert":
        return lambda: learn_vocabulary([arrow(texts)], settings).words
    if side == "notebook":
        from benchmarks import notebook_text

        return lambda: tuple(notebook_text.learned_layer(texts, settings).get_vocabulary())
    from benchmarks import torch_text

    return lambda: tuple(torch_text.learned_words(texts, settings))


def encoding_work(side: str, shape: str) -> Callable[[], np.ndarray]:
    """A side's encoding by a vocabulary that is learned; it gives ids, int32 (reviews, sequence)."""
    settings, texts = reviews(shape)
    if side == "notebook":
        from benchmarks import notebook_text

        layer = notebook_text.learned_layer(texts, settings)
        return lambda: notebook_text.encode(layer, texts)
    vocabulary = learn_vocabulary([arrow(texts)], settings)
    if side == "minibert":
        return lambda: encode(arrow(texts), vocabulary, settings)
    encode_by_peer = importlib.import_module(TEXT_MODULES[side]).build_encoder(settings, vocabulary)
    return lambda: encode_by_peer(texts)


@pytest.mark.bench
@pytest.mark.benchmark(group="encoding: vocabulary")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", [side for side in GROUP_SIDES if side != "keras-hub"])
def test_learn_vocabulary(benchmark: Any, side: str, shape: str) -> None:
    require_installed(side)
    settings, texts = reviews(shape)
    work, of_notebook = learning_work(side, shape), learning_work("notebook", shape)
    facts = {**facts_of(texts), **peak_facts(benchmark, side, None, learning_work, shape)}

    learned = time_beside(benchmark, work, None if side == "notebook" else of_notebook, facts, side=side)

    ours = learning_work("minibert", shape)()
    assert ours == of_notebook()
    if side != "pytorch":
        assert learned == ours
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
    work, of_notebook = encoding_work(side, shape), encoding_work("notebook", shape)
    facts = {**facts_of(reviews(shape)[1]), **peak_facts(benchmark, side, None, encoding_work, shape)}

    ids = time_beside(benchmark, work, None if side == "notebook" else of_notebook, facts, side=side)

    assert np.array_equal(ids, encoding_work("minibert", shape)() if side == "notebook" else of_notebook())
