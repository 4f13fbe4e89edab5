"""The last block for the selected tokens alone computes what the whole encoder does there, dropout included."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from minibert.batches import Arrays, locate_rows
from minibert.model.dropout import DropoutStream
from minibert.model.encoder import HEAD_NAME, cut_encoder
from minibert.model.heads import MaskedLMObjective, with_activations
from minibert.model.last_block import LastBlock, one_of_each
from minibert.model.masked_lm_loss import masked_lm_loss
from minibert.settings import ModelSettings
from tests import small_models
from tests.closeness import deviation
from tests.small_models import SETTINGS, WITH_PADDING_MASK, tensors

TWO_BLOCKS = dataclasses.replace(SETTINGS, dropout_rate=0.2)
ONE_BLOCK = dataclasses.replace(SETTINGS, blocks=1, dropout_rate=0.2)
PADDING_MASK = dataclasses.replace(WITH_PADDING_MASK, blocks=2, dropout_rate=0.2)
ODD = dataclasses.replace(SETTINGS, blocks=1, hidden_size=9, heads=3, dropout_rate=0.2)
BFLOAT16 = dataclasses.replace(ONE_BLOCK, precision="mixed_bfloat16")


def in_training(compute: Any) -> Any:
    """Runs it as a training step does, at one step of one dropout stream."""
    with DropoutStream(seed=0, stage="pretrain", step=tf.constant(3, tf.int64)):
        return compute()


def whole_objective(model: keras.Model, batch: Arrays) -> tuple[Any, dict[str, Any]]:
    """The loss with every token in the last block, and every layer's output at the batch's rows."""
    encoder, head = cut_encoder(model), model.get_layer(HEAD_NAME)
    outputs = with_activations(encoder)(batch["token_ids"], training=True)
    rows = {name: tf.gather(tf.reshape(o, (-1, o.shape[-1])), batch["positions"]) for name, o in outputs.items()}
    hidden = tf.cast(rows[encoder.layers[-1].name], tf.float32)
    return masked_lm_loss(hidden, head.kernel, head.bias, batch["labels"], batch["sample_weight"]), rows


def with_gradients(model: keras.Model, compute: Any) -> tuple[float, dict[str, np.ndarray]]:
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        loss = in_training(compute)
    found = [tf.convert_to_tensor(each).numpy() for each in tape.gradient(loss, variables)]
    return float(loss), {v.path: each for v, each in zip(model.trainable_variables, found, strict=True)}


def with_selected(is_selected: np.ndarray) -> Arrays:
    """A batch in which these tokens are selected: bool, (batch, sequence)."""
    ids = small_models.token_ids()[: len(is_selected)].astype(np.int32)
    rows = 2 * (int(is_selected.sum()) // 2) + 2
    positions, weight = np.zeros(rows, np.int32), np.zeros(rows, np.float32)
    places = np.flatnonzero(is_selected)
    positions[: len(places)], weight[: len(places)] = places, 1.0
    labels = (positions * 7 + 3) % small_models.VOCABULARY_SIZE
    return {
        "token_ids": ids, "positions": positions, "labels": labels.astype(np.int32), "sample_weight": weight,
        **locate_rows(is_selected, rows),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "batch_size", "most", "most_of_gradients"),
    [
        (ONE_BLOCK, 8, 2e-6, 1e-5),
        pytest.param(ONE_BLOCK, 1, 2e-6, 1e-5, marks=pytest.mark.long),
        (TWO_BLOCKS, 8, 2e-6, 1e-5),
        (PADDING_MASK, 8, 2e-6, 1e-5),
        pytest.param(ODD, 8, 2e-6, 1e-5, marks=pytest.mark.long),
        pytest.param(BFLOAT16, 8, 8e-3, 2e-2, marks=pytest.mark.long),
    ],
    ids=["one block", "one example", "two blocks", "padding mask", "odd sizes", "bfloat16"],
)
def test_loss_gradients_and_activations_are_the_whole_encoders(
    settings: ModelSettings, batch_size: int, most: float, most_of_gradients: float
) -> None:
    model, batch = small_models.masked_lm(settings), tensors(small_models.masked_lm_batches(batch_size).batch(0))
    objective = MaskedLMObjective(model, reduction="sum")
    loss, found = with_gradients(model, lambda: objective(batch)[0])
    known_loss, known = with_gradients(model, lambda: whole_objective(model, batch)[0])
    assert deviation(loss, known_loss) < most
    assert sorted(found) == sorted(known)
    for name, gradient in found.items():
        assert deviation(gradient, known[name]) < most_of_gradients, name
    activations = in_training(lambda: objective(batch)[2])
    whole = in_training(lambda: whole_objective(model, batch)[1])
    assert list(activations) == list(whole)
    prefix = f"encoder_{settings.blocks - 1}_"
    of_block = [name for name in whole if name.startswith(prefix)]
    assert len(of_block) == 8
    selected = batch["sample_weight"] == 1  # what fills up reads nothing
    for name in of_block:
        rows, known_rows = (tf.cast(each[name][selected], tf.float32) for each in (activations, whole))
        assert deviation(rows, known_rows) < most, name


def test_a_traced_function_serves_batches_of_all_sizes() -> None:
    """Rows, queries and examples are unknown when a step is traced: the last batch of an epoch has fewer of all."""
    model, batches = small_models.masked_lm(ONE_BLOCK), small_models.masked_lm_batches(16)
    both = [tensors(batches.batch(step)) for step in (0, batches.steps_per_epoch - 1)]
    assert [len(batch["token_ids"]) for batch in both] == [16, 6]
    objective = MaskedLMObjective(model, reduction="sum")
    signature = {name: tf.TensorSpec([None, *each.shape[1:]], each.dtype) for name, each in both[0].items()}

    @tf.function(autograph=False, input_signature=[signature])
    def loss(batch: dict[str, Any]) -> Any:
        return in_training(lambda: objective(batch)[0])

    for batch in both:
        assert deviation(loss(batch), in_training(lambda batch=batch: whole_objective(model, batch)[0])) < 2e-6


SELECTED = {
    "none": np.zeros((3, 10), bool),
    "all": np.ones((3, 10), bool),
    "an example without any": np.arange(30).reshape(3, 10) % 4 * [[1], [0], [2]] == 2,
    "the last place alone": np.arange(30).reshape(3, 10) == 29,
}


@pytest.mark.parametrize("which", SELECTED)
def test_any_number_of_tokens_may_be_selected(which: str) -> None:
    model, batch = small_models.masked_lm(ONE_BLOCK), tensors(with_selected(SELECTED[which]))
    loss, found = with_gradients(model, lambda: MaskedLMObjective(model, reduction="sum")(batch)[0])
    known_loss, known = with_gradients(model, lambda: whole_objective(model, batch)[0])
    assert deviation(loss, known_loss) < 2e-6
    assert (loss == 0.0) == (which == "none")
    for name, gradient in found.items():
        assert deviation(gradient, known[name]) < 1e-5, name


@pytest.mark.parametrize(("blocks", "inputs"), [(1, "embedding"), (3, "encoder_1_ffn_layernormalization")])
def test_the_block_reads_what_stands_before_it(blocks: int, inputs: str) -> None:
    block = LastBlock(cut_encoder(small_models.build(dataclasses.replace(SETTINGS, blocks=blocks))))
    assert block.inputs == inputs
    assert (block.prefix, block.outputs) == (f"encoder_{blocks - 1}_", f"encoder_{blocks - 1}_ffn_layernormalization")


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize(
    ("settings", "most"),
    [(ONE_BLOCK, 2e-6), (TWO_BLOCKS, 2e-6), (PADDING_MASK, 2e-6), (BFLOAT16, 2e-2)],
    ids=["one block", "two blocks", "padding mask", "bfloat16"],
)
def test_for_one_token_of_each_example_it_gives_the_encoders_output_there(
    settings: ModelSettings, most: float, count: int
) -> None:
    """Nothing drops out; the places are others in each example, the first and the last of a text among them."""
    encoder = cut_encoder(small_models.masked_lm(settings))
    block, ids = LastBlock(encoder), small_models.token_ids()[:count].astype(np.int32)
    places = np.array([0, ids.shape[1] - 1, 3, 3, 1, 5], np.int32)[:count]
    hidden = keras.Model(encoder.input, encoder.get_layer(block.inputs).output)(ids, training=False)
    found = block(hidden, one_of_each(ids, places), training=False)[block.outputs]
    known = np.asarray(tf.cast(encoder(ids, training=False), tf.float32))[np.arange(count), places]
    assert deviation(tf.cast(found, tf.float32), known) < most


def test_arrays_for_one_token_of_each_example_are_those_of_a_batch_with_these_selected() -> None:
    ids, places = small_models.token_ids()[:5].astype(np.int32), np.array([2, 0, 4, 1, 1], np.int32)
    is_selected = np.arange(ids.shape[1]) == places[:, None]
    known = {"positions": np.flatnonzero(is_selected), **locate_rows(is_selected, 5)}
    found = one_of_each(ids, places)
    for name in ("positions", "row_of_place"):
        assert np.array_equal(found[name], known[name]), name
    of_query = known["row_of_query"].reshape(5, -1)  # filled up to more queries than one
    assert np.array_equal(found["row_of_query"], of_query[:, 0])
    assert not of_query[:, 1:].any()
