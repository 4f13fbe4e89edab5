"""How often is `minibert perf history` wrong? False alarms and missed steps, on series whose truth is known.

    python -m benchmarks.change_points                        # needs apache-otava
    python -m benchmarks.change_points --replay STUDY.jsonl.gz   # also what a machine gave with nothing changed

A series is fed as it grows, one record at a time, and a false alarm is a change that is ever reported
where there is none: what a user would have seen, not only what is left at the end. A step multiplies
every time from one record on, and counts as found if it is reported, within two records of its place,
when three records have it.

`NOISES` are the kinds of noise, each scaled so that a record's noise (1.4826 times the median absolute
deviation) is the level. Replayed series are processes that ran the same code, in the order of time; where a
recording has processes that did 5 % more work, the steps that they make are a row of their own. The last rows are of
records that are gates against one commit, their pairs of processes drawn from all recordings beside one neighbour.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minibert.environment import available_cores
from minibert.errors import MinibertError
from minibert.perf.change_points import AFTER, BEFORE, OFF_BY, Propose, find_change_points, noise_of, require_otava
from minibert.perf.decision import Rules
from minibert.perf.error_study.recording import Recording, pooled, read_recording
from minibert.perf.error_study.replay import clopper_pearson, drawn_ratios
from minibert.perf.series import are_disturbed

LENGTH = 100
"""Records in a synthetic series."""
LEVELS = (0.005, 0.01, 0.015)
STEP, OWN_STEP = 1.05, "5"
"""A step multiplies by so much; a recording has processes that did so many percent more."""
FEWEST_BEFORE, MOST_BEFORE = 12, 60
SAME_ALARM = 3
"""An alarm that moves by so many records is the same one."""
DRAWN_GATES = 1_000
"""Gates that are drawn from a recording, with nothing changed and with its own step."""
FEWEST_GATES = DRAWN_GATES // 2
"""So many of them must be records; else there is no row."""
CHUNK = 10
"""Series, or tens of steps, that one task has."""

Noise = Callable[[np.random.Generator, int], np.ndarray]


def _normal(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.normal(size=count)


def _heavy_tails(generator: np.random.Generator, count: int) -> np.ndarray:
    """Student's t with three degrees of freedom: one record in forty is off by more than three noises."""
    return generator.standard_t(3, size=count) / 1.134


def _shared_machine(generator: np.random.Generator, count: int) -> np.ndarray:
    """Heavy tails, a spike in one record of twenty (mostly slower), and a drift from one record to the next."""
    tails = generator.standard_t(4, size=count) / 1.098
    signs = generator.choice([1.0, 1.0, 1.0, -1.0], size=count)
    spikes = (generator.random(count) < 0.05) * signs * generator.exponential(6.0, size=count)
    drift, innovations = np.empty(count), generator.normal(size=count)
    drift[0] = innovations[0]
    for i in range(1, count):
        drift[i] = 0.7 * drift[i - 1] + math.sqrt(1 - 0.7**2) * innovations[i]
    return (tails + spikes + 0.5 * drift) / 1.2


