"""Workloads in processes of their own, one of which steps while the others wait.

Each worker is a fresh Python process with one framework in it, in the state in which its user would
train: ours with TensorFlow's op determinism on, as a run has it, a peer without. So a crash, a thread
pool or a setting of one does not reach the other, and the peak memory is that of one training process.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.workloads import PREPARED_BATCHES, Workload, batches_of, selected_rows, shape_settings
from minibert.allocator import keep_freed_memory
from minibert.environment import available_cores, describe_environment
from minibert.errors import DeviceError

OURS = "minibert"
SIDES = {
    OURS: ("benchmarks.workloads", "OurStep"),
    "notebook": ("benchmarks.notebook_models", "NotebookStep"),
    "keras-hub": ("benchmarks.keras_hub_models", "KerasHubStep"),
    "pytorch": ("benchmarks.torch_models", "TorchStep"),
    "pytorch-full": ("benchmarks.torch_models", "FullTorchStep"),
    "bfloat16": ("benchmarks.precision", "Bfloat16Step"),
}
"""Side -> the module and the class of its workload."""

NEEDED = {
    "keras-hub": ("keras_hub",),
    "pytorch": ("torch", "transformers"),
    "pytorch-full": ("torch", "transformers"),
}
"""Side -> modules that must be installed."""

DEVICES = ("cpu", "cuda", "metal")
WAIT_SECONDS = 900
_OUR_SIDES = frozenset({OURS, "bfloat16"})
_TENSORFLOW_SIDES = _OUR_SIDES | {"notebook", "keras-hub"}


class WorkerError(RuntimeError):
    """A worker could not do what it was asked."""


def missing_module(side: str) -> str | None:
    """The first module that a side needs and that is not installed."""
    return next((name for name in NEEDED.get(side, ()) if importlib.util.find_spec(name) is None), None)


class Worker:
    """One side's process, used as a context manager.

    Args:
        side: One of `SIDES`.
        shape: One of `benchmarks.workloads.SHAPES`.
        device: One of `DEVICES`.
    """

    def __init__(self, side: str, shape: str, device: str = "cpu") -> None:
        self.side = side
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, side, shape, device), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()  # the worker's next read ends it
        self._process.join(20)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def send(self, order: str, argument: Any = None) -> None:
        """Gives an order without waiting for its answer."""
        try:
            self._connection.send((order, argument))
        except OSError:
            raise self._ended() from None

    def answer(self) -> Any:
        """The answer to the last order.

        Raises:
            DeviceError: The device is not there.
            WorkerError: The worker failed, ended, or is silent.
        """
        try:
            if not self._connection.poll(WAIT_SECONDS):
                raise WorkerError(f"{self.side}: no answer for {WAIT_SECONDS} s")
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if kind == "device":
            raise DeviceError(value)
        if kind == "error":
            raise WorkerError(f"{self.side}: {value}")
        return value

    def ask(self, order: str, argument: Any = None) -> Any:
        """Gives an order and waits for its answer."""
        self.send(order, argument)
        return self.answer()

    def _ended(self) -> WorkerError:
        self._process.join(5)
        return WorkerError(f"{self.side}: its process ended with code {self._process.exitcode}")


def _serve(connection: Connection, side: str, shape: str, device: str) -> None:
    """Answers orders until the other end closes."""
    if side in _OUR_SIDES:
        keep_freed_memory()  # as a run does
    try:
        served: Any = _Server(side, shape, device)
    except Exception as error:  # noqa: BLE001  told to the other process, whatever it is
        served = error
    while True:
        try:
            order, argument = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if isinstance(served, Exception):
                raise served
            answer = ("done", getattr(served, order)(argument))
        except DeviceError as error:
            answer = ("device", str(error))
        except Exception as error:  # noqa: BLE001
            answer = ("error", f"{type(error).__name__}: {error}".splitlines()[0])
        connection.send(answer)


class _Server:
    """The orders that a worker understands."""

    def __init__(self, side: str, shape: str, device: str) -> None:
        self._side, self._device, self._settings = side, device, shape_settings(shape)
        self._workload: Workload | None = None
        self._number = 0
        self._rates: dict[str, Any] = {}
        if side in _TENSORFLOW_SIDES:
            claim_tensorflow_device(device)
            if side in _OUR_SIDES:
                import tensorflow as tf

                tf.config.experimental.enable_op_determinism()
        elif device != "cpu":
            _require_torch_device(device)

    def prepare(self, step: str) -> dict[str, Any]:
        """Builds a step in place of the one before and runs it once on each batch."""
        self._workload, self._number = None, 0
        gc.collect()
        module, name = SIDES[self._side]
        make = getattr(importlib.import_module(module), name)
        more = () if self._side in _TENSORFLOW_SIDES else (self._device,)
        self._workload = make(self._settings, step, *more)
        started = time.perf_counter()
        losses = [self._next()]
        first_call_seconds = time.perf_counter() - started
        losses += [self._next() for _ in range(2 * PREPARED_BATCHES - 1)]
        return {
            "losses": losses,
            "first_call_seconds": first_call_seconds,
            "rows": selected_rows(batches_of(self._settings, step)),
        }

    def turn(self, steps: int) -> dict[str, Any]:
        """Runs some steps: mean seconds of a step, and the share of the cores that others took meanwhile."""
        started, busy, own = time.perf_counter(), busy_seconds(), time.process_time()
        for _ in range(steps):
            self._next()
        seconds = time.perf_counter() - started
        others = None if busy is None else (busy_seconds() or 0.0) - busy - (time.process_time() - own)
        share = None if others is None else max(0.0, others / (seconds * available_cores()))
        return {"seconds": seconds / steps, "others_rate": share}

    def matrix_rate(self, dtype: str | None) -> float:
        """The matrix rate now, in operations per second; of float32 unless another type is given."""
        from benchmarks.arithmetic import MatrixRate

        dtype = dtype or "float32"
        if dtype not in self._rates:
            self._rates[dtype] = MatrixRate(dtype)
        return self._rates[dtype].flops_per_second()

    def describe(self, _: None) -> dict[str, Any]:
        """Peak memory of this process so far, and what it runs on."""
        return {"peak_bytes": peak_bytes(), "environment": environment(self._side, self._device)}

    def _next(self) -> float:
        assert self._workload is not None
        self._number += 1
        return self._workload(self._number - 1)


def busy_seconds() -> float | None:
    """Time that all processes together have spent on all cores, in seconds; None where Linux does not say."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, fields)
    return (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def environment(side: str, device: str) -> dict[str, Any]:
    """Device, threads and versions of a side's process."""
    described = describe_environment()
    names = {"keras-hub": ("tensorflow", "keras", "keras-hub")}
    is_torch = side not in _TENSORFLOW_SIDES
    packages = ("torch", "transformers") if is_torch else names.get(side, ("minibert", "tensorflow", "keras", "numpy"))
    threads: Any = described["threads"]
    if is_torch:
        import torch

        threads = {"intra_op": torch.get_num_threads(), "inter_op": torch.get_num_interop_threads()}
    return {
        "device": device,
        "processor": described["cpu"]["model"],
        "cores": available_cores(),
        "threads": threads,
        "versions": {name: described["packages"].get(name) or _version(name) for name in packages},
        "jit_compile": side in _OUR_SIDES and "elementwise groups only",
        **({"gpu": nvidia_gpus()} if device == "cuda" else {}),
    }


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def claim_tensorflow_device(device: str) -> None:
    """Leaves TensorFlow the wanted device only.

    Raises:
        DeviceError: It is not there.
    """
    from minibert.quiet import quiet_tensorflow

    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    quiet_tensorflow()
    import tensorflow as tf

    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    elif not tf.config.list_physical_devices("GPU") or tf.test.is_built_with_cuda() != (device == "cuda"):
        raise DeviceError(f"--device {device}: TensorFlow {tf.__version__} sees no such device")


def _require_torch_device(device: str) -> None:
    import torch

    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if not there:
        raise DeviceError(f"--device {device}: PyTorch {torch.__version__} sees no such device")


def nvidia_gpus() -> list[str]:
    """Name, driver and clocks of each NVIDIA GPU, as its own tool gives them."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
