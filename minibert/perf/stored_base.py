"""The working tree against stored results of the same machine, instead of against another process.

A stored result is a process that ended long ago, so its times are taken in units of its control, and
what was not the same then (the machine's day, above all) is in the interval, not averaged out: the
answer is more often `unproven` than beside a revision. Several files, one for each process, help.
"""

from __future__ import annotations

import math
import statistics
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from minibert.environment import available_cores
from minibert.errors import ArtifactError, SettingsError
from minibert.perf import counters_file
from minibert.perf.answer import BenchmarkAnswer, GateAnswer, NumericAnswer
from minibert.perf.counters import Counters
from minibert.perf.counters_file import Key
from minibert.perf.decision import MISSING, Decision, Rules, Trial
from minibert.perf.gate import Course, Talks, failing
from minibert.perf.machine import changed_parts, describe_machine
from minibert.perf.pair import CONTROL, Block, PairTimes
from minibert.perf.process import Worker, WorkerError
from minibert.perf.results import Result, Timing, read_result
from minibert.perf.statistics import pair_figure
from minibert.perf.trees import Side, checkout_root, described, working_side
from minibert.progress import Progress

BLOCK_SECONDS = 0.4


@dataclass(frozen=True)
class StoredBase:
    """One benchmark in stored results.

    Attributes:
        ratios: Its time by the control's, one for each process.
        seconds: Its median time.
        device: What it ran on.
    """

    ratios: tuple[float, ...]
    seconds: float
    device: str

    @property
    def logarithms(self) -> list[float]:
        """The logarithms of the ratios."""
        return [math.log(ratio) for ratio in self.ratios]


def read_bases(paths: Sequence[Path], names: Sequence[str]) -> dict[str, StoredBase | str]:
    """Each benchmark's stored times, or why there are none.

    Raises:
        ArtifactError: A file is not such a result, or of another machine.
    """
    results = [_of_this_machine(path, read_result(path)) for path in paths]
    return {name: _stored(name, results) for name in names}


def compare_with_result(options: Namespace, names: list[str], own_files: Callable[[Path], Path]) -> GateAnswer:
    """The gate with a stored base; bits are not compared, because a result holds none.

    Raises:
        SettingsError: Another base is asked for too.
        ArtifactError: A file is not such a result, or of another machine.
    """
    if options.base is not None or options.base_python is not None:
        raise SettingsError("--base-result: a gate without --base and --base-python is required, but both came")
    bases, root, rules = (
        read_bases(options.base_result, names),
        checkout_root(Path.cwd()),
        Rules(threshold=options.threshold),
    )
    commit = read_result(options.base_result[0]).commit
    base = Side(
        kind="result", name=", ".join(map(str, options.base_result)), commit=commit.id, is_dirty=commit.is_dirty
    )
    with TemporaryDirectory(prefix="minibert-perf-") as folder, Progress(quiet=options.quiet) as progress:
        head, perf = described(working_side(root, Path(folder) / "head")), own_files(Path(folder))
        comparison = StoredComparison(
            start=lambda: Worker("head", python=head.python, tree=head.tree, perf=perf),
            bases=bases,
            rules=rules,
            time_limit_seconds=options.time_limit,
            accepted=counters_file.read_counters(root / counters_file.FILE),
            progress=progress,
        )
        benchmarks = comparison.run()
    return GateAnswer(
        base=base.to_dict(),
        head=head.to_dict(),
        machine=describe_machine(),
        rules=rules,
        time_limit_seconds=options.time_limit,
        numeric=NumericAnswer(verdict="not compared", explanation=("not compared: a stored result holds no bits",)),
        benchmarks=benchmarks,
    )


