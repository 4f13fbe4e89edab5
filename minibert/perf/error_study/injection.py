"""A training step with extra arithmetic in it: matrix products, not a sleep."""

from __future__ import annotations

import functools
import re
from typing import Any

PATTERN = re.compile(r"study\[(\d+)]")
MATRIX_SIZE = 64


def is_study(name: str) -> bool:
    """Whether a workload's name is one of the study: ``study[137]`` has 137 products more."""
    return PATTERN.fullmatch(name) is not None


class StudyStep:
    """The masked language model's step at the tiny shape, and then so many small products.

    All of a process share one model, as the blocks of a real benchmark do. Without products the same
    function is called with none to do, so that a level differs from another in the arithmetic alone.

    Args:
        name: Such as ``study[137]``.
    """

    def __init__(self, name: str) -> None:
        match = PATTERN.fullmatch(name)
        assert match is not None
        self._step, self._extra = _step(), _extra()
        self._products, self._result = _constant(int(match.group(1))), 0.0

    def __call__(self, number: int) -> None:
        """One step, and the extra work."""
        self._step(_next_number())
        self._result = float(self._extra(self._products))

    def check(self) -> None:
        """The step trains, and the products are finite."""
        self._step.check()
        if not abs(self._result) < 1e6:
            raise AssertionError(f"study: finite products are required, but {self._result} came")

    def subject(self) -> dict[str, Any]:
        """That of the step."""
        found: dict[str, Any] = self._step.subject()
        return found


@functools.cache
def _step() -> Any:
    from minibert.perf.workloads import Step

    return Step("masked_lm", "tiny")


@functools.cache
def _numbers() -> Any:
    import itertools

    return itertools.count()


def _next_number() -> int:
    return int(next(_numbers()))


@functools.cache
def _constant(products: int) -> Any:
    import tensorflow as tf

    return tf.constant(products, tf.int32)


@functools.cache
def _extra() -> Any:
    """Products one after the other, as many as asked for, in a traced function."""
    import numpy as np
    import tensorflow as tf

    generator = np.random.Generator(np.random.PCG64(0))
    matrix = tf.constant(generator.standard_normal((MATRIX_SIZE, MATRIX_SIZE), dtype=np.float32) / MATRIX_SIZE)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.int32)])
    def extra(products: Any) -> Any:
        def more(done: Any, value: Any) -> Any:
            return done + 1, tf.linalg.matmul(value, matrix) + matrix

        return tf.while_loop(lambda done, _: done < products, more, (0, matrix), parallel_iterations=1)[1][0, 0]

    return extra
