"""Attention is Keras' multi-head attention in one product, and real tokens do not see padding."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minibert.errors import RepeatabilityError
from minibert.model import attention, backend
from minibert.model.attention import SelfAttention, attend, chunks_for
from minibert.model.heads import ClassifierObjective
from minibert.training.step import TrainingStep
from tests import oracles, small_models
from tests.closeness import deviation

BATCH, LENGTH, HIDDEN, HEADS = 3, 6, 8, 2
SCALE = 0.7
few = hypothesis_settings(max_examples=10)


@pytest.fixture(autouse=True, params=[False, True], ids=["by exponential", "by softmax"], scope="module")
def by_softmax(request):
    """Both ways to compute it, whichever this processor has; of the module, for hypothesis' examples share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "softmax_is_one_pass", lambda: request.param)
        yield request.param


def random(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.Generator(np.random.PCG64(seed)).standard_normal(shape) * scale).astype(np.float32)


def layer_with_weights(heads: int = HEADS, hidden: int = HIDDEN) -> SelfAttention:
    layer = SelfAttention(heads)
    layer.build((None, LENGTH, hidden))
    for number, weight in enumerate(layer.weights):
        weight.assign(random(number, *weight.shape, scale=0.5))
    return layer


def keras_layer(ours: SelfAttention, hidden: int = HIDDEN) -> keras.layers.MultiHeadAttention:
    """Keras' layer with the fused weights split."""
    heads, size = ours.heads, hidden // ours.heads
    layer = keras.layers.MultiHeadAttention(heads, size)
    layer.build((None, LENGTH, hidden), (None, LENGTH, hidden), (None, LENGTH, hidden))
    kernel, bias = ours.qkv_kernel.numpy(), ours.qkv_bias.numpy()
    parts: list[np.ndarray] = []
    for part in range(3):
        columns = slice(part * hidden, (part + 1) * hidden)
        parts += [kernel[:, columns].reshape(hidden, heads, size), bias[columns].reshape(heads, size)]
    parts += [ours.output_kernel.numpy().reshape(heads, size, hidden), ours.output_bias.numpy()]
    names = {"query": 0, "key": 2, "value": 4, "attention_output": 6}
    for weight in layer.weights:
        place = names[weight.path.split("/")[-2]] + (weight.path.endswith("bias"))
        weight.assign(parts[place])
    return layer


def value_and_gradients(call, weights, inputs, upstream):
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = call(inputs)
        total = tf.reduce_sum(outputs * upstream)
    found = tape.gradient(total, [inputs, *[weight.value for weight in weights]])
    return outputs.numpy(), [np.asarray(gradient) for gradient in found]


def fused(keras_gradients: dict[str, np.ndarray], hidden: int = HIDDEN) -> list[np.ndarray]:
    """Keras' gradients in the shape of our weights."""
    kernels = [keras_gradients[f"{part}/kernel"].reshape(hidden, hidden) for part in ("query", "key", "value")]
    biases = [keras_gradients[f"{part}/bias"].reshape(hidden) for part in ("query", "key", "value")]
    out = keras_gradients["attention_output/kernel"].reshape(hidden, hidden)
    return [np.concatenate(kernels, axis=1), np.concatenate(biases), out, keras_gradients["attention_output/bias"]]


@pytest.mark.parametrize("masked", [False, True])
def test_value_and_gradients_are_those_of_keras(masked):
    ours = layer_with_weights()
    theirs = keras_layer(ours)
    inputs, upstream = random(10, BATCH, LENGTH, HIDDEN), random(11, BATCH, LENGTH, HIDDEN)
    padding_mask = np.arange(LENGTH)[None, :] < np.array([6, 4, 1])[:, None] if masked else None
    attention_mask = None if padding_mask is None else np.repeat(padding_mask[:, None, :], LENGTH, axis=1)

    value, gradients = value_and_gradients(lambda x: ours(x, padding_mask), ours.weights, inputs, upstream)
    known, (known_input, *known_weights) = value_and_gradients(
        lambda x: theirs(x, x, attention_mask=attention_mask), theirs.weights, inputs, upstream
    )
    assert deviation(value, known) < 1e-5
    assert deviation(gradients[0], known_input) < 1e-5
    by_name = {"/".join(w.path.split("/")[-2:]): g for w, g in zip(theirs.weights, known_weights, strict=True)}
    # The key's bias moves every score of a row alike, so its gradient is 0 and what is computed is rounding.
    for name, found, known_gradient in zip(ours.weights, gradients[1:], fused(by_name), strict=True):
        assert deviation(found, known_gradient) < 2e-5, name.path


