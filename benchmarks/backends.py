"""The training step with Keras on JAX, PyTorch or TensorFlow: the same masks, weights and loss, and how long it takes.

    python -m benchmarks.backends --backend jax                          the notebooks' shapes on the CPU
    python -m benchmarks.backends --backend torch --device cuda --require-device
    python -m benchmarks.backends --backend jax --device cuda --shape large --precision bfloat16
    python -m benchmarks.backends --table benchmarks/results/backends.json

Needs no TensorFlow unless that is the backend: Keras, NumPy, PyArrow, wrapt, and the backend. Every shape has a
process of its own.

Before anything is timed, the batches, the initial weights and the words of dropout are compared with TensorFlow's on
the CPU bit by bit, and the losses of the first steps in the last digits: they are functions of the seed, so nothing
else may differ. ``benchmarks/results/first_losses.json`` holds them (``--write-losses`` makes it). A step is timed
with a wait after each (the loss and an updated variable are fetched) and in turns with one wait at the end. Beside it
stands the device's own matrix rate in the same precision, and which part of the step its arithmetic takes at that
rate.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checks import WrongLossError
from benchmarks.devices import DEVICES
from benchmarks.stored import RESULTS, Results, kept_table
from benchmarks.workers import WorkerError, run_apart
from benchmarks.workloads import SHAPES
from minibert.errors import DeviceError, MinibertError, SettingsError
from minibert.quiet import quiet_tensorflow

LARGE = "large"
"""BERT base's encoder at length 512: for accelerators."""
BACKENDS = ("jax", "torch", "tensorflow")
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
"""TensorFloat-32 is float32 whose products are computed with 10 bits of mantissa, on a GPU only."""
LOSS_TOLERANCES = {"float32": 1e-5, "tensorfloat32": 1e-3, "bfloat16": 1e-3}
"""Relative distance that the first losses may have from TensorFlow's in float32 on the CPU."""
FIRST_LOSSES = RESULTS / "first_losses.json"
KEYS = ("backend", "device_name", "shape", "precision", "compiled", "deterministic")
JAX_DETERMINISM = "--xla_gpu_deterministic_ops=true"
"""XLA then rewrites scatters so that they add in a fixed order, and chooses no kernel by how fast it happened to be."""
TURNS = 15


def measure_apart(task: dict[str, Any], *, alone: bool = False) -> dict[str, Any]:
    """Measures one row in a fresh process, which chooses backend and device before it imports them.

    A single row is measured right here: this process is fresh, too.

    Raises:
        DeviceError: Backend or device are missing.
        WorkerError: The process ended.
        WrongLossError: The first loss is another, or the step does not train.
    """
    return _measure_here(task) if alone else run_apart(_measure_here, task)


def _measure_here(task: dict[str, Any]) -> dict[str, Any]:
    choose_backend(task)
    from benchmarks import backend_measuring

    return backend_measuring.measure(task)


def choose_backend(task: dict[str, Any]) -> None:
    """Sets what Keras and its backends read when they are imported; called once, in a fresh process."""
    backend, device, deterministic = task["backend"], task["device"], task.get("deterministic", False)
    os.environ["KERAS_BACKEND"] = backend
    warnings.filterwarnings("ignore", message="Explicitly requested dtype int64")  # JAX' ids are int32 by default
    if backend == "tensorflow":
        quiet_tensorflow()
    elif backend == "jax":
        os.environ["JAX_PLATFORMS"] = device
        named = {"float32": "highest", "tensorfloat32": "tensorfloat32", "bfloat16": "tensorfloat32"}
        os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = named[task["precision"]] if device != "cpu" else "highest"
        if task.get("shares_device"):
            os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        if deterministic:
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {JAX_DETERMINISM}".strip()
    elif backend == "torch":
        os.environ["KERAS_TORCH_DEVICE"] = {"metal": "mps"}.get(device, device)
        if deterministic:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"


