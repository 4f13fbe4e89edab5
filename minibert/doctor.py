"""Looks at the machine and the installation, and says in plain words what is wrong and what to do.

`judge` is a pure function of a described environment, so every rule can be tested without the
machine that breaks it. `diagnose` describes this one, with TensorFlow imported.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from minibert.environment import describe_environment
from minibert.errors import DeviceError
from minibert.onednn import onednn_is_on

NOTEBOOK_1_MEMORY_BYTES = 3_000_000_000
"""What the `imdb` preset may need."""
PYTHON_VERSIONS = ((3, 10), (3, 13))
"""The first and the last that TensorFlow has wheels for; `requires-python` in pyproject.toml says the same."""
TENSORFLOW_VERSIONS = ((2, 18), (2, 21))
"""The first and the last that were tried, with their bits; pyproject.toml says the same."""
OLDEST_KERAS = (3, 5)
"""As in pyproject.toml."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that the doctor saw: an ``error`` stops minibert, a ``warning`` harms, a ``note`` informs."""

    level: Literal["error", "warning", "note"]
    finding: str
    remedy: str


def diagnose() -> dict[str, Any]:
    """Describes this environment with TensorFlow loaded, and judges it.

    Returns:
        ``healthy`` (no error), ``exit_code``, ``environment`` as `describe_environment` gives it,
        ``onednn`` (whether TensorFlow's CPU kernels use oneDNN; None: not known) and ``findings``,
        a list of ``level``, ``finding``, ``remedy``.
    """
    failures = list(_import_failures("tensorflow", "keras"))
    environment = describe_environment()
    findings = [*failures, *judge(environment), *_other_backend(environment), *_invisible_gpu(environment)]
    healthy = not any(finding.level == "error" for finding in findings)
    return {
        "healthy": healthy,
        "exit_code": 0 if healthy else DeviceError.exit_code,
        "environment": environment,
        "onednn": onednn_is_on(),
        "findings": [asdict(finding) for finding in findings],
    }


def judge(environment: dict[str, Any]) -> Iterator[Finding]:
    """Yields what is wrong, or worth knowing, in an environment as `describe_environment` gives it."""
    yield from _judge_python(environment)
    yield from _judge_packages(environment)
    yield from _judge_metal(environment)
    yield from _judge_keras(environment)
    yield from _judge_threads(environment)
    yield from _judge_flags(environment)
    yield from _judge_memory(environment)


