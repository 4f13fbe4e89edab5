"""How far do losses deviate where only the environment differs? What `verify`'s tolerance is calibrated by.

    python -m benchmarks.tolerance tiny
    python -m benchmarks.tolerance tiny --python .tox/py312/bin/python --python .tox/tf218/bin/python

The preset is run here, and again with one thread, without oneDNN, with AVX2 alone, and by every other Python that is
named (with this checkout's code, so that only Python and the packages differ). Each is compared with the first: the
largest relative deviation of a loss in the run's first steps, up to verify's horizon, and of the losses after them (an
epoch's, a validation's, the raw texts'), the largest deviation of an accuracy, and where.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from minibert.verify.comparison import Verdict, compare_runs

CHECKOUT = Path(__file__).resolve().parents[1]
ONE_THREAD = """
from tensorflow.config import threading
threading.set_intra_op_parallelism_threads(1)
threading.set_inter_op_parallelism_threads(1)
"""
HERE: dict[str, tuple[dict[str, str], str]] = {
    "the same": ({}, ""),
    "one thread": ({}, ONE_THREAD),
    "oneDNN off": ({"TF_ENABLE_ONEDNN_OPTS": "0"}, ""),
    "AVX2 alone": ({"ONEDNN_MAX_CPU_ISA": "AVX2", "XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}, ""),
}
"""Environments of this Python: variables, and what is set before the run."""


def run(
    python: Path, directory: Path, preset: str, settings: list[str], variables: dict[str, str], before: str
) -> None:
    """Runs a preset in a process of its own."""
    words = ["run", preset, "--out", str(directory), "--quiet", *(["--set", *settings] if settings else [])]
    code = f"{before}\nfrom minibert.cli import main\nraise SystemExit(main({words!r}))"
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "TF_CPP_MIN_LOG_LEVEL": "3"} | variables
    subprocess.run([str(python), "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL)


def row(name: str, found: Verdict) -> str:
    """A row of the Markdown table."""
    deviations = (
        (found.largest_deviation, found.largest_at),
        (found.late_deviation, found.late_at),
        (found.accuracy_deviation, found.accuracy_at),
    )
    cells = [f"{value:.2g} | {at or '-'}" for value, at in deviations]
    return f"| {name} | {found.verdict} | {' | '.join(cells)} | {'; '.join(found.environment)} |"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tolerance", description=main.__doc__)
    parser.add_argument("preset", help="what is run")
    parser.add_argument("--set", metavar="STAGE.FIELD=VALUE", nargs="+", default=[], help="change a setting")
    parser.add_argument("--python", metavar="PATH", type=Path, action="append", default=[], help="another Python")
    options = parser.parse_args()
    environments = {name: (Path(sys.executable), *how) for name, how in HERE.items()}
    environments |= {str(python): (python.absolute(), {}, "") for python in options.python}
    print("| environment | verdict | first losses | where | later losses | where | accuracies | where | what differs |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="minibert-tolerance-") as folder:
        base = Path(folder) / "base"
        run(Path(sys.executable), base, options.preset, options.set, {}, "")
        for number, (name, (python, variables, before)) in enumerate(environments.items()):
            other = Path(folder) / str(number)
            run(python, other, options.preset, options.set, variables, before)
            print(row(name, compare_runs(base, other)), flush=True)


if __name__ == "__main__":
    main()
