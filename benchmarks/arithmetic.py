"""How fast a device multiplies matrices, beside how much arithmetic a training step must do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.flops import answer_flops, step_flops

__all__ = ["MatrixRate", "answer_flops", "step_flops"]

MATRIX_SIZES = {"cpu": 2_048, "cuda": 8_192, "metal": 4_096}
PRODUCTS = {"cpu": 4, "cuda": 50, "metal": 8}
"""A GPU is busy with larger matrices only, and with more of them the wait at the end does not count."""


class MatrixRate:
    """Measures products of large square matrices, as a backend does them on a device.

    Args:
        dtype: ``float32`` or ``bfloat16``.
        backend: One of Keras' backends.
        device: One of `benchmarks.devices.DEVICES`.
    """

    def __init__(self, dtype: str = "float32", *, backend: str = "tensorflow", device: str = "cpu") -> None:
        size, self._products = MATRIX_SIZES[device], PRODUCTS[device]
        matrix = np.random.Generator(np.random.PCG64(0)).standard_normal((size, size), dtype=np.float32)
        put, self._multiply = _OPERATIONS[backend](dtype, device)
        self._matrix = put(matrix / np.float32(size**0.5))
        self._flops = self._products * 2.0 * size**3
        self.flops_per_second()

    def flops_per_second(self) -> float:
        """The rate now, over a few products, each of which waits for the one before."""
        started, product = time.perf_counter(), self._matrix
        for _ in range(self._products):
            product = self._multiply(product, self._matrix)
        float(product[0, 0])
        return self._flops / (time.perf_counter() - started)


Operations = tuple[Callable[[np.ndarray], Any], Callable[[Any, Any], Any]]
"""What puts a matrix on the device, and what multiplies two there."""


def _tensorflow(dtype: str, device: str) -> Operations:
    import tensorflow as tf

    return lambda matrix: tf.cast(matrix, dtype), tf.function(tf.linalg.matmul, autograph=False)


def _jax(dtype: str, device: str) -> Operations:
    import jax

    return lambda matrix: jax.numpy.asarray(matrix, dtype), jax.jit(jax.numpy.matmul)


def _torch(dtype: str, device: str) -> Operations:
    import torch

    place = {"metal": "mps"}.get(device, device)
    return (
        lambda matrix: torch.from_numpy(matrix).to(place, getattr(torch, dtype)),
        torch.no_grad()(torch.matmul),
    )


_OPERATIONS: dict[str, Callable[[str, str], Operations]] = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
