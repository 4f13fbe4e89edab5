"""A run leaves what it promises, for every kind of corpus and settings, or nothing and one line."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from minibert import executing, pipeline
from minibert.artifacts import locked, sha256_of_file
from minibert.corpora.embedded import embedded_reviews
from minibert.errors import ArtifactError, CorpusError, DeviceError, MinibertError, OutOfMemoryError, SettingsError
from minibert.model import backend
from minibert.preparation import prepare, prepare_again
from minibert.presets import preset
from minibert.progress import Progress
from minibert.record import OTHER_TIMES, read_record
from minibert.report.comparison import why_not_compared
from minibert.settings import replace_setting
from minibert.training.checkpoint import FOLDER
from minibert.verify import verify
from tests.runs import STEPS, TEST_EXAMPLES, small_settings, write_texts

slow = pytest.mark.slow
STAGES = ("pretrain", "frozen", "unfrozen")
MODELS = ("classifier.keras", "end_to_end.keras", "masked_lm.keras")
TRACES = tuple(f"trace/{stage}.trace" for stage in STAGES)


def raw_test_texts() -> tuple[list[str], np.ndarray]:
    batch = embedded_reviews("test", 0, TEST_EXAMPLES)
    assert batch.labels is not None
    return batch.texts.to_pylist(), batch.labels


# The run directory


def test_a_run_directory_holds_what_it_promises_and_nothing_else(small_run: Path) -> None:
    found = sorted(path.relative_to(small_run).as_posix() for path in small_run.rglob("*") if path.is_file())
    assert found == sorted([*MODELS, *TRACES, "metrics.csv", "run.json", "vocabulary.txt"])


def test_the_record_says_what_was_run_on_what_and_what_came_out(small_run: Path) -> None:
    record = read_record(small_run)
    assert record["status"] == "complete"
    settings = small_settings(f"masking.vocabulary_size={record['corpus']['vocabulary_size']}")
    assert record["settings"] == json.loads(json.dumps(settings.to_dict()))
    assert record["settings_digest"] == settings.digest()
    assert record["corpus"]["examples"] == {"train": 29, "test": 9}
    assert record["corpus"]["vocabulary_sha256"] == sha256_of_file(small_run / "vocabulary.txt")
    assert sum(record["corpus"]["class_counts"]["train"]) == 29
    assert record["environment"]["threads"] is not None
    assert list(record["stages"]) == ["encode", *STAGES, "end_to_end"]
    assert {name: found["sha256"] for name, found in record["artifacts"].items()} == {
        name: sha256_of_file(small_run / name) for name in (*MODELS, *TRACES)
    }


def test_every_stage_has_its_epochs_and_digests(small_run: Path) -> None:
    stages = read_record(small_run)["stages"]
    for name, steps in STEPS.items():
        epochs = stages[name]["epochs"]
        assert stages[name]["steps"] == steps == sum(epoch["steps"] for epoch in epochs)
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, len(epochs) + 1))
        assert all(np.isfinite(epoch["loss"]) and epoch["seconds"] > 0 for epoch in epochs)
        assert stages[name]["weights_sha256"] == epochs[-1]["weights_sha256"]
        assert len(stages[name]["optimizer_sha256"]) == 64
    assert stages["end_to_end"]["weights_sha256"] == stages["unfrozen"]["weights_sha256"]
    assert all(len(epoch["predictions"]) == 5 for epoch in stages["pretrain"]["epochs"])
    assert len({epoch["weights_sha256"] for name in STAGES for epoch in stages[name]["epochs"]}) == 10


def test_a_stages_time_outside_its_steps_is_recorded_by_kind(small_run: Path) -> None:
    stages = read_record(small_run)["stages"]
    assert 0 < stages["encode"]["reading_seconds"] <= stages["encode"]["seconds"]
    for name in (*STAGES, "end_to_end"):
        assert all(stages[name][kind] >= 0 for kind in OTHER_TIMES)
        assert stages[name]["building_seconds"] > 0
    for name in STAGES:  # each writes checkpoints
        assert stages[name]["writing_seconds"] > 0
        assert stages[name]["waiting_seconds"] > 0
        spent = sum(epoch["seconds"] + epoch["evaluation_seconds"] for epoch in stages[name]["epochs"])
        assert stages[name]["seconds"] == pytest.approx(spent)


def test_an_epoch_of_pretraining_counts_every_selected_token_once(small_run: Path) -> None:
    epochs = read_record(small_run)["stages"]["pretrain"]["epochs"]
    assert len({epoch["count"] for epoch in epochs}) == 1  # static masks: the same tokens in every epoch
    assert 0.1 < epochs[0]["count"] / read_record(small_run)["corpus"]["tokens"] < 0.2


def test_the_metrics_table_has_every_figure_of_the_record(small_run: Path) -> None:
    with (small_run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    stages = read_record(small_run)["stages"]
    found = {(row["stage"], row["epoch"], row["metric"]): float(row["value"]) for row in rows}
    assert len(found) == len(rows)
    for name in STAGES:
        for number, epoch in enumerate(stages[name]["epochs"], start=1):
            assert found[name, str(number), "loss"] == epoch["loss"]
    assert found["unfrozen", "3", "val_accuracy"] == stages["unfrozen"]["epochs"][2]["val_accuracy"]
    assert found["end_to_end", "", "accuracy"] == stages["end_to_end"]["accuracy"]


# The models, as a user opens them


def test_the_masked_language_model_opens_safely_and_has_the_notebooks_layers(small_run: Path) -> None:
    model = keras.models.load_model(small_run / "masked_lm.keras", safe_mode=True)
    assert model.name == "masked_bert_model"
    names = [layer.name for layer in model.layers]
    for part in ("word_embedding", "position_embedding", "encoder_0_multiheadattention", "encoder_0_att_dropout",
                 "encoder_0_att_layernormalization", "encoder_0_ffn", "encoder_0_ffn_dropout",
                 "encoder_0_ffn_layernormalization", "mlm_cls"):  # fmt: skip
        assert part in names
    probabilities = np.asarray(model(np.ones((2, 24), dtype=np.int32)))
    assert probabilities.shape == (2, 24, read_record(small_run)["corpus"]["vocabulary_size"])
    assert probabilities.sum(axis=-1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.long
def test_the_encoder_can_be_cut_out_and_trained_on_as_the_notebooks_do(small_run: Path) -> None:
    keras.utils.set_random_seed(0)  # a run has switched TensorFlow's determinism on, which asks for a seed
    masked_lm = keras.models.load_model(small_run / "masked_lm.keras")
    encoder = keras.Model(masked_lm.input, masked_lm.get_layer("encoder_0_ffn_layernormalization").output)
    encoder.trainable = False
    inputs = keras.layers.Input((24,), dtype="int64")
    pooled = keras.layers.GlobalMaxPooling1D()(encoder(inputs))
    outputs = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dense(64, activation="relu")(pooled))
    classifier = keras.Model(inputs, outputs)
    classifier.compile(optimizer=keras.optimizers.Adam(), loss="binary_crossentropy", metrics=["accuracy"])
    keras.utils.set_random_seed(0)  # a run switches op determinism on, and Keras' own fit then wants a seed
    ids = np.arange(8 * 24).reshape(8, 24) % 50
    before = np.asarray(encoder.get_layer("word_embedding").embeddings)
    history = classifier.fit(ids, np.arange(8) % 2, epochs=2, batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.array_equal(before, np.asarray(encoder.get_layer("word_embedding").embeddings))


def test_the_raw_text_model_takes_strings_and_gives_the_recorded_figures(small_run: Path) -> None:
    model = keras.models.load_model(small_run / "end_to_end.keras", safe_mode=True)
    texts, labels = raw_test_texts()
    probability = model.predict(tf.constant(texts), verbose=0)[:, 0]
    recorded = read_record(small_run)["stages"]["end_to_end"]
    assert np.mean((probability > 0.5) == labels) == recorded["accuracy"]
    losses = -np.log(np.where(labels == 1, probability, 1 - probability).astype(np.float64))
    assert losses.mean() == pytest.approx(recorded["loss"], rel=1e-5)
    frame = pd.DataFrame({"review": texts, "sentiment": labels})
    loss, accuracy = model.evaluate(frame, verbose=0)
    assert (loss, accuracy) == (pytest.approx(recorded["loss"], rel=1e-4), pytest.approx(recorded["accuracy"]))
    assert recorded["loss"] == pytest.approx(read_record(small_run)["stages"]["unfrozen"]["epochs"][-1]["val_loss"],
                                             rel=1e-5)  # fmt: skip


# Other corpora and settings


def test_without_labels_only_the_masked_language_model_is_trained(unlabelled_run: Path) -> None:
    record = read_record(unlabelled_run)
    assert list(record["stages"]) == ["encode", "pretrain"]
    assert sorted(record["artifacts"]) == ["masked_lm.keras", "trace/pretrain.trace"]
    assert record["corpus"]["class_names"] is None
    assert Path(record["data"]).name == "texts.csv"
    assert not (unlabelled_run / FOLDER).exists()


def test_preparing_again_gives_the_same_inputs(small_run: Path) -> None:
    record = read_record(small_run)
    again = prepare_again(record, small_run)
    assert again.record["corpus"] == record["corpus"]
    assert again.record["settings"] == record["settings"]
    assert again.record["settings_digest"] == record["settings_digest"]


@pytest.mark.parametrize(
    ("assignments", "check"),
    [
        (["pretrain.epochs=0", "finetune.frozen_epochs=0", "finetune.unfrozen_epochs=0"],
         lambda record: all(record["stages"][stage]["epochs"] == [] for stage in STAGES)),
        (["model.padding_mask=true", "masking.static=false", "model.blocks=2"],
         lambda record: len({epoch["count"] for epoch in record["stages"]["pretrain"]["epochs"]}) > 1),
        (["model.precision=mixed_bfloat16"], lambda record: np.isfinite(record["stages"]["end_to_end"]["loss"])),
        (["pretrain.splits=train", "text.vocabulary_splits=train", "pretrain.loss_reduction=mean"],
         lambda record: record["stages"]["pretrain"]["steps"] == 16),
        (["pretrain.batch_size=1000", "finetune.batch_size=1000"],
         lambda record: record["stages"]["frozen"]["steps"] == 3),
        (["masking.selection_rate=0"], lambda record: record["stages"]["pretrain"]["epochs"][0]["count"] == 0),
        (["finetune.validation_rate=0.25", "finetune.frozen_dropout=false"],
         lambda record: record["stages"]["frozen"]["steps"] == 12),
    ],
    ids=["no epochs", "padding mask", "bfloat16", "train only", "one batch", "no masks", "held out"],
)  # fmt: skip
@slow
def test_other_settings_run_and_replay_exactly(assignments: list[str], check: Any, tmp_path: Path) -> None:
    pipeline.run(small_settings(*assignments), directory=tmp_path / "run")
    assert check(read_record(tmp_path / "run"))
    verdict = verify(tmp_path / "run")
    assert verdict.verdict == "exact", verdict.explanation


@slow
def test_another_seed_gives_other_weights_from_the_first_epoch_on(small_run: Path, tmp_path: Path) -> None:
    one, two = read_record(small_run), pipeline.run(small_settings("seed=1"), directory=tmp_path / "run")
    assert one["corpus"] == json.loads(json.dumps(two["corpus"]))
    for stage in STAGES:
        pairs = zip(one["stages"][stage]["epochs"], two["stages"][stage]["epochs"], strict=True)
        assert all(a["weights_sha256"] != b["weights_sha256"] and a["loss"] != b["loss"] for a, b in pairs)


@slow
def test_a_hash_seed_and_a_working_folder_change_nothing(small_run: Path, tmp_path: Path) -> None:
    code = f"""
