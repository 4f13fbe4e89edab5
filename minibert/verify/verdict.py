"""The answer of a comparison, for a person and for a machine.

| verdict          | means                                                                     | exit code |
|------------------|---------------------------------------------------------------------------|-----------|
| `exact`          | the same bits wherever compared, in each stage's weights and optimizer    | 0         |
| `numeric`        | other bits in another environment: losses, accuracies within tolerances   | 10        |
| `different`      | other bits in the same environment, or more than another one may change   | 11        |
| `not comparable` | other settings or another corpus: and which                               | 12        |

In one environment the bits must agree: there is no tolerance under which a changed weight could hide. Changed code
is named, and no reason for other bits. Where the environment has changed, sums may have been added in another order;
but the vocabulary, token ids, order, masks, labels, counts and the number of steps must still be the same. Weights
and the sample sentence's predictions are not held then: what they are worth shows in the losses and accuracies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

EXIT_CODES = {"exact": 0, "numeric": 10, "different": 11, "not comparable": 12}
TOLERANCE = 1e-3
"""Largest relative deviation of a loss of the first `HORIZON` steps for `numeric`."""
FIRST_TOLERANCE = 1e-5
"""Likewise of a step's loss within `FIRST_HORIZON`, in float32: what the golden run's losses are held to. In its 50
steps every environment was within 4.2e-7, another processor's kernels within 1.4e-7 at the shapes of ``tiny`` and of
notebook 2; a learning rate 0.1 % greater makes 5e-5."""
LATE_TOLERANCE = 0.25
"""Largest relative deviation of an epoch's mean loss, a validation's or the raw texts' after them."""
ACCURACY_TOLERANCE = 0.1
"""Largest absolute deviation of any accuracy, of 0 to 1: some four times what one thread in place of two made of the
last epoch's of an earlier, longer ``tiny``, 0.026 (`benchmarks.tolerance`)."""
HORIZON = 200
"""Steps of a run's first stage in which every step's loss is held to `TOLERANCE`. Training doubles a rounding
again and again: later on a single step's loss says nothing about where a deviation comes from."""
FIRST_HORIZON = 50
"""Steps of a run's first stage in which every step's loss is held to `FIRST_TOLERANCE`."""
LATER_HORIZON = 100
"""Likewise of the later stages, in steps of the run: they start from weights that already differ, and a classifier's
loss shows that more. Of ``tiny`` on TensorFlow 2.18, 2.20 and 2.21, with fewer examples: after 50 to 132 steps of
pretraining the losses that follow differ by 2e-7, until step 126 of a run at the earliest (2e-4); after 188 steps, in
which the masked language model's differ by up to 0.03 %, a frozen classifier's first one by 0.4 %."""


@dataclass(frozen=True)
class Tolerances:
    """What losses and accuracies are held to where the environment differs.

    Attributes:
        first: Of the loss of each of the very first steps; relative.
        early: Of a loss in the first steps, each step's and each figure's; relative.
        late: Of the losses after them, where single steps are not held any more; relative.
        accuracy: Of every accuracy; absolute.
        first_horizon: The very first steps of a run's first stage.
        horizon: The first steps of a run's first stage.
        later_horizon: Those of the later stages, in steps of the run.
    """

    first: float = FIRST_TOLERANCE
    early: float = TOLERANCE
    late: float = LATE_TOLERANCE
    accuracy: float = ACCURACY_TOLERANCE
    first_horizon: int = FIRST_HORIZON
    horizon: int = HORIZON
    later_horizon: int = LATER_HORIZON

    @classmethod
    def of_first_steps(cls, early: float, *, precision: str = "float32") -> Tolerances:
        """All of them from the first steps' tolerance.

        That of the very first steps is greater and smaller with it; in another precision than float32 it is the same.
        A smaller one than `TOLERANCE` makes the others smaller by the same factor; a greater one leaves them, but
        the later losses are held no closer than the first.
        """
        factor = min(early / TOLERANCE, 1.0)
        first = early * FIRST_TOLERANCE / TOLERANCE if precision == "float32" else early
        return cls(first, early, max(early, LATE_TOLERANCE * factor), ACCURACY_TOLERANCE * factor)

    def early_until(self, steps_before: int) -> int:
        """The last step of the run that is held to ``early`` in a stage with so many steps before it."""
        return self.later_horizon if steps_before else self.horizon

    def of_steps(self, steps: np.ndarray, steps_before: int) -> np.ndarray:
        """What each step's loss is held to, float64; infinite where it is not.

        Args:
            steps: Of a stage, from 0.
            steps_before: Of the stages before it.
        """
        early = np.where(steps + 1 + steps_before <= self.early_until(steps_before), self.early, np.inf)
        return early if steps_before else np.where(steps < self.first_horizon, self.first, early)


def names_state(name: str, *kinds: str) -> bool:
    """Whether a figure is of a digest, or of one of its tensors: ``epoch 1: weights``, ``final weights: a/kernel``."""
    return any(re.search(rf"(^| ){kind}(:|$)", name) for kind in kinds)


