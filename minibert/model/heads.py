"""What stands on the encoder while it trains: the masked-LM loss and the sentiment classifier."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from minibert.model.encoder import HEAD_NAME, cut_encoder
from minibert.model.initial_weights import set_initial_weights
from minibert.model.last_block import LastBlock, Named
from minibert.model.masked_lm_loss import chunks_for, masked_lm_loss
from minibert.settings import FinetuneSettings, ModelSettings, RunSettings


class MaskedLMObjective:
    """The masked language model's loss of one batch.

    Args:
        model: From `build_masked_lm`.
        reduction: ``sum`` over the selected tokens, as the notebooks do, or ``mean``.
        chunks: Parts that the selected rows are cut into; see `masked_lm_loss`.

    Attributes:
        outputs: The name of the encoder's last layer.
    """

    def __init__(self, model: keras.Model, *, reduction: str, chunks: int = 1) -> None:
        self._head, self._reduction, self._chunks = model.get_layer(HEAD_NAME), reduction, chunks
        encoder = cut_encoder(model)
        self._block = LastBlock(encoder)
        self.outputs = self._block.outputs
        self._before = with_activations(encoder, without_prefix=self._block.prefix)
        self.variables = list(model.trainable_variables)

    def __call__(self, batch: Named) -> tuple[Any, Named, Named]:
        """The objective, the metrics ``loss`` (sum) and ``count``, and the activations by layer.

        Only the selected positions go through the last block and the vocabulary projection: every other position
        has weight 0, so loss and gradient are the same.
        """
        activations = self.encode(batch)
        read = (self._head.kernel, self._head.bias, batch["labels"], batch["sample_weight"])
        total = masked_lm_loss(activations[self.outputs], *read, chunks=self._chunks)
        count = ops.sum(batch["sample_weight"])
        objective = total if self._reduction == "sum" else total / ops.maximum(count, 1.0)
        return objective, {"loss": total, "count": count}, activations

    def encode(self, batch: Named) -> Named:
        """The activations by layer in forward order; of the last block those of the selected positions."""
        before = dict(self._before(batch["token_ids"], training=True))
        return before | self._block(before[self._block.inputs], batch)


def masked_lm_objective(model: keras.Model, settings: RunSettings) -> MaskedLMObjective:
    """A run's: with its reduction, and in as many chunks as its batches want.

    Args:
        model: From `build_masked_lm`.
        settings: The run's.
    """
    return MaskedLMObjective(model, reduction=settings.pretrain.loss_reduction, chunks=masked_lm_chunks(settings))


def masked_lm_chunks(settings: RunSettings) -> int:
    """The chunks of a run's batches, whose rows are as many as are selected of texts without padding."""
    rows = settings.pretrain.batch_size * settings.text.sequence_length * settings.masking.selection_rate
    logit_bytes = 4 if settings.model.precision == "float32" else 2
    return chunks_for(math.ceil(rows), settings.masking.required_vocabulary_size, logit_bytes=logit_bytes)


class ClassifierObjective:
    """The sentiment classifier's loss of one batch: mean binary cross-entropy.

    Args:
        classifier: From `build_classifier`.
        encoder_trainable: False holds the encoder's weights.
        encoder_dropout: Whether the encoder drops out; that does not depend on what is trained.

    Attributes:
        outputs: The name of the encoder's last layer.
    """

    def __init__(self, classifier: keras.Model, *, encoder_trainable: bool, encoder_dropout: bool = True) -> None:
        encoder = classifier.get_layer("encoder")
        self._activations, self._classifier = with_activations(encoder), classifier
        self.outputs, self._dropout = encoder.layers[-1].name, encoder_dropout
        held = set() if encoder_trainable else {id(v) for v in encoder.variables}
        self.variables = [v for v in classifier.variables if id(v) not in held and "seed_generator" not in v.path]

    def __call__(self, batch: Named) -> tuple[Any, Named, Named]:
        """The objective, the metrics ``loss`` (sum), ``accuracy`` (sum) and ``count``, and the activations."""
        encoded = self.encode(batch)
        objective, metrics, activations = self.classify(encoded[self.outputs], batch)
        return objective, metrics, encoded | activations

    def encode(self, batch: Named) -> Named:
        """The encoder's activations by layer in forward order."""
        return dict(self._activations(batch["token_ids"], training=self._dropout))

    def classify(self, hidden: Any, batch: Named) -> tuple[Any, Named, Named]:
        """What a call gives, from the encoder's output on: (batch, sequence, hidden)."""
        activations = {}
        for layer in classifier_layers(self._classifier):
            hidden = layer(hidden) if layer.name != "pooling" else pool(layer, hidden, batch["token_ids"])
            activations[layer.name] = hidden
        logits = ops.reshape(activations["logits"], (-1,))
        losses = binary_cross_entropy(batch["labels"], logits)
        total, count = ops.sum(losses), ops.cast(ops.size(losses), "float32")
        correct = ops.sum(ops.cast(ops.equal(logits > 0, batch["labels"] > 0.5), "float32"))
        return total / count, {"loss": total, "accuracy": correct, "count": count}, activations


