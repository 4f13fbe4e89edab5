"""Keeps TensorFlow's own log lines off a user's terminal.

Its C++ part logs to file descriptor 2 while it is imported, whatever ``TF_CPP_MIN_LOG_LEVEL`` says.
The descriptor is therefore turned away for the time of that import, whoever asks for it, and what was
written is shown only if the import fails.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def quiet_tensorflow() -> None:
    """From now on the import of TensorFlow, and its work after it, logs errors only.

    What a user has set in the environment is kept; ``TF_CPP_MIN_LOG_LEVEL=0`` shows everything.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0" or "tensorflow" in sys.modules:
        return
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if not any(isinstance(finder, _QuietFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietFinder())


def quiet_compiler(tensorflow: Any) -> None:
    """Has XLA say now, to nobody, what it says once in a process: up to TensorFlow 2.20 it heeds no log level then.

    It compiles one addition, which takes a twentieth of a second. Nothing is done where a user wants to see logs.

    Args:
        tensorflow: The module, imported and set up: this starts its devices.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") != "0":
        with _stderr_turned_away():
            tensorflow.function(lambda x: x + 1.0, jit_compile=True)(tensorflow.constant(1.0))


class _QuietFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)  # resources and source are still the real loader's

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with _stderr_turned_away():
            self._loader.exec_module(module)
            _quiet_python_logs()


def _quiet_python_logs() -> None:
    import logging

    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _stderr_turned_away() -> Iterator[None]:
    """Sends file descriptor 2 to a temporary file; an exception brings what was written back, but Ctrl-C does not."""
    try:
        kept = os.dup(2)
    except OSError:  # no stderr: nothing to keep quiet
        yield
        return
    with tempfile.TemporaryFile() as away:
        os.dup2(away.fileno(), 2)
        try:
            yield
        except Exception:
            away.seek(0)
            os.write(kept, away.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
