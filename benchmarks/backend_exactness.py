"""Are the bits the same in every fresh process on another backend or device? If not, where do two of them part?

    python -m benchmarks.backend_exactness --backend jax --backend torch --device cuda --require-device
    python -m benchmarks.backend_exactness --backend jax --shape tiny --processes 2 --steps 2 --turns 0
    python -m benchmarks.backend_exactness --table benchmarks/results/backend_exactness.json

Every process takes some masked-LM steps, one at a time, and gives digests: of the batches, the initial weights and the
words of dropout, which must be those of every other device and backend; and after each step of the loss, of each
variable of the optimizer and of each weight (Adam's first moment after step 1 is a tenth of the gradient). The
processes run side by side, so that each is the others' busy neighbour. That is done as the backend comes, and with
its own switch for determinism (``xla_gpu_deterministic_ops``, ``torch.use_deterministic_algorithms``,
``tf.config.experimental.enable_op_determinism``).

What the switch costs is measured in two processes, one of which steps while the other waits, in turns A B B A: the
median of the paired ratios, with the middle half of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.backends import (
    BACKENDS,
    LARGE,
    PRECISIONS,
    add_arguments,
    choose_backend,
    deviation,
    distance_text,
    measured_rows,
    require_losses,
    require_precision,
    require_start,
)
from benchmarks.stored import Results, kept_table
from benchmarks.workers import Child, run_apart
from benchmarks.workloads import SHAPES
from minibert.errors import MinibertError, SettingsError

KEYS = ("backend", "device_name", "shape", "precision", "deterministic")
PROCESSES, STEPS, TURNS = 20, 20, 8
SIDE_BY_SIDE = {"cpu": 2}
"""Processes at the same time on a device; on others than these, all of them."""
TURN_SECONDS = 0.3
"""A turn is as many steps as take about this long."""


def run_of(task: dict[str, Any]) -> dict[str, Any]:
    """What one process computes, run in a fresh one.

    Returns:
        ``start``: from `BackendStep.start_digests`; ``steps``: for each step the loss in hexadecimal and the digest of
        each tensor, the optimizer's before the weights; ``losses``; ``device_name`` and ``conditions``.

    Raises:
        DeviceError: Backend or device are missing.
        WrongLossError: The start or the first losses are others than TensorFlow's on the CPU.
    """
    choose_backend(task)
    from benchmarks.backend_measuring import conditions_here, set_up, settings_of
    from minibert.training.state import state_digest

    device_name, settings = set_up(task), settings_of(task)
    from benchmarks.backend_steps import BackendStep

    step, steps, losses = BackendStep(settings), [], []
    start = step.start_digests()
    require_start(task, start)
    for number in range(task["steps"]):
        losses += step.run(number, 1)
        tensors = {**step.optimizer_state(), **step.weights()}
        digests = {name: state_digest({name: array}) for name, array in tensors.items()}
        steps.append({"loss": losses[-1].hex(), "tensors": digests})
    return {
        "start": start,
        "steps": steps,
        "losses": losses,
        "loss_distance": require_losses(task, losses),
        "device_name": device_name,
        "conditions": conditions_here(task),
    }


def compared(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many processes agree with the first, and where the others part from it.

    Returns:
        ``same_losses`` and ``same_state`` (losses, optimizer and weights): how many agree with the first process,
        itself included. ``different``: how many different ends there are. ``parts_at``: the first step, from 0, in
        which any process has another loss or tensor, None if there is none; ``parts_in``: ``loss``, and the names of
        the tensors that differ there. ``loss_deviation``: from `benchmarks.backends.deviation`.
    """
    first = runs[0]
    pairs = [enumerate(zip(first["steps"], run["steps"], strict=True)) for run in runs[1:]]
    parted = [next((number for number, (one, other) in steps if one != other), None) for steps in pairs]
    at = min((number for number in parted if number is not None), default=None)
    ends = [([step["loss"] for step in run["steps"]], run["steps"][-1]["tensors"]) for run in runs]
    return {
        "processes": len(runs),
        "steps": len(first["steps"]),
        "same_losses": sum(losses == ends[0][0] for losses, _ in ends),
        "same_state": sum(end == ends[0] for end in ends),
        "different": len({(*losses, *tensors.values()) for losses, tensors in ends}),
        "parts_at": at,
        "parts_in": [] if at is None else _different([run["steps"][at] for run in runs]),
        "loss_deviation": deviation([run["losses"] for run in runs]),
        "losses": first["losses"],
        "start": first["start"],
    }


