"""The environment is described in plain values, cheaply, and as it is."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import minibert
from minibert import environment as module
from minibert import nvidia
from minibert.environment import PACKAGES, VARIABLES, available_cores, describe_environment, multiplies_bfloat16
from tests import small_models
from tests.golden import make


def test_the_description_is_json_and_complete() -> None:
    found = describe_environment()
    assert json.loads(json.dumps(found)) == found
    assert list(found) == [
        *("python", "platform", "packages", "cpu", "memory_bytes", "threads", "devices", "cuda", "graph_options"),
        *("keras", "variables"),
    ]
    assert found["platform"]["libc"] == (" ".join(platform.libc_ver()).strip() or None)
    assert found["python"] == platform.python_version()
    assert tuple(found["packages"]) == PACKAGES
    assert tuple(found["variables"]) == VARIABLES
    assert found["packages"]["minibert"] == minibert.__version__
    assert found["packages"]["numpy"] == metadata.version("numpy")
    assert found["cpu"]["model"]
    assert all(re.fullmatch(r"[1-9] \w+ \d+[KM]", cache) for cache in found["cpu"]["caches"])
    assert found["cpu"]["identity"] is None or len(found["cpu"]["identity"].split()) in (3, 4)
    assert found["cpu"]["cores"] == available_cores() >= 1
    assert found["memory_bytes"] is None or found["memory_bytes"] > 1_000_000


def test_describing_imports_neither_tensorflow_nor_anything_else_that_it_names() -> None:
    code = f"""
