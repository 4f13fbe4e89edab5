"""Ctrl-C and SIGTERM end a command in order, and handlers that are not the default ones stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minibert.interruption import Interruptions, interruptions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a signal to oneself ends the process there")


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """As a fresh process has them, whatever pytest and its plugins set."""
    defaults: list[tuple[int, Any]] = [(signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)]
    kept = [(number, signal.signal(number, handler)) for number, handler in defaults]
    yield
    for number, handler in kept:
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
def test_a_signal_is_an_interruption_with_its_own_word_and_code(number: int, word: str, code: int) -> None:
    with interruptions() as found, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert (found.signals, found.word, found.exit_code) == ([number], word, code)


def test_the_first_signal_decides() -> None:
    with interruptions() as found:
        for number in (signal.SIGTERM, signal.SIGINT):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    assert (found.word, found.exit_code) == ("terminated", 143)


def test_without_a_signal_it_is_ctrl_c() -> None:
    """As where another handler raised `KeyboardInterrupt`."""
    assert (Interruptions().word, Interruptions().exit_code) == ("interrupted", 130)


def test_handlers_are_put_back_after_an_error_too() -> None:
    with pytest.raises(RuntimeError), interruptions():
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_programs_own_handler_stays() -> None:
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    with interruptions() as found:
        signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM]
    assert found.signals == []


def test_in_another_thread_handlers_are_left_alone() -> None:
    found: list[Interruptions] = []

    def run() -> None:
        with interruptions() as these:
            found.append(these)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(found) == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(("number", "code", "word"), [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")])
def test_a_command_that_is_stopped_leaves_no_temporary_folder(
    number: str, code: int, word: str, tmp_path: Path
) -> None:
    """A signal to a process of its own, while the command has a folder open."""
    program = (
        "import os, signal, sys, tempfile\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "from minibert import cli, commands\n"
        "def stop(_):\n"
        "    with tempfile.TemporaryDirectory():\n"
        f"        os.kill(os.getpid(), signal.{number})\n"
        "        signal.pause()\n"
        "commands.presets = stop\n"
        "sys.exit(cli.main(['presets']))\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert (done.returncode, done.stderr) == (code, f"minibert: {word}\n")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_the_command_line_is_loaded_is_one_line() -> None:
    program = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'minibert.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from minibert.__main__ import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "minibert: interrupted\n")
