"""What a run computes, as frozen data: one keyword-only dataclass for each stage.

Every quirk of the two published notebooks is a named field with a docstring, so a corrected recipe
is a matter of settings, never of code. Values are checked when a dataclass is made; `replace_setting`
applies one ``stage.field=value`` of the command line, `settings_from_dict` reads a TOML table or a
run record. The canonical JSON of a `RunSettings` and its SHA-256 identify what a run computes.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from minibert.errors import SettingsError

PUNCTUATION = "!#$%&'()*+,-./:;<=>?@\\^_`{|}~"
"""What the notebooks strip: ASCII punctuation without ``[``, ``]`` and the double quote."""


def _require(condition: bool, argument: str, required: str, came: object) -> None:
    if not condition:
        raise SettingsError(f"{argument}: {required} is required, but {came!r} came")


def _require_rate(argument: str, value: float) -> None:
    _require(math.isfinite(value) and 0.0 <= value <= 1.0, argument, "a rate from 0 to 1", value)


def _require_positive(argument: str, value: float) -> None:
    _require(math.isfinite(value) and value > 0, argument, "a number above 0", value)


class _Checked:
    """Checks field types on construction, then the ranges that a subclass names in `_check`."""

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            value = _coerce(f"{type(self).__name__}.{name}", hint, getattr(self, name))
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class TextSettings(_Checked):
    """How text becomes token ids."""

    vocabulary_size: int = 30_000
    """Ids asked for, special tokens included. A short corpus has fewer words; that is normal."""
    sequence_length: int = 256
    """Token ids per example: longer texts are cut, shorter ones padded with id 0."""
    lowercase: Literal["ascii", "unicode", "none"] = "ascii"
    """The notebooks lower-case A to Z only (``tf.strings.lower`` without an encoding)."""
    line_break: str = "<br />"
    """Literal markup that becomes one space, before anything is stripped. Empty: nothing does."""
    stripped_characters: str = PUNCTUATION
    """Characters that are removed (not replaced by a space)."""
    vocabulary_splits: Literal["train", "train+test"] = "train+test"
    """Whose words make the vocabulary. The notebooks count the test split's too."""

    def _check(self) -> None:
        _require(self.vocabulary_size >= 4, "text.vocabulary_size", "4 or more", self.vocabulary_size)
        _require_positive("text.sequence_length", self.sequence_length)


