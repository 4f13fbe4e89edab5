"""Where the traces of two runs of a stage part, and by how much.

A *difference* is something at a place of a run: a column of one step's row, a figure of an epoch. They are
listed in the order in which a run computes them: the rows of an epoch's steps, then the epoch's figures. Some
may not come from another environment: batches, counts, the number of steps, and losses and accuracies beyond the
tolerances.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from minibert.fingerprints import TURNS, Trace, TraceHeader
from minibert.verify.verdict import Parting, Tolerances, names_state

_KINDS = ("batch", "activation", "loss", "gradient", "weight")
STATE = ("weights", "optimizer")
"""What of a stage is digested."""
_WITH_HELD_WEIGHTS = "frozen"
"""The stage whose rows have no fingerprints of all weights: the encoder's are held."""
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Difference:
    """What parts at one place.

    Attributes:
        parting: The place, and the tensors in the order of computation.
        unexplained: Those that another environment may not change.
    """

    parting: Parting
    unexplained: tuple[str, ...] = ()

    @property
    def unexplained_parting(self) -> Parting | None:
        """The place, with those alone; None if there are none."""
        if not self.unexplained:
            return None
        tensor, *also = self.unexplained
        late = 0 if tensor.startswith("batch ") else self.parting.steps_before
        return replace(self.parting, tensor=tensor, also=tuple(also), steps_before=late)

    @property
    def is_of_state(self) -> bool:
        """Whether digests of weights or optimizer part: an epoch's figures beside equal ones are of equal weights."""
        return any(names_state(name, *STATE) for name in (self.parting.tensor, *self.parting.also))

    def seen_late(self, one: TraceHeader, two: TraceHeader, *, together: Sequence[int] = (0,)) -> Difference:
        """The same, with the steps before it in which a weight may have parted unseen; a batch is seen at once.

        Args:
            one: What the rows of one trace hold.
            two: Likewise of the other.
            together: Steps done, 0 among them, after which all weights were the same.
        """
        if self.parting.tensor.startswith("batch "):
            return self
        step, interval = self.parting.step, shared_interval(one, two)
        late = step
        if not self._may_be_unseen(one, interval):
            late = (step - 1) % interval  # since the fingerprints of an earlier step
            by_turns = any(name.startswith("weight ") for name in (*one.by_turns, *two.by_turns))
            late += interval * (TURNS - 1 if by_turns else 0)
        is_figure = self.is_of_state  # of the weights after so many steps, which were not the same
        ends = [done for done in together if done < step or (done == step and not is_figure)]
        since_together = step - max(ends, default=0)  # of a stage without steps there is none
        return replace(self, parting=replace(self.parting, steps_before=min(late, since_together)))

    def _may_be_unseen(self, header: TraceHeader, interval: int) -> bool:
        """Whether it may come of a state that no row has fingerprints of: an optimizer's, or the frozen encoder's.

        What the encoder's weights change is seen in its activations, if every step has fingerprints of all of them.
        """
        tensor = self.parting.tensor
        if names_state(tensor, "optimizer"):
            return True
        if self.parting.stage != _WITH_HELD_WEIGHTS:
            return False
        trained = {name.removeprefix("weight ").partition("/")[0] for name in header.tensors}
        held = [layer for layer in _activated([tensor, *header.by_turns]) if layer not in trained]
        return self.is_of_state or interval > 1 or bool(held)


@dataclass(frozen=True)
class Deviation:
    """The largest deviation of a figure, and which figure it is."""

    value: float = 0.0
    at: str | None = None

    def or_larger(self, other: Deviation) -> Deviation:
        """The larger of two; the first if they are equal."""
        return other if other.at is not None and (self.at is None or other.value > self.value) else self


@dataclass(frozen=True)
class Deviations:
    """The largest of the very first steps' losses, of the first ones', of those after them, and of all accuracies."""

    first: Deviation = Deviation()
    early: Deviation = Deviation()
    late: Deviation = Deviation()
    accuracy: Deviation = Deviation()

    def or_larger(self, other: Deviations) -> Deviations:
        """The larger ones of two."""
        return Deviations(*(getattr(self, f.name).or_larger(getattr(other, f.name)) for f in fields(self)))


def shared_interval(one: TraceHeader, two: TraceHeader) -> int:
    """Steps from one at which both traces have fingerprints to the next, from step 0 on."""
    return math.lcm(one.interval, two.interval)


def shared_fingerprints(one: Trace, two: Trace) -> int:
    """Steps at which both traces have fingerprints."""
    return len(range(0, min(len(one.rows), len(two.rows)), shared_interval(one.header, two.header)))