def _version(text: str | None) -> tuple[int, int]:
    """The first two numbers of a version; (0, 0) where there is none."""
    numbers = [int(part) for part in (text or "").split(".")[:2] if part.isdigit()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _error(finding: str, remedy: str) -> Finding:
    return Finding(level="error", finding=finding, remedy=remedy)


def _warning(finding: str, remedy: str) -> Finding:
    return Finding(level="warning", finding=finding, remedy=remedy)


def _note(finding: str, remedy: str) -> Finding:
    return Finding(level="note", finding=finding, remedy=remedy)


def _judge_python(environment: dict[str, Any]) -> Iterator[Finding]:
    version, (first, last) = environment["python"], PYTHON_VERSIONS
    if not first <= _version(version) <= last:
        yield _error(
            f"Python {version}: TensorFlow has no release for it", f"use Python {_dotted(first)} to {_dotted(last)}"
        )


def _judge_packages(environment: dict[str, Any]) -> Iterator[Finding]:
    packages = environment["packages"]
    tensorflow = packages.get("tensorflow") or packages.get("tensorflow-cpu")
    if tensorflow is None:
        yield _error("TensorFlow is not installed", "pip install tensorflow")
    else:
        yield from _judge_tensorflow(tensorflow)
    for name in ("keras", "numpy", "pyarrow"):
        if packages.get(name) is None:
            yield _error(f"{name} is not installed", f"pip install {name}")
    keras = packages.get("keras")
    if keras is not None and _version(keras) < OLDEST_KERAS:
        yield _error(f"Keras {keras} is older than what minibert is tested with",
                     f"pip install 'keras>={_dotted(OLDEST_KERAS)}'")  # fmt: skip
    if packages.get("datasets") is None:
        yield _note("datasets is not installed: the presets amazon and jokes cannot fetch their texts",
                    "pip install datasets, or pass --data")  # fmt: skip


def _judge_tensorflow(version: str) -> Iterator[Finding]:
    first, last = TENSORFLOW_VERSIONS
    remedy = f"pip install 'tensorflow>={_dotted(first)},<{last[0]}.{last[1] + 1}'"
    if _version(version) < (2, 16):
        yield _error(f"TensorFlow {version} comes with Keras 2", remedy)
    elif not first <= _version(version) <= last:
        age = "older" if _version(version) < first else "newer"
        yield _error(f"TensorFlow {version} is {age} than what minibert is tested with", remedy)


def _judge_metal(environment: dict[str, Any]) -> Iterator[Finding]:
    """The plug-in does not tell pip which TensorFlow it fits, so a fresh install of both is broken."""
    metal = environment["packages"].get("tensorflow-metal")
    if metal is None:
        return
    tensorflow = environment["packages"].get("tensorflow")
    if _version(tensorflow) > (2, 18):
        yield _error(f"tensorflow-metal {metal} fits TensorFlow up to 2.18, but {tensorflow} is installed",
                     "pip install 'tensorflow==2.18.*' 'tensorflow-metal==1.2.0'")  # fmt: skip
    if _version(environment["python"]) not in ((3, 11), (3, 12)):
        yield _error(f"tensorflow-metal has no release for Python {environment['python']}",
                     "use Python 3.11 or 3.12")  # fmt: skip
    if environment["platform"]["machine"] != "arm64":
        yield _error(f"tensorflow-metal needs arm64, but this Python is {environment['platform']['machine']}",
                     "use a native arm64 Python")  # fmt: skip
    yield _note("wrong training results are reported with tensorflow-metal",
                "compare a run's first losses with one on the CPU before you trust it")  # fmt: skip


def _judge_keras(environment: dict[str, Any]) -> Iterator[Finding]:
    variables = environment["variables"]
    backend = variables.get("KERAS_BACKEND")
    if backend not in (None, "", "tensorflow"):
        yield _error(f"KERAS_BACKEND is {backend!r}: minibert's training step is TensorFlow's", "unset KERAS_BACKEND")
    if variables.get("TF_USE_LEGACY_KERAS") in ("1", "True", "true"):
        yield _error("TF_USE_LEGACY_KERAS asks for Keras 2; the models are saved by Keras 3",
                     "unset TF_USE_LEGACY_KERAS")  # fmt: skip


def _judge_threads(environment: dict[str, Any]) -> Iterator[Finding]:
    cores = environment["cpu"]["cores"]
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        value = environment["variables"].get(name) or ""
        if value.isdigit() and 0 < int(value) < cores:
            yield _warning(f"{name} is {value}, but {cores} cores may be used: training is slower",
                           f"unset {name}, unless a recorded run had it")  # fmt: skip


def _judge_flags(environment: dict[str, Any]) -> Iterator[Finding]:
    variables = environment["variables"]
    if variables.get("TF_ENABLE_ONEDNN_OPTS") in ("0", "false", "False"):
        yield _warning("TF_ENABLE_ONEDNN_OPTS=0 turns oneDNN off: training is up to twice as slow, and not more exact",
                       "unset TF_ENABLE_ONEDNN_OPTS")  # fmt: skip
    if variables.get("TF_DETERMINISTIC_OPS"):
        yield _note("TF_DETERMINISTIC_OPS is set: on the CPU it does not make a run repeatable by itself",
                    "leave or unset it; minibert's training step repeats without it")  # fmt: skip
    for name in ("XLA_FLAGS", "TF_XLA_FLAGS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        if variables.get(name):
            yield _note(f"{name} is {variables[name]!r}: it may change the bits of a result",
                        "keep it the same in runs that you compare")  # fmt: skip


def _judge_memory(environment: dict[str, Any]) -> Iterator[Finding]:
    memory = environment["memory_bytes"]
    if memory is not None and memory < NOTEBOOK_1_MEMORY_BYTES:
        yield _warning(f"{memory / 1e9:.1f} GB of memory: the imdb preset may need 3 GB",
                       "use --set text.sequence_length=128, or another machine")  # fmt: skip


def _import_failures(*names: str) -> Iterator[Finding]:
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, os.environ.get("KERAS_BACKEND")):  # absence, and the backend, have their rules
                yield _error(f"import {name} fails: {error}", f"pip install --force-reinstall {name}")
        except Exception as error:  # noqa: BLE001 - a broken library raises what it likes; the doctor must still answer
            summary = " ".join(f"{type(error).__name__}: {error}".split())
            yield _error(f"import {name} fails: {summary[:300]}", f"pip install --force-reinstall {name}")


def _other_backend(environment: dict[str, Any]) -> Iterator[Finding]:
    """What Keras itself says, where no variable has told it: ``~/.keras/keras.json`` chooses then."""
    keras = sys.modules.get("keras")
    backend = "tensorflow" if keras is None else keras.backend.backend()
    if backend != "tensorflow" and not environment["variables"].get("KERAS_BACKEND"):
        yield _error(f"Keras is on {backend!r}, as ~/.keras/keras.json says: minibert's training step is TensorFlow's",
                     "set KERAS_BACKEND=tensorflow, or name it there")  # fmt: skip


def _invisible_gpu(environment: dict[str, Any]) -> Iterator[Finding]:
    """An NVIDIA card that TensorFlow does not use is the commonest surprise of an installation."""
    devices = environment["devices"]
    hidden = environment["variables"].get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if devices is None or any(device["type"] == "GPU" for device in devices) or hidden:
        return
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        yield _warning("there is an NVIDIA driver, but TensorFlow sees no GPU: training runs on the CPU",
                       "pip install 'tensorflow[and-cuda]'")  # fmt: skip


def describe_diagnosis(diagnosis: dict[str, Any]) -> str:
    """A diagnosis in lines for a person: what there is, then what is wrong and what to do."""
    environment = diagnosis["environment"]
    described = list(_described(environment, diagnosis["onednn"]))
    width = max(len(name) for name, _ in described)
    lines = [f"{name:{width}}  {text}" for name, text in described]
    lines.append("")
    for finding in diagnosis["findings"]:
        lines += [f"{finding['level']}: {finding['finding']}", f"  {finding['remedy']}"]
    lines.append(
        "minibert can run here." if diagnosis["healthy"] else "minibert cannot run here before that is mended."
    )
    return "\n".join(lines)


def _described(environment: dict[str, Any], onednn: bool | None) -> Iterator[tuple[str, str]]:
    system, cpu, threads = environment["platform"], environment["cpu"], environment["threads"]
    memory = environment["memory_bytes"]
    yield "python", environment["python"]
    for name, version in environment["packages"].items():
        yield name, version or "not installed"
    yield "system", f"{system['system']} {system['release']} {system['machine']}"
    yield "processor", f"{cpu['model']}, {cpu['cores']} cores to use"
    yield "instruction sets", " ".join(cpu["instruction_sets"]) or "not known"
    yield "memory", "not known" if memory is None else f"{memory / 1e9:.1f} GB"
    yield "oneDNN", {True: "on", False: "off", None: "not known"}[onednn]
    for name, number in (threads or {}).items():
        yield f"threads, {name.replace('_', '-')}", str(number or "TensorFlow's default, one for each core")
    for device in environment["devices"] or []:
        yield "device", f"{device['type']} {device['name']}"
    for name, version in (environment["cuda"] or {}).items():
        yield f"CUDA, {name}", version or "not known"
    given = {name: value for name, value in environment["variables"].items() if value is not None}
    yield from given.items()
    yield "variables", f"{'no others' if given else 'none'} of the {len(environment['variables'])} that matter"
