"""Whether a run may be gone on with: only if nothing that decides its bits has changed since."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minibert.errors import ResumeError

_PACKAGES = ("tensorflow", "keras", "keras-hub", "numpy")
_HARMLESS = ("PYTHONHASHSEED", "KERAS_BACKEND", "CUDA_VISIBLE_DEVICES")
"""Variables that decide no bit: a run is on TensorFlow, and its devices are compared themselves."""


def require_resumable(earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Compares two records' inputs, code and package versions.

    Args:
        earlier: The record in the run directory.
        now: The record that a new run would begin with.

    Raises:
        ResumeError: They differ; the message says in what.
    """
    changes = [*changed_inputs(earlier, now), *changed_environment(earlier, now)]
    if changes:
        raise ResumeError("resume: what the run computes has changed: " + "; ".join(changes))


def require_same_settings(earlier: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuses to call a complete run the answer to other settings; what only the corpus decides, aside.

    Raises:
        ResumeError: They differ; the message says in what.
    """
    if settings["masking"]["vocabulary_size"] is None:
        size = earlier["settings"]["masking"]["vocabulary_size"]
        settings = {**settings, "masking": {**settings["masking"], "vocabulary_size": size}}
    changes = list(_changed_settings(earlier["settings"], settings))
    if changes:
        raise ResumeError("resume: the run is complete, but what is asked for has changed: " + "; ".join(changes))


def changed_inputs(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Every setting and corpus figure that differs, in words; what only the record is about, aside."""
    yield from _changed_settings(earlier["settings"], now["settings"])
    for name in ("digest", "vocabulary_sha256", "ids_sha256"):
        if earlier["corpus"].get(name) != now["corpus"].get(name):
            yield f"the corpus' {name} was {earlier['corpus'].get(name)} and is {now['corpus'].get(name)}"


def _changed_settings(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    before, after = _flat(earlier), _flat(now)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name) and not name.startswith("record.") and name != "preset":
            yield f"setting {name} was {before.get(name)!r} and is {after.get(name)!r}"


def changed_environment(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Everything that differs and may decide bits: modules, packages, Python, processor, threads, devices."""
    modules = earlier["code"].keys() | now["code"].keys()
    changed = sorted(name for name in modules if earlier["code"].get(name) != now["code"].get(name))
    if changed:
        yield "the code of " + ", ".join(changed) + " changed"
    before, after = earlier["environment"], now["environment"]
    for name in _PACKAGES:
        was, is_now = (environment["packages"].get(name) for environment in (before, after))
        if was != is_now:
            yield f"package {name} was {was} and is {is_now}"
    one, two = _flat(_deciding(before)), _flat(_deciding(after))
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) != two.get(name):
            yield f"{name} was {one.get(name)!r} and is {two.get(name)!r}"


def _deciding(environment: dict[str, Any]) -> dict[str, Any]:
    """The parts of an environment, besides packages, that may decide bits."""
    variables = {k: v for k, v in environment.get("variables", {}).items() if k not in _HARMLESS}
    return {
        "python": environment.get("python"),
        "machine": environment.get("platform", {}).get("machine"),
        "cpu": environment.get("cpu"),
        "threads": environment.get("threads"),
        "devices": environment.get("devices"),
        "variables": variables,
    }


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
