"""Dropout whose mask is a pure function of seed, stage, layer, step and place.

    with DropoutStream(seed=0, stage="pretrain", step=7):
        encoder(token_ids, training=True)

Inside the block every `StreamDropout` drops by the stream's words; outside it, in a user's own ``fit``,
it is Keras' dropout with its seed generator.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import keras
from keras import ops

from minibert.model.backend import compiled, gather, halves, philox_words
from minibert.streams import stream

_scope = threading.local()


@compiled
def _dropped(inputs: Any, drawn: Any, below: Any, scale: Any) -> Any:
    """0 where what was drawn is below the threshold, else the input times the scale."""
    return ops.where(drawn >= below, inputs * scale, ops.zeros_like(inputs))


class Rows(NamedTuple):
    """Some rows of a whole.

    Attributes:
        positions: int32, (rows,): their places.
        row_of_place: (places,): one element for each place of the whole. Its length is what is read: a number would
            not be known where JAX traces a shape.
    """

    positions: Any
    row_of_place: Any


class DropoutStream:
    """Names the stream that dropout draws from, for the layers called inside the ``with`` block.

    The word of flat element ``i`` is Philox4x32-10 word ``i div 2`` (its lower half for even ``i``) with
    the stream's first key word as key, at the counter whose high half is the step. Elements whose 16
    bits are below ``round(rate * 65536)`` are dropped.

    Args:
        seed: The run's root seed.
        stage: The training stage.
        step: Global step of the stage: an integer, or a tensor in a traced step.
    """

    def __init__(self, *, seed: int, stage: str, step: Any) -> None:
        self._seed, self._stage, self._step = seed, stage, step

    def __enter__(self) -> DropoutStream:
        self._before = getattr(_scope, "stream", None)
        _scope.stream = self
        return self

    def __exit__(self, *_: object) -> None:
        _scope.stream = self._before

    def drawn(self, layer: str, shape: tuple[Any, ...], *, positions: Any = None) -> Any:
        """What is drawn for each element: uint16, of the given shape.

        Args:
            layer: The layer's name.
            shape: Of the whole; (places, features) with ``positions``.
            positions: int32, (rows,): gives these rows alone, (rows, features), each as it is in the whole.
        """
        key = stream(self._seed, "dropout", self._stage, layer).key[0]
        count = 1
        for size in shape:
            count = count * size
        words = philox_words(key, self._step, (count + 1) // 2)
        if positions is None:
            return ops.reshape(halves(words)[:count], shape)
        if shape[-1] % 2:  # a word has the end of a row and the beginning of the next
            return gather(ops.reshape(halves(words)[:count], shape), positions)
        of_rows = gather(ops.reshape(words, (-1, shape[-1] // 2)), positions)
        return ops.reshape(halves(ops.reshape(of_rows, (-1,))), (-1, shape[-1]))


def drop(inputs: Any, drawn: Any, rate: float) -> Any:
    """Sets elements to 0 and scales the others by 1 / (1 - rate).

    Args:
        inputs: Floating point, any shape.
        drawn: uint16 of the same shape: elements below ``round(rate * 65536)`` are dropped.
        rate: At least 0, below 1.
    """
    below, scale = ops.cast(round(rate * 65536), "uint16"), ops.cast(1.0 / (1.0 - rate), inputs.dtype)

    @ops.custom_gradient
    def dropout(inputs: Any) -> tuple[Any, Any]:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            return _dropped(arguments[0] if upstream is None else upstream, drawn, below, scale)

        return _dropped(inputs, drawn, below, scale), gradient

    return dropout(inputs)


@keras.saving.register_keras_serializable(package="minibert")
class StreamDropout(keras.layers.Dropout):
    """Keras' dropout, drawing from a `DropoutStream` where one is active.

    Args:
        rate: Share of elements set to 0; the others are scaled by 1 / (1 - rate).
    """

    def call(self, inputs: Any, training: bool | None = False, rows: Rows | None = None) -> Any:
        """Drops elements in training; the shape of ``inputs``.

        Args:
            inputs: Any shape; (rows, features) with ``rows``.
            training: Whether elements are dropped.
            rows: Of which places the inputs are; each is dropped as if all places were there. None: they all are.
        """
        active = getattr(_scope, "stream", None)
        if active is None or not training or self.rate == 0:
            return super().call(inputs, training=bool(training))
        if rows is None:
            return drop(inputs, active.drawn(self.name, tuple(ops.shape(inputs))), self.rate)
        whole = (ops.shape(rows.row_of_place)[0], inputs.shape[-1])
        return drop(inputs, active.drawn(self.name, whole, positions=rows.positions), self.rate)
