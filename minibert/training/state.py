"""The state of a model and its optimizer as named arrays, and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from minibert.errors import ArtifactError

Arrays = dict[str, np.ndarray]


def weight_arrays(variables: Iterable[Any]) -> Arrays:
    """Every weight by name; the seeds of Keras' own generators, which nothing here draws from, aside."""
    return {name: np.asarray(variable) for name, variable in _named(variables)}


def _named(variables: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Weights with their paths; the second of a path is ``path#2``.

    A model that Keras has loaded calls the feed-forward weights of all blocks the same: under one name the last
    would stand for all.
    """
    seen: dict[str, int] = {}
    for variable in variables:
        if "seed_generator" not in variable.path:
            number = seen[variable.path] = seen.get(variable.path, 0) + 1
            yield variable.path if number == 1 else f"{variable.path}#{number}", variable


def optimizer_arrays(optimizer: Any) -> Arrays:
    """Every variable of an optimizer by number and path."""
    return {f"{number:04d}/{v.path}": np.asarray(v) for number, v in enumerate(optimizer.variables)}


def state_digest(arrays: Arrays) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.view(np.uint8).reshape(-1).data if array.ndim else array.tobytes())
    return digest.hexdigest()


def digest_figures(kind: str, arrays: Arrays) -> dict[str, Any]:
    """Figures of a state: ``KIND_sha256``, of all of it, and ``KIND_by_name``, which says which tensors are others.

    Args:
        kind: ``weights`` or ``optimizer``.
        arrays: The state. By name there are the first eight hexadecimal digits of the SHA-256 of an array's bytes.
    """
    by_name = {name: hashlib.sha256(array.tobytes()).hexdigest()[:8] for name, array in arrays.items()}
    return {f"{kind}_sha256": state_digest(arrays), f"{kind}_by_name": by_name}


def set_weights(variables: Iterable[Any], arrays: Arrays, *, source: str) -> None:
    """Sets weights by the names that `weight_arrays` gives them.

    Raises:
        ArtifactError: A weight is missing or has another shape; the message names it and the source.
    """
    for name, variable in _named(variables):
        if name not in arrays:
            raise ArtifactError(f"{source}: weight {name!r} is required, but it is missing")
        _assign(variable, arrays[name], source)


def set_optimizer(optimizer: Any, arrays: Arrays, *, source: str) -> None:
    """Sets an optimizer's variables by number.

    Raises:
        ArtifactError: There are more or fewer of them, or one has another shape.
    """
    if len(arrays) != len(optimizer.variables):
        raise ArtifactError(
            f"{source}: {len(optimizer.variables)} optimizer variables are required, but {len(arrays)} came"
        )
    for variable, name in zip(optimizer.variables, sorted(arrays), strict=True):
        _assign(variable, arrays[name], source)


def _assign(variable: Any, value: np.ndarray, source: str) -> None:
    if tuple(variable.shape) != value.shape:
        raise ArtifactError(
            f"{source}: {variable.path!r}: shape {tuple(variable.shape)} is required, not {value.shape}"
        )
    variable.assign(value)
