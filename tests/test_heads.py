"""The objectives are the notebooks' losses: at every position with weights, and of every example's class."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from minibert.batches import MaskedLMBatches
from minibert.model.encoder import HEAD_NAME, build_masked_lm, cut_encoder
from minibert.model.heads import (
    ClassifierObjective,
    MaskedGlobalMaxPooling1D,
    MaskedLMObjective,
    binary_cross_entropy,
    classifier_layers,
    masked_lm_chunks,
    masked_lm_objective,
    pool,
    with_activations,
)
from minibert.perf.shapes import realistic_token_ids, shape_settings
from minibert.settings import ModelSettings
from minibert.training.step import TrainingStep
from tests import oracles, small_models
from tests.closeness import deviation
from tests.small_models import LENGTH, VOCABULARY_SIZE, WITH_PADDING_MASK, WITHOUT_DROPOUT, gradients, tensors

IDS = small_models.token_ids()


@pytest.fixture(scope="module")
def classifier():
    """One that is not trained; its encoder drops nothing."""
    return small_models.build_classifier(WITHOUT_DROPOUT)


def notebook_objective(model, batch) -> tuple[float, dict[str, np.ndarray]]:
    """The notebooks' loss of a masked batch: softmax at every position, weight 0 where nothing is selected."""
    token_ids, size = batch["token_ids"], batch["token_ids"].size
    real = batch["sample_weight"] == 1
    labels, weight = np.zeros(size, np.int32), np.zeros(size)
    labels[batch["positions"][real]], weight[batch["positions"][real]] = batch["labels"][real], 1.0
    head = model.get_layer(HEAD_NAME)
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        hidden = tf.reshape(cut_encoder(model)(token_ids, training=True), (size, -1))
        wide = tf.cast(tf.matmul(hidden, head.kernel) + head.bias, tf.float64)
        total = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, wide) * weight)
    found = [tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(total, variables)]
    return float(total), {v.path: gradient for v, gradient in zip(model.trainable_variables, found, strict=True)}


@pytest.mark.parametrize("settings", [pytest.param(WITHOUT_DROPOUT, marks=pytest.mark.long), WITH_PADDING_MASK])
def test_masked_lm_objective_is_the_notebooks_loss_at_every_position(settings):
    model, batch = small_models.masked_lm(settings), small_models.masked_lm_batches().batch(0)
    value, found = gradients(MaskedLMObjective(model, reduction="sum"), batch)
    known, known_gradients = notebook_objective(model, batch)
    assert deviation(value, known) < 1e-6
    assert sorted(found) == sorted(known_gradients)
    for name, gradient in found.items():
        assert deviation(gradient, known_gradients[name]) < 2e-5, name


@pytest.mark.parametrize("shape", ["tiny", "imdb", "amazon"])
def test_a_runs_logits_are_cut_into_chunks_by_their_bytes(shape):
    """Notebook 1's are in two; of a batch twice as large, one chunk has no more."""
    settings = shape_settings(shape)
    assert masked_lm_chunks(settings) == {"tiny": 1, "imdb": 2, "amazon": 1}[shape]
    for times in (2, 4):
        larger = dataclasses.replace(settings.pretrain, batch_size=settings.pretrain.batch_size * times)
        found = masked_lm_chunks(dataclasses.replace(settings, pretrain=larger))
        assert found == {"tiny": 1, "imdb": 2 * times, "amazon": times}[shape]
    narrow = dataclasses.replace(settings, model=dataclasses.replace(settings.model, precision="mixed_bfloat16"))
    assert masked_lm_chunks(narrow) == 1


def test_in_chunks_loss_and_gradients_are_the_same():
    model, batch = small_models.masked_lm(WITHOUT_DROPOUT), small_models.masked_lm_batches().batch(0)
    whole, whole_gradients = gradients(MaskedLMObjective(model, reduction="mean"), batch)
    value, found = gradients(MaskedLMObjective(model, reduction="mean", chunks=4), batch)
    assert deviation(value, whole) < 1e-6
    for name, known in whole_gradients.items():
        assert deviation(found[name], known) < 1e-6, name


def test_masked_lm_metrics_are_sums_whatever_the_reduction():
    model, batch = small_models.masked_lm(WITHOUT_DROPOUT), small_models.masked_lm_batches().batch(0)
    count = float(batch["sample_weight"].sum())
    values = {}
    for reduction in ("sum", "mean"):
        value, metrics, _ = MaskedLMObjective(model, reduction=reduction)(tensors(batch))
        values[reduction] = float(value)
        assert float(metrics["count"]) == count
        assert float(metrics["loss"]) == values["sum"]
    assert values["mean"] == np.float32(values["sum"]) / np.float32(count)


