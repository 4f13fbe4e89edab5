"""What peers and Keras' other backends need: installed, or a benchmark or test says aloud that it is not run."""

from __future__ import annotations

import importlib.util
import os

REQUIRED = "MINIBERT_REQUIRE_PEERS"
"""The variable with which a missing module is a failure, as in ``tox -e peers``."""


def missing(*modules: str) -> list[str]:
    """Those that are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def require_installed(*modules: str) -> None:
    """Leaves a benchmark or test out, aloud, where a module is missing; fails it where `REQUIRED` is set."""
    import pytest

    absent = missing(*modules)
    if not absent:
        return
    said = f"not installed: {', '.join(absent)} (the extra `peers` has it)"
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED}: {said}")
    pytest.skip(f"not run: {said}")
