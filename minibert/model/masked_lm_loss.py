"""The masked language model's loss on the selected rows, with its own gradient.

    hidden rows (rows, hidden) -> logits (rows, vocabulary) -> one loss per row

The vocabulary projection is most of a training step, and the framework's cross-entropy reads and
writes the (rows, vocabulary) logits many times over. Here the products are left to the framework
and what stands between them is compiled into few passes, over chunks of rows that stay in cache.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from minibert.model.backend import after, compiled, matmul, read

CHUNKS = 4
"""Chunks of equal size that the rows are cut into."""


@compiled
def _chunk_loss(logits: Any, bias: Any, labels: Any, weight: Any) -> tuple[Any, Any]:
    """Per-row losses (rows,) and the gradient of their weighted sum by the logits (rows, vocabulary)."""
    logits = logits + bias
    largest = ops.max(logits, axis=-1, keepdims=True)
    exponential = ops.exp(logits - largest)
    total = ops.sum(exponential, axis=-1, keepdims=True)
    is_label = ops.arange(logits.shape[-1], dtype="int32")[None, :] == labels[:, None]
    label_logit = ops.sum(ops.where(is_label, logits, 0.0), axis=-1)
    loss = (ops.log(total)[:, 0] + largest[:, 0] - label_logit) * weight
    gradient = exponential * (weight[:, None] / total) - ops.where(is_label, weight[:, None], 0.0)
    return loss, gradient


def masked_lm_loss(hidden: Any, kernel: Any, bias: Any, labels: Any, weight: Any) -> Any:
    """Sum over rows of weight * (log-sum-exp of the logits - logit of the label).

    Args:
        hidden: float32, (rows, hidden): the encoder's output at the selected positions; the number of
            rows is a multiple of `CHUNKS`.
        kernel: float32, (hidden, vocabulary).
        bias: float32, (vocabulary,).
        labels: int32, (rows,).
        weight: float32, (rows,): 1, or 0 for rows that only fill up.

    Returns:
        float32 scalar: the sum, which the notebooks' gradient is of.

    Determinism:
        Gradients of the chunks are added in a fixed order.

    Source: sparse categorical cross-entropy from logits; its gradient is softmax(logits) - one-hot(label).
    """

    @ops.custom_gradient
    def loss(hidden: Any, kernel: Any, bias: Any) -> tuple[Any, Any]:
        sums: list[Any] = []
        gradients: list[tuple[Any, Any, Any]] = []
        rows = zip(*(ops.split(part, CHUNKS, axis=0) for part in (hidden, labels, weight)), strict=True)
        for chunk_hidden, chunk_labels, chunk_weight in rows:
            if gradients:
                chunk_hidden = after(chunk_hidden, gradients[-1][1])
            logits = ops.matmul(chunk_hidden, kernel)
            row_losses, logits_gradient = _chunk_loss(logits, bias, chunk_labels, chunk_weight)
            sums.append(ops.sum(row_losses))
            gradients.append(
                (
                    matmul(logits_gradient, kernel, transpose_b=True),
                    matmul(chunk_hidden, logits_gradient, transpose_a=True),
                    ops.sum(logits_gradient, axis=0),
                )
            )

        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any, Any]:
            upstream = arguments[0] if upstream is None else upstream
            by_hidden, by_kernel, by_bias = zip(*gradients, strict=True)
            return (
                ops.concatenate(by_hidden, axis=0) * upstream,
                _in_order(by_kernel) * upstream,
                _in_order(by_bias) * upstream,
            )

        return _in_order(sums), gradient

    return loss(hidden, read(kernel), read(bias))


def _in_order(parts: Any) -> Any:
    """((a + b) + c) + d: always in this order."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
