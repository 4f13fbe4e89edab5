"""The working tree against stored results of the same machine, instead of against another process.

A stored result is a process that ended long ago, so its times are taken in units of its control, and
what was not the same then (the machine's day, above all) is in the interval, not averaged out: the
answer is more often `unproven` than beside a revision. Several files, one for each process, help.
"""

from __future__ import annotations

import math
import statistics
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from minibert.environment import available_cores
from minibert.errors import ArtifactError, SettingsError
from minibert.perf import counters_file
from minibert.perf.answer import BenchmarkAnswer, GateAnswer, NumericAnswer
from minibert.perf.decision import MISSING, Decision, Rules, Trial
from minibert.perf.gate import Course, Talks, judged_counters
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


def compare_with_result(options: Namespace, names: list[str]) -> GateAnswer:
    """The gate with a stored base; bits are not compared, because a result holds none."""
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
    with TemporaryDirectory(prefix="minibert-perf-") as name, Progress(quiet=options.quiet) as progress:
        from minibert.perf.gate_commands import own_files

        folder = Path(name)
        head, perf = described(working_side(root, folder / "head")), own_files(folder)
        accepted = counters_file.read_counters(root / counters_file.FILE)
        courses = {n: Course(n, Trial(rules, base=b.logarithms)) for n, b in bases.items() if isinstance(b, StoredBase)}
        pairs, task = 0, progress.start("processes")
        while waiting := [course for course in courses.values() if course.is_open]:
            try:
                with Worker("head", python=head.python, tree=head.tree, perf=perf) as worker:
                    _one_process(worker, waiting, bases, options.time_limit, is_first=pairs == 0)
            except WorkerError as error:
                for course in waiting:
                    course.fail(error)
            pairs += 1
            task.advance()
        task.finish()
    return GateAnswer(
        base=base.to_dict(),
        head=head.to_dict(),
        machine=describe_machine(),
        rules=rules,
        time_limit_seconds=options.time_limit,
        numeric=NumericAnswer(verdict="not compared", explanation=("not compared: a stored result holds no bits",)),
        benchmarks=[_answer(n, bases[n], courses.get(n), accepted) for n in names],
    )


def _answer(name: str, base: StoredBase | str, course: Course | None, accepted: object) -> BenchmarkAnswer:
    if course is None:
        return BenchmarkAnswer(name=name, decision=Decision(MISSING, str(base)))
    figures = course.trial.first + course.trial.repeat
    return BenchmarkAnswer(
        name=name,
        decision=course.ended or course.trial.end("it was stopped"),
        figures=figures,
        discarded=sum(figure.discarded for figure in (*figures, *course.trial.troubled)),
        stepping_seconds=course.trial.stepping_seconds,
        device=course.devices.get("head"),
        counters=judged_counters(course.counters, accepted),  # type: ignore[arg-type]
    )


def _one_process(
    worker: Talks, courses: Sequence[Course], bases: dict[str, StoredBase | str], limit: float, *, is_first: bool
) -> None:
    worker.ask("build", name=CONTROL)
    for course in courses:
        base = bases[course.name]
        assert isinstance(base, StoredBase)
        try:
            step_seconds = worker.ask("build", name=course.name)["step_seconds"]
            seconds = limit / (2 * course.trial.rules.most_pairs)
            course.trial.add(pair_figure(time_alone(worker, course.name, base, seconds, step_seconds)))
            if course.trial.is_open and course.trial.stepping_seconds + seconds / 2 > limit:
                course.trial.end(f"the time limit of {limit:g} s of stepping is reached")
            if is_first:
                _look(worker, course, base)
        except WorkerError as error:
            course.fail(error)
            if error.has_ended:
                raise


def time_alone(worker: Talks, name: str, base: StoredBase, seconds: float, step_seconds: float) -> PairTimes:
    """Times a benchmark in turn with the control, and sets it beside what the base would take now.

    That is its stored ratio times the control's time of the moment.
    """
    rounds = max(2, round(BLOCK_SECONDS / step_seconds))
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
