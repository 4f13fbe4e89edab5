"""A learned vector for each place of a sequence, as keras-hub's ``PositionEmbedding`` has it.

The notebooks take that layer from keras-nlp. Loading keras-nlp for it takes 0.15 GB and a second in every process,
and its graph would be another one whenever keras-hub changes. The tests hold this one to keras-hub's bits.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="minibert")
class PositionEmbedding(layers.Layer):
    """The vector of each place, whatever stands there.

    Args:
        sequence_length: Places, at least 1.
        **options: Those of every Keras layer, such as ``name`` and ``dtype``.

    Raises:
        ValueError: From a call, for a sequence of another length.

    Source: Devlin et al. 2019, section 3 and figure 2.
    """

    def __init__(self, sequence_length: int, **options: Any) -> None:
        super().__init__(**options)
        self.sequence_length = sequence_length

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the vectors: ``embeddings``, (sequence, features)."""
        if input_shape[-2] != self.sequence_length:
            raise ValueError(f"position_embedding: {self.sequence_length} places are required, but {input_shape} came")
        self.embeddings = self.add_weight(
            name="embeddings", shape=(self.sequence_length, input_shape[-1]), initializer="glorot_uniform"
        )

    def call(self, inputs: Any) -> Any:
        """The vectors for a batch like this one.

        Args:
            inputs: (batch, sequence, features); its shape alone is used.

        Returns:
            The shape of ``inputs``.
        """
        return ops.broadcast_to(ops.convert_to_tensor(self.embeddings), ops.shape(inputs))

    def get_config(self) -> dict[str, Any]:
        """What the layer is built from."""
        return {**super().get_config(), "sequence_length": self.sequence_length}
