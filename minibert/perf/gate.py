"""Takes fresh pairs of processes until every benchmark is answered, or the time for it is used up.

One pair serves all benchmarks that are still open: starting a process costs more than timing in it. In
the first pair each workload's result is checked and its counters are taken, after it was timed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from minibert.environment import available_cores
from minibert.perf.answer import BenchmarkAnswer, CounterAnswer
from minibert.perf.counters import Counters, differences
from minibert.perf.counters_file import Key
from minibert.perf.decision import FAILED, MISSING, Decision, Rules, Trial
from minibert.perf.pair import CONTROL, FEWEST_BLOCKS, WAITING_LIMIT, time_pair
from minibert.perf.process import WorkerError
from minibert.perf.statistics import PairFigure, pair_figure
from minibert.progress import Progress

SIDES = ("base", "head")
TIME_LIMIT_SECONDS = 60.0
"""Of stepping, for each benchmark, both sides together, unless another is asked for."""
CONTROL_CAUSE = "after the head's turns the machine was another than after the base's"
PAIRS_IN_LIMIT = 40
"""Pairs of processes that fill the time limit, first part and repeat together. A pair is one observation, and an
interval over many short ones is narrower than over few long ones."""


class Talks(Protocol):
    """What the gate needs of a worker."""

    side: str

    def __enter__(self) -> Talks:
        """Starts it, if it is not started yet."""
        ...

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        ...

    def send(self, order: str, **arguments: Any) -> None:
        """Gives an order."""
        ...

    def answer(self) -> dict[str, Any]:
        """The answer to the last order."""
        ...

    def ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        """Both."""
        ...


@dataclass
class Course:
    """How far one benchmark is.

    Attributes:
        name: The benchmark.
        trial: Its pairs.
        ended: Why it is not timed any more, where that is not the trial's decision.
        counters: Each side's.
        devices: Each side's.
    """

    name: str
    trial: Trial
    ended: Decision | None = None
    counters: dict[str, Counters] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether it wants more pairs."""
        return self.ended is None and self.trial.is_open

    def fail(self, error: WorkerError) -> None:
        """Ends it because a worker could not go on; what a side lacks is missing, everything else has failed."""
        self.ended = Decision(MISSING if error.kind == "missing" else FAILED, str(error))

    def answer(self, accepted: Mapping[Key, Counters]) -> BenchmarkAnswer:
        """What is said of it in the end."""
        trial = self.trial
        figures = trial.first + trial.repeat
        return BenchmarkAnswer(
            name=self.name,
            decision=self.ended or trial.end("it was stopped"),
            figures=figures,
            discarded=sum(figure.discarded for figure in (*figures, *trial.troubled)),
            stepping_seconds=trial.stepping_seconds,
            device=self.devices.get("head"),
            counters=judged_counters(self.counters, accepted),
        )


@dataclass
class Comparison:
    """Two sides, timed against each other.

    Attributes:
        start: Gives a fresh worker of ``base`` or ``head``, or one for the control.
        names: The benchmarks.
        rules: When they are answered.
        time_limit_seconds: Of stepping, for each benchmark, both sides together.
        accepted: The counters that were accepted, by workload and versions.
        progress: Is told of every pair.
    """

    start: Callable[[str], Talks]
    names: Sequence[str]
    rules: Rules
    time_limit_seconds: float
    accepted: Mapping[Key, Counters] = field(default_factory=dict)
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))

    def run(self) -> list[BenchmarkAnswer]:
        """Times until everything is answered; an answer for each name, in their order."""
        courses = [Course(name, Trial(self.rules, control_cause=CONTROL_CAUSE)) for name in self.names]
        try:
            with self.start(CONTROL) as control:
                control_seconds = float(control.ask("build", name=CONTROL)["step_seconds"])
                control.ask("check", name=CONTROL)
                self._pairs(courses, control, control_seconds)
        except WorkerError as error:
            for course in courses:
                course.fail(error)
        return [course.answer(self.accepted) for course in courses]

    def _pairs(self, courses: list[Course], control: Talks, control_seconds: float) -> None:
        pairs, task = 0, self.progress.start("pairs of processes")
        while waiting := [course for course in courses if course.is_open]:
            turned = waiting[pairs % len(waiting) :] + waiting[: pairs % len(waiting)]  # none is always the first
            try:
                self._one_pair(turned, control, control_seconds, is_first=pairs == 0)
            except WorkerError as error:
                for course in waiting:
                    if course.is_open:
                        course.fail(error)
            pairs += 1
            task.advance()
        task.finish()

    @property
    def pair_seconds(self) -> float:
        """Seconds of stepping in one pair."""
        return gate_pair_seconds(self.time_limit_seconds)

    def _one_pair(self, courses: list[Course], control: Talks, control_seconds: float, *, is_first: bool) -> None:
        with contextlib.ExitStack() as stack:
            pair = {side: stack.enter_context(self.start(side)) for side in SIDES}
            built = {}
            for course in courses:
                try:
                    built[course.name] = _build(pair, course.name)
                except WorkerError as error:
                    course.fail(error)
            for course in courses if is_first else ():
                self._note_long_step(course, built.get(course.name, 0.0))
            for course in courses:
                if course.is_open:
                    with failing(course):
                        self._time(course, pair, built[course.name], control, control_seconds)
            devices = {side: worker.ask("describe")["device"] for side, worker in pair.items()}
            for course in courses:
                if course.name in built and course.ended is None:
                    with failing(course):
                        _require_one_device(course, devices)
                        if is_first:
                            _look(pair, course)

    def _note_long_step(self, course: Course, step_seconds: float) -> None:
        """Says at once where the time limit leaves no room for a slowdown's confirmation."""
        needed = 2 * self.rules.fewest_pairs * FEWEST_BLOCKS * 4 * step_seconds
        if needed > self.time_limit_seconds:
            self.progress.note(
                f"{course.name}: a step takes {step_seconds:.2f} s, so a slowdown can be confirmed only with "
                f"--time-limit {math.ceil(needed / 10) * 10} or more"
            )

    def _time(
        self, course: Course, pair: dict[str, Talks], step_seconds: float, control: Talks, control_seconds: float
    ) -> None:
        times = time_pair(
            pair["base"],
            pair["head"],
            control,
            course.name,
            seconds=self.pair_seconds,
            step_seconds=step_seconds,
            control_seconds=control_seconds,
            cores=available_cores(),
        )
        if times.head_waiting_rate > WAITING_LIMIT >= times.base_waiting_rate:
            rates = f"{times.head_waiting_rate:.2f} cores busy, the base {times.base_waiting_rate:.2f}"
            raise WorkerError(f"head: it works on while it waits for its turn: it keeps {rates}")
        add_within(course.trial, pair_figure(times), self.time_limit_seconds)


def gate_pair_seconds(time_limit_seconds: float = TIME_LIMIT_SECONDS) -> float:
    """Seconds of stepping in one pair of processes."""
    return time_limit_seconds / PAIRS_IN_LIMIT


def add_within(trial: Trial, figure: PairFigure, time_limit_seconds: float) -> None:
    """Takes a pair into account, and ends the trial where half of another one would go beyond the limit."""
    trial.add(figure)
    if trial.is_open and trial.stepping_seconds + figure.stepping_seconds / 2 > time_limit_seconds:
        trial.end(f"the time limit of {time_limit_seconds:g} s of stepping is reached")


def judged_counters(measured: Mapping[str, Counters], accepted: Mapping[Key, Counters]) -> CounterAnswer:
    """Compares the head's counters with what was accepted, or else with the base's.

    Where the sides' versions differ, what differs between their counters is shown, and is no fault: another
    TensorFlow or Keras makes other graphs.

    Args:
        measured: By ``head`` and ``base``, as far as they are known.
        accepted: By workload and versions.
    """
    head, base = measured.get("head"), measured.get("base")
    if head is None:
        return CounterAnswer(verdict="not compared")
    is_other = base is not None and base["versions"] != head["versions"]
    between = tuple(differences(base, head)) if base is not None and is_other else ()
    reference, against = accepted.get((head["workload"], head["versions"])), "the accepted ones"
    if reference is None and not is_other:
        reference, against = base, "the base's"
    if reference is not None:
        changes = tuple(differences(reference, head))
        return CounterAnswer(
            verdict="changed" if changes else "same", against=against, changes=changes, between=between
        )
    nothing = f"none are accepted for {head['versions']}"
    if base is None:
        return CounterAnswer(verdict="not compared", against=nothing)
    return CounterAnswer(
        verdict="other versions", against=f"{nothing}, the base has {base['versions']}", between=between
    )


def _build(pair: dict[str, Talks], name: str) -> float:
    """Builds a workload on both sides at once; the slower side's seconds a step."""
    for worker in pair.values():
        worker.send("build", name=name)
    errors, seconds = [], []
    for worker in pair.values():  # both answers are taken, whatever the first one says
        try:
            seconds.append(float(worker.answer()["step_seconds"]))
        except WorkerError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return max(seconds)


def _look(pair: dict[str, Talks], course: Course) -> None:
    """Checks what both sides computed, and counts."""
    for side, worker in pair.items():
        worker.ask("check", name=course.name)
        course.counters[side] = worker.ask("count", name=course.name)


def _require_one_device(course: Course, devices: dict[str, str]) -> None:
    """Sees that both sides ran on the same kind of device, and on that of the pairs before."""
    known = set(devices.values()) | set(course.devices.values())
    course.devices = course.devices or devices
    if len(known) > 1:
        ran = f"the base ran on {devices['base']}, the head on {devices['head']}"
        raise WorkerError(f"the same device is required, but {ran}", "missing")


@contextlib.contextmanager
def failing(course: Course) -> Iterator[None]:
    """What goes wrong with one benchmark ends that one; a process that has ended, all of them."""
    try:
        yield
    except WorkerError as error:
        course.fail(error)
        if error.has_ended:
            raise
