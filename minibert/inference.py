"""One answer of a finished run: fill a mask, classify texts, evaluate on labelled texts.

Each call reads the run's files anew; a `minibert.FinishedRun` reads them once for many.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minibert.finished_run import (
    BATCH_SIZE,
    Classification,
    FinishedRun,
    checked_sentences,
    checked_texts,
    require_top_k,
)
from minibert.progress import Progress
from minibert.scoring import Score
from minibert.settings import CorpusSettings
from minibert.training.pretrain import Prediction

_UNCOMPILED_SENTENCES = 8 * BATCH_SIZE
"""From more on, compiling is paid back by the calls that it makes faster."""


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
    require_top_k(top_k)
    return FinishedRun(directory, compiled=False).fill_mask(sentence, top_k=top_k)


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
    sentences = checked_sentences(sentences)
    require_top_k(top_k)
    run = FinishedRun(directory, compiled=len(sentences) > _UNCOMPILED_SENTENCES)
    return run.fill_masks(sentences, top_k=top_k, names=names, progress=progress)


def classify(directory: Path | str, texts: Sequence[str], *, progress: Progress | None = None) -> list[Classification]:
    """The class of each text, with its name and probability.

    Args:
        directory: A run directory of a labelled corpus.
        texts: Raw texts; the run's standardization is applied.
        progress: Shows how far it is; None: silent.

    Returns:
        For each text its class. A probability's last digits depend on the texts beside it.

    Raises:
        SettingsError: A text is empty or not text; the message gives its number.
        ArtifactError: A file of the run is missing, damaged or changed, or there is no classifier.
        DeviceError: Keras is on another backend than TensorFlow.
    """
    texts = checked_texts(texts)
    return FinishedRun(directory).classify(texts, progress=progress)


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
        progress: Shows how far it is; None: silent.

    Raises:
        CorpusError: The data are not labelled texts, or their classes are not the run's.
        ArtifactError: A file of the run is missing, damaged or changed.
        DeviceError: Keras is on another backend than TensorFlow.
    """
    return FinishedRun(directory).evaluate(data, corpus=corpus, progress=progress)
