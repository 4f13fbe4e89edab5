"""The masked language model's loss and gradient on selected rows are the notebooks' on every position."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minibert.model import masked_lm_loss as module
from minibert.model.masked_lm_loss import chunks_for, masked_lm_loss
from minibert.training.repeatability import require_repeatable
from tests import oracles
from tests.closeness import deviation

ROWS, HIDDEN, VOCABULARY = 8, 4, 11
kinds = st.sampled_from(["near 0", "usual", "huge"])
weights = st.sampled_from(["none", "one", "some", "all", "fractions"])
chunks_of_rows = st.sampled_from([1, 2, 4])
few = hypothesis_settings(max_examples=25)
in_both_precisions = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
with_and_without_conditions = pytest.mark.parametrize("is_cheap", [True, False], ids=["condition", "maximum"])


def case(seed: int, kind: str = "usual", weight: str = "some", *, rows: int = ROWS, vocabulary: int = VOCABULARY):
    """Float32 hidden rows, kernel, bias, labels and weights. Huge logits are integers, exact in float32."""
    generator = np.random.Generator(np.random.PCG64(seed))
    size = {"near 0": 1e-3, "usual": 1.0, "huge": 40.0}[kind]
    shapes = ((rows, HIDDEN), (HIDDEN, vocabulary), (vocabulary,))
    hidden, kernel, bias = ((generator.standard_normal(shape) * size).astype(np.float32) for shape in shapes)
    if kind == "huge":
        hidden, kernel, bias = np.round(hidden), np.round(kernel), np.round(bias)
    weight_of = {
        "none": np.zeros(rows),
        "one": np.arange(rows) == 1,
        "some": generator.integers(0, 2, rows),
        "all": np.ones(rows),
        "fractions": generator.random(rows),
    }[weight]
    labels = generator.integers(0, vocabulary, rows).astype(np.int32)
    return hidden, kernel, bias, labels, weight_of.astype(np.float32)


def value_and_gradients(hidden, kernel, bias, labels, weight, *, upstream=1.0, chunks=1, dtype="float32"):
    tensors = [tf.cast(hidden, dtype), tf.constant(kernel), tf.constant(bias)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = masked_lm_loss(*tensors, tf.constant(labels), tf.constant(weight), chunks=chunks) * upstream
    return float(total), [np.asarray(gradient) for gradient in tape.gradient(total, tensors)]


def known_value_and_gradients(hidden, kernel, bias, labels, weight):
    wide = [array.astype(np.float64) for array in (hidden, kernel, bias)]
    gradients = oracles.numeric_gradient(lambda *t: oracles.weighted_cross_entropy(*t, labels, weight), *wide)
    return oracles.weighted_cross_entropy(*wide, labels, weight), gradients


@few
@given(seed=st.integers(0, 2**32), kind=kinds, weight=weights, chunks=chunks_of_rows)
@example(seed=0, kind="huge", weight="all", chunks=1)
@example(seed=0, kind="huge", weight="all", chunks=2)
@example(seed=0, kind="usual", weight="none", chunks=1)
def test_value_and_gradients_agree_with_the_oracle(seed, kind, weight, chunks):
    """Huge logits have losses of thousands, for which the maximum is subtracted."""
    arrays = case(seed, kind, weight)
    found, gradients = value_and_gradients(*arrays, chunks=chunks)
    known, known_gradients = known_value_and_gradients(*arrays)
    hidden, kernel, bias, _, weight_of = arrays
    # A loss is a difference of two logits, so their size is what float32 rounds.
    size = max(known, float((np.abs(hidden @ kernel + bias).max(axis=1) * weight_of).sum()))
    assert deviation(found, known, scale=size) < 1e-6
    for gradient, known_gradient in zip(gradients, known_gradients, strict=True):
        assert deviation(gradient, known_gradient, scale=max(float(np.abs(known_gradient).max()), 1e-3)) < 1e-5


def test_no_weight_is_no_loss_and_no_gradient():
    found, gradients = value_and_gradients(*case(3, "huge", "none"))
    assert found == 0.0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("logit", [88.0, 1e4, 3e38])
def test_logits_at_the_end_of_the_range_stay_finite(logit):
    hidden = np.ones((2, 1), dtype=np.float32)
    kernel, bias = np.array([[logit, 0.0, -logit]], dtype=np.float32), np.zeros(3, dtype=np.float32)
    labels, weight = np.zeros(2, dtype=np.int32), np.ones(2, dtype=np.float32)
    found, gradients = value_and_gradients(hidden, kernel, bias, labels, weight)
    assert found == 0.0
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@in_both_precisions
@pytest.mark.parametrize("loss", [40.0, 45.75, 46.25, 60.0, 88.0, 89.0, 200.0, 9984.0])
@pytest.mark.parametrize("chunks", [1, 2])
def test_a_label_far_below_another_word_has_its_loss_and_gradient(loss, chunks, dtype):
    """The exponentials, of which the label's is 1, would overflow from a loss of 88.7 on. All are exact in bfloat16."""
    hidden = np.ones((2, 1), dtype=np.float32)
    kernel, bias = np.array([[0.0, loss, 0.0]], dtype=np.float32), np.zeros(3, dtype=np.float32)
    arrays = hidden, kernel, bias, np.array([0, 1], dtype=np.int32), np.ones(2, dtype=np.float32)
    found, (by_hidden, by_kernel, by_bias) = value_and_gradients(*arrays, chunks=chunks, dtype=dtype)
    assert deviation(found, loss) < 1e-6, "the other row's loss is 0"
    rounding = {"float32": 1e-6, "bfloat16": 2.0**-8}[dtype]
    np.testing.assert_allclose(np.asarray(by_hidden, np.float64), [[loss], [0.0]], rtol=rounding, atol=1e-15)
    np.testing.assert_allclose(by_kernel, [[-1.0, 1.0, 0.0]], atol=rounding)
    np.testing.assert_allclose(by_bias, [-1.0, 1.0, 0.0], atol=rounding)


