"""What a process takes of the cores and of the memory while something is timed, and what others take meanwhile."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from minibert.environment import available_cores
from minibert.perf.neighbours import busy_seconds

DISTURBED_RATE = 0.05
"""Share of the cores from which on other processes have disturbed a time."""
_STATUS = Path("/proc/self/status")


class Meter:
    """Counts what this process and the others take of the cores, from its making on."""

    def __init__(self) -> None:
        self._started, self._own, self._busy = time.perf_counter(), time.process_time(), busy_seconds()

    def seconds(self) -> float:
        """Wall time."""
        return time.perf_counter() - self._started

    def cpu_seconds(self) -> float:
        """Seconds that this process' threads have run."""
        return time.process_time() - self._own

    def others_rate(self) -> float | None:
        """Share of the cores, 0 to 1, that other processes took; None where the system does not say."""
        busy = busy_seconds()
        if busy is None or self._busy is None:
            return None
        others = busy - self._busy - self.cpu_seconds()
        return max(0.0, others / (self.seconds() * available_cores()))


def resident_bytes() -> int | None:
    """What this process has resident now; None where the system does not say."""
    return _status_bytes("VmRSS")


def peak_bytes() -> int:
    """The most memory that this process has had resident; it never falls.

    Linux says it for the program that runs. ``ru_maxrss``, which is asked elsewhere, would there begin with what the
    process that started this one had.
    """
    found = _status_bytes("VmHWM")
    if found is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status_bytes(name: str) -> int | None:
    try:
        status = _STATUS.read_text(encoding="ascii", errors="replace")
        return 1024 * int(status.partition(f"{name}:")[2].split(maxsplit=1)[0])
    except (OSError, IndexError, ValueError):
        return None
