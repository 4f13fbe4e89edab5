"""What every benchmark shares: TensorFlow's settings, the device, and a table of throughput.

    pytest benchmarks --device cuda --require-device

On the CPU a GPU that is there is hidden. On another device a training step's first losses are compared with the CPU's
before its time counts; a device that is missing leaves everything out, aloud, or fails with ``--require-device``.

A result names the checkout's commit, so what is timed has to be the checkout's package: another one that is
installed is refused.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import minibert
from benchmarks.devices import DEVICES, claim_tensorflow_device
from benchmarks.measured_code import differing_files, has_changes
from minibert.allocator import keep_freed_memory
from minibert.errors import DeviceError

# Before anything imports TensorFlow or Keras.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
keep_freed_memory()  # as a run does

_CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.append(str(_CHECKOUT))  # for the processes of their own that some start; last, so that what is installed stays
_MISSING = pytest.StashKey[str]()
_COLUMNS = "{:<44}{:>14}{:>12}{:>14}{:>12}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=DEVICES, default="cpu", help="where to train (default: cpu)")
    with contextlib.suppress(ValueError):  # the tests' own, where both are run at once
        parser.addoption("--require-device", nargs="?", const=True, default=False, help="fail where it is missing")


def pytest_configure(config: pytest.Config) -> None:
    _require_checkouts_package()
    device = config.getoption("--device")
    if device == "cpu":
        return
    try:
        claim_tensorflow_device(device)
    except DeviceError as error:
        if config.getoption("--require-device") in (True, device):
            raise pytest.UsageError(str(error)) from None
        config.stash[_MISSING] = str(error)


def _require_checkouts_package() -> None:
    installed, here = Path(minibert.__file__).resolve().parent, _CHECKOUT / "minibert"
    if differing := differing_files(installed, here):
        raise pytest.UsageError(
            f"minibert: the checkout's package in {here} is required, because a result names its commit, but the one "
            f"in {installed} is timed and {', '.join(differing[:3])} differ{'s' if len(differing) == 1 else ''} "
            "(pip install .)"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reason = config.stash.get(_MISSING, None)
    if reason is not None:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"not run: {reason}"))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Which machine, and which packages: pytest-benchmark's own fields name no GPU, threads or TensorFlow.

    It is called more than once where a result is compared or stored, and gives the same every time.
    """
    from benchmarks.measured_code import peer_versions
    from minibert.environment import describe_environment
    from minibert.perf.machine import describe_machine

    packages = {name: version for name, version in describe_environment()["packages"].items() if version}
    machine_info["minibert"] = describe_machine()
    machine_info["environment"] = {"python": machine_info.get("python_version"), "packages": packages}
    machine_info["peers"] = peer_versions()


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_commit_info(commit_info: dict[str, Any]) -> None:
    """pytest-benchmark looks at tracked files alone, but a new module is measured too."""
    commit_info["dirty"] = bool(commit_info.get("dirty")) or has_changes(_CHECKOUT)


@pytest.fixture(scope="session", autouse=True)
def device(request: pytest.FixtureRequest) -> str:
    """``cpu``, ``cuda`` or ``metal``; of the CPU, TensorFlow is told before it makes anything."""
    name = str(request.config.getoption("--device"))
    if name == "cpu":
        claim_tensorflow_device(name)
    return name


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Prints tokens a second, the ratio to the notebook's version, the first call, and a lone process' peak memory."""
    session = getattr(config, "_benchmarksession", None)
    timed = [b for b in getattr(session, "benchmarks", ()) if b and "tokens_per_second" in b.extra_info]
    if not timed:
        return
    terminalreporter.section("throughput; how many times faster than the notebook's own, interleaved")
    terminalreporter.line(_COLUMNS.format("", "tokens/s", "ratio", "first call", "peak"))
    for bench in sorted(timed, key=lambda b: (b.group or "", b.name)):
        info = bench.extra_info
        figures = (
            f"{info['tokens_per_second']:,}",
            f"{info['ratio']:.2f}",
            f"{info['first_call_seconds']:.2f} s",
            f"{info['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in info else "-",
        )
        terminalreporter.line(_COLUMNS.format(bench.name.removeprefix("test_"), *figures))
