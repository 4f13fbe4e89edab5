"""A learned vector for each place of a sequence, as keras-hub's ``PositionEmbedding`` has it.

The notebooks take that layer from keras-nlp. Loading keras-nlp for it takes 0.15 GB of every process, and its graph
would be another one whenever keras-hub changes. The tests hold this one to keras-hub's bits.
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
        ValueError: ``sequence_length`` is below 1; from a call, for a sequence of another length.

    Source: Devlin et al. 2019, section 3 and figure 2.
    """

    def __init__(self, sequence_length: int, **options: Any) -> None:
        super().__init__(**options)
        if sequence_length < 1:
            raise ValueError(f"sequence_length: 1 or more is required, but {sequence_length} came")
        self.sequence_length = sequence_length

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the vectors: ``embeddings``, (sequence, features)."""
        self._require_length(input_shape)
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
        self._require_length(inputs.shape)
        return ops.broadcast_to(ops.convert_to_tensor(self.embeddings), ops.shape(inputs))

    def _require_length(self, shape: tuple[int | None, ...]) -> None:
        if shape[-2] != self.sequence_length:
            raise ValueError(f"{self.name}: a sequence of {self.sequence_length} is required, but {tuple(shape)} came")

    def get_config(self) -> dict[str, Any]:
        """What the layer is built from."""
        return {**super().get_config(), "sequence_length": self.sequence_length}
