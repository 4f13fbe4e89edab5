"""What every test shares: a quiet, offline TensorFlow, hypothesis' profiles, and the device that a run requires."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports TensorFlow or Keras; subprocesses inherit them.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# No test needs the internet: one that tries it fails at once.
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

# Nothing here fails because a machine is busy: no deadline, and slow examples are no fault.
settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-device",
        choices=("cpu", "cuda", "metal"),
        default="cpu",
        help="fail at once where TensorFlow does not see this device (default: cpu)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("MINIBERT_TEST_INSTALLED"):
        _require_installed_package()
    problem = _missing_device(config.getoption("--require-device"))
    if problem:
        raise pytest.UsageError(problem)
    if config.getoption("--require-device") == "cuda":
        _compute_as_a_run()


def _compute_as_a_run() -> None:
    """In float32, and TensorFlow's switch for determinism on: for tests that build a layer or a step themselves."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(False)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What held is said aloud: a known answer that was compared within a tolerance only is not one of bits."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "when")]
    lines = [value for report in reports if report.when == "call" for name, value in report.user_properties
             if name == "held"]  # fmt: skip
    if lines:
        terminalreporter.section("what held")
        for line in lines:
            terminalreporter.line(line)


def _require_installed_package() -> None:
    """tox tests the built wheel: a checkout that is found first would be tested instead, and pass."""
    import minibert

    package = Path(minibert.__file__).resolve().parent
    checkout = Path(__file__).resolve().parents[1]
    if package.parent == checkout:
        raise pytest.UsageError(f"the installed minibert is to be tested, but {package} is imported")


def _missing_device(device: str) -> str | None:
    """Why the required device cannot be used; None if it can."""
    if device == "cpu":
        return None
    if device == "metal":
        if (platform.system(), platform.machine()) != ("Darwin", "arm64"):
            return f"--require-device metal: Apple silicon is required, but this is {platform.platform()}"
        try:
            metadata.version("tensorflow-metal")
        except metadata.PackageNotFoundError:
            return "--require-device metal: tensorflow-metal is required, but it is not installed"
    import tensorflow as tf

    if device == "cuda" and not tf.test.is_built_with_cuda():
        return f"--require-device cuda: a TensorFlow with CUDA is required, but {tf.__version__} has none"
    if not tf.config.list_physical_devices("GPU"):
        return f"--require-device {device}: a GPU is required, but TensorFlow {tf.__version__} sees none"
    return None


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of `tests.runs.small_settings`; nobody writes to it."""
    from minibert import pipeline
    from tests.runs import small_settings

    directory = tmp_path_factory.mktemp("small") / "run"
    pipeline.run(small_settings(), directory=directory)
    return directory


@pytest.fixture(scope="session")
def unlabelled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of `small_settings` on the same texts as a table without labels: pretraining only."""
    from minibert import pipeline
    from tests.runs import small_settings, write_texts

    folder = tmp_path_factory.mktemp("unlabelled")
    pipeline.run(small_settings(), directory=folder / "run", data=write_texts(folder / "texts.csv"))
    return folder / "run"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root on Linux only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
