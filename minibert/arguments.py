"""The grammar of the command line: which commands, which options, and what their words must be."""

from __future__ import annotations

import argparse
import itertools
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from minibert import __version__, commands
from minibert.checked import closest
from minibert.perf.arguments import add_perf
from minibert.settings import settings_named
from minibert.subcommands import add_command

_ASSIGNMENT = re.compile(r"[^-=/\\\s][^=/\\\s]*=")
"""How a further word behind ``--set`` begins: a name without slashes or spaces, and an equals sign."""


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


def _add_json(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="a run directory")


def _add_texts(parser: argparse.ArgumentParser, one: str, text: str) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(f"{one}s", metavar=one.upper(), nargs="*", default=[], help=text)
    source.add_argument("--file", metavar="PATH", type=Path, help=f"a UTF-8 file with one {one} on each line; -: stdin")


def _add_set(parser: argparse.ArgumentParser, example: str) -> None:
    text = f"change settings, such as {example}; several may follow one --set"
    parser.add_argument("--set", metavar="STAGE.FIELD=VALUE", type=_assignment, action="append", default=[], help=text)


def _add_run(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(
        subparsers,
        "run",
        "train a preset's models and write a run directory",
        epilog="Settings are taken from the preset, then --settings, then --set, then --seed.",
    )
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
    parser = add_command(subparsers, "fill-mask", "predict the word that [mask] stands for")
    _add_directory(parser)
    _add_texts(parser, "sentence", "texts with exactly one [mask] each")
    parser.add_argument("--top-k", metavar="K", type=_positive, default=5, help="predictions to show (default: 5)")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_json(parser, "the predictions; of several sentences or a file, a list of them for each")
    parser.set_defaults(command=commands.fill_mask)


def _add_classify(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(subparsers, "classify", "name the class of each text, with its probability")
    _add_directory(parser)
    _add_texts(parser, "text", "texts to classify")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_json(parser, "the classes")
    parser.set_defaults(command=commands.classify)


def _add_evaluate(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(
        subparsers,
        "evaluate",
        "measure loss and accuracy on labelled raw texts",
        epilog="Of a table that names splits the test rows are taken, of another one all.",
    )
    _add_directory(parser)
    parser.add_argument("--data", metavar="PATH", type=_path, required=True, help="an archive, a folder or a table")
    _add_set(parser, "corpus.text_column=body")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_json(parser, "the figures")
    parser.set_defaults(command=commands.evaluate)


def _add_presets(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(
        subparsers, "presets", "list the presets, or print one's settings as a file for run --settings"
    )
    text = "print this one's settings, with what each means"
    parser.add_argument("preset", metavar="PRESET", nargs="?", help=text)
    _add_json(parser, "names, descriptions and settings")
    parser.set_defaults(command=commands.presets)


def _add_report(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(subparsers, "report", "write a run's report.html anew from its run.json")
    _add_directory(parser)
    _add_json(parser, "the page's path and what its head says")
    parser.set_defaults(command=commands.report)


def _add_doctor(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(subparsers, "doctor", "show versions, devices, threads and flags, and what is wrong with them")
    _add_json(parser, "the diagnosis")
    parser.set_defaults(command=commands.doctor)


def _add_verify(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(
        subparsers,
        "verify",
        "replay a run, or compare two, and name where they part",
        epilog="The exit code tells exact, numeric, different and not comparable apart.",
    )
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
