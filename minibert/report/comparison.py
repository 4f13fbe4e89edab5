"""A run's figures beside those that a notebook published.

Nothing in the notebooks is seeded and each shows one run, so a difference is between two draws: it
says how near this run came, never that one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from minibert.presets import PUBLISHED, PublishedFigures

ONE_DRAW = "The notebook is one unseeded run, so its figures are one draw: expect to be near them, not on them."


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
    """The notebook that this run's preset reproduces, if there is one."""
    return PUBLISHED.get(str(record.get("settings", {}).get("preset")))


def stage_of(record: dict[str, Any], name: str) -> dict[str, Any]:
    """A stage's part of the record; empty where the run has not come to it."""
    return record.get("stages", {}).get(name) or {}


def epochs_of(record: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A stage's finished epochs."""
    return stage_of(record, name).get("epochs") or []


def compare(record: dict[str, Any]) -> list[Comparison]:
    """Every figure that a notebook has published for this preset, with this run's beside it."""
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
        Comparison(stage="end to end", figure="accuracy on raw test text", here=end.get("accuracy"),
                   published=published.end_to_end_accuracy),
        Comparison(stage="end to end", figure="loss on raw test text", here=end.get("loss"),
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


def step_milliseconds(stage: dict[str, Any]) -> float | None:
    """Mean time of a training step in a stage's finished epochs, evaluation not included."""
    epochs = stage.get("epochs") or []
    steps = sum(epoch.get("steps") or 0 for epoch in epochs)
    return 1000 * sum(epoch.get("seconds") or 0.0 for epoch in epochs) / steps if steps else None


def _by_epoch(
    record: dict[str, Any], stage: str, figure: str, key: str, published: Sequence[float]
) -> Iterator[Comparison]:
    epochs = {number: epoch.get(key) for number, epoch in enumerate(epochs_of(record, stage), 1)}
    for number, value in enumerate(published, 1):
        yield Comparison(stage=stage, figure=f"{figure}, epoch {number}", here=epochs.get(number), published=value)
    if not published and epochs:
        last = max(epochs)
        yield Comparison(stage=stage, figure=f"{figure}, epoch {last}", here=epochs[last], published=None)