def trace_differences(
    one: Trace, two: Trace, *, tolerances: Tolerances, steps_before: int, first_step: int = 0
) -> tuple[list[Difference], Deviations]:
    """The steps at which two traces of a stage part, in order: at least the first one, and the first unexplained.

    Args:
        one: A trace.
        two: Another of the same stage.
        tolerances: Of losses.
        steps_before: Steps of the stages before.
        first_step: The stage's step that the traces' first rows are of.
    """
    stage, count = one.header.stage, min(len(one.rows), len(two.rows))
    columns = list(_shared_columns(one, two))
    differs = np.zeros((count, len(columns)), dtype=bool)
    for place, (_, left, right) in enumerate(columns):
        differs[:, place] = left[:count] != right[:count]
    steps, names = np.arange(count) + first_step, [name for name, _, _ in columns]
    have_both = steps % shared_interval(one.header, two.header) == 0
    in_every_row = np.array([_is_in_every_row(name) for name in names], dtype=bool)
    differs &= have_both[:, None] | in_every_row
    same_loss = one.rows["loss"][:count] == two.rows["loss"][:count]
    relative = _relative(one.losses[:count], two.losses[:count], same=same_loss)
    fixed = np.array([name.startswith("batch ") for name in names], dtype=bool)
    limits = tolerances.of_steps(steps, steps_before)
    beyond = np.isinf(relative) | (relative > limits)
    alone = tuple(f"{name}, which is in one run only" for name in _names_of_one(one, two)) if count else ()
    found = []
    unexplainable = np.logical_or(np.any(differs[:, fixed], axis=1), beyond)
    for step in _first_steps(np.any(differs, axis=1), unexplainable, with_first=bool(alone)):
        only = alone if step == 0 else ()
        parts = tuple(sorted((*(names[n] for n in np.flatnonzero(differs[step])), *only), key=_kind))
        unexplained = tuple(n for n in parts if n.startswith("batch ") or (n == "loss" and beyond[step]) or n in only)
        found.append(Difference(Parting(stage, first_step + step, parts[0], parts[1:]), unexplained))
    if len(one.rows) != len(two.rows):
        name = f"the number of steps, {len(one.rows)} in one run and {len(two.rows)} in the other"
        found.append(Difference(Parting(stage, count, name), (name,)))
    is_early, is_first = np.isfinite(limits), (steps < tolerances.first_horizon) & (steps_before == 0)
    found_in = [Deviation()] * 2
    for place, among in enumerate((is_first, is_early)):
        if not same_loss[among].all():
            largest = int(np.argmax(np.where(among, relative, 0.0)))
            found_in[place] = Deviation(float(relative[largest]), f"{stage}, step {first_step + largest}: loss")
    return found, Deviations(*found_in)


def _activated(tensors: Sequence[str]) -> list[str]:
    """The layers whose activations are among the tensors."""
    return [name.removeprefix("activation ") for name in tensors if name.startswith("activation ")]


def _is_in_every_row(name: str) -> bool:
    """Whether it is no fingerprint, which not every step has."""
    return name == "loss" or name.startswith("batch ")


def _kind(name: str) -> int:
    """A tensor's place in the order of computation, by its kind alone."""
    return _KINDS.index(name.partition(" ")[0])


def _first_steps(differs: np.ndarray, unexplained: np.ndarray, *, with_first: bool) -> list[int]:
    """The first step that parts and the first that is not explained, once each."""
    steps = {int(np.argmax(mask)) for mask in (differs, unexplained) if mask.any()}
    return sorted(steps | {0} if with_first else steps)


def _relative(a: np.ndarray, b: np.ndarray, *, same: np.ndarray) -> np.ndarray:
    """|a - b| / max(|a|, |b|), float64: 0 where the bits agree, infinite where one is not finite."""
    one, two = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(one) & np.isfinite(two)
    with np.errstate(invalid="ignore"):
        relative = np.abs(one - two) / np.maximum(np.maximum(np.abs(one), np.abs(two)), _TINY)
    return np.where(same, 0.0, np.where(finite, relative, np.inf))


def relative_deviation(a: float, b: float) -> float:
    """|a - b| / max(|a|, |b|)."""
    return float(_relative(np.array([a]), np.array([b]), same=np.array([a == b]))[0])


def _shared_columns(one: Trace, two: Trace) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name and values of what both traces hold: batch, activations, loss, gradients, weights."""
    yield from _named(one, two, "batch", one.header.batch, two.header.batch, "batch ")
    tensors = list(_named(one, two, "tensors", one.header.tensors, two.header.tensors, ""))
    yield from (column for column in tensors if column[0].startswith("activation "))
    yield "loss", one.rows["loss"], two.rows["loss"]
    yield from (column for column in tensors if not column[0].startswith("activation "))


def _names_of_one(one: Trace, two: Trace) -> list[str]:
    """What only one of two traces holds: other layers, or other trained weights."""
    left, right = ([f"batch {name}" for name in t.header.batch] + list(t.header.tensors) for t in (one, two))
    return [name for name in [*left, *right] if (name in left) != (name in right)]


def _named(
    one: Trace, two: Trace, group: str, left: tuple[str, ...], right: tuple[str, ...], prefix: str
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    places = {name: place for place, name in enumerate(right)}
    for place, name in enumerate(left):
        if name in places:
            yield prefix + name, one.rows[group][:, place], two.rows[group][:, places[name]]
