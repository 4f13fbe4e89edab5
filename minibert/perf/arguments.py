"""The words after ``minibert perf``. Imported for ``--help``, so nothing heavy is imported here."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from minibert.checked import is_line
from minibert.perf.decision import RULED_OUT, Rules
from minibert.perf.history_commands import register_history
from minibert.subcommands import add_command


def add_perf(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``perf`` and what stands after it."""
    text = "is it slower, since when, and how sure are we?"
    parser = subparsers.add_parser("perf", help=text, description="Is it slower, since when, and how sure are we?",
                                   allow_abbrev=False)  # fmt: skip
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_gate(commands)
    _add_accept(commands)
    register_history(commands)


def _add_gate(commands: argparse._SubParsersAction) -> None:
    text = "compare the working tree's speed, counters and bits with a revision's"
    codes = (
        "Exit codes: 0 same or faster, 20 slower, 21 unproven, 22 missing, 23 counters changed, 24 computes something "
        "else, 25 a side failed."
    )
    parser = add_command(commands, "gate", text, codes)
    against = parser.add_argument_group("what the working tree is compared with")
    against.add_argument("--base", metavar="REV", help="a revision (default: HEAD, if the tree has changes)")
    against.add_argument("--base-python", metavar="PATH", type=Path,
                         help="another environment's Python; it runs the working tree, or --base")  # fmt: skip
    against.add_argument("--base-result", metavar="FILE", type=Path, nargs="+",
                         help="pytest-benchmark's JSON from this machine, one file a process")  # fmt: skip
    parser.add_argument("--benchmark", metavar="NAME", nargs="+", action="extend",
                        help="what is timed (--list shows all; default: the small shapes)")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the benchmarks and stop")
    parser.add_argument("--threshold", metavar="RATE", type=rate, default=Rules.threshold,
                        help=f"a smaller slowdown is not called one; `same` rules out {RULED_OUT:g} times as much "
                             f"(default: {Rules.threshold:g})")  # fmt: skip
    parser.add_argument("--time-limit", metavar="SECONDS", type=positive_number, default=60.0,
                        help="seconds of stepping for each benchmark, both sides together (default: 60)")  # fmt: skip
    parser.add_argument("--no-numeric", action="store_true", help="do not compare what the tiny run computes")
    parser.add_argument(
        "--allow-different",
        metavar="REASON",
        type=_reason,
        help="other bits, or another tiny run, are meant; why goes into the answer",
    )
    parser.add_argument("--allow-changed-benchmarks", metavar="REASON", type=_reason,
                        help="the benchmarks are changed on purpose; why goes into the answer")  # fmt: skip
    parser.add_argument("--save", metavar="FILE", type=Path, help="also write the answer as JSON to a file")
    parser.add_argument("--page", metavar="FILE.html", type=Path,
                        help="also draw the answer, and the history if there is one, as perf report does")  # fmt: skip
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print the answer as JSON")
    shown.add_argument("--markdown", action="store_true", help="print a table for a pull request")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(command=_gate)


def _add_accept(commands: argparse._SubParsersAction) -> None:
    parser = add_command(commands, "accept", "accept the counters of the working tree as they are now")
    parser.add_argument("--reason", metavar="TEXT", type=_reason, required=True, help="why they changed, in one line")
    parser.add_argument("--benchmark", metavar="NAME", nargs="+", action="extend", help="default: all of them")
    parser.set_defaults(command=_accept)


def _gate(options: argparse.Namespace) -> int:
    from minibert.perf.gate_commands import gate

    return gate(options)


def _accept(options: argparse.Namespace) -> int:
    from minibert.perf.gate_commands import accept

    return accept(options)


def _reason(text: str) -> str:
    if not is_line(text):  # an unset variable of a CI job gives none, and no reason must let anything pass
        raise argparse.ArgumentTypeError(f"one printable line that says why is required, but {text!r} came")
    return text.strip()


def rate(text: str) -> float:
    """A relative change, for argparse."""
    number = _number(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"a number above 0 and below 1 is required, but {text!r} came")
    return number


def positive_number(text: str) -> float:
    """A length of time, for argparse."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0 is required, but {text!r} came")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
