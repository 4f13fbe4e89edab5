"""Times two processes against each other: one steps while the other waits, in the order A B B A.

A slow drift of the machine falls out of such a block, and the next block begins with the other side.
After every turn the control runs, in a process of neither side: it tells how fast the machine is beside each of them,
threads that a side leaves running included. In a side's own process it would tell of that process too: beside
TensorFlow 2.21 it took 3.5 % longer (standard error 1.2 %, 20 pairs of processes) than beside 2.20, and in a process of
neither, in the same blocks, -0.2 % (0.8 %).
A turn is short, and is a single step where that takes longer, because a shared machine treats two turns the more alike
the sooner one follows the other.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any, Protocol

TURN_SECONDS = 0.02
CONTROL_SECONDS = 0.02
FEWEST_BLOCKS = 4
WAITING_LIMIT = 0.1
"""Cores that a side may keep busy while it waits for its turn, in the median: what it does then slows the other."""
OTHERS_LIMIT = 0.25
"""A block in which other processes took more than this share of the cores is discarded. Those with less are noisier
than undisturbed ones by so little that without them an answer takes longer."""
PATIENCE = 2.0
"""Where blocks are discarded, others are taken instead, for so many times the seconds of stepping at the most."""
CONTROL = "control"


class Asked(Protocol):
    """What a pair needs of a worker."""

    side: str

    def ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        """Gives an order and waits for its answer."""
        ...


@dataclass(frozen=True)
class Block:
    """One A B B A block.

    Attributes:
        base_turns: Mean wall seconds of a step of the base, in its first and in its second turn. One value, where a
            base is a stored result and takes no turns.
        head_turns: Likewise of the head; each stands next to the base's turn of the same number.
        control_base_seconds: Mean wall seconds of the control after the base's turns. Where the base is a stored
            result, what is stored.
        control_head_seconds: Likewise of the head; where the base is a stored result, in the head's process.
        others_rate: Share of all cores that other processes took meanwhile, 0 to 1; None if it is not known.
    """

    base_turns: tuple[float, ...]
    head_turns: tuple[float, ...]
    control_base_seconds: float
    control_head_seconds: float
    others_rate: float | None

    @property
    def is_quiet(self) -> bool:
        """Whether other processes left the cores alone, as far as anybody knows."""
        return self.others_rate is None or self.others_rate <= OTHERS_LIMIT

    @property
    def base_seconds(self) -> float:
        """Mean wall seconds of a step of the base."""
        return sum(self.base_turns) / len(self.base_turns)

    @property
    def head_seconds(self) -> float:
        """Likewise of the head."""
        return sum(self.head_turns) / len(self.head_turns)


@dataclass(frozen=True)
class PairTimes:
    """What a benchmark's blocks in one pair of processes gave.

    Attributes:
        name: The benchmark.
        blocks: In the order of time.
        steps: Steps in one turn.
        stepping_seconds: Wall seconds of all turns, the control's aside.
        base_waiting_rate: Cores that the base kept busy while it waited for a turn; 0 in a replay, which does not know.
        head_waiting_rate: Likewise of the head.
    """

    name: str
    blocks: tuple[Block, ...]
    steps: int
    stepping_seconds: float
    base_waiting_rate: float = 0.0
    head_waiting_rate: float = 0.0


def time_pair(
    base: Asked, head: Asked, control: Asked, name: str, *, seconds: float, step_seconds: float, control_seconds: float,
    cores: int,
) -> PairTimes:  # fmt: skip
    """Times a benchmark that both workers have built.

    Args:
        base: One side.
        head: The other.
        control: A process of neither side, which has built the control.
        name: The benchmark.
        seconds: About how long both sides step undisturbed, together.
        step_seconds: About how long one step takes.
        control_seconds: About how long one step of the control takes.
        cores: Cores that the processes may use.
    """
    steps, control_steps = _steps(TURN_SECONDS, step_seconds), _steps(CONTROL_SECONDS, control_seconds)
    blocks: list[Block] = []
    waiting: dict[str, list[float]] = {base.side: [], head.side: []}
    amount = _Amount(seconds)
    while not amount.is_enough:
        first, second = (base, head) if len(blocks) % 2 == 0 else (head, base)
        turns, controls = [], []
        for worker in (first, second, second, first):
            turns.append((worker, worker.ask("turn", name=name, steps=steps)))
            controls.append((worker, control.ask("turn", name=CONTROL, steps=control_steps)))
        blocks.append(_block(base, turns, steps, controls, control_steps, cores))
        amount.add(sum(answer["seconds"] for _, answer in turns), is_quiet=blocks[-1].is_quiet)
        for worker, answer in turns:
            waiting[worker.side].append(float(answer["waiting_rate"]))
    rates = (statistics.median(waiting[worker.side]) for worker in (base, head))
    return PairTimes(name, tuple(blocks), steps, amount.stepped, *rates)


def shortened(times: PairTimes, seconds: float) -> PairTimes:
    """The first of a pair's blocks: those that `time_pair` would have taken, had it been asked for fewer seconds."""
    amount = _Amount(seconds)
    for block in times.blocks:
        if amount.is_enough:
            break
        amount.add(2 * times.steps * (block.base_seconds + block.head_seconds), is_quiet=block.is_quiet)
    return PairTimes(times.name, times.blocks[: amount.blocks], times.steps, amount.stepped)


@dataclass
class _Amount:
    """How much of a pair there is, beside the seconds that are wanted."""

    wanted: float
    blocks: int = 0
    stepped: float = 0.0
    quiet: float = 0.0

    @property
    def is_enough(self) -> bool:
        """Never after an odd number: each side began as many blocks as the other."""
        is_open = self.quiet < self.wanted and self.stepped < PATIENCE * self.wanted  # false for NaN
        return self.blocks >= FEWEST_BLOCKS and self.blocks % 2 == 0 and not is_open

    def add(self, seconds: float, *, is_quiet: bool) -> None:
        self.blocks += 1
        self.stepped += seconds
        self.quiet += seconds if is_quiet else 0.0


def _steps(turn_seconds: float, step_seconds: float) -> int:
    """Steps in a turn; one, if nobody knows how long it takes."""
    return max(1, round(turn_seconds / step_seconds)) if 0 < step_seconds < math.inf else 1


def _block(base: Asked, turns: list[Any], steps: int, controls: list[Any], control_steps: int, cores: int) -> Block:
    def step_seconds(answers: list[Any], is_base: bool, count: int) -> list[float]:
        return [float(answer["seconds"]) / count for worker, answer in answers if (worker is base) == is_base]

    (base_first, base_second), (head_first, head_second) = (step_seconds(turns, side, steps) for side in (True, False))
    answers = [answer for _, answer in turns]
    others: float | None = None
    if all(answer["busy_seconds"] is not None for answer in answers):
        taken = sum(answer["busy_seconds"] - answer["own_seconds"] for answer in answers)
        others = max(0.0, taken / (sum(answer["seconds"] for answer in answers) * cores))
    return Block(
        base_turns=(base_first, base_second),
        head_turns=(head_first, head_second),
        control_base_seconds=sum(step_seconds(controls, True, control_steps)) / 2,
        control_head_seconds=sum(step_seconds(controls, False, control_steps)) / 2,
        others_rate=others,
    )
