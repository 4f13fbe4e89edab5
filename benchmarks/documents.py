"""Writes what `benchmarks/results` keeps into the documents, so that a table is what its command printed.

    python -m benchmarks.documents           rewrites the marked blocks of README.md and benchmarks/README.md
    python -m benchmarks.documents --check   writes nothing; exit code 1 if a block is not what is kept, or nothing is

A block begins with ``<!-- growth: python -m benchmarks.documents -->`` and ends with ``<!-- end -->``; `BLOCKS`
has the names. A block whose results are not there is left as it is, and that is said.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.stored import RESULTS, Results, conditions_line, disturbed, kept_table
from minibert.artifacts import write_bytes
from minibert.errors import ArtifactError, MinibertError

DOCUMENTS = (Path(__file__).parents[1] / "README.md", Path(__file__).parent / "README.md")
"""What users read first, and what was measured."""

_BLOCK = re.compile(r"(<!-- (\w+): python -m benchmarks\.documents -->\n).*?(<!-- end -->)", re.DOTALL)


def growth() -> str | None:
    """The table of `benchmarks.growth`."""
    from benchmarks.growth import corpus_note, markdown

    results = Results(RESULTS / "growth.json", ("axis", "value"))
    if not results.rows:
        return None
    notes = f"{corpus_note(results.rows)} {_under(results, results.rows)} {disturbed(results.rows)}"
    return f"{markdown(results.rows)}\n\n{notes.strip()}"


def speed() -> str | None:
    """The steps of `benchmarks.precision`."""
    from benchmarks.precision import RESULT_KEYS, speed_table

    results = Results(RESULTS / "precision.json", RESULT_KEYS)
    rows = [row for row in results.rows if row["what"] == "speed"]
    return f"{speed_table(rows)}\n\n{_under(results, rows)} {disturbed(rows)}" if rows else None


def losses() -> str | None:
    """The runs of `benchmarks.precision`."""
    from benchmarks.precision import RESULT_KEYS, run_table, seeds_table

    results = Results(RESULTS / "precision.json", RESULT_KEYS)
    rows = [row for row in results.rows if row["what"] == "run"]
    tables = f"{run_table(rows)}\n\n{seeds_table(rows)}".strip()
    return f"{tables}\n\n{_under(results, rows)}" if rows else None


def backends() -> str | None:
    """The rows of `benchmarks.backends`."""
    from benchmarks.backends import KEYS, markdown

    results = Results(RESULTS / "backends.json", KEYS)
    return kept_table(results, markdown) if results.rows else None


def backend_exactness() -> str | None:
    """The rows of `benchmarks.backend_exactness`."""
    from benchmarks.backend_exactness import KEYS, markdown

    results = Results(RESULTS / "backend_exactness.json", KEYS)
    return kept_table(results, markdown) if results.rows else None


def backend_run() -> str | None:
    """The runs of `benchmarks.backend_run`."""
    from benchmarks.backend_run import KEYS, markdown

    results = Results(RESULTS / "backend_run.json", KEYS)
    return kept_table(results, markdown) if results.rows else None


def peers() -> str | None:
    """The rows of `benchmarks.peers`."""
    from benchmarks.peers_table import KEYS, kept_text

    return kept_text(Results(RESULTS / "peers.json", KEYS)) or None


def peers_summary() -> str | None:
    """The ratios of `benchmarks.peers` alone."""
    from benchmarks.peers_table import KEYS, kept_summary

    return kept_summary(Results(RESULTS / "peers.json", KEYS)) or None


def one_allocator() -> str | None:
    """The rows of `benchmarks.peers` where all processes have the same settings of glibc's allocator."""
    from benchmarks.peers_table import KEYS, kept_text

    return kept_text(Results(RESULTS / "peers_one_allocator.json", KEYS)) or None


