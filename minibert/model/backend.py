"""What differs between TensorFlow, JAX and PyTorch, in one place; all else is `keras.ops`.

Three things are not in `keras.ops`: a matrix product that reads a transposed operand without copying
it, a hint that a group of elementwise operations is worth compiling, and raw Philox words on the
device. Others are there, and cost TensorFlow more than they need.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from minibert.errors import DeviceError
from minibert.onednn import onednn_is_on

BACKEND = keras.backend.backend()
Function = TypeVar("Function", bound=Callable[..., Any])

if BACKEND == "tensorflow":
    import tensorflow as tf


def require_tensorflow() -> None:
    """Refuses to train or to load on another backend than the training step's.

    Raises:
        DeviceError: Keras was imported with another one.
    """
    if BACKEND != "tensorflow":
        raise DeviceError(
            f"Keras' backend: tensorflow is required, but {BACKEND!r} came, from KERAS_BACKEND or ~/.keras/keras.json; "
            "KERAS_BACKEND=tensorflow before Keras is imported asks for it"
        )


def forbid_tensor_float_32() -> None:
    """Has this process' float32 products computed in float32: on an NVIDIA GPU, TensorFlow rounds their operands.

    They would have 10 bits of mantissa (TensorFloat-32), and an H200's products were 1e-4 off. On other devices it
    changes nothing.
    """
    if BACKEND == "tensorflow":
        tf.config.experimental.enable_tensor_float_32_execution(False)


def matmul(a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    """Matrix product over the last two axes, either operand read transposed."""
    if BACKEND == "tensorflow":
        return tf.linalg.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    if transpose_a:
        a = ops.swapaxes(a, -1, -2)
    if transpose_b:
        b = ops.swapaxes(b, -1, -2)
    return ops.matmul(a, b)


def matmul_and_bias(rows: Any, kernel: Any, bias: Any, *, length: int | None = None) -> Any:
    """(rows, m) by (m, n), plus a bias (n,): TensorFlow has one kernel for both, and one for the bias' gradient.

    Args:
        rows: (rows, m).
        kernel: (m, n).
        bias: (n,).
        length: Rows of an example, where all of its places are there; the bias' gradient is then added up within each
            example before it is over the examples. One sum over thousands of rows, most of which cancel, is as
            inexact as it is long: that of the value's bias at notebook 1's shape was 6e-6 off in the parts of a batch.
    """
    product = ops.matmul(rows, kernel)
    if BACKEND != "tensorflow":
        return product + bias
    return tf.nn.bias_add(product, bias) if length is None else _add_by_example(product, read(bias), length)


def _add_by_example(product: Any, bias: Any, length: int) -> Any:
    @tf.custom_gradient
    def add(product: Any, bias: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            by_example = tf.reduce_sum(tf.reshape(upstream, [-1, length, upstream.shape[-1]]), axis=1)
            return upstream, tf.reduce_sum(by_example, axis=0)

        return tf.nn.bias_add(product, bias), gradient

    return add(product, bias)


def read(weight: Any) -> Any:
    """A weight's value as a tensor: TensorFlow's custom gradients do not take variables."""
    return tf.convert_to_tensor(weight) if BACKEND == "tensorflow" else ops.convert_to_tensor(weight)


def take_each(matrix: Any, columns: Any) -> Any:
    """The element of each row in the column given for it: (rows, columns) and int (rows,) to (rows,)."""
    if BACKEND == "tensorflow":
        return tf.gather(matrix, columns, axis=1, batch_dims=1)
    return ops.take_along_axis(matrix, columns[:, None], axis=1)[:, 0]


def less_added_up(matrix: Any, columns: Any, parts: Any) -> Any:
    """A matrix less rows that are added up by column: its column c less the sum of the rows r with columns[r] = c.

    Args:
        matrix: float32, (m, n).
        columns: int32, (rows,): 0 to n - 1.
        parts: float32, (rows, m).

    Returns:
        float32, (m, n). On a CPU, rows of the same column are subtracted in their order.
    """
    if not _is_tensorflow_on_a_cpu():
        return matrix - ops.transpose(ops.segment_sum(parts, columns, num_segments=matrix.shape[1]))
    height, width = matrix.shape
    places = tf.reshape(tf.range(height) * width + columns[:, None], [-1, 1])
    flat = tf.tensor_scatter_nd_sub(tf.reshape(matrix, [-1]), places, tf.reshape(parts, [-1]))
    return tf.reshape(flat, [height, width])


def gather(rows: Any, indices: Any) -> Any:
    """Rows by their indices, 0 or more: `keras.ops.take` looks for negative ones first."""
    if BACKEND != "tensorflow":
        return ops.take(rows, indices, axis=0)
    if rows.dtype == tf.uint32:  # a GPU has a kernel for the signed ones alone
        return tf.bitcast(tf.gather(tf.bitcast(rows, tf.int32), indices), tf.uint32)
    return tf.gather(rows, indices)


def split_columns(matrix: Any, first: int) -> tuple[Any, Any]:
    """The first columns and the others: TensorFlow puts their gradients side by side, where slices' are added up."""
    if BACKEND == "tensorflow":
        return tuple(tf.split(matrix, [first, matrix.shape[-1] - first], axis=-1))
    return matrix[..., :first], matrix[..., first:]


