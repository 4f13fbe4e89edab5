"""A whole run: the pipeline, and the page that shows what came out. The command and Python both come here."""

from __future__ import annotations

from pathlib import Path

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
        MinibertError: What `minibert.pipeline.run` raises, or the page cannot be written.

    Determinism:
        As `minibert.pipeline.run`.
    """
    from minibert import pipeline, report  # TensorFlow takes seconds

    record = pipeline.run(settings, directory=directory, data=data, resume=resume, progress=progress)
    report.write_report(Path(directory))
    return record
