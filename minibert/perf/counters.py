"""Exact counters of a workload: no noise, so any change is one, and every change wants a reason.

    {"workload": "masked_lm_step[tiny]", "versions": "tensorflow 2.21 keras 3.15", "traces": 1,
     "operators": {"AddV2": 31, "MatMul": 14}, "flops": 293189632, "forward_flops": 402915424,
     "parameters": 284112, "array_bytes": 12288, "device_peaks": {"NVIDIA H100": 20185088}}

``flops`` are those of the matrix products in the step's graph, for the first batch's shapes; ``forward_flops`` are what
TensorFlow's profiler counts in the model's forward pass. All hold for a minor version of TensorFlow and Keras, on every
machine without oneDNN, or on every one with it, or with a GPU, whose graphs are others (``tensorflow 2.21 keras 3.15
oneDNN``); only the peaks of a device's memory, beyond what was held before the step, are each device's own.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

Counters = dict[str, Any]

NUMBERS = ("traces", "flops", "forward_flops", "parameters", "array_bytes")
KEYS = ("workload", "versions", "traces", "operators", *NUMBERS[1:], "device_peaks")
PEAK_RATE = 0.01
"""A device's allocator rounds: its peak counts as changed beyond this share."""


def count(name: str, subject: dict[str, Any], device_peaks: dict[str, int] | None = None) -> Counters:
    """The counters of a workload that has run.

    Args:
        name: The workload's.
        subject: What its ``subject()`` gave; the traced graph is looked at, never run.
        device_peaks: From `peaks_of`; None: no device reports any.
    """
    graph = subject.get("graph")
    found: Counters = {
        "workload": name,
        "versions": versions(_installed) + ("" if graph is None else _kernels()),
        "traces": subject.get("traces") or 0,
        "operators": _operators(graph),
        "flops": _product_flops(subject.get("graph_of_shapes")),
        "forward_flops": _forward_flops(subject["model"], subject["ids"]) if "model" in subject else None,
        "parameters": int(subject["model"].count_params()) if "model" in subject else 0,
        "array_bytes": int(sum(array.nbytes for array in subject.get("arrays", ()))),
        "device_peaks": device_peaks or {},
    }
    return {key: found[key] for key in KEYS}


def versions(version_of: Callable[[str], str | None]) -> str:
    """The minor versions for which counters hold, without what `_kernels` adds: ``tensorflow 2.21 keras 3.15``."""
    found = {name: re.match(r"\d+\.\d+", version_of(name) or "") for name in ("tensorflow", "keras")}
    return " ".join(f"{name} {match.group() if match else 'none'}" for name, match in found.items())


def _kernels() -> str:
    """`` GPU`` where TensorFlow has one, or `` oneDNN`` where it computes with that: graphs are others there.

    TensorFlow is asked here, for the package of a gate's side may be older than `minibert.environment`'s answer.
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return ""
    if tensorflow.config.list_logical_devices("GPU"):
        return " GPU"
    try:
        is_on = importlib.import_module("tensorflow.python.util._pywrap_util_port").IsMklEnabled()
    except (ImportError, AttributeError):  # not public, so it may go
        is_on = False
    return " oneDNN" if is_on else ""


def differences(old: Counters, new: Counters) -> list[str]:
    """What has changed from one to the other, in words: ``MatMul 14 -> 16``. Nothing: they are the same."""
    parts = [[counters.get(name) or {} for counters in (old, new)] for name in ("device_peaks", "operators")]
    return [*_changed_numbers(old, new), *_changed_peaks(*parts[0]), *_changed_operators(*parts[1])]


def with_peaks_of(old: Counters, new: Counters) -> Counters:
    """New counters, with the old ones' peaks on devices that the new ones were not measured on."""
    return {**new, "device_peaks": {**(old.get("device_peaks") or {}), **new["device_peaks"]}}


def peaks_of(steps: Callable[[], Any]) -> dict[str, int]:
    """The most memory that steps have in use on the first GPU beyond what was held before, by the GPU's name.

    Nothing where there is none, or where TensorFlow does not say. The process's own peak would be that of
    whatever it did before.
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not tensorflow.config.list_logical_devices("GPU"):
        return {}
    experimental = tensorflow.config.experimental
    try:
        held = experimental.get_memory_info("GPU:0")["current"]
        experimental.reset_memory_stats("GPU:0")
        steps()
        peak = experimental.get_memory_info("GPU:0")["peak"]
    except (ValueError, RuntimeError, NotImplementedError):
        return {}
    details = experimental.get_device_details(tensorflow.config.list_physical_devices("GPU")[0])
    return {str(details.get("device_name") or "gpu"): max(0, int(peak) - int(held))}


def _changed_numbers(old: Counters, new: Counters) -> Iterator[str]:
    for name in NUMBERS:
        before, after = old.get(name), new.get(name)
        if before != after:
            yield f"{name} {_shown(before)} -> {_shown(after)}"


def _changed_peaks(old: dict[str, int], new: dict[str, int]) -> Iterator[str]:
    """Of devices that both were measured on."""
    for device in sorted(old.keys() & new.keys()):
        if abs(new[device] - old[device]) > PEAK_RATE * old[device]:
            yield f"peak on {device} {_shown(old[device])} -> {_shown(new[device])} bytes"


def _changed_operators(old: dict[str, int], new: dict[str, int]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name, 0) != new.get(name, 0):
            yield f"{name} {old.get(name, 0)} -> {new.get(name, 0)}"


def _shown(number: int | None) -> str:
    return "none" if number is None else f"{number:,}"


def _operators(graph: Any) -> dict[str, int]:
    from minibert.perf.operators import operator_histogram

    return {} if graph is None else operator_histogram(graph.as_graph_def())


def _product_flops(graph: Any) -> int | None:
    from minibert.perf.operators import product_flops

    return None if graph is None else product_flops(graph)


def _forward_flops(model: Any, ids: Any) -> int | None:
    """What TensorFlow's own profiler counts in the model's forward pass; None where it cannot."""
    import tensorflow as tf

    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    forward = tf.function(lambda batch: model(batch, training=False), autograph=False)
    graph = forward.get_concrete_function(tf.TensorSpec(ids.shape, tf.int32)).graph
    profile = profiler.profile(graph, options=options)
    return None if profile is None else int(profile.total_float_ops)


def _installed(name: str) -> str | None:
    """The version of a distribution; None where it is not installed.

    Not `minibert.environment`'s: a worker runs this file in the package of a base, which may have no such function.
    """
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
