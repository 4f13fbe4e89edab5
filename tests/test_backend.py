"""What `keras.ops` lacks: products of transposed operands, compiled groups, and raw Philox words."""

from __future__ import annotations

import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from minibert.errors import DeviceError
from minibert.model import backend
from tests import oracles

keys = st.integers(0, 2**64 - 1)
steps = st.integers(0, 2**32 - 1)


def known_words(key: int, step: int, count: int) -> list[int]:
    blocks = [
        oracles.philox4x32_10((block, 0, step % 2**32, step >> 32), (key % 2**32, key >> 32))
        for block in range(-(-count // 4))
    ]
    return [word for block in blocks for word in block][:count]


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_matmul_reads_either_operand_transposed(transpose_a, transpose_b):
    a = np.arange(24, dtype=np.float32).reshape((2, 4, 3) if transpose_a else (2, 3, 4))
    b = np.arange(40, dtype=np.float32).reshape((2, 5, 4) if transpose_b else (2, 4, 5))
    known = (a.swapaxes(1, 2) if transpose_a else a) @ (b.swapaxes(1, 2) if transpose_b else b)
    assert np.array_equal(backend.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b), known)


def test_read_gives_the_value_of_a_weight():
    weight = keras.Variable([1.0, 2.0])
    assert not isinstance(backend.read(weight), keras.Variable)
    assert backend.read(weight).numpy().tolist() == [1.0, 2.0]


@given(seed=st.integers(0, 2**32), backend_name=st.sampled_from(["tensorflow", "another"]))
def test_rows_are_subtracted_from_the_columns_that_are_named(seed, backend_name):
    """Whole numbers, so that no order of a sum rounds."""
    generator = np.random.Generator(np.random.PCG64(seed))
    matrix, parts = (generator.integers(-9, 9, shape).astype(np.float32) for shape in ((3, 5), (8, 3)))
    columns = generator.integers(0, 5, 8).astype(np.int32)
    known = matrix.copy()
    for column, part in zip(columns, parts, strict=True):
        known[:, column] -= part
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "BACKEND", backend_name)
        found = backend.less_added_up(tf.constant(matrix), tf.constant(columns), tf.constant(parts))
    assert np.array_equal(found, known)


def test_after_is_the_tensor_behind_a_control_dependency():
    @tf.function(autograph=False)
    def run(x):
        first = tf.sin(x, name="first")
        return backend.after(x, first)

    graph = run.get_concrete_function(tf.TensorSpec([2])).graph
    assert ["first"] in [[control.name for control in op.control_inputs] for op in graph.get_operations()]
    assert run(tf.constant([1.0, 2.0])).numpy().tolist() == [1.0, 2.0]


def test_compiled_functions_are_compiled_alone_and_keep_their_name():
    @backend.compiled
    def twice_plus(x, y):
        return 2.0 * x + y

    @tf.function(autograph=False)
    def run(x):
        return twice_plus(tf.sin(x), x)

    graph = run.get_concrete_function(tf.TensorSpec([None])).graph
    compiled = {op.type: op.node_def.attr["_XlaMustCompile"].b for op in graph.get_operations()}
    assert compiled["PartitionedCall"] is True
    assert compiled["Sin"] is False
    assert twice_plus.__name__ == "twice_plus"
    x = np.array([0.0, 1.5, -2.0], dtype=np.float32)
    np.testing.assert_allclose(run(x), 2.0 * np.sin(x) + x, rtol=1e-6)


# Philox


@given(key=keys, step=steps | st.integers(0, 2**62), count=st.integers(1, 40))
@example(key=0, step=0, count=4)
@example(key=2**64 - 1, step=2**32, count=5)
def test_words_agree_with_the_oracle(key, step, count):
    words = backend.philox_words(key, step, count)
    assert words.dtype == tf.uint32
    assert words.numpy().tolist() == known_words(key, step, count)


def test_words_far_into_a_stream_agree_with_the_oracle():
    """TensorFlow draws them on several threads, each of which skips ahead."""
    key, step, count = 2**63 + 12345, 7, 3_000_001
    words = backend.philox_words(key, step, count).numpy()
    assert words.shape == (count,)
    for place in [*range(0, count, 99_991), count - 1]:
        block, word = divmod(place, 4)
        assert words[place] == oracles.philox4x32_10((block, 0, step, 0), (key % 2**32, key >> 32))[word], place


@pytest.mark.parametrize("word", [np.uint32, np.int64])
@given(key=keys, step=steps, count=st.integers(1, 40))
@example(key=2**64 - 1, step=2**32 - 1, count=39)
def test_words_by_operations_agree_with_the_oracle(word, key, step, count):
    """The version of the other backends, on NumPy's arrays: JAX has words of 32 bits, PyTorch wider ones instead."""
    numpy_ops = types.SimpleNamespace(
        zeros=lambda shape, dtype: np.zeros(shape, word),
        cast=lambda array, dtype: np.asarray(array, word),
        arange=np.arange,
        stack=np.stack,
        reshape=np.reshape,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "ops", numpy_ops)
        words = backend._philox_words_by_ops(key, step, count)
    assert words.dtype == word
    assert words.tolist() == known_words(key, step, count)


def test_halves_are_the_lower_then_the_upper_16_bits():
    halves = backend.halves(tf.constant([0x0001_0002, 0xFFFF_0000], dtype=tf.uint32))
    assert halves.dtype == tf.uint16
    assert halves.numpy().tolist() == [2, 1, 0, 0xFFFF]


def test_another_backend_than_the_training_steps_is_named(monkeypatch):
    backend.require_tensorflow()
    monkeypatch.setattr(backend, "BACKEND", "torch")
    with pytest.raises(DeviceError) as caught:
        backend.require_tensorflow()
    assert str(caught.value) == (
        "Keras' backend: tensorflow is required, but 'torch' came, from KERAS_BACKEND or ~/.keras/keras.json; "
        "KERAS_BACKEND=tensorflow before Keras is imported asks for it"
    )
