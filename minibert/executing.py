"""A run's execution: trains what was prepared, stage by stage, and writes the run directory.

Whatever moment it is stopped at, it goes on from its newest whole checkpoint to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import numpy as np

from minibert.artifacts import remove_temporaries, replacing, sha256_of_file, write_bytes
from minibert.end_to_end import build_end_to_end, evaluate_raw_text
from minibert.errors import ArtifactError
from minibert.fingerprints import TraceWriter, trace_name
from minibert.preparation import Prepared, Record
from minibert.progress import Progress
from minibert.record import OTHER_TIMES, metrics_csv, write_record
from minibert.resuming import computation_digests
from minibert.settings import TRAINING_STAGES
from minibert.stages import finetuning, initial_classifier, initial_masked_lm, pretraining, set_up_tensorflow
from minibert.training.checkpoint import FOLDER, Checkpoint, remove_checkpoints, write_checkpoint
from minibert.training.execution import require_repeatable_execution
from minibert.training.loop import EpochTasks, Figures, Progression, Stage, stage_digests, train
from minibert.training.memory import within_memory
from minibert.training.restoration import VOCABULARY, restore
from minibert.training.state import set_optimizer, set_weights, state_digest, weight_arrays


def execute(
    prepared: Prepared,
    *,
    directory: Path,
    earlier: Record | None = None,
    progress: Progress | None = None,
    open_trace: Callable[..., TraceWriter] = TraceWriter,
) -> Record:
    """Trains what was prepared and writes the run directory.

    Args:
        prepared: The run.
        directory: Where to.
        earlier: The record of the run in ``directory`` that is gone on with; None: a new run.
        progress: Shows how far it is.
        open_trace: Opens a stage's trace.
    """
    set_up_tensorflow()
    return _Run(prepared, directory, progress or Progress(quiet=True), open_trace).execute(earlier)


def make_folder(directory: Path) -> None:
    """Makes a run's directory, if it is not there.

    Raises:
        ArtifactError: It cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{directory}: a folder cannot be made there: {error.strerror}") from error


