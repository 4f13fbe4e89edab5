"""The notebook's code and ours agree where they compute the same, and part where they do not."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from minibert.corpora.embedded import embedded_reviews

sys.path.append(str(Path(__file__).parents[1]))  # last, so that the package that is installed stays the one tested
paired_run = importlib.import_module("benchmarks.paired_run")

TINY_MODEL = ("model.hidden_size=8", "model.heads=2", "model.feed_forward_size=8")
TINY = (
    *("--reviews", "64", "--length", "12", "--vocabulary", "120", "--epochs", "2", "--seeds", "0"),
    *(part for setting in TINY_MODEL for part in ("--set", setting)),
    *("--set", "finetune.frozen_epochs=1", "--set", "finetune.unfrozen_epochs=1"),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """64 reviews to train on, 32 to validate on."""
    path = tmp_path_factory.mktemp("paired") / "reviews.jsonl"
    rows = []
    for split, count in (("train", 64), ("test", 32)):
        reviews = embedded_reviews(split, 0, count)
        rows += [{"split": split, "text": str(text), "label": int(label)}
                 for text, label in zip(reviews.texts, reviews.labels, strict=True)]  # fmt: skip
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def masked_lm_losses(table):
    """The losses of the masked language model's first epoch, side by side."""
    settings = paired_run.paired_settings(
        reviews=64, length=12, vocabulary=120, epochs=1, more=[*TINY_MODEL, "model.dropout_rate=0"]
    )
    prepared = importlib.import_module("minibert.preparation").prepare(settings, data=table)
    sides = importlib.import_module("benchmarks.paired_sides")
    data = sides.Data(prepared.settings, prepared.examples)
    return {name: sides.SIDES[name](data).pretrain({0, 1})[0] for name in ("notebook", "ours")}


def apart(one, two):
    """The largest relative distance of two series of losses."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, two, strict=True))


@pytest.mark.slow
def test_both_codes_agree_step_by_step_with_the_same_adam(masked_lm_losses):
    assert len(masked_lm_losses["notebook"]) == 3  # 96 reviews in batches of 32
    assert apart(masked_lm_losses["notebook"], masked_lm_losses["ours"]) < 1e-5


# The whole command


@pytest.fixture(scope="module")
def result(table):
    """What the command prints, once for all tests."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert paired_run.main(["--data", str(table), "--json", *TINY]) == 0
    return json.loads(printed.getvalue())


@pytest.mark.slow
def test_every_side_trains_every_step(result):
    assert [row["side"] for row in result["runs"]] == list(paired_run.SIDES)
    for row in result["runs"]:
        assert len(row["losses"]) == 2 * 3
        assert list(row["frozen"]) == list(row["unfrozen"]) == ["0", "1", "2"]
        assert all(len(losses) == 2 + 2 for losses in row["classifier_losses"].values())
        assert row["epoch_losses"][1] < row["epoch_losses"][0]


@pytest.mark.slow
@pytest.mark.parametrize("sides", [["notebook", "ours"], ["notebook-by-word", "ours-by-word"]])
def test_every_stage_agrees_with_the_same_adam(result, sides):
    row = next(row for row in result["agreement"] if row["sides"] == sides)
    assert row["loss"]["6"] < 1e-5
    assert row["untrained_classifier_loss"] < 1e-4
    assert row["accuracy"] == 0


@pytest.mark.slow
def test_the_frozen_classifier_trains_no_embedding_so_that_adam_is_the_same(result):
    found = {row["side"]: row["classifier_losses"]["0"] for row in result["runs"]}
    assert apart(found["notebook"][:2], found["ours-by-word"][:2]) < 1e-5
    assert apart(found["notebook"][3:], found["ours-by-word"][3:]) > 1e-4


@pytest.mark.slow
def test_adam_by_word_parts_from_the_notebooks_after_its_first_update(result):
    notebook, ours = (next(row["losses"] for row in result["runs"] if row["side"] == side)
                      for side in ("notebook", "ours-by-word"))  # fmt: skip
    assert apart(notebook[:1], ours[:1]) < 1e-6
    assert apart(notebook[1:2], ours[1:2]) > 3e-5


@pytest.mark.slow
def test_tables_name_every_side(result):
    text = paired_run.markdown(result["runs"])
    assert all(f"| {side} | 0 |" in text for side in paired_run.SIDES)
    assert "| notebook and ours | 0 |" in text


# Adam


def test_a_word_that_repeats_moves_by_the_formula():
    import keras
    import tensorflow as tf

    by_word = importlib.import_module("benchmarks.paired_adam").ByWordAdam
    upstream = np.array([[[1.0], [1.0], [1.0], [2.0]]], dtype=np.float32)
    # Three equal gradients: (g + g + g) / sqrt(g^2 + g^2 + g^2) = sqrt(3), and (3 g) / sqrt((3 g)^2) = 1.
    for adam, moved in ((keras.optimizers.Adam, 3**0.5), (by_word, 1.0)):
        layer = keras.layers.Embedding(3, 1)
        layer.build(())
        before, optimizer = layer.get_weights()[0], adam(0.001)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(np.array([[1, 1, 1, 2]])) * upstream)
        gradients = tape.gradient(total, layer.trainable_variables)
        optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
        assert (before - layer.get_weights()[0])[:, 0] / 0.001 == pytest.approx([0.0, moved, 1.0], rel=1e-3)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reviews", "3"], "--reviews: 4 or more is required, but 3 came"),
        (["--epochs", "0"], "--epochs: 1 or more is required, but 0 came"),
        (["--seeds", "-1"], "--seeds: 0 or more is required, but -1 came"),
        (["--seeds", "0", "--without-dropout", "0"], "--seeds: 1 or more is required where --without-dropout is 0"),
        (["--length", "0"], "text.sequence_length"),
        (["--set", "model.hiden_size=8"], "'model.hidden_size'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    assert paired_run.main(["--data", "reviews.parquet", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_missing_data_are_named(tmp_path, capsys):
    assert paired_run.main(["--data", str(tmp_path / "none.parquet")]) == 3
    assert "none.parquet" in capsys.readouterr().err
