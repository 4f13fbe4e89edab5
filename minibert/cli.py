"""The command line: parses arguments, calls a command, and is the only place that prints errors."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from minibert import __version__, commands
from minibert.allocator import keep_freed_memory
from minibert.checked import closest
from minibert.errors import ArtifactError, MinibertError
from minibert.interruption import Interruptions, interruptions
from minibert.perf.arguments import add_perf
from minibert.quiet import quiet_tensorflow
from minibert.settings import settings_named

BROKEN_PIPE_EXIT_CODE = 141
_ASSIGNMENT = re.compile(r"[^-=/\\\s][^=/\\\s]*=")
"""How a further word behind ``--set`` begins: a name without slashes or spaces, and an equals sign."""


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


def build_parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line; each command's function stands in `commands`."""
    parser = _Parser(
        prog="minibert", description="Train a small BERT from scratch, the same bits every time.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"minibert {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_run, _add_fill_mask, _add_classify, _add_evaluate, _add_presets, _add_report, _add_doctor,
                _add_verify, add_perf):  # fmt: skip
        add(subparsers)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser in which one ``--set`` takes several assignments and no other word, and options may stand anywhere.

    A command that gets a word too many says so itself, so that its own usage stands above.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does, once every assignment has its own ``--set``."""
        words = sys.argv[1:] if args is None else args
        known, others = super().parse_known_args(one_assignment_each(words), namespace)
        if others and self._subparsers is None:
            self.error(f"unrecognized arguments: {' '.join(others)}{self._nearest_options(others)}")
        return known, others

    def _nearest_options(self, words: Sequence[str]) -> str:
        """For each option among words that are not known, the settings of that name, or the known one most like it."""
        found = []
        for word in [word.partition("=")[0] for word in words if word.startswith("--")]:
            if meant := settings_named(word.removeprefix("--")) if "--set" in self._option_string_actions else []:
                found.append(f"; it may be a setting: {' or '.join(f'--set {key}=VALUE' for key in meant)}")
            elif near := closest(word, self._option_string_actions):
                found.append(f"; the nearest to {word} is {near}")
        return "".join(found)

    def _match_arguments_partial(self, actions: Any, arg_strings_pattern: str) -> list[int]:
        """As in newer Pythons: where an option follows, a list of words that may be empty is not taken for empty."""
        counts = super()._match_arguments_partial(actions, arg_strings_pattern)
        if arg_strings_pattern[sum(counts) :].startswith("O"):
            while counts and counts[-1] == 0:
                counts.pop()
        return counts


def one_assignment_each(words: Iterable[str]) -> list[str]:
    """Writes ``--set a=1 b=2 tiny`` as ``--set a=1 --set b=2 tiny``.

    argparse would give an option that takes several words every word up to the next option, so that a
    positional behind it was lost.
    """
    found: list[str] = []
    in_assignments, remaining = False, iter(words)
    for word in remaining:
        if word == "--":
            return [*found, word, *remaining]
        if word == "--set":
            found += [word, *itertools.islice(remaining, 1)]
            in_assignments = True
        elif in_assignments and _ASSIGNMENT.match(word):
            found += ["--set", word]
        else:
            found.append(word)
            in_assignments = word.startswith("--set=")
    return found


def _add(
    subparsers: argparse._SubParsersAction, name: str, text: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog, allow_abbrev=False
    )
    return parser


def _add_json(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="a run directory")


def _add_set(parser: argparse.ArgumentParser, example: str) -> None:
    text = f"change settings, such as {example}; several may follow one --set"
    parser.add_argument("--set", metavar="STAGE.FIELD=VALUE", type=_assignment, action="append", default=[], help=text)


def _add_run(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(subparsers, "run", "train a preset's models and write a run directory",
                  epilog="Settings are taken from the preset, then --settings, then --set, then --seed.")  # fmt: skip
    parser.add_argument("preset", metavar="PRESET", help="imdb, amazon, jokes or tiny (see: minibert presets)")
    text = "an archive, a folder or a table of your own (default with --resume: the run's)"
    parser.add_argument("--data", metavar="PATH", type=_path, help=text)
    parser.add_argument("--out", metavar="DIR", type=Path, help="the run directory (default: runs/PRESET-seedN)")
    parser.add_argument(
        "--seed", metavar="N", type=_integer, help="the root of all randomness (default: the preset's, 0)"
    )
    parser.add_argument("--settings", metavar="FILE.toml", type=Path, help="settings that replace the preset's")
    _add_set(parser, "pretrain.epochs=2")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on exactly where the run in DIR stopped, with its settings unless some are given",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_json(parser, "the run's record")
    parser.set_defaults(command=commands.run)


def _add_fill_mask(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(subparsers, "fill-mask", "predict the word that [mask] stands for")
    _add_directory(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "sentences", metavar="SENTENCE", nargs="*", default=[], help="texts with exactly one [mask] each"
    )
    source.add_argument(
        "--file", metavar="PATH", type=Path, help="a UTF-8 file with one sentence on each line; -: stdin"
    )
    parser.add_argument("--top-k", metavar="K", type=_positive, default=5, help="predictions to show (default: 5)")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_json(parser, "the predictions; of several sentences or a file, a list of them for each")
    parser.set_defaults(command=commands.fill_mask)


def _add_classify(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(subparsers, "classify", "name the class of each text, with its probability")
    _add_directory(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("texts", metavar="TEXT", nargs="*", default=[], help="texts to classify")
    source.add_argument("--file", metavar="PATH", type=Path, help="a UTF-8 file with one text on each line; -: stdin")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_json(parser, "the classes")
    parser.set_defaults(command=commands.classify)


def _add_evaluate(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(subparsers, "evaluate", "measure loss and accuracy on labelled raw texts",
                  epilog="Of a table that names splits the test rows are taken, of another one all.")  # fmt: skip
    _add_directory(parser)
    parser.add_argument("--data", metavar="PATH", type=_path, required=True, help="an archive, a folder or a table")
    _add_set(parser, "corpus.text_column=body")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_json(parser, "the figures")
    parser.set_defaults(command=commands.evaluate)


def _add_presets(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(subparsers, "presets", "list the presets, or print one's settings as a file for run --settings")
    text = "print this one's settings, with what each means"
    parser.add_argument("preset", metavar="PRESET", nargs="?", help=text)
    _add_json(parser, "names, descriptions and settings")
    parser.set_defaults(command=commands.presets)


def _add_report(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(subparsers, "report", "write a run's report.html anew from its run.json")
    _add_directory(parser)
    _add_json(parser, "the page's path and what its head says")
    parser.set_defaults(command=commands.report)


def _add_doctor(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(subparsers, "doctor", "show versions, devices, threads and flags, and what is wrong with them")
    _add_json(parser, "the diagnosis")
    parser.set_defaults(command=commands.doctor)


def _add_verify(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(subparsers, "verify", "replay a run, or compare two, and name where they part",
                  epilog="The exit code tells exact, numeric, different and not comparable apart.")  # fmt: skip
    _add_directory(parser)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--against", metavar="DIR2", type=Path, help="another run to compare with, instead of a replay")
    way.add_argument("--repeat", metavar="N", type=_positive,
                     help="run one step of each stage N times, list what does not repeat")  # fmt: skip
    parser.add_argument("--data", metavar="PATH", type=_path, help="the run's data, if they are elsewhere by now")
    parser.add_argument("--tolerance", metavar="RATE", type=_tolerance,
                        help="largest relative deviation of a loss in the first steps for the verdict numeric "
                             "(default: 0.001); a smaller one holds later figures closer, too")  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_json(parser, "the verdict")
    parser.set_defaults(command=commands.verify)


def _assignment(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"stage.field=value is required, but {text!r} came")
    return text


def _path(text: str) -> Path:
    if not text:  # an unset variable of the shell, which pathlib takes for the current folder
        raise argparse.ArgumentTypeError("a path that is not empty is required, but '' came")
    return Path(text)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"an integer is required, but {text!r} came") from None


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"an integer, 1 or more, is required, but {text!r} came")
    return number


def _tolerance(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"a relative deviation from 0 to 1 is required, but {text!r} came")
    return number


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
