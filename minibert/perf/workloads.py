"""What the gate times: each workload by name, built with whatever minibert is imported.

Both sides of a comparison run this file, the head's; what it calls is each side's own. An edit of it could
hide a slowdown, so the gate compares it with the base's (`minibert.perf.benchmark_files`), and a side that
lacks what a workload calls cannot run it: neither is a pass. It therefore calls few functions, and those
that a run calls.

A workload is called with a step's number, waits until the device has done the step, and keeps what
`check` needs.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from minibert.perf.control import Control
from minibert.perf.shapes import (
    PREPARED_BATCHES,
    raw_reviews,
    realistic_token_ids,
    shape_labels,
    shape_settings,
    shape_token_ids,
)

CONTROL = "control"
WARM_UP_STEPS = 2 * PREPARED_BATCHES
CHECKED_STEPS = 10 * PREPARED_BATCHES
REVIEWS = {"tiny": 64, "amazon": 256, "imdb": 128}
"""Reviews that one step of `prediction` classifies."""


class Workload(Protocol):
    """One step of something, again and again."""

    def __call__(self, number: int) -> Any:
        """Runs step ``number`` and waits for it."""
        ...

    def check(self) -> None:
        """Raises AssertionError if what was computed is wrong."""
        ...

    def subject(self) -> dict[str, Any]:
        """What is counted: ``arrays``, ``model``, ``ids``, ``graph``, ``traces`` and ``flops``, where there are any."""
        ...


class Masking:
    """Masks of 256 encoded texts of notebook 2's shape, drawn anew for every epoch."""

    def __init__(self) -> None:
        from minibert.masking import mask_tokens

        self._settings, self._mask = shape_settings("amazon").masking, mask_tokens
        self._token_ids = realistic_token_ids(256, 128, self._settings.required_vocabulary_size).astype(np.int32)
        self._examples = np.arange(len(self._token_ids))
        self._masked: Any = None

    def __call__(self, number: int) -> None:
        """Masks all texts for epoch ``number``."""
        self._masked = self._mask(
            self._token_ids, seed=0, epoch=number, example_ids=self._examples, settings=self._settings
        )

    def check(self) -> None:
        """15 % of what may be masked is selected, and nothing else has changed."""
        selected = np.asarray(self._masked.sample_weight) == 1
        rate = selected.sum() / (self._token_ids > 2).sum()
        _require(abs(rate - 0.15) < 0.02, f"masking: a selected share near 0.15 is required, but {rate:.3f} came")
        same = np.array_equal(np.asarray(self._masked.token_ids)[~selected], self._token_ids[~selected])
        _require(same, "masking: a token that was not selected has changed")

    def subject(self) -> dict[str, Any]:
        """The ids that go in, and the three arrays that come out."""
        masked = self._masked
        return {"arrays": [self._token_ids, masked.token_ids, masked.labels, masked.sample_weight]}


class Encoding:
    """Token ids of 256 raw reviews of notebook 2's shape."""

    def __init__(self) -> None:
        import pyarrow as pa

        from minibert.text import encode, learn_vocabulary

        self._settings, self._encode = shape_settings("amazon").text, encode
        self._texts = pa.array(raw_reviews(256, self._settings), type=pa.string())
        self._vocabulary = learn_vocabulary([self._texts], self._settings)
        self._ids: Any = None

    def __call__(self, number: int) -> None:
        """Encodes all texts."""
        self._ids = self._encode(self._texts, self._vocabulary, self._settings)

    def check(self) -> None:
        """Every word of a review is in the vocabulary that was learned from it."""
        ids = np.asarray(self._ids)
        is_plausible = ids.shape == (256, self._settings.sequence_length) and (ids == 1).mean() < 0.01 and ids.max() > 2
        _require(is_plausible, f"encoding: known words are required, but ids of shape {ids.shape} came")

    def subject(self) -> dict[str, Any]:
        """The ids that come out."""
        return {"arrays": [self._ids]}


