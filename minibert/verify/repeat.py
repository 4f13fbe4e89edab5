"""Runs one training step again and again from the same state and lists what does not repeat."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minibert.errors import SettingsError
from minibert.progress import Progress
from minibert.record import NAME, read_record, record_settings
from minibert.training.loop import Stage
from minibert.training.repeatability import RacingSum, racing_sums
from minibert.training.state import set_optimizer, set_weights, weight_arrays

_NOT_REPEATABLE = 11


@dataclass(frozen=True)
class Repeatability:
    """What one step repeated.

    Attributes:
        stage: The stage whose first step it was.
        count: Executions.
        results: Number of different results of each tensor that did not repeat, in the order of
            computation; empty if all repeated.
        racing: Sums in the graph that may race: the cause, where the graph shows it.
    """

    stage: str
    count: int
    results: dict[str, int]
    racing: tuple[RacingSum, ...]

    @property
    def exit_code(self) -> int:
        """0 if every tensor repeated, else that of ``different``."""
        return _NOT_REPEATABLE if self.results else 0

    @property
    def explanation(self) -> list[str]:
        """Lines for a person."""
        if not self.results:
            lines = [f"repeatable: {self.stage}, all tensors the same in {self.count} executions of one step"]
        else:
            lines = [f"not repeatable: {self.stage}, {len(self.results)} tensors differ over {self.count} executions"]
            lines += [f"  {name}: {count} different results" for name, count in self.results.items()]
        return lines + [
            f"racing sum {racing.operation}: adds the gradients of {', '.join(dict.fromkeys(racing.layers))}"
            for racing in self.racing
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "exit_code": self.exit_code}


def repeat(
    directory: Path | str, *, count: int, data: Path | str | None = None, progress: Progress | None = None
) -> Repeatability:
    """Repeats the first pretraining step of a recorded run.

    Args:
        directory: A run directory.
        count: Executions, 2 or more.
        data: The run's data; None: the path that the record names.
        progress: Shows how far it is.

    Raises:
        SettingsError: ``count`` is below 2.
        ArtifactError: The record is missing or damaged.
    """
    from minibert import pipeline

    if count < 2:
        raise SettingsError(f"repeat: 2 or more executions are required, but {count} came")
    record = read_record(Path(directory))
    settings = record_settings(record, Path(directory) / NAME)
    stage = pipeline.first_stage(settings, data=data or record.get("data"), progress=progress)
    return repeat_step(stage, count=count, progress=progress)


def repeat_step(stage: Stage, *, count: int, progress: Progress | None = None) -> Repeatability:
    """Repeats a stage's first step from its present state, which is restored at the end.

    Args:
        stage: What to run; its step may have been made without the check of its graph.
        count: Executions.
        progress: Shows how far it is.
    """
    weights, optimizer = weight_arrays(stage.variables), stage.optimizer_state()
    batch = stage.batches.batch(0)
    stage.step.trace(batch)
    task = (progress or Progress(quiet=True)).start(f"repeat {stage.name}", count)
    rows = []
    for _ in range(count):
        result = stage.step(0, batch)
        rows.append([result.loss_bits, *result.fingerprint.tolist()])
        set_weights(stage.variables, weights, source="state")
        set_optimizer(stage.step.optimizer, optimizer, source="state")
        task.advance()
    task.finish()
    names, table = ["loss", *stage.step.fingerprint_names], np.array(rows)
    different = {name: len(np.unique(table[:, place])) for place, name in enumerate(names)}
    return Repeatability(
        stage=stage.name,
        count=count,
        results={name: found for name, found in different.items() if found > 1},
        racing=tuple(racing_sums(stage.step.graph)),
    )
