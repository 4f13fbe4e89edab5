"""Losses are held to one tolerance in a run's first steps, and their means to another after them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from minibert.fingerprints import Trace, TraceHeader
from minibert.verify.comparison import _stage_differences
from minibert.verify.differences import (
    Deviation,
    Deviations,
    Difference,
    epoch_differences,
    raw_text_differences,
    relative_deviation,
    trace_differences,
)
from minibert.verify.verdict import TOLERANCE, Parting, Tolerances, Verdict

HEADER = TraceHeader("frozen", ("labels",), ("activation a", "gradient a", "weight a"))
BY_TURNS = dataclasses.replace(HEADER, by_turns=("weight a",))
TOLERANCES = Tolerances(early=1e-3, late=0.1, accuracy=0.02, horizon=30, later_horizon=15)
BEFORE = 10
"""Steps of the stage before: of this one, the first five are held step by step."""


def trace(**changed: Any) -> Trace:
    """Eight steps; ``loss`` by step, and places in ``batch`` or ``tensors`` by step."""
    rows = np.zeros(8, dtype=HEADER.row)
    rows["step"], losses = np.arange(8), np.full(8, 2.0, dtype=np.float32)
    for step, loss in changed.get("loss", {}).items():
        losses[step] = loss
    rows["loss"] = losses.view(np.uint32)
    for group in ("batch", "tensors"):
        for step, place in changed.get(group, {}).items():
            rows[group][step, place] = 1
    return Trace(HEADER, rows)


def compared(**changed: Any) -> tuple[list[Parting], list[Parting], Deviations]:
    """What parts, what of it is unexplained, and by how much."""
    found, deviations = trace_differences(trace(), trace(**changed), tolerances=TOLERANCES, steps_before=BEFORE)
    unexplained = [difference.unexplained_parting for difference in found]
    return [d.parting for d in found], [p for p in unexplained if p is not None], deviations


def test_equal_traces_do_not_part() -> None:
    assert compared() == ([], [], Deviations())


@pytest.mark.parametrize(("step", "is_held"), [(0, True), (4, True), (5, False), (7, False)])
def test_a_steps_loss_is_held_up_to_the_horizon_and_not_after_it(step: int, is_held: bool) -> None:
    parting = Parting("frozen", step, "loss")
    partings, unexplained, deviations = compared(loss={step: 2.2})
    assert partings == [parting]
    assert unexplained == ([parting] if is_held else [])
    assert deviations.late == Deviation()
    assert deviations.early.at == (f"frozen, step {step}: loss" if is_held else None)
    assert deviations.early.value == pytest.approx(0.2 / 2.2 if is_held else 0.0)


def test_the_first_stages_losses_are_held_longer_than_those_of_a_stage_on_its_weights() -> None:
    for before, is_held in ((0, True), (TOLERANCES.later_horizon - 5, False)):
        (difference,), _ = trace_differences(trace(), trace(loss={6: 2.2}), tolerances=TOLERANCES, steps_before=before)
        assert bool(difference.unexplained) == is_held


@pytest.mark.parametrize(("first_step", "is_held"), [(20, True), (TOLERANCES.horizon, False)])
def test_a_row_of_the_first_stage_compared_alone_is_held_as_long_as_in_the_whole(
    first_step: int, is_held: bool
) -> None:
    """As a replay does, step by step."""
    one, two = (Trace(HEADER, whole.rows[:1]) for whole in (trace(), trace(loss={0: 2.2})))
    (difference,), _ = trace_differences(one, two, tolerances=TOLERANCES, steps_before=0, first_step=first_step)
    assert difference.parting.step == first_step
    assert bool(difference.unexplained) == is_held


@pytest.mark.parametrize("step", [2, 7])
@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_never_explained(step: int, loss: float) -> None:
    assert compared(loss={step: loss})[1] == [Parting("frozen", step, "loss")]


def test_a_batch_is_never_explained_however_late() -> None:
    partings, unexplained, _ = compared(batch={7: 0}, tensors={3: 1})
    assert partings == [Parting("frozen", 3, "gradient a"), Parting("frozen", 7, "batch labels")]
    assert unexplained == [Parting("frozen", 7, "batch labels")]


def test_the_largest_deviation_is_that_of_the_first_steps() -> None:
    _, _, deviations = compared(loss={1: 2.0001, 3: 2.0002, 6: 9.0})
    assert deviations.early.at == "frozen, step 3: loss"
    assert deviations.early.value == pytest.approx(1e-4, rel=1e-2)


def stage(**changed: float) -> dict[str, Any]:
    """A stage of two epochs of four steps."""
    epochs = [{"epoch": n, "loss": 2.0, "steps": 4, "count": 9, "seconds": n, "val_loss": 3.0} for n in (1, 2)]
    for name, factor in changed.items():
        figure, _, number = name.rpartition("_")
        epochs[int(number) - 1][figure] *= factor
    return {"epochs": epochs, "steps": 8, "weights_sha256": "a", "optimizer_sha256": "b"}


@pytest.mark.parametrize(
    ("changed", "unexplained", "early", "late"),
    [
        ({"loss_1": 1.0005}, None, "frozen, epoch 1: loss", None),
        ({"val_loss_1": 1.002}, "epoch 1: val_loss", "frozen, epoch 1: val_loss", None),
        ({"loss_2": 1.05}, None, None, "frozen, epoch 2: loss"),
        ({"val_loss_2": 1.2}, "epoch 2: val_loss", None, "frozen, epoch 2: val_loss"),
        ({"count_2": 2}, "epoch 2: count", None, None),
        ({"seconds_2": 2}, None, None, None),
    ],
)
def test_an_epochs_losses_are_held_by_where_it_ends(
    changed: dict[str, float], unexplained: str | None, early: str | None, late: str | None
) -> None:
    """The first of them ends after step 14 of the run, the second after step 18."""
    found, deviations = epoch_differences(
        "frozen", stage(), stage(**changed), tolerances=TOLERANCES, steps_before=BEFORE
    )
    assert [name for difference in found for name in difference.unexplained] == ([unexplained] if unexplained else [])
    assert (deviations.early.at, deviations.late.at) == (early, late)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", ["accuracy", "val_accuracy"])
@pytest.mark.parametrize(("by", "is_held"), [(0.019, False), (-0.019, False), (0.021, True), (float("nan"), True)])
def test_accuracies_are_held_absolutely_and_however_late(number: int, name: str, by: float, is_held: bool) -> None:
    stages = [stage(), stage()]
    for one, accuracy in zip(stages, (0.5, 0.5 + by), strict=True):
        one["epochs"][number - 1][name] = accuracy
    found, deviations = epoch_differences("frozen", *stages, tolerances=TOLERANCES, steps_before=BEFORE)
    label = f"epoch {number}: {name}"
    assert [n for difference in found for n in difference.unexplained] == ([label] if is_held else [])
    assert deviations.accuracy.at == f"frozen, {label}"
    assert deviations.accuracy.value == pytest.approx(abs(by), nan_ok=True)
    assert deviations.early == deviations.late == Deviation()


@pytest.mark.parametrize(
    ("names", "tensor", "also"),
    [
        (["weights"], "final weights", ()),
        (["optimizer"], "final optimizer", ()),
        (["weights", "optimizer"], "final weights", ("final optimizer",)),
    ],
)
def test_what_a_stage_ends_with_is_compared(names: list[str], tensor: str, also: tuple[str, ...]) -> None:
    """Only these say that something changed after the last step's row."""
    changed = {**stage(), **{f"{name}_sha256": "other" for name in names}}
    for one, two in ((stage(), changed), (changed, stage())):
        (found,), _ = epoch_differences("frozen", one, two, tolerances=TOLERANCES, steps_before=BEFORE)
        assert found.parting == Parting("frozen", 8, tensor, also)
        assert found.unexplained == ()


