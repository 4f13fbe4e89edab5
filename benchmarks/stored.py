"""Measured figures as small JSON files under ``benchmarks/results/``: pictures and tables are redrawn from them.

    {"conditions": {"processor": ..., "cores": 2, "versions": {...}, "date": ...}, "rows": [{...}, ...]}

A row is plain values; which of them say what was measured, its command knows. A figure without its
conditions is none, so every row names the conditions that it came about under by their number.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import minibert
from benchmarks.measured_code import PACKAGE, commit_of, has_changes
from minibert.artifacts import write_bytes, writing
from minibert.environment import describe_environment, package_version
from minibert.errors import ArtifactError

CHECKOUT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("minibert", "tensorflow", "keras", "numpy", "pyarrow", "jax", "torch")
_MEASURED = (PACKAGE, "benchmarks", ":(exclude)benchmarks/results")


def conditions(*packages: str, **more: Any) -> dict[str, Any]:
    """What figures taken now depend on: code, machine, threads, versions, day, and whatever is given.

    Args:
        packages: Whose versions matter beside those of `PACKAGES`.
        more: Further conditions by name.
    """
    described = describe_environment()
    versions = {name: package_version(name) for name in dict.fromkeys((*PACKAGES, *packages))}
    versions["torch"] = torch_version()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        **_code(),
        "processor": described["cpu"]["model"],
        "cores": described["cpu"]["cores"],
        "instruction_sets": [
            name for name in described["cpu"]["instruction_sets"] if name.startswith(("avx512", "amx"))
        ],
        "threads": described["threads"] or "default",
        "versions": {name: version for name, version in versions.items() if version} | _cuda(described),
        **more,
    }


def _cuda(environment: Mapping[str, Any]) -> dict[str, str]:
    """The CUDA libraries that TensorFlow has loaded: where it sees a GPU, they compute its products."""
    found = environment["cuda"] or {}
    return {name: version for name, version in found.items() if version and name != "driver"}


def torch_version() -> str | None:
    """PyTorch's version with its build, as ``2.14.1+cu130``: pip's does not say which wheel it is. None without it.

    It is not imported: the build stands in its ``version.py``.
    """
    version = package_version("torch")
    if version is None:
        return None
    try:
        text = Path(str(metadata.distribution("torch").locate_file("torch/version.py"))).read_text(encoding="utf-8")
        named = re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE)
    except OSError:
        return version
    return named[1] if named else version


def _code() -> dict[str, Any]:
    """The checkout's commit, and whether what is measured has changed since; None where the package is another's."""
    is_checkouts = Path(minibert.__file__).resolve().parent == CHECKOUT / PACKAGE
    commit = commit_of(CHECKOUT) if is_checkouts else None
    return {"commit": commit, "dirty": commit is not None and has_changes(CHECKOUT, *_MEASURED)}


class Results:
    """The rows of one file, kept as they come: a command that was stopped goes on where it was.

    Args:
        path: The JSON file; it need not be there yet.
        keys: The names of a row's values that say what was measured; a row with the same ones is replaced.

    Raises:
        ArtifactError: The file is there and is not such a file.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self.path, self._keys = path, tuple(keys)
        self._conditions: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                self._conditions, self.rows = list(content["conditions"]), list(content["rows"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ArtifactError(f"{path}: results as JSON are required, but {error!r} came") from None

    @classmethod
    def kept(cls, path: Path, keys: Sequence[str]) -> Results:
        """The rows of a file that must be there.

        Raises:
            ArtifactError: It is not.
        """
        if not path.exists():
            raise ArtifactError(f"{path}: a file of results is required, but it is missing")
        return cls(path, keys)

    def find(self, **wanted: Any) -> dict[str, Any] | None:
        """The row of what was measured, or None."""
        return next((row for row in self.rows if all(row.get(key) == wanted.get(key) for key in self._keys)), None)

    def keep(self, row: Mapping[str, Any], *, under: Mapping[str, Any]) -> None:
        """Adds a row, or replaces the one of the same measurement, and writes the file.

        Raises:
            ArtifactError: It cannot be written.
        """
        under = dict(under)
        if under not in self._conditions:
            self._conditions.append(under)
        kept = {**row, "conditions": self._conditions.index(under)}
        known = self.find(**row)
        if known is None:
            self.rows.append(kept)
        else:
            self.rows[self.rows.index(known)] = kept
        self._write()

    def conditions_of(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The conditions of rows, each once."""
        return [self._conditions[number] for number in sorted({row["conditions"] for row in rows})]

    def _write(self) -> None:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(f"  {json.dumps(row)}" for row in self.rows)
        text = f'{{"conditions": {json.dumps(self._conditions, indent=1)},\n"rows": [\n{lines}\n]}}\n'
        write_bytes(self.path, text.encode())


def conditions_line(found: Sequence[Mapping[str, Any]]) -> str:
    """Conditions as sentences for under a table, those that differ only in date and commit in one.

    A GPU's clocks, which change all the time, are only in the file.
    """
    taken: dict[str, dict[tuple[str, bool], list[str]]] = {}
    for one in found:
        device = "".join(f", {', driver '.join(gpu.split(', ')[:2])}" for gpu in one.get("gpu", []))
        versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        sets = f" ({', '.join(one['instruction_sets'])})" if one["instruction_sets"] else ""
        under = f"{one['processor']}{sets}, {one['cores']} cores{device}; {versions}"
        commit = one.get("commit")  # figures that were taken before conditions had it have none
        commits = taken.setdefault(under, {}).setdefault((one["date"], bool(commit)), [])
        if commit:
            commits.append(f"{commit[:10]}{' (with changes)' if one['dirty'] else ''}")
    return " ".join(
        f"{under}; {'; '.join(_when(date, commits) for (date, _), commits in times.items())}."
        for under, times in taken.items()
    )


def _when(date: str, commits: Sequence[str]) -> str:
    named = list(dict.fromkeys(commits))
    return f"{date}, commit{'s' if len(named) > 1 else ''} {', '.join(named)}" if named else date


def kept_table(results: Results, markdown: Callable[[Sequence[dict[str, Any]]], str]) -> str:
    """The rows as their command prints them, with their conditions under them."""
    return f"{markdown(results.rows)}\n\n{conditions_line(results.conditions_of(results.rows))}"


def disturbed(rows: Sequence[Mapping[str, Any]]) -> str:
    """How quiet the machine was, by its loudest row."""
    shares = [row["others_rate"] for row in rows if row.get("others_rate") is not None]
    return f"Other processes took up to {max(shares):.0%} of the cores." if shares else ""