@dataclass
class StoredComparison:
    """The head, in fresh processes one after the other, against stored times.

    Attributes:
        start: Gives a fresh worker of the head.
        bases: Stored times by benchmark, or why there are none.
        rules: When a benchmark is answered.
        time_limit_seconds: Of stepping, for each.
        accepted: The counters that were accepted.
        progress: Is told of every process.
    """

    start: Callable[[], Talks]
    bases: Mapping[str, StoredBase | str]
    rules: Rules
    time_limit_seconds: float
    accepted: Mapping[Key, Counters] = field(default_factory=dict)
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))

    def run(self) -> list[BenchmarkAnswer]:
        """Times until everything is answered; an answer for each benchmark."""
        stored = {name: base for name, base in self.bases.items() if isinstance(base, StoredBase)}
        courses = {name: Course(name, Trial(self.rules, base=base.logarithms)) for name, base in stored.items()}
        is_first, task = True, self.progress.start("processes")
        while waiting := [course for course in courses.values() if course.is_open]:
            try:
                with self.start() as worker:
                    worker.ask("build", name=CONTROL)
                    for course in waiting:
                        with failing(course):
                            self._time(worker, course, stored[course.name], is_first=is_first)
            except WorkerError as error:
                for course in waiting:
                    course.fail(error)
            is_first = False
            task.advance()
        task.finish()
        return [self._answer(name, base, courses.get(name)) for name, base in self.bases.items()]

    def _time(self, worker: Talks, course: Course, base: StoredBase, *, is_first: bool) -> None:
        step_seconds = worker.ask("build", name=course.name)["step_seconds"]
        seconds = self.time_limit_seconds / (2 * self.rules.most_pairs)
        trial = course.trial
        trial.add(pair_figure(time_alone(worker, course.name, base, seconds, step_seconds)))
        if trial.is_open and trial.stepping_seconds + seconds / 2 > self.time_limit_seconds:
            trial.end(f"the time limit of {self.time_limit_seconds:g} s of stepping is reached")
        if is_first:
            _look(worker, course, base)

    def _answer(self, name: str, base: StoredBase | str, course: Course | None) -> BenchmarkAnswer:
        if course is None:
            return BenchmarkAnswer(name=name, decision=Decision(MISSING, str(base)))
        return course.answer(self.accepted)


def time_alone(worker: Talks, name: str, base: StoredBase, seconds: float, step_seconds: float) -> PairTimes:
    """Times a benchmark in turn with the control, and sets it beside what the base would take now.

    That is its stored ratio times the control's time of the moment.
    """
    rounds = max(2, round(BLOCK_SECONDS / step_seconds)) if step_seconds > 0 else 2
    blocks: list[Block] = []
    stepped = 0.0
    while len(blocks) < 4 or stepped < seconds:
        said = worker.ask("rounds", name=name, count=rounds)
        control = statistics.median(said["control_seconds"])
        ratio = statistics.median(s / c for s, c in zip(said["step_seconds"], said["control_seconds"], strict=True))
        others = None
        if said["busy_seconds"] is not None:
            others = max(0.0, (said["busy_seconds"] - said["own_seconds"]) / (said["seconds"] * available_cores()))
        blocks.append(
            Block(math.exp(statistics.fmean(base.logarithms)) * control, ratio * control, control, control, others)
        )
        stepped += sum(said["step_seconds"])
    return PairTimes(name, tuple(blocks), 1, stepped)


def _look(worker: Talks, course: Course, base: StoredBase) -> None:
    worker.ask("check", name=course.name)
    course.counters["head"] = worker.ask("count", name=course.name)
    course.devices["head"] = worker.ask("describe")["device"]
    if course.devices["head"] != base.device:
        ran = f"the base ran on {base.device}, the head on {course.devices['head']}"
        raise WorkerError(f"the same device is required, but {ran}", "missing")


def _of_this_machine(path: Path, result: Result) -> Result:
    here = describe_machine()
    if result.machine["identity"] != here["identity"]:
        changed = "; ".join(changed_parts(dict(result.machine), here))
        raise ArtifactError(f"{path}: a result of this machine is required, but {changed}")
    return result


def _stored(name: str, results: Sequence[Result]) -> StoredBase | str:
    found: list[Timing] = [timing for result in results for timing in result.timings if timing.name == name]
    if len(found) < len(results):
        return f"{len(results) - len(found)} of {len(results)} stored results have no benchmark of this name"
    if any(timing.control is None or timing.control.name != CONTROL for timing in found):
        return "a stored time without its control cannot be compared"
    if len({timing.device for timing in found}) > 1:
        return "the stored times are of different devices"
    ratios = tuple(timing.control.ratio for timing in found if timing.control is not None)
    return StoredBase(ratios, statistics.median(timing.median_seconds for timing in found), found[0].device)
