"""Where a training step's time goes, beside the least that its matrix products can take.

    python -m benchmarks.step_profile                      all steps at both notebooks' shapes, and keeps the table
    python -m benchmarks.step_profile --step frozen        one kind of step: masked_lm, frozen or unfrozen
    python -m benchmarks.step_profile --quick              tiny's shape in some seconds, kept nowhere
    python -m benchmarks.step_profile --redraw             prints the table from what is kept
    python -m benchmarks.step_profile --keep FILE          keeps it there: of another kind of machine

The parts are functions of their own in one process, which run in turns with the whole step; each is made
of the step's own code on arrays of the step's shapes:

    head       loss and gradients from the encoder's rows on: the vocabulary projection of the selected ones, or the
               classifier's layers
    encoder    forward and, where it is trained, backward, with dropout, up to those rows
    Adam       the update of every trained weight from given gradients
    rest       what the whole step takes beside: fingerprints, gradients made dense,
               calls, and what the parts' arrays push out of the caches

Two floors stand beside a part: its matrix products' arithmetic (`benchmarks.flops`) at the rate at which the machine
multiplies large matrices at the same time, and the memory traffic of its largest arrays at the rate of a copy by all
cores. Of the head these are the logits, 6 times: written by the product, read and written as exponentials, read for
their sum and by two products. Of Adam they are 7 times the weights: weight, two moments and gradient are read, and
the first three written. Of a classifier's encoder that is trained they are attention's weights, written once and read
once for the gradient: all other passes over them find a chunk of the batch in the cache. What else stays in the
caches between two of these is not told apart.
``results/step_profile.json`` keeps the figures, unless another file is named.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.devices import as_a_run
from benchmarks.flops import classifier_flops, head_flops, step_flops
from benchmarks.stored import RESULTS, Results, conditions, conditions_line
from minibert.environment import available_cores
from minibert.errors import MinibertError
from minibert.settings import RunSettings

SHAPES, QUICK_SHAPES = ("imdb", "amazon"), ("tiny",)
ROUNDS, QUICK_ROUNDS = 15, 3
TURN_SECONDS = 0.4
RESULT_KEYS = ("shape", "step", "part")
WHOLE, REST = "whole step", "rest"
STEP_NAMES = {"masked_lm": "masked LM", "frozen": "classifier, frozen", "unfrozen": "classifier, unfrozen"}
SHORT_SECONDS = 0.02
"""Of steps that take less, tenths of a millisecond are shown."""
ADAM_TRAFFIC = 7
"""Arrays of the weights' size that Adam reads or writes."""
HEAD_TRAFFIC = 6
"""Arrays of the logits' size that the head reads or writes."""
SCORES_TRAFFIC = {"frozen": 0, "unfrozen": 2}
"""Arrays of the size of attention's scores that a classifier's encoder reads from memory or writes there."""
COPIED_ELEMENTS = 1 << 24


@dataclasses.dataclass(frozen=True)
class Part:
    """Something to time.

    Attributes:
        name: As in the table.
        run: Runs it once, and waits for it.
        flops: Of its matrix products.
        moved_bytes: Memory traffic of its largest arrays; 0: not counted.
    """

    name: str
    run: Callable[[], Any]
    flops: float = 0.0
    moved_bytes: float = 0.0


def parts_of(settings: RunSettings, step: str = "masked_lm") -> list[Part]:
    """A whole step and its parts, each run twice, so that it is compiled.

    Args:
        settings: The shape.
        step: ``masked_lm``, ``frozen`` or ``unfrozen``.
    """
    import tensorflow as tf

    from benchmarks.workloads import OurStep
    from minibert.training.step import tensors_of

    ours = OurStep(settings, step, fingerprint_interval=1)
    numbers, batch, variables = itertools.count(), tensors_of(ours.batches[0]), ours.training_step.objective.variables
    gradients = [tf.fill(tf.shape(variable), 1e-3) for variable in variables]
    parts = _masked_lm_parts(ours, settings, batch) if step == "masked_lm" else _classifier_parts(ours, settings, batch)
    found = [
        Part(WHOLE, lambda: ours.training_step(next(numbers), ours.batches[0]), sum(part.flops for part in parts)),
        *parts,
        Part("Adam", _adam(variables, gradients), moved_bytes=_moved(variables)),
    ]
    for part in found:
        part.run()
        part.run()
    return found


