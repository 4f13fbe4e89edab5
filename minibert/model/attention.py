"""Multi-head self-attention with one product for query, key and value.

One product instead of three is faster, and it is what makes a training step repeatable: the block's
input then feeds two consumers (this product and the residual sum), and a sum of two gradients is the
same in either order. With three products TensorFlow adds four gradients in the order in which they
happen to be ready.

Where only some tokens' outputs are wanted, only these ask: every token has a key and a value, and the
(queries, sequence) matrices are as much smaller. These are two products, and each input has two consumers again:
the block's feeds that of key and value and the choice of rows, and the rows feed that of the query and the
residual sum.

The heads are computed in groups that may run at once: without oneDNN, TensorFlow computes a batch of
products of this size one after the other, on one core. Where a group's (sequence, sequence) matrices of a whole
batch are more than a processor's cache holds, it computes chunks of the batch one after the other.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import keras
from keras import ops

from minibert.model.backend import (
    after,
    cache_decides,
    compiled,
    matmul,
    matmul_and_bias,
    read,
    softmax,
    softmax_is_one_pass,
    split_columns,
    split_examples,
)
from minibert.model.rows import rearrange

MOST_GROUPS = 4
"""Groups of heads; fewer where 4 does not divide the heads. Their number changes no bit: heads do not meet."""

CHUNK_BYTES, USUAL_BATCH = 4 << 20, 32
"""A graph's chunks are settled before a batch is seen: of 32 examples, as the notebooks have, one chunk's float32
scores of one group have at most so many bytes. A larger batch has larger ones, as many. Each of the groups has a chunk
in the cache. Their number changes no bit: examples do not meet."""


def chunks_for(length: int, heads: int) -> int:
    """In how many chunks of a batch a group of heads is computed where all tokens ask.

    Args:
        length: Tokens of an example.
        heads: Of the group.
    """
    if not cache_decides():
        return 1
    scores = 4 * USUAL_BATCH * heads * length**2
    return min(math.ceil(scores / CHUNK_BYTES), USUAL_BATCH)


class Lane:
    """Calls of `attend` that run one after the other, and so do their gradients.

    What one of them reads again is then still in the cache, and none runs a compiled function that another is in.

    Args:
        number: Another for each lane: those may run at the same time.
        is_shared: Whether it is for more than one call.
    """

    def __init__(self, number: int = 0, *, is_shared: bool = False) -> None:
        self.number, self._is_shared = number, is_shared
        self._outputs: tuple[Any, ...] = ()
        self._gradients: tuple[Any, ...] = ()

    def enter(self, tensor: Any) -> Any:
        """The tensor, once the call before is computed."""
        return after(tensor, *self._outputs) if self._outputs else tensor

    def leave(self, outputs: Any) -> Any:
        """The outputs, for which the next call waits."""
        if self._is_shared:
            self._outputs = (outputs,)
        return outputs

    def enter_gradient(self, upstream: Any) -> Any:
        """What comes back, once the gradients before are computed."""
        return after(upstream, *self._gradients) if self._gradients else upstream

    def leave_gradient(self, *gradients: Any) -> tuple[Any, ...]:
        """The gradients, for which the next ones wait."""
        if self._is_shared:
            self._gradients = gradients
        return gradients


@functools.cache
def _exponential(lane: int) -> Any:
    """exp((scores - largest) * scale) in one pass.

    Each lane has a function of its own: one compiled function must not run twice at the same time.
    """

    @compiled
    def exponential(scores: Any, largest: Any, scale: Any) -> Any:
        return ops.exp((scores - largest) * scale)

    return exponential


def attend(query: Any, key: Any, value: Any, *, scale: float, bias: Any = None, lane: Lane | None = None) -> Any:
    """Softmax attention, with the gradient written out.

    The (queries, sequence) matrices are most of its memory traffic, so they are touched as little as the
    formula allows. Where oneDNN has a softmax of one pass, it is taken, of a query that is scaled beforehand.
    Elsewhere the softmax's division and the scale are applied to what the products give. The gradient's
    subtraction is one more column of a product, and the matrices are never the transposed operand: Eigen takes
    twice as long for E^T d as for d^T E.

    Args:
        query: (batch, heads, queries, key size).
        key: (batch, heads, sequence, key size).
        value: Of the shape of ``key``.
        scale: What the scores are multiplied by, above 0: 1 by the root of the key size.
        bias: Added to the scaled scores, (batch, 1, 1, sequence), or None.
        lane: Calls in different ones may run at the same time; None: in the first one, and nothing else is there.

    Returns:
        The shape of ``query``.

    Source: Vaswani et al. 2017, section 3.2.1. With E = exp(scores - max), t its row sums, O the output and
    d = upstream / t, the gradient of the unscaled scores is scale E (d V^T - sum(d O)), and V's is E^T d; with
    the softmax in place of E, t is 1.
    """
    lane = lane or Lane()
    if softmax_is_one_pass():
        return _by_softmax(query * ops.cast(scale, query.dtype), key, value, bias, lane)
    return _by_exponential(query, key, value, scale, bias, lane)


def _by_exponential(query: Any, key: Any, value: Any, scale: float, bias: Any, lane: Lane) -> Any:
    """Without the softmax: its division and the scale are applied to what the products give."""

    @ops.custom_gradient
    def attention(query: Any, key: Any, value: Any) -> tuple[Any, Any]:
        scores = matmul(lane.enter(query), key, transpose_b=True)
        if bias is not None:
            scores = scores + bias * (1.0 / scale)
        largest = ops.max(scores, axis=-1, keepdims=True)
        exponential = _exponential(lane.number)(scores, largest, ops.cast(scale, scores.dtype))
        total = ops.sum(exponential, axis=-1, keepdims=True)
        outputs = lane.leave(matmul(exponential, value) / total)

        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, ...]:
            upstream = lane.enter_gradient(arguments[0] if upstream is None else upstream) / total
            found = _gradients(query, key, value, exponential, outputs, upstream, scaled=upstream * scale)
            return lane.leave_gradient(*found)

        return outputs, gradient

    return attention(query, key, value)


def _by_softmax(query: Any, key: Any, value: Any, bias: Any, lane: Lane) -> Any:
    """With oneDNN's softmax; the query is scaled already, and the tape scales its gradient."""

    @ops.custom_gradient
    def attention(query: Any, key: Any, value: Any) -> tuple[Any, Any]:
        scores = matmul(lane.enter(query), key, transpose_b=True)
        if bias is not None:
            scores = scores + bias
        weights = softmax(scores)
        outputs = lane.leave(matmul(weights, value))

        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, ...]:
            upstream = lane.enter_gradient(arguments[0] if upstream is None else upstream)
            return lane.leave_gradient(*_gradients(query, key, value, weights, outputs, upstream, scaled=upstream))

        return outputs, gradient

    return attention(query, key, value)


