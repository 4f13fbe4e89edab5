"""keras-hub's own encoding and masking at our settings; both need tensorflow-text, which keras-hub brings on Linux.

Its tokenizer is one of word pieces. With a vocabulary of whole words only, on texts that are standardized and split as
the notebooks do, it gives the same ids as theirs.
"""

from __future__ import annotations

import math
from typing import Any

import keras_hub
import numpy as np
import tensorflow as tf

from benchmarks.notebook_text import standardize
from minibert.settings import RunSettings, TextSettings
from minibert.text import Vocabulary

_PADDING = "[PAD]"


def tokenizer(settings: TextSettings, vocabulary: Vocabulary) -> Any:
    """Words (texts, none, ragged) to ids (texts, sequence)."""
    return keras_hub.tokenizers.WordPieceTokenizer(
        vocabulary=[_PADDING, *vocabulary.words[1:]],  # its own matcher allows no empty word
        sequence_length=settings.sequence_length,
        split=False,
    )


def encode(made: Any, texts: list[str]) -> np.ndarray:
    """Ids, int32 (texts, sequence).

    Args:
        made: From `tokenizer`.
        texts: Raw texts.
    """
    return np.asarray(made(tf.strings.split(standardize(tf.constant(texts)))))


def selection_length(settings: RunSettings) -> int:
    """Positions that are gathered of each example: 15 % of the sequence length."""
    return math.floor(settings.masking.selection_rate * settings.text.sequence_length)


def masker(settings: RunSettings) -> Any:
    """Ids (batch, sequence) to masked ones with ``mask_positions``, ``mask_ids`` and ``mask_weights``; unseeded."""
    masking = settings.masking
    return keras_hub.layers.MaskedLMMaskGenerator(
        vocabulary_size=masking.required_vocabulary_size,
        mask_selection_rate=masking.selection_rate,
        mask_token_id=masking.mask_id,
        mask_selection_length=selection_length(settings),
        unselectable_token_ids=[0, 1, 2],
    )


def features_of(token_ids: Any) -> dict[str, Any]:
    """A backbone's inputs, each (batch, sequence), of one segment; padding is not attended to."""
    at = tf if tf.is_tensor(token_ids) else np
    return {
        "token_ids": token_ids,
        "segment_ids": at.zeros_like(token_ids),
        "padding_mask": at.sign(token_ids),  # 0 is padding
    }
