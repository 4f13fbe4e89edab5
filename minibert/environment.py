"""What a run ran on: versions, processor, memory, threads, devices and the variables that matter.

Nothing is imported to find a version, so describing the environment costs milliseconds. Devices, thread pools and
graph options are known only to TensorFlow, its own configuration only to Keras: they are there if these have been
imported already, else None.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minibert import nvidia

PACKAGES = (
    "minibert",
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-metal",
    "keras",
    "numpy",
    "pyarrow",
    "datasets",
)
"""Distributions whose versions are recorded; one that is not installed has None."""

VARIABLES = (
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_DETERMINISTIC_OPS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_USE_LEGACY_KERAS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "TF_SET_ONEDNN_FPMATH_MODE",
    "NVIDIA_TF32_OVERRIDE",
    "GLIBC_TUNABLES",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "OPENBLAS_CORETYPE",
    "KERAS_BACKEND",
    "CUDA_VISIBLE_DEVICES",
    "PYTHONHASHSEED",
)
"""Environment variables that may change bits, speed or devices."""

_INSTRUCTION_SETS = (
    *("sse4_2", "avx", "fma", "f16c", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "fp16", "asimdhp", "bf16", "i8mm", "sve", "sve2", "sme"),
)


_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Those of `_INSTRUCTION_SETS` that multiply bfloat16."""


def describe_environment() -> dict[str, Any]:
    """Describes this process and this machine in plain values, ready for JSON.

    Returns:
        ``python``, ``platform`` (system, release, machine, and the C library, whose functions NumPy and TensorFlow
        call), ``packages`` (name to version or None),
        ``cpu`` (model, identity, cores that this process may use, instruction sets that numerical libraries dispatch
        on, and the caches by whose sizes they cut products into blocks), ``memory_bytes``, ``threads`` (intra_op,
        inter_op; 0 is TensorFlow's default),
        ``devices`` (type and name of each), ``cuda`` (from `minibert.nvidia.versions` where TensorFlow sees a GPU,
        else None), ``graph_options`` (what ``tf.config.optimizer`` was set to), ``keras``
        (floatx, image_data_format and dtype_policy, from ``keras.json`` or the program) and ``variables`` (name to
        value or None).
    """
    return {
        "python": platform.python_version(),
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "libc": " ".join(platform.libc_ver()).strip() or None,
        },
        "packages": {name: package_version(name) for name in PACKAGES},
        "cpu": {
            "model": _cpu_model(),
            "identity": _cpu_identity(),
            "cores": available_cores(),
            "instruction_sets": _instruction_sets(),
            "caches": _caches(),
        },
        "memory_bytes": _memory_bytes(),
        "threads": _threads(),
        "devices": _devices(),
        "cuda": _cuda(),
        "graph_options": _graph_options(),
        "keras": _keras(),
        "variables": {name: os.environ.get(name) for name in VARIABLES},
    }


def available_cores() -> int:
    """Cores that this process may run on: its affinity where the system has one, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_version(name: str) -> str | None:
    """The version of a distribution; None where it is not installed."""
    from importlib import metadata  # costs more than everything else here: only when it is asked for

    if name == "minibert":  # may be used from a checkout, without being installed
        from minibert import __version__

        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


_IDENTITIES = (
    ("vendor_id", "cpu family", "model", "stepping"),
    ("CPU implementer", "CPU variant", "CPU part", "CPU revision"),
)
"""Keys of ``/proc/cpuinfo`` that tell processors of one model name apart: x86 has the first, Arm the others."""


def _cpu_identity() -> str | None:
    """Vendor and numbers of the processor, ``AuthenticAMD 25 17 1`` for example; None where Linux does not say."""
    for keys in _IDENTITIES:
        if found := [value for key in keys if (value := _cpuinfo(key))]:
            return " ".join(found)
    return None


def _cpuinfo(*keys: str) -> str:
    """The first value of any of these keys in Linux' ``/proc/cpuinfo``; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""


def _sysctl(name: str) -> str:
    """One value of macOS' ``sysctl``; empty elsewhere."""
    if platform.system() != "Darwin":
        return ""
    command = ["/usr/sbin/sysctl", "-n", name]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _cpu_model() -> str:
    named = _cpuinfo("model name", "Model", "Hardware") or _sysctl("machdep.cpu.brand_string")
    return named or platform.processor() or platform.machine()


def _instruction_sets() -> list[str]:
    flags = set((_cpuinfo("flags", "Features") or _sysctl("machdep.cpu.features").lower()).split())
    return [name for name in _INSTRUCTION_SETS if name in flags]


def _caches() -> list[str]:
    """The first core's caches as Linux has them, ``1 Data 32K`` for example; elsewhere none is known.

    Eigen and oneDNN add up a product in blocks that fit them: other sizes may give other bits.
    """
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            parts = [(index / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")]
        except (OSError, ValueError):
            continue
        found.append(" ".join(parts))
    return found


def multiplies_bfloat16(environment: Mapping[str, Any]) -> bool:
    """Whether there is a GPU, or the processor has instructions for products of bfloat16.

    Args:
        environment: From `describe_environment`.
    """
    has_gpu = any(device["type"] == "GPU" for device in environment["devices"] or ())
    return has_gpu or not _BFLOAT16.isdisjoint(environment["cpu"]["instruction_sets"])


def _memory_bytes() -> int | None:
    """Memory that this process may use: the machine's, or its control group's limit if that is less."""
    try:
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, OSError, ValueError):
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return min(limits)


def _imported(name: str) -> Any | None:
    module = sys.modules.get(name)
    return module if module is not None and hasattr(module, "config") else None


def _threads() -> dict[str, int] | None:
    tensorflow = _imported("tensorflow")
    if tensorflow is None:
        return None
    threading = tensorflow.config.threading
    return {
        "intra_op": int(threading.get_intra_op_parallelism_threads()),
        "inter_op": int(threading.get_inter_op_parallelism_threads()),
    }


def _devices() -> list[dict[str, str]] | None:
    tensorflow = _imported("tensorflow")
    if tensorflow is None:
        return None
    found = []
    for device in tensorflow.config.list_physical_devices():
        details = tensorflow.config.experimental.get_device_details(device) if device.device_type != "CPU" else {}
        found.append({"type": device.device_type, "name": str(details.get("device_name") or device.name)})
    return found


def _cuda() -> dict[str, str | None] | None:
    """What decides bits on NVIDIA's GPUs: TensorFlow has loaded its libraries once its devices have been asked for."""
    tensorflow = _imported("tensorflow")
    if tensorflow is None or platform.system() != "Linux" or not tensorflow.config.list_physical_devices("GPU"):
        return None
    return nvidia.versions()


def _graph_options() -> dict[str, Any] | None:
    """How TensorFlow is to rewrite and compile graphs; an option that is as it is by default is left out."""
    tensorflow = _imported("tensorflow")
    if tensorflow is None:
        return None
    options = {name: value for name, value in tensorflow.config.optimizer.get_experimental_options().items() if value}
    jit = tensorflow.config.optimizer.get_jit()
    return options | ({"jit": str(jit)} if jit else {})


def _keras() -> dict[str, str] | None:
    """What a layer takes of Keras' configuration where it is not told otherwise."""
    keras = _imported("keras")
    if keras is None:
        return None
    return {
        "floatx": str(keras.config.floatx()),
        "image_data_format": str(keras.config.image_data_format()),
        "dtype_policy": str(keras.config.dtype_policy().name),
    }