@dataclass(frozen=True, kw_only=True)
class MaskingSettings(_Checked):
    """Which tokens are selected for prediction, and what stands in their place.

    Source: both notebooks' ``get_masked_input_and_labels``; BERT, Devlin et al. 2019, section 3.1.
    """

    vocabulary_size: int | None = None
    """Number of ids; the last one is ``[mask]``. None: a run takes it from its vocabulary."""
    selection_rate: float = 0.15
    """Probability that a token is selected for prediction."""
    replacement_rate: float = 0.9
    """Of the selected, the share that is replaced; the others stay as they are."""
    random_rate: float = 1.0 / 9.0
    """Of the replaced, the share that becomes a random word; the others become ``[mask]``."""
    protected_ids: tuple[int, ...] = (0, 1, 2)
    """Ids that are never selected and never drawn: padding, unknown and, a quirk of the notebooks,
    the most frequent word. ``[mask]`` itself is always protected, which the notebooks forgot."""
    static: bool = True
    """Masks are drawn once (epoch 0 for ever), as the notebooks do; False: anew for every epoch."""

    @property
    def mask_id(self) -> int:
        """The id of ``[mask]``: the last of the vocabulary."""
        return self.required_vocabulary_size - 1

    @property
    def required_vocabulary_size(self) -> int:
        """`vocabulary_size`, which must have been given."""
        if self.vocabulary_size is None:
            raise SettingsError("masking.vocabulary_size: a number of ids is required, but None came")
        return self.vocabulary_size

    def _check(self) -> None:
        _require_rate("masking.selection_rate", self.selection_rate)
        _require_rate("masking.replacement_rate", self.replacement_rate)
        _require_rate("masking.random_rate", self.random_rate)
        ids = self.protected_ids
        _require(all(i >= 0 for i in ids) and len(set(ids)) == len(ids),
                 "masking.protected_ids", "a list of different ids, 0 or more,", ids)  # fmt: skip
        if self.vocabulary_size is not None:
            _require(self.vocabulary_size >= 2, "masking.vocabulary_size", "2 or more", self.vocabulary_size)
            _require(max(ids, default=0) < self.vocabulary_size,
                     "masking.protected_ids", f"ids below {self.vocabulary_size}", ids)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelSettings(_Checked):
    """The encoder's shape.

    Source: cell "Create BERT model" of both notebooks.
    """

    hidden_size: int = 128
    """Width of the embeddings and of every block."""
    heads: int = 8
    """Attention heads; they divide `hidden_size`."""
    feed_forward_size: int = 128
    """Width of the feed-forward layer's inner activation."""
    blocks: int = 1
    """Encoder blocks."""
    dropout_rate: float = 0.1
    """Dropout after attention and after the feed-forward layer."""
    layer_norm_epsilon: float = 1e-6
    """Added to the variance in layer normalization."""
    padding_mask: bool = False
    """Attend to real tokens only, and leave padding out of the classifier's pooling. The notebooks
    attend to padding and pool over it."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Precision of the matrix products; weights, loss and optimizer stay float32."""

    def _check(self) -> None:
        for name in ("hidden_size", "heads", "feed_forward_size", "blocks", "layer_norm_epsilon"):
            _require_positive(f"model.{name}", getattr(self, name))
        _require(self.hidden_size % self.heads == 0,
                 "model.heads", f"a divisor of model.hidden_size ({self.hidden_size})", self.heads)  # fmt: skip
        _require(0.0 <= self.dropout_rate < 1.0, "model.dropout_rate", "a rate from 0 to below 1", self.dropout_rate)


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(_Checked):
    """The masked language model's training."""

    epochs: int = 5
    """Passes over the corpus."""
    batch_size: int = 32
    """Examples per step; the last batch of an epoch may be smaller."""
    learning_rate: float = 0.001
    """Adam's step size; its other parameters are Keras' defaults."""
    loss_reduction: Literal["sum", "mean"] = "sum"
    """How the selected tokens' losses are joined for the gradient. The notebooks sum."""
    splits: Literal["train", "train+test"] = "train+test"
    """What the masked language model is trained on. The notebooks use the test texts too."""
    sample_sentence: str = "I have watched this [mask] and it was awesome"
    """Completed after every epoch; exactly one ``[mask]``."""
    top_k: int = 5
    """Predictions shown for it."""

    def _check(self) -> None:
        _require(self.epochs >= 0, "pretrain.epochs", "0 or more", self.epochs)
        _require_positive("pretrain.batch_size", self.batch_size)
        _require_positive("pretrain.learning_rate", self.learning_rate)
        _require_positive("pretrain.top_k", self.top_k)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(_Checked):
    """The sentiment classifier's training: first on a frozen encoder, then with everything trained."""

    frozen_epochs: int = 5
    """Passes with the encoder's weights held (its dropout stays active, as in the notebooks)."""
    unfrozen_epochs: int = 5
    """Passes with everything trained, after a fresh optimizer."""
    batch_size: int = 32
    """Examples per step."""
    learning_rate: float = 0.001
    """Adam's step size in both stages: Keras' default, also for the unfrozen encoder."""
    classifier_size: int = 64
    """Width of the dense layer between pooling and output."""

    def _check(self) -> None:
        _require(self.frozen_epochs >= 0, "finetune.frozen_epochs", "0 or more", self.frozen_epochs)
        _require(self.unfrozen_epochs >= 0, "finetune.unfrozen_epochs", "0 or more", self.unfrozen_epochs)
        _require_positive("finetune.batch_size", self.batch_size)
        _require_positive("finetune.learning_rate", self.learning_rate)
        _require_positive("finetune.classifier_size", self.classifier_size)


@dataclass(frozen=True, kw_only=True)
class CorpusSettings(_Checked):
    """Which texts, and how they are chosen. What does not apply to a corpus is not looked at."""

    name: Literal["imdb", "amazon", "jokes", "embedded", "table"] = "embedded"
    """The reader used where no data are given; any table of the user's replaces it by ``--data``."""
    text_column: str = ""
    """A table's text column. Empty: ``review``, ``text``, ``content`` or ``Joke``, the one that is there."""
    label_column: str = ""
    """A table's label column. Empty: ``sentiment`` or ``label`` if there; none: unlabelled."""
    class_names: tuple[str, ...] = ()
    """Names of a table's two classes, in the order of its sorted label values. Empty: the values."""
    test_rate: float = 0.2
    """Share of each class that becomes the test split where a table has no ``split`` column."""
    train_examples: int = 0
    """Examples kept of the train split after a seeded shuffle; 0: all."""
    test_examples: int = 0
    """Likewise of the test split."""
    shuffle_seed: int = 42
    """The seed of Amazon Polarity's published shuffle and selection (``datasets``' own generator)."""

    def _check(self) -> None:
        _require(len(self.class_names) in (0, 2), "corpus.class_names", "two names", self.class_names)
        _require(0.0 < self.test_rate < 1.0, "corpus.test_rate", "a rate between 0 and 1", self.test_rate)
        _require(self.train_examples >= 0, "corpus.train_examples", "0 or more", self.train_examples)
        _require(self.test_examples >= 0, "corpus.test_examples", "0 or more", self.test_examples)


