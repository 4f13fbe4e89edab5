"""What other processes take of the cores while a step is timed: a time measured beside them proves nothing."""

from __future__ import annotations

import os
from pathlib import Path

_STAT = Path("/proc/stat")


def busy_seconds() -> float | None:
    """Time that all processes together have spent on all cores, in seconds.

    Time that a hypervisor gave to others counts too. Elsewhere than on Linux psutil is asked; None where
    it is not installed or does not know.
    """
    try:
        fields = _STAT.read_text(encoding="ascii").split(maxsplit=9)[1:9]
    except OSError:
        return _busy_by_psutil()
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, fields)
    return (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


def _busy_by_psutil() -> float | None:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))
