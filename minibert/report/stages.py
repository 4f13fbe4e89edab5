"""A run's stages: their names for people, and their parts of a record."""

from __future__ import annotations

from typing import Any

from minibert.settings import TRAINING_STAGES

STAGES = ("encode", *TRAINING_STAGES, "end_to_end")
"""A run's stages in the order in which they happen."""
STAGE_NAMES = {
    "encode": "encode texts",
    "pretrain": "masked LM",
    "frozen": "classifier, frozen",
    "unfrozen": "classifier, unfrozen",
    "end_to_end": "end to end",
}


def stage_of(record: dict[str, Any], name: str) -> dict[str, Any]:
    """A stage's part of the record; empty where the run has not come to it."""
    return record.get("stages", {}).get(name) or {}


def epochs_of(record: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A stage's finished epochs."""
    return stage_of(record, name).get("epochs") or []
