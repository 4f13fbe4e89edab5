"""A run, stage by stage: corpus, vocabulary, pretraining, classifier, raw-text model, record.

    run(preset("tiny"), directory=Path("runs/tiny-seed0")) -> the run record, as in run.json

A run is a pure function of (settings, corpus, environment). Whatever moment it is stopped at, ``resume``
goes on from its newest whole checkpoint to the same bits.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import minibert
from minibert.artifacts import replacing, sha256_of_file, write_bytes
from minibert.corpora.corpus import Corpus
from minibert.corpora.opening import open_corpus
from minibert.end_to_end import build_end_to_end, evaluate_raw_text
from minibert.environment import describe_environment
from minibert.errors import ArtifactError
from minibert.examples import Examples, encode_corpus
from minibert.fingerprints import TraceHeader, TraceWriter
from minibert.model.encoder import build_masked_lm
from minibert.model.heads import build_classifier
from minibert.progress import Progress
from minibert.record import FORMAT, NAME, code_digests, metrics_csv, read_record, write_record
from minibert.resuming import require_resumable
from minibert.settings import RunSettings
from minibert.text import sample_ids
from minibert.training.checkpoint import Checkpoint, newest_checkpoint, remove_checkpoints, write_checkpoint
from minibert.training.finetune import finetune_stage
from minibert.training.loop import EpochTasks, Figures, Progression, Stage, stage_digests, train
from minibert.training.pretrain import pretrain_stage
from minibert.training.state import set_optimizer, set_weights, state_digest, weight_arrays

Record = dict[str, Any]
TRACES = "trace"


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
        resume: Go on with the run in ``directory``; a complete one is left as it is.
        progress: Shows how far it is; None: silent.

    Returns:
        The record, as in ``run.json``.

    Raises:
        SettingsError: A setting does not fit, or the sample sentence has no single ``[mask]``.
        CorpusError: The data are not a corpus.
        ArtifactError: The directory exists, or cannot be written.
        ResumeError: What the run computes has changed since.

    Determinism:
        The result depends on settings, corpus and the recorded environment only. TensorFlow's op
        determinism is switched on for the process.
    """
    directory, shown = Path(directory), progress or Progress(quiet=True)
    earlier = _earlier_record(directory, resume)
    if earlier is not None and earlier["status"] == "complete":
        shown.note(f"{directory} is complete; nothing is left to do")
        return earlier
    tf.config.experimental.enable_op_determinism()
    started = time.perf_counter()
    corpus = open_corpus(settings.corpus, seed=settings.seed, data=Path(data) if data else None, progress=shown)
    examples = encode_corpus(corpus, settings)
    settings = resolved(settings, examples)
    sample_ids(settings.pretrain.sample_sentence, examples.vocabulary, settings.text)
    record = _new_record(settings, corpus, examples, data=data, seconds=time.perf_counter() - started)
    if earlier is not None:
        require_resumable(earlier, record)
        record["started"] = earlier["started"]
    return _Run(settings, corpus, examples, record, directory, shown).execute(resume=earlier is not None)


def resolved(settings: RunSettings, examples: Examples) -> RunSettings:
    """The settings with what only the corpus decides: the size of the vocabulary."""
    masking = dataclasses.replace(settings.masking, vocabulary_size=len(examples.vocabulary))
    return dataclasses.replace(settings, masking=masking)


