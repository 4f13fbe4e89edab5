"""What a run starts from: its corpus read and encoded, its settings resolved, its record begun.

    prepare(preset("tiny")) -> Prepared(settings, corpus, examples, record)

Two prepared runs say whether the same is about to be computed, before anything is trained: a resumed run
and a replay compare their records first.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minibert
from minibert.checked import is_unicode, require
from minibert.corpora.corpus import Corpus
from minibert.corpora.opening import open_corpus
from minibert.environment import describe_environment
from minibert.errors import CorpusError, SettingsError
from minibert.examples import Examples, encode_corpus
from minibert.progress import Progress
from minibert.record import FORMAT, NAME, code_digests, record_settings
from minibert.settings import RunSettings
from minibert.text import sample_ids

Record = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """What a run starts from: everything is read and checked, nothing is trained or written yet.

    Attributes:
        settings: With the size of the vocabulary resolved.
        corpus: The texts.
        examples: The encoded texts.
        record: The run's record as it begins.
    """

    settings: RunSettings
    corpus: Corpus
    examples: Examples
    record: Record


def prepare(settings: RunSettings, *, data: Path | str | None = None, progress: Progress | None = None) -> Prepared:
    """Reads and encodes the corpus and describes the run to come.

    Args:
        settings: What is to be computed.
        data: An archive, a folder or a table in place of the preset's corpus.
        progress: Shows how far it is.

    Raises:
        SettingsError: A setting does not fit, the sample sentence has no single ``[mask]``, or ``data`` is empty or a
            path that is not UTF-8.
        CorpusError: The data are not a corpus.
    """
    require(data is None or str(data) != "", "data", "a path that is not empty", data)
    place = None if data is None else os.path.realpath(data)
    require(place is None or is_unicode(place), "data", "a path in UTF-8", place)  # as run.json is
    started, path = time.perf_counter(), None if data is None else Path(data)
    corpus = open_corpus(settings.corpus, seed=settings.seed, data=path, progress=progress)
    reading_seconds = time.perf_counter() - started
    examples = encode_corpus(corpus, settings, progress=progress)
    asked, size = settings.masking.vocabulary_size, len(examples.vocabulary)
    if asked is not None and asked != size:
        raise SettingsError(f"masking.vocabulary_size: {size}, the vocabulary's, or none is required, but {asked} came")
    masking = dataclasses.replace(settings.masking, vocabulary_size=size)
    settings = dataclasses.replace(settings, masking=masking)
    sentence = settings.pretrain.sample_sentence
    sample_ids([sentence], examples.vocabulary, settings.text, names=["pretrain.sample_sentence"])
    times = {"seconds": time.perf_counter() - started, "reading_seconds": reading_seconds}
    record = begin_record(settings) | {
        "data": place,
        "corpus": {
            "name": corpus.name,
            "digest": corpus.digest,
            "class_names": list(corpus.class_names) if corpus.class_names else None,
            "examples": dict(corpus.examples),
            **examples.statistics(),
        },
        "stages": {"encode": times},
        "artifacts": {},
    }
    return Prepared(settings, corpus, examples, record)


def prepare_again(
    record: Record, directory: Path, *, data: Path | str | None = None, progress: Progress | None = None
) -> Prepared:
    """Prepares a recorded run as it was asked for; whether the same came out is for the caller to compare.

    Args:
        record: Of the run, from `minibert.record.read_record`.
        directory: Where it is, for error messages.
        data: Its data; None: the path that the record names.
        progress: Shows how far it is.

    Raises:
        CorpusError: The data are not there, or not a corpus.
    """
    settings = record_settings(record, directory / NAME)
    masking = dataclasses.replace(settings.masking, vocabulary_size=None)
    settings = dataclasses.replace(settings, masking=masking)
    return prepare(settings, data=recorded_data(record) if data is None else data, progress=progress)


def recorded_data(record: Record) -> str | None:
    """The path of a run's own data; None: it had none.

    Raises:
        CorpusError: They are not there any more.
    """
    place: str | None = record.get("data")
    if place is not None and not Path(place).exists():
        raise CorpusError(f"{place}: the run's data are required, but they are not there; --data names another place")
    return place


def begin_record(settings: RunSettings) -> Record:
    """A run's record before a text is read, in values of JSON: what is to be computed, by which code, on what."""
    return {
        "format": FORMAT,
        "minibert_version": minibert.__version__,
        "status": "running",
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "settings": settings.to_dict(),
        "settings_digest": settings.digest(),
        "environment": describe_environment(),
        "code": code_digests(),
    }
