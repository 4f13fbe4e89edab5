"""A run, stage by stage: corpus, vocabulary, pretraining, classifier, raw-text model, record.

    run(preset("tiny"), directory=Path("runs/tiny-seed0")) -> the run record, as in run.json

A run is a pure function of (settings, corpus, environment). Whatever moment it is stopped at, ``resume``
goes on from its newest whole checkpoint to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from minibert.artifacts import remove_temporaries, replacing, sha256_of_file, write_bytes
from minibert.end_to_end import build_end_to_end, evaluate_raw_text
from minibert.errors import ArtifactError
from minibert.fingerprints import TraceHeader, TraceWriter, trace_name
from minibert.model.encoder import build_masked_lm
from minibert.model.heads import build_classifier
from minibert.preparation import Prepared, Record, prepare
from minibert.progress import Progress
from minibert.quiet import quiet_compiler
from minibert.record import OTHER_TIMES, earlier_record, metrics_csv, write_record
from minibert.resuming import computation_digests, require_resumable
from minibert.settings import TRAINING_STAGES, RunSettings
from minibert.training.checkpoint import FOLDER, Checkpoint, remove_checkpoints, write_checkpoint
from minibert.training.execution import require_repeatable_execution
from minibert.training.finetune import finetune_stage
from minibert.training.loop import EpochTasks, Figures, Progression, Stage, stage_digests, train
from minibert.training.pretrain import pretrain_stage
from minibert.training.restoration import VOCABULARY, restore
from minibert.training.state import set_optimizer, set_weights, state_digest, weight_arrays


def run(
    settings: RunSettings,
    *,
    directory: Path | str,
    data: Path | str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Record:
    """Runs everything that the settings ask for and writes the run directory.

    Args:
        settings: What to compute, from `minibert.preset` for example.
        directory: Where to; it must not exist, or be empty, unless ``resume``.
        data: An archive, a folder or a table in place of the preset's corpus.
        resume: Go on with the run in ``directory``; a complete one is left as it is, if it is what is asked for.
        progress: Shows how far it is; None: silent.

    Returns:
        The record, as in ``run.json``.

    Raises:
        SettingsError: A setting does not fit, or the sample sentence has no single ``[mask]``.
        CorpusError: The data are not a corpus.
        ArtifactError: The directory exists, or cannot be written, or a file of the run is not what it was.
        ResumeError: What the run computes has changed since, or nothing is left to go on from.
        RepeatabilityError: A training step could give different results when repeated.

    Determinism:
        The result depends on settings, corpus and the recorded environment only. TensorFlow's op
        determinism is switched on for the process.
    """
    directory, shown = Path(directory), progress or Progress(quiet=True)
    earlier = earlier_record(directory, resume=resume)
    prepared = prepare(settings, data=data, progress=shown)
    if earlier is not None:
        require_resumable(earlier, prepared.record)
        if earlier["status"] == "complete":
            remove_checkpoints(directory)  # a run that is killed at its very end leaves them
            shown.note(f"{directory} is complete; nothing is left to do")
            return earlier
        prepared.record["started"] = earlier["started"]
    return execute(prepared, directory=directory, earlier=earlier, progress=shown)


def execute(
    prepared: Prepared, *, directory: Path, earlier: Record | None = None, progress: Progress | None = None
) -> Record:
    """Trains what was prepared and writes the run directory.

    Args:
        prepared: The run.
        directory: Where to.
        earlier: The record of the run in ``directory`` that is gone on with; None: a new run.
        progress: Shows how far it is.
    """
    tf.config.experimental.enable_op_determinism()
    quiet_compiler(tf)
    return _Run(prepared, directory, progress or Progress(quiet=True)).execute(earlier)


def fresh_stages(prepared: Prepared, *, checked: bool = True) -> Iterator[Stage]:
    """Every stage of a run on initial weights, ready for its first step; nothing is written.

    Args:
        prepared: The run.
        checked: Whether a step that may race is refused; False serves to study one.
    """
    tf.config.experimental.enable_op_determinism()
    quiet_compiler(tf)
    masked_lm = _masked_lm(prepared.settings)
    yield _pretraining(prepared, masked_lm, checked=checked)
    if prepared.corpus.labelled:
        classifier = _classifier(prepared.settings, masked_lm)
        for frozen in (True, False):
            yield _finetuning(prepared, classifier, frozen=frozen, checked=checked)


def _masked_lm(settings: RunSettings) -> keras.Model:
    return build_masked_lm(
        settings.model,
        vocabulary_size=settings.masking.required_vocabulary_size,
        sequence_length=settings.text.sequence_length,
        seed=settings.seed,
    )


def _classifier(settings: RunSettings, masked_lm: keras.Model) -> keras.Model:
    return build_classifier(masked_lm, settings.finetune, settings.model, seed=settings.seed)


def _pretraining(prepared: Prepared, masked_lm: keras.Model, *, checked: bool = True) -> Stage:
    settings, examples = prepared.settings, prepared.examples
    is_train_only = settings.pretrain.splits == "train"
    token_ids = examples.token_ids[: examples.train_count] if is_train_only else examples.token_ids
    return pretrain_stage(masked_lm, token_ids, examples.vocabulary, settings, checked=checked)


def _finetuning(
    prepared: Prepared,
    classifier: keras.Model,
    *,
    frozen: bool,
    checked: bool = True,
    progress: Progress | None = None,
) -> Stage:
    return finetune_stage(
        classifier,
        train=prepared.examples.split("train"),
        test=prepared.examples.split("test"),
        settings=prepared.settings,
        frozen=frozen,
        checked=checked,
        progress=progress,
    )


class _Run:
    """One run in its directory."""

    def __init__(self, prepared: Prepared, directory: Path, progress: Progress) -> None:
        self._prepared, self._settings = prepared, prepared.settings
        self._record, self._directory, self._progress = prepared.record, directory, progress
        self._computation = computation_digests(prepared.record)
        self._times: dict[str, dict[str, float]] = {}
        self._from: Checkpoint | None = None

    def execute(self, earlier: Record | None) -> Record:
        """Runs what is left of the stages and writes the artifacts."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"{self._directory}: a folder cannot be made there: {error.strerror}") from error
        if earlier is not None:
            self._from = restore(self._directory, earlier, note=self._progress.note)
        if self._from is not None:
            self._record |= {name: self._from.state[name] for name in ("stages", "artifacts")}
        for folder in (self._directory, self._directory / FOLDER):
            remove_temporaries(folder)
        write_record(self._directory, self._record)
        write_bytes(self._directory / VOCABULARY, self._prepared.examples.vocabulary.content)

        with self._timed("pretrain", "building_seconds"):
            masked_lm = _masked_lm(self._settings)
        if self._reaches(0):
            with self._timed("pretrain", "building_seconds"):
                stage = _pretraining(self._prepared, masked_lm)
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
        classifier = _classifier(self._settings, masked_lm)
        for index, name in enumerate(TRAINING_STAGES[1:], start=1):
            if self._reaches(index):
                with self._timed(name, "building_seconds"):
                    stage = _finetuning(self._prepared, classifier, frozen=name == "frozen", progress=self._progress)
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
        figures = require_repeatable_execution(
            lambda: evaluate_raw_text(
                model, corpus.batches("test"), batch_size=self._settings.finetune.batch_size, advance=task.advance
            ),
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
            stage.step.trace(stage.batches.batch(progression.step if progression.step < stage.steps else 0))
        header = TraceHeader(stage.name, tuple(stage.batches.batch(0)), tuple(stage.step.fingerprint_names))
        name = trace_name(stage.name)
        trace = TraceWriter(self._directory / name, header, steps=progression.step, sha256=trace_sha256)
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
        finally:
            trace.close()
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