@few
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["near 0", "usual"]), chunks=chunks_of_rows)
def test_with_the_maximum_subtracted_the_results_are_the_same(seed, kind, chunks):
    arrays = case(seed, kind)
    found, gradients = value_and_gradients(*arrays, chunks=chunks)
    others = []
    for name, value in {"_MOST": 0.0, "has_cheap_conditionals": lambda: False}.items():  # by the condition, without one
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, value)
            others.append(value_and_gradients(*arrays, chunks=chunks))
    (other, other_gradients), (without, without_gradients) = others
    assert deviation(found, other) < 1e-6
    assert without == other
    for one, two, three in zip(gradients, other_gradients, without_gradients, strict=True):
        assert deviation(one, two, scale=max(float(np.abs(two).max()), 1e-3)) < 1e-5
        assert np.array_equal(two, three)


@pytest.mark.parametrize(("devices", "is_there"), [([], True), (["a GPU"], False)], ids=["CPU", "GPU"])
def test_on_a_gpu_no_condition_is_waited_for(devices, is_there, monkeypatch):
    """It would have to come to the host before the work behind it may begin."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices)
    arrays = [tf.TensorSpec(array.shape, array.dtype) for array in case(0)]
    graph = tf.function(masked_lm_loss, autograph=False).get_concrete_function(*arrays).graph
    assert ("If" in {operation.type.removeprefix("Stateless") for operation in graph.get_operations()}) is is_there


@in_both_precisions
def test_what_is_no_number_stays_none(dtype):
    hidden, *others = case(3)
    hidden[0] = np.nan
    found, gradients = value_and_gradients(hidden, *others[:3], np.ones(ROWS, dtype=np.float32), dtype=dtype)
    assert np.isnan(found)
    assert all(np.isnan(gradient).any() for gradient in gradients)


@pytest.mark.parametrize(
    ("rows", "vocabulary", "chunks"),
    [(614, 30_000, 1), (1_229, 30_000, 2), (1, 1, 1), (2_458, 30_000, 4), (10**6, 30_000, 64), (10**9, 10**6, 64)],
    ids=str,
)
def test_a_chunks_logits_are_bounded(rows, vocabulary, chunks):
    """Notebook 2's batches, notebook 1's, and larger ones: a power of two, which fills `ROW_MULTIPLE`."""
    assert chunks_for(rows, vocabulary) == chunks


def notebook_loss(encoded, kernel, bias, labels, weight):
    """Softmax over the vocabulary at every position, Keras' loss of each, times the weight, summed; in float64."""
    logits = tf.einsum("blh,hv->blv", encoded, kernel) + bias
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_sum(losses * weight)