def split_examples(tensor: Any, parts: int) -> list[Any]:
    """Cuts a tensor along its first axis, whose size may be open, into parts that differ by one example at the most.

    Args:
        tensor: (examples, ...).
        parts: How many; TensorFlow alone makes more than one. Where there are fewer examples, some are empty.
    """
    if parts == 1:
        return [tensor]
    count = tf.shape(tensor)[0]
    return list(tf.split(tensor, (count + tf.range(parts)) // parts, num=parts))


def cache_decides() -> bool:
    """Whether several calls whose arrays stay in the cache are faster than one whose arrays do not: on a CPU.

    Of the other backends this is not asked for: it was not measured there.
    """
    return _is_tensorflow_on_a_cpu()


def softmax_is_one_pass() -> bool:
    """Whether a softmax reads and writes the memory once: oneDNN's does, whose rows stay in the cache.

    TensorFlow's own goes over the memory four times. On a GPU this is not asked for: it was not measured there.
    """
    return _is_tensorflow_on_a_cpu() and onednn_is_on() is True


def has_cheap_conditionals() -> bool:
    """Whether a condition on computed values stops nothing: on a GPU it has to come to the host before work goes on.

    Of the other backends this is not asked for: it was not measured there.
    """
    return _is_tensorflow_on_a_cpu()


def _is_tensorflow_on_a_cpu() -> bool:
    return BACKEND == "tensorflow" and not tf.config.list_logical_devices("GPU")


def softmax(scores: Any) -> Any:
    """Over the last axis. Keras' own keeps the scores alive with what it gives, and warns of an axis of 1."""
    return tf.nn.softmax(scores) if BACKEND == "tensorflow" else ops.softmax(scores)


def after(tensor: Any, *before: Any) -> Any:
    """The tensor, but not before all of ``before`` are computed.

    It bounds what is alive at the same time, and it keeps two calls of one compiled function from running
    at the same moment: TensorFlow 2.21's XLA emits some reductions when a thunk first runs, without a
    lock, and two threads in it crashed a run once.
    """
    if BACKEND == "tensorflow":
        with tf.control_dependencies(before):
            return tf.identity(tensor)
    return tensor


def compiled(function: Function) -> Function:
    """Compiles a group of elementwise operations and reductions into one pass.

    On TensorFlow this is XLA for the group alone: the whole step through XLA is slower on a CPU,
    since its matrix products are. JAX compiles the whole step anyway; PyTorch runs as written.
    """
    if BACKEND != "tensorflow":
        return function
    return functools.wraps(function)(tf.function(function, jit_compile=True, autograph=False))  # type: ignore[return-value]


def philox_words(key: int, counter_high: Any, count: int) -> Any:
    """32-bit words of Philox4x32-10 on the device: uint32, (count,).

    Word ``w`` is output ``w mod 4`` at the counter (low 64 bits w div 4, high 64 bits
    ``counter_high``) with a 64-bit key.

    Source: Salmon et al., SC 2011; TensorFlow's ``StatelessRandomUniformFullIntV2`` computes it.
    """
    if BACKEND == "tensorflow":
        counter = tf.stack([tf.zeros([], tf.uint64), tf.cast(counter_high, tf.uint64)])
        return tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[count], key=tf.constant([key], tf.uint64), counter=counter, alg=1, dtype=tf.uint32
        )
    return _philox_words_by_ops(key, counter_high, count)


def halves(words: Any) -> Any:
    """The 16-bit halves of 32-bit words as uint16, the lower half first: (2 * words,)."""
    if BACKEND == "tensorflow":
        return tf.reshape(tf.bitcast(words, tf.uint16), [-1])
    both = ops.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], axis=-1)
    return ops.cast(ops.reshape(both, (-1,)), "uint16")


_ROUNDS, _MULTIPLIERS, _WEYL = 10, (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)


def _philox_words_by_ops(key: int, counter_high: Any, count: int) -> Any:
    """The same words from integer operations that every backend has (16-bit halves, no 64-bit type)."""
    blocks = -(-count // 4)
    zero = ops.zeros((blocks,), dtype="uint32")
    low = ops.cast(ops.arange(blocks), "uint32")
    high = ops.cast(counter_high, "uint32") + zero
    x0, x1, x2, x3 = low, zero, high, zero
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(_ROUNDS):
        high0, low0 = _multiply_wide(x0, _MULTIPLIERS[0])
        high1, low1 = _multiply_wide(x2, _MULTIPLIERS[1])
        x0, x1, x2, x3 = high1 ^ x1 ^ np.uint32(k0), low1, high0 ^ x3 ^ np.uint32(k1), low0
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return ops.reshape(ops.stack([x0, x1, x2, x3], axis=-1), (-1,))[:count]


def _multiply_wide(x: Any, factor: int) -> tuple[Any, Any]:
    """High and low 32 bits of a 32 x 32-bit product."""
    mask, sixteen = np.uint32(0xFFFF), np.uint32(16)
    f_low, f_high = np.uint32(factor & 0xFFFF), np.uint32(factor >> 16)
    x_low, x_high = x & mask, x >> sixteen
    low = x_low * f_low
    middle1 = x_high * f_low
    middle2 = x_low * f_high
    carry = (low >> sixteen) + (middle1 & mask) + (middle2 & mask)
    high = x_high * f_high + (middle1 >> sixteen) + (middle2 >> sixteen) + (carry >> sixteen)
    return high, (x * np.uint32(factor)) & np.uint32(0xFFFFFFFF)  # PyTorch has wider integers, which do not wrap
