"""How figures are written for people: one way for each kind, here and nowhere else."""

from __future__ import annotations

import math

NOTHING = "–"
"""Stands where there is no figure."""


def decimal(value: float | None, digits: int = 4) -> str:
    """A loss, an accuracy or a probability: fixed digits, an exponent where those show nothing."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "not finite"
    if value != 0 and (abs(value) < 0.5 * 10.0**-digits or abs(value) >= 1e6):
        return f"{value:.2e}"
    return f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """A difference, with its sign; a true minus, as wide as the plus."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = decimal(abs(value), digits)
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else '−'}{text}"


def count(value: int | None) -> str:
    """A number of things, in groups of three digits."""
    return NOTHING if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """A rate from 0 to 1, in per cent."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """A time in the two largest units that say something."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def size(size_bytes: int | None) -> str:
    """A file's or a memory's size, in decimal units."""
    if size_bytes is None:
        return NOTHING
    value, units = float(size_bytes), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:,.0f} bytes" if units[0] == "bytes" else f"{value:.1f} {units[0]}"