def test_selected_rows_alone_are_all_positions_with_weight_0():
    """What is selected decides; neither the rows that fill up nor the other positions add anything."""
    generator = np.random.Generator(np.random.PCG64(5))
    encoded = generator.standard_normal((3, 7, HIDDEN)).astype(np.float32)
    _, kernel, bias, _, _ = case(5)
    labels = generator.integers(0, VOCABULARY, (3, 7)).astype(np.int32)
    weight = (generator.random((3, 7)) < 0.25).astype(np.float32)
    places = np.flatnonzero(weight)
    filled = np.concatenate([places, np.zeros(3, dtype=np.int64)])
    row_weight = (np.arange(len(filled)) < len(places)).astype(np.float32)

    tensors = [tf.constant(array) for array in (encoded, kernel, bias)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        rows = tf.gather(tf.reshape(tensors[0], (-1, HIDDEN)), filled)
        total = masked_lm_loss(rows, tensors[1], tensors[2], tf.constant(labels.reshape(-1)[filled]), row_weight)
    found = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(total, tensors)]

    wide = [tf.constant(array.astype(np.float64)) for array in (encoded, kernel, bias)]
    with tf.GradientTape() as tape:
        tape.watch(wide)
        known = notebook_loss(*wide, labels, weight.astype(np.float64))
    assert deviation(total, known) < 1e-6
    for gradient, known_gradient in zip(found, tape.gradient(known, wide), strict=True):
        assert deviation(gradient, known_gradient) < 1e-5
    assert not found[0].numpy()[weight == 0].any(), "no gradient where nothing is selected"


@in_both_precisions
@pytest.mark.parametrize("size", [9.0, 1e30])
def test_rows_that_fill_up_change_no_bit_of_the_gradient(size, dtype):
    """Whatever stands in them."""
    hidden, kernel, bias, labels, weight = case(7)
    weight[-3:] = 0.0
    one = value_and_gradients(hidden, kernel, bias, labels, weight, dtype=dtype)
    labels[-3:], hidden[-3:] = 5, size
    other = value_and_gradients(hidden, kernel, bias, labels, weight, dtype=dtype)
    assert one[0] == other[0]
    for left, right in zip(one[1], other[1], strict=True):
        assert np.array_equal(left, right)


@in_both_precisions
def test_the_gradient_is_scaled_by_what_comes_from_above(dtype):
    _, ones = value_and_gradients(*case(9), dtype=dtype)
    _, halves = value_and_gradients(*case(9), upstream=0.5, dtype=dtype)
    for one, half in zip(ones, halves, strict=True):
        assert one.any()
        assert np.array_equal(half, one * one.dtype.type(0.5))


