"""Ctrl-C, and what a scheduler or ``kill`` sends: a command ends in order for both, and says what stopped it.

    with interruptions() as found:
        try:
            train()
        except KeyboardInterrupt:
            sys.exit(found.exit_code)

`minibert.cli` runs every command in such a block.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_BASE = 128
"""A shell's exit code for a process that a signal ended, less the signal's number."""


@dataclass
class Interruptions:
    """The signals that have come.

    Attributes:
        signals: Their numbers, in order. TensorFlow makes another exception of some `KeyboardInterrupt`.
    """

    signals: list[int] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after ``SIGTERM``: as a shell has it."""
        return _BASE + (signal.SIGTERM if self._is_terminated else signal.SIGINT)

    @property
    def word(self) -> str:
        """For a message."""
        return "terminated" if self._is_terminated else "interrupted"

    @property
    def _is_terminated(self) -> bool:
        return bool(self.signals) and self.signals[0] == signal.SIGTERM


@contextlib.contextmanager
def interruptions() -> Iterator[Interruptions]:
    """In the block, ``SIGINT`` and ``SIGTERM`` raise `KeyboardInterrupt`, and are written down.

    By default ``SIGTERM`` ends a process at once: temporary folders would stay, and nothing would be said. A handler
    that is not the default one is left alone, and so are both outside the main thread, which alone gets signals.
    """
    found = Interruptions()

    def interrupt(number: int, frame: Any) -> None:
        found.signals.append(number)
        signal.default_int_handler(number, frame)

    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before: dict[signal.Signals, Any] = {}
    for each, default in defaults.items():
        if signal.getsignal(each) is default:
            with contextlib.suppress(ValueError):
                before[each] = signal.signal(each, interrupt)
    try:
        yield found
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