def _gradients(
    query: Any, key: Any, value: Any, weights: Any, outputs: Any, upstream: Any, *, scaled: Any
) -> tuple[Any, Any, Any]:
    """Those of query, key and value.

    Args:
        query: As in `attend`.
        key: Likewise.
        value: Likewise.
        weights: E, or the softmax.
        outputs: O.
        upstream: d.
        scaled: The scale times d; d itself where the query was scaled beforehand.
    """
    along = ops.sum(scaled * outputs, axis=-1, keepdims=True)
    ones = ops.ones_like(value[..., :1])
    scores_gradient = weights * matmul(
        ops.concatenate([scaled, -along], axis=-1), ops.concatenate([value, ones], axis=-1), transpose_b=True
    )
    return (
        matmul(scores_gradient, key),
        ops.swapaxes(matmul(query, scores_gradient, transpose_a=True), -1, -2),
        ops.swapaxes(matmul(upstream, weights, transpose_a=True), -1, -2),
    )


class Queries(NamedTuple):
    """The tokens that ask, where not all do.

    Attributes:
        hidden: (rows, hidden): their inputs.
        row_of_query: int32, (batch * queries,): the rows of each example, counted from 1; 0: none.
        query_of_row: int32, (rows,): the place of each row in ``row_of_query``, counted from 1; 0: none.
    """

    hidden: Any
    row_of_query: Any
    query_of_row: Any