@few
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([0.1, 1.0, 3.0]), queries=st.sampled_from([4, 1, 6]))
def test_attend_agrees_with_the_oracle(seed, scale, queries):
    query, upstream = (random(seed + n, 1, HEADS, queries, 3, scale=scale) for n in (0, 3))
    key, value = (random(seed + n, 1, HEADS, 4, 3, scale=scale) for n in (1, 2))

    def known_outputs(query, key, value):
        return oracles.attention(query * SCALE, key, value)

    def total(*arrays):
        return float((known_outputs(*arrays) * upstream).sum())

    tensors = [tf.constant(array) for array in (query, key, value)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = attend(*tensors, scale=SCALE)
        summed = tf.reduce_sum(outputs * upstream)
    wide = [array.astype(np.float64) for array in (query, key, value)]
    assert deviation(outputs, known_outputs(*wide)) < 1e-6
    known = oracles.numeric_gradient(total, *wide)
    largest = max(float(np.abs(gradient).max()) for gradient in known)
    for found, gradient in zip(tape.gradient(summed, tensors), known, strict=True):
        assert deviation(found, gradient, scale=largest) < 1e-5


def test_huge_scores_stay_finite():
    query = tf.constant(random(0, 1, 1, 4, 3, scale=1e4))
    with tf.GradientTape() as tape:
        tape.watch(query)
        outputs = attend(query, query, query, scale=1.0)
    assert np.isfinite(outputs).all()
    assert np.isfinite(tape.gradient(outputs, query)).all()


# Padding


def test_padding_does_not_influence_real_tokens_by_a_single_bit():
    layer, inputs = layer_with_weights(), random(10, BATCH, LENGTH, HIDDEN)
    real = np.arange(LENGTH)[None, :] < np.array([6, 4, 1])[:, None]
    other = np.where(real[..., None], inputs, random(12, BATCH, LENGTH, HIDDEN, scale=5.0))
    one, two = (layer(some, real).numpy() for some in (inputs, other))
    assert np.array_equal(one[real], two[real])
    assert not np.array_equal(one[~real], two[~real]), "padding still sees real tokens"


def test_real_tokens_send_padding_no_gradient():
    layer = layer_with_weights()
    real = np.arange(LENGTH)[None, :] < np.array([6, 4, 1])[:, None]
    inputs = tf.constant(random(10, BATCH, LENGTH, HIDDEN))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(tf.boolean_mask(layer(inputs, real), real) ** 2)
    gradient = tape.gradient(total, inputs).numpy()
    assert not gradient[~real].any()
    assert gradient[real].any(axis=-1).all()


def test_without_a_mask_padding_is_attended_to():
    layer, inputs = layer_with_weights(), random(10, BATCH, LENGTH, HIDDEN)
    other = inputs.copy()
    other[:, -1] += 1.0
    assert not np.array_equal(layer(inputs).numpy()[:, 0], layer(other).numpy()[:, 0])


def test_a_row_of_padding_alone_stays_finite():
    outputs = layer_with_weights()(random(10, 1, LENGTH, HIDDEN), np.zeros((1, LENGTH), dtype=bool))
    assert np.isfinite(outputs).all()


# Chunks of a batch


def test_chunks_are_as_many_as_keep_scores_in_the_cache(monkeypatch):
    monkeypatch.setattr(attention, "cache_decides", lambda: True)
    assert chunks_for(256, 2) == 4  # notebook 1: 2 of 8 heads in a group
    assert chunks_for(128, 1) == 1  # notebook 2
    assert chunks_for(1, 1) == 1
    assert chunks_for(4096, 2) == attention.USUAL_BATCH
    monkeypatch.setattr(attention, "cache_decides", lambda: False)
    assert chunks_for(4096, 2) == 1


@pytest.mark.parametrize(
    ("examples", "sizes"), [(8, [2, 2, 2, 2]), (6, [1, 1, 2, 2]), (4, [1, 1, 1, 1]), (2, [0, 0, 1, 1]), (0, [0] * 4)]
)
def test_chunks_have_one_example_more_or_less_and_all_of_them(examples, sizes):
    tensor = tf.reshape(tf.range(examples * 3), [-1, 3])
    split = tf.function(lambda x: backend.split_examples(x, 4), input_signature=[tf.TensorSpec([None, 3], tf.int32)])
    found = split(tensor)
    assert [len(part) for part in found] == sizes
    assert np.array_equal(tf.concat(found, axis=0), tensor)
    assert backend.split_examples(tensor, 1)[0] is tensor


def attended(chunks: int, monkeypatch, *, layer, inputs, upstream, padding_mask=None) -> list[np.ndarray]:
    """Outputs and gradients of a graph for any number of examples, computed in so many chunks."""
    monkeypatch.setattr(attention, "chunks_for", lambda *_: chunks)
    signature = [tf.TensorSpec([None, *inputs.shape[1:]])]
    call = tf.function(lambda x: layer(x, padding_mask), input_signature=signature)
    outputs, gradients = value_and_gradients(call, layer.weights, inputs, upstream)
    return [outputs, *gradients]


@pytest.mark.parametrize(("masked", "batch"), [(False, 1), (True, 3), (False, 5)])
def test_their_number_changes_no_bit(masked, batch, monkeypatch):
    """As many as examples, fewer, and more, so that some are empty."""
    inputs, upstream = (random(number, batch, LENGTH, HIDDEN) for number in (10, 11))
    padding_mask = np.arange(LENGTH)[None, :] < 1 + np.arange(batch)[:, None] if masked else None
    given = {"layer": layer_with_weights(), "inputs": inputs, "upstream": upstream, "padding_mask": padding_mask}
    one = attended(1, monkeypatch, **given)
    for chunks in (2, 3, 5):
        assert all(map(np.array_equal, attended(chunks, monkeypatch, **given), one)), chunks


@pytest.mark.long
@pytest.mark.parametrize("batch", [1, 5, 32])
def test_at_notebook_1s_shape_neither(batch, monkeypatch):
    """Whatever kernels TensorFlow takes for products of that size, of a batch and of its chunks."""
    layer = SelfAttention(8)
    layer.build((None, 256, 128))
    inputs, upstream = (random(number, batch, 256, 128) for number in (10, 11))
    one, four = (attended(chunks, monkeypatch, layer=layer, inputs=inputs, upstream=upstream) for chunks in (1, 4))
    assert all(map(np.array_equal, four, one))


def step_of(chunks: int, monkeypatch: pytest.MonkeyPatch) -> TrainingStep:
    """A classifier's step, traced and checked; every block computes so many chunks."""
    monkeypatch.setattr(attention, "chunks_for", lambda *_: chunks)
    objective = ClassifierObjective(small_models.build_classifier(), encoder_trainable=True)
    step = TrainingStep(objective, learning_rate=0.1, seed=0, stage="unfrozen", fingerprint_interval=1)
    step.trace(small_models.classifier_batches().batch(0))
    return step


def test_a_step_of_several_chunks_is_repeatable_and_computes_the_same(monkeypatch):
    one, several = step_of(1, monkeypatch), step_of(3, monkeypatch)
    for number in range(2):
        for step in (one, several):
            step(number, small_models.classifier_batches().batch(number))
    assert several.trace_count == len(several.graphs)
    both = zip(one.objective.variables, several.objective.variables, strict=True)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in both)


