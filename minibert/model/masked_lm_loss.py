"""The masked language model's loss on the selected rows, with its own gradient.

    hidden rows (rows, hidden) -> logits (rows, vocabulary) -> one loss per row

The vocabulary projection is most of a training step, and the framework's cross-entropy reads and
writes the (rows, vocabulary) logits many times over. Here they are read for the maximum, turned into
exponentials in one compiled pass, summed, and from then on only read by matrix products: the division
by the sum and the label's own term are taken out of the matrix and applied to what the products give. The
bias is the kernel's last row and every hidden row ends in 1, so no pass over the logits adds it.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from minibert.model.backend import after, compiled, matmul, read, take_each

CHUNKS = 2
"""Chunks of equal size that the rows are cut into: one would be some 5 % faster, more bound the memory."""


@compiled
def _exponential(logits: Any, largest: Any) -> Any:
    return ops.exp(logits - largest)


@compiled
def _sum_of_chunks(parts: list[Any], of_labels: Any, upstream: Any) -> tuple[Any, Any]:
    """((a + b) - labels' part) * upstream in one pass, the chunks always added in the same order.

    The last row of each part is the bias': the gradients by the kernel and by the bias.
    """
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    found = (total - ops.transpose(of_labels)) * upstream
    return found[:-1], found[-1]


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

    Source: sparse categorical cross-entropy from logits; its gradient by the logits is
    weight * (softmax - one-hot(label)). With E = exp(logits - max), t its row sums and s = weight / t, the
    gradients are s (E kernel^T) - weight kernel[:, label] by the hidden rows, and (s [hidden 1])^T E less
    weight [hidden 1] added up by label for the kernel and, in the last row, the bias.
    """

    @ops.custom_gradient
    def loss(hidden: Any, kernel: Any, bias: Any) -> tuple[Any, Any]:
        losses: list[Any] = []
        gradients: list[tuple[Any, Any]] = []
        kernel_and_bias = ops.concatenate([kernel, bias[None]], axis=0)
        rows = zip(*(ops.split(part, CHUNKS, axis=0) for part in (hidden, labels, weight)), strict=True)
        for chunk_hidden, chunk_labels, chunk_weight in rows:
            if gradients:
                chunk_hidden = after(chunk_hidden, *gradients[-1])
            ones = ops.ones_like(chunk_hidden[:, :1])
            logits = matmul(ops.concatenate([chunk_hidden, ones], axis=1), kernel_and_bias)
            largest = ops.max(logits, axis=-1, keepdims=True)
            exponential = _exponential(logits, largest)
            total = ops.sum(exponential, axis=-1, keepdims=True)
            label_logits = take_each(logits, chunk_labels)
            losses.append((ops.log(total)[:, 0] + largest[:, 0] - label_logits) * chunk_weight)
            scale = chunk_weight[:, None] / total
            gradients.append(
                (
                    matmul(exponential, kernel, transpose_b=True) * scale,
                    matmul(ops.concatenate([chunk_hidden * scale, scale], axis=1), exponential, transpose_a=True),
                )
            )

        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any, Any]:
            upstream = arguments[0] if upstream is None else upstream
            by_hidden, by_kernel_and_bias = zip(*gradients, strict=True)
            label_columns = ops.transpose(ops.take(kernel, labels, axis=1))
            weighted = ops.concatenate([hidden * weight[:, None], weight[:, None]], axis=1)
            of_labels = ops.segment_sum(weighted, labels, num_segments=kernel.shape[1])
            return (
                (ops.concatenate(by_hidden, axis=0) - label_columns * weight[:, None]) * upstream,
                *_sum_of_chunks(list(by_kernel_and_bias), of_labels, upstream),
            )

        return ops.sum(ops.concatenate(losses, axis=0)), gradient

    return loss(hidden, read(kernel), read(bias))
