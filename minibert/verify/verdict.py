"""The answer of a comparison, for a person and for a machine.

| verdict          | means                                                                     | exit code |
|------------------|---------------------------------------------------------------------------|-----------|
| `exact`          | the same bits at every step and in every stage's weights and optimizer    | 0         |
| `numeric`        | other bits, by other code or elsewhere: losses within the tolerances      | 10        |
| `different`      | other bits without a reason, or more than other code or places may change | 11        |
| `not comparable` | other settings or another corpus: and which                               | 12        |

With the same code in one environment the bits must agree: there is no tolerance under which a changed weight
could hide. Where code or environment have changed, they are reported, and sums may have been added in another
order; but the vocabulary, token ids, order, masks, labels, counts and the number of steps must still be the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

EXIT_CODES = {"exact": 0, "numeric": 10, "different": 11, "not comparable": 12}
TOLERANCE = 1e-3
"""Largest relative deviation of a loss of the first `HORIZON` steps for `numeric`."""
LATE_TOLERANCE = 0.25
"""Largest relative deviation of an epoch's mean loss, a validation's or the raw texts' after them."""
HORIZON = 200
"""Steps of a run, over all stages, in which every step's loss is held to `TOLERANCE`. Training doubles a rounding
again and again: later on a single step's loss says nothing about where a deviation comes from."""


@dataclass(frozen=True)
class Tolerances:
    """What losses are held to where code or environment differ.

    Attributes:
        early: Of the first ``horizon`` steps of a run, each step's and each figure's.
        late: Of the figures after them; single steps are not held any more.
        horizon: Steps over all stages.
    """

    early: float = TOLERANCE
    late: float = LATE_TOLERANCE
    horizon: int = HORIZON

    def is_early(self, steps: int) -> bool:
        """Whether a figure after so many steps of the run is held to ``early``."""
        return steps <= self.horizon

    def of(self, steps: int) -> float:
        """The tolerance of a figure after so many steps of the run."""
        return self.early if self.is_early(steps) else max(self.early, self.late)


@dataclass(frozen=True)
class Parting:
    """Where two runs differ.

    Attributes:
        stage: The training stage; or ``encode``, or ``end_to_end``.
        step: Step of the stage, from 0.
        tensor: ``batch token_ids``, ``activation encoder_0_ffn``, ``loss``, ``gradient mlm_cls/kernel``,
            ``weight mlm_cls/kernel``; or, for what has no step of its own, ``vocabulary``, ``epoch 2: val_accuracy``,
            ``final optimizer`` and the like, at the number of steps done.
        also: Other tensors of that step that differ.
    """

    stage: str
    step: int
    tensor: str
    also: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """For a person."""
        return f"{self.stage}, step {self.step}: {self.tensor}"


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        verdict: ``exact``, ``numeric``, ``different`` or ``not comparable``.
        steps: Steps that were compared.
        parting: Where the runs first differ; None if nowhere.
        unexplained: Where they first differ in what other code and environments may not change; None if nowhere.
        largest_deviation: Largest relative deviation of a loss in the first steps, up to the tolerances' horizon; 0 if
            the bits agree, infinite if one is not finite.
        largest_at: The loss that it is of.
        late_deviation: Likewise of the figures after them: an epoch's loss, a validation's, the raw texts'.
        late_at: The loss that it is of.
        tolerances: What they are held against where code or environment differ.
        inputs: Settings that differ, and the corpus, in words.
        environment: Versions, threads, processor and variables that differ, in words.
        code: The code that differs, in words.
    """

    verdict: str
    steps: int
    parting: Parting | None = None
    unexplained: Parting | None = None
    largest_deviation: float = 0.0
    largest_at: str | None = None
    late_deviation: float = 0.0
    late_at: str | None = None
    tolerances: Tolerances = Tolerances()
    inputs: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    code: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """The process's exit code for this verdict."""
        return EXIT_CODES[self.verdict]

    @property
    def explanation(self) -> list[str]:
        """Lines for a person."""
        lines = [f"{self.verdict}: {self.steps:,} steps compared"]
        if self.parting is not None:
            lines += [f"first difference: {self.parting.place}", *_shown(self.parting.also)]
        reasons = " and ".join(name for name in ("code", "environment") if getattr(self, name))
        if reasons and self.unexplained is not None and self.unexplained != self.parting:
            lines += [f"not explained by other {reasons}: {self.unexplained.place}", *_shown(self.unexplained.also)]
        lines += list(self._deviations(is_held=bool(reasons)))
        lines += [f"input: {line}" for line in self.inputs]
        lines += [f"code: {line}" for line in self.code]
        lines += [f"environment: {line}" for line in self.environment]
        return lines

    def _deviations(self, *, is_held: bool) -> Iterator[str]:
        """Lines on how far the losses deviate."""
        early, late = f"a loss in the first {self.tolerances.horizon} steps", "a figure after them"
        for what, value, at, tolerance in (
            (early, self.largest_deviation, self.largest_at, self.tolerances.early),
            (late, self.late_deviation, self.late_at, max(self.tolerances.early, self.tolerances.late)),
        ):
            if at is not None:
                held = f", {'within' if value <= tolerance else 'beyond'} the tolerance of {tolerance:g}"
                yield f"largest relative deviation of {what}: {value:.3g}, {at}{held if is_held else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no infinity: a deviation that is not finite is None."""
        finite = {
            name: value if math.isfinite(value) else None
            for name, value in (("largest_deviation", self.largest_deviation), ("late_deviation", self.late_deviation))
        }
        return {**asdict(self), **finite, "exit_code": self.exit_code}


def decide(
    *,
    inputs: tuple[str, ...],
    reasons: tuple[str, ...],
    parting: Parting | None,
    unexplained: Parting | None,
) -> str:
    """The verdict on what was found; ``reasons`` are what has changed of the code and the environment."""
    if inputs:
        return "not comparable"
    if parting is None:
        return "exact"
    return "numeric" if reasons and unexplained is None else "different"


def _shown(names: tuple[str, ...]) -> list[str]:
    """Some of the tensors of a step, in one line."""
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return [f"in the same step: {', '.join(names[:6])}{more}"] if names else []
