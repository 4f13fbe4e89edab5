"""Which machine a time was measured on: figures of different machines never meet in one series.

Everything is found without importing TensorFlow, so it is the same before and after: the threads are
those that the environment asks for, and TensorFlow's build is the version of its distribution.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
from typing import Any

from minibert.environment import describe_environment

THREAD_VARIABLES = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
    "TF_ENABLE_ONEDNN_OPTS",
    "ONEDNN_MAX_CPU_ISA",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
    "CUDA_VISIBLE_DEVICES",
)
"""Environment variables that decide how many threads, which kernels and which devices are used."""

_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-metal")
_IDENTITY_DIGITS = 12


def describe_machine() -> dict[str, Any]:
    """Describes this machine in plain values, ready for JSON.

    Returns:
        ``cpu_model``, ``cores`` that this process may use, ``instruction_sets``, ``memory_gib``, ``gpus``
        (a name each), ``driver``, ``threads`` (variable to value or None), ``tensorflow`` (its builds),
        ``keras``, ``numpy``, ``python``, ``os`` and ``identity``.

    Determinism: depends on the machine, the environment's variables and the installed packages alone.
    """
    found = describe_environment()
    packages, memory = found["packages"], found["memory_bytes"]
    gpus, driver = _nvidia()
    described = {
        "cpu_model": found["cpu"]["model"],
        "cores": found["cpu"]["cores"],
        "instruction_sets": found["cpu"]["instruction_sets"],
        "memory_gib": None if memory is None else round(memory / 2**30),
        "gpus": gpus,
        "driver": driver,
        "threads": {name: found["variables"].get(name) for name in THREAD_VARIABLES},
        "tensorflow": ", ".join(f"{name} {packages[name]}" for name in _TENSORFLOW if packages[name]) or None,
        "keras": packages["keras"],
        "numpy": packages["numpy"],
        "python": ".".join(platform.python_version_tuple()[:2]),
        "os": _operating_system(found["platform"]),
    }
    return {**described, "identity": machine_identity(described)}


def machine_identity(machine: dict[str, Any]) -> str:
    """A short digest of a description: two results with the same one may be compared.

    Args:
        machine: From `describe_machine`; its own ``identity`` does not count.

    Returns:
        Twelve hexadecimal digits.
    """
    content = {name: value for name, value in machine.items() if name != "identity"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_IDENTITY_DIGITS]


def changed_parts(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What two descriptions differ in, in words: ``cores were 2 and are 4``."""
    names = [name for name in {**one, **other} if name != "identity" and one.get(name) != other.get(name)]
    return [f"{name} was {one.get(name)!r} and is {other.get(name)!r}" for name in names]


def _operating_system(found: dict[str, str]) -> str:
    """System, the release's first two numbers, and architecture: a patch of the kernel is the same system."""
    release = re.match(r"\d+(\.\d+)?", found["release"])
    return f"{found['system']} {release.group() if release else found['release']} {found['machine']}"


def _nvidia() -> tuple[list[str], str | None]:
    """Names of the NVIDIA GPUs and their driver's version, as its own tool gives them."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return [], None
    rows = [[part.strip() for part in line.rsplit(",", 1)] for line in lines if "," in line]
    return [row[0] for row in rows], rows[0][1] if rows else None
