"""Does it still compute the same? A short tiny run of both sides, compared as ``minibert verify`` does.

Both run at the same time: bits do not depend on what else the cores do. Nothing is timed here.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from minibert.allocator import without_allocator
from minibert.errors import ArtifactError
from minibert.perf.answer import NumericAnswer
from minibert.perf.decision import FAILED
from minibert.perf.process import SHARED_GPU
from minibert.perf.trees import Side

SETTINGS = ("pretrain.epochs=2", "finetune.frozen_epochs=1", "finetune.unfrozen_epochs=1")
"""Every kind of step of ``tiny``, in half a minute; the first stage has more steps than verify's `HORIZON`."""
RUN_SECONDS = 900


def compare_bits(base: Side, head: Side, folder: Path) -> NumericAnswer:
    """Runs ``tiny`` on both sides and compares their traces, weights and figures.

    Args:
        base: One side.
        head: The other.
        folder: Where the runs are written.
    """
    folders = {"base": folder / "base-run", "head": folder / "head-run"}
    started: dict[str, subprocess.Popen[str]] = {}
    try:
        for name, side in (("base", base), ("head", head)):
            started[name] = _start(side, folders[name], folder)
        said = {name: _failure(process, folders[name]) for name, process in started.items()}
    finally:  # a gate that is stopped leaves no run behind
        for process in started.values():
            if process.poll() is None:
                process.kill()
                process.wait()
    failures = [f"{name}: {words}" for name, words in said.items() if words]
    one_environment = base.versions == head.versions
    if failures:
        return NumericAnswer(verdict=FAILED, explanation=(f"failed: {'; '.join(failures)}",))
    from minibert.verify.comparison import compare_runs

    try:
        found = compare_runs(folders["base"], folders["head"])
    except ArtifactError as error:
        return NumericAnswer(verdict="not comparable", explanation=(f"not comparable: {error}",))
    where, explanation = found.parting, list(found.explanation)
    if found.verdict == "numeric":
        explanation.append(
            "in one environment other bits are no pass without --allow-different"
            if one_environment
            else "other bits, close enough, are a pass between two environments"
        )
    return NumericAnswer(
        verdict=found.verdict,
        explanation=tuple(explanation),
        stage=where.stage if where else None,
        step=where.step if where else None,
        tensor=where.tensor if where else None,
        largest_deviation=found.largest_deviation,
        one_environment=one_environment,
    )


def _start(side: Side, out: Path, folder: Path) -> subprocess.Popen[str]:
    words = [str(side.python), "-m", "minibert", "run", "tiny", "--quiet", "--out", str(out), "--set", *SETTINGS]
    environment = {**SHARED_GPU, **without_allocator(os.environ), "PYTHONPATH": str(side.tree)}
    # A file, not a pipe: nobody reads while the other side's run is waited for.
    with _errors(out).open("w", encoding="utf-8") as errors:
        return subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
        )


def _errors(out: Path) -> Path:
    return out.with_name(f"{out.name}.errors")


def _failure(process: subprocess.Popen[str], out: Path) -> str:
    """Why a run did not end well; empty if it did."""
    try:
        code = process.wait(RUN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"the tiny run did not end within {RUN_SECONDS} s"
    if code == 0:
        return ""
    said = _errors(out).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"the tiny run ended with code {code}: {said[-1] if said else 'it said nothing'}"
