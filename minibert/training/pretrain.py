"""Masked-LM pretraining: its step, its batches, and what it shows after every epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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
    model: keras.Model, sentence: str, *, vocabulary: Vocabulary, settings: RunSettings, top_k: int
) -> list[Prediction]:
    """The most probable words for a sentence's ``[mask]``, best first (ties: the smaller id).

    Only the masked position goes through the vocabulary projection.

    Raises:
        SettingsError: The sentence has no ``[mask]``, or several.
    """
    ids, place = sample_ids(sentence, vocabulary, settings.text)
    hidden = cut_encoder(model)(ops.convert_to_tensor(ids), training=False)[:, place]
    head = model.get_layer(HEAD_NAME)
    logits = ops.matmul(ops.cast(hidden, "float32"), head.kernel) + head.bias
    probabilities = ops.convert_to_numpy(ops.softmax(logits, axis=-1))[0]
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    return [
        Prediction(vocabulary.words[i], float(probabilities[i]), fill_in(sentence, vocabulary.words[i])) for i in best
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

    def evaluate(epoch: int) -> Figures:
        predictions: list[Any] = predict_masked(
            model, pretrain.sample_sentence, vocabulary=vocabulary, settings=settings, top_k=pretrain.top_k
        )
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