def require_precision(precision: str, device: str) -> None:
    """TensorFloat-32 is asked of an NVIDIA GPU only: elsewhere it would be float32 under another name.

    Raises:
        SettingsError: It is asked of another device.
    """
    if precision == "tensorfloat32" and device != "cuda":
        raise SettingsError(f"--precision tensorfloat32: --device cuda is required, but {device} came")


def require_losses(task: dict[str, Any], losses: Sequence[float]) -> float | None:
    """The largest relative distance of the first losses from the stored ones; None where none are stored.

    Raises:
        WrongLossError: One is too far; no figure counts of a step that computes something else.
    """
    stored = Results(FIRST_LOSSES, ("shape",)).find(shape=task["shape"])
    if stored is None:
        return None
    allowed, distances = LOSS_TOLERANCES[task["precision"]], []
    for number, (loss, wanted) in enumerate(zip(losses, stored["losses"], strict=False)):
        distances.append(abs(loss - wanted) / abs(wanted))
        if not distances[-1] <= allowed:
            raise WrongLossError(
                f"{task['backend']} on {task['device']}, shape {task['shape']}, {task['precision']}: a loss within "
                f"{allowed:g} of {wanted:.7f} is required in step {number}, but {loss:.7f} came"
            )
    return max(distances)


def require_start(task: dict[str, Any], start: dict[str, str]) -> None:
    """Batches, initial weights and words of dropout are the stored ones, bit for bit; of no shape but the stored ones.

    Raises:
        WrongLossError: They are not.
    """
    stored = Results(FIRST_LOSSES, ("shape",)).find(shape=task["shape"])
    for name, wanted in ({} if stored is None else stored["start"]).items():
        digest = start.get(name, "")
        if digest != wanted:
            raise WrongLossError(
                f"{task['backend']} on {task['device']}, shape {task['shape']}: {name} of SHA-256 {wanted[:16]}... are "
                f"required, but {digest[:16]}... came"
            )


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table."""
    head = (
        "| backend | device | shape | precision | step | with a wait after each | tokens/s | of the matrix rate "
        "| first call | memory | first losses off by |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *(_line(row) for row in rows)])


def _line(row: Mapping[str, Any]) -> str:
    distance = row["loss_distance"]
    memory = row["device_peak_bytes"] or row["peak_bytes"]
    cells = (
        named(row),
        row["device_name"],
        row["shape"],
        row["precision"],
        f"**{row['seconds'] * 1e3:.1f} ms**",
        f"{row['synchronized_seconds'] * 1e3:.1f} ms",
        f"{row['tokens'] / row['seconds']:,.0f}",
        f"{row['matrix_rate_fraction']:.3f} of {row['matrix_flops_per_second'] / 1e12:,.2f} TFLOP/s",
        f"{row['first_call_seconds']:.1f} s",
        f"{memory / 1e9:.2f} GB" + (" of the device" if row["device_peak_bytes"] else ""),
        distance_text(distance),
    )
    return f"| {' | '.join(cells)} |"


def named(row: Mapping[str, Any]) -> str:
    """A row's backend and how it is used."""
    more = {"torch.compile": row["compiled"], "deterministic": row["deterministic"]}
    return ", ".join([row["backend"], *(name for name, is_so in more.items() if is_so)])


def distance_text(distance: float | None) -> str:
    """A relative distance as text; None is one that was not measured."""
    return "not compared" if distance is None else f"{distance:.0e}" if distance else "nothing"


