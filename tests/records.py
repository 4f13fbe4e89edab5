"""Made-up run records of every kind, as `minibert.record.read_record` gives them."""

from __future__ import annotations

import json
from typing import Any

from minibert.environment import describe_environment
from minibert.presets import PUBLISHED, resolve_settings

DIGEST = "3f2a9c0d1e4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeef"


def made_up_record(preset: str = "amazon", *, epochs: int = 5, labelled: bool = True) -> dict[str, Any]:
    """A complete run whose figures have the size and the course of real ones."""
    settings = resolve_settings(
        preset,
        assignments=[
            f"pretrain.epochs={epochs}",
            f"finetune.frozen_epochs={epochs}",
            f"finetune.unfrozen_epochs={epochs}",
        ],
    )
    record: dict[str, Any] = {
        "format": 2,
        "minibert_version": "0.1.0",
        "status": "complete",
        "started": "2026-01-02T03:04:05+00:00",
        "settings": json.loads(settings.canonical_json()),
        "settings_digest": settings.digest(),
        "corpus": _corpus(preset, labelled=labelled),
        "environment": describe_environment(),
        "code": {},
        "stages": {
            "encode": {"seconds": 4.2, "reading_seconds": 1.1},
            "pretrain": _stage([_pretrain_epoch(n) for n in range(epochs)]),
        },
        "artifacts": {"masked_lm.keras": {"sha256": DIGEST, "bytes": 7_923_411}},
    }
    if labelled:
        record["stages"] |= {
            "frozen": _stage([_classifier_epoch(n, frozen=True) for n in range(epochs)]),
            "unfrozen": _stage([_classifier_epoch(n, frozen=False) for n in range(epochs)]),
            "end_to_end": {
                "loss": 0.7011, "accuracy": 0.8218, "examples": 10_000, "seconds": 6.3, "weights_sha256": DIGEST,
                "building_seconds": 0.7, "waiting_seconds": 0.0, "writing_seconds": 0.4,
            },
        }  # fmt: skip
    return record


def _corpus(name: str, *, labelled: bool) -> dict[str, Any]:
    """As many texts as the preset's notebook has, or else as notebook 2."""
    examples = PUBLISHED[name if name in PUBLISHED else "amazon"].examples
    return {
        "name": name,
        "digest": DIGEST,
        "class_names": ["negative", "positive"] if labelled else None,
        "examples": dict(examples),
        "class_counts": {"train": [20_034, examples["train"] - 20_034], "test": [4_962, examples["test"] - 4_962]}
        if labelled
        else None,
        "vocabulary_size": 30_000,
        "vocabulary_sha256": DIGEST,
        "tokens": 3_812_345,
        "unknown_rate": 0.0213,
        "padding_rate": 0.4123,
        "ids_sha256": DIGEST,
    }


def _stage(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "steps": sum(epoch["steps"] for epoch in epochs),
        "seconds": sum(epoch["seconds"] for epoch in epochs) + 2.0,
        "building_seconds": 3.5,
        "waiting_seconds": 0.25,
        "writing_seconds": 1.5,
        "weights_sha256": DIGEST,
        "optimizer_sha256": DIGEST,
    }


def _pretrain_epoch(n: int) -> dict[str, Any]:
    words = ("movie", "film", "book", "show", "one")
    sentence = "I have watched this {} and it was awesome"
    return {
        "epoch": n + 1,
        "loss": 5.5 + 1.8 / (n + 1),
        "steps": 1563,
        "count": 612_345 + n,
        "seconds": 112.0 + n,
        "predictions": [
            {"token": word, "probability": 0.2 / (rank + 1), "sentence": sentence.format(word)}
            for rank, word in enumerate(words)
        ],
        "weights_sha256": DIGEST,
    }


def _classifier_epoch(n: int, *, frozen: bool) -> dict[str, Any]:
    gain = 0.01 * n
    return {
        "epoch": n + 1,
        "loss": (0.66 if frozen else 0.4) - gain,
        "accuracy": (0.6 if frozen else 0.8) + gain,
        "val_loss": (0.65 if frozen else 0.38) + gain / 2,
        "val_accuracy": (0.61 if frozen else 0.83) + gain / 4,
        "steps": 1250,
        "count": 40_000,
        "seconds": 31.0 + n,
        "weights_sha256": DIGEST,
    }
