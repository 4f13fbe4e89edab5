"""Starts a side's worker and talks to it: one line of JSON for each order, one for each answer."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from minibert.allocator import without_allocator
from minibert.errors import MinibertError

ORDER_SECONDS = 600.0
_TAIL_LINES = 3
SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
"""Variables of both sides' processes, where a user has not set them: TensorFlow takes all of a GPU's memory when it
starts, and leaves none for the other side."""

START = """
import importlib.util, os, sys
tree, perf = sys.argv[1:]
import minibert
if os.path.commonpath([os.path.realpath(minibert.__file__), os.path.realpath(tree)]) != os.path.realpath(tree):
    raise ImportError(f"minibert of {tree} is required, but {minibert.__file__} was imported")
where = os.path.join(perf, "__init__.py")
spec = importlib.util.spec_from_file_location("minibert.perf", where, submodule_search_locations=[perf])
sys.modules["minibert.perf"] = minibert.perf = importlib.util.module_from_spec(spec)
spec.loader.exec_module(minibert.perf)
from minibert.perf import worker
worker.main()
"""
"""What a worker's Python runs: its own side's minibert, with the gate's own files in place of its `perf`."""


class WorkerError(MinibertError):
    """A worker could not do what it was asked.

    Attributes:
        kind: ``missing`` where its side lacks what is asked for, else ``failed``.
        has_ended: Whether it can be asked nothing more.
    """

    def __init__(self, message: str, kind: str = "failed", *, has_ended: bool = False) -> None:
        super().__init__(message)
        self.kind, self.has_ended = kind, has_ended


class Worker:
    """One side's process, used as a context manager.

    Args:
        side: ``base``, ``head`` or ``control``: named in errors.
        python: The interpreter.
        tree: The folder whose ``minibert`` is imported.
        perf: The gate's own files, the same for both sides.
        command: Another command in place of the worker's, for tests.
    """

    def __init__(self, side: str, *, python: Path, tree: Path, perf: Path, command: list[str] | None = None) -> None:
        self.side = side
        self._folder = tempfile.TemporaryDirectory(prefix="minibert-worker-")
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  as long as it lives
        environment = {
            **SHARED_GPU,
            **without_allocator(os.environ),
            "PYTHONPATH": str(tree),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        words = command or [str(python), "-c", START, str(tree), str(perf)]
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd=self._folder.name,  # nothing is there that an import could find
                env=environment,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._close_files()
            raise WorkerError(f"{side}: {words[0]} does not start: {error.strerror or error}", has_ended=True) from None
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # what it was not told can no longer matter
            self._process.stdin.close()  # its next read ends it
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._close_files()

    def send(self, order: str, **arguments: Any) -> None:
        """Gives an order without waiting for its answer.

        Raises:
            WorkerError: The process has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"order": order, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None

    def answer(self, *, within_seconds: float = ORDER_SECONDS) -> dict[str, Any]:
        """The answer to the last order.

        Raises:
            WorkerError: It failed, ended, is silent, or answered something else.
        """
        try:
            line = self._lines.get(timeout=within_seconds)
        except queue.Empty:
            self._process.kill()
            raise WorkerError(f"{self.side}: no answer for {within_seconds:g} s", has_ended=True) from None
        if not line:
            raise self._ended()
        try:
            content = json.loads(line)
            if "error" in content:
                raise WorkerError(f"{self.side}: {content['error']}", content.get("kind", "failed"))
            found: dict[str, Any] = content["answer"]
        except (ValueError, TypeError, KeyError):
            message = f"{self.side}: an answer in JSON is required, but {line[:80]!r} came"
            raise WorkerError(message, has_ended=True) from None
        return found

    def ask(self, order: str, *, within_seconds: float = ORDER_SECONDS, **arguments: Any) -> dict[str, Any]:
        """Gives an order and waits for its answer."""
        self.send(order, **arguments)
        return self.answer(within_seconds=within_seconds)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _ended(self) -> WorkerError:
        try:
            code: Any = self._process.wait(5)
        except subprocess.TimeoutExpired:
            code = "none yet"
        self._errors.seek(0)
        tail = " | ".join(line.strip() for line in self._errors.read().splitlines()[-_TAIL_LINES:] if line.strip())
        return WorkerError(
            f"{self.side}: its process ended with code {code}{': ' if tail else ''}{tail}", has_ended=True
        )

    def _close_files(self) -> None:
        self._errors.close()
        self._folder.cleanup()
