"""Layer normalization with its own gradient, compiled as one pass forward and one backward."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from minibert.model.backend import compiled, read


@compiled
def _forward(inputs: Any, gamma: Any, beta: Any, epsilon: Any) -> tuple[Any, Any, Any]:
    mean = ops.mean(inputs, axis=-1, keepdims=True)
    centred = inputs - mean
    inverse = ops.rsqrt(ops.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    normalized = centred * inverse
    return normalized * gamma + beta, normalized, inverse


@compiled
def _backward(upstream: Any, normalized: Any, inverse: Any, gamma: Any) -> tuple[Any, Any, Any]:
    axes = tuple(range(len(upstream.shape) - 1))
    scaled = upstream * gamma
    mean = ops.mean(scaled, axis=-1, keepdims=True)
    along = ops.mean(scaled * normalized, axis=-1, keepdims=True)
    inputs_gradient = inverse * (scaled - mean - normalized * along)
    return inputs_gradient, ops.sum(upstream * normalized, axis=axes), ops.sum(upstream, axis=axes)


def layer_norm(inputs: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Normalizes over the last axis: (x - mean) / sqrt(variance + epsilon) * gamma + beta.

    Args:
        inputs: float32, (..., features).
        gamma: float32, (features,).
        beta: float32, (features,).
        epsilon: Added to the variance.

    Returns:
        float32, the shape of ``inputs``.

    Source: Ba, Kiros and Hinton 2016. The gradient, with n the normalized input, r the inverse
    deviation and g = upstream * gamma, is r (g - mean(g) - n mean(g n)).
    """

    @ops.custom_gradient
    def normalize(inputs: Any, gamma: Any, beta: Any) -> tuple[Any, Any]:
        outputs, normalized, inverse = _forward(inputs, gamma, beta, ops.cast(epsilon, inputs.dtype))

        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any, Any]:
            upstream = arguments[0] if upstream is None else upstream
            return _backward(upstream, normalized, inverse, gamma)

        return outputs, gradient

    return normalize(inputs, read(gamma), read(beta))


@keras.saving.register_keras_serializable(package="minibert")
class LayerNormalization(keras.layers.LayerNormalization):
    """Keras' layer over the last axis, with the gradient of `layer_norm`."""

    def call(self, inputs: Any) -> Any:
        """Normalizes; the shape of ``inputs``, in the layer's compute dtype."""
        outputs = layer_norm(ops.cast(inputs, "float32"), self.gamma, self.beta, self.epsilon)
        return ops.cast(outputs, self.compute_dtype)