def peers_avx512() -> str | None:
    """The rows of `benchmarks.peers` on a processor with AVX-512, where TensorFlow computes with oneDNN."""
    from benchmarks.peers_table import KEYS, kept_text

    return kept_text(Results(RESULTS / "peers_avx512.json", KEYS)) or None


def goals() -> str | None:
    """What was aimed at, beside the rows of `benchmarks.peers` on both kinds of processor."""
    from benchmarks.peers_table import KEYS, row_of
    from benchmarks.peers_table import goals as table

    files = {"without AVX-512": "peers.json", "with AVX-512": "peers_avx512.json"}
    measured = {name: [row_of(kept) for kept in Results(RESULTS / file, KEYS).rows] for name, file in files.items()}
    return table(measured) if all(measured.values()) else None


def groups() -> str | None:
    """The rows of `benchmarks.groups`."""
    from benchmarks.groups import KEYS, markdown

    results = Results(RESULTS / "groups.json", KEYS)
    return kept_table(results, markdown) if results.rows else None


def profile() -> str | None:
    """The parts of `benchmarks.step_profile`."""
    return _profile("step_profile.json")


def profile_avx512() -> str | None:
    """The parts of `benchmarks.step_profile` on a processor with AVX-512, where TensorFlow computes with oneDNN."""
    return _profile("step_profile_avx512.json")


def _profile(name: str) -> str | None:
    from benchmarks.step_profile import RESULT_KEYS, markdown, rates_line

    results = Results(RESULTS / name, RESULT_KEYS)
    return (
        f"{markdown(results.rows)}\n\n{rates_line(results.rows)} {_under(results, results.rows)}"
        if results.rows
        else None
    )


def memory() -> str | None:
    """The rows of `benchmarks.memory_profile`."""
    from benchmarks.memory_profile import FILE, KEYS, markdown

    results = Results(FILE, KEYS)
    return kept_table(results, markdown) if results.rows else None


def input_side() -> str | None:
    """The rows of `benchmarks.input_side`."""
    from benchmarks.input_side import KEYS, markdown

    results = Results(RESULTS / "input_side.json", KEYS)
    return kept_table(results, markdown) if results.rows else None


BLOCKS: dict[str, Callable[[], str | None]] = {
    "growth": growth,
    "speed": speed,
    "losses": losses,
    "backends": backends,
    "backend_exactness": backend_exactness,
    "backend_run": backend_run,
    "peers": peers,
    "peers_summary": peers_summary,
    "one_allocator": one_allocator,
    "peers_avx512": peers_avx512,
    "goals": goals,
    "groups": groups,
    "profile": profile,
    "profile_avx512": profile_avx512,
    "memory": memory,
    "input_side": input_side,
}
"""Name of a block -> what stands in it; None where nothing is kept."""


def _under(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    return conditions_line(results.conditions_of(rows))


def filled(text: str) -> tuple[str, list[str]]:
    """The text with its blocks filled, and the names of those without results.

    Raises:
        ArtifactError: A block has a name that is none of `BLOCKS`.
    """
    missing: list[str] = []

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        if name not in BLOCKS:
            raise ArtifactError(f"a block of {', '.join(BLOCKS)} is required, but {name!r} came")
        content = BLOCKS[name]()
        if content is None:
            missing.append(name)
            return match[0]
        return f"{match[1]}{content}\n{match[3]}"

    return _BLOCK.sub(fill, text), missing


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.documents", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a block is another")
    options = parser.parse_args(arguments)
    complete = True
    for document in DOCUMENTS:
        try:
            before = document.read_text(encoding="utf-8")
            after, missing = filled(before)
            if not options.check and after != before:
                write_bytes(document, after.encode())
        except MinibertError as error:
            print(f"benchmarks.documents: {document}: {error}", file=sys.stderr)
            return error.exit_code
        for name in missing:
            print(f"{document}: {name}: nothing is kept, so the block is left as it is", file=sys.stderr)
        complete = complete and after == before and not missing
    return int(options.check and not complete)


if __name__ == "__main__":
    sys.exit(main())