def binary_cross_entropy(labels: Any, logits: Any) -> Any:
    """max(x, 0) - x y + log(1 + exp(-|x|)) for each example: finite for every logit.

    Args:
        labels: float32, (examples,), 0 or 1.
        logits: float32, (examples,).

    Returns:
        float32, (examples,). Its gradient by the logits is sigmoid(x) - y, in one term: left to the
        framework, three gradients of the logits would be added in a racing order.
    """

    @ops.custom_gradient
    def cross_entropy(logits: Any) -> tuple[Any, Any]:
        losses = ops.relu(logits) - logits * labels + ops.log1p(ops.exp(-ops.abs(logits)))

        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            upstream = arguments[0] if upstream is None else upstream
            return (ops.sigmoid(logits) - labels) * upstream

        return losses, gradient

    return cross_entropy(logits)


@keras.saving.register_keras_serializable(package="minibert")
class MaskedGlobalMaxPooling1D(layers.GlobalMaxPooling1D):
    """Keras' global max pooling over (batch, sequence, hidden), of real tokens only where a mask is given."""

    def call(self, inputs: Any, padding_mask: Any = None) -> Any:
        """The largest value of each feature: (batch, hidden)."""
        if padding_mask is None:
            return super().call(inputs)
        pooled = super().call(ops.where(padding_mask[..., None], inputs, ops.cast(-1e9, inputs.dtype)))
        has_tokens = ops.any(padding_mask, axis=1, keepdims=True)  # a text without a word pools to 0
        return ops.where(has_tokens, pooled, ops.zeros_like(pooled))


def build_classifier(
    masked_lm: keras.Model, settings: FinetuneSettings, model_settings: ModelSettings, *, seed: int
) -> keras.Model:
    """Puts the sentiment classifier on a masked language model's encoder, whose weights it shares.

    Returns:
        Model from int ids (batch, sequence) to the probability of label 1 (batch, 1).

    Source: ``create_classifier_bert_model`` of both notebooks.
    """
    encoder = cut_encoder(masked_lm)
    token_ids = keras.Input(encoder.input_shape[1:], dtype="int64", name="token_ids")
    # Said here, or else ~/.keras/keras.json and Keras' global policy would decide.
    pooling = MaskedGlobalMaxPooling1D(name="pooling", data_format="channels_last", dtype="float32")
    hidden = encoder(token_ids)
    if model_settings.padding_mask:
        hidden = pooling(hidden, masked_lm.get_layer("not_padding")(token_ids))
    else:
        hidden = pooling(hidden)
    hidden = layers.Dense(settings.classifier_size, activation="relu", name="hidden", dtype="float32")(hidden)
    logits = layers.Dense(1, name="logits", dtype="float32")(hidden)
    probability = layers.Activation("sigmoid", name="probability", dtype="float32")(logits)
    classifier = keras.Model(token_ids, probability, name="classifier")
    for name in ("hidden", "logits"):
        set_initial_weights(classifier.get_layer(name), seed, heads=1)
    return classifier


def classifier_layers(classifier: keras.Model) -> list[Any]:
    """The layers between the encoder and the probability, in order."""
    return [classifier.get_layer(name) for name in ("pooling", "hidden", "logits")]


def pool(layer: Any, hidden: Any, token_ids: Any) -> Any:
    """Calls the pooling layer, with a padding mask if the classifier was built with one."""
    masked = len(layer._inbound_nodes[0].input_tensors) > 1
    return layer(hidden, ops.not_equal(token_ids, 0)) if masked else layer(hidden)


def with_activations(encoder: keras.Model, *, without_prefix: str | None = None) -> keras.Model:
    """A model of the same layers that gives every layer's output, by name, in forward order.

    Args:
        encoder: From `cut_encoder`.
        without_prefix: Leaves out the layers whose names begin so; None: none.
    """
    outputs = {
        layer.name: layer.output
        for layer in encoder.layers
        if not isinstance(layer, layers.InputLayer)
        and layer.name not in ("position_embedding", "not_padding")
        and (without_prefix is None or not layer.name.startswith(without_prefix))
    }
    return keras.Model(encoder.input, outputs)
