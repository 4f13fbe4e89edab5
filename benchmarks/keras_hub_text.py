"""keras-hub's own encoding and masking at our settings, by tensorflow-text, which keras-hub brings on Linux.

Both are called within a ``tf.function``, as in a ``tf.data`` pipeline: called eagerly, the keras-hub of today goes
through Python lists. The tokenizer is one of word pieces. With a vocabulary of whole words only, on
texts that are standardized and split as the notebooks do, it gives the same ids as theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras_hub
import numpy as np
import tensorflow as tf

from benchmarks.notebook_text import standardize
from minibert.settings import RunSettings, TextSettings
from minibert.text import Vocabulary

_PADDING = "[PAD]"


def build_encoder(settings: TextSettings, vocabulary: Vocabulary) -> Callable[[list[str]], np.ndarray]:
    """Raw texts to ids, int32 (texts, sequence)."""
    tokenizer = keras_hub.tokenizers.WordPieceTokenizer(
        vocabulary=[_PADDING, *vocabulary.words[1:]],  # its own matcher allows no empty word
        sequence_length=settings.sequence_length,
        split=False,
    )
    encode = tf.function(
        lambda texts: tokenizer(tf.strings.split(standardize(texts))),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    return lambda texts: encode(tf.constant(texts)).numpy()


def selection_length(settings: RunSettings) -> int:
    """Positions that are gathered of each example: 15 % of the sequence length."""
    return math.floor(settings.masking.selection_rate * settings.text.sequence_length)


def selected_counts(token_ids: np.ndarray, settings: RunSettings) -> np.ndarray:
    """Positions that are selected of each example, (examples,): 15 % rounded up, and no more than are kept."""
    selectable = (~np.isin(token_ids, settings.masking.protected_ids)).sum(axis=1).astype(np.float32)
    wanted = np.ceil(np.float32(settings.masking.selection_rate) * selectable)
    return np.minimum(wanted, selection_length(settings)).astype(int)


def build_masker(settings: RunSettings) -> Callable[[Any], dict[str, Any]]:
    """Ids, int64 (batch, sequence), to masked ones, ``mask_positions``, ``mask_ids`` and ``mask_weights``."""
    masking = settings.masking
    tf.random.set_seed(0)  # op determinism, which other benchmarks may have left on in this process, asks for one
    generator = keras_hub.layers.MaskedLMMaskGenerator(
        vocabulary_size=masking.required_vocabulary_size,
        mask_selection_rate=masking.selection_rate,
        mask_token_id=masking.mask_id,
        mask_selection_length=selection_length(settings),
        unselectable_token_ids=list(masking.protected_ids),
    )
    signature = [tf.TensorSpec([None, settings.text.sequence_length], tf.int64)]
    return tf.function(generator, input_signature=signature, autograph=False)


def unpacked(token_ids: np.ndarray, batch: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `build_masker`'s function made of ids, as masked ids, labels and weights, each of the ids' shape."""
    masked, positions, ids, counted = (
        np.asarray(batch[name]) for name in ("token_ids", "mask_positions", "mask_ids", "mask_weights")
    )
    labels, weight = token_ids.copy(), np.zeros(token_ids.shape)
    examples, places = np.nonzero(counted)
    at = (examples, positions[examples, places])
    labels[at], weight[at] = ids[examples, places], 1
    return masked, labels, weight


def features_of(token_ids: Any) -> dict[str, Any]:
    """A backbone's inputs, each (batch, sequence), of one segment; padding is not attended to."""
    at = tf if tf.is_tensor(token_ids) else np
    return {
        "token_ids": token_ids,
        "segment_ids": at.zeros_like(token_ids),
        "padding_mask": at.sign(token_ids),  # 0 is padding
    }
