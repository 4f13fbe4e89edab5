"""The Keras model: encoder, heads, and the operations that make a training step exact and fast.

Importing this package imports Keras and registers minibert's layers for `keras.models.load_model`.
"""

from minibert.model import attention, dropout, encoder, heads, normalization, position_embedding

__all__ = ["attention", "dropout", "encoder", "heads", "normalization", "position_embedding"]