def _masked_lm_parts(ours: Any, settings: RunSettings, batch: Mapping[str, Any]) -> list[Part]:
    from minibert.model.heads import masked_lm_chunks
    from minibert.model.masked_lm_loss import masked_lm_loss

    kernel, bias = (weight.value for weight in ours.weights()["head"])
    rows = int(batch["positions"].shape[0])
    hidden = _random_rows(rows, settings.model.hidden_size)
    labels = (batch["labels"], batch["sample_weight"])
    of_head, all_flops = head_flops(settings, rows=rows), step_flops(settings, "masked_lm", rows=rows)
    return [
        Part(
            "head",
            _gradients(
                lambda: masked_lm_loss(hidden, kernel, bias, *labels, chunks=masked_lm_chunks(settings)),
                [hidden, kernel, bias],
            ),
            of_head,
            moved_bytes=HEAD_TRAFFIC * 4.0 * rows * kernel.shape[1],
        ),
        Part("encoder", _encoder(ours, batch, hidden), all_flops - of_head),
    ]


def _classifier_parts(ours: Any, settings: RunSettings, batch: Mapping[str, Any]) -> list[Part]:
    objective, step, model = ours.training_step.objective, ours.stage, settings.model
    texts, length = batch["token_ids"].shape
    hidden = _random_rows(texts, length, model.hidden_size)
    read = [*(weight.value for weight in ours.weights()["head"]), *([] if step == "frozen" else [hidden])]
    all_flops, of_head = step_flops(settings, step, rows=0), classifier_flops(settings, step)
    scores = 4.0 * model.blocks * model.heads * texts * length * length
    return [
        Part("head", _gradients(lambda: objective.classify(hidden, batch)[0], read), of_head),
        Part(
            "encoder",
            _encoder(ours, batch, hidden),
            all_flops - of_head,
            moved_bytes=SCORES_TRAFFIC[step] * scores,
        ),
    ]


def _random_rows(*shape: int) -> Any:
    import tensorflow as tf

    generator = np.random.Generator(np.random.PCG64(0))
    return tf.constant(generator.standard_normal(shape, dtype=np.float32))


def _gradients(loss: Callable[[], Any], read: Sequence[Any]) -> Callable[[], Any]:
    import tensorflow as tf

    @tf.function(autograph=False)
    def gradients() -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(read)
            value = loss()
        return tape.gradient(value, read)

    return lambda: [each[:1].numpy() for each in gradients()]


def _encoder(ours: Any, batch: Mapping[str, Any], upstream: Any) -> Callable[[], Any]:
    """Forward, and backward from given gradients of its rows if it is trained."""
    import tensorflow as tf

    from minibert.model.dropout import DropoutStream

    objective = ours.training_step.objective
    of_head = {id(weight) for weight in ours.weights()["head"]}
    read = [variable.value for variable in objective.variables if id(variable) not in of_head]

    @tf.function(autograph=False)
    def encode(step: Any) -> Any:
        with (
            DropoutStream(seed=0, stage=ours.stage, step=step),
            tf.GradientTape(watch_accessed_variables=False) as tape,
        ):
            tape.watch(read)
            rows = objective.encode(batch)[objective.outputs]
        if not read:
            return [rows]
        return [tf.convert_to_tensor(each) for each in tape.gradient(rows, read, output_gradients=upstream)]

    step = tf.constant(0, tf.int64)
    return lambda: [each[:1].numpy() for each in encode(step)]


def _adam(variables: Sequence[Any], gradients: Sequence[Any]) -> Callable[[], Any]:
    """The update with a learning rate of 0, so that the whole step beside it goes on from its own weights."""
    import tensorflow as tf

    from minibert.training.adam import Adam

    optimizer = Adam(0.0, name="profiled")
    optimizer.build(variables)

    @tf.function(jit_compile=True, autograph=False)
    def update() -> None:
        optimizer.apply_with_squares(list(gradients), [None] * len(gradients), list(variables))

    def run() -> Any:
        update()
        return variables[-1].numpy()

    return run


def _moved(weights: Sequence[Any]) -> float:
    return ADAM_TRAFFIC * 4.0 * sum(int(np.prod(weight.shape)) for weight in weights)


class _CopyRate:
    """Bytes a second that a copy of a large array moves on all cores at once: what it reads and what it writes."""

    def __init__(self) -> None:
        self.threads = available_cores()
        source = np.ones(COPIED_ELEMENTS, np.float32)
        self._bytes = 2.0 * source.nbytes
        self._parts = [np.array_split(array, self.threads) for array in (np.zeros_like(source), source)]
        self._pool = ThreadPoolExecutor(self.threads)

    def bytes_per_second(self) -> float:
        started = time.perf_counter()
        list(self._pool.map(np.copyto, *self._parts))
        return self._bytes / (time.perf_counter() - started)


