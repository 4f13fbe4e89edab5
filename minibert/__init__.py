"""minibert: a small BERT trained from scratch, the same bits every time.

The public names below are loaded when they are first used, so ``import minibert`` costs next to
nothing. When Keras is imported, before or after, minibert's layers are registered with it: a saved
model opens with ``keras.models.load_model`` without ``custom_objects``.

Examples:
    >>> import minibert
    >>> settings = minibert.preset("tiny")
    >>> settings.model.hidden_size
    64
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from minibert.corpora import Corpus, open_corpus
    from minibert.errors import MinibertError
    from minibert.finished_run import Classification, FinishedRun
    from minibert.inference import classify, evaluate, fill_mask, fill_masks
    from minibert.masking import MaskedTokens, mask_tokens
    from minibert.presets import preset
    from minibert.progress import Progress
    from minibert.report import write_report
    from minibert.running import run
    from minibert.scoring import Score
    from minibert.settings import (
        CorpusSettings,
        FinetuneSettings,
        MaskingSettings,
        ModelSettings,
        PretrainSettings,
        RecordSettings,
        RunSettings,
        TextSettings,
    )
    from minibert.training.pretrain import Prediction
    from minibert.verify import Verdict
    from minibert.verify import verify as verify_run

__version__ = "0.1.0"

__all__ = [
    "Classification",
    "Corpus",
    "CorpusSettings",
    "FinetuneSettings",
    "FinishedRun",
    "MaskedTokens",
    "MaskingSettings",
    "MinibertError",
    "ModelSettings",
    "Prediction",
    "PretrainSettings",
    "Progress",
    "RecordSettings",
    "RunSettings",
    "Score",
    "TextSettings",
    "Verdict",
    "__version__",
    "classify",
    "evaluate",
    "fill_mask",
    "fill_masks",
    "mask_tokens",
    "open_corpus",
    "preset",
    "run",
    "verify_run",
    "write_report",
]

_SOURCES = {
    "classify": ("minibert.inference", "classify"),
    "evaluate": ("minibert.inference", "evaluate"),
    "fill_mask": ("minibert.inference", "fill_mask"),
    "fill_masks": ("minibert.inference", "fill_masks"),
    "mask_tokens": ("minibert.masking", "mask_tokens"),
    "open_corpus": ("minibert.corpora", "open_corpus"),
    "preset": ("minibert.presets", "preset"),
    "run": ("minibert.running", "run"),
    "verify_run": ("minibert.verify", "verify"),  # minibert.verify is the module
    "write_report": ("minibert.report", "write_report"),
    "Classification": ("minibert.finished_run", "Classification"),
    "Corpus": ("minibert.corpora", "Corpus"),
    "FinishedRun": ("minibert.finished_run", "FinishedRun"),
    "MaskedTokens": ("minibert.masking", "MaskedTokens"),
    "Prediction": ("minibert.training.pretrain", "Prediction"),
    "Progress": ("minibert.progress", "Progress"),
    "MinibertError": ("minibert.errors", "MinibertError"),
    "Score": ("minibert.scoring", "Score"),
    "Verdict": ("minibert.verify", "Verdict"),
    **{name: ("minibert.settings", name) for name in __all__ if name.endswith("Settings")},
}


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module 'minibert' has no attribute {name!r}")
    module, attribute = _SOURCES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_layers(keras: Any) -> None:
    """Importing the rooms that have Keras layers registers these, under the package name minibert."""
    importlib.import_module("minibert.model")
    if keras.backend.backend() == "tensorflow":  # strings are TensorFlow's alone
        importlib.import_module("minibert.end_to_end")


wrapt.register_post_import_hook(_register_layers, "keras")
