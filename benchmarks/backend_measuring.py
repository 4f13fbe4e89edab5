"""One row of ``python -m benchmarks.backends``: in a process whose Keras backend is chosen already."""

from __future__ import annotations

import dataclasses
import importlib
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.arithmetic import step_flops
from benchmarks.backends import LARGE, require_loss
from benchmarks.stored import conditions
from benchmarks.workers import nvidia_gpus, peak_bytes
from benchmarks.workloads import PREPARED_BATCHES, masked_lm_batches, selected_rows, shape_settings
from minibert.errors import DeviceError
from minibert.settings import RunSettings

TURN_SECONDS = 0.5
"""A turn is as many steps as take about this long."""
MATRIX_SIZES = {"cpu": 2_048, "cuda": 8_192, "metal": 4_096}
PRODUCTS = {"cpu": 4, "cuda": 50, "metal": 8}


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Runs one task of `benchmarks.backends`.

    Raises:
        DeviceError: Backend or device are missing, or the first loss is another.
    """
    backend, device = task["backend"], task["device"]
    device_name = require_device(backend, device)
    settings = settings_of(task)
    from benchmarks.backend_steps import BackendStep, first_loss

    under = {"backend": backend, "gpu": nvidia_gpus() if device == "cuda" else []}
    if task.get("only_loss"):
        return {"loss": first_loss(settings), "conditions": conditions(**under)}
    step = BackendStep(settings, compiled=task["compiled"])
    started = time.perf_counter()
    losses = step.run(0, 1)
    first_call_seconds = time.perf_counter() - started
    distance = require_loss(task, losses[0])
    losses += step.run(1, 2 * PREPARED_BATCHES - 1)
    require_fall(losses)
    timed = _timed(step, MatrixRate(backend, device, task["precision"]), task["turns"])
    rows = selected_rows(masked_lm_batches(settings))
    flops = step_flops(settings, "masked_lm", rows=rows)
    return {
        **{name: task[name] for name in ("backend", "shape", "precision", "compiled", "device")},
        "device_name": device_name,
        **timed,
        "first_call_seconds": first_call_seconds,
        "first_loss": losses[0],
        "first_loss_distance": distance,
        "losses": losses,
        "tokens": settings.pretrain.batch_size * settings.text.sequence_length,
        "masked_tokens": rows,
        "parameters": step.parameters,
        "flops": flops,
        "matrix_rate_fraction": flops / timed["matrix_flops_per_second"] / timed["seconds"],
        "peak_bytes": peak_bytes(),
        "device_peak_bytes": device_peak_bytes(backend, device),
        "jit_compile": {"jax": "whole step", "tensorflow": "elementwise groups"}.get(backend, task["compiled"]),
        "conditions": conditions(**under),
    }


def settings_of(task: dict[str, Any]) -> RunSettings:
    """The shape in the task's precision."""
    settings = large_settings() if task["shape"] == LARGE else shape_settings(task["shape"])
    precision = "mixed_bfloat16" if task["precision"] == "bfloat16" else "float32"
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, precision=precision))


def large_settings() -> RunSettings:
    """BERT base's encoder at length 512; its rate is BERT's, since a deep encoder does not train at 0.001."""
    settings = shape_settings("imdb")
    return dataclasses.replace(
        settings,
        preset=LARGE,
        text=dataclasses.replace(settings.text, sequence_length=512),
        model=dataclasses.replace(settings.model, hidden_size=768, heads=12, feed_forward_size=3_072, blocks=12),
        pretrain=dataclasses.replace(settings.pretrain, learning_rate=1e-4),
    )


def require_fall(losses: list[float]) -> None:
    """A fast wrong step is no step: on the same batches the loss is lower the next time.

    Raises:
        DeviceError: It is not.
    """
    first, again = losses[:PREPARED_BATCHES], losses[PREPARED_BATCHES:]
    if not (np.isfinite(losses).all() and sum(again) < sum(first)):
        raise DeviceError(f"a finite loss that falls is required, but {losses} came")


