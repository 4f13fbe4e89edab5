"""Masked-LM pretraining: its step, its batches, and what it shows after every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import keras
import numpy as np
from keras import ops

from minibert.batches import MaskedLMBatches
from minibert.mask_word import fill_in
from minibert.model.encoder import HEAD_NAME, cut_encoder
from minibert.model.heads import MaskedLMObjective
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


def predict_masked(
    model: keras.Model,
    sentences: Sequence[str],
    token_ids: np.ndarray,
    places: np.ndarray,
    *,
    vocabulary: Vocabulary,
    top_k: int,
) -> list[list[Prediction]]:
    """The most probable words for each sentence's ``[mask]``, best first (ties: the smaller id), in one batch.

    Only the masked positions go through the vocabulary projection. The model is called as it is: compiled, a call
    would take some 40 ms less, and the first one a quarter of a second more.

    Args:
        model: From `minibert.model.encoder.build_masked_lm`.
        sentences: Raw texts with one ``[mask]`` each.
        token_ids: Integers, (sentences, sequence), of `minibert.text.sample_ids`, as are the places.
        places: The position of each ``[mask]``: integers, (sentences,).
        vocabulary: Words by id.
        top_k: Words wanted; no more come than the vocabulary has.

    Returns:
        For each sentence its predictions.
    """
    encoded = cut_encoder(model)(ops.convert_to_tensor(token_ids), training=False)
    hidden = ops.take_along_axis(encoded, ops.convert_to_tensor(places[:, None, None]), axis=1)[:, 0]
    head = model.get_layer(HEAD_NAME)
    logits = ops.matmul(ops.cast(hidden, "float32"), head.kernel) + head.bias
    best = ops.top_k(ops.softmax(logits, axis=-1), min(top_k, len(vocabulary)))
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

    def evaluate(epoch: int) -> Figures:
        [predictions] = predict_masked(model, sentences, *sample, vocabulary=vocabulary, top_k=pretrain.top_k)
        return {"predictions": [asdict(prediction) for prediction in predictions]}

    return Stage(
        name="pretrain",
        step=TrainingStep(
            MaskedLMObjective(model, reduction=pretrain.loss_reduction),
            learning_rate=pretrain.learning_rate,
            seed=settings.seed,
            stage="pretrain",
            embedding_second_moment=pretrain.embedding_second_moment,
            checked=checked,
        ),
        batches=MaskedLMBatches(
            token_ids, seed=settings.seed, masking=settings.masking, batch_size=pretrain.batch_size
        ),
        epochs=pretrain.epochs,
        variables=list(model.variables),
        evaluate=evaluate,
    )
