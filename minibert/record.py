"""The run record, ``run.json``: what was run, on what, and what came out.

It is written anew, whole, after every epoch, and read back with every field checked, so that a cut or
edited record is named instead of believed.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

from minibert.artifacts import is_temporary_of, write_bytes
from minibert.errors import ArtifactError, SettingsError
from minibert.settings import RunSettings, canonical_json, settings_from_dict

FORMAT = 2
"""Of ``run.json``; another one where a record of before would be read wrongly. A setting that a record lacks because
it is newer has its default, which must then be what was computed before."""
NAME = "run.json"
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "minibert_version": str,
    "status": str,
    "started": str,
    "settings": dict,
    "settings_digest": str,
    "corpus": dict,
    "environment": dict,
    "code": dict,
    "stages": dict,
    "artifacts": dict,
}
OTHER_TIMES = ("building_seconds", "waiting_seconds", "writing_seconds")
"""What a stage spends outside its ``seconds`` (steps and evaluations): building and tracing the model; waiting
for the next batch, and showing progress; writing checkpoints, the record and models."""
_DIGESTS = ("field_digests", "record_digest")
_COMPUTING = (
    *("checked.py", "settings.py", "training_settings.py", "streams.py", "mask_word.py", "text.py", "word_counts.py"),
    *("masking.py", "batches.py", "corpora/selection.py", "examples.py", "scoring.py", "onednn.py"),
    *("preparation.py", "fingerprints.py", "model", "training", "end_to_end.py", "stages.py", "executing.py"),
    "pipeline.py",
)


def write_record(directory: Path, record: dict[str, Any]) -> None:
    """Writes ``run.json`` whole, with a digest of each field and of its own content."""
    content = {name: value for name, value in record.items() if name not in _DIGESTS}
    content["field_digests"] = {name: _digest(value) for name, value in content.items()}
    content["record_digest"] = _digest(content)
    write_bytes(directory / NAME, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_record(directory: Path) -> dict[str, Any]:
    """Reads ``run.json``.

    Raises:
        ArtifactError: It is missing, cut, edited, or of another format; the message names file and field.
    """
    path = Path(directory) / NAME
    try:
        record = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        canonical_json(record).encode()  # half a character has no bytes, and so no digest
    except FileNotFoundError:
        raise ArtifactError(f"{path}: a run directory with a run.json is required, but there is none") from None
    except NotADirectoryError:
        raise ArtifactError(f"{directory}: a run directory is required, but it is a file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: JSON is required, but it cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise ArtifactError(f"{path}: an object is required, but {type(record).__name__} came")
    for name, kind in _FIELDS.items():
        if name not in record:
            raise ArtifactError(f"{path}: field {name!r} is required, but it is missing")
        if not isinstance(record[name], kind):
            raise ArtifactError(f"{path}: field {name!r} has the wrong type, {type(record[name]).__name__}")
    if record["format"] != FORMAT:
        raise ArtifactError(
            f"{path}: field 'format': {FORMAT} is required, but {record['format']} of another version of minibert came"
        )
    settings = record_settings(record, path)
    if _digest(record["settings"]) != record["settings_digest"]:
        raise ArtifactError(f"{path}: field 'settings' was edited: it does not fit 'settings_digest'")
    claimed = record.pop("record_digest", None)
    if claimed != _digest(record):
        raise ArtifactError(f"{path}: field {_edited_field(record)!r} does not fit its digest: the record was edited")
    record.pop("field_digests", None)
    return record | {"settings": settings.to_dict(), "settings_digest": settings.digest()}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _edited_field(record: dict[str, Any]) -> str:
    """The first field that does not have its recorded digest; if all have theirs, the digest of all was edited."""
    known = record.get("field_digests")
    if isinstance(known, dict):
        for name in [*known, *record]:
            if name not in _DIGESTS and (name not in record or known.get(name) != _digest(record[name])):
                return str(name)
    return _DIGESTS[1]


def earlier_record(directory: Path, *, resume: bool) -> dict[str, Any] | None:
    """The record to go on with, None for a new run.

    A run that was killed while it wrote its first record has left a temporary, which is nothing to go on with.

    Raises:
        ArtifactError: There is something in the directory and ``resume`` is off, or no run and it is on.
    """
    if resume:
        return read_record(directory)
    if directory.exists() and (
        not directory.is_dir() or not all(is_temporary_of(p, NAME) for p in directory.iterdir())
    ):
        hint = "; --resume goes on with the run in it, --out names another" if (directory / NAME).exists() else ""
        raise ArtifactError(f"{directory}: a new or empty folder is required for a run, but this one exists{hint}")
    return None


def resuming_command(record: dict[str, Any], directory: Path) -> str:
    """What goes on with a run that was stopped, as it is typed."""
    return f"minibert run {shlex.quote(record['settings']['preset'])} --out {shlex.quote(str(directory))} --resume"


def record_settings(record: dict[str, Any], path: Path) -> RunSettings:
    """The settings of a record.

    Raises:
        ArtifactError: They are not valid.
    """
    try:
        return settings_from_dict(RunSettings, record["settings"])
    except (SettingsError, TypeError) as error:
        raise ArtifactError(f"{path}: field 'settings': {error}") from None


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def metrics_csv(record: dict[str, Any]) -> bytes:
    """``metrics.csv``: stage, epoch, metric, value, one row per figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stage", "epoch", "metric", "value"])
    for stage, found in record["stages"].items():
        for number, figures in enumerate(found.get("epochs", [found]), start=1):
            for metric, value in figures.items():
                if isinstance(value, int | float) and metric != "epoch":
                    writer.writerow([stage, number if "epochs" in found else "", metric, repr(value)])
    return text.getvalue().encode()


def code_digests() -> dict[str, str]:
    """SHA-256 of every module that decides what is computed, by name; comments and docstrings aside."""
    package = Path(__file__).parent
    files = [file for name in _COMPUTING for file in sorted(package.glob(f"{name}/*.py")) or [package / name]]
    return {str(file.relative_to(package).as_posix()): _code_digest(file) for file in files}


def _code_digest(file: Path) -> str:
    """SHA-256 of what the code says, comments and texts that stand alone aside; the same on every Python."""
    return _digest(_said(ast.parse(file.read_bytes())))


def _said(code: Any) -> Any:
    """A part of a syntax tree in plain values, without places, docstrings, and fields that only some Pythons have."""
    if isinstance(code, ast.JoinedStr):  # Python 3.12 ends some with an empty text
        return ["JoinedStr", [_said(part) for part in code.values if getattr(part, "value", None) != ""]]
    if isinstance(code, ast.AST):
        fields = {name: _said(value) for name, value in ast.iter_fields(code)}
        return [type(code).__name__, {name: value for name, value in fields.items() if value not in (None, [])}]
    if isinstance(code, list):
        return [_said(part) for part in code if not _is_text(part)]
    return code if code is None else repr(code)


def _is_text(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
