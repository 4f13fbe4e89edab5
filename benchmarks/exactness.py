"""Are the bits the same in every fresh process, and what does that cost?

    python -m benchmarks.exactness                      20 processes at both notebooks' shapes, then the cost
    python -m benchmarks.exactness --processes 2 --steps 2 --shape 2 --rounds 4 --cost-processes 1

Every process has its own hash seed, the default thread pools and oneDNN, and shares the cores with a busy
neighbour. It runs some steps of masked-LM pretraining and of the classifier, frozen and not, and prints
SHA-256 digests of the weights, the optimizer and the metrics.

The cost is that of a step as a run takes it (op determinism, fingerprints at one step in so many, a row of the
trace) beside the same step without any of it, each in a process of its own, stepping in turn (A B B A) on a
machine that should be quiet; and of the fingerprints and the trace alone, for every kind of step, both steps in one
process and on the same variables. The rounds are shared among several fresh processes, since one differs from
another. The figure is the mean over processes of the pseudo-median over a process' rounds, with its 95 % interval over
processes, as `minibert perf gate` has it. The interval judges: a cost is within its limit if its upper end is, beyond
it if its lower end is, and not shown otherwise. The last line has all three kinds of step as often as the notebook's
training has them.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.devices import DEVICES, as_a_run, claim_tensorflow_device
from benchmarks.workloads import STEPS, OurStep, shape_settings
from minibert.allocator import keep_freed_memory
from minibert.errors import MinibertError
from minibert.fingerprints import CPU_INTERVAL, GPU_INTERVAL, TraceWriter, trace_name
from minibert.perf.statistics import estimate, pseudo_median

PRESETS = {1: "imdb", 2: "amazon"}
"""A notebook's number -> the preset of its shape."""
PARTS = ("weights", "optimizer", "metrics")
LIMITS = {"all": 0.05, "fingerprints and trace": 0.02}
"""The most that each may cost, as a share of the step's time."""
COSTS = (("masked_lm", "all"), *((kind, "fingerprints and trace") for kind in STEPS))
"""The kind of step, and what of it is measured."""
WITHIN, BEYOND, NOT_SHOWN = "within", "beyond", "not shown"
TRAINING_EXAMPLES = {1: {"masked_lm": 50_000, "frozen": 25_000, "unfrozen": 25_000},
                     2: {"masked_lm": 50_000, "frozen": 40_000, "unfrozen": 40_000}}  # fmt: skip
"""What the notebooks train each stage on: the masked language model sees the test split too."""


# The same bits


def digests_of(shape: int, steps: int, device: str = "cpu") -> dict[str, str]:
    """Runs steps of every kind in this process: ``masked_lm: weights`` and so on -> SHA-256."""
    as_a_run(device)
    from minibert.training.state import optimizer_arrays, state_digest, weight_arrays

    settings, found = shape_settings(PRESETS[shape]), {}
    for kind in STEPS:
        ours, metrics = OurStep(settings, kind, fingerprint_interval=1), hashlib.sha256()
        for number in range(steps):
            result = ours.training_step(number, ours.batches[number % len(ours.batches)])
            metrics.update(json.dumps(result.metrics, sort_keys=True).encode() + result.fingerprint.tobytes())
        found[f"{kind}: weights"] = state_digest(weight_arrays(ours.training_step.objective.variables))
        found[f"{kind}: optimizer"] = state_digest(optimizer_arrays(ours.training_step.optimizer))
        found[f"{kind}: metrics"] = metrics.hexdigest()
    return found


