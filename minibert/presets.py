"""The runs that come with minibert, as code, and the figures that the notebooks published.

A preset is a function without arguments that returns `RunSettings`; its docstring says what it
reproduces, the command, what to expect and how long it takes. A run's settings are put together in
one order: preset, then a TOML file, then ``--set``, then ``--seed``; the later one wins.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibert.checked import nearest, shortened
from minibert.errors import SettingsError
from minibert.settings import (
    CorpusSettings,
    FinetuneSettings,
    ModelSettings,
    PretrainSettings,
    RecordSettings,
    RunSettings,
    TextSettings,
    replace_setting,
    settings_from_dict,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_LINE = re.compile(r"\(at line (\d+), column \d+\)$")
"""How the reader of TOML ends a message."""


def imdb() -> RunSettings:
    """Notebook 1: 50,000 film reviews, sequence length 256, hidden size 128, 8 heads.

    Command: ``minibert run imdb``, or ``minibert run imdb --data PATH`` with the archive, its
    unpacked folder, or a table of the same reviews.

    Expect: masked-LM loss from about 6.9 to 5.7, frozen validation accuracy 0.72 to 0.77, unfrozen
    about 0.86 after its first epoch, end to end 0.79 to 0.82. The notebook, one unseeded draw, has 0.64
    to 0.66, 0.83 and 0.80; see the README.

    Time: one to two hours on two x86-64 cores without a GPU, and 2 GB of memory: measured.

    Source: NOTEBOOKS, notebook 1. Classes: 0 = positive, 1 = negative, as its reader has them.
    """
    return RunSettings(preset="imdb", corpus=CorpusSettings(name="imdb"))


def _notebook_2(name: str, corpus: CorpusSettings) -> RunSettings:
    return RunSettings(
        preset=name,
        corpus=corpus,
        text=TextSettings(sequence_length=128),
        model=ModelSettings(hidden_size=32, heads=4),
    )


def amazon() -> RunSettings:
    """Notebook 2's code: 50,000 Amazon Polarity reviews, sequence length 128, hidden size 32, 4 heads.

    Command: ``minibert run amazon``; the reviews come from the Hugging Face hub, shuffled with seed
    42 and cut to 40,000 train and 10,000 test examples, as the notebook does.

    Expect: what the notebook shows, masked-LM loss from about 7.4 to 5.8, frozen validation accuracy 0.56
    to 0.63, unfrozen about 0.84 after its first epoch, end to end about 0.82, or better.

    Time: about a quarter of an hour on two x86-64 cores without a GPU, the download not counted: an
    estimate from the time of a step.

    Source: NOTEBOOKS, notebook 2. Classes: 0 = negative, 1 = positive, as given.
    """
    return _notebook_2("amazon", CorpusSettings(name="amazon"))


def jokes() -> RunSettings:
    """Notebook 2's title: Short Jokes, unlabelled, so the masked language model only.

    Command: ``minibert run jokes``, or with ``--data shortjokes.csv``.

    Expect: nothing was published for it. There is no classifier, and no end-to-end figure.

    Time: about three quarters of an hour on two x86-64 cores without a GPU: an estimate from the time of
    a step. 231,657 jokes are four and a half times the examples of `amazon`, padded to the same 128 tokens.

    Source: NOTEBOOKS, notebook 2: its settings, on the corpus that its title names.
    """
    return _notebook_2("jokes", CorpusSettings(name="jokes"))


def tiny() -> RunSettings:
    """The same code on the embedded corpus: offline, small, to see a whole run and to test one.

    Command: ``minibert run tiny``.

    Expect: masked-LM loss from 5.2 to 4.0, ``picture`` or ``film`` for the sample sentence's ``[mask]``,
    frozen validation accuracy near chance, unfrozen and end to end 0.84. On the same versions and kind
    of processor the bits are always the same.

    Time: about a minute on two x86-64 cores, start-up included, and as much for its ``verify``: measured.
    """
    return RunSettings(
        preset="tiny",
        corpus=CorpusSettings(name="embedded"),
        text=TextSettings(vocabulary_size=2_000, sequence_length=64),
        model=ModelSettings(hidden_size=64, heads=4, feed_forward_size=64),
        pretrain=PretrainSettings(epochs=3),
        finetune=FinetuneSettings(frozen_epochs=2, unfrozen_epochs=3),
        record=RecordSettings(checkpoint_steps=100, fingerprinted_steps="all"),
    )


PRESETS: Mapping[str, Callable[[], RunSettings]] = {"imdb": imdb, "amazon": amazon, "jokes": jokes, "tiny": tiny}
"""Every preset by name, in the order in which they are listed."""


def preset(name: str) -> RunSettings:
    """The settings of a preset.

    Raises:
        SettingsError: There is no such preset; the nearest one is named.
    """
    if name not in PRESETS:
        raise SettingsError(f"preset: {name!r} is not a preset; {nearest(name, list(PRESETS))}")
    return PRESETS[name]()


def describe_preset(name: str) -> dict[str, str]:
    """A preset's docstring by part: ``summary``, ``command``, ``expect``, ``time``, ``source``; without its marks."""
    preset(name)
    paragraphs = [" ".join(part.split()) for part in (PRESETS[name].__doc__ or "").replace("`", "").split("\n\n")]
    parts = {"summary": paragraphs[0]}
    for paragraph in paragraphs[1:]:
        title, _, text = paragraph.partition(": ")
        parts[title.lower()] = text
    return parts


