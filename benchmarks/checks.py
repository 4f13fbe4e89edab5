"""What a step must have done before its time counts: a fast wrong step is no step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.workloads import PREPARED_BATCHES, Parts
from minibert.errors import MinibertError

LOSS_TOLERANCE = 1e-4
"""Relative distance that the first losses on a device may have from the CPU's."""


class WrongLossError(MinibertError):
    """A step computes something else than it should: no figure of it counts."""


def require_training(side: str, step: str, losses: Sequence[float], moved: Mapping[str, float]) -> None:
    """Losses are numbers, the weights that are trained have changed, and no others; a masked LM's loss falls.

    Args:
        side: For the message.
        step: One of `benchmarks.workloads.STEPS`.
        losses: Of the first steps, each prepared batch twice.
        moved: From `moved_rates`, of those steps.

    Raises:
        WrongLossError: It is not so.
    """
    _require_finite(f"{side}: {step}", losses)
    encoder, head = moved["encoder"], moved["head"]
    if head < 1.0:
        raise WrongLossError(
            f"{side}: {step}: a head that is trained is required, but {head:.0%} of its weights changed"
        )
    if step == "frozen" and encoder > 0.0:
        raise WrongLossError(f"{side}: {step}: a held encoder is required, but {encoder:.0%} of its weights changed")
    if step != "frozen" and encoder == 0.0:
        raise WrongLossError(f"{side}: {step}: an encoder that is trained is required, but none of its weights changed")
    if step == "masked_lm":
        require_fall(f"{side}: {step}", losses)


def require_fall(what: str, losses: Sequence[float]) -> None:
    """Losses are numbers, and on the same batches the last are lower than the first.

    Args:
        what: For the message.
        losses: Of steps on the prepared batches, all of them two times or more.

    Raises:
        WrongLossError: They are not.
    """
    _require_finite(what, losses)
    if not sum(losses[-PREPARED_BATCHES:]) < sum(losses[:PREPARED_BATCHES]):
        raise WrongLossError(f"{what}: a loss that falls is required, but {list(losses)} came")


def require_same_losses(device: str, losses: Sequence[float], on_cpu: Sequence[float]) -> None:
    """No figure of a device counts that computes something else than the CPU.

    Raises:
        WrongLossError: A first loss is further off than `LOSS_TOLERANCE`.
    """
    for number, (loss, wanted) in enumerate(zip(losses, on_cpu, strict=True)):
        if not abs(loss - wanted) <= LOSS_TOLERANCE * abs(wanted):
            raise WrongLossError(
                f"--device {device}: the CPU's loss {wanted:.6f} is required in step {number}, but {loss:.6f} came"
            )


def weight_digests(parts: Parts) -> dict[str, list[str]]:
    """A digest of each weight, by part: nothing is kept, so that a process' peak memory stays its step's."""
    return {part: [_digest(np.asarray(weight)) for weight in weights] for part, weights in parts.items()}


def moved_rates(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The share of each part's weights whose digests differ, 0 to 1."""
    return {
        part: sum(one != other for one, other in zip(before[part], after[part], strict=True)) / len(before[part])
        for part in before
    }


def _digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def _require_finite(what: str, losses: Sequence[float]) -> None:
    if not all(math.isfinite(loss) for loss in losses):
        raise WrongLossError(f"{what}: finite losses are required, but {list(losses)} came")
