"""How fast this machine multiplies matrices, beside how much arithmetic a training step must do."""

from __future__ import annotations

import time

import numpy as np

from minibert.perf.flops import step_flops

__all__ = ["MatrixRate", "step_flops"]

MATRIX_SIZE = 2_048
PRODUCTS = 4


class MatrixRate:
    """Measures products of large square matrices, as TensorFlow does them on the CPU.

    Args:
        dtype: ``float32`` or ``bfloat16``.
    """

    def __init__(self, dtype: str = "float32") -> None:
        import tensorflow as tf

        matrix = np.random.Generator(np.random.PCG64(0)).standard_normal((MATRIX_SIZE, MATRIX_SIZE), dtype=np.float32)
        self._matrix = tf.cast(matrix / MATRIX_SIZE**0.5, dtype)
        self._multiply = tf.function(tf.linalg.matmul, autograph=False)
        self.flops_per_second()

    def flops_per_second(self) -> float:
        """The rate now, over a few products, each of which waits for the one before."""
        started, product = time.perf_counter(), self._matrix
        for _ in range(PRODUCTS):
            product = self._multiply(product, self._matrix)
        float(product[0, 0].numpy())
        return PRODUCTS * 2 * MATRIX_SIZE**3 / (time.perf_counter() - started)