@pytest.mark.parametrize("chunks", [2, 4, 8])
def test_chunks_are_added_in_their_order(chunks, monkeypatch):
    """Bit for bit; the labels' own terms come off the last one."""
    parts, product = [], module.matmul

    def recorded(a, b, **transposed):
        found = product(a, b, **transposed)
        if transposed.get("transpose_a"):
            parts.append(found)
        return found

    monkeypatch.setattr(module, "matmul", recorded)
    hidden, kernel, bias, labels, weight = case(13, weight="all", rows=64)
    _, (_, by_kernel, by_bias) = value_and_gradients(hidden, kernel, bias, labels, weight, chunks=chunks)
    assert len(parts) == chunks
    own = np.concatenate([hidden, np.ones((64, 1), np.float32)], axis=1)
    parts[-1] = module.less_added_up(parts[-1], tf.constant(labels), tf.constant(own))
    known = functools.reduce(np.add, [np.asarray(part) for part in parts])
    assert np.array_equal(np.concatenate([by_kernel, by_bias[None]]), known)


def graph_of_loss(dtype, chunks):
    hidden, *others = case(13, rows=64)
    specs = [tf.TensorSpec(array.shape, array.dtype) for array in others]
    loss = tf.function(functools.partial(masked_lm_loss, chunks=chunks), autograph=False)
    return loss.get_concrete_function(tf.TensorSpec(hidden.shape, dtype), *specs).graph


@in_both_precisions
@with_and_without_conditions
@pytest.mark.parametrize("chunks", [1, 2, 4, 8])
def test_chunks_do_not_race(chunks, is_cheap, dtype, monkeypatch):
    monkeypatch.setattr(module, "has_cheap_conditionals", lambda: is_cheap)
    require_repeatable(graph_of_loss(dtype, chunks))


@in_both_precisions
def test_the_products_are_in_the_precision_of_what_comes_in(dtype):
    products = [operation for operation in graph_of_loss(dtype, 4).get_operations() if "MatMul" in operation.type]
    assert [operation.outputs[0].dtype.name for operation in products] == [dtype] * 3 * 4


@in_both_precisions
@few
@given(seed=st.integers(0, 2**32), size=st.sampled_from([1.0, 10.0, 30.0]), chunks=st.sampled_from([1, 2]))
def test_no_loss_is_below_0(dtype, seed, size, chunks):
    """Even where the label's logit, some hundred, is rounded otherwise in the product than in its own sum."""
    generator = np.random.Generator(np.random.PCG64(seed))
    hidden, kernel, bias, _, weight = case(seed, weight="all")
    kernel *= np.float32(size) * generator.random(kernel.shape[1], dtype=np.float32)
    labels = np.argmax(hidden @ kernel + bias, axis=1).astype(np.int32)
    for row in range(0, ROWS, chunks):
        part = slice(row, row + chunks)
        arrays = hidden[part], kernel, bias, labels[part], weight[part]
        assert value_and_gradients(*arrays, chunks=chunks, dtype=dtype)[0] >= 0.0


@in_both_precisions
@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_rows_that_fill_up_may_hold_what_is_no_number(garbage, dtype):
    hidden, kernel, bias, labels, weight = case(7)
    weight[-3:] = 0.0
    one = value_and_gradients(hidden, kernel, bias, labels, weight, dtype=dtype)
    hidden[-3:] = garbage
    other = value_and_gradients(hidden, kernel, bias, labels, weight, dtype=dtype)
    assert one[0] == other[0]
    for left, right in zip(one[1], other[1], strict=True):
        assert np.array_equal(left, right)


def test_variables_get_their_gradient():
    hidden, kernel, bias, labels, weight = case(11)
    variables = [tf.Variable(kernel), tf.Variable(bias)]
    with tf.GradientTape() as tape:
        total = masked_lm_loss(tf.constant(hidden), *variables, tf.constant(labels), tf.constant(weight))
    _, (_, *known) = value_and_gradients(hidden, kernel, bias, labels, weight)
    for gradient, of_tensor in zip(tape.gradient(total, variables), known, strict=True):
        assert np.array_equal(gradient, of_tensor)


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_a_chunk_waits_for_both_gradients_of_the_one_before(chunks):
    """Else the logits of two chunks are there at once."""
    arrays = [tf.TensorSpec(array.shape, array.dtype) for array in case(0)]
    loss = tf.function(functools.partial(masked_lm_loss, chunks=chunks), autograph=False)
    graph = loss.get_concrete_function(*arrays).graph
    waiting = [list(operation.control_inputs) for operation in graph.get_operations() if operation.type == "Identity"]
    waits = [{one.type for one in inputs} for inputs in waiting if len(inputs) > 1]
    assert waits == [{"Mul", "MatMul"}] * (chunks - 1)


