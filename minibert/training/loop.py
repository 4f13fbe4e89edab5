"""The loop around a training step: batches in, epochs' figures out, checkpoints on the way.

A stage's state between two steps is (weights, optimizer, step, sums of the epoch, figures of the epochs
before); all of it is in every checkpoint, so a stage goes on from any step to the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minibert.batches import Arrays, Batches, Prefetch
from minibert.errors import DivergenceError
from minibert.fingerprints import TraceWriter
from minibert.progress import Progress
from minibert.settings import TRAINING_STAGES
from minibert.training.execution import require_repeatable_execution
from minibert.training.memory import within_memory
from minibert.training.state import digest_figures, optimizer_arrays, weight_arrays
from minibert.training.step import TrainingStep, tensors_of

Figures = dict[str, Any]


@dataclass
class Progression:
    """How far a stage is.

    Attributes:
        step: Steps done.
        sums: Sums of the current epoch's metrics, float64.
        epochs: The figures of the epochs that are done.
        seconds: Wall time of the current epoch's steps.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    epochs: list[Figures] = field(default_factory=list)
    seconds: float = 0.0

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint; JSON keeps every bit of a float."""
        return {"step": self.step, "sums": self.sums, "epochs": self.epochs, "seconds": self.seconds}


@dataclass(frozen=True)
class Stage:
    """One training stage.

    Attributes:
        name: One of `minibert.settings.TRAINING_STAGES`.
        step: The traced step.
        batches: Its training set.
        epochs: Passes over it.
        variables: All weights to keep, trained or not.
        evaluate: Gives further figures at the end of an epoch, counted from 1.
    """

    name: str
    step: TrainingStep
    batches: Batches
    epochs: int
    variables: list[Any]
    evaluate: Callable[[int], Figures]

    @property
    def index(self) -> int:
        """Its place in the run, from 0."""
        return TRAINING_STAGES.index(self.name)

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.epochs * self.batches.steps_per_epoch

    def optimizer_state(self) -> Arrays:
        """The optimizer's variables by number and path."""
        return optimizer_arrays(self.step.optimizer)


def train(
    stage: Stage,
    progression: Progression,
    *,
    trace: TraceWriter | None,
    checkpoint_steps: int,
    keep: Callable[[Progression], None],
    advance: Callable[[Progression, Figures], None],
) -> None:
    """Trains a stage from where ``progression`` stands to its end.

    Args:
        stage: What is trained.
        progression: Is moved forward in place.
        trace: Gets one row per step.
        checkpoint_steps: Steps between two calls of ``keep``.
        keep: Writes a checkpoint; also called at the end of every epoch, after its figures are added.
        advance: Is told of every step, with the running figures of the epoch.
    """
    per_epoch = stage.batches.steps_per_epoch

    def prepared(step: int) -> tuple[Arrays, dict[str, Any]]:
        batch = stage.batches.batch(step)
        with _within_memory(stage, step, batch):
            return batch, tensors_of(batch)

    for step, (batch, tensors) in Prefetch(prepared, progression.step, stage.steps):
        _one_step(stage, progression, trace, step, batch, tensors)
        advance(progression, means(progression.sums))
        at_end = progression.step % per_epoch == 0
        if at_end:
            _end_epoch(stage, progression)
        if at_end or progression.step % checkpoint_steps == 0:
            if trace is not None:
                trace.sync()
            keep(progression)


def _within_memory(stage: Stage, step: int, batch: Arrays) -> Any:
    remedy = f"a smaller {'pretrain' if stage.name == 'pretrain' else 'finetune'}.batch_size may help"
    return within_memory(f"{stage.name}, step {step}", len(batch["token_ids"]), remedy)


