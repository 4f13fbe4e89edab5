"""The control never changes, and a kind of machine is told by everything that the system says of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from minibert.perf import control, machine
from minibert.perf.control import Control
from minibert.perf.machine import describe_machine, machine_identity

FILE = "50e168025004015b4b2f19b781f3029b329a6fe76b1c916423c4da7910eba81d"
CHAIN = 8.514614552259445


def test_the_control_is_the_file_that_every_stored_result_was_measured_with() -> None:
    """If this fails, do not change the digest: give the new control another name, and leave this one as it is."""
    content = Path(control.__file__).read_bytes().replace(b"\r\n", b"\n")
    assert hashlib.sha256(content).hexdigest() == FILE


def test_the_control_computes_what_it_always_did() -> None:
    run = Control()
    assert run(0) == run(1) == pytest.approx(CHAIN * len(run._scratch), rel=1e-12)
    run.check()


def test_a_control_that_computes_something_else_is_found() -> None:
    run = Control()
    run(0)
    run._last += 1e-3
    with pytest.raises(AssertionError, match=r"control: .* is required, but"):
        run.check()


CPUINFO = """processor\t: 0
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC
stepping\t: 1
cache size\t: 512 KB

processor\t: 1
cpu family\t: 26
"""


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_kind_of_machine_has_revision_cache_and_quota(
    files: dict[str, str], quota: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="ascii")
    (tmp_path / "cpuinfo").write_text(CPUINFO, encoding="ascii")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    found = describe_machine()
    assert found["cpu_revision"] == "family 25 model 1 stepping 1"
    assert found["cpu_cache"] == "512 KB"
    assert found["cpu_quota"] == quota
    assert found["identity"] == machine_identity(found)
    assert machine_identity({**found, "cpu_revision": "family 25 model 1 stepping 2"}) != found["identity"]


def test_where_the_system_says_nothing_of_its_processor_nothing_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    found = describe_machine()
    assert (found["cpu_revision"], found["cpu_cache"]) == (None, None)