def _different(steps: Sequence[dict[str, Any]]) -> list[str]:
    """What processes have differently after one step, in the order in which it is computed."""
    names = ["loss"] if len({step["loss"] for step in steps}) > 1 else []
    return names + [name for name in steps[0]["tensors"] if len({step["tensors"][name] for step in steps}) > 1]


class Stepping:
    """A process that steps when it is asked: the orders of `benchmarks.workers.Child`."""

    def __init__(self, task: dict[str, Any]) -> None:
        choose_backend(task)
        from benchmarks.backend_measuring import set_up, settings_of

        set_up(task)
        from benchmarks.backend_steps import BackendStep

        self._step = BackendStep(settings_of(task))
        self._step.run(0, 4)

    def turn(self, steps: int) -> float:
        """Seconds of a step, waited for at the end."""
        started = time.perf_counter()
        self._step.run(0, steps)
        return (time.perf_counter() - started) / steps


def cost_of_switch(task: dict[str, Any], turns: int) -> dict[str, Any]:
    """The step's time with the backend's switch for determinism over that without it: paired turns, A B B A."""
    tasks = [{**task, "deterministic": is_on, "shares_device": True} for is_on in (False, True)]
    with Child("without", Stepping, tasks[0]) as without, Child("with", Stepping, tasks[1]) as switched:
        steps = max(1, round(TURN_SECONDS / without.ask("turn", 3)))
        switched.ask("turn", steps)
        pairs = []
        for turn in range(turns):
            order = (without, switched) if turn % 2 == 0 else (switched, without)
            seconds = [side.ask("turn", steps) for side in order]
            pairs.append(seconds if turn % 2 == 0 else seconds[::-1])
    ratios = [b / a for a, b in pairs]
    low, high = np.quantile(ratios, [0.25, 0.75]).tolist()
    return {"cost": statistics.median(ratios) - 1, "cost_low": low - 1, "cost_high": high - 1,
            "seconds": statistics.median(a for a, _ in pairs), "turns": turns}  # fmt: skip