@pytest.mark.parametrize(("step", "before"), [(0, 0), (2, 2), (7, 7), (11, 7)])
def test_what_is_fingerprinted_by_turns_may_have_parted_before(step: int, before: int) -> None:
    found = Difference(Parting("frozen", step, "weight a", ("loss",)), ("loss",)).seen_late(HEADER, BY_TURNS)
    assert found.parting == Parting("frozen", step, "weight a", ("loss",), steps_before=before)
    assert found.unexplained_parting == Parting("frozen", step, "loss", steps_before=before)
    assert f"(parted at most {before} steps before)" in found.parting.place or before == 0


@pytest.mark.parametrize(
    ("changed", "parting"),
    [
        ({"val_loss": 2.0}, Parting("frozen", 4, "epoch 1: val_loss")),
        ({"weights_sha256": "b"}, Parting("frozen", 4, "epoch 1: weights", steps_before=4)),
        (
            {"weights_sha256": "b", "val_loss": 2.0},
            Parting("frozen", 4, "epoch 1: weights", ("epoch 1: val_loss",), steps_before=4),
        ),
        ({"optimizer_sha256": "c"}, Parting("frozen", 8, "final optimizer", steps_before=7)),
    ],
)
def test_beside_equal_weights_an_epochs_figures_part_where_they_are_seen(
    changed: dict[str, Any], parting: Parting
) -> None:
    """A tensor is fingerprinted by turns, but what two epochs end with says whether it parted before."""
    rows = Trace(BY_TURNS, trace().rows)
    records = [stage(), stage()]
    for record in records:
        record["epochs"][0]["weights_sha256"] = "a"
    place = records[1] if "optimizer_sha256" in changed else records[1]["epochs"][0]
    place.update(changed)
    found, _ = _stage_differences([rows, rows], records, tolerances=TOLERANCES, steps_before=BEFORE)
    assert [difference.parting for difference in found] == [parting]


