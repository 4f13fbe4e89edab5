"""The working tree against stored results of the same machine, instead of against another process.

A stored result is a process that ended long ago, so its times are taken in units of its control. In the
interval are today's scatter between processes and that of the stored ones, which is taken to be the same
where there is one file only: several files, one for each process of one commit, make it narrower. What
another day does to a benchmark and not to the control is not in it. Where the control itself has moved by
more than `CONTROL_FACTOR` since then, the answer is `unproven`.
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
from minibert.perf.benchmark_files import FILES, changed_files, own_gate, without_silent_passes
from minibert.perf.counters import KEYS, Counters
from minibert.perf.counters_file import Key
from minibert.perf.decision import MISSING, Decision, Rules, Trial
from minibert.perf.gate import Course, Talks, add_within, failing, gate_pair_seconds
from minibert.perf.machine import changed_parts, describe_machine
from minibert.perf.pair import CONTROL, Block, PairTimes
from minibert.perf.process import Worker, WorkerError
from minibert.perf.results import Result, Timing, read_result
from minibert.perf.statistics import pair_figure
from minibert.perf.trees import Side, checkout_root, described, file_of_commit, working_side
from minibert.progress import Progress

BLOCK_SECONDS = 0.4
CONTROL_FACTOR = 1.1
"""A control that moved by more since the result was stored: as far as anybody can tell, another machine."""


@dataclass(frozen=True)
class StoredBase:
    """One benchmark in stored results.

    Attributes:
        ratios: Its time by the control's, one for each process.
        seconds: Its median time.
        device: What it ran on.
        control_seconds: Its control's median time.
        counters: Its counters, where the results hold them, and the same ones.
    """

    ratios: tuple[float, ...]
    seconds: float
    device: str
    control_seconds: float
    counters: Counters | None = None

    @property
    def logarithms(self) -> list[float]:
        """The logarithms of the ratios."""
        return [math.log(ratio) for ratio in self.ratios]


def read_results(paths: Sequence[Path]) -> list[Result]:
    """Stored results that are one base: of this kind of machine, of one commit, each of a process of its own.

    Raises:
        ArtifactError: A file is not such a result, or one of a tree with changes, which no commit names.
    """
    results: list[Result] = []
    for path in paths:
        result = _of_this_machine(path, read_result(path))
        if result.commit.is_dirty:
            raise ArtifactError(f"{path}: a result of a commit is required, but {_shown(result)} came")
        for other, earlier in zip(paths, results, strict=False):
            if result.commit.id != earlier.commit.id:
                required, came = f"{_shown(earlier)}, as in {other},", _shown(result)
                raise ArtifactError(f"{path}: a result of {required} is required, but one of {came} came")
            if result.timings == earlier.timings:
                raise ArtifactError(f"{path}: a result of another process is required, but that of {other} came again")
        results.append(result)
    return results


def stored_bases(
    results: Sequence[Result], names: Sequence[str], *, with_dropped: bool = False
) -> dict[str, StoredBase | str]:
    """Each benchmark's stored times, or why there are none.

    Args:
        results: From `read_results`.
        names: What is timed.
        with_dropped: Whether what was stored and is not timed any more is named too: removing a benchmark is no
            way to pass the gate.
    """
    found: dict[str, StoredBase | str] = {name: _stored(name, results) for name in names}
    for timing in (timing for result in results for timing in result.timings if with_dropped):
        if timing.control is not None and timing.control.name == CONTROL and timing.name not in found:
            found[timing.name] = "it is stored, and not timed; --benchmark says what is meant"
    return found


def compare_with_result(options: Namespace, names: list[str]) -> GateAnswer:
    """The gate with a stored base; bits are not compared, because a result holds none.

    Raises:
        SettingsError: Another base is asked for too.
        ArtifactError: A file is not such a result, or of another machine or commit.
    """
    if options.base is not None or options.base_python is not None:
        raise SettingsError("--base-result: a gate without --base and --base-python is required, but both came")
    root, rules = checkout_root(Path.cwd()), Rules(threshold=options.threshold, control_threshold=CONTROL_FACTOR - 1)
    results = read_results(options.base_result)
    with_dropped = not options.benchmark and not options.allow_changed_benchmarks
    with TemporaryDirectory(prefix="minibert-perf-") as folder, Progress(quiet=options.quiet) as progress:
        head = described(working_side(root, Path(folder) / "head"))
        perf = own_gate(Path(folder), head.tree)
        comparison = StoredComparison(
            start=lambda: Worker("head", python=head.python, tree=head.tree, perf=perf),
            bases=stored_bases(results, names, with_dropped=with_dropped),
            rules=rules,
            time_limit_seconds=options.time_limit,
            accepted=counters_file.read_counters(root / counters_file.FILE),
            progress=progress,
        )
        changed = _changed_since(results[0], root, perf)
        benchmarks = without_silent_passes(comparison.run(), changed, options.allow_changed_benchmarks)
    return GateAnswer(
        base=_side(options.base_result, results[0]).to_dict(),
        head=head.to_dict(),
        machine=describe_machine(),
        rules=rules,
        time_limit_seconds=options.time_limit,
        numeric=NumericAnswer(verdict="not compared", explanation=("not compared: a stored result holds no bits",)),
        benchmarks=benchmarks,
        changed_benchmarks=changed,
        allowed_benchmarks=options.allow_changed_benchmarks,
    )


def _side(paths: Sequence[Path], result: Result) -> Side:
    packages = result.environment.get("packages") or {}
    versions = {name: packages.get(name) for name in ("tensorflow", "keras", "numpy")}
    return Side(
        kind="result",
        name=", ".join(path.name for path in paths),
        commit=result.commit.id,
        is_dirty=result.commit.is_dirty,
        versions={"python": result.environment.get("python"), **versions},
    )


def _changed_since(result: Result, root: Path, perf: Path) -> tuple[str, ...]:
    """Which files of the benchmarks are not those of the stored commit; all, where git does not have it."""
    if file_of_commit(root, result.commit.id, "minibert/__init__.py") is None:
        return FILES
    return changed_files(perf, lambda name: file_of_commit(root, result.commit.id, f"minibert/perf/{name}"))


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
                    worker.ask("check", name=CONTROL)
            except WorkerError as error:
                for course in waiting:
                    if course.is_open:
                        course.fail(error)
            is_first = False
            task.advance()
        task.finish()
        return [self._answer(name, base, courses.get(name)) for name, base in self.bases.items()]

    def _time(self, worker: Talks, course: Course, base: StoredBase, *, is_first: bool) -> None:
        step_seconds = worker.ask("build", name=course.name)["step_seconds"]
        seconds = gate_pair_seconds(self.time_limit_seconds)
        figure = pair_figure(time_alone(worker, course.name, base, seconds, step_seconds))
        add_within(course.trial, figure, self.time_limit_seconds)
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
        base_now = math.exp(statistics.fmean(base.logarithms)) * control
        ratio = statistics.median(s / c for s, c in zip(said["step_seconds"], said["control_seconds"], strict=True))
        others = None
        if said["busy_seconds"] is not None:
            others = max(0.0, (said["busy_seconds"] - said["own_seconds"]) / (said["seconds"] * available_cores()))
        blocks.append(
            Block(
                base_turns=(base_now,),
                head_turns=(ratio * control,),
                control_base_seconds=base.control_seconds,
                control_head_seconds=control,
                others_rate=others,
            )
        )
        stepped += sum(said["step_seconds"])
    return PairTimes(name, tuple(blocks), 1, stepped)


def _look(worker: Talks, course: Course, base: StoredBase) -> None:
    worker.ask("check", name=course.name)
    if base.counters is not None:
        course.counters["base"] = base.counters
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
    controls = [timing.control for timing in found if timing.control is not None]
    return StoredBase(
        ratios=tuple(control.ratio for control in controls),
        seconds=statistics.median(timing.median_seconds for timing in found),
        device=found[0].device,
        control_seconds=statistics.median(control.median_seconds for control in controls),
        counters=_counters(found),
    )


def _counters(timings: Sequence[Timing]) -> Counters | None:
    """The counters that all results hold; None where they differ, or are from before a counter of today."""
    first = timings[0].counters
    if first is None or any(timing.counters != first for timing in timings) or not set(KEYS) <= first.keys():
        return None
    return dict(first)


def _shown(result: Result) -> str:
    return f"{result.commit.id[:10]}{' with changes' if result.commit.is_dirty else ''}"
