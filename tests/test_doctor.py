"""The doctor finds each known fault, names its remedy, and nothing on a healthy machine."""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minibert import doctor
from minibert.environment import PACKAGES, VARIABLES

HEALTHY: dict[str, Any] = {
    "python": "3.11.7",
    "platform": {"system": "Linux", "release": "6.1", "machine": "x86_64"},
    "packages": {
        **dict.fromkeys(PACKAGES),
        "tensorflow": "2.21.0",
        "keras": "3.15.1",
        "numpy": "2.4.6",
        "pyarrow": "26.0.1",
        "datasets": "5.2.0",
    },
    "cpu": {"model": "a CPU", "cores": 4, "instruction_sets": ["avx2"]},
    "memory_bytes": 8_000_000_000,
    "threads": {"intra_op": 0, "inter_op": 0},
    "devices": [{"type": "CPU", "name": "/physical_device:CPU:0"}],
    "cuda": None,
    "variables": dict.fromkeys(VARIABLES),
}
METAL = {
    ("packages", "tensorflow-metal"): "1.2.0",
    ("packages", "tensorflow"): "2.18.1",
    ("platform", "machine"): "arm64",
}


def changed(changes: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """The healthy environment with some values replaced."""
    environment = copy.deepcopy(HEALTHY)
    for (*path, last), value in changes.items():
        place = environment
        for key in path:
            place = place[key]
        place[last] = value
    return environment


def test_a_healthy_environment_has_no_finding() -> None:
    assert list(doctor.judge(HEALTHY)) == []


@pytest.mark.parametrize(
    ("changes", "level", "finding", "remedy"),
    [
        ({("python",): "3.14.0"}, "error", "Python 3.14.0: TensorFlow has no release", "3.10 to 3.13"),
        ({("python",): "3.9.1"}, "error", "Python 3.9.1", "3.10 to 3.13"),
        ({("packages", "tensorflow"): None}, "error", "TensorFlow is not installed", "pip install tensorflow"),
        (
            {("packages", "tensorflow"): "2.15.0"},
            "error",
            "TensorFlow 2.15.0 comes with Keras 2",
            "'tensorflow>=2.18,<2.22'",
        ),
        (
            {("packages", "tensorflow"): "2.16.2"},
            "error",
            "TensorFlow 2.16.2 is older than",
            "'tensorflow>=2.18,<2.22'",
        ),
        (
            {("packages", "tensorflow"): "2.22.0rc0"},
            "error",
            "TensorFlow 2.22.0rc0 is newer",
            "'tensorflow>=2.18,<2.22'",
        ),
        ({("packages", "keras"): "3.4.1"}, "error", "Keras 3.4.1 is older than", "pip install 'keras>=3.5'"),
        ({("packages", "pyarrow"): None}, "error", "pyarrow is not installed", "pip install pyarrow"),
        ({("packages", "datasets"): None}, "note", "datasets is not installed", "--data"),
        ({**METAL, ("packages", "tensorflow"): "2.19.0"}, "error", "up to 2.18, but 2.19.0", "tensorflow==2.18"),
        ({**METAL, ("python",): "3.13.1"}, "error", "no release for Python 3.13.1", "3.11 or 3.12"),
        ({**METAL, ("platform", "machine"): "x86_64"}, "error", "needs arm64", "native arm64"),
        (METAL, "note", "wrong training results", "first losses"),
        ({("variables", "KERAS_BACKEND"): "jax"}, "error", "KERAS_BACKEND is 'jax'", "unset"),
        ({("variables", "TF_USE_LEGACY_KERAS"): "1"}, "error", "Keras 2", "unset"),
        ({("variables", "OMP_NUM_THREADS"): "1"}, "warning", "OMP_NUM_THREADS is 1, but 4 cores", "unset"),
        ({("variables", "TF_ENABLE_ONEDNN_OPTS"): "0"}, "warning", "turns oneDNN off", "unset"),
        ({("variables", "TF_DETERMINISTIC_OPS"): "1"}, "note", "TF_DETERMINISTIC_OPS", "unset"),
        ({("variables", "XLA_FLAGS"): "--x"}, "note", "XLA_FLAGS is '--x'", "the same"),
        ({("memory_bytes",): 2_000_000_000}, "warning", "2.0 GB of memory", "sequence_length"),
    ],
)
def test_each_fault_is_found_alone(changes: dict[Any, Any], level: str, finding: str, remedy: str) -> None:
    found = [f for f in doctor.judge(changed(changes)) if finding in f.finding]
    assert [(f.level, remedy in f.remedy) for f in found] == [(level, True)]


@pytest.mark.parametrize("version", ["2.18.0", "2.18.1", "2.19.1", "2.20.0", "2.21.0"])
def test_every_version_that_is_allowed_is_healthy(version: str) -> None:
    assert list(doctor.judge(changed({("packages", "tensorflow"): version}))) == []


def test_the_versions_are_those_that_the_package_asks_for() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    (first, last), python = doctor.TENSORFLOW_VERSIONS, doctor.PYTHON_VERSIONS
    assert f'"tensorflow>={first[0]}.{first[1]},<{last[0]}.{last[1] + 1}"' in project
    assert f'requires-python = ">={python[0][0]}.{python[0][1]},<{python[1][0]}.{python[1][1] + 1}"' in project
    assert '"keras>={}.{}"'.format(*doctor.OLDEST_KERAS) in project


def test_metal_as_it_should_be_is_no_error() -> None:
    assert {finding.level for finding in doctor.judge(changed(METAL))} == {"note"}


@pytest.mark.parametrize("value", ["", "none", "8", "-1"])
def test_thread_variables_that_take_nothing_away_are_left_alone(value: str) -> None:
    assert list(doctor.judge(changed({("variables", "OMP_NUM_THREADS"): value}))) == []


def test_only_variables_that_are_set_are_shown() -> None:
    def shown(environment: dict[str, Any]) -> list[str]:
        diagnosis = {"environment": environment, "onednn": True, "findings": [], "healthy": True}
        return doctor.describe_diagnosis(diagnosis).splitlines()

    lines = shown(changed({("variables", "OMP_NUM_THREADS"): "2", ("variables", "XLA_FLAGS"): ""}))
    width = len("threads, intra-op")
    assert f"{'OMP_NUM_THREADS':{width}}  2" in lines
    assert f"{'XLA_FLAGS':{width}}  " in lines
    assert f"{'variables':{width}}  no others of the {len(VARIABLES)} that matter" in lines
    assert f"{'variables':{width}}  none of the {len(VARIABLES)} that matter" in shown(HEALTHY)


def test_unknown_memory_is_no_fault() -> None:
    assert list(doctor.judge(changed({("memory_bytes",): None}))) == []


def test_a_library_that_cannot_be_imported_is_an_error_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.import_module

    def broken(name: str) -> object:
        if name in ("tensorflow", "keras"):
            raise RuntimeError("a\nb")
        return found(name)

    monkeypatch.setattr(importlib, "import_module", broken)
    monkeypatch.setattr(doctor, "describe_environment", lambda: HEALTHY)
    diagnosis = doctor.diagnose()
    assert (diagnosis["healthy"], diagnosis["exit_code"]) == (False, 6)
    assert diagnosis["findings"][0]["finding"] == "import tensorflow fails: RuntimeError: a b"
    shown = doctor.describe_diagnosis(diagnosis)
    assert "error: import tensorflow fails: RuntimeError: a b\n  pip install" in shown
    assert shown.endswith("minibert cannot run here before that is mended.")


def test_the_libraries_that_compute_on_a_gpu_are_named() -> None:
    found = changed({("cuda",): {"driver": "580.1", "cublas": "12.5.3", "cudnn": None}})
    shown = doctor.describe_diagnosis({"environment": found, "onednn": None, "findings": [], "healthy": True})
    lines = [line.split() for line in shown.splitlines() if line.startswith("CUDA")]
    assert lines == [["CUDA,", "driver", "580.1"], ["CUDA,", "cublas", "12.5.3"], ["CUDA,", "cudnn", "not", "known"]]


def test_a_card_that_tensorflow_does_not_see_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert [f.level for f in doctor._invisible_gpu(HEALTHY)] == ["warning"]
    hidden = changed({("variables", "CUDA_VISIBLE_DEVICES"): ""})
    seen = changed({("devices",): [{"type": "GPU", "name": "H200"}]})
    unknown = changed({("devices",): None})
    assert [list(doctor._invisible_gpu(e)) for e in (hidden, seen, unknown)] == [[], [], []]


def test_a_backend_that_keras_own_configuration_chose_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def keras(backend: str) -> SimpleNamespace:
        return SimpleNamespace(backend=SimpleNamespace(backend=lambda: backend))

    monkeypatch.setattr(doctor, "_import_failures", lambda *_: ())
    monkeypatch.setattr(doctor, "describe_environment", lambda: HEALTHY)
    monkeypatch.setitem(sys.modules, "keras", keras("torch"))
    diagnosis = doctor.diagnose()
    found = next(
        each for each in diagnosis["findings"] if "Keras is on 'torch', as ~/.keras/keras.json says" in each["finding"]
    )
    assert (found["level"], found["remedy"]) == ("error", "set KERAS_BACKEND=tensorflow, or name it there")
    assert not diagnosis["healthy"]
    asked = changed({("variables", "KERAS_BACKEND"): "torch"})  # which is a finding of its own
    assert list(doctor._other_backend(asked)) == []
    monkeypatch.setitem(sys.modules, "keras", keras("tensorflow"))
    assert list(doctor._other_backend(HEALTHY)) == []


@pytest.mark.long
def test_the_command_diagnoses_this_machine_and_keeps_tensorflow_quiet(tmp_path: Path) -> None:
    """Whatever backend Keras is configured to: the command line asks for TensorFlow."""
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}), encoding="utf-8")
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": ""}
    words = [sys.executable, "-m", "minibert", "doctor", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    diagnosis = json.loads(done.stdout)
    assert done.stderr == ""
    assert done.returncode == diagnosis["exit_code"] == 0
    assert diagnosis["healthy"]
    assert diagnosis["onednn"] in (True, False, None)
    assert {"type", "name"} == diagnosis["environment"]["devices"][0].keys()
    assert diagnosis["environment"]["threads"] == {"intra_op": 0, "inter_op": 0}
    assert "minibert can run here." in doctor.describe_diagnosis(diagnosis)


@pytest.mark.parametrize(("backend", "found"), [("jax_that_is_not_there", 0), ("tensorflow", 1)])
def test_a_backend_that_is_not_installed_is_no_fault_of_keras(
    backend: str, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said of KERAS_BACKEND helps; to install Keras again does not."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'jax_that_is_not_there'", name="jax_that_is_not_there")

    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr(doctor.importlib, "import_module", missing)
    assert len(list(doctor._import_failures("keras"))) == found