import sys
from minibert.environment import describe_environment
found = describe_environment()
assert not [name for name in ("devices", "cuda", "threads", "graph_options", "keras") if found[name] is not None]
assert not [name for name in {[n.replace("-", "_") for n in PACKAGES if n != "minibert"]} if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_variables_are_shown_as_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    variables = describe_environment()["variables"]
    assert (variables["OMP_NUM_THREADS"], variables["XLA_FLAGS"]) == ("3", None)


def test_threads_and_devices_are_there_once_tensorflow_is(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [SimpleNamespace(device_type="CPU", name="cpu:0"), SimpleNamespace(device_type="GPU", name="gpu:0")]
    config = SimpleNamespace(
        threading=SimpleNamespace(
            get_intra_op_parallelism_threads=lambda: 0, get_inter_op_parallelism_threads=lambda: 2
        ),
        list_physical_devices=lambda kind=None: [d for d in devices if kind in (None, d.device_type)],
        experimental=SimpleNamespace(get_device_details=lambda device: {"device_name": "H200"}),
        optimizer=SimpleNamespace(
            get_experimental_options=lambda: {"disable_meta_optimizer": False, "auto_mixed_precision": True},
            get_jit=lambda: "autoclustering",
        ),
    )
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(nvidia, "versions", lambda: {"driver": "580.1", "cublas": None})
    found = describe_environment()
    assert found["cuda"] == {"driver": "580.1", "cublas": None}
    assert found["threads"] == {"intra_op": 0, "inter_op": 2}
    assert found["devices"] == [{"type": "CPU", "name": "cpu:0"}, {"type": "GPU", "name": "H200"}]
    assert found["graph_options"] == {"auto_mixed_precision": True, "jit": "autoclustering"}


KERAS = {"floatx": "float64", "image_data_format": "channels_first", "epsilon": 1e-3, "backend": "tensorflow"}
"""A configuration as another project may have left it in ``~/.keras/keras.json``."""


def in_keras_home(code: str, folder: Path) -> dict[str, Any]:
    """What code prints as JSON where Keras is configured as `KERAS` says."""
    (folder / "keras.json").write_text(json.dumps(KERAS), encoding="utf-8")
    # Last, so that the package that is installed stays the one that is tested.
    code = f"import sys\nsys.path.append({str(Path(__file__).resolve().parents[1])!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=folder,
                          env=os.environ | {"KERAS_HOME": str(folder)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


CLASSIFIER = """
import hashlib, json, keras, numpy as np
from minibert.environment import describe_environment
from tests import small_models
found = describe_environment()
keras.config.set_dtype_policy("mixed_bfloat16")
policy = describe_environment()["keras"]["dtype_policy"]
model = small_models.build_classifier()
outputs = np.asarray(model(small_models.token_ids()))
dtypes = sorted({str(weight.dtype) for weight in model.weights if "seed_generator" not in weight.path})
print(json.dumps({"keras": found["keras"], "policy": policy, "options": found["graph_options"], "dtypes": dtypes,
                  "outputs": hashlib.sha256(outputs.tobytes()).hexdigest(), "dtype": str(outputs.dtype)}))
"""


@pytest.mark.slow
def test_keras_own_configuration_is_recorded_and_does_not_change_the_classifier(tmp_path: Path) -> None:
    import numpy as np

    found = in_keras_home(CLASSIFIER, tmp_path)
    assert found["keras"] == {"floatx": "float64", "image_data_format": "channels_first", "dtype_policy": "float64"}
    assert found["policy"] == "mixed_bfloat16"
    assert found["options"] == {}
    outputs = np.asarray(small_models.build_classifier()(small_models.token_ids()))
    assert (found["dtypes"], found["dtype"]) == (["float32"], "float32")
    assert found["outputs"] == hashlib.sha256(outputs.tobytes()).hexdigest()


RUN = """
import json, sys
from pathlib import Path
from minibert import pipeline
from tests.golden.make import run_answer
from tests.runs import small_settings
folder = Path({folder!r}) / "run"
record = pipeline.run(small_settings(), directory=folder)
print(json.dumps({{"answer": run_answer(folder), "keras": record["environment"]["keras"]}}))
"""


@pytest.mark.slow
def test_a_run_has_the_same_losses_and_weights_whatever_keras_is_configured_to(tmp_path: Path, small_run: Path) -> None:
    found = in_keras_home(RUN.format(folder=str(tmp_path)), tmp_path)
    assert found["keras"]["floatx"] == "float64"
    answers = [found["answer"], make.run_answer(small_run)]
    for answer in answers:  # Keras keeps an optimizer's learning rate in floatx
        for stage in answer["stages"].values():
            del stage["optimizer_sha256"]
    assert answers[0] == answers[1]


def test_only_the_cores_of_the_affinity_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


@pytest.mark.parametrize(
    ("cpuinfo", "model", "instruction_sets", "identity"),
    [
        ("vendor_id : A\ncpu family : 25\nmodel : 17\nmodel name\t: A CPU @ 2 GHz\nflags\t: fpu avx2 sse4_2 amx_bf16\n",
         "A CPU @ 2 GHz", ["sse4_2", "avx2", "amx_bf16"], "A 25 17"),
        ("Features\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU variant\t: 0x1\nCPU part\t: 0xd40\nModel\t: Board 5\n",
         "Board 5", ["asimd", "sve"], "0x41 0x1 0xd40"),
        ("Features\t: asimd\nModel\t: Board 5\n", "Board 5", ["asimd"], None),
    ],
)  # fmt: skip
def test_linux_names_the_processor_and_its_instruction_sets(
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    cpuinfo: str,
    model: str,
    instruction_sets: list[str],
    identity: str | None,
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    monkeypatch.setattr(module, "Path", lambda path: file if path == "/proc/cpuinfo" else tmp_path / "none")
    cpu = describe_environment()["cpu"]
    assert (cpu["model"], cpu["instruction_sets"], cpu["caches"]) == (model, instruction_sets, [])
    assert cpu["identity"] == identity


def test_caches_are_described_and_one_that_cannot_be_read_is_left_out(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, parts in enumerate([("1", "Data", "32K"), ("2", "Unified", "1024K"), ("3", "Unified", None)]):
        folder = tmp_path / f"index{place}"
        folder.mkdir()
        for name, value in zip(("level", "type", "size"), parts, strict=True):
            if value is not None:
                (folder / name).write_text(f"{value}\n")
    real = Path
    monkeypatch.setattr(module, "Path", lambda path: tmp_path if str(path).endswith("/cache") else real(path))
    assert describe_environment()["cpu"]["caches"] == ["1 Data 32K", "2 Unified 1024K"]


def test_macos_is_asked_by_sysctl(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"machdep.cpu.brand_string": "Apple M1\n", "machdep.cpu.features": ""}
    monkeypatch.setattr(module, "Path", lambda path: tmp_path / "none")
    monkeypatch.setattr(module.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(module.subprocess, "run", lambda words, **_: SimpleNamespace(stdout=answers[words[-1]]))
    assert describe_environment()["cpu"]["model"] == "Apple M1"


def test_a_control_group_may_allow_less_memory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(module, "Path", lambda path: limit if path == "/sys/fs/cgroup/memory.max" else tmp_path / "no")
    limit.write_text("max\n")
    unlimited = describe_environment()["memory_bytes"]
    limit.write_text("1000000\n")
    assert describe_environment()["memory_bytes"] == 1_000_000 < unlimited


def test_what_changes_the_precision_of_products_is_recorded() -> None:
    """Each of these turns float32 products into bfloat16 or TF32 ones, with other bits and no error."""
    assert {"ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "TF_SET_ONEDNN_FPMATH_MODE",
            "NVIDIA_TF32_OVERRIDE"} <= set(VARIABLES)  # fmt: skip
    assert {"tensorflow", "tensorflow-metal", "keras", "numpy"} <= set(PACKAGES)


@pytest.mark.parametrize(
    ("instruction_sets", "devices", "known"),
    [
        (["avx2", "avx512f"], [{"type": "CPU"}], False),
        (["avx512f", "avx512_bf16"], [{"type": "CPU"}], True),
        (["amx_bf16"], None, True),
        (["asimd", "bf16"], [{"type": "CPU"}], True),
        (["avx2"], [{"type": "CPU"}, {"type": "GPU"}], True),
        ([], None, False),
    ],
)
def test_who_multiplies_bfloat16(instruction_sets: list[str], devices: list[Any] | None, known: bool) -> None:
    assert multiplies_bfloat16({"cpu": {"instruction_sets": instruction_sets}, "devices": devices}) is known
    assert isinstance(multiplies_bfloat16(describe_environment()), bool)
