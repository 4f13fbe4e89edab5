"""Whether a run may be gone on with: only if nothing that decides its bits has changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minibert.artifacts import sha256_of_file
from minibert.checked import canonical_json, flat
from minibert.errors import ArtifactError, ResumeError

_PACKAGES = ("tensorflow", "tensorflow-cpu", "tensorflow-metal", "keras", "numpy")
_HARMLESS = ("PYTHONHASHSEED", "KERAS_BACKEND", "CUDA_VISIBLE_DEVICES")
"""Variables that decide no bit: a run is on TensorFlow, and its devices are compared themselves."""
_FOLLOWING = "masking.vocabulary_size"
_ENCODED = {"vocabulary": "vocabulary_sha256", "token ids": "ids_sha256"}


def require_resumable(earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Compares two records' inputs, code and environment.

    Args:
        earlier: The record in the run directory.
        now: The record that a new run would begin with; it has no ``corpus`` where that has not been read yet.

    Raises:
        ResumeError: They differ; the message says in what.
    """
    changes = [*changed_inputs(earlier, now), *changed_encoding(earlier, now)]
    changes += [*changed_code(earlier, now), *changed_environment(earlier, now)]
    if changes:
        which = (
            "the run is complete, but what it computes" if earlier["status"] == "complete" else "what the run computes"
        )
        hint = "another directory takes a new run"
        if any(change.startswith("setting ") for change in changes):
            hint = f"without settings of its own a resumed run goes on as it began, and {hint}"
        raise ResumeError(f"resume: {which} has changed: {'; '.join(changes)} ({hint})")


def require_recorded_files(directory: Path, record: dict[str, Any]) -> None:
    """Checks that a complete run's vocabulary and artifacts are the recorded ones.

    Raises:
        ArtifactError: A file is missing or was changed; the message names it.
    """
    digests = {name: recorded["sha256"] for name, recorded in record["artifacts"].items()}
    for name, digest in {"vocabulary.txt": record["corpus"]["vocabulary_sha256"], **digests}.items():
        path = directory / name
        if not path.is_file():
            raise ArtifactError(f"{path}: the file of the record is required, but it is missing")
        if sha256_of_file(path) != digest:
            field = "corpus.vocabulary_sha256" if name == "vocabulary.txt" else f"artifacts.{name}.sha256"
            raise ArtifactError(
                f"{path}: the file of the record is required, but it was changed: it does not fit run.json's {field!r}"
            )


def computation_digests(record: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of each part of a record that decides what is computed: a checkpoint says by them whose it is."""
    parts = {
        "settings": _deciding_settings(record["settings"]),
        "corpus": {name: record["corpus"].get(name) for name in ("digest", *_ENCODED.values())},
        "code": record["code"],
        "environment": _deciding(record["environment"]),
    }
    return {name: hashlib.sha256(canonical_json(part).encode()).hexdigest() for name, part in parts.items()}


def changed_inputs(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Every setting that differs, and the corpus, in words; what only the record is about, aside.

    The number of words follows from the corpus: where that has changed, it is no setting that has.
    """
    before, after = _deciding_settings(earlier["settings"]), _deciding_settings(now["settings"])
    is_of_another_corpus = "corpus" in now and earlier["corpus"].get("digest") != now["corpus"].get("digest")
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name) and not (is_of_another_corpus and name == _FOLLOWING):
            yield f"setting {name} was {before.get(name)!r} and is {after.get(name)!r}"
    if is_of_another_corpus:
        was, is_now = (f"{r['corpus'].get('digest')} ({_in_words(r['corpus'])})" for r in (earlier, now))
        yield f"the corpus' digest was {was} and is {is_now}"


def _in_words(corpus: dict[str, Any]) -> str:
    """A recorded corpus' name, counts and classes."""
    counts = " and ".join(f"{count:,} {split}" for split, count in (corpus.get("examples") or {}).items())
    names = corpus.get("class_names")
    return f"{corpus.get('name')}: {counts} texts, {'classes ' + ', '.join(names) if names else 'no labels'}"


def changed_encoding(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What was made of the corpus and differs, in words."""
    for name in encoding_partings(earlier, now):
        was, is_now = (record["corpus"].get(_ENCODED[name]) for record in (earlier, now))
        yield f"the digest of the {name} was {was} and is {is_now}"


def encoding_partings(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What was made of the corpus and differs: ``vocabulary``, ``token ids``."""
    if "corpus" not in now:
        return []
    return [name for name, key in _ENCODED.items() if earlier["corpus"].get(key) != now["corpus"].get(key)]


def _deciding_settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in flat(settings).items() if not n.startswith("record.") and n != "preset"}


def changed_code(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """The modules that decide what is computed and differ, in one line."""
    modules = earlier["code"].keys() | now["code"].keys()
    changed = sorted(name for name in modules if earlier["code"].get(name) != now["code"].get(name))
    if changed:
        yield "the code of " + ", ".join(changed) + " changed"


def changed_environment(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Everything that differs and may decide bits: versions, processor, threads, devices, options, variables."""
    one, two = (_deciding(record["environment"]) for record in (earlier, now))
    for name in sorted(one.keys() | two.keys(), key=lambda name: (not name.startswith("package "), name)):
        if one.get(name) != two.get(name):
            show = str if name.startswith("package ") else repr
            yield f"{name} was {show(one.get(name))} and is {show(two.get(name))}"


def _is_harmless(variable: str, value: str) -> bool:
    """Whether a variable decides no bit; of the C library's tunables, those of the processor choose its functions."""
    return variable in _HARMLESS or (variable == "GLIBC_TUNABLES" and "glibc.cpu." not in value)


def _deciding(environment: dict[str, Any]) -> dict[str, Any]:
    """The parts of an environment that may decide bits, by name."""
    variables = {k: v for k, v in environment.get("variables", {}).items() if v is not None and not _is_harmless(k, v)}
    return {f"package {name}": environment["packages"].get(name) for name in _PACKAGES} | flat(
        {
            "python": environment.get("python"),
            "machine": environment.get("platform", {}).get("machine"),
            "libc": environment.get("platform", {}).get("libc"),
            "cpu": environment.get("cpu"),
            "threads": environment.get("threads"),
            "devices": environment.get("devices"),
            "cuda": environment.get("cuda") or {},
            "graph_options": environment.get("graph_options"),
            "keras": environment.get("keras"),
            "variables": variables,
        }
    )
