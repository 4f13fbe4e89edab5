"""The masked language model's loss on the selected rows, with its own gradient.

    hidden rows (rows, hidden) -> logits (rows, vocabulary) -> one loss per row

The vocabulary projection is most of a training step, and the framework's cross-entropy reads and writes the
(rows, vocabulary) logits many times over. Here one matrix product gives the logits, and with TensorFlow on a CPU
it gives them less that of the row's label, so that no pass looks for their maximum. They are turned into exponentials
in place, summed, and from then on only read by matrix products: the division by the sum and the label's own term are
applied to what the products give. The bias is a row of the kernel's, and every hidden row has a 1 for it, so no pass
adds it.

Of hidden rows in bfloat16 the three products are computed in bfloat16, which rounds what they take and give to eight
binary digits. There the label has no part in the exponentials: its own term is probability - 1, in float32. As the
difference of a rounded product and 1, the gradient of a row that is nearly certain would be rounding alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from keras.backend import standardize_dtype

from minibert.model.backend import (
    after,
    compiled,
    gather,
    has_cheap_conditionals,
    less_added_up,
    matmul,
    read,
    take_each,
)

CHUNK_BYTES = 80_000_000
"""Of a chunk's logits. Notebook 2's fit, and one chunk is some 5 % faster than two; notebook 1's do not."""
_MOST_CHUNKS = 64
_LEAST, _MOST = 0.5, 1e20
"""A row's sum of exponentials, of which the label's is 1, where no maximum is needed: of a loss of 46 at most."""


def chunks_for(rows: int, vocabulary: int, *, logit_bytes: int = 4) -> int:
    """Into how many equal parts the rows are best cut: a power of two, 64 at most.

    Args:
        rows: Of a usual batch.
        vocabulary: Logits of a row.
        logit_bytes: Of one logit.
    """
    chunks = 1
    while chunks < _MOST_CHUNKS and logit_bytes * rows * vocabulary > chunks * CHUNK_BYTES:
        chunks *= 2
    return chunks


@compiled
def _transposed(kernel: Any) -> Any:
    return ops.transpose(kernel)


@compiled
def _added(one: Any, two: Any) -> Any:
    return one + two


@compiled
def _others(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Of bfloat16 logits the exponentials, (rows, vocabulary), 0 at the label, and their float32 sums, (rows, 1)."""
    return _exponentials_without(labels, ops.cast(logits, "float32"), logits.dtype)


@compiled
def _others_less_maximum(logits: Any, labels: Any) -> tuple[Any, Any, Any]:
    """The same of the logits less their row's largest, which is the third, (rows, 1)."""
    wide = ops.cast(logits, "float32")
    largest = ops.max(wide, axis=1, keepdims=True)
    return (*_exponentials_without(labels, wide - largest, logits.dtype), largest)


def _exponentials_without(labels: Any, logits: Any, dtype: Any) -> tuple[Any, Any]:
    is_label = ops.equal(ops.arange(logits.shape[1], dtype="int32"), ops.cast(labels, "int32")[:, None])
    exponential = ops.exp(ops.where(is_label, -np.inf, logits))
    return ops.cast(exponential, dtype), ops.sum(exponential, axis=1, keepdims=True)


@compiled
def _sum_of_chunks(parts: list[Any], upstream: Any) -> tuple[Any, Any]:
    """One or two parts' sum times ``upstream`` in one pass: by the kernel, and by the bias, the last row."""
    found = (parts[0] if len(parts) == 1 else parts[0] + parts[1]) * upstream
    return found[:-1], found[-1]


def masked_lm_loss(hidden: Any, kernel: Any, bias: Any, labels: Any, weight: Any, *, chunks: int = 1) -> Any:
    """Sum over rows of weight * (log-sum-exp of the logits - logit of the label).

    Args:
        hidden: float32 or bfloat16, (rows, hidden): the encoder's output at the selected positions. The products are
            computed in its dtype, and what each of them gives is in that dtype, too; all else is float32.
        kernel: float32, (hidden, vocabulary).
        bias: float32, (vocabulary,).
        labels: int32, (rows,).
        weight: float32, (rows,): 1, or 0 for rows that only fill up; nothing depends on what these hold.
        chunks: Equal parts that the rows are cut into, of which they are a multiple; one part's logits are there at a
            time.

    Returns:
        float32 scalar: the sum, which the notebooks' gradient is of.

    Determinism:
        Gradients of the chunks are added in a fixed order.

    Source: sparse categorical cross-entropy from logits; its gradient by the logits is weight * (softmax -
    one-hot(label)), in which any number may be subtracted from all logits of a row. With E = exp(logits - logit of the
    label), t its row sums and s = weight / t, the loss is weight * log(t / E[label]), in which E[label] is 1 but for
    what two sums of the same logit round; and the gradients are s (E kernel^T) - weight kernel[:, label] by the hidden
    rows, and (s [hidden 1])^T E less weight [hidden 1] added up by label for the kernel and, in the last row, the bias.
    In a chunk where a t would be near the end of float32's range, and where a condition is dear, the maximum is
    subtracted, as usual. In bfloat16 the E of the products is 0 at the label, and the second terms have weight * (1 -
    E[label] / t), the others' part of t, in place of weight.
    """
    dtype = standardize_dtype(hidden.dtype)
    is_rounded = dtype != "float32"

    @ops.custom_gradient
    def loss(hidden: Any, kernel: Any, bias: Any) -> tuple[Any, Any]:
        losses: list[Any] = []
        own: list[Any] = []
        by_rows: list[Any] = []
        by_columns: list[Any] = []
        # A product that reads the kernel transposed is slower in parts than in one.
        transposed = _transposed(kernel) if chunks > 1 else None
        of_labels = ops.transpose(ops.take(kernel, labels, axis=1)) if chunks == 1 else gather(transposed, labels)
        less_label = _rows_less_label(ops.cast(hidden, "float32"), of_labels, gather(bias, labels), weight)
        columns = ops.cast(ops.concatenate([kernel, bias[None], ops.ones_like(bias[None])], axis=0), dtype)
        factor = ops.cast(kernel if chunks == 1 else transposed, dtype)
        parts = zip(*(ops.split(part, chunks, axis=0) for part in (less_label, labels, weight)), strict=True)
        for chunk, chunk_labels, chunk_weight in parts:
            if by_rows:
                chunk = after(chunk, by_rows[-1], by_columns[-1])
            if is_rounded:
                exponential, total, chunk_losses, others = _rounded_exponentials(chunk, columns, chunk_labels)
                own.append(others * chunk_weight)
            else:
                exponential, total, chunk_losses = _exponentials(chunk, columns, chunk_labels)
            losses.append(chunk_losses * chunk_weight)
            scale = chunk_weight[:, None] / total
            by_row = matmul(exponential, factor, transpose_b=chunks == 1)
            by_rows.append(ops.cast(by_row, "float32") * scale)
            by_column = matmul(ops.cast(chunk[:, :-1] * scale, dtype), exponential, transpose_a=True)
            by_columns.append(ops.cast(by_column, "float32"))
            if len(by_columns) > 2:  # of the chunks before: one sum, in their order
                by_columns[:2] = [_added(*by_columns[:2])]

        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any, Any]:
            upstream = arguments[0] if upstream is None else upstream
            own_weight = ops.concatenate(own, axis=0) if is_rounded else weight
            by_hidden = ops.concatenate(by_rows, axis=0) - of_labels * own_weight[:, None]
            weighted = less_label[:, :-1] * own_weight[:, None]  # [hidden 1], and zeros where it fills up
            by_kernel_and_bias = [*by_columns[:-1], less_added_up(by_columns[-1], labels, weighted)]
            return (ops.cast(by_hidden * upstream, dtype), *_sum_of_chunks(by_kernel_and_bias, upstream))

        return ops.sum(ops.concatenate(losses, axis=0)), gradient

    return loss(hidden, read(kernel), read(bias))


