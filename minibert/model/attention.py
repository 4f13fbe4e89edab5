"""Multi-head self-attention with one product for query, key and value.

One product instead of three is faster, and it is what makes a training step repeatable: the block's
input then feeds two consumers (this product and the residual sum), and a sum of two gradients is the
same in either order. With three products TensorFlow adds four gradients in the order in which they
happen to be ready.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from minibert.model.backend import compiled, matmul


@compiled
def _softmax(scores: Any) -> Any:
    exponential = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True))
    return exponential / ops.sum(exponential, axis=-1, keepdims=True)


@compiled
def _scores_gradient(probabilities: Any, probabilities_gradient: Any) -> Any:
    along = ops.sum(probabilities * probabilities_gradient, axis=-1, keepdims=True)
    return probabilities * (probabilities_gradient - along)


def attend(query: Any, key: Any, value: Any, bias: Any = None) -> Any:
    """Softmax attention, with the gradient written out.

    Args:
        query: (batch, heads, sequence, key size), already divided by the root of the key size.
        key: Of the same shape.
        value: Of the same shape.
        bias: Added to the scores, (batch, 1, 1, sequence), or None.

    Returns:
        The shape of ``value``.

    Source: Vaswani et al. 2017, section 3.2.1. With P the probabilities, the gradient of the scores is
    P (dP - sum(P dP)).
    """

    @ops.custom_gradient
    def attention(query: Any, key: Any, value: Any) -> tuple[Any, Any]:
        scores = matmul(query, key, transpose_b=True)
        probabilities = _softmax(scores if bias is None else scores + bias)

        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any, Any]:
            upstream = arguments[0] if upstream is None else upstream
            scores_gradient = _scores_gradient(probabilities, matmul(upstream, value, transpose_b=True))
            return (
                matmul(scores_gradient, key),
                matmul(scores_gradient, query, transpose_a=True),
                matmul(probabilities, upstream, transpose_a=True),
            )

        return matmul(probabilities, value), gradient

    return attention(query, key, value)


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

    def call(self, inputs: Any, padding_mask: Any = None) -> Any:
        """Attends.

        Args:
            inputs: (batch, sequence, hidden).
            padding_mask: bool (batch, sequence), True for real tokens, or None.

        Returns:
            (batch, sequence, hidden).
        """
        length, hidden = inputs.shape[1], inputs.shape[2]
        size = hidden // self.heads
        rows = ops.reshape(inputs, (-1, hidden))
        projected = ops.matmul(rows, self.qkv_kernel) + self.qkv_bias
        split = ops.transpose(ops.reshape(projected, (-1, length, 3, self.heads, size)), (2, 0, 3, 1, 4))
        query, key, value = ops.unstack(split, axis=0)
        bias = None
        if padding_mask is not None:
            bias = (1.0 - ops.cast(padding_mask, inputs.dtype))[:, None, None, :] * -1e9
        attended = attend(query * (1.0 / size**0.5), key, value, bias)
        joined = ops.reshape(ops.transpose(attended, (0, 2, 1, 3)), (-1, hidden))
        return ops.reshape(ops.matmul(joined, self.output_kernel) + self.output_bias, (-1, length, hidden))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "heads": self.heads}
