"""The file of settings says what each means, and is read back to the same settings."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest

from minibert.cli import main
from minibert.errors import SettingsError
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
    names = [name.rpartition(".")[2] for name in valid_settings()]
    assert re.findall(r"^(?:# )?(\w+) =", text, re.MULTILINE) == names
    for above in re.findall(r"^(.*)\n(?:# )?\w+ =", text, re.MULTILINE):
        assert re.match(r"# .*[.)]$", above), above
    tables = [field.name for field in dataclasses.fields(RunSettings) if field.name not in ("preset", "seed")]
    assert list(tomllib.loads(text)) == ["preset", "seed", *tables]
    assert "`" not in text.replace(preset("imdb").text.stripped_characters.replace("\\", "\\\\"), "")
    assert max(map(len, text.splitlines())) <= 100


def test_what_it_says_is_said_in_the_words_of_toml() -> None:
    text = settings_toml(preset("imdb"))
    assert not re.search(r"\b(True|False|None)\b", text)
    assert "as the notebooks do; false: anew for every epoch." in text.replace("\n# ", " ")


def test_a_file_of_another_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_back(settings_toml(preset("imdb")), "tiny", tmp_path)
    assert str(caught.value) == f"{tmp_path / 'a.toml'}: preset: 'tiny', which is run, is required, but 'imdb' came"
    assert read_back("[masking]\nstatic = false\n", "tiny", tmp_path).preset == "tiny", "a file need not name one"


@pytest.mark.parametrize(
    ("line", "reason"),
    [("static = False", "Invalid value"), ("vocabulary_size =", "Invalid value"), ("a = 0,1", "Expected newline"),
     ("selection_rate = 1\nselection_rate = 1", "Cannot overwrite a value"), ("x = " + "y" * 900, "Invalid value")],
)  # fmt: skip
def test_what_is_no_toml_is_shown(line: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_back(f"# a comment\n[masking]\n{line}\n", "tiny", tmp_path)
    message = str(caught.value)
    wrong = line.splitlines()[-1]
    assert f"a.toml, line {2 + len(line.splitlines())}: TOML is required (text in quotes, a list as [0, 1], " in message
    assert f"but {wrong[:200]!r}"[:-1] in message
    assert reason in message
    assert len(message) < 600 + len(str(tmp_path))


def test_a_byte_order_mark_is_no_error_and_another_encoding_is_one(tmp_path: Path) -> None:
    assert read_back("\N{BYTE ORDER MARK}seed = 3\n", "tiny", tmp_path).seed == 3
    (tmp_path / "b.toml").write_bytes("# caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"b\.toml: UTF-8 is required, but "):
        resolve_settings("tiny", file=tmp_path / "b.toml")


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
