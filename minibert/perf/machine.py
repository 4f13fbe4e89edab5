"""Which kind of machine a time was measured on: figures of different kinds never meet in one series.

Two machines of one kind cannot be told apart from here, and may differ: a host has other neighbours.

Everything is found without importing TensorFlow, so it is the same before and after: the threads are
those that the environment asks for, and TensorFlow's build is the version of its distribution.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
from pathlib import Path
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
_CPUINFO, _CGROUP = Path("/proc/cpuinfo"), Path("/sys/fs/cgroup")


def describe_machine() -> dict[str, Any]:
    """Describes this kind of machine in plain values, ready for JSON.

    Returns:
        ``cpu_model``, ``cpu_revision`` (family, model, stepping) and ``cpu_cache``, where the system says,
        ``cpu_quota`` (cores' worth of time that a control group allows; None: all), ``cores`` that this
        process may use, ``instruction_sets``, ``memory_gib``, ``gpus`` (a name each), ``driver``, ``threads``
        (variable to value or None), ``tensorflow`` (its builds), ``keras``, ``numpy``, ``python``, ``os`` and
        ``identity``.

    Determinism: depends on the machine, the environment's variables and the installed packages alone.
    """
    found = describe_environment()
    packages, memory = found["packages"], found["memory_bytes"]
    gpus, driver = _nvidia()
    described = {
        "cpu_model": found["cpu"]["model"],
        **_processor(),
        "cpu_quota": _cpu_quota(),
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
    """A short digest of a description: two results with the same one are of one kind of machine.

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


def _processor() -> dict[str, str | None]:
    """What tells processors of one name apart, as Linux says it: hosts of a cloud call many of theirs the same."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    names = {"cpu family": "family", "model": "model", "stepping": "stepping"}
    revision = " ".join(f"{shown} {found[name]}" for name, shown in names.items() if found.get(name))
    return {"cpu_revision": revision or None, "cpu_cache": found.get("cache size")}


def _cpu_quota() -> float | None:
    """Cores' worth of time that this process's control group may use, of version 2 or 1; None: no limit is known."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota, period = ((_CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # max: no limit
        return None
    return round(cores, 3) if cores > 0 else None


def _nvidia() -> tuple[list[str], str | None]:
    """Names of the NVIDIA GPUs and their driver's version, as its own tool gives them."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return [], None
    rows = [[part.strip() for part in line.rsplit(",", 1)] for line in lines if "," in line]
    return [row[0] for row in rows], rows[0][1] if rows else None