def _rows_less_label(hidden: Any, of_labels: Any, bias_of_labels: Any, weight: Any) -> Any:
    """[hidden, 1, -logit of the label], (rows, hidden + 2): by [kernel, bias, 1] the logits less the label's.

    Rows of weight 0 are all zeros, so that nothing that they hold is too large.
    """
    label_logits = ops.sum(hidden * of_labels, axis=1) + bias_of_labels
    rows = ops.concatenate([hidden, ops.ones_like(label_logits)[:, None], -label_logits[:, None]], axis=1)
    return ops.where(weight[:, None] > 0, rows, ops.zeros_like(rows))


def _exponentials(rows: Any, columns: Any, labels: Any) -> tuple[Any, Any, Any]:
    """exp(logits - a number of each row's), (rows, vocabulary); their sums, (rows, 1); the losses, (rows,)."""

    def less_maximum() -> tuple[Any, Any, Any]:
        logits = matmul(rows[:, :-1], columns[:-1])
        largest = ops.max(logits, axis=1, keepdims=True)
        exponential = ops.exp(logits - largest)
        total = ops.sum(exponential, axis=1, keepdims=True)
        return exponential, total, ops.log(total)[:, 0] + largest[:, 0] - take_each(logits, labels)

    if not has_cheap_conditionals():
        return less_maximum()
    exponential = ops.exp(matmul(rows, columns))
    total = ops.sum(exponential, axis=1, keepdims=True)

    def less_label() -> tuple[Any, Any, Any]:
        return exponential, total, ops.log(total[:, 0] / take_each(exponential, labels))

    return _less_label_if_it_fits(total, less_label, less_maximum)


def _less_label_if_it_fits(total: Any, less_label: Any, less_maximum: Any) -> tuple[Any, ...]:
    fits = ops.all(ops.logical_and(total > _LEAST, total < _MOST))
    found: tuple[Any, ...] = ops.cond(fits, less_label, less_maximum)
    return found


def _rounded_exponentials(rows: Any, columns: Any, labels: Any) -> tuple[Any, Any, Any, Any]:
    """`_exponentials` of logits in the columns' dtype; and the others' probability, (rows,).

    The exponentials have the columns' dtype, too, and are 0 at the label.
    """
    rows = ops.cast(rows, columns.dtype)

    def with_label(logits: Any, exponential: Any, others: Any, subtracted: Any) -> tuple[Any, Any, Any, Any]:
        label = ops.cast(take_each(logits, labels), "float32")[:, None] - subtracted
        total = others + ops.exp(label)
        losses = ops.maximum(ops.log(total) - label, 0.0)
        return exponential, total, losses[:, 0], (others / total)[:, 0]

    def less_maximum() -> tuple[Any, Any, Any, Any]:
        logits = matmul(rows[:, :-1], columns[:-1])
        return with_label(logits, *_others_less_maximum(logits, labels))

    if not has_cheap_conditionals():
        return less_maximum()
    logits = matmul(rows, columns)
    found = with_label(logits, *_others(logits, labels), 0.0)
    return _less_label_if_it_fits(found[1], lambda: found, less_maximum)
