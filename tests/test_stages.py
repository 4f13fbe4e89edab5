"""A run's stages are made ready from what was prepared, each on the texts that its settings name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from minibert import stages
from minibert.errors import DeviceError
from minibert.model import backend
from minibert.preparation import Prepared, prepare
from minibert.stages import finetuning, fresh_stages, initial_classifier, initial_masked_lm
from tests.runs import STEPS, small_settings, write_texts


def prepared(*assignments: str, data: Path | None = None) -> Prepared:
    return prepare(small_settings(*assignments), data=data)


def test_fresh_stages_are_those_of_a_run_in_order() -> None:
    stages = list(fresh_stages(prepared()))
    assert {stage.name: stage.steps for stage in stages} == STEPS
    assert [stage.index for stage in stages] == [0, 1, 2]


def test_without_labels_there_is_pretraining_alone(tmp_path: Path) -> None:
    found = prepared(data=write_texts(tmp_path / "texts.csv"))
    assert [stage.name for stage in fresh_stages(found)] == ["pretrain"]


def test_pretraining_leaves_the_test_split_out_if_asked() -> None:
    stage = next(fresh_stages(prepared("pretrain.splits=train")))
    assert stage.batches.steps_per_epoch == 4  # 29 texts in batches of 8


@pytest.mark.parametrize("frozen", [True, False])
def test_the_classifier_is_not_trained_on_what_it_is_validated_on(frozen: bool) -> None:
    found = prepared("finetune.validation_rate=0.25")
    classifier = initial_classifier(found.settings, initial_masked_lm(found.settings))
    batches = finetuning(found, classifier, frozen=frozen).batches
    trained = np.concatenate([batches.batch(step)["token_ids"] for step in range(batches.steps_per_epoch)])
    (kept, _), (held_out, _) = found.examples.for_classifier()
    assert len(kept) + len(held_out) == 29
    assert sorted(trained.tolist()) == sorted(kept.tolist())


@pytest.mark.parametrize(("gpus", "setting", "interval"), [(0, "by_device", 7), (1, "by_device", 37), (1, "all", 1)])
def test_which_steps_are_fingerprinted_is_a_setting_of_every_stage(
    gpus: int, setting: str, interval: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = prepared(f"record.fingerprinted_steps={setting}")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind] * gpus)
    assert [stage.step.fingerprint_interval for stage in fresh_stages(found)] == [interval] * 3


def test_a_runs_products_are_float32_on_a_gpu_too() -> None:
    experimental = tf.config.experimental
    experimental.enable_tensor_float_32_execution(True)
    stages.set_up_tensorflow()
    assert not experimental.tensor_float_32_execution_enabled()


def test_another_backend_is_refused_before_a_model_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    found = prepared()
    monkeypatch.setattr(backend, "BACKEND", "jax")
    monkeypatch.setattr(stages, "initial_masked_lm", None)
    with pytest.raises(DeviceError, match="Keras' backend: tensorflow is required, but 'jax' came"):
        next(fresh_stages(found))
