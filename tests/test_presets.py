"""Presets are the notebooks' settings, documented, and overridden in one order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minibert.errors import SettingsError
from minibert.presets import PRESETS, PUBLISHED, describe_preset, preset, resolve_settings
from minibert.settings import PUNCTUATION


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_carries_its_own_name_and_is_documented(name: str) -> None:
    settings = preset(name)
    assert settings.preset == name
    assert settings == preset(name)
    assert {"summary", "command", "expect", "time"} <= describe_preset(name).keys()
    assert f"minibert run {name}" in describe_preset(name)["command"]
    assert "`" not in "".join(describe_preset(name).values())


def test_the_notebooks_share_what_they_share() -> None:
    for name in ("imdb", "amazon", "jokes"):
        settings = preset(name)
        assert (settings.text.vocabulary_size, settings.text.lowercase) == (30_000, "ascii")
        assert (settings.text.line_break, settings.text.stripped_characters) == ("<br />", PUNCTUATION)
        assert settings.text.vocabulary_splits == settings.pretrain.splits == "train+test"
        assert (settings.pretrain.epochs, settings.pretrain.batch_size) == (5, 32)
        assert (settings.pretrain.learning_rate, settings.pretrain.loss_reduction) == (0.001, "sum")
        assert settings.pretrain.embedding_second_moment == settings.finetune.embedding_second_moment == "occurrence"
        assert (settings.finetune.frozen_epochs, settings.finetune.unfrozen_epochs) == (5, 5)
        assert (settings.finetune.learning_rate, settings.finetune.classifier_size) == (0.001, 64)
        assert (settings.model.feed_forward_size, settings.model.blocks) == (128, 1)
        assert (settings.model.dropout_rate, settings.model.layer_norm_epsilon) == (0.1, 1e-6)
        assert not settings.model.padding_mask
        assert settings.masking.static
        assert settings.masking.protected_ids == (0, 1, 2)


def test_each_notebook_has_its_own_shape() -> None:
    imdb, amazon, jokes = preset("imdb"), preset("amazon"), preset("jokes")
    assert (imdb.text.sequence_length, imdb.model.hidden_size, imdb.model.heads) == (256, 128, 8)
    assert (amazon.text.sequence_length, amazon.model.hidden_size, amazon.model.heads) == (128, 32, 4)
    for name in PRESETS:  # the readers of their own corpora know how many; a table of the user's is taken whole
        assert (preset(name).corpus.train_examples, preset(name).corpus.test_examples) == (None, None)
    assert amazon.corpus.shuffle_seed == 42
    assert (jokes.text, jokes.model, jokes.pretrain) == (amazon.text, amazon.model, amazon.pretrain)
    assert [preset(name).corpus.name for name in PRESETS] == ["imdb", "amazon", "jokes", "embedded"]


def test_published_figures_belong_to_presets_and_have_their_epochs() -> None:
    assert set(PUBLISHED) == {"imdb", "amazon"}
    for name, figures in PUBLISHED.items():
        assert len(figures.frozen_validation_accuracies) == preset(name).finetune.frozen_epochs
        assert len(figures.pretrain_losses) in (0, preset(name).pretrain.epochs)
    assert (PUBLISHED["imdb"].end_to_end_accuracy, PUBLISHED["imdb"].end_to_end_loss) == (0.8047, 0.9635)
    assert (PUBLISHED["amazon"].end_to_end_accuracy, PUBLISHED["amazon"].end_to_end_loss) == (0.8196, 0.7103)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tny", "preset: 'tny' is not a preset; the nearest is 'tiny'"),
        ("IMDB", "preset: 'IMDB' is not a preset; there are imdb, amazon, jokes, tiny"),
        ("", "preset: '' is not a preset; there are imdb, amazon, jokes, tiny"),
    ],
)
def test_an_unknown_preset_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        preset(name)


def test_file_then_assignments_then_seed_override_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "seed = 3\n[pretrain]\nepochs = 9\nbatch_size = 8\n"
        "[masking]\nprotected_ids = [0, 1]\n[corpus]\ntext_column = 'é'\n",
        encoding="utf-8",
    )
    settings = resolve_settings("tiny", file=file, assignments=["pretrain.epochs=1", "seed=4"], seed=5)
    assert (settings.seed, settings.pretrain.epochs, settings.pretrain.batch_size) == (5, 1, 8)
    assert settings.masking.protected_ids == (0, 1)
    assert settings.corpus.text_column == "é"
    assert settings.corpus.name == "embedded"  # what a table of the file leaves out stays the preset's
    assert resolve_settings("tiny", file=file).seed == 3
    assert resolve_settings("tiny", file=file, assignments=["seed=4"]).seed == 4
    assert resolve_settings("tiny") == preset("tiny")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[pretrain]\nepoch = 1\n", "'epoch' is not a setting; the nearest is 'epochs'"),
        (b"[pretrian]\nepochs = 1\n", "'pretrian' is not a setting; the nearest is 'pretrain'"),
        (b'[pretrain]\nepochs = "1"\n', "pretrain.epochs: an integer is required, but '1' came"),
        (b"pretrain = 1\n", "pretrain: PretrainSettings or a table of them is required, but 1 came"),
        (b"[model]\nheads = 5\n", "model.heads: a divisor of model.hidden_size"),
        (
            b"[pretrain\n",
            "TOML is required (text in quotes, a list as [0, 1], true or false), but '[pretrain' came: Ex",
        ),
        (b"preset = '\xff'\n", "UTF-8 is required, but"),
        pytest.param(b"seed = " + b"[" * 100_000, "TOML is required, but", id="nested"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"{re.escape(str(file))}(, line 1)?: .*{re.escape(message)}"):
        resolve_settings("tiny", file=file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: a readable TOML file is required, but No such file"):
        resolve_settings("tiny", file=tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="a readable TOML file is required"):
        resolve_settings("tiny", file=tmp_path)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(SettingsError, match="seed: an integer from 0"):
        resolve_settings("tiny", seed=-1)