def test_a_batch_is_seen_at_once() -> None:
    found = Difference(Parting("frozen", 7, "batch labels"), ("batch labels",))
    assert found.seen_late(HEADER, BY_TURNS) == found


@pytest.mark.parametrize(
    ("intervals", "seen"),
    [((1, 1), [1, 3, 4, 5, 6, 7]), ((3, 3), [3, 5, 6]), ((1, 3), [3, 5, 6]), ((3, 1), [3, 5, 6]), ((2, 3), [5, 6])],
)
def test_fingerprints_are_compared_at_the_steps_that_have_them_in_both_runs(
    intervals: tuple[int, int], seen: list[int]
) -> None:
    """Loss (step 5) and batch (none here) are held at every step; the rows between have no fingerprints to hold."""
    other = trace(tensors={1: 0, 3: 0, 4: 1, 6: 2, 7: 2}, loss={5: 2.5})
    one, two = (
        Trace(dataclasses.replace(HEADER, interval=interval), rows.rows)
        for interval, rows in zip(intervals, (trace(), other), strict=True)
    )
    found = []
    for first in range(8):
        rest = [Trace(t.header, t.rows[first : first + 1]) for t in (one, two)]
        parts, _ = trace_differences(*rest, tolerances=TOLERANCES, steps_before=BEFORE, first_step=first)
        found += [difference.parting.step for difference in parts]
    assert sorted(set(found)) == seen
    (whole, *_), _ = trace_differences(one, two, tolerances=TOLERANCES, steps_before=BEFORE)
    assert whole.parting.step == seen[0]


