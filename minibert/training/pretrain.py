"""Masked-LM pretraining: its step, its batches, and what it shows after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from minibert.batches import MaskedLMBatches
from minibert.mask_word import fill_in
from minibert.model.encoder import HEAD_NAME, cut_encoder
from minibert.model.heads import masked_lm_objective
from minibert.model.last_block import LastBlock, one_of_each
from minibert.settings import RunSettings
from minibert.text import Vocabulary, sample_ids
from minibert.training.loop import Figures, Stage
from minibert.training.step import TrainingStep


@dataclass(frozen=True)
class Prediction:
    """One completion of a masked sentence.

    Attributes:
        token: The word.
        probability: Its probability, 0 to 1.
        sentence: The sentence with the word in place of ``[mask]``.
    """

    token: str
    probability: float
    sentence: str


MaskedWords = Callable[[Any, Any, Any], tuple[Any, Any]]
"""Ids (sentences, sequence), positions (sentences,) and a number of words -> what `masked_words` says."""


def masked_words(model: keras.Model) -> MaskedWords:
    """A masked language model's most probable words at one position of each sentence, as a function.

    Only those positions go through the last block and the vocabulary projection. A caller may compile it: each call
    of 32 sentences then takes less, and the first one a quarter of a second more.

    Args:
        model: From `minibert.model.encoder.build_masked_lm`.

    Returns:
        From ids, positions and how many words are wanted, no more than there are, to the words' probabilities and
        their ids, best first (ties: the smaller id), each (sentences, words).
    """
    encoder, head = cut_encoder(model), model.get_layer(HEAD_NAME)
    block = LastBlock(encoder)
    before = keras.Model(encoder.input, encoder.get_layer(block.inputs).output)

    def forward(token_ids: Any, places: Any, top_k: Any) -> tuple[Any, Any]:
        batch = one_of_each(token_ids, ops.cast(places, "int32"))
        hidden = block(before(token_ids, training=False), batch, training=False)[block.outputs]
        logits = ops.matmul(ops.cast(hidden, "float32"), head.kernel) + head.bias
        best: tuple[Any, Any] = ops.top_k(ops.softmax(logits, axis=-1), top_k)
        return best

    return forward


def compiled_words(words: MaskedWords, sequence_length: int) -> MaskedWords:
    """The same function as one graph, traced once for all numbers of sentences and of words."""
    signature = [
        tf.TensorSpec([None, sequence_length], tf.int32),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([], tf.int32),
    ]
    compiled: MaskedWords = tf.function(words, input_signature=signature, autograph=False)
    return compiled


def predict_masked(
    words: MaskedWords,
    sentences: Sequence[str],
    token_ids: np.ndarray,
    places: np.ndarray,
    *,
    vocabulary: Vocabulary,
    top_k: int,
) -> list[list[Prediction]]:
    """The most probable words for each sentence's ``[mask]``, best first, in one batch.

    Args:
        words: From `masked_words`, compiled or not.
        sentences: Raw texts with one ``[mask]`` each.
        token_ids: Integers, (sentences, sequence), of `minibert.text.sample_ids`, as are the places.
        places: The position of each ``[mask]``: integers, (sentences,).
        vocabulary: Words by id.
        top_k: Words wanted; no more come than the vocabulary has.

    Returns:
        For each sentence its predictions.
    """
    most = tf.constant(min(top_k, len(vocabulary)), tf.int32)
    best = words(ops.convert_to_tensor(token_ids), ops.convert_to_tensor(places), most)
    found = zip(sentences, *map(ops.convert_to_numpy, best), strict=True)
    return [
        [
            Prediction(vocabulary.words[i], float(probability), fill_in(sentence, vocabulary.words[i]))
            for probability, i in zip(probabilities, ids, strict=True)
        ]
        for sentence, probabilities, ids in found
    ]


def pretrain_stage(
    model: keras.Model, token_ids: np.ndarray, vocabulary: Vocabulary, settings: RunSettings, *, checked: bool = True
) -> Stage:
    """The pretraining stage of a run.

    Args:
        model: From `minibert.model.encoder.build_masked_lm`.
        token_ids: Integers (examples, sequence): what it is trained on.
        vocabulary: Words by id.
        settings: The run's, ``masking.vocabulary_size`` resolved.
        checked: Whether a step that may race is refused.
    """
    pretrain = settings.pretrain
    sentences = [pretrain.sample_sentence]
    sample = sample_ids(sentences, vocabulary, settings.text, names=["pretrain.sample_sentence"])
    words = masked_words(model)

    def evaluate(epoch: int) -> Figures:
        [predictions] = predict_masked(words, sentences, *sample, vocabulary=vocabulary, top_k=pretrain.top_k)
        return {"predictions": [asdict(prediction) for prediction in predictions]}

    return Stage(
        name="pretrain",
        step=TrainingStep(
            masked_lm_objective(model, settings),
            learning_rate=pretrain.learning_rate,
            seed=settings.seed,
            stage="pretrain",
            embedding_second_moment=pretrain.embedding_second_moment,
            fingerprint_interval=settings.record.fingerprint_interval,
            checked=checked,
        ),
        batches=MaskedLMBatches(
            token_ids, seed=settings.seed, masking=settings.masking, batch_size=pretrain.batch_size
        ),
        epochs=pretrain.epochs,
        variables=list(model.variables),
        evaluate=evaluate,
    )
