"""What other processes take of the cores while a step is timed: a time measured beside them proves nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

_STAT = Path("/proc/stat")
_CORE = re.compile(r"^cpu(\d+)((?: \d+){8,})", re.MULTILINE)
"""One core's line: its number, and the time that it spent in each way."""


def busy_seconds() -> float | None:
    """Time that all processes together have spent on the cores that this process may use, in seconds.

    What others do on further cores takes nothing away. Time that a hypervisor gave to others counts too.
    Elsewhere than on Linux psutil is asked; None where it is not installed or does not know.
    """
    try:
        lines = _STAT.read_text(encoding="ascii")
        usable = os.sched_getaffinity(0)
    except (OSError, AttributeError):
        return _busy_by_psutil()
    ticks = sum(_busy_ticks(times) for core, times in _CORE.findall(lines) if int(core) in usable)
    return ticks / os.sysconf("SC_CLK_TCK")


def _busy_ticks(times: str) -> int:
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, times.split()[:8])
    return user + nice + system + interrupts + soft_interrupts + stolen


def _busy_by_psutil() -> float | None:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))
