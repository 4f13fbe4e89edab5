"""The driver and the CUDA libraries are named as they are loaded, whatever their files are called."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minibert import nvidia

MODULE = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs@host)  Fri
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""
MAPS = """7f00-7f01 r-xp 00000000 fe:00 11 /opt/a b/cublas/lib/libcublas.so.13.1.0.3
7f01-7f02 r--p 00001000 fe:00 12 /opt/cublas/lib/libcublasLt.so.13
7f02-7f03 r-xp 00000000 fe:00 13 /opt/cuda/lib/libcudart.so.12
7f03-7f04 r-xp 00000000 fe:00 14 /opt/cudnn/lib/libcudnn_ops.so.9
7f04-7f05 rw-p 00000000 00:00 0
"""


def written(number: int) -> Any:
    """As a C function that writes a number where its last argument points, and returns 0."""

    def function(*arguments: Any) -> int:
        ctypes.cast(arguments[-1], ctypes.POINTER(ctypes.c_int))[0] = (
            number if len(arguments) == 1 else arguments[0] + 5
        )
        return 0

    return function


LIBRARIES = {
    "/opt/a b/cublas/lib/libcublas.so.13.1.0.3": SimpleNamespace(cublasGetProperty=written(0)),
    "/opt/cuda/lib/libcudart.so.12": SimpleNamespace(cudaRuntimeGetVersion=written(12_050)),
    "/opt/cudnn/lib/libcudnn.so.9": SimpleNamespace(cudnnGetVersion=lambda: 91_902),
}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two files that Linux shows, and libraries that answer."""
    monkeypatch.setattr(nvidia, "_DRIVER", tmp_path / "version")
    monkeypatch.setattr(nvidia, "_MAPS", tmp_path / "maps")
    monkeypatch.setattr(nvidia.ctypes, "CDLL", LIBRARIES.__getitem__)
    (tmp_path / "version").write_text(MODULE)
    (tmp_path / "maps").write_text(MAPS)
    return tmp_path


def test_driver_and_loaded_libraries_say_their_versions(system: Path) -> None:
    assert nvidia.versions() == {"driver": "580.159.04", "cudart": "12.5", "cublas": "5.6.7", "cudnn": None}
    (system / "maps").write_text(MAPS + "7f05-7f06 r-xp 00000000 fe:00 15 /opt/cudnn/lib/libcudnn.so.9\n")
    assert nvidia.versions()["cudnn"] == "9.19.2"


def test_a_proprietary_module_is_read_too(system: Path) -> None:
    (system / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6\n")
    assert nvidia.versions()["driver"] == "535.54.03"


def test_what_does_not_answer_is_unknown(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia.ctypes, "CDLL", lambda path: SimpleNamespace(cudaRuntimeGetVersion=lambda _: 35))
    assert nvidia.versions() == {"driver": "580.159.04", "cudart": None, "cublas": None, "cudnn": None}
    (system / "version").unlink()
    (system / "maps").unlink()
    assert nvidia.versions() == dict.fromkeys(("driver", "cudart", "cublas", "cudnn"))


def test_a_process_without_a_gpu_has_none() -> None:
    assert set(nvidia.versions()) == {"driver", "cudart", "cublas", "cudnn"}
