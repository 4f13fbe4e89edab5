"""A trace that is compared as it is written, so that a replay ends at the first step that nothing explains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minibert.fingerprints import Trace, TraceHeader, TraceWriter, read_trace, trace_name
from minibert.verify.differences import trace_differences
from minibert.verify.verdict import Tolerances


class PartedError(Exception):
    """A replay has computed what the recorded run did not, and no environment may change; never shown."""


class WatchedTrace(TraceWriter):
    """Writes a replay's trace beside the recorded one.

    Args:
        path: The replay's trace.
        header: What a row holds.
        recorded: The recorded trace.
        tolerances: Of losses; None: every difference ends the replay.
        steps_before: Steps of the stages before.
        given: As of `TraceWriter`.
    """

    def __init__(
        self,
        path: Path,
        header: TraceHeader,
        *,
        recorded: Trace,
        tolerances: Tolerances | None,
        steps_before: int,
        **given: Any,
    ) -> None:
        super().__init__(path, header, **given)
        self._recorded, self._here, self._tolerances, self._before = recorded, header, tolerances, steps_before

    held_rows = 1

    def _written(self, rows: np.ndarray) -> None:
        """Compares the row of a step.

        Raises:
            PartedError: It is not the recorded one, and that is not explained; the row is in the trace.
        """
        if self._is_unexplained(Trace(self._here, rows), int(rows["step"][0])):
            raise PartedError

    def _is_unexplained(self, row: Trace, step: int) -> bool:
        """Whether a row alone settles the verdict; the whole traces are compared for what it is about."""
        tolerances = self._tolerances or Tolerances()
        beside = Trace(self._recorded.header, self._recorded.rows[step : step + 1])
        if beside.header == row.header and beside.rows.tobytes() == row.rows.tobytes():
            return False  # no bit differs, as in nearly all rows: told at once
        found, _ = trace_differences(beside, row, tolerances=tolerances, steps_before=self._before, first_step=step)
        return any(self._tolerances is None or difference.unexplained for difference in found)


def watched(directory: Path, tolerances: Tolerances | None) -> Callable[..., WatchedTrace]:
    """What opens a replay's traces.

    Args:
        directory: The recorded run.
        tolerances: Of losses where the environment differs; None where it does not.
    """
    steps_done = 0

    def opened(path: Path, header: TraceHeader, **given: Any) -> WatchedTrace:
        nonlocal steps_done
        recorded, before = read_trace(directory / trace_name(header.stage)), steps_done
        steps_done += len(recorded.rows)
        return WatchedTrace(path, header, recorded=recorded, tolerances=tolerances, steps_before=before, **given)

    return opened