def measure(task: dict[str, Any], *, processes: int, side_by_side: int, turns: int) -> dict[str, Any]:
    """One row: fresh processes, compared; with ``turns`` also what the switch costs.

    Raises:
        DeviceError: Backend or device are missing.
        WorkerError: A process ended.
        WrongLossError: A first loss is another than TensorFlow's on the CPU.
    """
    task = {**task, "shares_device": True}
    with ThreadPoolExecutor(side_by_side) as pool:
        runs = list(pool.map(lambda _: run_apart(run_of, task), range(processes)))
    named = {name: task[name] for name in ("backend", "device", "shape", "precision", "deterministic")}
    shared = {name: runs[0][name] for name in ("device_name", "loss_distance", "conditions")}
    has_switch = (task["backend"], task["device"]) != ("jax", "cpu")
    costs = cost_of_switch(task, turns) if turns and task["deterministic"] and has_switch else {}
    return {**named, **shared, "side_by_side": side_by_side, **compared(runs), **costs}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table."""
    head = (
        "| backend | device | shape | its switch | same losses, weights and optimizer as the first | different ends "
        "| two first differ in | their losses by | and from TensorFlow's on the CPU by | the switch costs |"
        "\n|---|---|---|---|---|---|---|---|---|---|"
    )
    wanted = ("tensorflow", "cpu", "float32")
    of_cpu = [row for row in rows if (row["backend"], row["device"], row["precision"]) == wanted]
    reference = {row["shape"]: row for row in reversed(of_cpu)}  # the first of a shape
    return "\n".join([head, *(_line(row, reference.get(row["shape"])) for row in rows)])


def _line(row: Mapping[str, Any], reference: Mapping[str, Any] | None = None) -> str:
    """A row of the table.

    Args:
        row: From `measure`.
        reference: The row of TensorFlow's steps on the CPU.
    """
    more = len(row["parts_in"]) - 1
    where = f"step {row['parts_at'] + 1}: {row['parts_in'][0]}" if row["parts_in"] else "nothing"
    cost = f"{row['cost']:+.1%} ({row['cost_low']:+.1%} to {row['cost_high']:+.1%})" if "cost" in row else ""
    named_shape = row["shape"] + ("" if row["precision"] == "float32" else f", {row['precision']}")
    distance = None if reference is None else deviation([row["losses"], reference["losses"]])
    beside = "reference" if row is reference else distance_text(distance)
    cells = (
        row["backend"], row["device_name"], named_shape, "on" if row["deterministic"] else "off",
        f"**{row['same_state']} of {row['processes']}**, {row['steps']} steps", str(row["different"]),
        where + (f" and {more} more" if more > 0 else ""),
        distance_text(row["loss_deviation"]), beside, cost,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 1 if the switch is on and processes differ all the same."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except MinibertError as error:
        print(f"benchmarks.backend_exactness: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backend_exactness", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="Keras' backend; may be repeated")
    parser.add_argument("--shape", choices=(*SHAPES, LARGE), action="append",
                        help="may be repeated (default: imdb, amazon)")  # fmt: skip
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="default: float32")
    parser.add_argument("--processes", type=int, default=PROCESSES, metavar="N", help=f"default: {PROCESSES}")
    parser.add_argument("--side-by-side", type=int, metavar="N",
                        help="at the same time, at most (default: 2 on the CPU, else all)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help=f"in each process (default: {STEPS})")
    parser.add_argument("--turns", type=int, default=TURNS, metavar="N",
                        help=f"pairs of turns for the switch's cost; 0: none of it (default: {TURNS})")  # fmt: skip
    add_arguments(parser)
    return parser


def _run(options: argparse.Namespace) -> int:
    for name, least in {"processes": 2, "side_by_side": 1, "steps": 1, "turns": 0}.items():
        if getattr(options, name) is not None and getattr(options, name) < least:
            given = f"--{name.replace('_', '-')}"
            raise SettingsError(f"{given}: {least} or more is required, but {getattr(options, name)} came")
    if options.table:
        print(kept_table(Results.kept(options.table, KEYS), markdown))
        return 0
    require_precision(options.precision, options.device)
    if not options.backend:
        raise SettingsError(f"--backend: one of {', '.join(BACKENDS)} is required, but none came")
    tasks = [
        {"backend": backend, "shape": shape, "precision": options.precision, "device": options.device,
         "deterministic": deterministic, "compiled": False, "steps": options.steps}
        for backend in options.backend
        for shape in options.shape or ("imdb", "amazon")
        for deterministic in (False, True)
    ]  # fmt: skip
    side_by_side = options.side_by_side or SIDE_BY_SIDE.get(options.device, options.processes)

    def measured(task: dict[str, Any]) -> dict[str, Any]:
        return measure(task, processes=options.processes, side_by_side=side_by_side, turns=options.turns)

    rows, failed = measured_rows(tasks, measured, options=options, keys=KEYS, line=_line)
    table = Results(options.keep, KEYS).rows if options.keep else rows
    print(json.dumps(rows, indent=2) if options.json else markdown(table))
    agree = all(row["same_state"] == row["processes"] for row in rows if row["deterministic"])
    return failed or (0 if agree else 1)


if __name__ == "__main__":
    sys.exit(main())