@pytest.mark.parametrize(
    ("header", "interval", "unseen"), [(HEADER, 1, 0), (BY_TURNS, 1, 7), (HEADER, 37, 3), (BY_TURNS, 37, 262)]
)
def test_how_late_a_difference_may_be_seen_is_told(header: TraceHeader, interval: int, unseen: int) -> None:
    """Step 296 has fingerprints where one in 37 has, and step 300 has not."""
    header = dataclasses.replace(header, interval=interval)
    rows = Trace(header, np.zeros(400, dtype=HEADER.row))
    rows.rows["step"] = np.arange(400)
    other = Trace(header, rows.rows.copy())
    other.rows["loss"][300] = np.float32(1.0).view(np.uint32)
    records = [{**stage(), "steps": 400, "epochs": []}] * 2
    [found], _ = _stage_differences([rows, other], records, tolerances=TOLERANCES, steps_before=BEFORE)
    assert found.parting == Parting("frozen", 300, "loss", steps_before=unseen)
    assert [header.unseen_steps(step) for step in (297, 296)] == [unseen - 3, unseen - 4 + interval] or interval == 1


@pytest.mark.parametrize(("steps", "is_held_early"), [(15, True), (16, False)])
def test_raw_texts_losses_are_held_by_the_length_of_the_run(steps: int, is_held_early: bool) -> None:
    one = {"loss": 0.5, "accuracy": 0.8, "examples": 100, "seconds": 1.0, "weights_sha256": "a"}
    two = {**one, "loss": 0.501, "seconds": 2.0, "weights_sha256": "b"}
    (difference,), deviations = raw_text_differences(one, two, tolerances=TOLERANCES, steps_before=steps)
    assert difference.parting == Parting("end_to_end", 0, "weights", ("loss",))
    assert difference.unexplained == (("loss",) if is_held_early else ())
    assert (deviations.early.at is None) is not is_held_early


def test_a_tolerance_that_is_wider_than_the_late_one_holds_late_too() -> None:
    assert Tolerances.of_first_steps(0.5) == Tolerances(early=0.5, late=0.5)
    assert Tolerances.of_first_steps(TOLERANCE) == Tolerances()


def test_a_smaller_tolerance_makes_the_others_smaller_by_the_same_factor() -> None:
    found, all_by_default = Tolerances.of_first_steps(TOLERANCE / 50), Tolerances()
    assert found.early == pytest.approx(all_by_default.early / 50)
    assert found.late == pytest.approx(all_by_default.late / 50)
    assert found.accuracy == pytest.approx(all_by_default.accuracy / 50)


@pytest.mark.parametrize(
    ("one", "two", "deviation"),
    [(1.0, 1.0, 0.0), (2.0, 1.0, 0.5), (-1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1.0, float("inf"), float("inf")),
     (float("nan"), 1.0, float("inf"))],
)  # fmt: skip
def test_a_deviation_is_relative_to_the_larger(one: float, two: float, deviation: float) -> None:
    assert relative_deviation(one, two) == relative_deviation(two, one) == deviation


def test_all_deviations_are_explained_and_what_is_held_is_said() -> None:
    deviations: dict[str, Any] = {"largest_deviation": 2e-7, "largest_at": "here", "late_deviation": 0.2,
                                  "late_at": "there"}  # fmt: skip
    first, code = Parting("frozen", 0, "loss"), ("the code changed",)
    deviations |= {"accuracy_deviation": 0.01, "accuracy_at": "far"}
    verdict = Verdict("different", 20, parting=first, tolerances=TOLERANCES, environment=("another",), **deviations)
    assert verdict.explanation[2:5] == [
        (
            "largest relative deviation of a loss in the first 30 steps (15 behind the first stage): 2e-07, here, "
            "within the tolerance of 0.001"
        ),
        "largest relative deviation of a loss after them: 0.2, there, beyond the tolerance of 0.1",
        "largest deviation of an accuracy: 0.01, far, within the tolerance of 0.02",
    ]
    verdict = Verdict("different", 20, parting=first, tolerances=TOLERANCES, code=code, **deviations)
    assert not [line for line in verdict.explanation if "tolerance" in line], "changed code is held to nothing"