def _one_step(
    stage: Stage,
    progression: Progression,
    trace: TraceWriter | None,
    step: int,
    batch: Arrays,
    tensors: dict[str, Any],
) -> None:
    started = time.perf_counter()
    with _within_memory(stage, step, batch):
        result = stage.step(step, tensors)
    if trace is not None:  # of a step that diverges too: where it parted from a run that did not
        trace.append(step, loss_bits=result.loss_bits, batch=batch, fingerprint=result.fingerprint)
    if not math.isfinite(result.metrics["loss"]):
        raise DivergenceError(
            f"{stage.name}, step {step}: a finite loss is required, but {result.metrics['loss']} came; "
            "a smaller learning_rate may help"
        )
    for name, value in result.metrics.items():
        progression.sums[name] = progression.sums.get(name, 0.0) + value
    progression.step = step + 1
    progression.seconds += time.perf_counter() - started


def _end_epoch(stage: Stage, progression: Progression) -> None:
    epoch = len(progression.epochs) + 1
    where, started = f"{stage.name}, epoch {epoch}", time.perf_counter()
    digests = digest_figures("weights", finite_weights(where, stage.variables))
    figures: Figures = {
        "epoch": epoch,
        **means(progression.sums),
        "steps": stage.batches.steps_per_epoch,
        "count": int(progression.sums["count"]),
        "seconds": progression.seconds,
        **require_repeatable_execution(lambda: stage.evaluate(epoch), f"evaluation of {stage.name}"),
        **digests,
    }
    _require_finite(where, {name: value for name, value in figures.items() if isinstance(value, float)})
    _require_finite(where, {"prediction": [found["probability"] for found in figures.get("predictions", [])]})
    figures["evaluation_seconds"] = time.perf_counter() - started
    progression.epochs.append(figures)
    progression.sums, progression.seconds = {}, 0.0


def finite_weights(where: str, variables: list[Any]) -> dict[str, np.ndarray]:
    """Weights by name, which are all numbers.

    Args:
        where: For the message.
        variables: The weights.

    Raises:
        DivergenceError: One is not finite.
    """
    weights = weight_arrays(variables)
    _require_finite(where, {f"weight {name}": array for name, array in weights.items()})
    return weights


def _require_finite(where: str, values: dict[str, Any]) -> None:
    """Refuses an epoch before it is kept: a step's loss, which is looked at there, is of the weights before it."""
    for name, value in values.items():
        wrong = np.asarray(value)[~np.isfinite(value)]
        if wrong.size:
            raise DivergenceError(
                f"{where}: a finite {name} is required, but {wrong[0]} came; a smaller learning_rate may help"
            )


def means(sums: dict[str, float]) -> Figures:
    """Sums over counted things as means: all but ``count`` itself."""
    count = max(sums.get("count", 0.0), 1.0)
    return {name: value / count for name, value in sums.items() if name != "count"}


def stage_digests(stage: Stage) -> Figures:
    """SHA-256 of the stage's weights and of its optimizer, and shorter ones of each of their tensors."""
    weights = digest_figures("weights", weight_arrays(stage.variables))
    return weights | digest_figures("optimizer", stage.optimizer_state())


class EpochTasks:
    """A task for every epoch of a stage."""

    def __init__(self, progress: Progress, stage: Stage, progression: Progression) -> None:
        self._progress, self._stage = progress, stage
        self._per_epoch = stage.batches.steps_per_epoch
        self._task: Any = None
        self._done = progression.step % self._per_epoch

    def advance(self, progression: Progression, figures: Figures) -> None:
        """One more step."""
        if self._task is None:
            epoch = len(progression.epochs) + 1
            self._task = self._progress.start(f"{self._stage.name} {epoch}/{self._stage.epochs}", self._per_epoch)
            if self._done:
                self._task.advance(self._done)
            self._done = 0
        self._task.advance(1, **figures)
        if progression.step % self._per_epoch == 0:
            self.finish()

    def finish(self) -> None:
        """The epoch is over, or the stage."""
        if self._task is not None:
            self._task.finish()
        self._task = None
