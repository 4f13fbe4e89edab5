"""Exact counters of a workload: no noise, so any change is one, and every change wants a reason.

    {"workload": "masked_lm_step[tiny]", "versions": "tensorflow 2.21 keras 3.15", "traces": 1,
     "operators": {"AddV2": 31, "MatMul": 14}, "flops": 541661184, "forward_flops": 402915424,
     "parameters": 284112, "array_bytes": 12288, "peak_device_bytes": null}

They hold for a minor version of TensorFlow and Keras, on every machine; only the peak of a device's
memory is its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Counters = dict[str, Any]

NUMBERS = ("traces", "flops", "forward_flops", "parameters", "array_bytes", "peak_device_bytes")
KEYS = ("workload", "versions", "traces", "operators", *NUMBERS[1:])
PEAK_RATE = 0.01
"""A device's allocator rounds: its peak counts as changed beyond this share."""


def count(name: str, subject: dict[str, Any]) -> Counters:
    """The counters of a workload that has run.

    Args:
        name: The workload's.
        subject: What its ``subject()`` gave; the traced graph is looked at, never run.
    """
    graph, flops = subject.get("graph"), subject.get("flops")
    found: Counters = {
        "workload": name,
        "versions": versions(_installed),
        "traces": subject.get("traces") or 0,
        "operators": _operators(graph),
        "flops": None if flops is None else round(flops),
        "forward_flops": _forward_flops(subject["model"], subject["ids"]) if "model" in subject else None,
        "parameters": int(subject["model"].count_params()) if "model" in subject else 0,
        "array_bytes": int(sum(array.nbytes for array in subject.get("arrays", ()))),
        "peak_device_bytes": _peak_device_bytes(),
    }
    return {key: found[key] for key in KEYS}


def versions(version_of: Callable[[str], str | None]) -> str:
    """The minor versions for which counters hold: ``tensorflow 2.21 keras 3.15``."""
    found = {name: re.match(r"\d+\.\d+", version_of(name) or "") for name in ("tensorflow", "keras")}
    return " ".join(f"{name} {match.group() if match else 'none'}" for name, match in found.items())


def differences(old: Counters, new: Counters) -> list[str]:
    """What has changed from one to the other, in words: ``MatMul 14 -> 16``. Nothing: they are the same."""
    return [*_changed_numbers(old, new), *_changed_operators(old.get("operators") or {}, new.get("operators") or {})]


def _changed_numbers(old: Counters, new: Counters) -> Iterator[str]:
    for name in NUMBERS:
        before, after = old.get(name), new.get(name)
        if name == "peak_device_bytes" and _is_same_peak(before, after):
            continue
        if before != after:
            yield f"{name} {_shown(before)} -> {_shown(after)}"


def _is_same_peak(before: int | None, after: int | None) -> bool:
    """Whether two peaks say the same, or one is of a device that reports none."""
    return before is None or after is None or abs(after - before) <= PEAK_RATE * before


def _changed_operators(old: dict[str, int], new: dict[str, int]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name, 0) != new.get(name, 0):
            yield f"{name} {old.get(name, 0)} -> {new.get(name, 0)}"


def _shown(number: int | None) -> str:
    return "none" if number is None else f"{number:,}"


def _operators(graph: Any) -> dict[str, int]:
    from minibert.perf.operators import operator_histogram

    return {} if graph is None else operator_histogram(graph.as_graph_def())


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


def _peak_device_bytes() -> int | None:
    """The most memory that a GPU has had in use, where TensorFlow reports it."""
    import sys

    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not tensorflow.config.list_logical_devices("GPU"):
        return None
    try:
        return int(tensorflow.config.experimental.get_memory_info("GPU:0")["peak"])
    except (ValueError, RuntimeError, NotImplementedError):
        return None


def _installed(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