def _earlier_record(directory: Path, resume: bool) -> Record | None:
    """The record to go on with, None for a new run.

    Raises:
        ArtifactError: There is something in the directory and ``resume`` is off, or no run and it is on.
    """
    if resume:
        return read_record(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        hint = "; --resume goes on with the run in it" if (directory / NAME).exists() else ""
        raise ArtifactError(f"{directory}: a new or empty folder is required for a run, but this one exists{hint}")
    return None


def first_stage(settings: RunSettings, *, data: Path | str | None = None, progress: Progress | None = None) -> Stage:
    """The pretraining stage of a run, ready for its first step; nothing is written."""
    tf.config.experimental.enable_op_determinism()
    corpus = open_corpus(settings.corpus, seed=settings.seed, data=Path(data) if data else None, progress=progress)
    examples = encode_corpus(corpus, settings)
    settings = resolved(settings, examples)
    masked_lm = _masked_lm(settings)
    return pretrain_stage(masked_lm, _pretrained_on(settings, examples), examples.vocabulary, settings)


def _masked_lm(settings: RunSettings) -> keras.Model:
    return build_masked_lm(
        settings.model,
        vocabulary_size=settings.masking.required_vocabulary_size,
        sequence_length=settings.text.sequence_length,
        seed=settings.seed,
    )


def _pretrained_on(settings: RunSettings, examples: Examples) -> np.ndarray:
    """The ids that the masked language model is trained on."""
    is_train_only = settings.pretrain.splits == "train"
    return examples.token_ids[: examples.train_count] if is_train_only else examples.token_ids


def _new_record(
    settings: RunSettings, corpus: Corpus, examples: Examples, *, data: Path | str | None, seconds: float
) -> Record:
    return {
        "format": FORMAT,
        "minibert_version": minibert.__version__,
        "status": "running",
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "settings": settings.to_dict(),
        "settings_digest": settings.digest(),
        "data": str(Path(data).resolve()) if data else None,
        "corpus": {
            "name": corpus.name,
            "digest": corpus.digest,
            "class_names": list(corpus.class_names) if corpus.class_names else None,
            "examples": dict(corpus.examples),
            **examples.statistics(),
        },
        "environment": describe_environment(),
        "code": code_digests(),
        "stages": {"encode": {"seconds": seconds}},
        "artifacts": {},
    }


class _Run:
    """One run in its directory."""

    def __init__(
        self,
        settings: RunSettings,
        corpus: Corpus,
        examples: Examples,
        record: Record,
        directory: Path,
        progress: Progress,
    ) -> None:
        self._settings, self._corpus, self._examples = settings, corpus, examples
        self._record, self._directory, self._progress = record, directory, progress
        self._from: Checkpoint | None = None

    def execute(self, *, resume: bool) -> Record:
        """Runs what is left of the stages and writes the artifacts."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"{self._directory}: a folder cannot be made there: {error.strerror}") from error
        if resume:
            self._from = newest_checkpoint(self._directory, note=self._progress.note)
            if self._from is not None:
                self._record |= {name: self._from.state[name] for name in ("stages", "artifacts")}
        write_bytes(self._directory / "vocabulary.txt", self._examples.vocabulary.content)
        write_record(self._directory, self._record)

        settings, examples = self._settings, self._examples
        masked_lm = _masked_lm(settings)
        if self._reaches(0):
            trained_on = _pretrained_on(settings, examples)
            self._train(pretrain_stage(masked_lm, trained_on, examples.vocabulary, settings))
            self._save_model(masked_lm, "masked_lm.keras")
        if self._corpus.labelled:
            self._classify(masked_lm)
        self._record["status"] = "complete"
        write_bytes(self._directory / "metrics.csv", metrics_csv(self._record))
        write_record(self._directory, self._record)
        remove_checkpoints(self._directory)
        return self._record

    def _classify(self, masked_lm: keras.Model) -> None:
        """The two classifier stages and the raw-text model."""
        settings, examples = self._settings, self._examples
        classifier = build_classifier(masked_lm, settings.finetune, settings.model, seed=settings.seed)
        for index, frozen in ((1, True), (2, False)):
            if self._reaches(index):
                stage = finetune_stage(
                    classifier,
                    train=examples.split("train"),
                    test=examples.split("test"),
                    settings=settings,
                    frozen=frozen,
                )
                self._train(stage)
        self._save_model(classifier, "classifier.keras")
        model = build_end_to_end(classifier, examples.vocabulary, settings.text)
        self._record["stages"]["end_to_end"] = self._evaluate_raw_text(model)
        self._save_model(model, "end_to_end.keras")

    def _evaluate_raw_text(self, model: keras.Model) -> Figures:
        """The raw-text model's figures on the raw test texts."""
        started = time.perf_counter()
        task = self._progress.start("end to end on raw test texts", self._corpus.examples["test"])
        figures = evaluate_raw_text(
            model, self._corpus.batches("test"), batch_size=self._settings.finetune.batch_size, advance=task.advance
        )
        task.finish()
        digest = state_digest(weight_arrays(model.get_layer("classifier").variables))
        return {**figures, "seconds": time.perf_counter() - started, "weights_sha256": digest}

    def _reaches(self, index: int) -> bool:
        """Whether a stage is still to be trained or finished."""
        return self._from is None or self._from.stage_index <= index

    def _train(self, stage: Stage) -> None:
        """Trains one stage from the checkpoint, if that is in it, and records its figures."""
        progression = Progression()
        at = self._from
        if at is not None and at.stage == stage.name:
            weights, optimizer = _part(at, "weights/"), _part(at, "optimizer/")
            set_weights(stage.variables, weights, source="checkpoint")
            set_optimizer(stage.step.optimizer, optimizer, source="checkpoint")
            progression = Progression(**at.state["progression"])
        task = EpochTasks(self._progress, stage, progression)
        stage.step.trace(stage.batches.batch(progression.step if progression.step < stage.steps else 0))
        header = TraceHeader(stage.name, tuple(stage.batches.batch(0)), tuple(stage.step.fingerprint_names))
        trace = TraceWriter(self._directory / TRACES / f"{stage.name}.trace", header, steps=progression.step)
        try:
            train(
                stage,
                progression,
                trace=trace,
                checkpoint_steps=self._settings.record.checkpoint_steps,
                keep=lambda p: self._keep(stage, p),
                advance=task.advance,
            )
        finally:
            trace.close()
            task.finish()
        self._note_stage(stage, progression)

    def _keep(self, stage: Stage, progression: Progression) -> None:
        """Writes a checkpoint, and the record if an epoch has ended."""
        arrays = {f"weights/{path}": value for path, value in weight_arrays(stage.variables).items()}
        arrays |= {f"optimizer/{path}": value for path, value in stage.optimizer_state().items()}
        state = {
            "progression": progression.state(),
            "stages": self._record["stages"],
            "artifacts": self._record["artifacts"],
        }
        checkpoint = Checkpoint(stage.index, stage.name, progression.step, arrays, state)
        write_checkpoint(self._directory, checkpoint, kept=self._settings.record.kept_checkpoints)
        if progression.step % stage.batches.steps_per_epoch == 0:
            self._note_stage(stage, progression)

    def _note_stage(self, stage: Stage, progression: Progression) -> None:
        self._record["stages"][stage.name] = {
            "epochs": progression.epochs,
            "steps": progression.step,
            "seconds": sum(e["seconds"] + e["evaluation_seconds"] for e in progression.epochs),
            **stage_digests(stage),
        }
        write_record(self._directory, self._record)

    def _save_model(self, model: keras.Model, name: str) -> None:
        path = self._directory / name
        with replacing(path) as temporary:
            model.save(temporary)
        self._record["artifacts"][name] = {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}


def _part(checkpoint: Checkpoint, prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): v for name, v in checkpoint.arrays.items() if name.startswith(prefix)}