def _timed(step: Any, rate: MatrixRate, turns: int) -> dict[str, Any]:
    """Median seconds of a step in turns with one wait, and with a wait after each; and the matrix rate between."""
    started = time.perf_counter()
    step.run(0, 2)
    count = max(1, round(TURN_SECONDS / ((time.perf_counter() - started) / 2)))
    together, waited, rates = [], [], []
    for _ in range(turns):
        started = time.perf_counter()
        step.run(0, count)
        together.append((time.perf_counter() - started) / count)
        started = time.perf_counter()
        for number in range(count):
            step.run(number, 1)
        waited.append((time.perf_counter() - started) / count)
        rates.append(rate.flops_per_second())
    low, high = np.quantile(together, [0.25, 0.75]).tolist()
    return {
        "seconds": statistics.median(together),
        "seconds_low": low,
        "seconds_high": high,
        "synchronized_seconds": statistics.median(waited),
        "turns": turns,
        "steps_in_a_turn": count,
        "matrix_flops_per_second": statistics.median(rates),
    }


class MatrixRate:
    """Large square products on the device, in the precision of the step's own.

    Args:
        backend: Keras' backend.
        device: One of `benchmarks.workers.DEVICES`.
        precision: One of `benchmarks.backends.PRECISIONS`.
    """

    def __init__(self, backend: str, device: str, precision: str) -> None:
        from keras import ops

        size, self._products = MATRIX_SIZES[device], PRODUCTS[device]
        matrix = np.random.Generator(np.random.PCG64(0)).standard_normal((size, size), dtype=np.float32) / size**0.5
        dtype = "bfloat16" if precision == "bfloat16" else "float32"
        self._matrix = ops.cast(ops.convert_to_tensor(matrix), dtype)
        self._fetch = lambda product: float(ops.convert_to_numpy(ops.cast(product[0, 0], "float32")))
        self._multiply = _multiply(backend)
        self._flops = self._products * 2.0 * size**3
        self.flops_per_second()

    def flops_per_second(self) -> float:
        """The rate now, over a few products, each of which waits for the one before."""
        started, product = time.perf_counter(), self._matrix
        for _ in range(self._products):
            product = self._multiply(product, self._matrix)
        self._fetch(product)
        return self._flops / (time.perf_counter() - started)


def _multiply(backend: str) -> Any:
    if backend == "jax":
        import jax

        return jax.jit(jax.numpy.matmul)
    if backend == "torch":
        import torch

        return torch.no_grad()(torch.matmul)
    import tensorflow as tf

    return tf.function(tf.linalg.matmul, autograph=False)


def require_device(backend: str, device: str) -> str:
    """The device's name.

    Raises:
        DeviceError: The backend is not installed, or does not see the device.
    """
    try:
        module = importlib.import_module(backend)
    except ModuleNotFoundError:
        raise DeviceError(f"--backend {backend}: it is not installed") from None
    problem = DeviceError(f"--device {device}: {backend} {module.__version__} sees no such device")
    if backend == "jax":
        try:
            found = module.devices()[0]
        except RuntimeError:
            raise problem from None
        return found.device_kind if device != "cpu" else _processor()
    if backend == "torch":
        there = {"cpu": True, "cuda": module.cuda.is_available(), "metal": module.backends.mps.is_available()}
        if not there[device]:
            raise problem
        return module.cuda.get_device_name() if device == "cuda" else _processor()
    from benchmarks.workers import claim_tensorflow_device

    claim_tensorflow_device(device)
    gpus = module.config.list_physical_devices("GPU")
    details = module.config.experimental.get_device_details(gpus[0]) if device != "cpu" else {}
    return str(details.get("device_name", device)) if device != "cpu" else _processor()


def _processor() -> str:
    from minibert.environment import describe_environment

    return str(describe_environment()["cpu"]["model"])


def device_peak_bytes(backend: str, device: str) -> int | None:
    """The most of the device's own memory that was used; None on a CPU, or where it is not known."""
    if device == "cpu":
        return None
    if backend == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if backend == "torch" and device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return None
