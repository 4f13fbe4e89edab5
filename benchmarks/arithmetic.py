"""How much arithmetic a training step must do, and how fast this machine multiplies matrices.

Only matrix products count, two operations for each multiply-add. Whatever else a step does (softmax,
normalization, gathering, the optimizer) is the distance between 1 and the fraction that is reported.
"""

from __future__ import annotations

import time

import numpy as np

from minibert.settings import RunSettings

MATRIX_SIZE = 2_048
PRODUCTS = 4


def step_flops(settings: RunSettings, step: str, *, rows: float) -> float:
    """Floating-point operations of a training step's matrix products, forward and backward.

    A product of a (rows, m) by an (m, n) matrix takes 2 rows m n operations, and backward the same again
    for each of its two gradients. Attention's scores, and the sum of values that they weight, are such
    products of (sequence, key size) matrices in each head. A frozen encoder is only run forward, and the
    first layer of the classifier on it needs no gradient of its input.

    Args:
        settings: The shape.
        step: ``masked_lm``, ``frozen`` or ``unfrozen``.
        rows: Selected positions of a batch: all that goes through the vocabulary projection.
    """
    model, length = settings.model, settings.text.sequence_length
    hidden = model.hidden_size
    batch = settings.pretrain.batch_size if step == "masked_lm" else settings.finetune.batch_size
    of_token = (
        2 * hidden * 3 * hidden  # query, key and value
        + 2 * 2 * length * hidden  # scores, weighted values
        + 2 * hidden * hidden  # output
        + 2 * 2 * hidden * model.feed_forward_size
    )
    encoder = batch * length * model.blocks * of_token
    if step == "masked_lm":
        return 3.0 * encoder + 3 * 2 * rows * hidden * settings.masking.required_vocabulary_size
    inner, outer = 2 * batch * hidden * settings.finetune.classifier_size, 2 * batch * settings.finetune.classifier_size
    if step == "frozen":
        return encoder + 2.0 * inner + 3 * outer
    return 3.0 * (encoder + inner + outer)


class MatrixRate:
    """Measures float32 products of large square matrices, as TensorFlow does them."""

    def __init__(self) -> None:
        import tensorflow as tf

        matrix = np.random.Generator(np.random.PCG64(0)).standard_normal((MATRIX_SIZE, MATRIX_SIZE), dtype=np.float32)
        self._matrix = tf.constant(matrix / MATRIX_SIZE**0.5)
        self._multiply = tf.function(tf.linalg.matmul, autograph=False)
        self.flops_per_second()

    def flops_per_second(self) -> float:
        """The rate now, over a few products, each of which waits for the one before."""
        started, product = time.perf_counter(), self._matrix
        for _ in range(PRODUCTS):
            product = self._multiply(product, self._matrix)
        product[0, 0].numpy()
        return PRODUCTS * 2 * MATRIX_SIZE**3 / (time.perf_counter() - started)
