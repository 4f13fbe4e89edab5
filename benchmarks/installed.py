"""What peers and Keras' other backends need: installed, or a benchmark or test says aloud that it is not run."""

from __future__ import annotations

import importlib.util
import os

import pytest

REQUIRED = "MINIBERT_REQUIRE_PEERS"
"""The variable with which a missing module is a failure, as in ``tox -e peers``."""


def require_installed(*modules: str) -> None:
    """Leaves a benchmark or test out, aloud, where a module is missing; fails it where `REQUIRED` is set."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED}: {', '.join(missing)} is required, but is not installed")
    pytest.skip(f"not run: {', '.join(missing)} is not installed (the extra `peers` has it)")
