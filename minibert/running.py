"""A whole run: the pipeline, and the page that shows what came out. The command and Python both come here."""

from __future__ import annotations

import os
from pathlib import Path

from minibert.allocator import keep_freed_memory
from minibert.errors import ArtifactError, SettingsError
from minibert.preparation import Record
from minibert.progress import Progress
from minibert.settings import RunSettings


def run(
    settings: RunSettings,
    *,
    directory: Path | str,
    data: Path | str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Record:
    """Trains everything that the settings ask for, and writes the run directory with its ``report.html``.

    Args:
        settings: What to compute, from `minibert.preset` for example.
        directory: Where to; it must not exist, or be empty, unless ``resume``.
        data: An archive, a folder or a table in place of the preset's corpus.
        resume: Go on with the run in ``directory``.
        progress: Shows how far it is; None: silent.

    Returns:
        The record, as in ``run.json``.

    Raises:
        ArtifactError: Nothing can be written there, which is seen before anything is read or downloaded.
        MinibertError: What `minibert.pipeline.run` raises, or the page cannot be written.

    The process keeps the memory that it frees, see `minibert.allocator`.

    Determinism:
        As `minibert.pipeline.run`.
    """
    if not isinstance(settings, RunSettings):
        raise SettingsError(f"settings: RunSettings, as preset('tiny') gives, are required, but {settings!r} came")
    require_place(Path(directory))

    keep_freed_memory()
    from minibert import pipeline, report  # TensorFlow takes seconds

    record = pipeline.run(settings, directory=directory, data=data, resume=resume, progress=progress)
    report.write_report(Path(directory))
    return record


def require_place(directory: Path) -> None:
    """Refuses a directory that cannot be made or written to, as far as that can be seen without trying.

    Raises:
        ArtifactError: A parent is no folder, or may not be written to.
    """
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ArtifactError(f"{directory}: a folder cannot be made there: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ArtifactError(f"{directory}: a folder cannot be written there: {existing} is read-only for this user")
