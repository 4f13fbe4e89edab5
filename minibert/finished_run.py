"""A finished run that is read once and answers as often as it is asked.

Models are read from the run directory with Keras' safe mode on, and only if they are the files that
the record names by digest.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

import minibert.end_to_end
import minibert.model.heads  # noqa: F401  registers the layers
from minibert.artifacts import sha256_of_file
from minibert.checked import is_unicode, require
from minibert.corpora.corpus import BATCH_ROWS, Corpus
from minibert.corpora.opening import open_corpus
from minibert.errors import ArtifactError, CorpusError, SettingsError
from minibert.model.backend import forbid_tensor_float_32, require_tensorflow
from minibert.progress import Progress
from minibert.quiet import quiet_compiler
from minibert.record import NAME, read_record, record_settings, resuming_command
from minibert.scoring import Score, score
from minibert.settings import CorpusSettings, RunSettings
from minibert.text import PADDING_ID, UNKNOWN_ID, Vocabulary, encode, sample_ids
from minibert.training.finetune import ClassifierForward
from minibert.training.memory import within_memory
from minibert.training.pretrain import MaskedWords, Prediction, compiled_words, masked_words, predict_masked

BATCH_SIZE = 32
"""Texts in one call of a model."""

_ONE_AT_A_TIME = threading.RLock()
"""Of the process: a function that XLA compiled must not run twice at the same time, and all models share some."""


def checked_sentences(sentences: Sequence[str]) -> list[str]:
    """The sentences as a list.

    Raises:
        SettingsError: They are one string, or nothing to go through.
    """
    is_several = isinstance(sentences, Iterable) and not isinstance(sentences, str)
    require(is_several, "sentences", "a list of sentences", sentences)
    return list(sentences)


def require_top_k(top_k: int) -> None:
    """Refuses what is no number of words wanted.

    Raises:
        SettingsError: It is no integer, or below 1.
    """
    require(type(top_k) is int and top_k >= 1, "top_k", "an integer, 1 or more,", top_k)


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises:
        SettingsError: They are one string, or one of them is empty or not text; the message gives its number.
    """
    require(isinstance(texts, Iterable) and not isinstance(texts, str), "texts", "a list of texts", texts)
    texts = list(texts)
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) or not text.strip() or not is_unicode(text):
            raise SettingsError(f"texts: Unicode text that is not empty is required, but number {number} is {text!r}")
    return texts


@dataclass(frozen=True)
class Classification:
    """The class of one text.

    Attributes:
        label: 0 or 1.
        class_name: Its name.
        probability: The probability of that class, 0.5 to 1.
        words: How many words of the text were read: the first ones, ``text.sequence_length`` at most.
        unknown_words: How many of these are not in the run's vocabulary: all of them are one word to the model.
        is_cut: Whether the text has more words than were read.
    """

    label: int
    class_name: str
    probability: float
    words: int
    unknown_words: int
    is_cut: bool

    @property
    def is_mostly_unknown(self) -> bool:
        """Whether fewer than a half of its words are known, or it has none: the class then says little."""
        return 2 * self.unknown_words > self.words or self.words == 0


