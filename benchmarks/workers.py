"""Workloads in processes of their own, one of which steps while the others wait.

Each worker is a fresh Python process with one framework in it, in the state in which its user would
train: ours as a run has it, a peer without. So a crash, a thread pool or a setting of one does not reach
the other, and the peak memory is that of one training process.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from benchmarks.checks import moved_rates, weight_digests
from benchmarks.devices import as_a_run, claim_tensorflow_device, nvidia_gpus, require_torch_device
from benchmarks.installed import missing
from benchmarks.meter import Meter, peak_bytes
from benchmarks.workloads import PREPARED_BATCHES, Workload, batches_of, selected_rows, shape_settings
from minibert.allocator import keep_freed_memory, without_allocator
from minibert.environment import available_cores, describe_environment, package_version
from minibert.errors import DeviceError, MinibertError
from minibert.settings import RunSettings

OURS = "minibert"
SIDES = {
    OURS: ("benchmarks.workloads", "OurStep"),
    "notebook": ("benchmarks.notebook_models", "NotebookStep"),
    "keras-hub": ("benchmarks.keras_hub_models", "KerasHubStep"),
    "pytorch": ("benchmarks.torch_models", "TorchStep"),
    "pytorch-full": ("benchmarks.torch_models", "FullTorchStep"),
    "bfloat16": ("benchmarks.workloads", "Bfloat16Step"),
}
"""Side -> the module and the class of its workload."""

TEXT_MODULES = {"keras-hub": "benchmarks.keras_hub_text", "pytorch": "benchmarks.torch_text"}
"""Peer -> the module of its encoding (`build_encoder`) and masking (`build_masker`, `unpacked`)."""
PEERS = tuple(TEXT_MODULES)
"""Those with a version in every group of benchmarks."""
GROUP_SIDES = (OURS, "notebook", *PEERS)

NEEDED = {
    "keras-hub": ("keras_hub",),
    "pytorch": ("torch", "transformers"),
    "pytorch-full": ("torch", "transformers"),
}
"""Side -> modules that must be installed."""

WAIT_SECONDS = 900
_OUR_SIDES = frozenset({OURS, "bfloat16"})
_OF_KERAS = ("tensorflow", "keras", "numpy")
_OF_TORCH = ("torch", "transformers", "tokenizers")
_PACKAGES = {
    OURS: ("minibert", *_OF_KERAS),
    "bfloat16": ("minibert", *_OF_KERAS),
    "notebook": (*_OF_KERAS, "keras-nlp"),
    "keras-hub": (*_OF_KERAS, "keras-hub", "tensorflow-text"),
    "pytorch": _OF_TORCH,
    "pytorch-full": _OF_TORCH,
}
"""Side -> the packages that it is made of."""
_TORCH_SIDES = frozenset(side for side, packages in _PACKAGES.items() if packages is _OF_TORCH)

Result = TypeVar("Result")


class WorkerError(MinibertError):
    """A process could not do what it was asked."""


def missing_module(side: str) -> str | None:
    """The first module that a side needs and that is not installed."""
    return next(iter(missing(*NEEDED.get(side, ()))), None)


def build_workload(side: str, settings: RunSettings, step: str, device: str) -> Workload:
    """A side's step in this process, which is in the state for it; TensorFlow's sides are on the claimed device.

    Args:
        side: One of `SIDES`.
        settings: The shape.
        step: One of `benchmarks.workloads.STEPS`.
        device: One of `benchmarks.devices.DEVICES`.

    Raises:
        DeviceError: PyTorch does not see the device.
    """
    module, name = SIDES[side]
    workload: Workload = build_for(side, module, name, settings, step, device=device)
    return workload


def build_for(side: str, module: str, name: str, *arguments: Any, device: str) -> Any:
    """An object of a side's class; PyTorch's get the device, too, TensorFlow's are on the one that is claimed.

    Args:
        side: One of `SIDES`.
        module: The module of its class.
        name: The class' name.
        arguments: What it is made with.
        device: One of `benchmarks.devices.DEVICES`.

    Raises:
        DeviceError: PyTorch does not see the device.
    """
    make = getattr(importlib.import_module(module), name)
    if side not in _TORCH_SIDES:
        return make(*arguments)
    require_torch_device(device)
    return make(*arguments, device)


class Child:
    """A fresh Python process that answers orders, used as a context manager.

    Args:
        name: For messages.
        make: A class that can be imported; its methods, each with one argument, are the orders.
        arguments: What its object is made with, in the process.
    """

    def __init__(self, name: str, make: Callable[..., Any], *arguments: Any) -> None:
        self._name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()  # its next read ends it
        self._process.join(20)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def send(self, order: str, argument: Any = None) -> None:
        """Gives an order without waiting for its answer.

        Raises:
            WorkerError: The process has ended.
        """
        try:
            self._connection.send((order, argument))
        except OSError:
            raise self._ended() from None

    def answer(self) -> Any:
        """The answer to the last order.

        Raises:
            DeviceError: The device is not there.
            WorkerError: The process failed, ended, or is silent; of a silent one nothing more comes.
        """
        try:
            if not self._connection.poll(WAIT_SECONDS):
                self._process.terminate()
                raise WorkerError(f"{self._name}: no answer for {WAIT_SECONDS} s")
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if kind == "device":
            raise DeviceError(value)
        if kind == "error":
            raise WorkerError(f"{self._name}: {value}")
        return value

    def ask(self, order: str, argument: Any = None) -> Any:
        """Gives an order and waits for its answer."""
        self.send(order, argument)
        return self.answer()

    def _ended(self) -> WorkerError:
        self._process.join(5)
        return WorkerError(f"{self._name}: its process ended with code {self._process.exitcode}")


def _serve(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Answers orders until the other end closes."""
    try:
        served: Any = make(*arguments)
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


