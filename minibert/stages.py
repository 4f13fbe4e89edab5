"""The stages of a run, made from what was prepared.

fresh_stages(prepared)    pretrain, and of a labelled corpus frozen and unfrozen: each on initial weights
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import tensorflow as tf

from minibert.model.backend import forbid_tensor_float_32, require_tensorflow
from minibert.model.encoder import build_masked_lm
from minibert.model.heads import build_classifier
from minibert.preparation import Prepared
from minibert.progress import Progress
from minibert.quiet import quiet_compiler
from minibert.settings import RunSettings
from minibert.training.finetune import finetune_stage
from minibert.training.loop import Stage
from minibert.training.pretrain import pretrain_stage


def set_up_tensorflow() -> None:
    """Switches TensorFlow's op determinism on for the process, and TensorFloat-32 and its compiler's notices off.

    Raises:
        DeviceError: Keras is on another backend than TensorFlow.
    """
    require_tensorflow()
    tf.config.experimental.enable_op_determinism()
    forbid_tensor_float_32()
    quiet_compiler(tf)


def fresh_stages(prepared: Prepared, *, checked: bool = True) -> Iterator[Stage]:
    """Every stage of a run on initial weights, ready for its first step; nothing is written.

    Args:
        prepared: The run.
        checked: Whether a step that may race is refused; False serves to study one.
    """
    set_up_tensorflow()
    masked_lm = initial_masked_lm(prepared.settings)
    yield pretraining(prepared, masked_lm, checked=checked)
    if prepared.corpus.labelled:
        classifier = initial_classifier(prepared.settings, masked_lm)
        for frozen in (True, False):
            yield finetuning(prepared, classifier, frozen=frozen, checked=checked)


def initial_masked_lm(settings: RunSettings) -> keras.Model:
    """A run's masked language model before its first step; the vocabulary's size is known."""
    return build_masked_lm(
        settings.model,
        vocabulary_size=settings.masking.required_vocabulary_size,
        sequence_length=settings.text.sequence_length,
        seed=settings.seed,
    )


def initial_classifier(settings: RunSettings, masked_lm: keras.Model) -> keras.Model:
    """A run's classifier before its first step, on the encoder of its masked language model."""
    return build_classifier(masked_lm, settings.finetune, settings.model, seed=settings.seed)


def pretraining(prepared: Prepared, masked_lm: keras.Model, *, checked: bool = True) -> Stage:
    """The masked language model's stage, on the splits that the settings name."""
    settings, examples = prepared.settings, prepared.examples
    is_train_only = settings.pretrain.splits == "train"
    token_ids = examples.token_ids[: examples.train_count] if is_train_only else examples.token_ids
    return pretrain_stage(masked_lm, token_ids, examples.vocabulary, settings, checked=checked)


def finetuning(
    prepared: Prepared,
    classifier: keras.Model,
    *,
    frozen: bool,
    checked: bool = True,
    progress: Progress | None = None,
) -> Stage:
    """One of the classifier's stages, with the encoder's weights held or not."""
    train, validation = prepared.examples.for_classifier()
    return finetune_stage(
        classifier,
        train=train,
        validation=validation,
        settings=prepared.settings,
        frozen=frozen,
        checked=checked,
        progress=progress,
    )
