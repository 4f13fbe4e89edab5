"""The notebooks' mini BERT as a functional Keras model, with the notebooks' layer names.

token_ids (batch, sequence) -> word + position embedding -> blocks -> (batch, sequence, hidden)
                                                                   -> mlm_cls: probabilities
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from minibert.model.attention import SelfAttention
from minibert.model.dropout import StreamDropout
from minibert.model.initial_weights import set_initial_weights
from minibert.model.normalization import LayerNormalization
from minibert.model.position_embedding import PositionEmbedding
from minibert.settings import ModelSettings

MODEL_NAME = "masked_bert_model"
HEAD_NAME = "mlm_cls"


@keras.saving.register_keras_serializable(package="minibert")
class NotPadding(layers.Layer):
    """True where a token is not padding: bool, the shape of the ids."""

    def call(self, token_ids: Any) -> Any:
        """Compares the ids with 0."""
        return ops.not_equal(token_ids, 0)


def build_masked_lm(settings: ModelSettings, *, vocabulary_size: int, sequence_length: int, seed: int) -> keras.Model:
    """Builds the masked language model and sets its initial weights.

    Args:
        settings: The encoder's shape.
        vocabulary_size: Ids, ``[mask]`` included.
        sequence_length: Tokens per example.
        seed: Root seed of the weight streams.

    Returns:
        Model from int ids (batch, sequence) to probabilities (batch, sequence, vocabulary).

    Source: ``create_masked_language_bert_model`` of both notebooks.
    """
    dtype = keras.DTypePolicy(settings.precision)
    token_ids = keras.Input((sequence_length,), dtype="int64", name="token_ids")
    # In float32 whatever the precision: a gradient adds up every place of a word, thousands of them for padding.
    words = layers.Embedding(vocabulary_size, settings.hidden_size, name="word_embedding", dtype="float32")(token_ids)
    positions = PositionEmbedding(sequence_length, name="position_embedding", dtype="float32")(words)
    hidden = layers.Add(name="embedding", dtype="float32")([words, positions])
    padding_mask = NotPadding(name="not_padding")(token_ids) if settings.padding_mask else None
    for block in range(settings.blocks):
        hidden = _block(hidden, padding_mask, settings, block, dtype)
    head = layers.Dense(vocabulary_size, activation="softmax", name=HEAD_NAME, dtype="float32")
    model = keras.Model(token_ids, head(hidden), name=MODEL_NAME)
    set_initial_weights(model, seed, heads=settings.heads)
    return model


def _block(hidden: Any, padding_mask: Any, settings: ModelSettings, block: int, dtype: Any) -> Any:
    """One encoder block: attention and feed-forward, each with dropout, residual sum and layer norm."""

    def name(part: str) -> str:
        return f"encoder_{block}_{part}"

    attended = SelfAttention(settings.heads, name=name("multiheadattention"), dtype=dtype)(hidden, padding_mask)
    attended = StreamDropout(settings.dropout_rate, name=name("att_dropout"), dtype=dtype)(attended)
    joined = layers.Add(name=name("att_residual"), dtype=dtype)([hidden, attended])
    hidden = LayerNormalization(epsilon=settings.layer_norm_epsilon, name=name("att_layernormalization"), dtype=dtype)(
        joined
    )
    feed_forward = keras.Sequential(
        [
            layers.Dense(settings.feed_forward_size, activation="relu", name="inner", dtype=dtype),
            layers.Dense(settings.hidden_size, name="outer", dtype=dtype),
        ],
        name=name("ffn"),
    )(hidden)
    feed_forward = StreamDropout(settings.dropout_rate, name=name("ffn_dropout"), dtype=dtype)(feed_forward)
    joined = layers.Add(name=name("ffn_residual"), dtype=dtype)([hidden, feed_forward])
    return LayerNormalization(epsilon=settings.layer_norm_epsilon, name=name("ffn_layernormalization"), dtype=dtype)(
        joined
    )


def cut_encoder(masked_lm: keras.Model) -> keras.Model:
    """The encoder of a masked language model: ids (batch, sequence) to (batch, sequence, hidden).

    It is cut at the last ``encoder_*_ffn_layernormalization`` and shares the model's weights.
    """
    last = [layer for layer in masked_lm.layers if layer.name.endswith("_ffn_layernormalization")][-1]
    return keras.Model(masked_lm.input, last.output, name="encoder")