def deviation(losses: Sequence[Sequence[float]]) -> float:
    """The largest relative distance that losses of the same step have from one another, of the steps that all have."""
    values = np.array([one[: min(map(len, losses))] for one in losses])
    return float(((values.max(0) - values.min(0)) / np.abs(values).min(0)).max())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command on a backend takes: the device, and what is done with its rows."""
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where to train (default: cpu)")
    parser.add_argument("--require-device", action="store_true", help="fail where the device is missing")
    parser.add_argument("--json", action="store_true", help="print a list of rows instead of the table")
    parser.add_argument("--keep", type=Path, metavar="FILE.json", help="also add the rows to a file of results")
    parser.add_argument("--table", type=Path, metavar="FILE.json", help="only print a file of results as a table")


def measured_rows(
    tasks: Sequence[dict[str, Any]],
    measure: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    options: argparse.Namespace,
    keys: Sequence[str],
    line: Callable[[Mapping[str, Any]], str],
) -> tuple[list[dict[str, Any]], int]:
    """Measures task after task; what cannot run or fails is said, and leaves the others alone.

    Args:
        tasks: Of the command.
        measure: Gives a task's row, its conditions among it.
        options: From a parser with `add_arguments`; every row is kept as it comes where they say so.
        keys: Of the file of results.
        line: A row as a line, shown when it is there.

    Returns:
        The rows, and the exit code of the last failure, or 0.

    Raises:
        DeviceError: A backend or device is missing that is required.
    """
    rows, failed = [], 0
    for task in tasks:
        try:
            row = measure(task)
        except DeviceError as error:
            if options.require_device:
                raise
            print(f"not run: {error}", file=sys.stderr)
            continue
        except (WorkerError, WrongLossError) as error:
            print(f"failed: {error}", file=sys.stderr)
            failed = error.exit_code
            continue
        under = row.pop("conditions")
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)
        if options.keep:
            Results(options.keep, keys).keep(row, under=under)
    return rows, failed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except MinibertError as error:
        print(f"benchmarks.backends: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backends", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="Keras' backend; may be repeated")
    parser.add_argument("--shape", choices=(*SHAPES, LARGE), action="append", help="may be repeated (default: imdb, "
                        "amazon); large: hidden size 768, 12 blocks, length 512")  # fmt: skip
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="may be repeated (default: float32)")
    parser.add_argument("--compile", action="store_true", help="PyTorch through torch.compile")
    parser.add_argument("--deterministic", action="store_true", help="with the backend's own switch for it")
    parser.add_argument("--turns", type=int, default=TURNS, metavar="N", help=f"turns of steps (default: {TURNS})")
    add_arguments(parser)
    parser.add_argument("--write-losses", action="store_true", help=f"write {FIRST_LOSSES.name} anew, by TensorFlow")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.turns < 1:
        raise SettingsError(f"--turns: 1 or more is required, but {options.turns} came")
    for precision in options.precision or ():
        require_precision(precision, options.device)
    if options.table:
        print(kept_table(Results.kept(options.table, KEYS), markdown))
        return 0
    tasks = [
        {"backend": backend, "shape": shape, "precision": precision, "device": options.device,
         "compiled": options.compile and backend == "torch", "deterministic": options.deterministic,
         "turns": options.turns}
        for backend in options.backend or (["tensorflow"] if options.write_losses else [])
        for shape in options.shape or ("imdb", "amazon")
        for precision in options.precision or ("float32",)
    ]  # fmt: skip
    if not tasks:
        raise SettingsError(f"--backend: one of {', '.join(BACKENDS)} is required, but none came")
    if options.write_losses:
        return _write_losses(tasks)
    alone = len(tasks) == 1
    rows, failed = measured_rows(
        tasks, lambda task: measure_apart(task, alone=alone), options=options, keys=KEYS, line=_line
    )
    print(json.dumps(rows, indent=2) if options.json else markdown(rows))
    return failed


def _write_losses(tasks: Sequence[dict[str, Any]]) -> int:
    for task in tasks:
        found = measure_apart(
            {**task, "backend": "tensorflow", "device": "cpu", "only_losses": True}, alone=len(tasks) == 1
        )
        Results(FIRST_LOSSES, ("shape",)).keep(
            {"shape": task["shape"], "losses": found["losses"], "start": found["start"]},
            under=found["conditions"],
        )
        print(f"{task['shape']}: {', '.join(f'{loss:.7f}' for loss in found['losses'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
