"""The notebooks' models and training steps, written anew from their description: what ours is measured against.

Keras' ``MultiHeadAttention``, a softmax over the whole vocabulary at every position, Keras' Adam by
``apply_gradients``, and a loss tracker, run by Keras' own compiled train function. XLA is off, as it
was where the notebooks ran; on a CPU it makes these steps slower.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from keras_nlp.layers import PositionEmbedding

from benchmarks.workloads import Parts, as_tensors, batches_of, fetch, weights_by_part, whole_labels
from minibert.settings import RunSettings

ENCODER_OUTPUT = "encoder_0_ffn_layernormalization"


class MaskedLanguageModel(keras.Model):
    """A functional model with the notebooks' own training step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loss_of_token = keras.losses.SparseCategoricalCrossentropy(reduction=None)
        self._loss_tracker = keras.metrics.Mean(name="loss")

    def train_step(self, data: Any) -> dict[str, Any]:
        features, labels, sample_weight = data
        with tf.GradientTape() as tape:
            predictions = self(features, training=True)
            loss = self._loss_of_token(labels, predictions, sample_weight=sample_weight)
        gradients = tape.gradient(loss, self.trainable_variables)  # of the sum: nothing averages it
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self._loss_tracker.update_state(loss, sample_weight=sample_weight)
        return {"loss": self._loss_tracker.result()}

    @property
    def metrics(self) -> list[Any]:
        return [self._loss_tracker]


def build_masked_lm(settings: RunSettings) -> MaskedLanguageModel:
    """The compiled masked language model: ids (batch, sequence) to probabilities (batch, sequence, vocabulary)."""
    length, model = settings.text.sequence_length, settings.model
    vocabulary_size = settings.masking.required_vocabulary_size
    token_ids = keras.Input((length,), dtype="int64")
    words = layers.Embedding(vocabulary_size, model.hidden_size, name="word_embedding")(token_ids)
    hidden = words + PositionEmbedding(length, name="position_embedding")(words)
    for block in range(model.blocks):
        hidden = _block(hidden, settings, block)
    probabilities = layers.Dense(vocabulary_size, activation="softmax", name="mlm_cls")(hidden)
    masked_lm = MaskedLanguageModel(token_ids, probabilities, name="masked_bert_model")
    masked_lm.compile(optimizer=keras.optimizers.Adam(settings.pretrain.learning_rate), jit_compile=False)
    return masked_lm


def _block(hidden: Any, settings: RunSettings, block: int) -> Any:
    model, name = settings.model, f"encoder_{block}"
    attended = layers.MultiHeadAttention(
        model.heads, key_dim=model.hidden_size // model.heads, name=f"{name}_multiheadattention"
    )(hidden, hidden, hidden)
    attended = layers.Dropout(model.dropout_rate, name=f"{name}_att_dropout")(attended)
    epsilon = model.layer_norm_epsilon
    hidden = layers.LayerNormalization(epsilon=epsilon, name=f"{name}_att_layernormalization")(hidden + attended)
    feed_forward = keras.Sequential(
        [layers.Dense(model.feed_forward_size, activation="relu"), layers.Dense(model.hidden_size)], name=f"{name}_ffn"
    )(hidden)
    feed_forward = layers.Dropout(model.dropout_rate, name=f"{name}_ffn_dropout")(feed_forward)
    return layers.LayerNormalization(epsilon=epsilon, name=f"{name}_ffn_layernormalization")(hidden + feed_forward)


def build_classifier(masked_lm: keras.Model, settings: RunSettings, *, frozen: bool) -> keras.Model:
    """The compiled classifier on a masked language model's encoder: ids to the probability of label 1."""
    encoder = keras.Model(masked_lm.input, masked_lm.get_layer(ENCODER_OUTPUT).output)
    encoder.trainable = not frozen
    token_ids = keras.Input((settings.text.sequence_length,), dtype="int64")
    pooled = layers.GlobalMaxPooling1D()(encoder(token_ids))
    hidden = layers.Dense(settings.finetune.classifier_size, activation="relu")(pooled)
    classifier = keras.Model(token_ids, layers.Dense(1, activation="sigmoid")(hidden))
    compile_classifier(classifier, settings)
    return classifier


def compile_classifier(classifier: keras.Model, settings: RunSettings) -> None:
    """Compiles with a fresh Adam, as the notebooks do before each of the two stages."""
    classifier.compile(
        optimizer=keras.optimizers.Adam(settings.finetune.learning_rate),
        loss="binary_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )


class NotebookStep:
    """The notebook's training step as a workload, on the batches that ours gets.

    Args:
        settings: The shape.
        step: One of `benchmarks.workloads.STEPS`.
    """

    def __init__(self, settings: RunSettings, step: str) -> None:
        batches = batches_of(settings, step)
        masked_lm = build_masked_lm(settings)
        if step == "masked_lm":
            self.model, head = masked_lm, masked_lm.layers[-1:]
            self.batches = [whole_labels(batch) for batch in batches]
        else:
            self.model = build_classifier(masked_lm, settings, frozen=step == "frozen")
            head = self.model.layers[-2:]
            self.batches = [(batch["token_ids"].astype(np.int64), batch["labels"], None) for batch in batches]
        self._tensors = [as_tensors(batch) for batch in self.batches]
        self._weights = weights_by_part(self.model, head)

    def __call__(self, number: int) -> float:
        self.model.reset_metrics()  # or else some versions of Keras give a running mean
        loss = self.model.train_on_batch(*self._tensors[number % len(self._tensors)], return_dict=True)["loss"]
        fetch(self.model.trainable_variables[-1])
        return float(loss)

    def weights(self) -> Parts:
        return self._weights


def copy_weights(ours: keras.Model, notebook: keras.Model) -> None:
    """Gives the notebook's model our model's weights, layer by layer; both have the same shape.

    By layer, since the paths of a model that was loaded from a file are shorter.
    """
    for layer in notebook.layers:
        if not layer.weights:
            continue
        found = [weight for weight in ours.get_layer(layer.name).weights if "seed" not in weight.path]
        if isinstance(layer, layers.MultiHeadAttention):
            layer.set_weights(_attention_weights({w.path.split("/")[-1]: np.asarray(w) for w in found}, layer))
        else:
            values = [np.asarray(weight) for weight in found]
            layer.set_weights(values + layer.get_weights()[len(values) :])  # a dropout's own seed stays


def _attention_weights(part: dict[str, np.ndarray], layer: Any) -> list[np.ndarray]:
    """Our fused kernels cut into Keras' order: kernel and bias of query, key, value and output."""
    heads, size = layer.num_heads, layer.key_dim
    kernels = part["qkv_kernel"].reshape(-1, 3, heads, size)
    biases = part["qkv_bias"].reshape(3, heads, size)
    query, key, value = ([kernels[:, i], biases[i]] for i in range(3))
    output = [part["output_kernel"].reshape(heads, size, -1), part["output_bias"]]
    wanted = {"query": query, "key": key, "value": value, "attention_output": output}
    given = [(w.path.split("/")[-2], w) for w in layer.weights if "seed" not in w.path]
    counts: dict[str, int] = dict.fromkeys(wanted, 0)
    ordered = []
    for name, _ in given:
        ordered.append(wanted[name][counts[name]])
        counts[name] += 1
    return ordered + layer.get_weights()[len(ordered) :]