def waiting_nodes(step: TrainingStep) -> int:
    """How many of its graph's tensors wait for others."""
    nodes = step.graph.as_graph_def().node
    return sum(node.op == "Identity" and any(name.startswith("^") for name in node.input) for node in nodes)


def test_chunks_wait_for_each_other_in_the_gradient_too(monkeypatch):
    chunks, lanes, blocks = 3, small_models.SETTINGS.heads, small_models.SETTINGS.blocks
    one, several = (waiting_nodes(step_of(number, monkeypatch)) for number in (1, chunks))
    assert several - one == 2 * (chunks - 1) * lanes * blocks


def test_without_lanes_two_calls_of_a_compiled_function_might_run_at_once(by_softmax, monkeypatch):
    if by_softmax:
        pytest.skip("not run: a softmax is no compiled function")
    monkeypatch.setattr(attention.Lane, "enter", lambda self, tensor: tensor)
    with pytest.raises(RepeatabilityError, match="calls of a compiled function in a fixed order are required"):
        step_of(2, monkeypatch)


# The layer


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_any_heads_have_the_parameters_of_keras(heads):
    ours = layer_with_weights(heads)
    theirs = keras_layer(ours)
    inputs = random(10, BATCH, LENGTH, HIDDEN)
    assert ours.count_params() == theirs.count_params()
    assert deviation(ours(inputs), theirs(inputs, inputs)) < 1e-5


