"""The loop adds up, keeps, and goes on: with a step that computes next to nothing."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from minibert.errors import DivergenceError, OutOfMemoryError
from minibert.fingerprints import TraceHeader, TraceWriter, read_trace
from minibert.progress import Progress
from minibert.training import loop
from minibert.training.loop import EpochTasks, Figures, Progression, Stage, means, train
from minibert.training.step import StepResult

EPOCHS, PER_EPOCH = 3, 4


class Variable:
    """What the digests read of a weight."""

    path = "layer/kernel"

    def __init__(self) -> None:
        self.value = np.zeros(2, dtype=np.float32)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.value


class Step:
    """A step whose loss is its number; it adds to its weight."""

    def __init__(self, variable: Variable) -> None:
        self.variable, self.calls = variable, []

    def __call__(self, step: int, batch: dict[str, np.ndarray]) -> StepResult:
        assert tf.is_tensor(batch["token_ids"]), "made beforehand, while the step before ran"
        assert np.asarray(batch["token_ids"]).tolist() == [step]
        self.calls.append(step)
        self.variable.value = self.variable.value + np.float32(step)
        metrics = {"loss": float(step), "count": 2.0}
        return StepResult(metrics, int(np.float32(step).view(np.uint32)), np.array([step], dtype=np.int32))


class Batches:
    steps_per_epoch = PER_EPOCH

    def batch(self, step: int) -> dict[str, np.ndarray]:
        return {"token_ids": np.array([step])}


def stage_of(variable: Variable, epochs: int = EPOCHS) -> Any:
    evaluated: list[int] = []

    def evaluate(epoch: int) -> Figures:
        evaluated.append(epoch)
        return {"val_loss": epoch / 10}

    step: Any = Step(variable)
    variables: list[Any] = [variable]
    stage = Stage(name="pretrain", step=step, batches=Batches(), epochs=epochs, variables=variables,
                  evaluate=evaluate)  # fmt: skip
    return stage, evaluated


def run(stage: Stage, progression: Progression, **options: Any) -> list[str]:
    """Trains and tells what happened, in order."""
    events: list[str] = []
    train(
        stage,
        progression,
        trace=options.get("trace"),
        checkpoint_steps=options.get("checkpoint_steps", 3),
        keep=options.get("keep", lambda p: events.append(f"keep {p.step} with {len(p.epochs)} epochs")),
        advance=lambda p, figures: events.append(f"step {p.step}"),
    )
    return events


def without_seconds(epochs: list[Figures]) -> list[Figures]:
    return [{name: value for name, value in epoch.items() if not name.endswith("seconds")} for epoch in epochs]


def test_every_step_is_done_once_and_checkpoints_come_at_their_steps_and_at_the_ends_of_epochs() -> None:
    stage, evaluated = stage_of(Variable())
    progression = Progression()
    events = run(stage, progression)
    assert stage.step.calls == list(range(12))
    assert stage.steps == progression.step == 12
    assert evaluated == [1, 2, 3]
    kept = [event for event in events if event.startswith("keep")]
    assert kept == ["keep 3 with 0 epochs", "keep 4 with 1 epochs", "keep 6 with 1 epochs", "keep 8 with 2 epochs",
                    "keep 9 with 2 epochs", "keep 12 with 3 epochs"]  # fmt: skip
    assert events.index("keep 4 with 1 epochs") == events.index("step 4") + 1


def test_an_epochs_figures_are_means_over_its_own_steps() -> None:
    stage, _ = stage_of(Variable())
    progression = Progression()
    run(stage, progression)
    assert [epoch["loss"] for epoch in progression.epochs] == [6 / 8, 22 / 8, 38 / 8]
    first = progression.epochs[0]
    assert first["seconds"] >= 0
    assert first["evaluation_seconds"] >= 0
    assert (first["epoch"], first["steps"], first["count"], first["val_loss"]) == (1, 4, 8, 0.1)
    assert len({epoch["weights_sha256"] for epoch in progression.epochs}) == EPOCHS
    assert progression.sums == {}


@pytest.mark.parametrize("stop", range(1, EPOCHS * PER_EPOCH))
def test_a_stage_goes_on_from_any_step_to_the_same_figures(stop: int) -> None:
    whole, variable = Progression(), Variable()
    run(stage_of(variable)[0], whole)

    class StopError(Exception):
        pass

    states: list[Any] = []

    def keep(progression: Progression) -> None:
        states.append(json.loads(json.dumps(progression.state())))
        if progression.step == stop:
            raise StopError

    broken = Variable()
    with pytest.raises(StopError):
        run(stage_of(broken)[0], Progression(), checkpoint_steps=1, keep=keep)
    stage, evaluated = stage_of(broken)
    resumed = Progression(**states[-1])
    run(stage, resumed)
    assert stage.step.calls == list(range(stop, 12))
    assert evaluated == list(range(stop // PER_EPOCH + 1, EPOCHS + 1))
    assert without_seconds(resumed.epochs) == without_seconds(whole.epochs)
    assert broken.value.tolist() == variable.value.tolist()


def test_a_stage_that_is_done_does_nothing() -> None:
    stage, evaluated = stage_of(Variable())
    assert run(stage, Progression(step=12)) == []
    assert run(stage_of(Variable(), epochs=0)[0], Progression()) == []
    assert evaluated == stage.step.calls == []


def test_a_checkpoint_finds_the_rows_of_its_steps_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "trace" / "pretrain.trace"
    trace = TraceWriter(path, TraceHeader("pretrain", ("token_ids",), ("weight",)), steps=0)
    seen: list[tuple[int, int]] = []
    run(stage_of(Variable())[0], Progression(), trace=trace,
        keep=lambda p: seen.append((p.step, len(read_trace(path).rows))))  # fmt: skip
    trace.close()
    assert seen == [(step, step) for step in (3, 4, 6, 8, 9, 12)]
    assert read_trace(path).losses.tolist() == list(range(12))


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(loss: float) -> None:
    stage, _ = stage_of(Variable())
    healthy = stage.step.__call__

    class Diverging:
        def __call__(self, step: int, batch: Any) -> StepResult:
            result = healthy(step, batch)
            return StepResult({"loss": loss, "count": 1.0}, 0, result.fingerprint) if step == 5 else result

    object.__setattr__(stage, "step", Diverging())
    progression = Progression()
    with pytest.raises(DivergenceError, match=r"pretrain, step 5: a finite loss is required, but (nan|inf) came"):
        run(stage, progression)
    assert progression.step == 5


def test_a_weight_that_is_not_finite_after_an_epochs_last_update_stops_the_run_before_it_is_kept() -> None:
    stage, evaluated = stage_of(Variable())
    healthy = stage.step.__call__

    def diverging(step: int, batch: Any) -> StepResult:
        result = healthy(step, batch)
        if step == 7:
            stage.variables[0].value[1] = np.nan
        return result

    object.__setattr__(stage, "step", diverging)
    progression, kept = Progression(), []
    with pytest.raises(
        DivergenceError, match=r"^pretrain, epoch 2: a finite weight layer/kernel is required, but nan came; a smaller"
    ):
        run(stage, progression, keep=lambda p: kept.append(p.step))
    assert (kept, evaluated, len(progression.epochs)) == ([3, 4, 6], [1], 1)


@pytest.mark.parametrize(
    ("figures", "name"),
    [
        ({"val_loss": float("inf"), "val_accuracy": 0.5}, "val_loss"),
        ({"predictions": [{"token": "a", "probability": 0.5}, {"token": "b", "probability": float("nan")}]},
         "prediction"),
    ],
)  # fmt: skip
def test_a_figure_that_is_not_finite_stops_the_run_before_it_is_kept(figures: Figures, name: str) -> None:
    stage, _ = stage_of(Variable())
    object.__setattr__(stage, "evaluate", lambda epoch: figures)
    kept: list[int] = []
    with pytest.raises(DivergenceError, match=rf"^pretrain, epoch 1: a finite {name} is required, but (inf|nan) came"):
        run(stage, Progression(), keep=lambda p: kept.append(p.step))
    assert kept == [3]


def test_sums_over_nothing_are_zero_means() -> None:
    assert means({"loss": 0.0, "accuracy": 0.0, "count": 0.0}) == {"loss": 0.0, "accuracy": 0.0}
    assert means({"loss": 6.0, "accuracy": 3.0, "count": 4.0}) == {"loss": 1.5, "accuracy": 0.75}
    assert means({}) == {}


def test_every_epoch_is_a_task_of_its_own_and_a_resumed_one_shows_what_is_done() -> None:
    stage, _ = stage_of(Variable())
    shown = io.StringIO()
    progress = Progress(stream=shown, interval_seconds=0)
    tasks = EpochTasks(progress, stage, Progression(step=2))
    progression = Progression(step=2)
    for step in range(2, 6):
        progression.step = step + 1
        tasks.advance(progression, {"loss": 1.0})
        if progression.step % PER_EPOCH == 0:
            progression.epochs.append({})
    tasks.finish()
    lines = shown.getvalue().splitlines()
    assert lines[0].startswith("pretrain 1/3: 2/4 (50%)")
    assert any(line.startswith("pretrain 1/3: done, 4/4") for line in lines)
    assert any(line.startswith("pretrain 2/3: 1/4") for line in lines)


@pytest.mark.parametrize("where", ["in the step", "for the batch"])
@pytest.mark.parametrize(("name", "setting"), [("pretrain", "pretrain"), ("frozen", "finetune")])
def test_memory_that_runs_out_names_stage_step_batch_and_setting(
    name: str, setting: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(step: int, batch: Any) -> None:
        if step == 2:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    class Large(Step):
        def __call__(self, step: int, batch: dict[str, np.ndarray]) -> StepResult:
            fail(step, batch)
            return super().__call__(step, batch)

    if where == "for the batch":
        made = loop.tensors_of
        monkeypatch.setattr(loop, "tensors_of", lambda batch: fail(int(batch["token_ids"][0]), batch) or made(batch))
    stage, _ = stage_of(Variable())
    stage = dataclasses.replace(stage, name=name, step=(Large if where == "in the step" else Step)(Variable()))
    message = (
        f"{name}, step 2: memory for a batch of 1 is required, but the device has too little left; "
        f"a smaller {setting}.batch_size may help"
    )
    with pytest.raises(OutOfMemoryError, match=f"^{message}$"):
        run(stage, Progression())
