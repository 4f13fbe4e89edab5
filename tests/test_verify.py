"""Verify says whether two runs computed the same, and names the first step and tensor that part.

The proof is faults planted into replays: every one must get the right verdict, stage, step and tensor.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minibert import executing, pipeline
from minibert.errors import ArtifactError, CorpusError, DivergenceError, RepeatabilityError, SettingsError
from minibert.fingerprints import encode_trace, read_trace
from minibert.record import read_record, record_settings, write_record
from minibert.settings import replace_setting
from minibert.training.step import TrainingStep
from minibert.verify import repeat, verify
from minibert.verify.verdict import ACCURACY_TOLERANCE, FIRST_TOLERANCE, TOLERANCE, Parting, Verdict
from tests import faults
from tests.faults import Fault, before_step, in_batch
from tests.runs import STEPS, fingerprint_seldom, small_settings, write_texts

ALL_STEPS = sum(STEPS.values())


def assert_different(verdict: Verdict, stage: str, step: int, tensor: str, *, steps_before: int = 0) -> None:
    """The verdict, and exactly this place."""
    assert (verdict.verdict, verdict.exit_code) == ("different", 11)
    where = verdict.parting
    assert where is not None
    assert (where.stage, where.step, where.tensor) == (stage, step, tensor), verdict.explanation
    assert where.steps_before == steps_before
    assert verdict.inputs == verdict.environment == verdict.code == ()
    state = "the optimizer" if "optimizer" in tensor else "weights"
    late = f" ({state} may have parted up to {steps_before} steps before)" if steps_before else ""
    assert f"first difference: {stage}, step {step}: {tensor}{late}" in verdict.explanation


# Exact


def test_a_replay_in_the_same_environment_is_exact(small_run: Path) -> None:
    before = {path: path.read_bytes() for path in small_run.rglob("*") if path.is_file()}
    verdict = verify(small_run)
    assert (verdict.verdict, verdict.exit_code, verdict.steps) == ("exact", 0, ALL_STEPS), verdict.explanation
    assert verdict.parting is None
    assert verdict.largest_deviation == 0
    assert verdict.inputs == verdict.environment == ()
    assert {path: path.read_bytes() for path in small_run.rglob("*") if path.is_file()} == before
    assert json.loads(json.dumps(verdict.to_dict()))["verdict"] == "exact"


def test_a_run_is_exact_against_itself(small_run: Path) -> None:
    assert verify(small_run, against=small_run).explanation == [f"exact: {ALL_STEPS} steps compared"]


# Faults in pretraining, each planted into a replay of an unlabelled run

slow, long = pytest.mark.slow, pytest.mark.long
PRETRAINING_FAULTS: dict[str, tuple[Fault, int, str]] = {
    "one ulp of a used embedding before step 7": (
        before_step("pretrain", 7, faults.one_ulp("word_embedding/embeddings")), 7, "activation word_embedding"),
    "one ulp of the vocabulary's bias before step 7": (
        before_step("pretrain", 7, faults.one_ulp("mlm_cls/bias")), 7, "weight mlm_cls/bias"),
    "one element of one gradient at step 7": (faults.changed_gradient(7), 7, "gradient mlm_cls/bias"),
    "another target at step 7": (in_batch("pretrain", 7, faults.change_target), 7, "batch labels"),
    "one mask less at step 7": (in_batch("pretrain", 7, faults.unmask_one), 7, "batch sample_weight"),
    "other masks from step 7 on": (faults.other_masks(7), 7, "batch token_ids"),
    "labels leak into the input at step 7": (in_batch("pretrain", 7, faults.leak_labels), 7, "batch token_ids"),
    "step 7 is skipped": (faults.skip_step(7), 7, "batch example_ids"),
    "the update of step 7 is lost": (faults.lost_update("pretrain", 7), 8,
        "epoch 2: weights: word_embedding/embeddings"),
    "half the rate of selection": (faults.mask_rate, 0, "batch token_ids"),
    "a moment of Adam doubled before step 7": (
        before_step("pretrain", 7, faults.optimizer_state("mlm_cls_kernel_momentum")), 7, "weight mlm_cls/kernel"),
    "a weight that is not a number before step 7": (
        before_step("pretrain", 7, faults.not_a_number("word_embedding/embeddings")), 7, "activation word_embedding"),
    "an exponent's bit flipped before step 7": (
        before_step("pretrain", 7, faults.flipped_exponent("word_embedding/embeddings")), 7,
        "activation word_embedding"),
    "a moment of Adam doubled after the last step": (
        faults.after_training("pretrain", faults.optimizer_state("mlm_cls_kernel_momentum")), 16,
        "final optimizer: 0030/adam/mlm_cls_kernel_momentum"),
    "one ulp of a weight after the last step": (
        faults.after_training("pretrain", faults.one_ulp("mlm_cls/bias")), 16, "final weights: mlm_cls/bias"),
    "another dropout stream": (faults.other_dropout_stream, 0, "activation encoder_0_att_dropout"),
    "dropout counts from 1": (faults.carried_dropout_step, 0, "activation encoder_0_att_dropout"),
    "another dropout rate": (faults.dropout_rate, 0, "activation encoder_0_att_dropout"),
    "another learning rate": (faults.adam(learning_rate=0.001001), 0, "weight word_embedding/embeddings"),
    "another epsilon of Adam": (faults.adam(epsilon=1e-6), 0, "weight word_embedding/embeddings"),
    "another epsilon of layer norm": (faults.layer_norm_epsilon, 0, "activation encoder_0_att_layernormalization"),
    "another activation function": (faults.activation_function, 0, "activation encoder_0_ffn"),
    "a mean in place of a sum": (faults.loss_reduction, 0, "gradient mlm_cls/bias"),
    "other initial weights": (faults.initial_weights, 0, "activation word_embedding"),
    "other predictions shown": (faults.predictions, 4, "epoch 1: predictions"),
}  # fmt: skip
ALWAYS_PLANTED = ("one ulp of a used embedding before step 7",)
PLANTED_IN_CI = ("a weight that is not a number before step 7", "a moment of Adam doubled after the last step")


def some_slow(names: Any) -> list[Any]:
    return [
        name if name in ALWAYS_PLANTED else pytest.param(name, marks=long if name in PLANTED_IN_CI else slow)
        for name in names
    ]


@pytest.mark.parametrize("name", some_slow(PRETRAINING_FAULTS))
def test_a_fault_in_pretraining_is_found_where_it_is(
    name: str, unlabelled_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, step, tensor = PRETRAINING_FAULTS[name]
    plant(monkeypatch)
    before = step if tensor.startswith("final optimizer") else 0  # it has a digest at the stage's end alone
    assert_different(verify(unlabelled_run), "pretrain", step, tensor, steps_before=before)


@pytest.mark.parametrize(
    "name", [pytest.param("another dropout rate", marks=long),
             *some_slow(["another learning rate", "another dropout stream", "dropout counts from 1",
                         "other initial weights", "another activation function", "a mean in place of a sum",
                         "the update of step 7 is lost", "a moment of Adam doubled before step 7"])]
)  # fmt: skip
def test_another_environment_is_no_reason_for_a_fault_that_the_losses_show(
    name: str, unlabelled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = edited(unlabelled_run, tmp_path / "elsewhere")
    PRETRAINING_FAULTS[name][0](monkeypatch)
    found = verify(run)
    assert (found.verdict, found.exit_code) == ("different", 11)
    assert len(found.environment) == 1
    assert found.unexplained is not None
    assert found.unexplained.tensor == "loss"
    assert found.first_deviation > FIRST_TOLERANCE
    assert any(line.endswith("beyond the tolerance of 1e-05") for line in found.explanation)


@pytest.mark.parametrize(
    "name", [pytest.param("one ulp of a used embedding before step 7", marks=long),
             *some_slow(["another learning rate", "another epsilon of Adam", "one element of one gradient at step 7",
                         "other predictions shown"])]
)  # fmt: skip
def test_changed_code_is_no_reason_for_a_fault(
    name: str, unlabelled_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A real fault comes with other code, and its losses may be within every tolerance."""
    plant, step, tensor = PRETRAINING_FAULTS[name]
    run = edited(unlabelled_run, tmp_path / "run", record=other_code, environment=False)
    plant(monkeypatch)
    verdict = verify(run, tolerance=1.0)
    assert (verdict.verdict, verdict.exit_code, verdict.environment) == ("different", 11, ())
    assert verdict.parting is not None
    assert (verdict.parting.stage, verdict.parting.step, verdict.parting.tensor) == ("pretrain", step, tensor)
    assert verdict.code == ("the code of masking.py changed",)


