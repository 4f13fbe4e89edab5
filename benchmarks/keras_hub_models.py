"""keras-hub's ``BertMaskedLM`` and ``BertTextClassifier`` at our shapes.

The masked language model gathers a fixed count of masked positions: 15 % of the sequence length, its preprocessor's
custom; an example with fewer has rows of weight 0, one with more loses the last of them.

Its one rate of dropout is also that of the attention's probabilities, which the notebooks do not drop: random
numbers for (batch, heads, length, length) that no other side draws. That is switched off here.

What else differs from the notebooks' architecture stays: a layer norm behind the embeddings, which have a
segment's too and are dropped out, GELU by its approximation in the blocks in place of ReLU, padding is not attended
to, there is a dense layer with GELU and a norm before the projection, and the projection is tied to the embedding.
The classifier pools the first position with a dense layer of the encoder, and has one dense layer of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from benchmarks.keras_hub_text import build_encoder, build_masker, features_of, selection_length
from benchmarks.workloads import Parts, as_tensors, batches_of, fetch, weights_by_part
from minibert.batches import Arrays
from minibert.settings import RunSettings
from minibert.text import Vocabulary


def mask_positions(batch: Arrays, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch's first ``count`` selected positions of each example, their labels and weights, (batch, count)."""
    examples, length = batch["token_ids"].shape
    positions, labels = np.zeros((examples, count), np.int32), np.zeros((examples, count), np.int32)
    weight = np.zeros((examples, count), np.float32)
    filled = np.zeros(examples, int)
    is_selected = batch["sample_weight"] == 1
    for place, label in zip(batch["positions"][is_selected], batch["labels"][is_selected], strict=True):
        row, column = divmod(int(place), length)
        if filled[row] < count:
            at = (row, filled[row])
            positions[at], labels[at], weight[at] = column, label, 1.0
            filled[row] += 1
    return positions, labels, weight


def without_attention_dropout(backbone: Any) -> None:
    """Has a backbone drop no attention probabilities; called before it is traced for training.

    There is no argument for it: `TransformerEncoder` hands its own rate to Keras' ``MultiHeadAttention``.

    Raises:
        RuntimeError: It still drops, since the layers of this keras-hub or Keras are others.
    """
    for encoder in backbone.transformer_layers:
        attention = encoder._self_attention_layer
        attention._dropout = attention._dropout_layer.rate = 0.0
        probe = np.random.Generator(np.random.PCG64(0)).standard_normal((1, 16, backbone.hidden_dim), dtype=np.float32)
        trained, inferred = (np.asarray(attention(probe, probe, training=training)) for training in (True, False))
        if not np.allclose(trained, inferred, rtol=1e-5, atol=1e-6):
            raise RuntimeError(f"{encoder.name}: attention without dropout is required, but it drops")


def build_masked_lm(settings: RunSettings) -> Any:
    """The compiled masked language model: features with ``mask_positions`` to logits (batch, positions, vocabulary)."""
    masked_lm = keras_hub.models.BertMaskedLM(_backbone(settings), preprocessor=None)
    _compile(masked_lm, settings.pretrain.learning_rate)
    return masked_lm


def build_classifier(settings: RunSettings, *, frozen: bool) -> Any:
    """The compiled classifier: features to logits (batch, 2)."""
    backbone = _backbone(settings)
    backbone.trainable = not frozen
    classifier = keras_hub.models.BertTextClassifier(
        backbone, num_classes=2, preprocessor=None, dropout=settings.model.dropout_rate
    )
    _compile(classifier, settings.finetune.learning_rate)
    return classifier


def _backbone(settings: RunSettings) -> Any:
    model = settings.model
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=settings.masking.required_vocabulary_size,
        num_layers=model.blocks,
        num_heads=model.heads,
        hidden_dim=model.hidden_size,
        intermediate_dim=model.feed_forward_size,
        dropout=model.dropout_rate,
        max_sequence_length=settings.text.sequence_length,
    )
    without_attention_dropout(backbone)
    return backbone


def _compile(model: Any, learning_rate: float) -> None:
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[],
        jit_compile=False,  # with XLA it is ten times slower on a CPU
    )