NOISES: dict[str, Noise] = {"normal": _normal, "heavy tails": _heavy_tails, "shared machine": _shared_machine}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of one kind of noise at one level; where ``is_drawn``, of records that were drawn: no bounds hold."""

    noise: str
    level: float
    points: int
    false_alarms: int
    false_alarms_per_1000: float
    false_alarms_per_1000_high: float
    steps: int
    found: int
    found_rate: float
    found_rate_low: float
    exact_rate: float
    is_drawn: bool = False


@dataclass(frozen=True)
class Task:
    """Some series of one kind; ``rule`` is ``minibert`` or ``otava``."""

    noise: str
    level: float
    number: int
    series: int
    steps: int
    rule: str = "minibert"


@dataclass
class Counts:
    """What a task gave."""

    points: int = 0
    alarms: int = 0
    steps: int = 0
    found: int = 0
    exact: int = 0

    def add(self, other: Counts) -> None:
        for field in dataclasses.fields(Counts):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def alarms_as_it_grows(values: Sequence[float], find: Callable[[Sequence[float]], list[int]]) -> list[int]:
    """Places of all changes that are ever reported while the series grows, near ones counted once."""
    seen: list[int] = []
    for count in range(BEFORE + AFTER, len(values) + 1):
        seen += [index for index in find(values[:count]) if all(abs(index - old) > SAME_ALARM for old in seen)]
    return seen


def with_step(values: Sequence[float], place: int, factor: float = STEP) -> list[float]:
    """The series up to the third record that has the step."""
    return [value * (factor if i >= place else 1.0) for i, value in enumerate(values[: place + AFTER])]


def run_task(task: Task) -> Counts:
    """Counts alarms and found steps; depends on the task alone."""
    find = _finder(task.rule, require_otava())
    kind = list(NOISES).index(task.noise)
    generator = np.random.Generator(np.random.PCG64([kind, round(task.level * 1e6), task.number]))
    counts = Counts()
    for _ in range(task.series):
        values = np.exp(task.level * NOISES[task.noise](generator, LENGTH)).tolist()
        counts.add(Counts(points=LENGTH, alarms=len(alarms_as_it_grows(values, find))))
    for _ in range(task.steps):
        place = int(generator.integers(FEWEST_BEFORE, MOST_BEFORE + 1))
        values = np.exp(task.level * NOISES[task.noise](generator, place + AFTER)).tolist()
        counts.add(_step(with_step(values, place), place, find))
    return counts


def _step(values: Sequence[float], place: int, find: Callable[[Sequence[float]], list[int]]) -> Counts:
    found = find(values)
    is_found = any(abs(index - place) <= OFF_BY for index in found)
    return Counts(steps=1, found=int(is_found), exact=int(place in found))


def _finder(rule: str, propose: Propose) -> Callable[[Sequence[float]], list[int]]:
    if rule == "minibert":
        return lambda values: [change.index for change in find_change_points(values, propose)]
    from otava.analysis import compute_change_points

    return lambda values: [int(point.index) for point in compute_change_points(list(values))[0]]


def replay(name: str, recording: Recording, propose: Propose) -> list[Row]:
    """Rows of a recording: with steps that multiply, and with those that its own extra work of 5 % made.

    The same code in one process after the other is the series: each in units of the control beside it, in the order
    of time, without the records that `minibert perf history` takes for disturbed.
    """
    find = _finder("minibert", propose)
    plain = _processes(recording, "0", ("base", "head"))
    values = [process.value for process in plain]
    places = range(FEWEST_BEFORE, len(values) - AFTER + 1)
    counts = Counts(points=len(values), alarms=len(alarms_as_it_grows(values, find)))
    for place in places:
        counts.add(_step(with_step(values, place), place, find))
    noise = noise_of(values, [])
    rows = [make_row(f"replayed: {name}", noise, counts)]
    slower = _processes(recording, OWN_STEP, ("head",))
    own = Counts()
    for place in places:
        after = [process.value for process in slower if process.pair >= plain[place].pair][:AFTER]
        if len(after) == AFTER:
            own.add(_step([*values[:place], *after], place, find))
    return [*rows, make_row(f"replayed: {name}, its own {OWN_STEP} % of work", noise, own)] if own.steps else rows


def replay_gates(recording: Recording, propose: Propose, *, points: int, steps: int) -> list[Row]:
    """Records that are gates against one commit: their pairs are drawn from a recording's, with nothing changed.

    The steps are of records drawn from pairs whose head did 5 % more work. Drawn again and again they are not
    independent, and have no drift: so there are no bounds.
    """
    find, rules = _finder("minibert", propose), Rules()
    if not {"0", OWN_STEP} <= set(recording.levels):
        return []
    plain, slower = (drawn_ratios(recording, level, gates=DRAWN_GATES, rules=rules) for level in ("0", OWN_STEP))
    if min(len(plain), len(slower)) < FEWEST_GATES:  # beside a busy neighbour a gate proves nothing
        return []
    generator, counts = np.random.Generator(np.random.PCG64(0)), Counts()
    for _ in range(math.ceil(points / LENGTH)):
        values = generator.choice(plain, LENGTH).tolist()
        counts.add(Counts(points=LENGTH, alarms=len(alarms_as_it_grows(values, find))))
    for _ in range(steps):
        place = int(generator.integers(FEWEST_BEFORE, MOST_BEFORE + 1))
        values = [*generator.choice(plain, place).tolist(), *generator.choice(slower, AFTER).tolist()]
        counts.add(_step(values, place, find))
    name = f"gates drawn from {len(recording.pairs)} pairs, neighbour: {recording.header['neighbour']}"
    return [dataclasses.replace(make_row(name, noise_of(plain, []), counts), is_drawn=True)]


@dataclass(frozen=True)
class Process:
    """A recorded process as a record: of which pair, and its time in units of its control's."""

    pair: int
    value: float


