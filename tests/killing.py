"""Runs that are killed at a chosen moment, many of them, each in a process of its own: a script for `test_resume`.

    python killing.py WORKERS < jobs > results

A job is a line of JSON: ``id``, ``settings``, ``directory``, ``resume``, and ``kill``, the moment of a SIGKILL
or null. A result is a line of JSON: ``id``, ``exit_code`` (-9 for a kill) and ``error``. TensorFlow is imported
once; a job is forked before it has run anything, when there are none of its threads and locks yet, which is checked.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MOMENTS = ("before the step", "after the step", "half a checkpoint", "before its name", "after the checkpoint")
"""Of a step: the last three need one that writes a checkpoint."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_blocks(blocks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """All of the blocks, and then the death of this process."""
    yield from blocks
    die()


def kill_at(stage: str, step: int, moment: str) -> None:
    """Plants the death of this process at a moment of a step, counted from 1."""
    from minibert import executing
    from minibert.fingerprints import TraceWriter
    from minibert.training import checkpoint
    from minibert.training.step import TrainingStep

    call, append, write, write_checkpoint = (
        TrainingStep.__call__, TraceWriter.append, checkpoint.write_named_by_digest, executing.write_checkpoint
    )  # fmt: skip

    def dying_call(self: Any, number: int, batch: Any) -> Any:
        if (moment, stage, step) == ("before the step", self._stage, number + 1):
            die()
        return call(self, number, batch)

    def dying_append(self: Any, number: int, **row: Any) -> None:
        append(self, number, **row)
        if (moment, stage, step) == ("after the step", self._header.stage, number + 1):
            die()

    def dying_write(path: Path, blocks: Iterable[bytes | memoryview]) -> Path:
        if f"-{stage}-{step:08d}." in path.name and moment in ("half a checkpoint", "before its name"):
            whole = list(blocks)
            blocks = dying_blocks(whole[: len(whole) // 2] if moment == "half a checkpoint" else whole)
        return write(path, blocks)

    def dying_write_checkpoint(directory: Path, state: Any, *, kept: int) -> Path:
        path = write_checkpoint(directory, state, kept=kept)
        if (moment, stage, step) == ("after the checkpoint", state.stage, state.step):
            die()
        return path

    TrainingStep.__call__ = dying_call  # type: ignore[method-assign]
    TraceWriter.append = dying_append  # type: ignore[method-assign]
    checkpoint.write_named_by_digest = dying_write
    executing.write_checkpoint = dying_write_checkpoint


def kill_before_name(name: str, count: int) -> None:
    """Plants the death of this process between the writing of a file and its renaming, for the n-th time."""
    replace = Path.replace
    left = [count]

    def dying_replace(self: Path, target: Path) -> Path:
        if target.name == name:
            left[0] -= 1
            if not left[0]:
                die()
        return replace(self, target)

    Path.replace = dying_replace  # type: ignore[method-assign]


def work(job: dict[str, Any]) -> None:
    """Runs one job in this process."""
    from minibert import pipeline
    from minibert.settings import RunSettings, settings_from_dict

    kill = job["kill"]
    if kill is not None:
        kill_before_name(kill["name"], kill["count"]) if "name" in kill else kill_at(**kill)
    settings = settings_from_dict(RunSettings, job["settings"])
    pipeline.run(settings, directory=job["directory"], resume=job["resume"])


def fork(job: dict[str, Any]) -> tuple[int, int]:
    """Starts a job; the process and the file descriptor of its error."""
    from tensorflow.python.eager import context

    assert context._context is None or not context._context._initialized, "TensorFlow has threads: no fork is safe"
    read, write = os.pipe()
    process = os.fork()
    if process:
        os.close(write)
        return process, read
    try:
        work(job)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the parent reports it
        os.write(write, traceback.format_exc()[-60_000:].encode())
        os._exit(1)


def main() -> None:
    """Reads jobs, keeps the workers busy, and writes results as they come."""
    import tensorflow as tf  # noqa: F401

    from minibert import pipeline  # noqa: F401

    running: dict[int, tuple[dict[str, Any], int]] = {}
    workers = int(sys.argv[1])
    for line in [*sys.stdin, None]:
        if line is not None:
            job = json.loads(line)
            process, error = fork(job)
            running[process] = (job, error)
        while running and (line is None or len(running) >= workers):
            process, status = os.wait()
            job, error = running.pop(process)
            with os.fdopen(error, "rb") as pipe:
                text = pipe.read().decode()
            code = os.waitstatus_to_exitcode(status)
            print(json.dumps({"id": job["id"], "exit_code": code, "error": text}), flush=True)


if __name__ == "__main__":
    main()