@keras.saving.register_keras_serializable(package="minibert")
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention over (batch, sequence, hidden).

    The function and the number of parameters are those of Keras' ``MultiHeadAttention(heads, hidden /
    heads)(x, x, x)``. Called with a padding mask, it attends to real tokens only.

    Args:
        heads: Attention heads; they divide the hidden size.
    """

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the fused (hidden, 3 hidden) kernel, the output kernel and their biases."""
        hidden = input_shape[-1]
        assert hidden is not None
        self.qkv_kernel = self.add_weight(name="qkv_kernel", shape=(hidden, 3 * hidden))
        self.qkv_bias = self.add_weight(name="qkv_bias", shape=(3 * hidden,), initializer="zeros")
        self.output_kernel = self.add_weight(name="output_kernel", shape=(hidden, hidden))
        self.output_bias = self.add_weight(name="output_bias", shape=(hidden,), initializer="zeros")

    def call(self, inputs: Any, padding_mask: Any = None, queries: Queries | None = None) -> Any:
        """Attends.

        Args:
            inputs: (batch, sequence, hidden).
            padding_mask: bool (batch, sequence), True for real tokens, or None.
            queries: The tokens that ask; None: all.

        Returns:
            (batch, sequence, hidden), or (rows, hidden) with ``queries``.
        """
        length, hidden = inputs.shape[1], inputs.shape[2]
        rows = ops.reshape(inputs, (-1, hidden))
        if queries is None:
            chunks = chunks_for(length, self.heads // self._groups)
            projected = matmul_and_bias(rows, self.qkv_kernel, self.qkv_bias, length=length)
            by_example = ops.reshape(projected, (-1, length, 3 * hidden)) if chunks > 1 else projected
            parts = [self._by_group(chunk, 3, length) for chunk in split_examples(by_example, chunks)]
        else:
            most = ops.shape(queries.row_of_query)[0] // ops.shape(inputs)[0]
            chunks, parts = 1, [self._project_apart(rows, length, queries, most)]
        biases: list[Any] = [None] * chunks
        if padding_mask is not None:
            bias = (1.0 - ops.cast(padding_mask, inputs.dtype))[:, None, None, :] * -1e9
            biases = split_examples(bias, chunks)
        scale = 1.0 / (hidden // self.heads) ** 0.5
        lanes = [Lane(group, is_shared=chunks > 1) for group in range(self._groups)]
        by_chunk = []
        for of_groups, bias in zip(parts, biases, strict=True):
            both = zip(of_groups, lanes, strict=True)
            attended = ops.stack([attend(*part, scale=scale, bias=bias, lane=lane) for part, lane in both])
            by_chunk.append(ops.reshape(ops.transpose(attended, (1, 3, 0, 2, 4)), (-1, hidden)))
        joined = by_chunk[0] if chunks == 1 else ops.concatenate(by_chunk)
        if queries is not None:
            joined = rearrange(joined, queries.query_of_row, queries.row_of_query)
        outputs = matmul_and_bias(joined, self.output_kernel, self.output_bias)
        return outputs if queries is not None else ops.reshape(outputs, (-1, length, hidden))

    @property
    def _groups(self) -> int:
        return math.gcd(self.heads, MOST_GROUPS)

    def _project_apart(self, rows: Any, length: int, queries: Queries, most: Any) -> list[list[Any]]:
        """Query, key and value of each group of heads, where an example asks for ``most`` tokens at the most."""
        hidden = rows.shape[-1]
        query_kernel, key_value_kernel = split_columns(read(self.qkv_kernel), hidden)
        query_bias, key_value_bias = split_columns(read(self.qkv_bias), hidden)
        query = matmul_and_bias(queries.hidden, query_kernel, query_bias)
        query = rearrange(query, queries.row_of_query, queries.query_of_row)
        key_value = matmul_and_bias(rows, key_value_kernel, key_value_bias, length=length)
        groups = zip(self._by_group(query, 1, most), self._by_group(key_value, 2, length), strict=True)
        return [[*of_query, *of_key_value] for of_query, of_key_value in groups]

    def _by_group(self, projected: Any, parts: int, length: Any) -> list[list[Any]]:
        """Rows of parts * hidden columns -> for each group its parts, (examples, heads, length, key size) each."""
        size = projected.shape[-1] // (parts * self.heads)
        split = ops.reshape(projected, (-1, length, parts, self._groups, self.heads // self._groups, size))
        split = ops.transpose(split, (3, 2, 0, 4, 1, 5))
        return [list(ops.unstack(group, axis=0)) for group in ops.unstack(split, axis=0)]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "heads": self.heads}