# In bfloat16


def exact_in_bfloat16(*arrays):
    return [np.asarray(tf.cast(tf.cast(array, tf.bfloat16), tf.float32)) for array in arrays]


@few
@given(seed=st.integers(0, 2**32), kind=kinds, weight=weights, chunks=chunks_of_rows, is_cheap=st.booleans())
@example(seed=0, kind="huge", weight="all", chunks=1, is_cheap=True)
def test_in_bfloat16_value_and_gradients_are_as_close_as_its_digits_allow(seed, kind, weight, chunks, is_cheap):
    """Of operands that are exact in bfloat16, and so a logit is off by 2^-9 of itself, and of the label's, or less."""
    *arrays, labels, weight_of = case(seed, kind, weight)
    hidden, kernel, bias = exact_in_bfloat16(*arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "has_cheap_conditionals", lambda: is_cheap)
        found, gradients = value_and_gradients(hidden, kernel, bias, labels, weight_of, chunks=chunks, dtype="bfloat16")
    assert [gradient.dtype.name for gradient in gradients] == ["bfloat16", "float32", "float32"]
    known, known_gradients = known_value_and_gradients(hidden, kernel, bias, labels, weight_of)
    off = 2.0**-7 * np.abs(hidden @ kernel + bias).max(axis=1)
    assert abs(found - known) <= (off * weight_of).sum() + 1e-5 * known
    if kind == "huge":
        return  # their softmax is 0 and 1, and which word is 1 may change
    parts = np.expm1(2 * off) + 2.0**-6  # of a row's softmax
    allowed = np.abs(kernel).max() * parts[:, None], np.abs(hidden).max() * parts.sum(), parts.sum()
    for gradient, known_gradient, most in zip(gradients, known_gradients, allowed, strict=True):
        assert np.all(np.abs(gradient.astype(np.float64) - known_gradient) <= most)


@with_and_without_conditions
@pytest.mark.parametrize("surety", [0.0, 2.0, 4.0, 8.0, 16.0])
def test_in_bfloat16_gradients_are_near_float32s_however_sure_a_row_is(surety, is_cheap, monkeypatch):
    """At a loss of 1e-6, too: the difference of a rounded product and the label's own term would be rounding alone."""
    monkeypatch.setattr(module, "has_cheap_conditionals", lambda: is_cheap)
    generator = np.random.Generator(np.random.PCG64(21))
    *_, bias, labels, weight = case(21, weight="all", rows=100, vocabulary=1_000)
    kernel = generator.standard_normal((64, 1_000)).astype(np.float32)
    hidden = generator.standard_normal((100, 64)).astype(np.float32) * 0.1 + kernel[:, labels].T * surety / 64
    (hidden,) = exact_in_bfloat16(hidden)
    found, gradients = value_and_gradients(hidden, kernel, bias, labels, weight, chunks=2, dtype="bfloat16")
    known, known_gradients = value_and_gradients(hidden, kernel, bias, labels, weight, chunks=2)
    assert 0 < abs(found - known) < 0.01 * known + 1e-4
    for gradient, known_gradient in zip(gradients, known_gradients, strict=True):
        wide = gradient.astype(np.float64) - known_gradient
        assert 0 < np.linalg.norm(wide) < 0.05 * np.linalg.norm(known_gradient)