def _processes(recording: Recording, level: str, sides: Sequence[str]) -> list[Process]:
    found, controls = [], []
    for number, pair in enumerate(recording.pairs):
        for side in sides if level in pair else ():
            times = [(getattr(b, f"{side}_seconds"), getattr(b, f"control_{side}_seconds")) for b in pair[level]]
            found.append(Process(number, statistics.median(seconds / control for seconds, control in times)))
            controls.append(statistics.median(control for _, control in times))
    return [process for process, is_so in zip(found, are_disturbed(controls), strict=True) if not is_so]


def make_row(noise: str, level: float, counts: Counts) -> Row:
    """Rates and their Clopper-Pearson bounds, 95 %."""
    return Row(
        noise=noise,
        level=level,
        points=counts.points,
        false_alarms=counts.alarms,
        false_alarms_per_1000=1000 * counts.alarms / max(counts.points, 1),
        false_alarms_per_1000_high=1000 * clopper_pearson(min(counts.alarms, counts.points), counts.points)[1],
        steps=counts.steps,
        found=counts.found,
        found_rate=counts.found / max(counts.steps, 1),
        found_rate_low=clopper_pearson(counts.found, counts.steps)[0] if counts.steps else 0.0,
        exact_rate=counts.exact / max(counts.steps, 1),
    )


def study(points: int, steps: int, levels: Sequence[float], *, processes: int, rule: str = "minibert") -> list[Row]:
    """Every kind of noise at every level."""
    chunks = max(1, math.ceil(points / LENGTH / CHUNK))
    cells = [(noise, level) for noise in NOISES for level in levels]
    tasks = [Task(noise, level, number, CHUNK, math.ceil(steps / chunks), rule)
             for noise, level in cells for number in range(chunks)]  # fmt: skip
    totals = {cell: Counts() for cell in cells}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for task, counts in zip(tasks, pool.map(run_task, tasks), strict=True):
            totals[task.noise, task.level].add(counts)
    return [make_row(noise, level, totals[noise, level]) for noise, level in cells]


def markdown(rows: Sequence[Row]) -> str:
    """A table for benchmarks/README.md."""
    head = ("noise", "of one record", "false alarms in 1,000 records", "+5 % found within 3", "at the right commit")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        bound = f"{row.points:,} {'drawn' if row.is_drawn else 'records'}"
        bound = bound if row.is_drawn else f"≤ {row.false_alarms_per_1000_high:.2f}; {bound}"
        least = "" if row.is_drawn else f" (≥ {100 * row.found_rate_low:.1f} %)"
        alarms = f"{row.false_alarms_per_1000:.2f} ({bound})" if row.points else "–"
        found = f"{100 * row.found_rate:.1f} %{least}" if row.steps else "–"
        exact = f"{100 * row.exact_rate:.1f} %" if row.steps else "–"
        lines.append(f"| {row.noise} | {100 * row.level:.1f} % | {alarms} | {found} | {exact} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study; 0, or an error's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=20_000, help="records for each row (default: 20,000)")
    parser.add_argument("--steps", type=int, default=1_000, help="steps of 5 %% for each row (default: 1,000)")
    parser.add_argument("--level", type=float, nargs="+", default=list(LEVELS), help="noise of a record, as a rate")
    parser.add_argument("--replay", metavar="FILE", type=Path, nargs="+", default=[],
                        help="timings of python -m minibert.perf.error_study")  # fmt: skip
    parser.add_argument("--only-replay", action="store_true", help="no series of made-up noise")
    parser.add_argument("--otava-alone", action="store_true", help="what Otava's own defaults would do")
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    options = parser.parse_args(arguments)
    for name in ("points", "steps", "processes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: 1 or more is required, but {getattr(options, name)} came")
    try:
        propose = require_otava()
        recordings = [read_recording(path) for path in options.replay]
        replayed = [
            row
            for path, recording in zip(options.replay, recordings, strict=True)
            for row in replay(path.name.split(".")[0], recording, propose)
        ]
        for recording in pooled(recordings):
            replayed += replay_gates(recording, propose, points=options.points, steps=options.steps)
    except MinibertError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    rule = "otava" if options.otava_alone else "minibert"
    levels = () if options.only_replay else options.level
    rows = study(options.points, options.steps, levels, processes=options.processes, rule=rule) + replayed
    print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) if options.json else markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
