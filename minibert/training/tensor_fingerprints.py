"""The fingerprints of a step's tensors, as operations of its graph.

fingerprints([activation, gradient, weight], step) -> int32 (3,)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from minibert.fingerprints import ACTIVATION_TURNS, TURNS

_WHOLE_ELEMENTS = 1 << 16
_WHOLE_ROW_ELEMENTS = 1 << 11


def fingerprints(tensors: list[Any], step: Any) -> Any:
    """The low 32 bits of the FarmHash64 of each tensor's bytes: any changed, moved or scaled value changes it.

    A tensor of more than 65,536 elements (2,048 in a row, where the number of rows is not fixed) is fingerprinted by
    turns: of a weight, at step s the eighth s mod 8 of its rows; of activations, whose rows are the batch's examples,
    one in 32. A difference in one row of a weight, which stays, is then seen at most seven steps later, where every
    step has fingerprints. One in the activations of one example is seen in its turn or by what is computed from it, and
    if it changes nothing that is computed, not at all. Hashing every row at every step took 3 % of the masked-LM step
    at notebook 1's shape, and as much of a frozen classifier's at notebook 2's.

    Args:
        tensors: Float32 or bfloat16, at least one axis each.
        step: int64 scalar, at least 0, or None: then every row counts.

    Returns:
        int32, (tensors,).

    Source: Pike and Alakuijala, FarmHash (github.com/google/farmhash); ``tf.fingerprint`` computes it at the
    speed at which the memory gives the bytes.
    """
    by_turns = [step is not None and is_by_turns(tensor.shape) for tensor in tensors]
    large = [tensor for tensor, is_large in zip(tensors, by_turns, strict=True) if is_large]
    # Once for all of so many rows: for one tensor, each operator takes as long as hashing a small one.
    known = dict.fromkeys(tensor.shape[0] for tensor in large if tensor.shape[0] is not None)
    turns = {rows: _turn(rows, step, TURNS) for rows in known}
    if unknown := [tensor for tensor in large if tensor.shape[0] is None]:
        turns[None] = _turn(_most_rows(unknown), step, ACTIVATION_TURNS)
    hashes = []
    for tensor, is_large in zip(tensors, by_turns, strict=True):
        part = tf.strided_slice(tensor, *turns[tensor.shape[0]]) if is_large else tensor  # rows: nothing is copied
        if tensor.dtype == tf.bfloat16:
            part = tf.cast(part, tf.float32)
        hashes.append(tf.fingerprint(tf.reshape(part, [1, -1])))
    return tf.bitcast(tf.concat(hashes, axis=0)[:, :4], tf.int32)


def _most_rows(tensors: list[Any]) -> Any:
    """The length of the longest of tensors: none of a shorter one's rows is left out either."""
    first_axes = np.cumsum([0, *(len(tensor.shape) for tensor in tensors)])[:-1]
    return tf.reduce_max(tf.gather(tf.concat([tf.shape(tensor) for tensor in tensors], axis=0), first_axes))


def _turn(rows: Any, step: Any, most_turns: int) -> tuple[Any, Any, Any]:
    """The first of the rows that have their turn at a step, the one behind the last, and 1: int64, (1,) each.

    There are as many turns as the largest power of two, up to ``most_turns``, that leaves none without a row: of
    another number of turns, some would never come where one step in so many has fingerprints.
    """
    rows = tf.cast(rows, tf.int64)
    powers = tf.constant([1 << exponent for exponent in range(1, most_turns.bit_length())], tf.int64)
    turns = tf.bitwise.left_shift(tf.constant(1, tf.int64), tf.reduce_sum(tf.cast(rows >= powers, tf.int64)))
    turn = step % turns
    return (rows * turn // turns)[None], (rows * (turn + 1) // turns)[None], tf.ones([1], tf.int64)


def is_by_turns(shape: Any) -> bool:
    """Whether a tensor of this shape, whose first axis may be None, is fingerprinted by turns."""
    if shape[0] is None:
        return tf.TensorShape(shape[1:]).num_elements() > _WHOLE_ROW_ELEMENTS
    return shape.num_elements() > _WHOLE_ELEMENTS
