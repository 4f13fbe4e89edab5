"""Progress says enough, in the right place, and never too often."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest

from minibert import progress as module
from minibert.progress import Progress


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


def test_without_a_terminal_a_task_writes_a_line_per_interval_and_one_at_its_end(clock: Clock) -> None:
    stream = io.StringIO()
    task = Progress(stream=stream, interval_seconds=10).start("pretrain 1/5", 1000)
    for _ in range(100):
        clock.seconds += 0.25
        task.advance(10, loss=7.25)
    task.finish()
    task.finish()
    assert stream.getvalue().splitlines() == [
        "pretrain 1/5: 400/1,000 (40%), loss 7.2500, 10 s",
        "pretrain 1/5: 800/1,000 (80%), loss 7.2500, 20 s",
        "pretrain 1/5: done, 1,000/1,000, loss 7.2500, 25 s",
    ]


def test_a_task_that_ends_short_of_its_total_has_stopped(clock: Clock) -> None:
    stream = io.StringIO()
    task = Progress(stream=stream, interval_seconds=100).start("pretrain 3/3", 188)
    task.advance(57, loss=4.0616)
    clock.seconds += 2
    task.finish()
    assert stream.getvalue() == "pretrain 3/3: stopped, 57/188, loss 4.0616, 2 s\n"


def test_others_can_ask_whether_anything_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Progress(quiet=True).quiet
    assert not Progress(stream=io.StringIO()).quiet
    monkeypatch.setattr(sys, "stderr", None)
    assert Progress().quiet


def test_a_total_may_be_unknown_or_zero_and_figures_may_be_missing(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, interval_seconds=10)
    unknown, empty = progress.start("download"), progress.start("nothing", 0)
    clock.seconds = 11
    unknown.advance(5)
    unknown.finish()
    empty.finish()
    assert stream.getvalue().splitlines() == [
        "download: 5, 11 s",
        "download: done, 5, 11 s",
        "nothing: done, 0/0, 11 s",
    ]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_short_task_leaves_a_line_only_if_it_has_figures(clock: Clock, stream: type[io.StringIO]) -> None:
    shown = stream()
    with Progress(stream=shown) as progress:
        for name, seconds, figures in (("short", 0.9, {}), ("shown", 0.1, {"loss": 0.5}), ("long", 1.0, {})):
            task = progress.start(name, 2)
            clock.seconds += seconds
            task.advance(2, **figures)
            task.finish()
            task.finish()
    assert re.findall(r"(short|shown|long): done", shown.getvalue()) == ["shown", "long"]


def test_notes_stand_among_the_lines() -> None:
    stream = io.StringIO()
    with Progress(stream=stream) as progress:
        progress.note("a [bold]line[/bold]")
    assert stream.getvalue() == "a [bold]line[/bold]\n"


def test_quiet_writes_nothing_anywhere() -> None:
    stream = Terminal()
    with Progress(quiet=True, stream=stream) as progress:
        task = progress.start("pretrain", 3)
        task.advance(3, loss=1.0)
        task.finish()
        progress.note("a line")
    assert stream.getvalue() == ""


def test_a_process_without_stderr_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    progress = Progress()
    progress.start("pretrain", 3).advance()
    progress.note("a line")


def test_on_a_terminal_bars_show_descriptions_counts_and_figures_as_they_stand() -> None:
    stream = Terminal()
    with Progress(stream=stream) as progress:
        task = progress.start("pretrain [1/5]", 3)
        task.advance(2, val_loss=0.5)
        progress._bars.refresh()  # a busy machine may not have come to it
        progress.note("kept [red]line")
        task.advance()
        task.finish()
        task.finish()
    shown = stream.getvalue()
    for text in ("pretrain [1/5]", "2/3", "val loss 0.5000", "kept [red]line"):
        assert text in shown
    assert shown.count("pretrain [1/5]: done, 3/3, val loss 0.5000, 0 s") == 1  # a line takes the bar's place
    progress.close()


def test_a_terminal_is_given_back_when_the_work_fails() -> None:
    stream = Terminal()

    def work() -> None:
        with Progress(stream=stream) as progress:
            progress.start("pretrain", 3)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert stream.getvalue().count("\x1b[?25h") == 1  # the cursor is shown again


def test_rich_is_imported_only_for_a_terminal() -> None:
    code = """
import sys
from minibert.progress import Progress
with Progress() as progress:
    progress.start("pretrain", 1).finish()
assert "rich" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