class Step:
    """One training step of a run, with fingerprints every time, on one of a few prepared batches.

    The step that a run takes between, without them, is the same code but for them.

    Args:
        stage: ``masked_lm``, ``frozen`` or ``unfrozen``.
        shape: A preset's name.
    """

    def __init__(self, stage: str, shape: str) -> None:
        self._name = f"{stage}_step[{shape}]"
        self._model, made = _built_stage(stage, _with_all_fingerprints(shape_settings(shape)))
        self._step, self._variables = made.step, list(made.variables)
        self._batches = [made.batches.batch(number) for number in range(PREPARED_BATCHES)]
        self._losses: list[float] = []

    def __call__(self, number: int) -> float:
        """Updates the weights once; the batch's mean loss."""
        result = self._step(number, self._batches[number % PREPARED_BATCHES])
        np.asarray(self._variables[-1].value)  # there only when the update is done
        metrics = result.metrics
        self._losses.append(float(metrics["loss"]) / float(metrics["count"]))
        return self._losses[-1]

    def check(self) -> None:
        """The step trains: over many steps the loss is lower than at first."""
        while len(self._losses) < CHECKED_STEPS:
            self(len(self._losses))
        first = sum(self._losses[:PREPARED_BATCHES]) / PREPARED_BATCHES
        last = sum(self._losses[CHECKED_STEPS // 2 : CHECKED_STEPS]) / (CHECKED_STEPS - CHECKED_STEPS // 2)
        _require(bool(np.isfinite(last)) and last < first, f"{self._name}: the loss went from {first} to {last}")

    def subject(self) -> dict[str, Any]:
        """The first batch, the model's size, the traced graph, and the one of that batch's shapes."""
        graph_for = getattr(self._step, "graph_for", None)  # an older base has none
        return {
            "arrays": list(self._batches[0].values()),
            "model": self._model,
            "ids": self._batches[0]["token_ids"],
            "graph": getattr(self._step, "graph", None),
            "traces": getattr(self._step, "trace_count", None),
            "graph_of_shapes": None if graph_for is None else graph_for(self._batches[0]),
        }


class Prediction:
    """Probabilities of raw reviews: encoding and the classifier's forward pass.

    Args:
        shape: A preset's name.
    """

    def __init__(self, shape: str) -> None:
        import pyarrow as pa

        from minibert.text import encode, learn_vocabulary
        from minibert.training.finetune import ClassifierForward

        self._settings, self._encode = shape_settings(shape), encode
        self._texts = pa.array(raw_reviews(REVIEWS[shape], self._settings.text), type=pa.string())
        self._vocabulary = learn_vocabulary([self._texts], self._settings.text)
        self._classifier = _classifier(self._settings)
        self._forward, self._logits = ClassifierForward(self._classifier), np.empty(0)
        self._ids: Any = None

    def __call__(self, number: int) -> None:
        """Encodes and classifies all texts."""
        self._ids = self._encode(self._texts, self._vocabulary, self._settings.text)
        self._logits = self._forward.logits(self._ids, batch_size=32)

    def check(self) -> None:
        """The same text has the same logit wherever it stands in a batch."""
        again = self._forward.logits(np.asarray(self._ids)[::-1], batch_size=32)[::-1]
        close = self._logits.shape == again.shape and np.allclose(self._logits, again, rtol=1e-4, atol=1e-5)
        _require(close and bool(np.isfinite(again).all()), "prediction: a logit depends on its place in the batch")

    def subject(self) -> dict[str, Any]:
        """Ids and logits, the model's size, and the traced graph."""
        found = {"arrays": [self._ids, self._logits], "model": self._classifier, "ids": self._ids[:32]}
        function = getattr(self._forward, "_function", None)
        if function is None:
            return found
        graph, traces = function.get_concrete_function().graph, function.experimental_get_tracing_count()
        return {**found, "graph": graph, "traces": traces}


def _with_all_fingerprints(settings: Any) -> Any:
    """Settings by which every step does the same: two sides' steps are paired, and one with fingerprints is longer."""
    if not hasattr(settings.record, "fingerprinted_steps"):  # an older base has them at every step
        return settings
    return dataclasses.replace(settings, record=dataclasses.replace(settings.record, fingerprinted_steps="all"))


def _built_stage(stage: str, settings: Any) -> tuple[Any, Any]:
    """A model, and the stage of a run that trains it."""
    if stage == "masked_lm":
        from minibert.text import Vocabulary
        from minibert.training.pretrain import pretrain_stage

        model, words = _masked_lm(settings), range(settings.masking.required_vocabulary_size - 3)
        vocabulary = Vocabulary(("", "[UNK]", *(f"word{number}" for number in words), "[mask]"))
        return model, pretrain_stage(model, shape_token_ids(settings), vocabulary, settings)
    from minibert.training.finetune import finetune_stage

    classifier, ids = _classifier(settings), shape_token_ids(settings)
    labelled = (ids, shape_labels(ids))
    is_old = "test" in inspect.signature(finetune_stage).parameters  # what `validation` was called in a base before
    data: dict[str, Any] = {"train": labelled, "test" if is_old else "validation": labelled}
    return classifier, finetune_stage(classifier, **data, settings=settings, frozen=stage == "frozen")


def _masked_lm(settings: Any) -> Any:
    import tensorflow as tf

    from minibert.model import backend
    from minibert.model.encoder import build_masked_lm

    tf.config.experimental.enable_op_determinism()  # as a run does
    if hasattr(backend, "forbid_tensor_float_32"):  # a base's run may not do so yet
        backend.forbid_tensor_float_32()
    return build_masked_lm(
        settings.model,
        vocabulary_size=settings.masking.required_vocabulary_size,
        sequence_length=settings.text.sequence_length,
        seed=settings.seed,
    )


def _classifier(settings: Any) -> Any:
    from minibert.model.heads import build_classifier

    return build_classifier(_masked_lm(settings), settings.finetune, settings.model, seed=settings.seed)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


_SHAPES = ("tiny", "amazon", "imdb")
_STAGES = ("masked_lm", "frozen", "unfrozen")
BUILDERS: dict[str, Callable[[], Any]] = {
    "masking": Masking,
    "encoding": Encoding,
    **{f"{stage}_step[{shape}]": functools.partial(Step, stage, shape) for shape in _SHAPES for stage in _STAGES},
    **{f"prediction[{shape}]": functools.partial(Prediction, shape) for shape in _SHAPES},
}
"""Every gated workload by name."""

DEFAULT = ("masking", "encoding", *(f"{stage}_step[tiny]" for stage in _STAGES), "prediction[tiny]")
"""What is gated unless names are given: the cheap ones, whose code is the same at every shape."""


def build(name: str) -> Any:
    """Builds a workload.

    Raises:
        KeyError: There is none of this name.
    """
    from minibert.perf.error_study.injection import StudyStep, is_study

    if name == CONTROL:
        return Control()
    return StudyStep(name) if is_study(name) else BUILDERS[name]()
