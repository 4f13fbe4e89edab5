"""The counters that were accepted, in a file of the repository: one line for each workload and version.

    {"workload": "masking", "versions": "tensorflow 2.21 keras 3.15", ..., "reason": "first counters"}

A line of its own for each, in a fixed order, so that a change of one is a change of one line, and what a
reviewer sees is what changed and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from minibert.artifacts import write_bytes
from minibert.checked import is_line
from minibert.errors import ArtifactError, SettingsError
from minibert.perf.counters import KEYS, NUMBERS, Counters, differences, with_peaks_of

FILE = Path("benchmarks") / "counters.jsonl"
Key = tuple[str, str]


def read_counters(path: Path) -> dict[Key, Counters]:
    """The accepted counters by workload and versions; a file that is not there holds none.

    Raises:
        ArtifactError: A line is not such counters, or is there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: a readable file in UTF-8 is required, but {error}") from None
    found: dict[Key, Counters] = {}
    for number, line in enumerate(lines, start=1):
        counters = _parsed(line, f"{path}, line {number}")
        key = (counters["workload"], counters["versions"])
        if key in found:
            raise ArtifactError(
                f"{path}, line {number}: one line each is required, but {' at '.join(key)} is there twice"
            )
        found[key] = counters
    return found


def write_counters(path: Path, counters: Iterable[Counters]) -> None:
    """Writes the whole file anew, in the order of workloads and versions."""
    ordered = sorted(counters, key=lambda each: (each["workload"], each["versions"]))
    lines = (json.dumps({key: each[key] for key in (*KEYS, "reason")}, ensure_ascii=False) for each in ordered)
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def accept(path: Path, measured: Iterable[Counters], *, reason: str) -> list[str]:
    """Puts counters that changed, or are new, into the file, with the reason.

    Returns:
        A line for each that changed.

    Raises:
        SettingsError: The reason says nothing, or is more than a line.
        ArtifactError: The file is not one of ours, or cannot be written.
    """
    if not is_line(reason):
        raise SettingsError(f"--reason: one line that says why is required, but {reason!r} came")
    known, reason, said = read_counters(path), reason.strip(), []
    for counters in measured:
        key = (counters["workload"], counters["versions"])
        old = known.get(key, counters)
        changes = differences(old, counters) if key in known else ["new"]
        changes += [
            f"first peak on {device}" for device in counters["device_peaks"].keys() - old["device_peaks"].keys()
        ]
        if changes:
            known[key] = {**with_peaks_of(old, counters), "reason": reason}
            said.append(f"{' at '.join(key)}: {', '.join(changes)}")
    if said:
        write_counters(path, known.values())
    return said


def _parsed(line: str, where: str) -> Counters:
    try:
        counters = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{where}: a JSON object is required, but {error}") from None
    missing = [key for key in (*KEYS, "reason") if not isinstance(counters, dict) or key not in counters]
    if missing:
        raise ArtifactError(f"{where}: field {missing[0]!r} is required, but it is missing")
    for key in ("workload", "versions", "reason"):
        if not isinstance(counters[key], str) or not counters[key]:
            raise ArtifactError(f"{where}: field {key!r}: a text is required, but {counters[key]!r} came")
    for key, what in (("operators", "counts by operator"), ("device_peaks", "bytes by device")):
        if not isinstance(counters[key], dict) or not all(_is_count(count) for count in counters[key].values()):
            raise ArtifactError(f"{where}: field {key!r}: {what} are required, but {counters[key]!r} came")
    for key in NUMBERS:
        if counters[key] is not None and not _is_count(counters[key]):
            raise ArtifactError(f"{where}: field {key!r}: a count is required, but {counters[key]!r} came")
    return dict(counters)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
