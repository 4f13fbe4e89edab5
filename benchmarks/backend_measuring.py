"""One row of ``python -m benchmarks.backends``: in a process whose Keras backend is chosen already."""

from __future__ import annotations

import dataclasses
import importlib
import os
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.arithmetic import MatrixRate, step_flops
from benchmarks.backends import JAX_DETERMINISM, LARGE, require_losses, require_precision, require_start
from benchmarks.checks import require_fall
from benchmarks.devices import claim_tensorflow_device, nvidia_gpus, require_torch_device
from benchmarks.meter import peak_bytes
from benchmarks.stored import conditions
from benchmarks.workloads import PREPARED_BATCHES, masked_lm_batches, selected_rows, shape_settings, with_precision
from minibert.errors import DeviceError
from minibert.settings import RunSettings

TURN_SECONDS = 0.5
"""A turn is as many steps as take about this long."""


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Runs one task of `benchmarks.backends`.

    Raises:
        DeviceError: Backend or device are missing.
        WrongLossError: The first loss is another, or the step does not train.
    """
    backend, device = task["backend"], task["device"]
    device_name = set_up(task)
    settings = settings_of(task)
    from benchmarks.backend_steps import BackendStep, first_loss

    step, shape = BackendStep(settings, compiled=task["compiled"]), task["shape"]
    start = step.start_digests()
    if task.get("only_losses"):
        losses = [first_loss(settings)] if shape == LARGE else step.run(0, 2 * PREPARED_BATCHES)
        return {"losses": losses, "start": start, "conditions": conditions_here(task)}
    require_start(task, start)
    started = time.perf_counter()
    losses = step.run(0, 1)
    first_call_seconds = time.perf_counter() - started
    losses += step.run(1, 2 * PREPARED_BATCHES - 1)
    distance = require_losses(task, losses)
    require_fall(f"{backend} on {device}", losses)
    peaks = {"peak_bytes": peak_bytes(), "device_peak_bytes": device_peak_bytes(backend, device)}  # without matrices
    rows = selected_rows(masked_lm_batches(settings))
    rate = MatrixRate("bfloat16" if task["precision"] == "bfloat16" else "float32", backend=backend, device=device)
    timed = _timed(step, rate, task["turns"])
    flops = step_flops(settings, "masked_lm", rows=rows)
    floor = flops / timed["matrix_flops_per_second"]
    return {
        **{name: task[name] for name in ("backend", "shape", "precision", "compiled", "deterministic", "device")},
        "device_name": device_name,
        **timed,
        "first_call_seconds": first_call_seconds,
        "start": start,
        "loss_distance": distance,
        "losses": losses,
        "tokens": settings.pretrain.batch_size * settings.text.sequence_length,
        "masked_tokens": rows,
        "parameters": step.parameters,
        "flops": flops,
        "floor_seconds": floor,
        "matrix_rate_fraction": floor / timed["seconds"],
        **peaks,
        "jit_compile": {"jax": "whole step", "tensorflow": "elementwise groups"}.get(backend, task["compiled"]),
        "conditions": conditions_here(task),
    }


def conditions_here(task: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The conditions of figures that were taken just now, a GPU's clocks among them."""
    return conditions(backend=task["backend"], gpu=nvidia_gpus() if task["device"] == "cuda" else [], **more)


def set_up(task: dict[str, Any]) -> str:
    """What a backend is told after its import: the precision of its products, and determinism. Gives the device's name.

    Raises:
        DeviceError: Backend or device are missing, or the switch for determinism is not as it was asked for.
        SettingsError: The device has no such precision.
    """
    backend, precision, deterministic = task["backend"], task["precision"], task.get("deterministic", False)
    require_precision(precision, task["device"])
    name = require_device(backend, task["device"])
    if backend == "torch":
        import torch

        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")  # as on JAX
        torch.use_deterministic_algorithms(deterministic)
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(precision == "tensorfloat32")
        if deterministic:
            tf.config.experimental.enable_op_determinism()
    if is_deterministic(backend) != deterministic:
        raise DeviceError(f"--backend {backend}: its switch for determinism is not as it was asked for")
    return name


def is_deterministic(backend: str) -> bool:
    """Whether the backend's switch for determinism is on, as the backend itself says; JAX reads it when it starts."""
    if backend == "torch":
        import torch

        return torch.are_deterministic_algorithms_enabled()
    if backend == "tensorflow":
        from tensorflow.python.framework.config import is_op_determinism_enabled

        return bool(is_op_determinism_enabled())
    return JAX_DETERMINISM in os.environ.get("XLA_FLAGS", "").split()


def settings_of(task: dict[str, Any]) -> RunSettings:
    """The shape in the task's precision."""
    settings = large_settings() if task["shape"] == LARGE else shape_settings(task["shape"])
    return with_precision(settings, task["precision"])


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


def _timed(step: Any, rate: MatrixRate, turns: int) -> dict[str, Any]:
    """Median seconds of a step in turns with one wait, and with a wait after each; and the matrix rate between.

    Args:
        step: A `BackendStep`.
        rate: The device's, in the step's precision.
        turns: Number of turns.
    """
    started = time.perf_counter()
    step.run(0, 2)
    count = max(1, round(TURN_SECONDS / ((time.perf_counter() - started) / 2)))
    together, waited, found = [], [], []
    for _ in range(turns):
        started = time.perf_counter()
        step.run(0, count)
        together.append((time.perf_counter() - started) / count)
        started = time.perf_counter()
        for number in range(count):
            step.run(number, 1)
        waited.append((time.perf_counter() - started) / count)
        found.append(rate.flops_per_second())
    low, high = np.quantile(together, [0.25, 0.75]).tolist()
    return {
        "seconds": statistics.median(together),
        "seconds_low": low,
        "seconds_high": high,
        "synchronized_seconds": statistics.median(waited),
        "turns": turns,
        "steps_in_a_turn": count,
        "matrix_flops_per_second": statistics.median(found),
    }


def require_device(backend: str, device: str) -> str:
    """The device's name.

    Raises:
        DeviceError: The backend is not installed, or does not see the device.
    """
    try:
        module = importlib.import_module(backend)
    except ModuleNotFoundError:
        raise DeviceError(f"--backend {backend}: it is not installed") from None
    if backend == "jax":
        try:
            found = module.devices()[0]
        except RuntimeError:
            raise DeviceError(f"--device {device}: jax {module.__version__} sees no such device") from None
        return found.device_kind if device != "cpu" else _processor()
    if backend == "torch":
        require_torch_device(device)
        return module.cuda.get_device_name() if device == "cuda" else _processor()
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
    if backend == "tensorflow" and device == "cuda":
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return None
