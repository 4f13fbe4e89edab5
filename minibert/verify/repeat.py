"""Runs one training step of each stage again and again from the same state, and lists what does not repeat.

The step is studied as it is, even if training would refuse it: what in its graph may not repeat, as it was
traced or as TensorFlow executes it, is listed as the cause.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minibert.errors import CorpusError, SettingsError
from minibert.progress import Progress
from minibert.record import read_record
from minibert.resuming import changed_encoding, changed_inputs
from minibert.verify.verdict import EXIT_CODES

if TYPE_CHECKING:
    from minibert.training.loop import Stage
    from minibert.training.repeatability import Hazard

_NOT_REPEATABLE = EXIT_CODES["different"]


@dataclass(frozen=True)
class RepeatedStep:
    """What one step of one stage repeated.

    Attributes:
        stage: The stage whose first step it was.
        tensors: How many tensors were looked at.
        results: Number of different results of each tensor that did not repeat, in the order of
            computation; empty if all repeated.
        causes: What in the graph may not repeat, whether a result showed it or not.
    """

    stage: str
    tensors: int
    results: dict[str, int]
    causes: tuple[Hazard, ...]

    @property
    def explanation(self) -> list[str]:
        """Lines for a person."""
        lines = [f"{self.stage}: {self.tensors - len(self.results)} of {self.tensors} tensors repeated"]
        lines += [f"  {name}: {count} different results" for name, count in self.results.items()]
        return lines + [f"  cause: {cause.explanation}" for cause in self.causes]


@dataclass(frozen=True)
class Repeatability:
    """What the steps of a run repeated.

    Attributes:
        count: Executions of each step.
        steps: One for each stage.
    """

    count: int
    steps: tuple[RepeatedStep, ...]

    @property
    def is_repeatable(self) -> bool:
        """Whether every tensor repeated and no graph has a cause that it might not."""
        return not any(step.results or step.causes for step in self.steps)

    @property
    def exit_code(self) -> int:
        """0 if repeatable, else that of ``different``."""
        return 0 if self.is_repeatable else _NOT_REPEATABLE

    @property
    def explanation(self) -> list[str]:
        """Lines for a person."""
        verdict = "repeatable" if self.is_repeatable else "not repeatable"
        lines = [f"{verdict}: one step of each stage, executed {self.count} times"]
        return lines + [line for step in self.steps for line in step.explanation]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"is_repeatable": self.is_repeatable, **asdict(self), "exit_code": self.exit_code}


def repeat(
    directory: Path | str, *, count: int, data: Path | str | None = None, progress: Progress | None = None
) -> Repeatability:
    """Repeats the first step of every stage of a recorded run, on initial weights.

    Args:
        directory: A run directory.
        count: Executions, 2 or more.
        data: The run's data; None: the path that the record names.
        progress: Shows how far it is.

    Raises:
        SettingsError: ``count`` is below 2.
        ArtifactError: The record is missing or damaged.
        CorpusError: The data are not there, not a corpus, or not those of the record.
    """
    if count < 2:
        raise SettingsError(f"repeat: 2 or more executions are required, but {count} came")
    record = read_record(Path(directory))

    from minibert.preparation import prepare_again
    from minibert.stages import fresh_stages

    prepared = prepare_again(record, Path(directory), data=data, progress=progress)
    changes = [*changed_inputs(record, prepared.record), *changed_encoding(record, prepared.record)]
    if changes:
        raise CorpusError(f"repeat: the recorded run's steps are required, but what they compute has changed: "
                          f"{'; '.join(changes)}")  # fmt: skip
    stages = fresh_stages(prepared, checked=False)
    return Repeatability(count, tuple(repeat_step(stage, count=count, progress=progress) for stage in stages))


def repeat_step(stage: Stage, *, count: int, progress: Progress | None = None) -> RepeatedStep:
    """Repeats a stage's first step from its present state, which is restored at the end.

    Args:
        stage: What to run; its step may have been made without the check of its graph.
        count: Executions.
        progress: Shows how far it is.
    """
    from minibert.training.execution import ExecutedGraph, executed_graphs, hazards_of  # TensorFlow takes seconds
    from minibert.training.state import set_optimizer, set_weights, state_digest, weight_arrays

    weights, optimizer = weight_arrays(stage.variables), stage.optimizer_state()
    batch = stage.batches.batch(0)
    stage.step.trace(batch)
    task = (progress or Progress(quiet=True)).start(f"repeat {stage.name}", count)
    rows: list[list[Any]] = []
    names = ["loss", *stage.step.fingerprint_names]
    with_others = stage.step.fingerprint_interval > 1
    if with_others:
        names += [f"{name} of a step without fingerprints" for name in ("loss", "weights", "optimizer")]
    with executed_graphs() as executed:
        for _ in range(count):
            result = stage.step(0, batch)
            rows.append([result.loss_bits, *result.fingerprint.tolist()])
            if with_others:
                result = stage.step(1, batch)
                digests = (weight_arrays(stage.variables), stage.optimizer_state())
                rows[-1] += [result.loss_bits, *map(state_digest, digests)]
            set_weights(stage.variables, weights, source="state")
            set_optimizer(stage.step.optimizer, optimizer, source="state")
            task.advance()
    task.finish()
    different = {name: len(set(column)) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    return RepeatedStep(
        stage=stage.name,
        tensors=len(names),
        results={name: found for name, found in different.items() if found > 1},
        causes=tuple(hazards_of([*(ExecutedGraph(g.as_graph_def(), True) for g in stage.step.graphs), *executed])),
    )
