"""Memory that runs out: TensorFlow says which tensor did not fit, this says whose batch it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from minibert.errors import OutOfMemoryError


@contextmanager
def within_memory(what: str, batch_size: int, remedy: str = "") -> Iterator[None]:
    """Around what TensorFlow does with a batch.

    Args:
        what: What is done, for the message.
        batch_size: Examples in the batch.
        remedy: What may help; empty: nothing that a user can set.

    Raises:
        OutOfMemoryError: TensorFlow could not allocate a tensor.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        required = f"{what}: memory for a batch of {batch_size} is required, but the device has too little left"
        raise OutOfMemoryError(f"{required}; {remedy}" if remedy else required) from error
