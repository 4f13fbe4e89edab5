"""Each group of benchmarks as a table: how many times the notebook's speed every side has.

    pytest benchmarks -m "slow or not slow" -k "not tiny" --benchmark-json result.json
    python -m benchmarks.groups result.json                       the table, as Markdown
    python -m benchmarks.groups result.json --keep groups.json    also keeps its rows, with their conditions

The result has to be of this machine, this commit and these packages, which stand under the table. A ratio is the
median, with its quartiles, over rounds in which the notebook's version ran right before (see
`benchmarks.measuring`). Benchmarks without a ratio, such as those of the gate, are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured_code import PEER_PACKAGES, commit_of, peer_versions
from benchmarks.stored import CHECKOUT, Results, conditions, conditions_line
from minibert.environment import describe_environment
from minibert.errors import ArtifactError, MinibertError
from minibert.perf.machine import describe_machine

KEYS = ("group", "shape", "side", "device")
"""What makes a row one and the same."""
NAMES = {"minibert": "minibert", "keras-hub": "keras-hub", "pytorch": "PyTorch", "pytorch-full": "PyTorch, all logits"}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a result of pytest-benchmark.

    Raises:
        ArtifactError: It cannot be read, is none, or has nothing that was timed beside the notebook's version.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        found = [_row(timed) for timed in result["benchmarks"]]
        measured = {
            "commit": result["commit_info"]["id"],
            "machine": result["machine_info"]["minibert"]["identity"],
            "packages": result["machine_info"]["environment"]["packages"],
            "peers": result["machine_info"]["peers"],
        }
    except OSError as error:
        raise ArtifactError(f"{path}: a result of pytest-benchmark is required, but {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: a result of pytest-benchmark is required, but {error!r} came") from None
    for name, value in _here().items():
        if measured[name] != value:
            raise ArtifactError(
                f"{path}: {name}: {value} is required, as here, but it was measured with {measured[name]}"
            )
    rows = [row for row in found if row is not None]
    if not rows:
        raise ArtifactError(f"{path}: times beside the notebook's version are required, but none is there")
    return rows


def _here() -> dict[str, Any]:
    """What a result must have been measured with."""
    packages = describe_environment()["packages"]
    return {
        "commit": commit_of(CHECKOUT),
        "machine": describe_machine()["identity"],
        "packages": {name: version for name, version in packages.items() if version},
        "peers": peer_versions(),
    }


def _row(timed: Mapping[str, Any]) -> dict[str, Any] | None:
    beside = timed["extra_info"].get("reference_data")
    if not beside:
        return None
    details = [value for name, value in timed["params"].items() if name not in KEYS]
    seconds = timed["stats"]["data"]
    low, ratio, high = np.quantile(np.array(beside) / np.array(seconds), [0.25, 0.5, 0.75]).tolist()
    return {
        "group": ": ".join([timed["group"], *details]),
        "shape": timed["params"]["shape"],
        "side": timed["params"]["side"],
        "device": timed["extra_info"]["device"],
        "ratio": ratio,
        "quartiles": [low, high],
        "seconds": timed["stats"]["median"],
        "notebook_seconds": timed["extra_info"]["reference_seconds"],
    }


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table: a line for each group and shape, a column for each side that any of them has."""
    sides = [side for side in NAMES if any(row["side"] == side for row in rows)]
    lines = [
        f"| group | shape | notebook | {' | '.join(NAMES[side] for side in sides)} |",
        f"|{'---|' * (3 + len(sides))}",
    ]
    for group, shape in dict.fromkeys((row["group"], row["shape"]) for row in rows):
        here = {row["side"]: row for row in rows if (row["group"], row["shape"]) == (group, shape)}
        notebook = 1000.0 * float(np.median([row["notebook_seconds"] for row in here.values()]))
        cells = [_cell(here.get(side)) for side in sides]
        lines.append(f"| {group} | {shape} | {notebook:,.0f} ms | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    low, high = row["quartiles"]
    return f"{row['ratio']:.2f}× ({low:.2f} to {high:.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.groups", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("result", type=Path, metavar="RESULT.json", help="what --benchmark-json wrote")
    parser.add_argument("--keep", type=Path, metavar="FILE.json", help="also add the rows to a file of results")
    options = parser.parse_args(arguments)
    try:
        rows, under = rows_of(options.result), conditions(*PEER_PACKAGES)
        if options.keep is not None:
            results = Results(options.keep, KEYS)
            for row in rows:
                results.keep(row, under=under)
    except MinibertError as error:
        print(f"benchmarks.groups: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{markdown(rows)}\n\n{conditions_line([under])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
