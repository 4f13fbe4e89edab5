"""Initial weights from the named streams: the same bits on every device, backend and version.

The distributions are those that the notebooks' Keras layers start from, and all of them are uniform or
constant, so they come from words by exact arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minibert.streams import stream, uniform_float32

_EMBEDDING_LIMIT = 0.05
"""Keras' ``Embedding`` starts uniform in +-0.05."""


def initial_weight(seed: int, path: str, shape: tuple[int, ...], *, heads: int = 1) -> np.ndarray:
    """The initial value of one weight: float32 of the given shape.

    Args:
        seed: The run's root seed.
        path: The weight's path, ``layer/weight``: the identity in the stream's name.
        shape: Its shape.
        heads: Attention heads, for the attention kernels' limits.

    Source: Keras' defaults: Glorot uniform kernels (Glorot and Bengio 2010), zero biases, gamma 1;
    `_glorot_limit` for what Keras makes of the attention kernels.
    """
    name = path.rpartition("/")[2]
    if name in ("bias", "beta", "qkv_bias", "output_bias"):
        return np.zeros(shape, dtype=np.float32)
    if name == "gamma":
        return np.ones(shape, dtype=np.float32)
    limit = _EMBEDDING_LIMIT if path.startswith("word_embedding/") else _glorot_limit(name, shape, heads)
    words = stream(seed, "weights", path).words(math.prod(shape))
    return uniform_float32(words, limit).reshape(shape)


def _glorot_limit(name: str, shape: tuple[int, ...], heads: int) -> float:
    """sqrt(6 / (fan in + fan out)).

    The notebooks' Keras counted the fans of a three-dimensional attention kernel as if it were a
    convolution: (hidden, heads, size) has fans hidden * heads and hidden * size, (heads, size, hidden)
    has heads * size and heads * hidden. Both notebooks start from these limits. Keras' pull request
    22789 (2026) counts the axes that are summed over; its attention now starts from wider ones.
    """
    hidden = shape[0]
    if name == "qkv_kernel":
        fans = hidden * heads + hidden * (hidden // heads)
    elif name == "output_kernel":
        fans = hidden + heads * hidden
    else:
        fans = shape[0] + shape[-1]
    return math.sqrt(6.0 / fans)


def set_initial_weights(model: Any, seed: int, *, heads: int) -> None:
    """Sets every weight of a Keras model from its stream; seeds of Keras' own generators stay."""
    for variable in model.weights:
        if "seed_generator" not in variable.path:
            value = initial_weight(seed, variable.path, tuple(variable.shape), heads=heads)
            variable.assign(value)
