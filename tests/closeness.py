"""How far computed numbers are from known ones."""

from __future__ import annotations

from typing import Any

import numpy as np


def deviation(found: Any, known: Any, *, scale: float | None = None) -> float:
    """The largest difference, relative to the largest known magnitude, or to a scale that is given.

    A single element near 0 among large ones would make an elementwise ratio meaningless.
    """
    found, known = np.asarray(found, dtype=np.float64), np.asarray(known, dtype=np.float64)
    assert found.shape == known.shape
    assert np.isfinite(found).all()
    if not known.size:
        return 0.0
    size = float(np.abs(known).max()) if scale is None else scale
    return float(np.abs(found - known).max()) / max(size, np.finfo(np.float32).tiny)
