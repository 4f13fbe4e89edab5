"""Runs a recorded run once more and compares, or compares two recorded runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from minibert.artifacts import sha256_of_file
from minibert.errors import ArtifactError
from minibert.progress import Progress
from minibert.record import NAME, read_record, record_settings
from minibert.verify.comparison import TOLERANCE, Verdict, compare_runs


def verify(
    directory: Path | str,
    *,
    against: Path | str | None = None,
    data: Path | str | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> Verdict:
    """Answers whether a run computes the same again, or the same as another.

    Args:
        directory: A complete run directory; nothing in it is changed.
        against: Another one; None: the run is replayed here and now.
        data: The data of a replay; None: the path that the record names.
        tolerance: Largest relative deviation of a loss for ``numeric``.
        progress: Shows how far the replay is.

    Returns:
        The verdict: ``exact``, ``numeric``, ``different`` or ``not comparable``.

    Raises:
        ArtifactError: A file is missing, incomplete, or not the one of the record.
    """
    directory = Path(directory)
    record = read_record(directory)
    for name, recorded in record["artifacts"].items():
        path = directory / name
        if not path.is_file() or sha256_of_file(path) != recorded["sha256"]:
            raise ArtifactError(f"{path}: the file of the record is required, but it is missing or was changed")
    if against is not None:
        return compare_runs(directory, Path(against), tolerance=tolerance)

    from minibert import pipeline

    settings = record_settings(record, directory / NAME)
    with tempfile.TemporaryDirectory(prefix="minibert-verify-") as folder:
        replayed = Path(folder) / "replay"
        pipeline.run(settings, directory=replayed, data=data or record.get("data"), progress=progress)
        return compare_runs(directory, replayed, tolerance=tolerance)
