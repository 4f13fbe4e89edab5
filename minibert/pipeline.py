"""A whole run: begun, or gone on with where it was stopped.

    run(preset("tiny"), directory=Path("runs/tiny-seed0")) -> the run record, as in run.json

A run is a pure function of (settings, corpus, environment): corpus, vocabulary, pretraining, classifier, raw-text
model, record. ``resume`` goes on with the one in a directory, if it is what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from minibert.artifacts import locked
from minibert.environment import multiplies_bfloat16
from minibert.executing import execute, make_folder
from minibert.model.backend import require_tensorflow
from minibert.preparation import Prepared, Record, begin_record, prepare, recorded_data
from minibert.progress import Progress
from minibert.record import earlier_record, read_record
from minibert.resuming import require_recorded_files, require_resumable
from minibert.settings import RunSettings
from minibert.training.checkpoint import remove_checkpoints

_SHOWN_COLUMNS = 6
"""Of a table, in a message."""


def run(
    settings: RunSettings,
    *,
    directory: Path | str,
    data: Path | str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Record:
    """Runs everything that the settings ask for and writes the run directory.

    Args:
        settings: What to compute, from `minibert.preset` for example.
        directory: Where to; it must not exist, or be empty, unless ``resume``.
        data: An archive, a folder or a table in place of the preset's corpus; None with ``resume``: the run's own.
        resume: Go on with the run in ``directory``; a complete one is left as it is, if it is what is asked for.
        progress: Shows how far it is; None: silent.

    Returns:
        The record, as in ``run.json``.

    Raises:
        SettingsError: A setting does not fit, or the sample sentence has no single ``[mask]``.
        CorpusError: The data are not a corpus.
        ArtifactError: The directory exists, cannot be written, or another process is writing to it, or a file of the
            run is not what it was.
        ResumeError: What the run computes has changed since, or nothing is left to go on from.
        RepeatabilityError: A training step could give different results when repeated.
        DeviceError: Keras is on another backend than TensorFlow.

    Determinism:
        The result depends on settings, corpus and the recorded environment only. TensorFlow's op determinism is
        switched on for the process, and TensorFloat-32 off.
    """
    require_tensorflow()  # before texts are read
    directory, shown = Path(directory), progress or Progress(quiet=True)
    if earlier_record(directory, resume=resume) is not None:
        with locked(directory, wait=False):
            return _go_on(settings, directory, data=data, progress=shown)
    prepared = prepare(settings, data=data, progress=shown)
    for line in _forewarnings(prepared, is_own_data=data is not None):
        shown.note(line)
    make_folder(directory)
    with locked(directory, wait=False):
        earlier_record(directory, resume=False)  # another run may have begun in it meanwhile
        return execute(prepared, directory=directory, progress=shown)


def _forewarnings(prepared: Prepared, *, is_own_data: bool) -> Iterator[str]:
    """What a user should know of a run before it trains, in lines."""
    settings, corpus = prepared.settings, prepared.corpus
    if is_own_data and not corpus.labelled:
        unread = ", ".join(map(repr, corpus.unread_columns[:_SHOWN_COLUMNS]))
        columns = f"; columns that are not read: {unread}" if unread else ""
        yield f"no labels are read (corpus.label_column names their column{columns}): no classifier will be trained"
    of_classifier = settings.finetune.frozen_epochs + settings.finetune.unfrozen_epochs
    if settings.pretrain.epochs + (of_classifier if corpus.labelled else 0) == 0:
        yield "no stage has an epoch: nothing will be trained"
    precision = settings.model.precision
    if precision != "float32" and not multiplies_bfloat16(prepared.record["environment"]):
        slow = "this processor has no instructions for bfloat16, so a step takes longer than in float32"
        yield f"model.precision={precision}: {slow}"


def _go_on(settings: RunSettings, directory: Path, *, data: Path | str | None, progress: Progress) -> Record:
    """Goes on with the run in a directory if it is what is asked for, which is seen before its texts are read."""
    earlier = read_record(directory)
    settings = _as_it_began(settings, earlier, note=progress.note)
    asked = begin_record(settings)
    if settings.masking.vocabulary_size is None:  # a run takes it from its vocabulary
        asked["settings"]["masking"]["vocabulary_size"] = earlier["settings"]["masking"]["vocabulary_size"]
    require_resumable(earlier, asked)
    # Read anew it is that of the vocabulary again: of texts that have changed, which are named then.
    settings = replace(settings, masking=replace(settings.masking, vocabulary_size=None))
    prepared = prepare(settings, data=recorded_data(earlier) if data is None else data, progress=progress)
    require_resumable(earlier, prepared.record)
    if earlier["status"] == "complete":
        require_recorded_files(directory, earlier)
        remove_checkpoints(directory)  # a run that is killed at its very end leaves them
        progress.note(f"{directory} is complete; nothing is left to do")
        return earlier
    prepared.record["started"] = earlier["started"]
    return execute(prepared, directory=directory, earlier=earlier, progress=progress)


def _as_it_began(settings: RunSettings, earlier: Record, *, note: Callable[[str], None]) -> RunSettings:
    """The settings with fingerprints at the steps at which the run's trace has them: they change no computed value."""
    began: Any = earlier["settings"]["record"]["fingerprinted_steps"]
    if settings.record.fingerprinted_steps != began:
        note(f"the run goes on with record.fingerprinted_steps={began}, as it began")
    return replace(settings, record=replace(settings.record, fingerprinted_steps=began))
