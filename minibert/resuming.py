"""Whether a run may be gone on with: only if nothing that decides its bits has changed since."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minibert.errors import ResumeError

_PACKAGES = ("tensorflow", "keras", "keras-hub", "numpy")


def require_resumable(earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Compares two records' inputs.

    Args:
        earlier: The record in the run directory.
        now: The record that a new run would begin with.

    Raises:
        ResumeError: They differ; the message says in what.
    """
    changes = list(changed_inputs(earlier, now))
    if changes:
        raise ResumeError("resume: what the run computes has changed: " + "; ".join(changes))


def changed_inputs(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Every setting, corpus figure, module and package version that differs, in words."""
    before, after = _flat(earlier["settings"]), _flat(now["settings"])
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name) and not name.startswith("record."):
            yield f"setting {name} was {before.get(name)!r} and is {after.get(name)!r}"
    for name in ("digest", "vocabulary_sha256", "ids_sha256"):
        if earlier["corpus"].get(name) != now["corpus"].get(name):
            yield f"the corpus' {name} was {earlier['corpus'].get(name)} and is {now['corpus'].get(name)}"
    modules = earlier["code"].keys() | now["code"].keys()
    changed = sorted(name for name in modules if earlier["code"].get(name) != now["code"].get(name))
    if changed:
        yield "the code of " + ", ".join(changed) + " changed"
    for name in _PACKAGES:
        was, is_now = (record["environment"]["packages"].get(name) for record in (earlier, now))
        if was != is_now:
            yield f"package {name} was {was} and is {is_now}"


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