def fresh_process(shape: int, steps: int, device: str = "cpu") -> dict[str, str]:
    """The digests of a new process with a hash seed of its own."""
    environment = os.environ | {"PYTHONHASHSEED": str(secrets.randbelow(2**32)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "benchmarks.exactness", "--child", "--shape", str(shape), "--steps", str(steps),
               "--device", device]  # fmt: skip
    done = subprocess.run(command, env=environment, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:  # it has said why
        raise SystemExit(done.returncode)
    digests: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return digests


def _be_busy() -> None:
    """Takes the cores in bursts, so that operators finish in another order every time; ends with its parent."""
    parent, generator = os.getppid(), np.random.Generator(np.random.PCG64())
    matrix = generator.standard_normal((700, 700), dtype=np.float32)
    while os.getppid() == parent:
        for _ in range(int(generator.integers(1, 40))):
            matrix @ matrix
        time.sleep(float(generator.uniform(0.0, 0.02)))


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """A process that competes for all cores."""
    process = multiprocessing.get_context("spawn").Process(target=_be_busy, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def repeatability_table(shape: int, processes: int, steps: int, device: str = "cpu") -> tuple[list[str], bool]:
    """Lines of a Markdown table, and whether all processes agree."""
    runs = []
    with busy_neighbour():
        for number in range(processes):
            runs.append(fresh_process(shape, steps, device))
            print(f"notebook {shape}: process {number + 1} of {processes}", file=sys.stderr)
    lines, agree = [], True
    for name, digest in runs[0].items():
        same = sum(run[name] == digest for run in runs)
        agree = agree and same == processes
        lines.append(
            f"| {shape} | {name} | {same} of {processes} | {len({run[name] for run in runs})} | `{digest[:16]}` |"
        )
    return lines, agree


# What it costs


class _SpreadTrace(TraceWriter):
    """A trace whose writing, of some steps at once, is owed by each of them alike, not by the one that waits for it."""

    _waited_seconds = _row_seconds = 0.0

    def flush(self) -> None:
        count, started = len(self._held), time.perf_counter()
        super().flush()
        if count:
            self._waited_seconds = time.perf_counter() - started
            self._row_seconds = self._waited_seconds / count

    def owed_seconds(self) -> float:
        """What the step that was appended last owes, less what it waited."""
        waited, self._waited_seconds = self._waited_seconds, 0.0
        return self._row_seconds - waited


class Stepper:
    """A step with or without what exactness takes; a call gives its seconds.

    Where only one step in so many has fingerprints, a call takes so many, and gives the mean.

    Args:
        shape: 1 or 2.
        kind: One of `STEPS`.
        traced: Whether fingerprints are computed and written to a trace.
    """

    def __init__(self, shape: int, kind: str, *, traced: bool) -> None:
        made = OurStep(shape_settings(PRESETS[shape]), kind, fingerprints=traced, checked=traced)
        self._step = made.training_step
        self._batches, self._number, self._trace = made.batches, 0, None
        self._warm_up()
        if traced:
            self._folder = tempfile.TemporaryDirectory(prefix="minibert-exactness-")
            path, header = Path(self._folder.name) / trace_name(made.stage), self._step.trace_header(self._batches[0])
            self._trace = _SpreadTrace(path, header, steps=0)
            result = self._step(0, self._batches[0])
            for number in range(self._trace.held_rows):  # written once, so that the first step's share is known
                self._trace.append(
                    number, loss_bits=result.loss_bits, batch=self._batches[0], fingerprint=result.fingerprint
                )
            self._trace.owed_seconds()

    def plain(self) -> Stepper:
        """Without fingerprints and trace, on the same variables: two models would differ in where their memory lies."""
        found = copy.copy(self)
        found._step, found._trace = self._step.without_fingerprints(), None
        found._warm_up()
        return found

    def _warm_up(self) -> None:
        for number, batch in itertools.product((0, 1), self._batches):  # with fingerprints, and where 1 has none
            self._step(number, batch)

    def __call__(self) -> float:
        interval = self._step.fingerprint_interval
        return sum(self._seconds() for _ in range(interval)) / interval

    def _seconds(self) -> float:
        batch = self._batches[self._number % len(self._batches)]
        started = time.perf_counter()
        result = self._step(self._number, batch)
        owed_seconds = 0.0
        if self._trace is not None:
            self._trace.append(self._number, loss_bits=result.loss_bits, batch=batch, fingerprint=result.fingerprint)
            owed_seconds = self._trace.owed_seconds()
        np.asarray(self._step.objective.variables[-1].value)  # there when the update is done
        self._number += 1
        return time.perf_counter() - started + owed_seconds


def _serve(connection: Connection, shape: int, exact: bool, device: str) -> None:
    """A worker: takes a step whenever it is asked, once it has said that it can, or why not."""
    try:
        if exact:
            as_a_run(device)
        else:
            keep_freed_memory()
            claim_tensorflow_device(device)
        step = Stepper(shape, "masked_lm", traced=exact)
    except MinibertError as error:
        connection.send(error)
        return
    connection.send(0.0)
    while connection.recv():
        connection.send(step())


@contextmanager
def worker(shape: int, *, exact: bool, device: str = "cpu") -> Iterator[Callable[[], float]]:
    """A process with a step, and the function that lets it take one."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, shape, exact, device), daemon=True)
    process.start()
    theirs.close()
    said = ours.recv()
    if isinstance(said, MinibertError):
        raise said

    def step() -> float:
        ours.send(True)
        seconds: float = ours.recv()
        return seconds

    try:
        yield step
    finally:
        ours.send(False)
        process.join()


def interleaved(one: Callable[[], float], two: Callable[[], float], rounds: int) -> np.ndarray:
    """Seconds of both, (2 rounds, 2): each round is A B B A, so that a drift of the machine cancels."""
    pairs = []
    for _ in range(rounds):
        a, b = one(), two()
        c, d = two(), one()
        pairs += [(a, b), (d, c)]
    return np.array(pairs)


def cost_line(shape: int, kind: str, what: str, processes: Sequence[np.ndarray]) -> tuple[str, str]:
    """A line of a Markdown table, and whether the cost is within its limit, beyond it, or neither is shown.

    Args:
        shape: 1 or 2.
        kind: One of `STEPS`.
        what: One of `LIMITS`.
        processes: Of each process the seconds of the exact step and the plain one, from `interleaved`.
    """
    found = Cost.of(processes)
    plain, exact = (1000.0 * float(np.median(np.concatenate(processes)[:, column])) for column in (1, 0))
    count = sum(len(seconds) // 2 for seconds in processes)
    cells = f"{plain:.1f} | {exact:.1f} | {found.cells(LIMITS[what])} | {count} in {len(processes)}"
    return f"| {shape} | {kind} | {what} | {cells} |", found.judged(LIMITS[what])


def training_line(shape: int, kinds: Mapping[str, Sequence[np.ndarray]]) -> tuple[str, str]:
    """Such a line of fingerprints and trace in a whole training, each kind of step as often as the notebook has it.

    Its interval takes the kinds' errors as independent.

    Args:
        shape: 1 or 2.
        kinds: For each of `STEPS` what `cost_line` takes.
    """
    plain = {
        kind: training_steps(shape, kind) * float(np.median(np.concatenate(processes)[:, 1]))
        for kind, processes in kinds.items()
    }
    whole = sum(plain.values())
    costs = {kind: Cost.of(processes) for kind, processes in kinds.items()}
    share = sum(plain[kind] * cost.share for kind, cost in costs.items()) / whole
    below = math.hypot(*(plain[kind] * (cost.share - cost.low) for kind, cost in costs.items())) / whole
    above = math.hypot(*(plain[kind] * (cost.high - cost.share) for kind, cost in costs.items())) / whole
    found, limit = Cost(share, share - below, share + above), LIMITS["fingerprints and trace"]
    steps = sum(training_steps(shape, kind) for kind in kinds)
    cells = f"{whole / 60:.1f} min | {whole * (1 + share) / 60:.1f} min | {found.cells(limit)} | {steps} steps"
    return f"| {shape} | whole training | fingerprints and trace | {cells} |", found.judged(limit)


def training_steps(shape: int, kind: str) -> int:
    """Steps of a kind in the notebook's training."""
    settings = shape_settings(PRESETS[shape])
    epochs = {
        "masked_lm": settings.pretrain.epochs,
        "frozen": settings.finetune.frozen_epochs,
        "unfrozen": settings.finetune.unfrozen_epochs,
    }
    batch_size = settings.pretrain.batch_size if kind == "masked_lm" else settings.finetune.batch_size
    return epochs[kind] * math.ceil(TRAINING_EXAMPLES[shape][kind] / batch_size)


@dataclass(frozen=True)
class Cost:
    """What exactness costs, as a share of the plain step, with the ends of its 95 % interval."""

    share: float
    low: float
    high: float

    @classmethod
    def of(cls, processes: Sequence[np.ndarray]) -> Cost:
        """From each process' seconds of the exact step and the plain one, from `interleaved`."""
        return cls(*cost_interval([process_cost(seconds) for seconds in processes]))

    def judged(self, limit: float) -> str:
        """Whether it is within the limit, beyond it, or neither is shown."""
        return WITHIN if self.high <= limit else BEYOND if self.low > limit else NOT_SHOWN

    def cells(self, limit: float) -> str:
        """Its cells of a Markdown table: the share, the interval, and what the limit says."""
        interval = f"{self.low:+.2%} to {self.high:+.2%}" if math.isfinite(self.low) else "not known"
        return f"{self.share:+.2%} | {interval} | {limit:.0%}: {self.judged(limit)}"


def process_cost(seconds: np.ndarray) -> float:
    """The logarithm of exact by plain in one process: the pseudo-median over its rounds."""
    rounds = seconds.reshape(-1, 2, 2).sum(axis=1)
    return pseudo_median(np.log(rounds[:, 0] / rounds[:, 1]).tolist())


def cost_interval(log_ratios: Sequence[float]) -> tuple[float, float, float]:
    """The mean over processes, less 1, and its 95 % interval by Student's t, which one process does not have."""
    if len(log_ratios) < 2:
        return math.expm1(log_ratios[0]), -math.inf, math.inf
    found = estimate(log_ratios, confidence=0.95)
    return math.expm1(found.log_ratio), math.expm1(found.low), math.expm1(found.high)


def cost_table(
    shape: int, rounds: int, processes: int, costs: Sequence[tuple[str, str]] = COSTS, *, device: str = "cpu"
) -> tuple[list[str], bool]:
    """Lines of a Markdown table, and whether all costs are shown to be within their limits.

    Args:
        shape: 1 or 2.
        rounds: Of each line, all processes together; each takes one at least.
        processes: Fresh processes of each line.
        costs: Those of `COSTS` that are measured.
        device: Where the steps run.
    """
    each = [len(part) for part in np.array_split(np.arange(max(rounds, processes)), processes)]
    found, kinds = [], {}
    for kind, what in costs:
        seconds = []
        for number, count in enumerate(each, start=1):
            seconds.append(
                _whole_seconds(shape, count, device) if what == "all" else _in_fresh_process(shape, kind, count, device)
            )
            share = math.expm1(process_cost(seconds[-1]))
            print(f"notebook {shape}, {kind}, {what}: process {number} of {processes}: {share:+.2%}", file=sys.stderr)
        found.append(cost_line(shape, kind, what, seconds))
        if what == "fingerprints and trace":
            kinds[kind] = seconds
    if kinds.keys() == set(STEPS):
        found.append(training_line(shape, kinds))
    return [line for line, _ in found], all(judged == WITHIN for _, judged in found)


def _whole_seconds(shape: int, rounds: int, device: str) -> np.ndarray:
    """Both steps in processes of their own: op determinism is a process's."""
    with worker(shape, exact=True, device=device) as exact, worker(shape, exact=False, device=device) as plain:
        return interleaved(exact, plain, rounds)


def _in_fresh_process(shape: int, kind: str, rounds: int, device: str) -> np.ndarray:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds: np.ndarray = pool.apply(_fingerprint_seconds, (shape, kind, rounds, device))
        return seconds


def _fingerprint_seconds(shape: int, kind: str, rounds: int, device: str) -> np.ndarray:
    """Both steps in one process, op determinism on for both."""
    as_a_run(device)
    traced = Stepper(shape, kind, traced=True)
    return interleaved(traced, traced.plain(), rounds)


def main() -> int:
    """Prints the tables; 0 if every process agrees and the costs are shown to be within their limits."""
    try:
        return _run(_options())
    except MinibertError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exactness", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=20, help="fresh processes per shape (default: 20; 0: none)")
    parser.add_argument("--steps", type=int, default=4, help="steps of each kind in a process (default: 4)")
    parser.add_argument("--shape", type=int, choices=PRESETS, help="a notebook's shape (default: both)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=20,
        help=f"rounds of 4 * {CPU_INTERVAL} steps (on a GPU 4 * {GPU_INTERVAL}) for the cost (default: 20; 0: none)",
    )
    parser.add_argument(
        "--cost-processes", type=int, default=5, help="fresh processes that the rounds are shared among (default: 5)"
    )
    parser.add_argument("--fingerprints", action="store_true", help="of the costs only those of fingerprints and trace")
    parser.add_argument("--step", action="append", choices=STEPS, help="the costs of this kind of step alone")
    parser.add_argument(
        "--device", choices=DEVICES, default="cpu", help="where to train; it must be there (default: cpu)"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(options: argparse.Namespace) -> int:
    if options.child:
        print(json.dumps(digests_of(options.shape, options.steps, options.device)))
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    shapes, good = [options.shape] if options.shape else list(PRESETS), True
    if options.processes:
        print("| notebook | digest | agree | different | first process |\n|---|---|---|---|---|")
        for shape in shapes:
            lines, agree = repeatability_table(shape, options.processes, options.steps, options.device)
            print(*lines, sep="\n", flush=True)
            good = good and agree
        print()
    if options.rounds:
        print("| notebook | step | exactness | plain ms | exact ms | cost | 95 % interval | limit | rounds |")
        print("|---|---|---|---|---|---|---|---|---|")
        costs = [
            (kind, what)
            for kind, what in COSTS
            if kind in (options.step or STEPS) and not (options.fingerprints and what == "all")
        ]
        for shape in shapes:
            lines, within = cost_table(
                shape, options.rounds, max(1, options.cost_processes), costs, device=options.device
            )
            print(*lines, sep="\n", flush=True)
            good = good and within
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
