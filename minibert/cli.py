"""The command line: calls a command, and is the only place that prints errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from minibert import commands
from minibert.allocator import keep_freed_memory
from minibert.arguments import build_parser
from minibert.errors import ArtifactError, MinibertError
from minibert.interruption import Interruptions, interruptions
from minibert.quiet import quiet_tensorflow

BROKEN_PIPE_EXIT_CODE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after ``minibert``; default: this process' own.

    Returns:
        The exit code: 0 for success, a verdict's own, an exception class' own, 130 after Ctrl-C,
        143 after ``SIGTERM``.

    Raises:
        SystemExit: ``--help``, ``--version`` (code 0), or words that are not a command (code 2).
    """
    _prepare_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser().parse_args(words)
    if not os.environ.get("KERAS_BACKEND"):  # else ~/.keras/keras.json would choose
        os.environ["KERAS_BACKEND"] = "tensorflow"
    quiet_tensorflow()
    keep_freed_memory()
    with interruptions() as stopped:
        try:
            code = int(options.command(options))
            sys.stdout.flush()  # a reader that has gone is noticed here, not at exit
            return code
        except MinibertError as error:
            return _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            return _stop(options, words, stopped)
        except BrokenPipeError:
            _give_up_stdout()
            return BROKEN_PIPE_EXIT_CODE
        except OSError as error:
            return _fail(_os_error(error), ArtifactError.exit_code)
        except MemoryError as error:
            return _fail(f"more memory is required than there is ({error})", MinibertError.exit_code)
        except Exception:
            if not stopped.signals:
                raise
            return _stop(options, words, stopped)


def _prepare_streams() -> None:
    """A closed stream swallows; one that cannot show a character gets an escape instead of a crash."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _fail(message: str, exit_code: int, *, kind: str = "error: ") -> int:
    line = " ".join(message.split()) if "\n" in message else message
    try:
        sys.stdout.flush()
    except OSError:
        _give_up_stdout()
    with contextlib.suppress(BrokenPipeError):
        print(f"minibert: {kind}{line}", file=sys.stderr, flush=True)
    return exit_code


def _give_up_stdout() -> None:
    """Drops what stdout cannot take, or Python would fail on it again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _stop(options: argparse.Namespace, words: Sequence[str], stopped: Interruptions) -> int:
    """After a signal: says so, with the command that goes on, if there is something to go on from."""
    line = stopped.word
    if options.command is commands.run and commands.has_started(options):
        again = [*words] if "--resume" in words else [*words, "--resume"]
        line += f"; resume with: minibert {shlex.join(again)}"
    return _fail(line, stopped.exit_code, kind="")


def _os_error(error: OSError) -> str:
    """One line for what the system refused, such as a full disk: the file, and the reason."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason
