"""A run's figures beside those that a notebook published.

Nothing in the notebooks is seeded and each shows one run, so a difference is between two draws: it
says how near this run came, never that one of them is wrong. Figures are compared only where the same
was computed: with the preset's recipe, on a corpus with as many texts as the notebook's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minibert.checked import flat
from minibert.presets import PRESETS, PUBLISHED, PublishedFigures
from minibert.report.stages import epochs_of, stage_of
from minibert.report.times import step_milliseconds

ONE_DRAW = "The notebook is one unseeded run, so its figures are one draw: expect to be near them, not on them."


_RECIPE = ("text", "masking", "model", "pretrain", "finetune")
"""The stages whose settings decide a figure; which texts they are applied to is told by their numbers."""
_HARMLESS = ("masking.vocabulary_size", "pretrain.sample_sentence", "pretrain.top_k")
"""What the corpus decides, and what decides no loss and no accuracy."""


_NO_RECIPE = ("seed", "masking.vocabulary_size")
"""A seed is no recipe, and every run fills in the size of its vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One figure, here and in the notebook; None where one of them has none."""

    stage: str
    figure: str
    here: float | None
    published: float | None
    digits: int = 4

    @property
    def difference(self) -> float | None:
        """Here less published."""
        return None if self.here is None or self.published is None else self.here - self.published


def published_figures(record: dict[str, Any]) -> PublishedFigures | None:
    """What the notebook of this run's preset shows, if there is one and this run can be compared with it."""
    return None if why_not_compared(record) else _of_preset(record)


def why_not_compared(record: dict[str, Any]) -> str | None:
    """Why a run of a notebook's preset is not compared with the notebook; None: it is, or there is no notebook."""
    published = _of_preset(record)
    if published is None:
        return None
    reasons = [*_other_recipe(record), *_other_corpus(record, published)]
    return f"Not compared with {published.notebook}: {'; '.join(reasons)}." if reasons else None


def why_compared(record: dict[str, Any]) -> str:
    """On what ground a run is compared with a notebook, in a sentence."""
    published = _of_preset(record)
    assert published is not None
    counts = _counts(published.examples)
    return f"The recipe is the preset's, and the corpus has as many texts as the notebook's, {counts}."


def changed_settings(record: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """``stage.field`` -> its value and the preset's, where they differ; nothing for a preset that is not known."""
    name, values = str(record["settings"].get("preset")), flat(record["settings"])
    usual = flat(PRESETS[name]().to_dict()) if name in PRESETS else {}
    return {
        key: (values[key], value)
        for key, value in usual.items()
        if key in values and key not in _NO_RECIPE and values[key] != value
    }


def shown_setting(value: Any) -> str:
    """A setting's value as in JSON."""
    return json.dumps(value, ensure_ascii=False)


def _of_preset(record: dict[str, Any]) -> PublishedFigures | None:
    return PUBLISHED.get(str(record.get("settings", {}).get("preset")))


def _other_recipe(record: dict[str, Any]) -> Iterator[str]:
    """The settings that differ from the preset's: the first by value, the number of the others."""
    changed = [
        f"{key} is {shown_setting(value)}, not {shown_setting(usual)}"
        for key, (value, usual) in changed_settings(record).items()
        if key.partition(".")[0] in _RECIPE and key not in _HARMLESS
    ]
    if changed:
        others = len(changed) - 1
        yield changed[0] + (f" (and {others} more setting{'s' if others > 1 else ''})" if others else "")


def _other_corpus(record: dict[str, Any], published: PublishedFigures) -> Iterator[str]:
    corpus = record.get("corpus") or {}
    found = corpus.get("examples") or {}
    if found != published.examples:
        yield f"the corpus has {_counts(found)} texts, not {_counts(published.examples)}"
    elif corpus.get("class_names") is None:
        yield "the corpus has no labels"


def _counts(examples: Mapping[str, int]) -> str:
    return " and ".join(f"{count:,} {split}" for split, count in examples.items()) or "no"


def compare(record: dict[str, Any]) -> list[Comparison]:
    """Every figure that a notebook has published for this preset, with this run's beside it; none if not comparable."""
    published = published_figures(record)
    if published is None:
        return []
    end = stage_of(record, "end_to_end")
    unfrozen = (epochs_of(record, "unfrozen") or [{}])[0]
    accuracies = published.frozen_validation_accuracies
    return [
        *_by_epoch(record, "pretrain", "loss", "loss", published.pretrain_losses),
        *_by_epoch(record, "frozen", "validation accuracy", "val_accuracy", accuracies),
        Comparison(stage="unfrozen", figure="validation accuracy, epoch 1", here=unfrozen.get("val_accuracy"),
                   published=published.unfrozen_first_validation_accuracy),
        Comparison(stage="unfrozen", figure="validation loss, epoch 1", here=unfrozen.get("val_loss"),
                   published=published.unfrozen_first_validation_loss),
        Comparison(stage="end_to_end", figure="accuracy on raw test text", here=end.get("accuracy"),
                   published=published.end_to_end_accuracy),
        Comparison(stage="end_to_end", figure="loss on raw test text", here=end.get("loss"),
                   published=published.end_to_end_loss),
    ]  # fmt: skip


def compare_speed(record: dict[str, Any]) -> list[tuple[str, float | None, str]]:
    """Milliseconds a step here, by stage, and what the notebook shows for its own machine."""
    published = published_figures(record)
    if published is None:
        return []
    pretrain = published.pretrain_step_milliseconds
    shown = {
        "pretrain": f"{pretrain[0]:g} to {pretrain[1]:g}" if pretrain else "not shown",
        "frozen": f"{published.frozen_step_milliseconds:g}",
        "unfrozen": f"{published.unfrozen_step_milliseconds:g}",
    }
    return [(stage, step_milliseconds(stage_of(record, stage)), text) for stage, text in shown.items()]


def _by_epoch(
    record: dict[str, Any], stage: str, figure: str, key: str, published: Sequence[float]
) -> Iterator[Comparison]:
    epochs = {number: epoch.get(key) for number, epoch in enumerate(epochs_of(record, stage), 1)}
    for number, value in enumerate(published, 1):
        yield Comparison(stage=stage, figure=f"{figure}, epoch {number}", here=epochs.get(number), published=value)
    if not published and epochs:
        last = max(epochs)
        yield Comparison(stage=stage, figure=f"{figure}, epoch {last}", here=epochs[last], published=None)