import json, sys
from minibert import pipeline
from minibert.settings import RunSettings, settings_from_dict
settings = settings_from_dict(RunSettings, json.loads({json.dumps(json.dumps(small_settings().to_dict()))}))
pipeline.run(settings, directory={str(tmp_path / "run")!r})
"""
    environment = os.environ | {"PYTHONHASHSEED": "4711"}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment, cwd=tmp_path)
    verdict = verify(small_run, against=tmp_path / "run")
    assert (verdict.verdict, verdict.environment) == ("exact", ())


# Refused, with nothing written


def assert_refused(
    directory: Path, kind: type[MinibertError], message: str, *assignments: str, data: Path | str | None = None
) -> None:
    with pytest.raises(kind, match=message) as error:
        pipeline.run(small_settings(*assignments), directory=directory, data=data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("assignments", "kind", "message"),
    [
        (["pretrain.sample_sentence=no mask"], SettingsError, r"exactly one \[mask\] .* but 0 came in 'no mask'"),
        (["pretrain.sample_sentence=[mask] [mask]"], SettingsError, r"exactly one \[mask\] .* but 2 came"),
        (["masking.vocabulary_size=5"], SettingsError, r"masking.vocabulary_size: \d+, the vocabulary's, or none"),
        (["corpus.name=table"], SettingsError, r"--data: a table is required for the corpus 'table'"),
        (["finetune.validation_rate=0.1", "corpus.train_examples=3"], CorpusError,
         r"two rows or more of each class are required for a split, but 1 came"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_leave_no_folder(
    assignments: list[str], kind: type[MinibertError], message: str, tmp_path: Path
) -> None:
    assert_refused(tmp_path / "run", kind, message, *assignments)
    assert not (tmp_path / "run").exists()


def test_data_that_are_no_corpus_leave_no_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path / "run", CorpusError, "none.csv: a file or folder is required", data=tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("text\n")
    assert_refused(tmp_path / "run", CorpusError, "empty.csv", data=tmp_path / "empty.csv")
    assert_refused(tmp_path / "run", SettingsError, "data: a path that is not empty is required, but '' came", data="")
    no_utf8 = tmp_path / "caf\udce9.csv"  # as the system gives a name that is not UTF-8; run.json is
    message = r"data: a path in UTF-8 is required, but .*caf\\udce9.csv. came"
    assert_refused(tmp_path / "run", SettingsError, message, data=no_utf8)
    assert not (tmp_path / "run").exists()


def test_another_backend_is_refused_before_texts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "BACKEND", "torch")
    assert_refused(tmp_path / "run", DeviceError, "Keras' backend: tensorflow is required", data=tmp_path / "none.csv")


def test_memory_that_runs_out_behind_the_last_stage_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def large(*_: Any, **__: Any) -> Any:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(executing, "evaluate_raw_text", large)
    ending: Any = object.__new__(executing._Run)
    ending._prepared, ending._settings, ending._progress = (
        prepare(small_settings()),
        small_settings(),
        Progress(quiet=True),
    )
    message = "end to end: memory for a batch of 6 is required, .*; a smaller finetune.batch_size may help"
    with pytest.raises(OutOfMemoryError, match=message):
        ending._evaluate_raw_text(None)


def test_a_folder_with_something_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert_refused(tmp_path, ArtifactError, "a new or empty folder is required for a run, but this one exists$")
    assert_refused(tmp_path / "mine.txt", ArtifactError, "mine.txt: a new or empty folder is required")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_of_two_runs_in_one_folder_one_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run", wait=False):
        message = "run: a place that no other process writes to is required, but one does"
        assert_refused(tmp_path / "run", ArtifactError, message)
    assert list((tmp_path / "run").iterdir()) == []

    def while_another_run_begins(*given: Any, **named: Any) -> Any:
        (tmp_path / "run" / "run.json").write_text("another's")
        return prepare(*given, **named)

    monkeypatch.setattr(pipeline, "prepare", while_another_run_begins)
    assert_refused(tmp_path / "run", ArtifactError, "run: a new or empty folder is required for a run")
    assert {path.name: path.read_text() for path in (tmp_path / "run").iterdir()} == {"run.json": "another's"}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(tmp_path / "file" / "run", ArtifactError, "run: a folder cannot be made there: Not a directory")


def test_preparing_writes_nothing_and_resolves_the_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = prepare(small_settings(), data=write_texts(tmp_path / "texts.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["texts.csv"]
    assert prepared.settings.masking.vocabulary_size == len(prepared.examples.vocabulary)
    assert dataclasses.replace(prepared.settings, masking=small_settings().masking) == small_settings()
    assert prepared.record["status"] == "running"


def test_a_record_is_values_of_json_from_the_start_and_is_compared_as_one_from_a_file(tmp_path: Path) -> None:
    record = prepare(preset("imdb"), data=write_texts(tmp_path / "texts.csv", labelled=True)).record
    assert record == json.loads(json.dumps(record))
    why = "the corpus has 29 train and 9 test texts, not 25,000 train and 25,000 test"
    assert why_not_compared(record) == f"Not compared with notebook 1, IMDb: {why}."


@pytest.mark.parametrize("is_labelled", [False, True])
def test_that_no_classifier_will_be_trained_is_said_before_anything_is(
    is_labelled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label column of another name is taken for none."""
    monkeypatch.setattr(pipeline, "execute", lambda prepared, **_: prepared.record)
    table = tmp_path / "own.csv"
    table.write_text("text,opinion\n" + "".join(f"a film {n % 7},{'good' if n % 2 else 'bad'}\n" for n in range(40)))
    settings = replace_setting(small_settings(), "corpus.label_column=opinion") if is_labelled else small_settings()
    shown = io.StringIO()
    pipeline.run(settings, directory=tmp_path / "run", data=table, progress=Progress(stream=shown))
    said = (
        "no labels are read (corpus.label_column names their column; columns that are not read: 'opinion'): "
        "no classifier will be trained\n"
    )
    assert (said in shown.getvalue()) is not is_labelled


