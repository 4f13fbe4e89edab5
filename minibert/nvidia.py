"""Which NVIDIA driver and CUDA libraries this process computes with: they decide bits on a GPU.

A library is asked itself, as it is loaded: it may come from the system, or from a package of which TensorFlow's
version tells nothing.

    versions()    {"driver": "580.159.04", "cudart": "12.5", "cublas": "12.5.3", "cudnn": "9.3.0"}
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_DRIVER = Path("/proc/driver/nvidia/version")
_MAPS = Path("/proc/self/maps")


def versions() -> dict[str, str | None]:
    """The driver's version, and that of each CUDA library that this process has loaded, on Linux.

    Returns:
        ``driver``, ``cudart``, ``cublas`` and ``cudnn``; None is one that is not there or does not say.
    """
    return {"driver": _driver(), **{name: _loaded(name) for name in _ASK}}


def _driver() -> str | None:
    """From its kernel module, whose first line names it."""
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", _text(_DRIVER), re.MULTILINE)
    return found[1] if found else None


def _loaded(name: str) -> str | None:
    is_it = re.compile(rf"/lib{name}\.so[.\d]*$")
    path = next((path for path in _mapped_files() if is_it.search(path)), None)
    if path is None:
        return None
    try:
        return _ASK[name](ctypes.CDLL(path))
    except (OSError, AttributeError):  # it was replaced meanwhile, or is none of NVIDIA's
        return None


def _mapped_files() -> list[str]:
    """The files that are mapped into this process, libraries among them."""
    rows = (line.split(maxsplit=5) for line in _text(_MAPS).splitlines())
    return [row[5] for row in rows if len(row) == 6]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cudart(library: Any) -> str | None:
    """``cudaRuntimeGetVersion``: 1000 major + 10 minor."""
    version = ctypes.c_int()
    if library.cudaRuntimeGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _cublas(library: Any) -> str | None:
    """``cublasGetProperty`` of major, minor and patch."""
    parts = [ctypes.c_int() for _ in range(3)]
    if any(library.cublasGetProperty(number, ctypes.byref(part)) != 0 for number, part in enumerate(parts)):
        return None
    return ".".join(str(part.value) for part in parts)


def _cudnn(library: Any) -> str | None:
    """``cudnnGetVersion``: 10000 major + 100 minor + patch, since cuDNN 9."""
    version = int(library.cudnnGetVersion())
    return f"{version // 10_000}.{version % 10_000 // 100}.{version % 100}"


_ASK: dict[str, Callable[[Any], str | None]] = {"cudart": _cudart, "cublas": _cublas, "cudnn": _cudnn}