def run_apart(function: Callable[..., Result], *arguments: Any) -> Result:
    """Calls a function in a fresh Python process.

    Raises:
        WorkerError: The process ended before it gave a result; what the function raises is raised here.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        try:
            return executor.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise WorkerError(f"{function.__name__}: its process ended before it gave a result") from None


def set_up(side: str, device: str) -> None:
    """Puts this process into the state in which a side's user would train; before its framework makes anything.

    On a GPU all sides compute their products in float32, TensorFlow's by default in TensorFloat-32.

    Raises:
        DeviceError: The side's framework does not see the device.
    """
    if side in _OUR_SIDES:
        as_a_run(device)
        return
    _forget_our_allocator()
    if side in _TORCH_SIDES:
        require_torch_device(device)
    else:
        claim_tensorflow_device(device)


def _forget_our_allocator() -> None:
    """For another side's process, which has the environment of one that may have called `keep_freed_memory`."""
    for name in set(os.environ) - set(without_allocator(os.environ)):
        del os.environ[name]


def peak_bytes_alone(side: str, device: str | None, make: Callable[..., Callable[[], Any]], *arguments: Any) -> int:
    """The most host memory that a fresh process has resident which does one work, twice, and nothing else.

    Modules that the work is made in are imported there, too: pytest and pyarrow in all of the benchmarks'.

    Args:
        side: One of `SIDES`.
        device: Where its model runs; None for work without a model, which needs no framework of ours and no GPU.
        make: A function that can be imported; it is called in the process and gives the work.
        arguments: What ``make`` is called with behind the side; what is not part of the work is made before.

    Raises:
        DeviceError: The side's framework does not see the device.
        WorkerError: The process failed, ended, or is silent.
    """
    with Child(side, _Alone, side, device, make, arguments) as child:
        size: int = child.ask("peak_bytes")
        return size


class _Alone:
    """The order that such a process understands."""

    def __init__(
        self, side: str, device: str | None, make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]
    ) -> None:
        if device is not None:
            set_up(side, device)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
            if side in _OUR_SIDES:
                keep_freed_memory()
            else:
                _forget_our_allocator()
        self._work = make(side, *arguments)

    def peak_bytes(self, _: None) -> int:
        """Does the work twice."""
        for _ in range(2):
            self._work()
        return peak_bytes()


class Worker(Child):
    """One side's process.

    Args:
        side: One of `SIDES`.
        shape: One of `benchmarks.workloads.SHAPES`.
        device: One of `benchmarks.devices.DEVICES`.
    """

    def __init__(self, side: str, shape: str, device: str = "cpu") -> None:
        super().__init__(side, _Server, side, shape, device)
        self.side, self.shape, self.device = side, shape, device


class _Server:
    """The orders that a worker understands."""

    def __init__(self, side: str, shape: str, device: str) -> None:
        self._side, self._device, self._settings = side, device, shape_settings(shape)
        self._workload: Workload | None = None
        self._number = self._prepared = 0
        self._rates: dict[str, Any] = {}
        set_up(side, device)

    def prepare(self, step: str) -> dict[str, Any]:
        """Builds a step in place of the one before and runs it twice on each batch."""
        self._workload, self._number = None, 0
        gc.collect()
        workload = self._workload = build_workload(self._side, self._settings, step, self._device)
        self._prepared += 1
        before, started = weight_digests(workload.weights()), time.perf_counter()
        losses = [self._next()]
        first_call_seconds = time.perf_counter() - started
        losses += [self._next() for _ in range(2 * PREPARED_BATCHES - 1)]
        return {
            "losses": losses,
            "moved": moved_rates(before, weight_digests(workload.weights())),
            "first_call_seconds": first_call_seconds,
            "rows": selected_rows(batches_of(self._settings, step)),
        }

    def turn(self, steps: int) -> dict[str, Any]:
        """Runs some steps: mean seconds of a step, the last loss, and the share of the cores that others took."""
        meter, loss = Meter(), float("nan")
        for _ in range(steps):
            loss = self._next()
        return {"seconds": meter.seconds() / steps, "loss": loss, "others_rate": meter.others_rate()}

    def matrix_rate(self, dtype: str | None) -> float:
        """The matrix rate now, in operations per second; of float32 unless another type is given."""
        from benchmarks.arithmetic import MatrixRate

        dtype = dtype or "float32"
        if dtype not in self._rates:
            self._rates[dtype] = MatrixRate(dtype, device=self._device)
        return self._rates[dtype].flops_per_second()

    def describe(self, _: None) -> dict[str, Any]:
        """What this process runs on, and its peak memory; None where it is not that of one step alone."""
        return {
            "peak_bytes": peak_bytes() if self._prepared == 1 else None,
            "environment": {**environment(self._side, self._device), "jit_compile": jit_compile(self._side)},
        }

    def _next(self) -> float:
        assert self._workload is not None
        self._number += 1
        return self._workload(self._number - 1)


def environment(side: str, device: str) -> dict[str, Any]:
    """Device, threads and versions of a side's process."""
    described = describe_environment()
    threads: Any = described["threads"]
    if side in _TORCH_SIDES:
        import torch

        threads = {"intra_op": torch.get_num_threads(), "inter_op": torch.get_num_interop_threads()}
    return {
        "device": device,
        "processor": described["cpu"]["model"],
        "cores": available_cores(),
        "threads": threads,
        "versions": {name: package_version(name) for name in _PACKAGES[side]},
        **({"gpu": nvidia_gpus()} if device == "cuda" else {}),
    }


def jit_compile(side: str) -> str | bool:
    """What XLA compiles of a side's training step."""
    return side in _OUR_SIDES and "elementwise groups only"
