"""Progress on stderr: bars on a terminal, now and then a line elsewhere, nothing when quiet.

The training code says what it is doing and never how it is shown. Nothing here changes a computed
value. Rich is imported only when there is a terminal to draw on.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

LINE_INTERVAL_SECONDS = 10.0
"""Where there is no terminal, at most one line in this time for each task."""
LINE_WORTH_SECONDS = 1.0
"""A shorter task leaves no line behind, unless it has figures to show."""


class Task:
    """One piece of long work with a known or unknown number of units; this one shows nothing."""

    def advance(self, n: int = 1, **figures: float) -> None:
        """Says that ``n`` more units are done, and the latest figures, such as ``loss=6.2``."""

    def finish(self) -> None:
        """Says that the work is done, or that it stopped short of its total; calling it again does nothing."""


class Progress:
    """Shows tasks and notes on stderr; also a context manager, which clears the terminal at its end.

    Args:
        quiet: Show nothing at all.
        stream: Where to write; default: stderr as it is now.
        interval_seconds: Without a terminal, the shortest time between two lines of a task.
    """

    def __init__(
        self, *, quiet: bool = False, stream: TextIO | None = None, interval_seconds: float = LINE_INTERVAL_SECONDS
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet or self._stream is None  # stderr is None where there is no console
        self._interval_seconds = interval_seconds
        self._bars: Any = None

    @property
    def quiet(self) -> bool:
        """Whether nothing is shown: other libraries' own bars are asked to keep to it."""
        return self._quiet

    def start(self, description: str, total: int | None = None) -> Task:
        """Begins a task.

        Args:
            description: What is being done, such as ``pretrain, epoch 2 of 5``.
            total: Units in all; None: not known.
        """
        if self._quiet:
            return Task()
        if self._stream.isatty():
            return _BarTask(self._open_bars(), description, total)
        return _LineTask(self._stream, description, total, self._interval_seconds)

    def note(self, line: str) -> None:
        """Shows one line that stays."""
        if self._quiet:
            return
        if self._bars is not None:
            _print(self._bars, line)
        else:
            _write_line(self._stream, line)

    def close(self) -> None:
        """Gives the terminal back; a later task opens it again."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_bars(self) -> Any:
        if self._bars is None:
            from rich import progress as rich_progress
            from rich.console import Console

            self._bars = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}", markup=False),
                rich_progress.BarColumn(bar_width=24),  # gives way where a terminal is narrow
                rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[figures]}", markup=False),
                rich_progress.TimeRemainingColumn(),
                console=Console(file=self._stream),
                refresh_per_second=4,  # drawing takes time from the training on small machines
            )
            self._bars.start()
        return self._bars


class _CountedTask(Task):
    """What bars and lines share: the count so far, the latest figures, the time, and a line of them."""

    def __init__(self, description: str, total: int | None) -> None:
        self._description, self._total = description, total
        self._done, self._figures, self._finished = 0, "", False
        self._started = time.monotonic()

    def _count(self, n: int, figures: dict[str, float]) -> None:
        self._done += n
        if figures:
            self._figures = " ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())

    def _end(self) -> str | None:
        """The line that the task leaves behind, once; None: it is not worth one, or has left it."""
        if self._finished:
            return None
        self._finished = True
        return self._line() if self._figures or time.monotonic() - self._started >= LINE_WORTH_SECONDS else None

    def _line(self) -> str:
        count = f"{self._done:,}"
        if self._total is not None:
            count += f"/{self._total:,}"
            if self._total > 0 and not self._finished:
                count += f" ({self._done / self._total:.0%})"
        parts = [self._state, count, self._figures, f"{time.monotonic() - self._started:.0f} s"]
        return f"{self._description}: {', '.join(part for part in parts if part)}"

    @property
    def _state(self) -> str:
        if not self._finished:
            return ""
        return "done" if self._total is None or self._done >= self._total else "stopped"


class _BarTask(_CountedTask):
    """A bar on a terminal; when the work is done a line takes its place at most, so that bars do not pile up."""

    def __init__(self, bars: Any, description: str, total: int | None) -> None:
        super().__init__(description, total)
        self._bars = bars
        self._id = bars.add_task(description, total=total, figures="")

    def advance(self, n: int = 1, **figures: float) -> None:
        self._count(n, figures)
        self._bars.update(self._id, completed=self._done, figures=self._figures)

    def finish(self) -> None:
        if self._finished:
            return
        line = self._end()
        self._bars.remove_task(self._id)
        self._bars.refresh()  # or the bar would be drawn once more under its line
        if line is not None:
            _print(self._bars, line)


class _LineTask(_CountedTask):
    """Lines in a log: one when the interval has passed, and one at the end."""

    def __init__(self, stream: TextIO, description: str, total: int | None, interval_seconds: float) -> None:
        super().__init__(description, total)
        self._stream, self._interval_seconds = stream, interval_seconds
        self._last_line = self._started

    def advance(self, n: int = 1, **figures: float) -> None:
        self._count(n, figures)
        now = time.monotonic()
        if now - self._last_line >= self._interval_seconds:
            self._last_line = now
            _write_line(self._stream, self._line())

    def finish(self) -> None:
        line = self._end()
        if line is not None:
            _write_line(self._stream, line)


def _print(bars: Any, line: str) -> None:
    bars.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _write_line(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()
