"""What others take is counted on the cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minibert.perf import neighbours

STAT = """cpu  1111 22 333 9999 44 5 6 70 8 0
cpu0 100 1 10 5000 20 2 3 30 4 0
cpu1 1000 20 300 4999 24 3 3 40 4 0
cpu10 11 1 23 0 0 0 0 0 0 0
intr 2690447 0 0 0
"""


@pytest.fixture
def stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stat"
    path.write_text(STAT, encoding="ascii")
    monkeypatch.setattr(neighbours, "_STAT", path)


@pytest.mark.parametrize(
    ("cores", "ticks"),
    [({0}, 100 + 1 + 10 + 2 + 3 + 30), ({0, 10}, 146 + 35), ({1}, 1000 + 20 + 300 + 3 + 3 + 40), ({7}, 0)],
)
def test_only_cores_of_this_process_count(
    stat: None, monkeypatch: pytest.MonkeyPatch, cores: set[int], ticks: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    assert neighbours.busy_seconds() == ticks / os.sysconf("SC_CLK_TCK")


def test_all_cores_together_are_the_first_line(stat: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 10})
    assert neighbours.busy_seconds() == (1111 + 22 + 333 + 5 + 6 + 1 + 69) / os.sysconf("SC_CLK_TCK")


def test_elsewhere_psutil_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_STAT", tmp_path / "nowhere")
    monkeypatch.setattr(neighbours, "_busy_by_psutil", lambda: 3.5)
    assert neighbours.busy_seconds() == 3.5
