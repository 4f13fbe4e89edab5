"""Where the figures of two runs part, and by how much: an epoch's, what a stage ends with, the raw-text model's.

Counts have to be equal in every environment, losses and accuracies within the tolerances. A digest that parts is
named by its tensors, where the runs have those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from minibert.verify.differences import STATE, Deviation, Deviations, Difference, relative_deviation
from minibert.verify.verdict import Parting, Tolerances

_COUNTS = ("epoch", "steps", "count", "examples")
_LOSSES = ("loss", "val_loss")
_ACCURACIES = ("accuracy", "val_accuracy")
_OF_TRAINING = ("epoch", "loss", "accuracy", "steps", "count")
_BY_NAME = "_by_name"
"""The end of the name of a figure that has a digest for each tensor of a state."""


def epoch_differences(
    stage: str, first: dict[str, Any], second: dict[str, Any], *, tolerances: Tolerances, steps_before: int
) -> tuple[list[Difference], Deviations]:
    """The epochs of a stage whose figures part, wall times aside, then what the stage ends with."""
    found, deviations = [], Deviations()
    for number, (one, two) in enumerate(zip(first["epochs"], second["epochs"], strict=False), start=1):
        steps = number * int(one["steps"])
        parts, unexplained, largest = _figures(
            one,
            two,
            tolerances=tolerances,
            is_early=steps_before + steps <= tolerances.early_until(steps_before),
            of_training=_OF_TRAINING,
        )
        if parts:
            label = f"epoch {number}: "
            labels = tuple(shown for name in parts for shown in _labels(label, name, one, two))
            parting = Parting(stage, steps, labels[0], labels[1:])
            found.append(Difference(parting, tuple(label + name for name in unexplained)))
        deviations = deviations.or_larger(_named_deviations(largest, f"{stage}, epoch {number}: "))
    names = [n for n in STATE if first.get(f"{n}_sha256") != second.get(f"{n}_sha256")]
    if names:
        labels = tuple(shown for name in names for shown in _labels("final ", f"{name}_sha256", first, second))
        found.append(Difference(Parting(stage, int(first["steps"]), labels[0], labels[1:])))
    return found, deviations


def _labels(label: str, name: str, one: dict[str, Any], two: dict[str, Any]) -> Iterator[str]:
    """What to call a figure that differs; the digest of a state by each of its tensors that differ, if any does."""
    kind = name.removesuffix("_sha256")
    left, right = (figures.get(kind + _BY_NAME) for figures in (one, two))
    tensors = [t for t in {**left, **right} if left.get(t) != right.get(t)] if left and right else []
    yield from [f"{label}{kind}: {tensor}" for tensor in tensors] or [label + kind]


def raw_text_differences(
    first: dict[str, Any], second: dict[str, Any], *, tolerances: Tolerances, steps_before: int
) -> tuple[list[Difference], Deviations]:
    """Likewise of the raw-text model."""
    parts, unexplained, largest = _figures(
        first, second, tolerances=tolerances, is_early=steps_before <= tolerances.early_until(steps_before)
    )
    if not parts:
        return [], Deviations()
    labels = tuple(name.removesuffix("_sha256") for name in parts)
    difference = Difference(Parting("end_to_end", 0, labels[0], labels[1:]), tuple(unexplained))
    return [difference], _named_deviations(largest, "end_to_end: ")


def _named_deviations(found: Deviations, place: str) -> Deviations:
    figures = (getattr(found, field.name) for field in fields(found))
    return Deviations(*(Deviation(one.value, one.at and place + one.at) for one in figures))


def _figures(
    one: dict[str, Any],
    two: dict[str, Any],
    *,
    tolerances: Tolerances,
    is_early: bool,
    of_training: tuple[str, ...] = (),
) -> tuple[list[str], list[str], Deviations]:
    """Names of figures that differ in the order of computation, those that are unexplained, and the deviations.

    Args:
        one: Figures by name.
        two: Those of the other run.
        tolerances: Of losses and accuracies.
        is_early: Whether the losses are of the first steps.
        of_training: Those that were there before the weights that the others were evaluated with.
    """
    names = [n for n in {**one, **two} if one.get(n) != two.get(n) and not n.endswith(("seconds", _BY_NAME))]
    names.sort(key=lambda name: (name not in of_training, name != "weights_sha256"))
    unexplained, loss, accuracy = [], Deviation(), Deviation()
    for name in names:
        if name not in one or name not in two or name in _COUNTS:
            unexplained.append(name)
        elif name in _LOSSES:
            relative = relative_deviation(one[name], two[name])
            loss = loss.or_larger(Deviation(relative, name))
            if not relative <= (tolerances.early if is_early else tolerances.late):
                unexplained.append(name)
        elif name in _ACCURACIES:
            absolute = abs(one[name] - two[name])
            accuracy = accuracy.or_larger(Deviation(absolute, name))
            if not absolute <= tolerances.accuracy:
                unexplained.append(name)
    if is_early:
        return names, unexplained, Deviations(early=loss, accuracy=accuracy)
    return names, unexplained, Deviations(late=loss, accuracy=accuracy)
