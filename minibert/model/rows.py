"""Rows of a matrix by their numbers, with gradients that add nothing up.

A framework's gradient of a gather adds up what comes back, for a row might be taken twice. Here none is, so the
gradient is a gather too: it is faster, and its bits depend on no order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from minibert.model.backend import gather


def take_rows(matrix: Any, positions: Any, row_of_place: Any) -> Any:
    """Some rows of a matrix; its gradient puts each back to its place.

    Args:
        matrix: (places, features).
        positions: int32, (rows,): their places.
        row_of_place: int32, (places,): the row of each place, counted from 1; 0: none. A row that only fills up is
            of no place, and its gradient, which is 0, is not looked at.

    Returns:
        (rows, features).
    """
    return _sent(matrix, lambda rows: gather(rows, positions), row_of_place)


def rearrange(rows: Any, numbers: Any, back: Any) -> Any:
    """Puts rows into another order; its gradient takes them back.

    Args:
        rows: (rows, features).
        numbers: int32, (other rows,): which row stands there, counted from 1, none of them twice; 0: zeros.
        back: int32, (rows,): where each row went, likewise.

    Returns:
        (other rows, features).
    """
    return _sent(rows, lambda rows: _numbered(rows, numbers), back)


def _sent(rows: Any, send: Callable[[Any], Any], back: Any) -> Any:
    """What ``send`` makes of the rows, with the gradient that takes them back by their numbers."""

    @ops.custom_gradient
    def sent(rows: Any) -> tuple[Any, Any]:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            return _numbered(arguments[0] if upstream is None else upstream, back)

        return send(rows), gradient

    return sent(rows)


def _numbered(rows: Any, numbers: Any) -> Any:
    return gather(ops.concatenate([ops.zeros((1, rows.shape[-1]), rows.dtype), rows]), numbers)
