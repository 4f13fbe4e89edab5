"""Losses are held to one tolerance in a run's first steps, and their means to another after them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from minibert.fingerprints import Trace, TraceHeader
from minibert.verify.comparison import _stage_differences
from minibert.verify.differences import Deviation, Deviations, Difference, trace_differences
from minibert.verify.figure_differences import epoch_differences
from minibert.verify.verdict import Parting, Tolerances

HEADER = TraceHeader("frozen", ("labels",), ("activation a", "gradient a", "weight a"))
BY_TURNS = dataclasses.replace(HEADER, by_turns=("weight a",))
TOLERANCES = Tolerances(first=1e-5, early=1e-3, late=0.1, accuracy=0.02, first_horizon=5, horizon=30, later_horizon=15)
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


@pytest.mark.parametrize(("step", "before", "is_held"), [(4, 0, True), (5, 0, False), (4, 3, False)])
def test_the_very_first_losses_are_held_closer_in_the_first_stage(step: int, before: int, is_held: bool) -> None:
    other = trace(loss={step: 2.0 + 2e-4})
    (difference,), deviations = trace_differences(trace(), other, tolerances=TOLERANCES, steps_before=before)
    assert bool(difference.unexplained) == is_held
    assert deviations.first == (deviations.early if is_held else Deviation())
    assert deviations.early.value == pytest.approx(1e-4, rel=1e-2)


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


@pytest.mark.parametrize(
    ("one", "two", "shown"),
    [
        ({"a/kernel": "1", "a/bias": "2"}, {"a/kernel": "3", "a/bias": "2"}, ["weights: a/kernel"]),
        ({"a/kernel": "1", "a/bias": "2"}, {"a/kernel": "3", "b/bias": "2"}, [
            "weights: a/kernel", "weights: a/bias", "weights: b/bias"]),
        ({"a/kernel": "1"}, {"a/kernel": "1"}, ["weights"]),
        ({"a/kernel": "1"}, None, ["weights"]),
        (None, None, ["weights"]),
    ],
)  # fmt: skip
def test_of_weights_that_part_the_tensors_are_named(
    one: dict[str, str] | None, two: dict[str, str] | None, shown: list[str]
) -> None:
    """Of an epoch and of a stage; if none of them differs, the digest of all is."""
    records = [stage(), stage()]
    records[1]["weights_sha256"] = records[1]["epochs"][1]["weights_sha256"] = "other"
    for record, names in zip(records, (one, two), strict=True):
        for place in (record, record["epochs"][1]):
            place |= {} if names is None else {"weights_by_name": names}
    of_epoch, of_stage = epoch_differences("frozen", *records, tolerances=TOLERANCES, steps_before=BEFORE)[0]
    for found, label in ((of_epoch, "epoch 2: "), (of_stage, "final ")):
        assert [found.parting.tensor, *found.parting.also] == [label + name for name in shown]
        assert found.is_of_state


@pytest.mark.parametrize(("step", "before"), [(0, 0), (2, 2), (7, 7), (11, 7)])
def test_what_is_fingerprinted_by_turns_may_have_parted_before(step: int, before: int) -> None:
    found = Difference(Parting("frozen", step, "weight a", ("loss",)), ("loss",)).seen_late(HEADER, BY_TURNS)
    assert found.parting == Parting("frozen", step, "weight a", ("loss",), steps_before=before)
    assert found.unexplained_parting == Parting("frozen", step, "loss", steps_before=before)
    assert f"(weights may have parted up to {before} steps before)" in found.parting.place or before == 0


@pytest.mark.parametrize(
    ("changed", "parting"),
    [
        ({"val_loss": 2.0}, Parting("frozen", 4, "epoch 1: val_loss")),
        ({"weights_sha256": "b"}, Parting("frozen", 4, "epoch 1: weights", steps_before=4)),
        (
            {"weights_sha256": "b", "val_loss": 2.0},
            Parting("frozen", 4, "epoch 1: weights", ("epoch 1: val_loss",), steps_before=4),
        ),
        ({"optimizer_sha256": "c"}, Parting("frozen", 8, "final optimizer", steps_before=8)),
        (
            {"optimizer_sha256": "c", "optimizer_by_name": {"adam/m": "4"}},
            Parting("frozen", 8, "final optimizer: adam/m", steps_before=8),
        ),
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
        record["optimizer_by_name"] = {"adam/m": "3"}
    place = records[1] if "optimizer_sha256" in changed else records[1]["epochs"][0]
    place.update(changed)
    found, _ = _stage_differences([rows, rows], records, tolerances=TOLERANCES, steps_before=BEFORE)
    assert [difference.parting for difference in found] == [parting]


@pytest.mark.parametrize(
    ("stage", "tensor", "together", "before"),
    [
        ("frozen", "epoch 2: weights", (0, 15), 15),
        ("frozen", "activation b", (0, 15), 15),  # of a layer whose weights no row has
        ("frozen", "activation a", (0, 15), 7),
        ("frozen", "weight a", (0, 15), 7),
        ("unfrozen", "epoch 2: weights", (0, 15), 7),
        ("unfrozen", "activation b", (0, 15), 7),
        ("unfrozen", "final optimizer", (0,), 30),  # it has a digest at the stage's end alone
    ],
)
def test_what_no_row_has_a_fingerprint_of_may_have_parted_since_its_last_equal_digest(
    stage: str, tensor: str, together: tuple[int, ...], before: int
) -> None:
    """The frozen encoder's weights have a digest at each epoch's end, and an optimizer one at the stage's."""
    found = Difference(Parting(stage, 30, tensor)).seen_late(BY_TURNS, BY_TURNS, together=together)
    assert found.parting == Parting(stage, 30, tensor, steps_before=before)


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
    ("header", "intervals", "steps", "unseen"),
    [
        (HEADER, (1, 1), (296, 297, 300), (0, 0, 0)),
        (BY_TURNS, (1, 1), (296, 297, 300), (7, 7, 7)),
        (HEADER, (37, 37), (296, 297, 300), (36, 0, 3)),
        (HEADER, (37, 1), (296, 297, 300), (36, 0, 3)),
        (BY_TURNS, (37, 37), (296, 297, 300), (295, 259, 262)),
        (HEADER, (2, 3), (5, 6, 7), (4, 5, 0)),
        (HEADER, (7, 7), (301, 302, 307), (6, 0, 5)),
        (BY_TURNS, (7, 7), (301, 302, 307), (55, 49, 54)),
        (HEADER, (7, 37), (259, 260, 261), (258, 0, 1)),
    ],
)
def test_how_late_a_difference_may_be_seen_is_told(
    header: TraceHeader, intervals: tuple[int, int], steps: tuple[int, ...], unseen: tuple[int, ...]
) -> None:
    """Step 296 has fingerprints where one in 37 has; of two runs those count that both have."""
    one, two = (dataclasses.replace(header, stage="unfrozen", interval=interval) for interval in intervals)
    rows = [Trace(header, np.zeros(400, dtype=HEADER.row)) for header in (one, two)]
    for trace_of in rows:
        trace_of.rows["step"] = np.arange(400)
    for step, before in zip(steps, unseen, strict=True):
        other = Trace(two, rows[1].rows.copy())
        other.rows["loss"][step] = np.float32(1.0).view(np.uint32)
        records = [{**stage(), "steps": 400, "epochs": []}] * 2
        [found], _ = _stage_differences([rows[0], other], records, tolerances=TOLERANCES, steps_before=BEFORE)
        assert found.parting == Parting("unfrozen", step, "loss", steps_before=before)