class KerasHubStep:
    """keras-hub's training step as a workload, by Keras' own ``train_on_batch``.

    Args:
        settings: The shape.
        step: One of `benchmarks.workloads.STEPS`.
    """

    def __init__(self, settings: RunSettings, step: str) -> None:
        batches = batches_of(settings, step)
        if step == "masked_lm":
            self.model = build_masked_lm(settings)
            head: Any = self.model.masked_lm_head
            self.batches = [_masked_inputs(batch, selection_length(settings)) for batch in batches]
        else:
            self.model = build_classifier(settings, frozen=step == "frozen")
            head = self.model.output_dense
            self.batches = [(features_of(b["token_ids"]), b["labels"].astype(np.int64), None) for b in batches]
        self._tensors = [as_tensors(batch) for batch in self.batches]
        self._weights = weights_by_part(self.model, [head])

    def __call__(self, number: int) -> float:
        number %= len(self.batches)
        weight = self.batches[number][-1]
        with _without_pooler_warning():
            self.model.reset_metrics()  # or else some versions of Keras give a running mean
            loss = float(self.model.train_on_batch(*self._tensors[number], return_dict=True)["loss"])
        fetch(self.model.trainable_variables[-1])
        return loss if weight is None else loss * weight.size / float(weight.sum())  # Keras counts rows of weight 0

    def weights(self) -> Parts:
        return self._weights


class KerasHubEpoch:
    """An epoch by Keras' ``fit`` on a ``tf.data`` pipeline that masks each batch anew, as keras-hub's guides have it.

    Args:
        settings: The shape.
        token_ids: Integers, (examples, sequence).
    """

    def __init__(self, settings: RunSettings, token_ids: np.ndarray) -> None:
        mask = build_masker(settings)

        def masked(batch: Any) -> tuple[dict[str, Any], Any, Any]:
            found = mask(batch)
            features = {**features_of(found["token_ids"]), "mask_positions": found["mask_positions"]}
            return features, found["mask_ids"], found["mask_weights"]

        batches = tf.data.Dataset.from_tensor_slices(token_ids.astype(np.int64)).shuffle(1_000)
        batches = batches.batch(settings.pretrain.batch_size)
        self._batches = batches.map(masked, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
        self._model = build_masked_lm(settings)
        self.losses: list[float] = []

    def __call__(self) -> None:
        with _without_pooler_warning():
            self.losses.append(self._model.fit(self._batches, epochs=1, shuffle=False, verbose=0).history["loss"][-1])


class KerasHubAnswers:
    """An untrained model that answers raw text.

    Args:
        settings: The shape.
        vocabulary: Words by id.
        answer: ``classify`` (`logits`) or ``fill_mask`` (`fill` and `fill_by_hand`).
    """

    def __init__(self, settings: RunSettings, vocabulary: Vocabulary, answer: str) -> None:
        self._words, self._mask_id = vocabulary.words, vocabulary.mask_id
        self.encode = build_encoder(settings.text, vocabulary)
        self._model = build_classifier(settings, frozen=True) if answer == "classify" else build_masked_lm(settings)

    def logits(self, texts: list[str], batch_size: int) -> np.ndarray:
        """The logit of label 1, float (texts,)."""
        features = features_of(self.encode(texts))
        found = self._model.predict(features, batch_size=batch_size, verbose=0)
        return found[:, 1] - found[:, 0]

    def fill(self, sentences: list[str], top_k: int) -> list[list[str]]:
        """The likeliest words for each sentence's ``[mask]``, whose position alone is projected."""
        features = self._masked(sentences)
        return self._likeliest(self._model.predict(features, batch_size=len(sentences), verbose=0), top_k)

    def fill_by_hand(self, sentences: list[str], top_k: int) -> list[list[str]]:
        """The same by the backbone's output and its head."""
        features = self._masked(sentences)
        positions = features.pop("mask_positions")
        hidden = self._model.backbone(features)["sequence_output"]
        return self._likeliest(np.asarray(self._model.masked_lm_head(hidden, positions)), top_k)

    def _masked(self, sentences: list[str]) -> dict[str, Any]:
        token_ids = self.encode(sentences)
        return {**features_of(token_ids), "mask_positions": np.nonzero(token_ids == self._mask_id)[1][:, None]}

    def _likeliest(self, logits: np.ndarray, top_k: int) -> list[list[str]]:
        return [[self._words[i] for i in row[0].argsort()[-top_k:][::-1]] for row in logits]


@contextmanager
def _without_pooler_warning() -> Iterator[None]:
    """The backbone's pooler is no part of the masked language model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gradients do not exist for variables .'pooled_dense")
        yield


def _masked_inputs(batch: Arrays, count: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    positions, labels, weight = mask_positions(batch, count)
    return {**features_of(batch["token_ids"]), "mask_positions": positions}, labels, weight
