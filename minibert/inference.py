"""What a finished run can do: fill a mask, classify texts, evaluate on labelled texts.

Models are read from the run directory with Keras' safe mode on, and only if they are the files that
the record names by digest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from minibert.training.pretrain import Prediction, compiled_words, masked_words, predict_masked

_BATCH_SIZE = 32
_UNCOMPILED_SENTENCES = 8 * _BATCH_SIZE
"""From more on, compiling is paid back by the calls that it makes faster."""


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


def fill_mask(directory: Path | str, sentence: str, *, top_k: int = 5) -> list[Prediction]:
    """The most probable words for a sentence's ``[mask]``, best first.

    Args:
        directory: A run directory.
        sentence: Text with exactly one ``[mask]`` (in capitals, too, where the run lowers letters), which is a word of
            its own and stands within the run's ``text.sequence_length`` words.
        top_k: Words wanted; no more come than the vocabulary has.

    Raises:
        SettingsError: There is no such ``[mask]``, or several; or ``top_k`` is not 1 or more.
        ArtifactError: A file of the run is missing, damaged or changed.
        DeviceError: Keras is on another backend than TensorFlow.
    """
    return fill_masks(directory, [sentence], top_k=top_k, names=["sentence"])[0]


def fill_masks(
    directory: Path | str,
    sentences: Sequence[str],
    *,
    top_k: int = 5,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[list[Prediction]]:
    """The most probable words for the ``[mask]`` of each sentence: the run is read once, for all of them.

    Args:
        directory: A run directory.
        sentences: Texts as for `fill_mask`; if one is wrong, none is filled.
        top_k: As for `fill_mask`.
        names: What messages call the sentences, as many; None: by their numbers.
        progress: Shows how far it is; None: silent.

    Returns:
        For each sentence its predictions, best first. A probability's last digits depend on the sentences beside it.

    Raises:
        SettingsError: As for `fill_mask`; the message names the sentence.
        ArtifactError: As for `fill_mask`.
        DeviceError: As for `fill_mask`.
    """
    is_several = isinstance(sentences, Iterable) and not isinstance(sentences, str)
    require(is_several, "sentences", "a list of sentences", sentences)
    require(type(top_k) is int and top_k >= 1, "top_k", "an integer, 1 or more,", top_k)
    run, sentences = _FinishedRun(Path(directory)), list(sentences)
    token_ids, places = sample_ids(sentences, run.vocabulary, run.settings.text, names=names)
    words = masked_words(run.model("masked_lm.keras"), len(run.vocabulary), top_k)
    if len(sentences) > _UNCOMPILED_SENTENCES:
        words = compiled_words(words, run.settings.text.sequence_length)
    task = (progress or Progress(quiet=True)).start("fill-mask", len(sentences))
    found: list[list[Prediction]] = []
    for start in range(0, len(sentences), _BATCH_SIZE):
        part = slice(start, start + _BATCH_SIZE)
        batch = sentences[part]
        with within_memory("fill-mask", len(batch)):
            found += predict_masked(words, batch, token_ids[part], places[part], vocabulary=run.vocabulary)
        task.advance(len(batch))
    task.finish()
    return found


def classify(directory: Path | str, texts: Sequence[str], *, progress: Progress | None = None) -> list[Classification]:
    """The class of each text, with its name and probability.

    Args:
        directory: A run directory of a labelled corpus.
        texts: Raw texts; the run's standardization is applied.
        progress: Shows how far it is; None: silent.

    Raises:
        SettingsError: A text is empty or not text; the message gives its number.
        ArtifactError: A file of the run is missing, damaged or changed, or there is no classifier.
        DeviceError: Keras is on another backend than TensorFlow.
    """
    require(not isinstance(texts, str), "texts", "a list of texts", texts)
    texts = list(texts)
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) or not text.strip() or not is_unicode(text):
            raise SettingsError(f"texts: Unicode text that is not empty is required, but number {number} is {text!r}")
    run = _FinishedRun(Path(directory))
    names = run.class_names()
    forward = ClassifierForward(run.model("classifier.keras"))
    one_more = dataclasses.replace(run.settings.text, sequence_length=run.settings.text.sequence_length + 1)
    task = (progress or Progress(quiet=True)).start("classify", len(texts))
    found: list[Classification] = []
    for start in range(0, len(texts), BATCH_ROWS):  # the ids of all texts may not fit in memory
        part = pa.array(texts[start : start + BATCH_ROWS], type=pa.string())
        ids, behind = np.split(encode(part, run.vocabulary, one_more), [-1], axis=1)
        with within_memory("classify", _BATCH_SIZE):
            logits = forward.logits(ids, batch_size=_BATCH_SIZE, advance=task.advance).astype(np.float64)
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
    directory: Path | str,
    data: Path | str,
    *,
    corpus: CorpusSettings | None = None,
    progress: Progress | None = None,
) -> Score:
    """Loss and accuracy on labelled texts: their test split if they name one, else all of them.

    Classes are matched by name, because 0 means positive in one source and negative in another: name the
    two values of a table of numbers by ``corpus.class_names``.

    Args:
        directory: A run directory of a labelled corpus.
        data: A table, an archive or a folder.
        corpus: Columns and class names to read it by; None: as the run did.
        progress: Shows how far it is.

    Raises:
        CorpusError: The data are not labelled texts, or their classes are not the run's.
        ArtifactError: A file of the run is missing, damaged or changed.
        DeviceError: Keras is on another backend than TensorFlow.
    """
    run = _FinishedRun(Path(directory))
    names, settings = run.class_names(), corpus or run.settings.corpus
    forward = ClassifierForward(run.model("classifier.keras"))  # one that is damaged is named before texts are read
    settings = dataclasses.replace(settings, train_examples=0, test_examples=0)
    texts = open_corpus(settings, seed=run.settings.seed, data=Path(data), for_evaluation=True, progress=progress)
    flipped = _labels_are_flipped(texts, names, data)
    task = (progress or Progress(quiet=True)).start("evaluate", texts.examples["test"])
    logits, labels = [], []
    for batch in texts.batches("test"):
        ids = encode(batch.texts, run.vocabulary, run.settings.text)
        with within_memory("evaluate", _BATCH_SIZE):
            logits.append(forward.logits(ids, batch_size=_BATCH_SIZE))
        assert batch.labels is not None
        labels.append(1 - batch.labels if flipped else batch.labels)
        task.advance(len(batch.texts))
    task.finish()
    return score(np.concatenate(logits), np.concatenate(labels))


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


class _FinishedRun:
    """The files of a run directory, each checked before it is used."""

    def __init__(self, directory: Path) -> None:
        require_tensorflow()
        self._directory, self._record = directory, read_record(directory)
        self.settings: RunSettings = record_settings(self._record, directory / NAME)
        self.vocabulary = Vocabulary.read(directory / "vocabulary.txt")
        if self.vocabulary.digest() != self._record["corpus"]["vocabulary_sha256"]:
            raise ArtifactError(
                f"{directory / 'vocabulary.txt'}: it is not the run's: its digest is not the recorded one"
            )

    def class_names(self) -> tuple[str, str]:
        """The names of label 0 and label 1."""
        names = self._record["corpus"]["class_names"]
        if names is None:
            raise ArtifactError(
                f"{self._directory}: a run of a labelled corpus is required, but this one has no classifier"
            )
        return names[0], names[1]

    def model(self, name: str) -> Any:
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