@dataclass(frozen=True)
class Parting:
    """Where two runs differ.

    Attributes:
        stage: The training stage; or ``encode``, or ``end_to_end``.
        step: Step of the stage, from 0.
        tensor: ``batch token_ids``, ``activation encoder_0_ffn``, ``loss``, ``gradient mlm_cls/kernel``,
            ``weight mlm_cls/kernel``; or, for what has no step of its own, ``vocabulary``, ``epoch 2: val_accuracy``,
            ``final weights: mlm_cls/kernel`` and the like, at the number of steps done.
        also: Other tensors of that step that differ.
        steps_before: Steps by which weights may have parted before, unseen: in one that is fingerprinted by turns (see
            `minibert.training.tensor_fingerprints`), or since the last step with fingerprints; 0 where every step has
            them, of whole tensors. Of an optimizer's moments there is a digest at a stage's end alone: what parts in a
            gradient's last bits between two steps with fingerprints may stay in them for longer.
    """

    stage: str
    step: int
    tensor: str
    also: tuple[str, ...] = ()
    steps_before: int = 0

    @property
    def place(self) -> str:
        """For a person."""
        place = f"{self.stage}, step {self.step}: {self.tensor}"
        if not self.steps_before:
            return place
        state = "the optimizer" if names_state(self.tensor, "optimizer") else "weights"
        return f"{place} ({state} may have parted up to {self.steps_before} steps before)"


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        verdict: ``exact``, ``numeric``, ``different`` or ``not comparable``.
        steps: Steps that were compared.
        parting: Where the runs first differ; None if nowhere.
        unexplained: Where they first differ in what other code and environments may not change; None if nowhere.
        first_deviation: Largest relative deviation of a step's loss in the very first steps; 0 if the bits agree,
            infinite if one is not finite.
        first_at: The loss that it is of.
        largest_deviation: Likewise of a loss in the first steps, up to the tolerances' horizon.
        largest_at: The loss that it is of.
        late_deviation: Likewise of the losses after them: an epoch's, a validation's, the raw texts'.
        late_at: The loss that it is of.
        accuracy_deviation: Largest absolute deviation of an accuracy.
        accuracy_at: The accuracy that it is of.
        tolerances: What they are held against where the environment differs.
        inputs: Settings that differ, and the corpus, in words.
        environment: Versions, threads, processor and variables that differ, in words.
        code: The code that differs, in words.
        fingerprinted: The steps whose fingerprints were compared, too; None: all.
    """

    verdict: str
    steps: int
    parting: Parting | None = None
    unexplained: Parting | None = None
    first_deviation: float = 0.0
    first_at: str | None = None
    largest_deviation: float = 0.0
    largest_at: str | None = None
    late_deviation: float = 0.0
    late_at: str | None = None
    accuracy_deviation: float = 0.0
    accuracy_at: str | None = None
    tolerances: Tolerances = Tolerances()
    inputs: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    fingerprinted: int | None = None

    @property
    def exit_code(self) -> int:
        """The process's exit code for this verdict."""
        return EXIT_CODES[self.verdict]

    @property
    def explanation(self) -> list[str]:
        """Lines for a person."""
        differ = " their inputs differ;" if self.inputs else ""
        lines = [f"{self.verdict}:{differ} {self.steps:,} steps compared"]
        is_seldom = self.fingerprinted is not None and self.fingerprinted < self.steps
        if is_seldom:
            lines[0] += f", {self.fingerprinted:,} of them with fingerprints"
        lines += [f"input: {line}" for line in self.inputs]  # all that follows may come of these
        if self.parting is not None:
            lines += [f"first difference: {self.parting.place}", *_shown(self.parting.also)]
            if is_seldom and self.parting.steps_before and not self.parting.tensor.startswith("final "):
                lines.append(
                    "runs that all have record.fingerprinted_steps=all are compared by the fingerprints of every step"
                )
        if self.environment and self.unexplained is not None and self.unexplained != self.parting:
            where = self.unexplained
            lines += [f"not explained by another environment: {where.place}", *_shown(where.also)]
        lines += list(self._deviations(is_held=bool(self.environment)))
        lines += [f"code: {line}" for line in self.code]
        lines += [f"environment: {line}" for line in self.environment]
        return lines

    def _deviations(self, *, is_held: bool) -> Iterator[str]:
        """Lines on how far losses and accuracies deviate."""
        horizons = f"{self.tolerances.horizon} steps ({self.tolerances.later_horizon} behind the first stage)"
        first = f"relative deviation of a step's loss in the first {self.tolerances.first_horizon} steps"
        early = f"relative deviation of a loss in the first {horizons}"
        for what, value, at, tolerance in (
            (first, self.first_deviation, self.first_at, self.tolerances.first),
            (early, self.largest_deviation, self.largest_at, self.tolerances.early),
            ("relative deviation of a loss after them", self.late_deviation, self.late_at, self.tolerances.late),
            ("deviation of an accuracy", self.accuracy_deviation, self.accuracy_at, self.tolerances.accuracy),
        ):
            if at is not None:
                held = f", {'within' if value <= tolerance else 'beyond'} the tolerance of {tolerance:g}"
                yield f"largest {what}: {value:.3g}, {at}{held if is_held else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no infinity: a deviation that is not finite is None."""
        finite = {
            name: value if math.isfinite(value) else None
            for name, value in vars(self).items()
            if name.endswith("_deviation")
        }
        return {**asdict(self), **finite, "exit_code": self.exit_code}


def decide(
    *,
    inputs: tuple[str, ...],
    environment: tuple[str, ...],
    parting: Parting | None,
    unexplained: Parting | None,
) -> str:
    """The verdict on what was found: only a changed environment may make other bits ``numeric``."""
    if inputs:
        return "not comparable"
    if parting is None:
        return "exact"
    return "numeric" if environment and unexplained is None else "different"


def _shown(names: tuple[str, ...]) -> list[str]:
    """Some of the tensors of a step, in one line."""
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return [f"in the same step: {', '.join(names[:6])}{more}"] if names else []