@dataclass(frozen=True, kw_only=True)
class RecordSettings(_Checked):
    """What a run writes down while it trains. It changes no computed value."""

    checkpoint_steps: int = 500
    """Steps between two checkpoints; one more is written at the end of every epoch."""
    kept_checkpoints: int = 2
    """Checkpoints kept; older ones are removed."""

    def _check(self) -> None:
        _require_positive("record.checkpoint_steps", self.checkpoint_steps)
        _require(self.kept_checkpoints >= 2, "record.kept_checkpoints", "2 or more", self.kept_checkpoints)


@dataclass(frozen=True, kw_only=True)
class RunSettings(_Checked):
    """Everything that decides what a run computes, but for the texts themselves."""

    preset: str = "tiny"
    """The preset these settings started from; a label, nothing is looked up by it."""
    seed: int = 0
    """Root of every random stream, 0 to 2**63 - 1."""
    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    text: TextSettings = field(default_factory=TextSettings)
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    record: RecordSettings = field(default_factory=RecordSettings)

    def _check(self) -> None:
        _require(0 <= self.seed < 2**63, "seed", "an integer from 0 to 2**63 - 1", self.seed)

    def to_dict(self) -> dict[str, Any]:
        """The nested plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def canonical_json(self) -> str:
        """JSON with sorted keys and no spaces: equal settings give equal text."""
        return canonical_json(self.to_dict())

    def digest(self) -> str:
        """SHA-256 of `canonical_json`, in hexadecimal."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON of plain values with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _coerce(path: str, hint: Any, value: Any) -> Any:
    """Checks ``value`` against a field's type; an int is taken for a float, a list for a tuple."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _coerce(path, next(a for a in arguments if a is not type(None)), value)
    if origin is Literal:
        _require(value in arguments, path, "one of " + ", ".join(map(repr, arguments)), value)
        return value
    if origin is tuple:
        _require(isinstance(value, list | tuple), path, "a list", value)
        return tuple(_coerce(path, arguments[0], item) for item in value)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return settings_from_dict(typing.cast("type[_Checked]", hint), value, path)
        _require(isinstance(value, typing.cast(type, hint)), path, f"a {getattr(hint, '__name__', hint)}", value)
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    correct = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    _require(correct, path, {int: "an integer", float: "a number", str: "text", bool: "true or false"}[hint], value)
    return value


def _nearest(key: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.4)
    return f"the nearest is {close[0]!r}" if close else "there are " + ", ".join(valid)


def settings_from_dict(cls: type[Any], values: Mapping[str, Any], path: str = "settings") -> Any:
    """Makes a settings dataclass from nested plain values.

    Raises:
        SettingsError: A key is unknown (the nearest valid one is named) or a value does not fit.
    """
    valid = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in valid:
            raise SettingsError(f"{path}: {key!r} is not a setting; {_nearest(key, valid)}")
    return cls(**values)


def valid_settings() -> dict[str, Any]:
    """Every ``stage.field`` and top-level field with its type, in order."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(RunSettings).items():
        if dataclasses.is_dataclass(hint):
            found |= {f"{name}.{inner}": t for inner, t in typing.get_type_hints(hint).items()}
        else:
            found[name] = hint
    return found


def replace_setting(settings: RunSettings, assignment: str) -> RunSettings:
    """Applies one ``stage.field=value``; the value is read by the field's type.

    Lists are written with commas, ``none`` is None, booleans are ``true`` and ``false``.

    Raises:
        SettingsError: No such field (the nearest is named), or the value does not fit its type.
    """
    key, separator, text = assignment.partition("=")
    if not separator:
        raise SettingsError(f"--set: stage.field=value is required, but {assignment!r} came")
    key, valid = key.strip(), valid_settings()
    if key not in valid:
        raise SettingsError(f"--set: {key!r} is not a setting; {_nearest(key, list(valid))}")
    value = _parse(key, valid[key], text.strip())
    stage, _, name = key.rpartition(".")
    if not stage:
        return dataclasses.replace(settings, **{name: value})
    inner = dataclasses.replace(getattr(settings, stage), **{name: value})
    return dataclasses.replace(settings, **{stage: inner})


def _parse(key: str, hint: Any, text: str) -> Any:
    """Reads a value of the command line by the field's type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if text.lower() == "none" else _parse(key, arguments[0], text)
    if origin is tuple:
        return tuple(_parse(key, arguments[0], part) for part in text.split(",") if part.strip())
    if hint is bool:
        _require(text.lower() in ("true", "false"), key, "true or false", text)
        return text.lower() == "true"
    if hint in (int, float):
        try:
            return hint(text.replace("_", ""))
        except ValueError:
            raise SettingsError(
                f"{key}: {'an integer' if hint is int else 'a number'} is required, but {text!r} came"
            ) from None
    return text