@pytest.mark.long
def test_a_step_that_diverges_has_its_row_in_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PRETRAINING_FAULTS["a weight that is not a number before step 7"][0](monkeypatch)
    with pytest.raises(DivergenceError, match="pretrain, step 7: a finite loss is required, but nan came"):
        pipeline.run(small_settings(), directory=tmp_path / "run")
    losses = read_trace(tmp_path / "run" / "trace" / "pretrain.trace").losses
    assert np.isfinite(losses).tolist() == [True] * 7 + [False]


@pytest.mark.slow
def test_a_replay_that_diverges_beside_its_steps_has_a_verdict(
    unlabelled_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.evaluation_that_diverges(monkeypatch)
    verdict = verify(unlabelled_run)
    why = "the replay, which ended: pretrain: a finite figure is required, but nan came"
    assert_different(verdict, "pretrain", 4, why)
    assert verdict.steps == 4


@pytest.mark.long
def test_where_one_step_in_three_has_fingerprints_losses_are_compared_at_every_step(
    unlabelled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It computes the same, and says since when a fault may be there."""
    run, texts = tmp_path / "run", unlabelled_run.parent / "texts.csv"
    pipeline.run(fingerprint_seldom(monkeypatch, 3), directory=run, data=texts)
    assert read_trace(run / "trace" / "pretrain.trace").header.interval == 3
    for verdict in (verify(run), verify(run, against=unlabelled_run), verify(unlabelled_run, against=run)):
        assert verdict.explanation == ["exact: 16 steps compared, 6 of them with fingerprints"]
        assert verdict.to_dict()["fingerprinted"] == 6
    [repeated] = repeat(run, count=2).steps
    assert (repeated.results, repeated.causes) == ({}, ())
    assert repeated.tensors == 1 + len(read_trace(run / "trace" / "pretrain.trace").header.tensors) + 3
    embeddings = "word_embedding/embeddings"
    used, unused = faults.flipped_exponent(embeddings), faults.in_row(embeddings, 1)  # [UNK] stands in no text
    for step, fault, found, before in (
        (7, used, (7, "loss"), 0),
        (8, used, (9, f"weight {embeddings}"), 1),
        (8, unused, (9, f"weight {embeddings}"), 1),
        (9, unused, (9, f"weight {embeddings}"), 1),
        (7, unused, (8, f"epoch 2: weights: {embeddings}"), 1),
    ):  # weights that are the same at an epoch's end, after 4 and 8 steps, parted after it
        with monkeypatch.context() as planted:
            before_step("pretrain", step, fault)(planted)
            verdict = verify(run)
            assert_different(verdict, "pretrain", *found, steps_before=before)
            hinted = any("record.fingerprinted_steps=all" in line for line in verdict.explanation)
            assert hinted is (before > 0)


@pytest.mark.slow
def test_a_replay_ends_where_the_verdict_is_settled(
    unlabelled_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In another environment it goes on to what that does not explain."""
    elsewhere = edited(unlabelled_run, tmp_path / "elsewhere")
    before_step("pretrain", 3, faults.one_ulp("mlm_cls/bias"))(monkeypatch)
    assert verify(unlabelled_run).steps == 4
    found = verify(elsewhere)
    assert (found.verdict, found.steps) == ("numeric", 16), found.explanation
    in_batch("pretrain", 7, faults.change_target)(monkeypatch)
    found = verify(elsewhere)
    assert (found.verdict, found.steps) == ("different", 8)
    assert found.parting is not None
    assert (found.parting.stage, found.parting.step) == ("pretrain", 3)
    assert "weight mlm_cls/bias" in (found.parting.tensor, *found.parting.also), "and its gradient, where it shows"
    assert found.unexplained is not None
    assert (found.unexplained.step, found.unexplained.tensor) == (7, "batch labels")


@slow
@pytest.mark.parametrize(
    "name", ["an exponent's bit of the output's bias flipped before step 6", "another validation loss"]
)
def test_a_replay_that_ended_says_what_the_whole_one_says(
    name: str, small_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    CLASSIFIER_FAULTS[name][0](monkeypatch)
    pipeline.run(small_settings(), directory=tmp_path / "whole")
    whole, ended = verify(small_run, against=tmp_path / "whole"), verify(small_run)
    assert (ended.verdict, ended.parting, ended.unexplained) == (whole.verdict, whole.parting, whole.unexplained)


ROW = 4_700
"""Of an embedding of more than 65,536 elements, in its last eighth: a word that no batch has."""


@pytest.fixture(scope="module")
def run_of_many_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretraining on texts whose words, behind the first, are each read once and cut off."""
    folder = tmp_path_factory.mktemp("words")
    table = write_texts(folder / "texts.csv").read_text(encoding="utf-8").splitlines()
    rare = iter(f"rare{number}" for number in range(10_000))
    rows = [table[0], *(f'"{line.strip(chr(34))} {" ".join(next(rare) for _ in range(200))}"' for line in table[1:])]
    (folder / "texts.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    settings = small_settings("text.vocabulary_size=5000", "pretrain.epochs=1", "pretrain.batch_size=4")
    pipeline.run(settings, directory=folder / "run", data=folder / "texts.csv")
    return folder / "run"


@slow
@pytest.mark.parametrize("step", [0, 1, 6, 7])
def test_one_row_of_a_large_tensor_is_named_at_most_seven_steps_late_and_that_is_said(
    step: int, run_of_many_words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step("pretrain", step, faults.in_row("word_embedding/embeddings", ROW))(monkeypatch)
    verdict = verify(run_of_many_words)  # step 7 is the first at which the last eighth has its turn
    assert_different(verdict, "pretrain", 7, "weight word_embedding/embeddings", steps_before=7)
    assert json.loads(json.dumps(verdict.to_dict()))["parting"]["steps_before"] == 7


@slow
def test_one_row_of_a_large_tensor_is_named_later_where_one_step_in_three_has_fingerprints(
    run_of_many_words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its eighth has its turn at steps 7, 15, 23, ... of which the first with fingerprints is 15."""
    settings = replace_setting(record_settings(read_record(run_of_many_words), run_of_many_words), "pretrain.epochs=2")
    settings = replace(settings, record=fingerprint_seldom(monkeypatch, 3).record)
    pipeline.run(settings, directory=tmp_path / "run", data=run_of_many_words.parent / "texts.csv")
    before_step("pretrain", 11, faults.in_row("word_embedding/embeddings", ROW))(monkeypatch)
    verdict = verify(tmp_path / "run")  # after 8 steps, the first epoch's end, all weights were the same
    assert_different(verdict, "pretrain", 15, "weight word_embedding/embeddings", steps_before=7)


@pytest.fixture(scope="module")
def run_of_wide_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose encoder's activations are fingerprinted by turns: more than 2,048 elements in each example."""
    wide = ("text.sequence_length=64", "model.hidden_size=48")
    epochs = ("pretrain.epochs=2", "finetune.frozen_epochs=2", "finetune.unfrozen_epochs=1")
    directory = tmp_path_factory.mktemp("wide") / "run"
    pipeline.run(small_settings(*wide, *epochs), directory=directory)
    assert "activation encoder_0_ffn" in read_trace(directory / "trace" / "frozen.trace").header.by_turns
    return directory


WIDE_FAULTS: dict[str, tuple[Fault, str, int, str]] = {
    "another dropout stream": (faults.other_dropout_stream, "pretrain", 0, "activation encoder_0_att_dropout"),
    "another epsilon of layer norm": (
        faults.layer_norm_epsilon, "pretrain", 0, "activation encoder_0_att_layernormalization"),
    "one ulp of the vocabulary's bias before step 7": (
        before_step("pretrain", 7, faults.one_ulp("mlm_cls/bias")), "pretrain", 7, "weight mlm_cls/bias"),
    "a row of a frozen encoder's kernel doubled before step 3": (
        before_step("frozen", 3, faults.in_encoder("encoder_0_ffn/inner/kernel", 2.0)), "frozen", 3,
        "activation encoder_0_ffn"),
}  # fmt: skip


@slow
@pytest.mark.parametrize("name", WIDE_FAULTS)
def test_what_every_example_has_is_named_at_once_in_activations_by_turns(
    name: str, run_of_wide_texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, stage, step, tensor = WIDE_FAULTS[name]
    plant(monkeypatch)
    before = step % 5 if stage == "frozen" else 0  # of an epoch: of a held encoder there is a digest at its end alone
    assert_different(verify(run_of_wide_texts), stage, step, tensor, steps_before=before)


@slow
def test_what_one_example_has_in_a_frozen_encoder_is_found_by_the_epochs_end(
    run_of_wide_texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rare word's embedding: the activations of few examples, which may have no turn and may not be pooled."""
    vocabulary = (run_of_wide_texts / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    before_step("frozen", 1, faults.in_encoder("word_embedding/embeddings", 1.0000001, row=len(vocabulary) - 2))(
        monkeypatch
    )
    verdict = verify(run_of_wide_texts)
    where = verdict.parting
    assert verdict.verdict == "different"
    assert where is not None
    assert where.stage == "frozen"
    assert where.step - where.steps_before <= 1 <= where.step <= 5


CLASSIFIER_FAULTS: dict[str, tuple[Fault, str, int, str]] = {
    "a label flipped at step 6": (in_batch("frozen", 6, faults.flip_label), "frozen", 6, "batch labels"),
    "two examples of a batch swapped at step 8": (
        in_batch("unfrozen", 8, faults.swap_examples), "unfrozen", 8, "batch example_ids"),
    "an exponent's bit of the output's bias flipped before step 6": (
        before_step("frozen", 6, faults.flipped_exponent("logits/bias")), "frozen", 6, "activation logits"),
    "the frozen encoder is trained": (
        faults.thawed_encoder, "frozen", 0, "gradient encoder_0_ffn_layernormalization/beta, which is in one run only"),
    "the unfrozen stage keeps the optimizer's step": (
        faults.kept_optimizer, "unfrozen", 0, "weight word_embedding/embeddings"),
    "another validation loss": (faults.validation_loss, "frozen", 5, "epoch 1: val_loss"),
    "other weights in the raw-text model": (faults.weights_after_training, "end_to_end", 0, "weights"),
    "another text layer in the raw-text model": (faults.raw_text, "end_to_end", 0, "loss"),
}  # fmt: skip


@slow
@pytest.mark.parametrize("name", CLASSIFIER_FAULTS)
def test_a_fault_in_the_classifier_is_found_where_it_is(
    name: str, small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, stage, step, tensor = CLASSIFIER_FAULTS[name]
    plant(monkeypatch)
    assert_different(verify(small_run), stage, step, tensor)


def test_enough_faults_are_planted() -> None:
    assert len(PRETRAINING_FAULTS) + len(CLASSIFIER_FAULTS) >= 20


# Other inputs


def test_another_order_in_the_corpus_is_named_before_anything_is_trained(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.swapped_in_corpus(monkeypatch)
    monkeypatch.setattr(executing, "execute", None)
    verdict = verify(small_run)
    assert (verdict.verdict, verdict.exit_code, verdict.steps) == ("not comparable", 12, 0)
    (line,) = verdict.inputs
    assert line.startswith("the corpus' digest was")
    assert f"input: {line}" in verdict.explanation


@pytest.mark.parametrize(
    ("plant", "tensor", "also"),
    [(faults.other_word, "vocabulary", ("token ids",)), (faults.other_encoding, "token ids", ())],
)
def test_the_same_corpus_encoded_otherwise_is_different_before_anything_is_trained(
    plant: Fault, tensor: str, also: tuple[str, ...], small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    monkeypatch.setattr(executing, "execute", None)
    verdict = verify(small_run)
    assert_different(verdict, "encode", 0, tensor)
    assert (verdict.steps, verdict.unexplained) == (0, Parting("encode", 0, tensor, also))


def test_data_that_changed_are_not_comparable(unlabelled_run: Path, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.csv")
    texts.write_text(texts.read_text(encoding="utf-8").replace("awesome", "awful", 1), encoding="utf-8")
    verdict = verify(unlabelled_run, data=texts)
    assert verdict.verdict == "not comparable"
    assert verdict.inputs[0].startswith("the corpus' digest was")


def test_data_that_were_moved_are_asked_for(unlabelled_run: Path, tmp_path: Path) -> None:
    directory = edited(
        unlabelled_run, tmp_path / "run", record=lambda found: found.update(data=str(tmp_path / "gone.csv"))
    )
    with pytest.raises(CorpusError, match=r"gone\.csv: the run's data are required, .*; --data names another place"):
        verify(directory)


@pytest.mark.slow
def test_the_same_data_elsewhere_are_exact(unlabelled_run: Path, tmp_path: Path) -> None:
    assert verify(unlabelled_run, data=write_texts(tmp_path / "moved.csv")).verdict == "exact"


@pytest.mark.parametrize(
    "assignment",
    ["masking.selection_rate=0.16", "masking.static=false", "seed=1", "pretrain.learning_rate=0.002",
     "pretrain.loss_reduction=mean", "pretrain.epochs=5", "model.layer_norm_epsilon=1e-05", "model.dropout_rate=0.2",
     "finetune.batch_size=7", "text.lowercase=none"],
)  # fmt: skip
def test_every_setting_that_differs_is_named(assignment: str, small_run: Path, tmp_path: Path) -> None:
    other = with_settings(small_run, tmp_path / "other", assignment)
    verdict = verify(small_run, against=other)
    name, _, value = assignment.partition("=")
    assert (verdict.verdict, verdict.exit_code) == ("not comparable", 12)
    (line,) = verdict.inputs
    assert line.startswith(f"setting {name} was ")
    assert line.lower().replace("'", "").endswith(f"is {value}")
    assert verdict.explanation[0].startswith("not comparable: their inputs differ; ")


def with_settings(run: Path, to: Path, assignment: str) -> Path:
    """A copy of a run that says it had another setting."""
    shutil.copytree(run, to)
    record = read_record(to)
    settings = replace_setting(record_settings(record, to), assignment)
    write_record(to, record | {"settings": settings.to_dict(), "settings_digest": settings.digest()})
    return to


def test_what_the_record_alone_is_about_may_differ(small_run: Path, tmp_path: Path) -> None:
    other = with_settings(small_run, tmp_path / "other", "record.checkpoint_steps=7")
    assert verify(small_run, against=other).verdict == "exact"


@slow
@pytest.mark.parametrize(
    ("assignment", "steps", "parts_at"),
    [
        ("masking.selection_rate=0.16", ALL_STEPS, ("pretrain", 0, "batch token_ids")),
        ("seed=1", ALL_STEPS, ("pretrain", 0, "batch example_ids")),
        (
            "pretrain.epochs=3",
            ALL_STEPS - 5,
            ("pretrain", 15, "the number of steps, 20 in one run and 15 in the other"),
        ),
        ("finetune.learning_rate=0.002", ALL_STEPS, ("frozen", 0, "weight hidden/kernel")),
    ],
)
def test_runs_of_other_settings_are_not_comparable(
    assignment: str, steps: int, parts_at: tuple[str, int, str], small_run: Path, tmp_path: Path
) -> None:
    pipeline.run(replace_setting(small_settings(), assignment), directory=tmp_path / "other")
    verdict = verify(small_run, against=tmp_path / "other")
    assert (verdict.verdict, verdict.steps) == ("not comparable", steps)
    assert verdict.inputs[0].startswith(f"setting {assignment.partition('=')[0]} was ")
    assert verdict.parting is not None
    assert (verdict.parting.stage, verdict.parting.step, verdict.parting.tensor) == parts_at


def test_another_corpus_is_not_comparable(small_run: Path, unlabelled_run: Path) -> None:
    verdict = verify(small_run, against=unlabelled_run)
    assert verdict.verdict == "not comparable"
    assert any(line.startswith("the corpus' digest was") for line in verdict.inputs)
    assert verdict.steps == 16
    assert verdict.parting is not None
    assert verdict.parting.stage == "encode"


# Damaged files


def copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "copy"))


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def edit(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("is_other", [False, True], ids=["first", "other"])
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("trace/frozen.trace", lambda path: cut(path, 1), "frozen.trace: the file of the record is required"),
        ("trace/frozen.trace", edit, "frozen.trace: the file of the record is required"),
        ("trace/frozen.trace", Path.unlink, "frozen.trace: the file of the record is required"),
        ("masked_lm.keras", edit, "masked_lm.keras: the file of the record is required"),
        ("vocabulary.txt", lambda path: cut(path, 7), "vocabulary.txt: the file of the record is required"),
        ("run.json", lambda path: cut(path, 99), "run.json: JSON is required"),
        ("run.json", lambda path: path.write_text(path.read_text().replace('"loss": 0.', '"loss": 1.', 1)),
         "run.json: field 'stages' does not fit its digest"),
        ("run.json", lambda path: path.write_text(path.read_text().replace('"seed": 0', '"seed": 1', 1)),
         "run.json: field 'settings' was edited"),
        ("run.json", Path.unlink, "a run directory with a run.json is required"),
    ],
    ids=["cut trace", "edited trace", "no trace", "edited model", "cut vocabulary", "cut record", "edited figure",
         "edited setting", "no record"],
)  # fmt: skip
def test_a_damaged_file_is_named(
    name: str, damage: Any, message: str, is_other: bool, small_run: Path, tmp_path: Path
) -> None:
    copy = copy_of(small_run, tmp_path)
    damage(copy / name)
    with pytest.raises(ArtifactError, match=message):
        verify(small_run, against=copy) if is_other else verify(copy, against=small_run)


def test_a_run_that_is_not_complete_is_named(small_run: Path, tmp_path: Path) -> None:
    copy = copy_of(small_run, tmp_path)
    write_record(copy, read_record(copy) | {"status": "running"})
    with pytest.raises(
        ArtifactError,
        match=r"field 'status': a complete run is required, .* 'running', or was stopped: minibert run .* --resume",
    ):
        verify(copy)


def test_a_trace_of_fewer_steps_is_named_even_if_the_record_fits_it(small_run: Path, tmp_path: Path) -> None:
    copy = copy_of(small_run, tmp_path)
    trace = copy / "trace" / "pretrain.trace"
    cut(trace, read_trace(trace).header.row.itemsize)
    record = read_record(copy)
    del record["artifacts"]["trace/pretrain.trace"]
    write_record(copy, record)
    with pytest.raises(ArtifactError, match=r"pretrain.trace: 20 steps are recorded, but 19 are there"):
        verify(copy, against=small_run)


# Other environments, other code


def edited(run: Path, to: Path, *, rows: Any = None, record: Any = None, environment: bool = True) -> Path:
    """A copy of a run with changed rows of pretraining and a changed record, by default from another environment."""
    shutil.copytree(run, to)
    found, trace = read_record(to), to / "trace" / "pretrain.trace"
    if rows is not None:
        whole = read_trace(trace)
        changed = whole.rows.copy()
        replaced = rows(changed)
        trace.write_bytes(encode_trace(whole.header, changed if replaced is None else replaced))
        del found["artifacts"]["trace/pretrain.trace"]
    if record is not None:
        record(found)
    if environment:
        found["environment"]["threads"] = {"intra_op": 1, "inter_op": 0}
    write_record(to, found)
    return to


def loss_off(step: int, factor: float) -> Any:
    """The loss of one step is another."""

    def change(rows: np.ndarray) -> None:
        loss = rows["loss"][step : step + 1].view(np.float32)
        rows["loss"][step] = (loss * np.float32(factor)).view(np.uint32)[0]

    return change


def in_row(step: int, group: str, place: int) -> Any:
    """One checksum of one step is another."""

    def change(rows: np.ndarray) -> None:
        rows[group][step, place] ^= 1

    return change


def both(*changes: Any) -> Any:
    def change(rows: np.ndarray) -> None:
        for each in changes:
            each(rows)

    return change


def figure(stage: str, epoch: int | None, name: str, factor: float) -> Any:
    """A figure of an epoch, or of the raw-text model, is another."""

    def change(record: Any) -> None:
        found = record["stages"][stage] if epoch is None else record["stages"][stage]["epochs"][epoch - 1]
        found[name] = found[name] * factor if isinstance(found[name], float) else found[name] + 1

    return change


@pytest.mark.parametrize(
    ("deviation", "verdict", "exit_code"),
    [(FIRST_TOLERANCE / 2, "numeric", 10), (FIRST_TOLERANCE * 2, "different", 11)],
)
def test_the_tolerance_decides_between_numeric_and_different(
    deviation: float, verdict: str, exit_code: int, small_run: Path, tmp_path: Path
) -> None:
    other = edited(small_run, tmp_path / "other", rows=loss_off(3, 1 + deviation))
    found = verify(small_run, against=other)
    assert (found.verdict, found.exit_code) == (verdict, exit_code)
    assert found.largest_deviation == found.first_deviation == pytest.approx(deviation, rel=2e-2)
    assert found.largest_at == found.first_at == "pretrain, step 3: loss"
    assert found.parting == Parting("pretrain", 3, "loss")
    assert len(found.environment) == 1
    assert found.environment[0].startswith("threads.intra_op was 0 and is 1")
    scale = TOLERANCE / FIRST_TOLERANCE
    assert verify(small_run, against=other, tolerance=scale * deviation * 1.1).verdict == "numeric"
    assert verify(small_run, against=other, tolerance=scale * deviation / 1.1).verdict == "different"


@pytest.mark.parametrize(
    ("stage", "epoch", "name"),
    [("frozen", 2, "val_loss"), ("unfrozen", 3, "loss"), ("end_to_end", None, "loss"), ("pretrain", 1, "loss")],
)
def test_every_loss_is_held_to_the_tolerance(
    stage: str, epoch: int | None, name: str, small_run: Path, tmp_path: Path
) -> None:
    """Not only those of the steps: a validation's and the raw-text model's, too."""
    steps = {"pretrain": 5, "frozen": 10, "unfrozen": 15, "end_to_end": 0}
    label = name if epoch is None else f"epoch {epoch}: {name}"
    for number, (factor, verdict) in enumerate([(1 + TOLERANCE / 2, "numeric"), (1 + TOLERANCE * 2, "different")]):
        other = edited(small_run, tmp_path / str(number), record=figure(stage, epoch, name, factor))
        found = verify(small_run, against=other)
        assert found.verdict == verdict
        assert found.parting == Parting(stage, steps[stage], label)
        assert found.unexplained == (found.parting if verdict == "different" else None)
        assert found.largest_deviation == pytest.approx(factor - 1, rel=1e-2)
        assert found.largest_at == (f"{stage}: loss" if epoch is None else f"{stage}, epoch {epoch}: {name}")


BATCH = ("example_ids", "token_ids", "positions", "labels", "sample_weight")


@pytest.mark.parametrize("place", range(len(BATCH)))
def test_no_environment_explains_another_batch(place: int, small_run: Path, tmp_path: Path) -> None:
    """Even where sums have parted before: those may come from the environment, a batch may not."""
    rows = both(in_row(0, "tensors", 2), loss_off(1, 1 + 1e-6), in_row(7, "batch", place))
    found = verify(small_run, against=edited(small_run, tmp_path / "other", rows=rows), tolerance=1.0)
    assert (found.verdict, found.exit_code) == ("different", 11)
    assert found.parting is not None
    assert found.parting.place.startswith("pretrain, step 0: activation ")
    assert found.unexplained == Parting("pretrain", 7, f"batch {BATCH[place]}")
    assert f"not explained by another environment: pretrain, step 7: batch {BATCH[place]}" in found.explanation


@pytest.mark.parametrize(
    ("stage", "epoch", "name"), [("pretrain", 2, "count"), ("frozen", 1, "steps"), ("end_to_end", None, "examples")]
)
def test_no_environment_explains_another_count(
    stage: str, epoch: int | None, name: str, small_run: Path, tmp_path: Path
) -> None:
    other = edited(small_run, tmp_path / "other", record=figure(stage, epoch, name, 2.0))
    found = verify(small_run, against=other, tolerance=1.0)
    assert found.verdict == "different"
    assert found.unexplained is not None
    assert found.unexplained.tensor.endswith(name)


@pytest.mark.parametrize("environment", [True, False])
def test_another_number_of_steps_is_different(environment: bool, small_run: Path, tmp_path: Path) -> None:
    def lost(record: Any) -> None:
        record["stages"]["pretrain"]["steps"] -= 1

    other = edited(small_run, tmp_path / "other", rows=lambda rows: rows[:-1], record=lost, environment=environment)
    found = verify(small_run, against=other, tolerance=1.0)
    assert (found.verdict, found.steps) == ("different", ALL_STEPS - 1)
    assert found.unexplained == Parting("pretrain", 19, "the number of steps, 20 in one run and 19 in the other")


@pytest.mark.parametrize(
    ("stage", "epoch", "name"),
    [("frozen", 1, "val_accuracy"), ("unfrozen", 3, "accuracy"), ("end_to_end", None, "accuracy")],
)
def test_an_accuracy_may_be_a_little_another_elsewhere(
    stage: str, epoch: int | None, name: str, small_run: Path, tmp_path: Path
) -> None:
    """One example of many near the border is enough for that."""

    def further(by: float) -> Any:
        def change(record: Any) -> None:
            found = record["stages"][stage] if epoch is None else record["stages"][stage]["epochs"][epoch - 1]
            found[name] -= by

        return change

    a_little, more = ACCURACY_TOLERANCE * 0.9, ACCURACY_TOLERANCE * 1.1
    there = edited(small_run, tmp_path / "there", record=further(a_little))
    found = verify(small_run, against=there)
    assert (found.verdict, found.accuracy_deviation) == ("numeric", pytest.approx(a_little))
    assert found.accuracy_at == (f"{stage}: {name}" if epoch is None else f"{stage}, epoch {epoch}: {name}")
    assert verify(small_run, against=there, tolerance=TOLERANCE * 0.8).verdict == "different"
    assert verify(small_run, against=edited(small_run, tmp_path / "far", record=further(more))).verdict == "different"
    here = edited(small_run, tmp_path / "here", record=further(a_little), environment=False)
    assert verify(small_run, against=here).verdict == "different"


def test_no_tolerance_holds_in_the_same_environment(small_run: Path, tmp_path: Path) -> None:
    other = edited(small_run, tmp_path / "other", rows=loss_off(3, 1 + 1e-7), environment=False)
    found = verify(small_run, against=other, tolerance=1.0)
    assert_different(found, "pretrain", 3, "loss")


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_beyond_every_tolerance(factor: float, small_run: Path, tmp_path: Path) -> None:
    found = verify(small_run, against=edited(small_run, tmp_path / "other", rows=loss_off(3, factor)), tolerance=1e9)
    assert (found.verdict, found.largest_deviation) == ("different", float("inf"))
    assert found.unexplained == Parting("pretrain", 3, "loss")
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["largest_deviation"] is None
    assert content["largest_at"] == "pretrain, step 3: loss"


def other_code(record: Any) -> None:
    record["code"]["masking.py"] = "0"


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (None, "exact"),
        (loss_off(3, 1 + TOLERANCE / 2), "different"),
        (in_row(3, "tensors", 1), "different"),
        (in_row(3, "batch", 1), "different"),
    ],
)
def test_changed_code_is_named_and_explains_no_other_bits(
    rows: Any, verdict: str, small_run: Path, tmp_path: Path
) -> None:
    other = edited(small_run, tmp_path / "other", rows=rows, record=other_code, environment=False)
    found = verify(small_run, against=other)
    assert found.verdict == verdict
    assert found.code == ("the code of masking.py changed",)
    assert found.inputs == found.environment == ()
    assert "code: the code of masking.py changed" in found.explanation


def test_changed_code_is_named_where_the_environment_has_changed_too(small_run: Path, tmp_path: Path) -> None:
    for factor, verdict in ((1 + FIRST_TOLERANCE / 2, "numeric"), (1 + FIRST_TOLERANCE * 2, "different")):
        other = edited(small_run, tmp_path / verdict, rows=loss_off(3, factor), record=other_code)
        found = verify(small_run, against=other)
        assert (found.verdict, found.code) == (verdict, ("the code of masking.py changed",))
        assert len(found.environment) == 1


@pytest.mark.long
def test_a_replay_by_changed_code_says_so(unlabelled_run: Path, tmp_path: Path) -> None:
    other = edited(unlabelled_run, tmp_path / "other", record=other_code, environment=False)
    found = verify(other)
    assert (found.verdict, found.code) == ("exact", ("the code of masking.py changed",))


# The first of several differences


@pytest.mark.parametrize(
    ("rows", "record", "first"),
    [
        # The figures of epoch 1 come after the row of step 4 and before that of step 5.
        (in_row(4, "tensors", 0), figure("pretrain", 1, "loss", 2.0), "pretrain, step 4: activation word_embedding"),
        (in_row(5, "tensors", 0), figure("pretrain", 1, "loss", 2.0), "pretrain, step 5: epoch 1: loss"),
        (in_row(12, "tensors", 0), figure("pretrain", 2, "loss", 2.0), "pretrain, step 10: epoch 2: loss"),
        (in_row(19, "tensors", 0), figure("frozen", 1, "loss", 2.0), "pretrain, step 19: activation word_embedding"),
        (both(in_row(3, "tensors", -1), in_row(3, "batch", 4)), None, "pretrain, step 3: batch sample_weight"),
        (both(in_row(3, "tensors", -1), loss_off(3, 2.0)), None, "pretrain, step 3: loss"),
        (both(in_row(3, "tensors", 0), loss_off(3, 2.0)), None, "pretrain, step 3: activation word_embedding"),
    ],
)
def test_the_first_of_several_is_named(rows: Any, record: Any, first: str, small_run: Path, tmp_path: Path) -> None:
    found = verify(small_run, against=edited(small_run, tmp_path / "x", rows=rows, record=record, environment=False))
    assert found.parting is not None
    assert found.parting.place == first


ONE_THREAD = """
from tensorflow.config import threading
threading.set_intra_op_parallelism_threads(1)
threading.set_inter_op_parallelism_threads(1)
"""
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}
ENVIRONMENTS = {
    "one thread": ({}, ONE_THREAD, "threads.intra_op was 0 and is 1"),
    "oneDNN off": ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "", "variables.TF_ENABLE_ONEDNN_OPTS was None and is '0'"),
    "AVX2 only": (AVX2, "", "variables.ONEDNN_MAX_CPU_ISA was None and is 'AVX2'"),
}


@slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_replay_elsewhere_is_never_different(
    name: str, small_run: Path, record_property: Any, tmp_path: Path
) -> None:
    variables, before, named = ENVIRONMENTS[name]
    code, found = replayed_elsewhere(small_run, variables, before, tmp_path)
    record_property("verdict", f"{name}: {found['verdict']}, deviation {found['largest_deviation']:.3g}")
    print(f"{name}: {found['verdict']}, largest deviation {found['largest_deviation']:.3g}, {found['parting']}")
    assert (found["verdict"], code) in (("exact", 0), ("numeric", 10))
    assert found["largest_deviation"] <= TOLERANCE
    assert found["unexplained"] is None
    assert named in found["environment"]


@slow
def test_other_products_are_numeric(small_run: Path, tmp_path: Path) -> None:
    """With oneDNN and without it: one of the two is what the run was computed with, whatever the processor."""
    replays = {way: replayed_elsewhere(small_run, {"TF_ENABLE_ONEDNN_OPTS": way}, "", tmp_path) for way in "01"}
    assert sorted(code for code, _ in replays.values()) == [0, 10]
    ((way, found),) = ((way, found) for way, (code, found) in replays.items() if code == 10)
    assert (found["verdict"], found["unexplained"]) == ("numeric", None)
    assert 0 < found["largest_deviation"] <= TOLERANCE
    assert found["parting"]["tensor"].startswith("activation ")
    assert f"variables.TF_ENABLE_ONEDNN_OPTS was None and is {way!r}" in found["environment"]


def replayed_elsewhere(run: Path, variables: dict[str, str], before: str, folder: Path) -> tuple[int, dict[str, Any]]:
    """What `verify` says in a process with other variables, behind code that changes its environment."""
    code = f"{before}\nfrom minibert.cli import main\nraise SystemExit(main(['verify', {str(run)!r}, '--json']))"
    replay = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env=os.environ | variables,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert replay.stdout, replay.stderr
    return replay.returncode, json.loads(replay.stdout)


# One step, repeated


@slow
def test_every_step_repeats(small_run: Path) -> None:
    found = repeat(small_run, count=3)
    assert (found.is_repeatable, found.exit_code, found.count) == (True, 0, 3)
    assert [step.stage for step in found.steps] == ["pretrain", "frozen", "unfrozen"]
    assert all(step.tensors > 10 and not step.results and not step.causes for step in found.steps)
    assert found.explanation[0] == "repeatable: one step of each stage, executed 3 times"
    assert json.loads(json.dumps(found.to_dict()))["exit_code"] == 0


@pytest.mark.long
def test_a_step_that_does_not_repeat_is_listed_by_tensor(unlabelled_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(range(10))
    healthy = TrainingStep.__call__

    def call(self: Any, step: int, batch: Any) -> Any:
        result = healthy(self, step, batch)
        result.fingerprint[self.fingerprint_names.index("gradient mlm_cls/bias")] += next(drawn) % 2
        return result

    monkeypatch.setattr(TrainingStep, "__call__", call)
    found = repeat(unlabelled_run, count=4)
    assert (found.is_repeatable, found.exit_code) == (False, 11)
    assert found.steps[0].results == {"gradient mlm_cls/bias": 2}
    assert found.explanation[0].startswith("not repeatable")
    assert "  gradient mlm_cls/bias: 2 different results" in found.explanation


@pytest.mark.long
def test_three_consumers_are_refused_in_training_and_named_as_the_cause(
    unlabelled_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.three_consumers(monkeypatch)
    with pytest.raises(RepeatabilityError, match=r"3 gradients are added in a racing order .*encoder_0_"):
        verify(unlabelled_run)
    found = repeat(unlabelled_run, count=3)
    assert (found.is_repeatable, found.exit_code) == (False, 11)
    cause = found.steps[0].causes[0]
    assert (cause.kind, len(cause.layers)) == ("racing sum", 3)
    assert any("encoder_0_multiheadattention" in layer for layer in cause.layers)
    assert f"  cause: {cause.explanation}" in found.explanation
    assert cause.operation in cause.explanation


def test_a_step_of_other_data_or_encodings_is_not_repeated(
    unlabelled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minibert.stages.fresh_stages", None)
    texts = write_texts(tmp_path / "texts.csv")
    texts.write_text(texts.read_text(encoding="utf-8").replace("awesome", "awful", 1), encoding="utf-8")
    with pytest.raises(CorpusError, match=r"^repeat: the recorded run's steps are required, but .* the corpus' digest"):
        repeat(unlabelled_run, count=2, data=texts)
    faults.other_encoding(monkeypatch)
    with pytest.raises(CorpusError, match=r"the digest of the token ids was"):
        repeat(unlabelled_run, count=2)


def test_one_execution_repeats_nothing(small_run: Path) -> None:
    with pytest.raises(SettingsError, match="repeat: 2 or more executions are required, but 1 came"):
        repeat(small_run, count=1)


def test_a_comparison_of_two_runs_does_not_load_tensorflow(small_run: Path) -> None:
    code = f"""
import sys
from minibert.cli import main
code = main(["verify", {str(small_run)!r}, "--against", {str(small_run)!r}])
assert not {{"tensorflow", "keras"}} & set(sys.modules)
raise SystemExit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"exact: {ALL_STEPS} steps compared\n"), done.stderr