class _Run:
    """One run in its directory."""

    def __init__(
        self, prepared: Prepared, directory: Path, progress: Progress, open_trace: Callable[..., TraceWriter]
    ) -> None:
        self._prepared, self._settings, self._open_trace = prepared, prepared.settings, open_trace
        self._record, self._directory, self._progress = prepared.record, directory, progress
        self._computation = computation_digests(prepared.record)
        self._times: dict[str, dict[str, float]] = {}
        self._from: Checkpoint | None = None

    def execute(self, earlier: Record | None) -> Record:
        """Runs what is left of the stages and writes the artifacts."""
        make_folder(self._directory)
        if earlier is not None:
            self._from = restore(self._directory, earlier, note=self._progress.note)
        if self._from is not None:
            self._record |= {name: self._from.state[name] for name in ("stages", "artifacts")}
        for folder in (self._directory, self._directory / FOLDER):
            remove_temporaries(folder)
        write_record(self._directory, self._record)
        write_bytes(self._directory / VOCABULARY, self._prepared.examples.vocabulary.content)

        with self._timed("pretrain", "building_seconds"):
            masked_lm = initial_masked_lm(self._settings)
        if self._reaches(0):
            with self._timed("pretrain", "building_seconds"):
                stage = pretraining(self._prepared, masked_lm)
            self._train(stage)
            self._save_model(masked_lm, "masked_lm.keras", stage="pretrain")
        if self._prepared.corpus.labelled:
            self._classify(masked_lm)
        self._record["status"] = "complete"
        write_bytes(self._directory / "metrics.csv", metrics_csv(self._record))
        write_record(self._directory, self._record)
        remove_checkpoints(self._directory)
        return self._record

    def _classify(self, masked_lm: keras.Model) -> None:
        """The two classifier stages and the raw-text model."""
        classifier = initial_classifier(self._settings, masked_lm)
        for index, name in enumerate(TRAINING_STAGES[1:], start=1):
            if self._reaches(index):
                with self._timed(name, "building_seconds"):
                    stage = finetuning(self._prepared, classifier, frozen=name == "frozen", progress=self._progress)
                self._train(stage)
        self._save_model(classifier, "classifier.keras", stage="unfrozen")
        with self._timed("end_to_end", "building_seconds"):
            model = build_end_to_end(classifier, self._prepared.examples.vocabulary, self._settings.text)
        self._record["stages"]["end_to_end"] = self._evaluate_raw_text(model)
        self._save_model(model, "end_to_end.keras", stage="end_to_end")

    def _evaluate_raw_text(self, model: keras.Model) -> Figures:
        """The raw-text model's figures on the raw test texts."""
        started, corpus = time.perf_counter(), self._prepared.corpus
        task = self._progress.start("end to end on raw test texts", corpus.examples["test"])
        batch_size = self._settings.finetune.batch_size
        with within_memory("end to end", batch_size, "a smaller finetune.batch_size may help"):
            figures = require_repeatable_execution(
                lambda: evaluate_raw_text(model, corpus.batches("test"), batch_size=batch_size, advance=task.advance),
                "end to end",
            )
        task.finish()
        digest = state_digest(weight_arrays(model.get_layer("classifier").variables))
        return {**figures, "seconds": time.perf_counter() - started, "weights_sha256": digest}

    def _reaches(self, index: int) -> bool:
        """Whether a stage is still to be trained or finished."""
        return self._from is None or self._from.stage_index <= index

    def _train(self, stage: Stage) -> None:
        """Trains one stage from the checkpoint, if that is in it, and records its figures."""
        progression, trace_sha256 = Progression(), None
        at = self._from
        if at is not None and at.stage == stage.name:
            weights, optimizer = _part(at, "weights/"), _part(at, "optimizer/")
            set_weights(stage.variables, weights, source="checkpoint")
            set_optimizer(stage.step.optimizer, optimizer, source="checkpoint")
            progression, trace_sha256 = Progression(**at.state["progression"]), at.trace_sha256
        task = EpochTasks(self._progress, stage, progression)
        with self._timed(stage.name, "building_seconds"):
            batch = stage.batches.batch(progression.step if progression.step < stage.steps else 0)
            stage.step.trace(batch)
        header, name = stage.step.trace_header(batch), trace_name(stage.name)
        trace = self._open_trace(self._directory / name, header, steps=progression.step, sha256=trace_sha256)
        accounted = _trained_seconds(progression) + self._times_of(stage.name)["writing_seconds"]
        started = time.perf_counter()
        try:
            train(
                stage,
                progression,
                trace=trace,
                checkpoint_steps=self._settings.record.checkpoint_steps,
                keep=lambda p: self._keep(stage, p, trace.sha256),
                advance=task.advance,
            )
        except BaseException:
            with suppress(ArtifactError):  # what stopped the stage is what is told
                trace.close()
            raise
        else:
            trace.close()
        finally:
            task.finish()
        accounted -= _trained_seconds(progression) + self._times_of(stage.name)["writing_seconds"]
        self._times_of(stage.name)["waiting_seconds"] += max(time.perf_counter() - started + accounted, 0.0)
        self._note_artifact(name)
        self._note_stage(stage, progression)

    def _keep(self, stage: Stage, progression: Progression, trace_sha256: str) -> None:
        """Writes a checkpoint, and the record if an epoch has ended."""
        with self._timed(stage.name, "writing_seconds"):
            self._write_checkpoint(stage, progression, trace_sha256)
            if progression.step % stage.batches.steps_per_epoch == 0:
                self._note_stage(stage, progression)

    def _write_checkpoint(self, stage: Stage, progression: Progression, trace_sha256: str) -> None:
        arrays = {f"weights/{path}": value for path, value in weight_arrays(stage.variables).items()}
        arrays |= {f"optimizer/{path}": value for path, value in stage.optimizer_state().items()}
        state = {
            "progression": progression.state(),
            "stages": self._record["stages"],
            "artifacts": self._record["artifacts"],
        }
        place = (stage.index, stage.name, progression.step)
        checkpoint = Checkpoint(*place, arrays, state, self._computation, trace_sha256)
        write_checkpoint(self._directory, checkpoint, kept=self._settings.record.kept_checkpoints)

    def _note_stage(self, stage: Stage, progression: Progression) -> None:
        self._record["stages"][stage.name] = {
            "epochs": progression.epochs,
            "steps": progression.step,
            "seconds": sum(e["seconds"] + e["evaluation_seconds"] for e in progression.epochs),
            **self._times_of(stage.name),
            **stage_digests(stage),
        }
        write_record(self._directory, self._record)

    def _times_of(self, stage: str) -> dict[str, float]:
        """A stage's seconds outside its steps and evaluations, by kind; those of a resumed stage go on."""
        if stage not in self._times:
            before = self._record["stages"].get(stage, {})
            self._times[stage] = {kind: before.get(kind, 0.0) for kind in OTHER_TIMES}
        return self._times[stage]

    @contextmanager
    def _timed(self, stage: str, kind: str) -> Iterator[None]:
        """Adds the time of a block to a stage's seconds of this kind."""
        started = time.perf_counter()
        yield
        self._times_of(stage)[kind] += time.perf_counter() - started
        if stage in self._record["stages"]:
            self._record["stages"][stage] |= self._times_of(stage)

    def _save_model(self, model: keras.Model, name: str, *, stage: str) -> None:
        path = self._directory / name
        with self._timed(stage, "writing_seconds"), replacing(path) as temporary:
            model.save(temporary)
        self._note_artifact(name)

    def _note_artifact(self, name: str) -> None:
        path = self._directory / name
        self._record["artifacts"][name] = {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}


def _trained_seconds(progression: Progression) -> float:
    """What a stage's steps and evaluations took so far."""
    return progression.seconds + sum(e["seconds"] + e["evaluation_seconds"] for e in progression.epochs)


def _part(checkpoint: Checkpoint, prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): v for name, v in checkpoint.arrays.items() if name.startswith(prefix)}