def resolve_settings(
    name: str, *, file: Path | None = None, assignments: Iterable[str] = (), seed: int | None = None
) -> RunSettings:
    """A preset, changed by a TOML file, then by ``stage.field=value`` assignments, then by a seed.

    Raises:
        SettingsError: An unknown preset or setting, a value that does not fit, an unreadable file.
    """
    settings = preset(name)
    if file is not None:
        settings = _apply_file(settings, file)
    for assignment in assignments:
        settings = replace_setting(settings, assignment)
    return settings if seed is None else replace_setting(settings, f"seed={seed}")


def _apply_file(settings: RunSettings, file: Path) -> RunSettings:
    values = _read_toml(file)
    if values.get("preset", settings.preset) != settings.preset:
        raise SettingsError(
            f"{file}: preset: {settings.preset!r}, which is run, is required, but {values['preset']!r} came"
        )
    merged: dict[str, Any] = settings.to_dict()
    for key, value in values.items():
        stage = merged.get(key)
        merged[key] = {**stage, **value} if isinstance(stage, dict) and isinstance(value, dict) else value
    try:
        return settings_from_dict(RunSettings, merged)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from None


def _read_toml(file: Path) -> dict[str, Any]:
    """The tables of a TOML file, which may begin with a byte order mark.

    Raises:
        SettingsError: It cannot be read, or is no TOML; the message shows the line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{file}: a readable TOML file is required, but {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: UTF-8 is required, but {error}") from None
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = _LINE.search(str(error))
        lines = text.splitlines()
        if place is None or not 0 < int(place[1]) <= len(lines):
            raise SettingsError(f"{file}: TOML is required, but {error}") from None
        line = shortened(lines[int(place[1]) - 1].strip())
        raise SettingsError(
            f"{file}, line {place[1]}: TOML is required (text in quotes, a list as [0, 1], true or false), but "
            f"{line!r} came: {str(error)[: place.start()].strip()}"
        ) from None


@dataclass(frozen=True, kw_only=True)
class PublishedFigures:
    """What a notebook's saved output shows; None or empty where it shows nothing.

    One unseeded draw on an Apple M1 with Metal, so a faithful run lands near it, not on it.
    """

    notebook: str
    examples: Mapping[str, int]
    """How many texts of each split the notebook has: what a corpus of its kind is told by."""
    machine: str = "Apple M1, Metal, 8 GB"
    pretrain_losses: tuple[float, ...] = ()
    pretrain_step_milliseconds: tuple[float, float] | None = None
    first_epoch_predictions: tuple[tuple[str, float], ...] = ()
    frozen_validation_accuracies: tuple[float, ...]
    frozen_step_milliseconds: float
    unfrozen_first_validation_accuracy: float
    unfrozen_first_validation_loss: float
    unfrozen_step_milliseconds: float
    end_to_end_accuracy: float
    end_to_end_loss: float


PUBLISHED: Mapping[str, PublishedFigures] = {
    "imdb": PublishedFigures(
        notebook="notebook 1, IMDb",
        examples={"train": 25_000, "test": 25_000},
        first_epoch_predictions=(("movie", 0.044), ("this", 0.040), ("i", 0.040), ("a", 0.029), ("is", 0.024)),
        frozen_validation_accuracies=(0.6478, 0.6511, 0.6598, 0.6440, 0.6383),
        frozen_step_milliseconds=34,
        unfrozen_first_validation_accuracy=0.8279,
        unfrozen_first_validation_loss=0.3802,
        unfrozen_step_milliseconds=61,
        end_to_end_accuracy=0.8047,
        end_to_end_loss=0.9635,
    ),
    "amazon": PublishedFigures(
        notebook="notebook 2, Amazon",
        examples={"train": 40_000, "test": 10_000},
        pretrain_losses=(7.4093, 6.5568, 6.2563, 6.0063, 5.8242),
        pretrain_step_milliseconds=(237, 285),
        frozen_validation_accuracies=(0.6158, 0.6210, 0.5971, 0.6280, 0.5593),
        frozen_step_milliseconds=25,
        unfrozen_first_validation_accuracy=0.8416,
        unfrozen_first_validation_loss=0.3583,
        unfrozen_step_milliseconds=64,
        end_to_end_accuracy=0.8196,
        end_to_end_loss=0.7103,
    ),
}
"""The notebooks' published figures, by the preset that reproduces them."""