def test_examples_do_not_see_each_other():
    layer, inputs = layer_with_weights(), random(10, BATCH, LENGTH, HIDDEN)
    whole = layer(inputs).numpy()
    for row in range(BATCH):
        assert deviation(layer(inputs[row : row + 1]), whole[row : row + 1]) < 1e-6


def test_its_config_makes_it_again():
    layer = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(SelfAttention(4, name="a")))
    assert isinstance(layer, SelfAttention)
    assert (layer.heads, layer.name) == (4, "a")
    assert layer.compute_output_shape((None, 7, 8)) == (None, 7, 8)


def test_a_single_token_attends_to_itself():
    value = tf.constant(random(0, 2, 1, 1, 3))
    assert deviation(attend(value * 5, value, value, scale=SCALE), value) < 1e-6


@pytest.mark.parametrize("queries", [5, 2])
def test_bfloat16_is_as_close_as_its_digits_allow(queries):
    query, key, value = random(1, 2, HEADS, queries, 4), random(2, 2, HEADS, 5, 4), random(3, 2, HEADS, 5, 4)
    rounded = [tf.cast(array, tf.bfloat16) for array in (query, key, value)]
    found = attend(*rounded, scale=SCALE)
    wide = [tf.cast(array, tf.float64).numpy() for array in rounded]
    assert found.dtype == tf.bfloat16
    assert deviation(tf.cast(found, tf.float32), oracles.attention(wide[0] * SCALE, *wide[1:])) < 0.02


def softmaxes(variables: dict[str, str]) -> dict[str, object]:
    """In a process of its own: what TensorFlow says of oneDNN, and how many softmaxes stand in attention's graph."""
    done = subprocess.run(
        [sys.executable, "-c", SOFTMAXES], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


SOFTMAXES = """
import json
import tensorflow as tf
from minibert.onednn import onednn_is_on
from minibert.model.attention import attend
part = tf.ones([1, 2, 4, 3])
graph = tf.function(lambda: attend(part, part, part, scale=1.0)).get_concrete_function().graph
names = [node.op for node in graph.as_graph_def().node]
names += [node.op for function in graph.as_graph_def().library.function for node in function.node_def]
print(json.dumps({"oneDNN": onednn_is_on(), "softmaxes": names.count("Softmax")}))
"""


@pytest.mark.long
@pytest.mark.skipif(platform.machine() != "x86_64", reason="not run: the variable is for x86-64")
def test_onednn_decides_which_way_it_is_computed():
    assert softmaxes({"TF_ENABLE_ONEDNN_OPTS": "0"}) == {"oneDNN": False, "softmaxes": 0}
    assert softmaxes({"TF_ENABLE_ONEDNN_OPTS": "1", "CUDA_VISIBLE_DEVICES": "-1"}) == {"oneDNN": True, "softmaxes": 1}


def test_a_gpu_has_no_softmax_of_one_pass_and_no_cache_to_stay_in(monkeypatch):
    monkeypatch.setattr(backend, "onednn_is_on", lambda: True)
    on_a_gpu = bool(tf.config.list_logical_devices("GPU"))
    assert backend.softmax_is_one_pass() is backend.cache_decides() is not on_a_gpu
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"])
    assert not backend.softmax_is_one_pass()
    assert not backend.cache_decides()
