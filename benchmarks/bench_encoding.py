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

from benchmarks.measuring import SHAPE_PARAMETERS, Work, peak_facts, require_side, time_beside
from benchmarks.workers import GROUP_SIDES, TEXT_MODULES
from benchmarks.workloads import shape_settings
from minibert.perf.shapes import raw_reviews
from minibert.settings import TextSettings
from minibert.text import Vocabulary, encode, learn_vocabulary, split_words

REVIEWS = {"tiny": 500, "amazon": 10_000, "imdb": 10_000}


def facts_of(texts: list[str]) -> dict[str, Any]:
    """What one call processes."""
    return {"tokens": sum(len(text.split()) for text in texts), "bytes": sum(map(len, texts)), "texts": len(texts)}


def arrow(texts: list[str]) -> pa.Array:
    return pa.array(texts, type=pa.string())


def learning_work(side: str, settings: TextSettings, texts: list[str]) -> Work:
    """A side's learning of a vocabulary; it gives what has the words, for `words_of`."""
    if side == "minibert":
        return lambda: learn_vocabulary([arrow(texts)], settings)
    if side == "notebook":
        from benchmarks import notebook_text

        return lambda: notebook_text.learned_layer(texts, settings)
    from benchmarks import torch_text

    return lambda: torch_text.learned_words(texts, settings)


def words_of(side: str, learned: Any) -> tuple[str, ...]:
    """The words by id."""
    if side == "minibert":
        return tuple(learned.words)
    return tuple(learned.get_vocabulary() if side == "notebook" else learned)


def encoding_work(side: str, settings: TextSettings, texts: list[str], vocabulary: Vocabulary) -> Work:
    """A side's encoding by a vocabulary that is learned; it gives ids, integers (texts, sequence)."""
    if side == "minibert":
        return lambda: encode(arrow(texts), vocabulary, settings)
    if side == "notebook":
        from benchmarks import notebook_text

        layer = notebook_text.layer_of(vocabulary.words, settings)
        return lambda: notebook_text.encode(layer, texts)
    encode_by_peer = importlib.import_module(TEXT_MODULES[side]).build_encoder(settings, vocabulary)
    return lambda: encode_by_peer(texts)


@pytest.mark.bench
@pytest.mark.benchmark(group="encoding: vocabulary")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", [side for side in GROUP_SIDES if side != "keras-hub"])
def test_learn_vocabulary(benchmark: Any, side: str, shape: str) -> None:
    require_side(side)
    settings = shape_settings(shape).text
    task = (settings, raw_reviews(REVIEWS[shape], settings))
    work, of_notebook = learning_work(side, *task), learning_work("notebook", *task)
    facts = {**facts_of(task[1]), **peak_facts(benchmark, side, None, learning_work, *task)}

    found = time_beside(benchmark, work, None if side == "notebook" else of_notebook, facts, side=side)

    learned, ours = words_of(side, found), words_of("minibert", learning_work("minibert", *task)())
    assert ours == words_of("notebook", of_notebook())
    if side != "pytorch":
        assert learned == ours
    else:  # it breaks ties by another rule
        counts = Counter(split_words(arrow(task[1]), settings)[0].to_pylist())
        assert [counts[word] for word in learned[2:-1]] == [counts[word] for word in ours[2:-1]]
        assert len(set(learned)) == len(ours)


@pytest.mark.bench
@pytest.mark.benchmark(group="encoding: ids")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", GROUP_SIDES)
def test_encode(benchmark: Any, side: str, shape: str) -> None:
    require_side(side)
    settings = shape_settings(shape).text
    texts = raw_reviews(REVIEWS[shape], settings)
    task = (settings, texts, learn_vocabulary([arrow(texts)], settings))
    work, of_notebook = encoding_work(side, *task), encoding_work("notebook", *task)
    facts = {**facts_of(texts), **peak_facts(benchmark, side, None, encoding_work, *task)}

    ids = time_beside(benchmark, work, None if side == "notebook" else of_notebook, facts, side=side)

    assert np.array_equal(ids, encoding_work("minibert", *task)() if side == "notebook" else of_notebook())