def test_a_batch_without_a_selected_token_has_no_loss_and_no_gradient():
    batch = small_models.masked_lm_batches().batch(0)
    batch["sample_weight"] = np.zeros_like(batch["sample_weight"])
    for reduction in ("sum", "mean"):
        objective = MaskedLMObjective(small_models.masked_lm(WITHOUT_DROPOUT), reduction=reduction)
        value, found = gradients(objective, batch)
        assert value == 0.0
        assert not any(gradient.any() for gradient in found.values())


@pytest.mark.parametrize("parts", [pytest.param(2, marks=pytest.mark.long), 4, pytest.param(8, marks=pytest.mark.long)])
def test_micro_batches_add_up_to_the_gradient_of_the_batch(parts):
    """The same masks, and float32 gradients that differ by rounding only: 1e-6 of the largest."""
    objective = MaskedLMObjective(small_models.masked_lm(WITHOUT_DROPOUT), reduction="sum")
    whole_value, whole = gradients(objective, small_models.masked_lm_batches(16).batch(0))
    batches = small_models.masked_lm_batches(16 // parts)
    found = [gradients(objective, batches.batch(part)) for part in range(parts)]
    assert deviation(sum(value for value, _ in found), whole_value) < 1e-6
    for name, known in whole.items():
        assert deviation(sum(gradient[name] for _, gradient in found), known) < 1e-6, name


@pytest.mark.long
@pytest.mark.parametrize("shape", ["imdb", "amazon"])
def test_micro_batches_add_up_at_the_notebooks_shapes(shape):
    """Thousands of rows are added up for a bias there, and most of them cancel: in one sum it was 6e-6 off."""
    settings = shape_settings(shape)
    length, size = settings.text.sequence_length, settings.masking.required_vocabulary_size
    without_dropout = dataclasses.replace(settings.model, dropout_rate=0.0)
    model = build_masked_lm(without_dropout, vocabulary_size=size, sequence_length=length, seed=0)
    ids = realistic_token_ids(32, length, size)

    def parts_of(count):
        pretrain = dataclasses.replace(settings.pretrain, batch_size=32 // count)
        objective = masked_lm_objective(model, dataclasses.replace(settings, pretrain=pretrain))
        batches = MaskedLMBatches(ids, seed=0, masking=settings.masking, batch_size=pretrain.batch_size)
        return [gradients(objective, batches.batch(part))[1] for part in range(count)]

    (whole,) = parts_of(1)
    for count in (2, 4, 8):
        parts = parts_of(count)
        for name, known in whole.items():
            assert deviation(sum(part[name] for part in parts), known) < 1e-6, (count, name)


def test_activations_are_every_layers_output_in_forward_order():
    encoder = cut_encoder(small_models.masked_lm())
    outputs = with_activations(encoder)(IDS[:3].astype("int32"))
    names = list(outputs)
    assert names[:2] == ["word_embedding", "embedding"]
    assert names[-1] == "encoder_1_ffn_layernormalization"
    assert [name[:9] for name in names[2:]] == ["encoder_0"] * 8 + ["encoder_1"] * 8
    assert np.array_equal(outputs[names[-1]], encoder(IDS[:3].astype("int32")))


# The notebook's model in float64


FLOAT64_SETTINGS = ModelSettings(hidden_size=16, heads=4, feed_forward_size=12, blocks=2, dropout_rate=0.0)


def notebook_model(settings: ModelSettings) -> keras.Model:
    """The notebooks' masked language model by Keras alone, in float64: nothing of it is ours."""
    from keras import layers
    from keras_nlp.layers import PositionEmbedding

    token_ids, size = keras.Input((LENGTH,), dtype="int64"), settings.hidden_size
    words = layers.Embedding(VOCABULARY_SIZE, size, name="word_embedding", dtype="float64")(token_ids)
    hidden = words + PositionEmbedding(LENGTH, name="position_embedding", dtype="float64")(words)
    for block in range(settings.blocks):
        name = f"encoder_{block}"

        def norm(part: str, inputs: Any, name: str = name) -> Any:
            layer = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_{part}_layernormalization", dtype="float64")
            return layer(inputs)

        attention = layers.MultiHeadAttention(
            settings.heads, size // settings.heads, name=f"{name}_multiheadattention", dtype="float64"
        )
        hidden = norm("att", hidden + attention(hidden, hidden, hidden))
        inner = layers.Dense(settings.feed_forward_size, activation="relu", dtype="float64")
        outer = layers.Dense(size, dtype="float64")
        hidden = norm("ffn", hidden + keras.Sequential([inner, outer], name=f"{name}_ffn")(hidden))
    head = layers.Dense(VOCABULARY_SIZE, activation="softmax", name="mlm_cls", dtype="float64")
    return keras.Model(token_ids, head(hidden))


def in_our_layout(ours: keras.Model, notebook: keras.Model, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of the notebook's trainable weights as those of ours, by path: attention's kernels become one."""
    given = {id(variable): array for variable, array in zip(notebook.trainable_variables, arrays, strict=True)}
    found = {}
    for layer in filter(lambda layer: layer.trainable_variables, notebook.layers):
        values = [given[id(variable)] for variable in layer.trainable_variables]
        if isinstance(layer, keras.layers.MultiHeadAttention):
            part = {tuple(v.path.split("/")[-2:]): given[id(v)] for v in layer.trainable_variables}
            kernels, biases = ([part[name, kind] for name in ("query", "key", "value")] for kind in ("kernel", "bias"))
            size = kernels[0].shape[0]
            values = [np.stack(kernels, axis=1).reshape(size, -1), np.stack(biases).reshape(-1)]
            values += [part["attention_output", "kernel"].reshape(size, size), part["attention_output", "bias"]]
        for variable, value in zip(ours.get_layer(layer.name).trainable_variables, values, strict=True):
            found[variable.path] = value
    return found


def float64_objective(notebook: keras.Model, batch: dict[str, np.ndarray]) -> tuple[float, list[np.ndarray]]:
    """The notebooks' loss of a masked batch, by Keras' own cross-entropy, and its gradient by every weight."""
    shape, size = batch["token_ids"].shape, batch["token_ids"].size
    real, labels, weight = batch["sample_weight"] == 1, np.zeros(size, np.int64), np.zeros(size)
    labels[batch["positions"][real]], weight[batch["positions"][real]] = batch["labels"][real], 1.0
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(reduction=None, dtype="float64")
    variables = [variable.value for variable in notebook.trainable_variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        probabilities = notebook(batch["token_ids"], training=True)
        losses = cross_entropy(labels.reshape(shape), probabilities, sample_weight=weight.reshape(shape))
    assert losses.dtype == tf.float64
    gradients = [tf.convert_to_tensor(found).numpy() for found in tape.gradient(losses, variables)]
    return float(tf.reduce_sum(losses)), gradients


@pytest.fixture(scope="module")
def in_float64():
    """The notebook's model in float64, ours, its objective and its step."""
    notebook, ours = notebook_model(FLOAT64_SETTINGS), small_models.build(FLOAT64_SETTINGS)
    objective = MaskedLMObjective(ours, reduction="sum")
    return notebook, ours, objective, TrainingStep(objective, learning_rate=0.001, seed=0, stage="pretrain")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradients_are_those_of_the_notebooks_model_in_float64(in_float64, seed):
    notebook, ours, objective, step = in_float64
    generator = np.random.Generator(np.random.PCG64(seed))
    start = [1.0 if v.path.endswith("gamma") else 0.0 for v in notebook.trainable_variables]
    weights = [
        (mean + 0.3 * generator.standard_normal(tuple(variable.shape))).astype(np.float32)
        for mean, variable in zip(start, notebook.trainable_variables, strict=True)
    ]
    for variable, value in zip(notebook.trainable_variables, weights, strict=True):
        variable.assign(value.astype(np.float64))
    values = in_our_layout(ours, notebook, weights)
    assert sorted(values) == sorted(variable.path for variable in objective.variables)
    for variable in objective.variables:
        variable.assign(values[variable.path])
    ids = generator.integers(0, VOCABULARY_SIZE - 1, (12, LENGTH)).astype(np.uint16)
    batch = MaskedLMBatches(ids, seed=seed, masking=small_models.MASKING, batch_size=12).batch(0)

    known, known_gradients = float64_objective(notebook, batch)

    value, found = gradients(objective, batch)
    assert deviation(value, known) < 1e-6
    for name, gradient in in_our_layout(ours, notebook, known_gradients).items():
        assert deviation(found[name], gradient) < 1e-5, name
    assert deviation(step(0, batch).metrics["loss"], known) < 1e-6


# Binary cross-entropy


logits_and_labels = st.lists(
    st.tuples(st.floats(-200, 200, width=32) | st.sampled_from([0.0, 1e30, -1e30]), st.booleans()),
    min_size=1,
    max_size=6,
)


@given(cases=logits_and_labels)
@example(cases=[(0.0, True), (-0.0, False), (88.7, False), (-104.0, True), (3e38, False), (-3e38, True)])
def test_binary_cross_entropy_agrees_with_the_oracle(cases):
    logits = tf.constant([logit for logit, _ in cases], tf.float32)
    labels = np.array([label for _, label in cases], dtype=np.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = binary_cross_entropy(labels, logits)
    known = oracles.binary_cross_entropy(labels, logits.numpy())
    np.testing.assert_allclose(losses, known, rtol=1e-6, atol=1e-37)
    with np.errstate(over="ignore"):
        sigmoid = 1.0 / (1.0 + np.exp(-logits.numpy().astype(np.float64)))
    np.testing.assert_allclose(tape.gradient(losses, logits), sigmoid - labels, rtol=0, atol=1e-6)


def test_binary_cross_entropys_gradient_is_scaled_by_what_comes_from_above():
    logits, labels = tf.constant([1.0, -2.0]), np.array([1.0, 1.0], np.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(binary_cross_entropy(labels, logits) * [2.0, 3.0])
    known = oracles.numeric_gradient(
        lambda x: float((oracles.binary_cross_entropy(labels, x) * [2.0, 3.0]).sum()), logits.numpy()
    )[0]
    np.testing.assert_allclose(tape.gradient(total, logits), known, rtol=1e-5)


# The classifier


def test_classifier_objective_is_the_mean_over_the_examples(classifier):
    batch = small_models.classifier_batches().batch(0)
    value, metrics, activations = ClassifierObjective(classifier, encoder_trainable=True)(tensors(batch))
    probability = classifier(batch["token_ids"]).numpy()[:, 0]
    logits = np.log(probability) - np.log1p(-probability)
    known = oracles.binary_cross_entropy(batch["labels"], logits)
    assert deviation(value, known.mean()) < 1e-5
    assert deviation(metrics["loss"], known.sum()) < 1e-5
    assert float(metrics["count"]) == len(batch["labels"])
    assert float(metrics["accuracy"]) == ((probability > 0.5) == (batch["labels"] == 1)).sum()
    assert list(activations)[-3:] == ["pooling", "hidden", "logits"]


def test_a_frozen_encoder_is_not_trained(classifier):
    encoder = {v.path for v in classifier.get_layer("encoder").variables}
    frozen = [v.path for v in ClassifierObjective(classifier, encoder_trainable=False).variables]
    everything = [v.path for v in ClassifierObjective(classifier, encoder_trainable=True).variables]
    assert frozen == ["hidden/kernel", "hidden/bias", "logits/kernel", "logits/bias"]
    assert set(everything) == encoder | set(frozen)
    assert not any("mlm_cls" in path for path in everything)


def test_a_frozen_encoder_still_drops():
    dropping = small_models.build_classifier(small_models.SETTINGS)
    objective = ClassifierObjective(dropping, encoder_trainable=False)
    batch = tensors(small_models.classifier_batches().batch(0))
    assert float(objective(batch)[0]) != float(objective(batch)[0]), "Keras' dropout, outside of a stream"


def test_the_classifier_shares_the_encoders_weights():
    from minibert.model.heads import build_classifier

    masked_lm = small_models.build(WITHOUT_DROPOUT)
    classifier = build_classifier(masked_lm, small_models.FINETUNE, WITHOUT_DROPOUT, seed=0)
    ours = {id(v) for v in classifier.get_layer("encoder").trainable_variables}
    assert ours < {id(v) for v in masked_lm.trainable_variables}
    assert classifier.output_shape == (None, 1)


@pytest.mark.parametrize("masked", [False, True])
def test_padding_is_pooled_over_only_without_a_padding_mask(masked):
    built = small_models.build_classifier(WITH_PADDING_MASK if masked else WITHOUT_DROPOUT)
    hidden = np.random.Generator(np.random.PCG64(0)).standard_normal((len(IDS), small_models.LENGTH, 8))
    hidden = hidden.astype(np.float32)
    hidden[IDS == 0] += 100.0
    pooled = pool(classifier_layers(built)[0], hidden, IDS.astype("int32")).numpy()
    known = np.where((IDS != 0)[..., None], hidden, -np.inf).max(axis=1) if masked else hidden.max(axis=1)
    assert np.array_equal(pooled, known)


def test_the_padding_masks_classifier_is_its_layers_one_by_one():
    built = small_models.build_classifier(WITH_PADDING_MASK)
    batch = small_models.classifier_batches().batch(0)
    _, _, activations = ClassifierObjective(built, encoder_trainable=True)(tensors(batch))
    probability = tf.sigmoid(activations["logits"])
    assert deviation(probability, built(batch["token_ids"])) < 1e-6


def test_more_padding_does_not_change_a_prediction_with_a_padding_mask():
    built = small_models.build_classifier(WITH_PADDING_MASK)
    before = built(IDS.astype("int32")).numpy()
    embedding = built.get_layer("encoder").get_layer("word_embedding").embeddings
    value = embedding.numpy()
    value[0] += 1.0
    embedding.assign(value)
    assert np.array_equal(built(IDS.astype("int32")), before)


def test_pooling_without_a_mask_is_keras_own():
    inputs = np.random.Generator(np.random.PCG64(0)).standard_normal((2, 3, 4)).astype(np.float32)
    assert np.array_equal(MaskedGlobalMaxPooling1D()(inputs), inputs.max(axis=1))
