"""The history: a folder with one small file for each recorded result.

A file is written once and never again, and its name is made of the commit's time, the commit, the
machine and the content. So two branches that record add different files, and git merges them
without a conflict; the same result recorded twice is the same file. What is read back is checked
against the digest in it: a record that was cut, edited or merged by hand is named, not believed and
not left out, because a history with a hole in it answers "since when?" wrongly.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibert.artifacts import write_bytes
from minibert.checked import canonical_json
from minibert.errors import ArtifactError
from minibert.perf.fields import Fields
from minibert.perf.results import Commit, Control, Result, Timing, read_object, require_machine

KIND, FORMAT = "minibert perf record", 1
_SHORT = 12


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Where a result's record is, and whether it was there before."""

    path: Path
    is_new: bool


def append(folder: Path, result: Result) -> Recorded:
    """Writes a result's record into a history; recorded already, it is left as it is.

    Determinism: name and content depend on the result alone.

    Raises:
        ArtifactError: The folder cannot be written to, or a file of that name holds something else.
    """
    content = json.loads(canonical_json(_content(result)))
    text = _as_text(content)
    path = folder / _name(result, _digest(content))
    if path.exists():
        if read_record(path) != result:
            raise ArtifactError(f"{path}: a record of this name exists and holds something else; nothing was written")
        return Recorded(path=path, is_new=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{folder}: a folder is required, but it cannot be made: {error.strerror}") from None
    write_bytes(path, text.encode())
    return Recorded(path=path, is_new=True)


def is_begun(folder: Path) -> bool:
    """Whether a folder has a record."""
    return bool(_records_in(folder))


def read_history(folder: Path) -> list[Result]:
    """All records of a history, by name; files that are not JSON, such as a README, are none.

    Raises:
        ArtifactError: There is no such folder or no record in it, or one is damaged or of a newer format.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: a history is required, but there is no such folder (minibert perf record)")
    paths = _records_in(folder)
    if not paths:
        raise ArtifactError(f"{folder}: a history is required, but it has no record yet (minibert perf record)")
    return [read_record(path) for path in paths]


def read_record(path: Path) -> Result:
    """Reads one record.

    Raises:
        ArtifactError: It is damaged, edited, renamed, of a newer format, or none; file and field are named.
    """
    record = read_object(path, hint="a record of a history is required")
    _require_format(path, record)
    fields = Fields(record, f"{path}: ")
    for field, value in record.items():
        fields.require_plain(field, value)
    claimed = record.pop("digest", None)
    if claimed != _digest(record):
        raise ArtifactError(
            f"{path}: field 'digest' does not fit the content: the record was damaged or edited; restore or remove it"
        )
    result = _result(fields)
    require_machine(path, result.machine)
    name = _name(result, claimed)
    if path.name != name:
        raise ArtifactError(f"{path}: the name {name} is required for this record; it was renamed or copied")
    return result


def _records_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def _content(result: Result) -> dict[str, Any]:
    return {
        "format": f"{KIND} {FORMAT}",
        "measured": result.measured,
        "commit": dataclasses.asdict(result.commit),
        "machine": dict(result.machine),
        "environment": dict(result.environment),
        "benchmarks": {timing.name: _timing_content(timing) for timing in result.timings},
    }


def _timing_content(timing: Timing) -> dict[str, Any]:
    content = dataclasses.asdict(timing)
    del content["name"]
    return {name: value for name, value in content.items() if value is not None}


def _result(record: Fields) -> Result:
    benchmarks, commit = record.fields("benchmarks"), record.fields("commit")
    if not benchmarks.values:
        raise record.error("benchmarks", "one benchmark or more", {})
    return Result(
        measured=record.time("measured"),
        commit=Commit(
            id=commit.name("id"),
            commit_time=commit.time("commit_time"),
            author_time=commit.time("author_time"),
            branch=commit.take("branch", str),
            is_dirty=commit.take("is_dirty", bool),
        ),
        machine=record.take("machine", dict),
        environment=record.take("environment", dict),
        timings=tuple(_timing(name, benchmarks.fields(name)) for name in benchmarks.values),
    )


def _timing(name: str, content: Fields) -> Timing:
    control = None if content.values.get("control") is None else content.fields("control")
    return Timing(
        name=name,
        device=content.name("device"),
        rounds=content.take("rounds", int),
        median_seconds=content.seconds("median_seconds"),
        q1_seconds=content.seconds("q1_seconds"),
        q3_seconds=content.seconds("q3_seconds"),
        control=None
        if control is None
        else Control(
            name=control.name("name"), median_seconds=control.seconds("median_seconds"), ratio=control.seconds("ratio")
        ),
        counters=content.counters("counters"),
        first_call_seconds=content.optional_seconds("first_call_seconds"),
        peak_bytes=content.count("peak_bytes"),
    )


def _require_format(path: Path, record: Mapping[str, Any]) -> None:
    found = re.fullmatch(rf"{KIND} (\d+)", str(record.get("format")))
    if found is None:
        came = record.get("format")
        raise ArtifactError(f"{path}: field 'format': '{KIND} {FORMAT}' is required, but {came!r} came")
    if int(found[1]) > FORMAT:
        raise ArtifactError(
            f"{path}: field 'format': {found[1]} is newer than {FORMAT}, which this minibert reads; install a newer one"
        )


def _as_text(content: dict[str, Any]) -> str:
    """One line a field, and one a benchmark: small, and still readable in a diff."""
    benchmarks = content["benchmarks"]
    lines = [f" {json.dumps(name)}: {canonical_json(value)}" for name, value in content.items() if name != "benchmarks"]
    lines += [f' "digest": "{_digest(content)}"']
    inner = ",\n".join(f"  {json.dumps(name)}: {canonical_json(value)}" for name, value in sorted(benchmarks.items()))
    return "{\n" + ",\n".join(lines) + ',\n "benchmarks": {\n' + inner + "\n }\n}\n"


def _name(result: Result, digest: str) -> str:
    moment = "".join(c for c in result.commit.commit_time[:19] if c.isalnum())
    parts = (f"{moment}Z", result.commit.id[:_SHORT], result.machine["identity"], digest[:_SHORT])
    return f"{'-'.join(parts)}.json"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
