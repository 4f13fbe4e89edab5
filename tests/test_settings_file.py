"""The file of settings says what each means, and is read back to the same settings."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest

from minibert.cli import main
from minibert.presets import PRESETS, preset, resolve_settings
from minibert.settings import RunSettings, replace_setting, valid_settings
from minibert.settings_file import field_meanings, settings_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHANGES = (
    "masking.static=false",
    "corpus.train_examples=12",
    "corpus.class_names=no,yes",
    "model.precision=mixed_bfloat16",
    "pretrain.learning_rate=1e-7",
    "text.stripped_characters=\"'\\\x7f\t!",
    "finetune.validation_rate=0.25",
    "pretrain.sample_sentence=caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{GRINNING FACE} [mask]",
)


def read_back(text: str, name: str, folder: Path) -> RunSettings:
    (folder / "a.toml").write_text(text, encoding="utf-8")
    return resolve_settings(name, file=folder / "a.toml")


@pytest.mark.parametrize("name", PRESETS)
def test_the_file_gives_the_same_settings(name: str, tmp_path: Path) -> None:
    assert read_back(settings_toml(preset(name)), name, tmp_path) == preset(name)


def test_changed_settings_are_read_back_too(tmp_path: Path) -> None:
    settings = preset("tiny")
    for change in CHANGES:
        settings = replace_setting(settings, change)
    assert read_back(settings_toml(settings), "tiny", tmp_path) == settings


def test_every_setting_is_in_it_once_with_what_it_means() -> None:
    """One that is added later, too."""
    text = settings_toml(preset("imdb"))
    names = [name.rpartition(".")[2] for name in valid_settings() if name != "preset"]
    assert re.findall(r"^(?:# )?(\w+) =", text, re.MULTILINE) == names
    for above in re.findall(r"^(.*)\n(?:# )?\w+ =", text, re.MULTILINE):
        assert re.match(r"# .*[.)]$", above), above
    tables = [field.name for field in dataclasses.fields(RunSettings) if field.name not in ("preset", "seed")]
    assert list(tomllib.loads(text))[1:] == tables
    assert "`" not in text.replace(preset("imdb").text.stripped_characters.replace("\\", "\\\\"), "")
    assert max(map(len, text.splitlines())) <= 100


def test_few_values_are_listed() -> None:
    assert '(One of "sum", "mean".)\nloss_reduction = "sum"\n' in settings_toml(preset("imdb")).replace("\n# ", " ")


def test_a_setting_that_is_none_is_a_comment() -> None:
    assert "\n# train_examples =\n" in settings_toml(preset("imdb"))


def test_a_meaning_is_one_line() -> None:
    found = field_meanings(type(preset("imdb").masking))
    assert found["selection_rate"] == "Probability that a token is selected for prediction."
    assert all("\n" not in meaning for meaning in found.values())


def test_presets_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "amazon"]) == 0
    assert capsys.readouterr().out == settings_toml(preset("amazon"))
    assert main(["presets", "amazon", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["presets", "--json"]) == 0
    assert found in json.loads(capsys.readouterr().out)
    assert main(["presets", "amzon"]) == 2
    assert "preset: 'amzon' is not a preset; the nearest is 'amazon'" in capsys.readouterr().err
