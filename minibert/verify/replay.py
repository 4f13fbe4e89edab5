"""Runs a recorded run once more and compares, or compares two recorded runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from minibert.errors import DivergenceError
from minibert.progress import Progress
from minibert.resuming import changed_environment, changed_inputs
from minibert.verify.comparison import (
    compare_begun,
    compare_runs,
    complete_record,
    encoding_differences,
    tolerances_for,
    verdict_on,
)
from minibert.verify.verdict import TOLERANCE, Verdict
from minibert.verify.watch import PartedError, watched


def verify(
    directory: Path | str,
    *,
    against: Path | str | None = None,
    data: Path | str | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> Verdict:
    """Answers whether a run computes the same again, or the same as another.

    A replay on other inputs, such as data that changed since, is not begun; nor is one whose vocabulary or token
    ids come out differently. Code that changed since is reported, and replayed as it is now. A replay ends with the
    first step that settles that it is ``different``, or that its loss is not finite any more; the verdict is about the
    steps up to there.

    Args:
        directory: A complete run directory; nothing in it is changed.
        against: Another one; None: the run is replayed here and now.
        data: The data of a replay; None: the path that the record names.
        tolerance: Largest relative deviation of a loss of the first steps for ``numeric``; `Tolerances` has the rest.
        progress: Shows how far the replay is.

    Returns:
        The verdict: ``exact``, ``numeric``, ``different`` or ``not comparable``.

    Raises:
        ArtifactError: A file is missing, incomplete, or not the one of the record.
        CorpusError: The data of a replay are not there, or not a corpus.
        RepeatabilityError: A replay's step has something that may not repeat, so no replay can answer.
    """
    directory = Path(directory)
    if against is not None:
        return compare_runs(directory, Path(against), tolerance=tolerance)
    record = complete_record(directory)
    tolerances = tolerances_for(record, tolerance)

    from minibert import executing
    from minibert.preparation import prepare_again

    prepared = prepare_again(record, directory, data=data, progress=progress)
    encoded = encoding_differences(record, prepared.record)
    if encoded or any(changed_inputs(record, prepared.record)):
        return verdict_on(record, prepared.record, encoded, tolerances=tolerances)
    elsewhere = any(changed_environment(record, prepared.record))
    with tempfile.TemporaryDirectory(prefix="minibert-verify-") as folder:
        replayed = Path(folder) / "replay"
        opened = watched(directory, tolerances if elsewhere else None)
        try:
            executing.execute(prepared, directory=replayed, progress=progress, open_trace=opened)
        except PartedError:
            return compare_begun(directory, replayed, tolerance=tolerance)
        except DivergenceError as error:
            return compare_begun(directory, replayed, failure=str(error), tolerance=tolerance)
        return compare_runs(directory, replayed, tolerance=tolerance)