@pytest.mark.parametrize(
    ("is_labelled", "frozen_epochs", "is_said"), [(True, 0, True), (True, 1, False), (False, 1, True)]
)
def test_that_nothing_will_be_trained_is_said(
    is_labelled: bool, frozen_epochs: int, is_said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "execute", lambda prepared, **_: prepared.record)
    settings = small_settings()
    for assignment in ("pretrain.epochs=0", f"finetune.frozen_epochs={frozen_epochs}", "finetune.unfrozen_epochs=0"):
        settings = replace_setting(settings, assignment)
    shown = io.StringIO()
    data = write_texts(tmp_path / "texts.csv", labelled=is_labelled)
    pipeline.run(settings, directory=tmp_path / "run", data=data, progress=Progress(stream=shown))
    assert ("no stage has an epoch: nothing will be trained\n" in shown.getvalue()) is is_said


@pytest.mark.parametrize(
    ("precision", "has_instructions", "is_said"),
    [("float32", False, False), ("mixed_bfloat16", True, False), ("mixed_bfloat16", False, True)],
)
def test_that_bfloat16_is_slow_here_is_said(
    precision: str, has_instructions: bool, is_said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "execute", lambda prepared, **_: prepared.record)
    monkeypatch.setattr(pipeline, "multiplies_bfloat16", lambda environment: has_instructions)
    shown = io.StringIO()
    settings = replace_setting(small_settings(), f"model.precision={precision}")
    pipeline.run(settings, directory=tmp_path / "run", progress=Progress(stream=shown))
    said = "model.precision=mixed_bfloat16: this processor has no instructions for bfloat16, so a step takes longer"
    assert (said in shown.getvalue()) is is_said
