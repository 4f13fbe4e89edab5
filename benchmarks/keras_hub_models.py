"""keras-hub's ``BertMaskedLM`` at our shapes: a peer that gathers a fixed count of masked positions.

Its positions are 15 % of the sequence length, its preprocessor's custom; an example with fewer has
rows of weight 0, one with more loses the last of them.

Its one rate of dropout is also that of the attention's probabilities, which the notebooks do not drop: random
numbers for (batch, heads, length, length) that no other side draws. That is switched off here.

What else differs from the notebooks' architecture stays: a layer norm behind the embeddings, which have a
segment's too and are dropped out, GELU by its approximation in the blocks in place of ReLU, padding is not attended
to, there is a dense layer with GELU and a norm before the projection, and the projection is tied to the embedding.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras
import keras_hub
import numpy as np

from benchmarks.workloads import Parts, fetch, masked_lm_batches, weights_by_part
from minibert.batches import Arrays
from minibert.settings import RunSettings


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


class KerasHubStep:
    """keras-hub's masked-LM training step as a workload, by Keras' own ``train_on_batch``.

    Args:
        settings: The shape.
        step: Only ``masked_lm``.
    """

    def __init__(self, settings: RunSettings, step: str) -> None:
        assert step == "masked_lm"
        model, length = settings.model, settings.text.sequence_length
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=settings.masking.required_vocabulary_size,
            num_layers=model.blocks,
            num_heads=model.heads,
            hidden_dim=model.hidden_size,
            intermediate_dim=model.feed_forward_size,
            dropout=model.dropout_rate,
            max_sequence_length=length,
        )
        without_attention_dropout(backbone)
        self.model = keras_hub.models.BertMaskedLM(backbone, preprocessor=None)
        self.model.compile(
            optimizer=keras.optimizers.Adam(settings.pretrain.learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[],
            jit_compile=False,  # with XLA it is ten times slower on a CPU
        )
        count = math.floor(settings.masking.selection_rate * length)
        self.batches = [self._inputs(batch, count) for batch in masked_lm_batches(settings)]

    def __call__(self, number: int) -> float:
        features, labels, weight = self.batches[number % len(self.batches)]
        with warnings.catch_warnings():  # the backbone's pooler is no part of the masked language model
            warnings.filterwarnings("ignore", message="Gradients do not exist for variables .'pooled_dense")
            self.model.reset_metrics()  # or else some versions of Keras give a running mean
            loss = self.model.train_on_batch(features, labels, weight, return_dict=True)["loss"]
        fetch(self.model.trainable_variables[-1])
        return float(loss) * weight.size / float(weight.sum())  # Keras' mean counts the rows of weight 0

    def weights(self) -> Parts:
        return weights_by_part(self.model, [self.model.masked_lm_head])

    def _inputs(self, batch: Arrays, count: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        token_ids = batch["token_ids"]
        positions, labels, weight = mask_positions(batch, count)
        features = {
            "token_ids": token_ids,
            "segment_ids": np.zeros_like(token_ids),
            "padding_mask": (token_ids != 0).astype(np.int32),
            "mask_positions": positions,
        }
        return features, labels, weight