@pytest.mark.parametrize(
    ("interval", "by_turns", "before"),
    [
        (1, (), 0),
        (1, ("activation logits",), 0),
        (1, ("activation encoder_0_ffn",), 300),
        (1, ("weight logits/kernel",), 7),
        (7, (), 300),
    ],
)
def test_where_the_encoder_is_held_it_may_have_parted_since_the_last_equal_weights(
    interval: int, by_turns: tuple[str, ...], before: int
) -> None:
    """Rows have no fingerprints of its weights: all of its activations at every step show what they change."""
    tensors = ("activation encoder_0_ffn", "activation logits", "weight logits/kernel")
    header = TraceHeader("frozen", ("token_ids",), tensors, by_turns, interval)
    found = Difference(Parting("frozen", 300, "loss")).seen_late(header, header)
    assert found.parting.steps_before == before


@pytest.mark.parametrize(
    ("equal", "step", "before"),
    [((4, 8), 7, 3), ((4, 8), 4, 0), ((8,), 7, 7), ((8,), 8, 0), ((), 8, 7)],
)
def test_weights_that_were_the_same_at_an_epochs_end_parted_after_it(
    equal: tuple[int, ...], step: int, before: int
) -> None:
    found = Difference(Parting("frozen", step, "weight a"))
    assert found.seen_late(BY_TURNS, BY_TURNS, together=[0, *equal]).parting.steps_before == before


@pytest.mark.parametrize("header", [HEADER, BY_TURNS])
def test_of_a_stage_without_steps_weights_may_differ_at_its_end(header: TraceHeader) -> None:
    """They are those of the stage before."""
    found = Difference(Parting("frozen", 0, "final weights"))
    assert found.seen_late(header, header).parting == found.parting


def test_weights_that_differ_at_an_epochs_end_parted_after_the_one_before() -> None:
    found = Difference(Parting("frozen", 8, "epoch 2: weights"))
    assert found.seen_late(BY_TURNS, BY_TURNS, together=[0, 4]).parting.steps_before == 4