class FinishedRun:
    """A run directory's models, each read and checked when it is first needed, and held from then on.

    Threads may share it, and other ones: models compute for one after the other. They do not wait for a run that is
    trained in the same process meanwhile, nor it for them.

    Args:
        directory: A run directory.
        compiled: Whether masks are filled by one graph: its first answer takes longer, each further one less. The last
            digits of probabilities depend on it: `minibert.fill_mask` does without.

    Attributes:
        settings: The run's.
        vocabulary: Its words by id.

    Raises:
        SettingsError: The directory is no path.
        ArtifactError: The record or the vocabulary is missing, damaged or changed.
        DeviceError: Keras is on another backend than TensorFlow.
    """

    def __init__(self, directory: Path | str, *, compiled: bool = True) -> None:
        require_tensorflow()
        require(isinstance(directory, (str, os.PathLike)), "directory", "a path", directory)
        self._directory, self._compiled = Path(directory), compiled
        self._record = read_record(self._directory)
        self.settings: RunSettings = record_settings(self._record, self._directory / NAME)
        path = self._directory / "vocabulary.txt"
        self.vocabulary = Vocabulary.read(path)
        if self.vocabulary.digest() != self._record["corpus"]["vocabulary_sha256"]:
            raise ArtifactError(f"{path}: it is not the run's: its digest is not the recorded one")

    def fill_mask(self, sentence: str, *, top_k: int = 5) -> list[Prediction]:
        """The most probable words for a sentence's ``[mask]``, best first.

        Args:
            sentence: As for `minibert.fill_mask`.
            top_k: Words wanted; no more come than the vocabulary has.

        Raises:
            SettingsError: There is no such ``[mask]``, or several; or ``top_k`` is not 1 or more.
            ArtifactError: The model is missing, damaged or changed.
        """
        return self.fill_masks([sentence], top_k=top_k, names=["sentence"])[0]

    def fill_masks(
        self,
        sentences: Sequence[str],
        *,
        top_k: int = 5,
        names: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> list[list[Prediction]]:
        """The most probable words for the ``[mask]`` of each sentence.

        Args:
            sentences: Texts as for `minibert.fill_mask`; if one is wrong, none is filled.
            top_k: As for `fill_mask`.
            names: What messages call the sentences, as many; None: by their numbers.
            progress: Shows how far it is; None: silent.

        Returns:
            For each sentence its predictions, best first. A probability's last digits depend on the sentences beside
            it.

        Raises:
            SettingsError: As for `fill_mask`; the message names the sentence. Or there are not as many names.
            ArtifactError: As for `fill_mask`.
        """
        sentences = checked_sentences(sentences)
        require_top_k(top_k)
        token_ids, places = sample_ids(sentences, self.vocabulary, self.settings.text, names=names)
        with _ONE_AT_A_TIME:
            words, vocabulary = self._masked_words, self.vocabulary
        task = (progress or Progress(quiet=True)).start("fill-mask", len(sentences))
        found: list[list[Prediction]] = []
        for start in range(0, len(sentences), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            batch = sentences[part]
            with _ONE_AT_A_TIME, within_memory("fill-mask", len(batch)):
                ids_and_places = token_ids[part], places[part]
                found += predict_masked(words, batch, *ids_and_places, vocabulary=vocabulary, top_k=top_k)
            task.advance(len(batch))
        task.finish()
        return found

    def classify(self, texts: Sequence[str], *, progress: Progress | None = None) -> list[Classification]:
        """The class of each text, with its name and probability.

        Args:
            texts: Raw texts; the run's standardization is applied.
            progress: Shows how far it is; None: silent.

        Returns:
            For each text its class. A probability's last digits depend on the texts beside it.

        Raises:
            SettingsError: A text is empty or not text; the message gives its number.
            ArtifactError: The model is missing, damaged or changed, or there is no classifier.
        """
        texts = checked_texts(texts)
        names = self._class_names()
        with _ONE_AT_A_TIME:
            forward = self._classifier
        one_more = dataclasses.replace(self.settings.text, sequence_length=self.settings.text.sequence_length + 1)
        task = (progress or Progress(quiet=True)).start("classify", len(texts))
        found: list[Classification] = []
        for start in range(0, len(texts), BATCH_ROWS):  # the ids of all texts may not fit in memory
            part = pa.array(texts[start : start + BATCH_ROWS], type=pa.string())
            ids, behind = np.split(encode(part, self.vocabulary, one_more), [-1], axis=1)
            with _ONE_AT_A_TIME, within_memory("classify", BATCH_SIZE):
                logits = forward.logits(ids, batch_size=BATCH_SIZE, advance=task.advance).astype(np.float64)
            # Of the likelier class: with |x| no logit is too large for exp, and none of the bits near 1 are lost.
            chosen = 1.0 / (1.0 + np.exp(-np.abs(logits)))
            read, unknown = (ids != PADDING_ID).sum(axis=1), (ids == UNKNOWN_ID).sum(axis=1)
            for x, *of_text in zip(logits, chosen, read, unknown, behind[:, 0] != PADDING_ID, strict=True):
                p, words, others, is_cut = of_text
                label = int(x > 0)
                found.append(Classification(label, names[label], float(p), int(words), int(others), bool(is_cut)))
        task.finish()
        return found

    def evaluate(
        self, data: Path | str, *, corpus: CorpusSettings | None = None, progress: Progress | None = None
    ) -> Score:
        """Loss and accuracy on labelled texts: their test split if they name one, else all of them.

        Args:
            data: A table, an archive or a folder.
            corpus: Columns and class names to read it by; None: as the run did. See `minibert.evaluate`.
            progress: Shows how far it is; None: silent.

        Raises:
            CorpusError: The data are not labelled texts, or their classes are not the run's.
            ArtifactError: The model is missing, damaged or changed, or there is no classifier.
        """
        require(isinstance(data, (str, os.PathLike)), "data", "a path", data)
        names, settings = self._class_names(), corpus or self.settings.corpus
        with _ONE_AT_A_TIME:
            forward = self._classifier  # one that is damaged is named before texts are read
        settings = dataclasses.replace(settings, train_examples=0, test_examples=0)
        texts = open_corpus(settings, seed=self.settings.seed, data=Path(data), for_evaluation=True, progress=progress)
        flipped = _labels_are_flipped(texts, names, data)
        task = (progress or Progress(quiet=True)).start("evaluate", texts.examples["test"])
        logits, labels = [], []
        for batch in texts.batches("test"):
            ids = encode(batch.texts, self.vocabulary, self.settings.text)
            with _ONE_AT_A_TIME, within_memory("evaluate", BATCH_SIZE):
                logits.append(forward.logits(ids, batch_size=BATCH_SIZE))
            assert batch.labels is not None
            labels.append(1 - batch.labels if flipped else batch.labels)
            task.advance(len(batch.texts))
        task.finish()
        return score(np.concatenate(logits), np.concatenate(labels))

    @cached_property
    def _masked_words(self) -> MaskedWords:
        words = masked_words(self._model("masked_lm.keras"))
        return compiled_words(words, self.settings.text.sequence_length) if self._compiled else words

    @cached_property
    def _classifier(self) -> ClassifierForward:
        return ClassifierForward(self._model("classifier.keras"))

    def _class_names(self) -> tuple[str, str]:
        """The names of label 0 and label 1."""
        names = self._record["corpus"]["class_names"]
        if names is None:
            raise ArtifactError(
                f"{self._directory}: a run of a labelled corpus is required, but this one has no classifier"
            )
        return names[0], names[1]

    def _model(self, name: str) -> Any:
        """Loads one of the run's models, without running code from the file; switches TensorFloat-32 off."""
        path, recorded = self._directory / name, self._record["artifacts"].get(name)
        if recorded is None or not path.is_file():
            stopped = self._record["status"] != "complete"
            hint = f": {resuming_command(self._record, self._directory)} goes on" if stopped else ""
            raise ArtifactError(f"{path}: a finished run is required, but this model is not there{hint}")
        if sha256_of_file(path) != recorded["sha256"]:
            raise ArtifactError(f"{path}: field 'sha256' of the record does not fit: the file was cut or changed")
        forbid_tensor_float_32()
        quiet_compiler(tf)
        try:
            return keras.models.load_model(path, safe_mode=True, compile=False)
        except Exception as error:
            remedy = "pip install keras-nlp, since this model has a layer of it: " if "keras_hub" in str(error) else ""
            raise ArtifactError(
                f"{path}: a Keras model is required, but it cannot be loaded: {remedy}{error}"
            ) from error


def _labels_are_flipped(texts: Corpus, names: tuple[str, str], data: Path | str) -> bool:
    """Whether the data's label 0 is the run's class 1."""
    if texts.class_names is None:
        raise CorpusError(f"{data}: labels are required to evaluate, but there are none")
    found = texts.class_names
    if found == names:
        return False
    if found == names[::-1]:
        return True
    raise CorpusError(
        f"{data}: the classes {names[0]!r} and {names[1]!r} of the run are required, but {found[0]!r} and {found[1]!r} "
        "came; corpus.class_names gives them other names"
    )