def measure(shape: str, step: str = "masked_lm", *, rounds: int) -> list[dict[str, Any]]:
    """Every part of a shape's step, in turns: rows with ``part``, ``seconds`` and the two floors."""
    from benchmarks.arithmetic import MatrixRate
    from benchmarks.workloads import shape_settings

    parts, matrix_rate, copy_rate = parts_of(shape_settings(shape), step), MatrixRate(), _CopyRate()
    repeats = {part.name: max(1, round(TURN_SECONDS / _seconds(part, 2))) for part in parts}
    seconds: dict[str, list[float]] = {part.name: [] for part in parts}
    products, copies = [], []
    for number in range(rounds):
        for part in parts if number % 2 == 0 else reversed(parts):
            seconds[part.name].append(_seconds(part, repeats[part.name]))
        products.append(matrix_rate.flops_per_second())
        copies.append(copy_rate.bytes_per_second())
    flops_per_second, bytes_per_second = statistics.median(products), statistics.median(copies)
    taken = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [
        {
            "shape": shape,
            "step": step,
            "part": part.name,
            "seconds": taken[part.name],
            "floor_seconds": part.flops / flops_per_second,
            "traffic_seconds": part.moved_bytes / bytes_per_second,
            "flops_per_second": flops_per_second,
            "bytes_per_second": bytes_per_second,
            "copy_threads": copy_rate.threads,
            "rounds": rounds,
        }
        for part in parts
    ]
    rest = statistics.median(
        whole - sum(others) for whole, *others in zip(*(seconds[part.name] for part in parts), strict=True)
    )
    return [*rows, {**rows[0], "part": REST, "seconds": rest, "floor_seconds": 0.0, "traffic_seconds": 0.0}]


def _seconds(part: Part, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        part.run()
    return (time.perf_counter() - started) / repeats


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table: milliseconds, the share of the whole step, and the floors."""
    lines = ["| shape | step | part | time | of the step | its products | its memory traffic |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        whole = next(each["seconds"] for each in _of_its_step(row, rows) if each["part"] == WHOLE)
        floors, digits = (row["floor_seconds"], row["traffic_seconds"]), 1 if whole < SHORT_SECONDS else 0
        cells = [f"{1e3 * floor:.{digits}f} ms" if floor else "-" for floor in floors]
        share = row["seconds"] / whole
        time_of_part = f"{1e3 * row['seconds']:.{digits}f} ms"
        shown = (row["shape"], STEP_NAMES[row["step"]], row["part"], time_of_part, f"{share:.0%}", *cells)
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def rates_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each step's rates that the floors were taken from, and all its parts' floors together, as sentences."""
    return " ".join(
        f"{row['shape']}, {STEP_NAMES[row['step']]}: {row['flops_per_second'] / 1e9:.0f} GFLOP/s in large products, "
        f"{row['bytes_per_second'] / 1e9:.0f} GB/s in copies by {_threads(row.get('copy_threads', 1))}; all floors "
        "together are "
        f"{1e3 * floor_seconds(_of_its_step(row, rows)):.0f} of "
        f"{1e3 * row['seconds']:.0f} ms."
        for row in rows
        if row["part"] == WHOLE
    )


def _of_its_step(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [each for each in rows if (each["shape"], each["step"]) == (row["shape"], row["step"])]


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def floor_seconds(rows: Sequence[Mapping[str, Any]]) -> float:
    """What the parts of one step take at least: their products and their memory traffic, one after another."""
    return sum(row["floor_seconds"] + row["traffic_seconds"] for row in rows if row["part"] != WHOLE)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_profile", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--step", choices=STEP_NAMES, help="this kind of step alone (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny's shape in a few rounds; nothing is kept")
    parser.add_argument("--redraw", action="store_true", help="measure nothing; print what is kept")
    parser.add_argument("--keep", metavar="FILE", type=Path, help="keep the figures there, and print those that are")
    options = parser.parse_args(arguments)
    as_a_run()
    try:
        steps = STEP_NAMES if options.step is None else (options.step,)
        if options.quick:
            of_each = [measure(*which, rounds=QUICK_ROUNDS) for which in itertools.product(QUICK_SHAPES, steps)]
            print(markdown(list(itertools.chain(*of_each))))
            return 0
        results = Results(options.keep or RESULTS / "step_profile.json", RESULT_KEYS)
        for shape, step in () if options.redraw else itertools.product(SHAPES, steps):
            for row in measure(shape, step, rounds=ROUNDS):
                results.keep(row, under=conditions())
        print(f"{markdown(results.rows)}\n\n{rates_line(results.rows)}")
        print(conditions_line(results.conditions_of(results.rows)))
    except MinibertError as error:
        print(f"benchmarks.step_profile: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
