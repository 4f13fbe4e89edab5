"""How the models are trained: the masked language model, then the classifier in two stages.

Quirks of the notebooks are fields here as in `minibert.settings`, which is where these are imported from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minibert.checked import Checked, require, require_count, require_positive
from minibert.mask_word import require_one_mask

TRAINING_STAGES = ("pretrain", "frozen", "unfrozen")
"""What is trained, in order: the masked language model, the classifier on a frozen encoder, and all of it."""
EmbeddingSecondMoment = Literal["occurrence", "word"]
"""How Adam treats a word that stands in a batch several times: see `PretrainSettings.embedding_second_moment`."""


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(Checked, stage="pretrain"):
    """The masked language model's training."""

    epochs: int = 5
    """Passes over the corpus."""
    batch_size: int = 32
    """Examples per step; the last batch of an epoch may be smaller."""
    learning_rate: float = 0.001
    """Adam's step size; its other parameters are Keras' defaults."""
    embedding_second_moment: EmbeddingSecondMoment = "occurrence"
    """What Adam's second moment takes of a word that stands in a batch n times, with the gradients g1 to gn:
    g1^2 + ... + gn^2 (``occurrence``), or (g1 + ... + gn)^2 (``word``), the square of the loss' gradient, as Adam is
    defined. The notebooks have the first: Keras 3 on TensorFlow squares an ``IndexedSlices`` slice by slice."""
    loss_reduction: Literal["sum", "mean"] = "sum"
    """How the selected tokens' losses are joined for the gradient. The notebooks sum."""
    splits: Literal["train", "train+test"] = "train+test"
    """What the masked language model is trained on. The notebooks use the test texts too."""
    sample_sentence: str = "I have watched this [mask] and it was awesome"
    """Completed after every epoch; exactly one ``[mask]``."""
    top_k: int = 5
    """Predictions shown for it."""

    def _check(self) -> None:
        require_count("pretrain.epochs", self.epochs)
        require_count("pretrain.batch_size", self.batch_size, at_least=1)
        require_positive("pretrain.learning_rate", self.learning_rate)
        require_one_mask("pretrain.sample_sentence", self.sample_sentence)
        require_count("pretrain.top_k", self.top_k, at_least=1)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(Checked, stage="finetune"):
    """The sentiment classifier's training: first on a frozen encoder, then with everything trained."""

    frozen_epochs: int = 5
    """Passes with the encoder's weights held."""
    unfrozen_epochs: int = 5
    """Passes with everything trained, after a fresh optimizer."""
    batch_size: int = 32
    """Examples per step."""
    learning_rate: float = 0.001
    """Adam's step size in both stages: Keras' default, also for the unfrozen encoder."""
    embedding_second_moment: EmbeddingSecondMoment = "occurrence"
    """As ``pretrain.embedding_second_moment``, for the unfrozen stage: the frozen one trains no embedding."""
    classifier_size: int = 64
    """Width of the dense layer between pooling and output."""
    frozen_dropout: bool = True
    """Whether the frozen encoder drops out while the classifier on it is trained, as in the notebooks: Keras drops
    out in layers that are not trained, too. False: the classifier sees what the encoder gives without."""
    validation_rate: float = 0.0
    """Share of each class of the train split, a seeded choice, that the classifier is not trained on and that it is
    validated on after every epoch. 0: it is validated on the test split, as in the notebooks, and who chooses by
    these figures has chosen by the test texts."""

    def _check(self) -> None:
        require_count("finetune.frozen_epochs", self.frozen_epochs)
        require_count("finetune.unfrozen_epochs", self.unfrozen_epochs)
        require_count("finetune.batch_size", self.batch_size, at_least=1)
        require_positive("finetune.learning_rate", self.learning_rate)
        require_count("finetune.classifier_size", self.classifier_size, at_least=1)
        require(0.0 <= self.validation_rate < 1.0,
                 "finetune.validation_rate", "a rate from 0 to below 1", self.validation_rate)  # fmt: skip
