"""``minibert perf record``, ``history`` and ``report``: keep results, say since when, draw the page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minibert.subcommands import add_command

FOLDER = Path("perf-history")
"""Where a history is, unless something else is said."""
_PAGE = Path("perf.html")


def register_history(subparsers: argparse._SubParsersAction) -> None:
    """Adds the three commands after ``minibert perf``; nothing heavy is imported for that."""
    _add_record(subparsers)
    _add_history(subparsers)
    _add_report(subparsers)


def record(options: argparse.Namespace) -> int:
    """Appends results to the history; all of them are read before the first is written."""
    from minibert.perf.gate_record import gate_result
    from minibert.perf.history import append
    from minibert.perf.results import checked_result, is_gate_answer, read_object

    results, left_out = [], []
    for path in options.results:
        values = read_object(path)
        result, without = gate_result(path, values) if is_gate_answer(values) else (checked_result(path, values), [])
        results.append(result)
        left_out.append(without)
    recorded = [append(options.history, result) for result in results]
    if options.json:
        print(json.dumps([{"path": str(found.path), "is_new": found.is_new} for found in recorded], indent=1))
        return 0
    for result, without, found in zip(results, left_out, recorded, strict=True):
        count = len(result.timings)
        said = f"{count} benchmark{'' if count == 1 else 's'}" if found.is_new else "recorded before, nothing changed"
        print(f"{found.path}: {said}")
        if result.commit.is_dirty:
            print("  note: the working tree had changes; history leaves such records out unless --dirty is given")
        for line in without:
            print(f"  note: left out: {line}")
        bare = [timing.name for timing in result.timings if timing.control is None]
        if bare:
            print(f"  note: no control was timed beside {', '.join(bare)}: not normalized, a series of its own")
    return 0


def history(options: argparse.Namespace) -> int:
    """Prints every series with its changes."""
    from minibert.perf.change_points import require_otava
    from minibert.perf.history_text import as_lines
    from minibert.perf.since_when import analyze, as_json

    analysis = analyze(
        options.history,
        repository=options.repository,
        propose=require_otava(),
        benchmarks=options.benchmark,
        with_dirty=options.dirty,
    )
    if options.json:
        print(json.dumps(as_json(analysis), indent=1, ensure_ascii=False))
        return 0
    for line in as_lines(analysis):
        print(line)
    return 0


def report(options: argparse.Namespace) -> int:
    """Writes the page."""
    from minibert.perf.gate_answer import read_gate
    from minibert.perf.page import write_page

    gate = None if options.gate is None else read_gate(options.gate)
    may_miss = gate is not None and options.history is None
    notes = write_page(options.out, gate, options.history or FOLDER, may_miss=may_miss, repository=options.repository,
                       with_dirty=options.dirty)  # fmt: skip
    print(options.out)
    for note in notes:
        print(f"  note: {note}")
    return 0


def _add_record(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(subparsers, "record", "append results of pytest-benchmark, or of a gate, to a history")
    parser.add_argument("results", metavar="RESULT.json", type=Path, nargs="+",
                        help="what pytest --benchmark-json wrote, one file for each process; or perf gate --base REV "
                        "--save, always with the same REV")  # fmt: skip
    _add_folder(parser)
    parser.add_argument("--json", action="store_true", help="print the records' paths as JSON")
    parser.set_defaults(command=record)


def _add_history(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(
        subparsers,
        "history",
        "say since when a benchmark is slower or faster",
        epilog='Needs apache-otava, in its own environment: pip install ".[history]"',
    )
    _add_folder(parser)
    parser.add_argument("--benchmark", metavar="NAME", nargs="+", action="extend", help="default: all of them")
    _add_order(parser)
    parser.add_argument("--json", action="store_true", help="print series, points and changes as JSON")
    parser.set_defaults(command=history)


def _add_report(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(subparsers, "report", "draw the history, and the last gate, on one page")
    parser.add_argument("--history", metavar="DIR", type=Path,
                        help=f"the history's folder (default: {FOLDER}; without one, a --gate is needed)")  # fmt: skip
    parser.add_argument("--gate", metavar="GATE.json", type=Path, help="what minibert perf gate --save wrote")
    _add_order(parser)
    parser.add_argument("--out", metavar="PAGE.html", type=Path, default=_PAGE, help=f"the page (default: {_PAGE})")
    parser.set_defaults(command=report)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--history", metavar="DIR", type=Path, default=FOLDER,
                        help=f"the history's folder (default: {FOLDER})")  # fmt: skip


def _add_order(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repository", metavar="DIR", type=Path, default=Path(),
                        help="a checkout whose HEAD gives the order of the commits (default: this folder)")  # fmt: skip
    parser.add_argument("--dirty", action="store_true", help="also records of a working tree with changes")
