"""What a run computes, as frozen data: one keyword-only dataclass for each stage.

Every quirk of the two published notebooks is a named field with a docstring, so a corrected recipe
is a matter of settings, never of code; those of the training stand in `minibert.training_settings`.
Values are checked when a dataclass is made; `replace_setting` applies one ``stage.field=value`` of the
command line, `settings_from_dict` reads a TOML table or a run record. The canonical JSON of a
`RunSettings` and its SHA-256 identify what a run computes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from minibert.checked import (
    Checked,
    canonical_json,
    nearest,
    parse,
    require,
    require_count,
    require_positive,
    require_rate,
    settings_from_dict,
)
from minibert.errors import SettingsError
from minibert.training_settings import TRAINING_STAGES, EmbeddingSecondMoment, FinetuneSettings, PretrainSettings

__all__ = [
    "PUNCTUATION",
    "TRAINING_STAGES",
    "CorpusSettings",
    "EmbeddingSecondMoment",
    "FinetuneSettings",
    "MaskingSettings",
    "ModelSettings",
    "PretrainSettings",
    "RecordSettings",
    "RunSettings",
    "TextSettings",
    "canonical_json",
    "replace_setting",
    "settings_from_dict",
    "valid_settings",
]

PUNCTUATION = "!#$%&'()*+,-./:;<=>?@\\^_`{|}~"
"""What the notebooks strip: ASCII punctuation without ``[``, ``]`` and the double quote."""


@dataclass(frozen=True, kw_only=True)
class TextSettings(Checked, stage="text"):
    """How text becomes token ids."""

    vocabulary_size: int = 30_000
    """Ids asked for, special tokens included. A short corpus has fewer words; that is normal."""
    sequence_length: int = 256
    """Token ids per example: longer texts are cut, shorter ones padded with id 0."""
    lowercase: Literal["ascii", "unicode", "none"] = "ascii"
    """The notebooks lower-case A to Z only (``tf.strings.lower`` without an encoding). ``unicode``: all letters, each
    for one other whatever stands beside it (Unicode's simple mapping), so that İ becomes i."""
    line_break: str = "<br />"
    """Literal markup that becomes one space, before anything is stripped. Empty: nothing does."""
    stripped_characters: str = PUNCTUATION
    """Characters that are removed (not replaced by a space)."""
    vocabulary_splits: Literal["train", "train+test"] = "train+test"
    """Whose words make the vocabulary. The notebooks count the test split's too."""

    def _check(self) -> None:
        require_count("text.vocabulary_size", self.vocabulary_size, at_least=4)
        require_count("text.sequence_length", self.sequence_length, at_least=1)


@dataclass(frozen=True, kw_only=True)
class MaskingSettings(Checked, stage="masking"):
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
        require_rate("masking.selection_rate", self.selection_rate)
        require_rate("masking.replacement_rate", self.replacement_rate)
        require_rate("masking.random_rate", self.random_rate)
        ids = self.protected_ids
        require(all(i >= 0 for i in ids) and len(set(ids)) == len(ids),
                 "masking.protected_ids", "a list of different ids, 0 or more,", ids)  # fmt: skip
        if self.vocabulary_size is not None:
            require_count("masking.vocabulary_size", self.vocabulary_size, at_least=2)
            require(max(ids, default=0) < self.vocabulary_size,
                     "masking.protected_ids", f"ids below {self.vocabulary_size}", ids)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Checked, stage="model"):
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
    """Dropout after attention and after the feed-forward layer; drawn in steps of 1/65536."""
    layer_norm_epsilon: float = 1e-6
    """Added to the variance in layer normalization."""
    padding_mask: bool = False
    """Attend to real tokens only, and leave padding out of the classifier's pooling. The notebooks
    attend to padding and pool over it."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Precision of the matrix products in training, the logits among them; weights, what is added up and the
    optimizer are float32. In `mixed_bfloat16` a step is faster where the processor has instructions for it."""

    def _check(self) -> None:
        for name in ("hidden_size", "heads", "feed_forward_size", "blocks"):
            require_count(f"model.{name}", getattr(self, name), at_least=1)
        require_positive("model.layer_norm_epsilon", self.layer_norm_epsilon)
        require(self.hidden_size % self.heads == 0,
                 "model.heads", f"a divisor of model.hidden_size ({self.hidden_size})", self.heads)  # fmt: skip
        rate = self.dropout_rate
        expressible = 0.0 <= rate < 1.0 and (rate == 0 or 1 <= round(rate * 2**16) < 2**16)
        require(expressible, "model.dropout_rate", "0, or a rate that 16 bits tell from 0 and from 1,", rate)


@dataclass(frozen=True, kw_only=True)
class CorpusSettings(Checked, stage="corpus"):
    """Which texts, and how they are chosen. What does not apply to a corpus is not looked at."""

    name: Literal["imdb", "amazon", "jokes", "embedded", "table"] = "embedded"
    """The reader used where no data are given; any table of the user's replaces it by ``--data``."""
    text_column: str = ""
    """A table's text column. Empty: ``review``, ``text``, ``content`` or ``Joke``, the one that is there."""
    label_column: str = ""
    """A table's label column. Empty: ``sentiment`` or ``label``, the one that is there; where neither is, the table is
    unlabelled."""
    split_column: str = "split"
    """A table's column of splits, ``train`` or ``test`` in every row. The default one need not be there, one that is
    named must be. Empty: none is looked at."""
    class_names: tuple[str, ...] = ()
    """Names of a table's two classes, in the order of its sorted label values. Empty: the values. A value
    that is one of these names keeps it, whatever their order here."""
    positive_label: Literal[0, 1] = 0
    """The label of the IMDb archive's positive reviews. Notebook 1 has 0; Amazon Polarity and the generator have 1."""
    test_rate: float = 0.2
    """Share of each class that becomes the test split where a table has no column of splits."""
    train_examples: int | None = None
    """Examples kept of the train split, a seeded choice with the classes' shares; 0, or more than there are: all.
    None: what the corpus' own reader takes, 40,000 of Amazon Polarity as notebook 2, and everything of all others,
    the user's tables among them. The generator chooses nothing: it makes so many, and 5,000 for 0 or None."""
    test_examples: int | None = None
    """Likewise of the test split: None is 10,000 of Amazon Polarity; of the generator 0 and None are 1,000."""
    shuffle_seed: int = 42
    """The seed of Amazon Polarity's published shuffle and selection (``datasets``' own generator)."""

    def _check(self) -> None:
        require(len(set(self.class_names)) == len(self.class_names) and len(self.class_names) in (0, 2),
                 "corpus.class_names", "two different names", self.class_names)  # fmt: skip
        require(0.0 < self.test_rate < 1.0, "corpus.test_rate", "a rate between 0 and 1", self.test_rate)
        require_count("corpus.train_examples", self.train_examples or 0)
        require_count("corpus.test_examples", self.test_examples or 0)
        require(0 <= self.shuffle_seed < 2**63, "corpus.shuffle_seed", "an integer from 0 to 2**63 - 1",
                 self.shuffle_seed)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RecordSettings(Checked, stage="record"):
    """What a run writes down while it trains. It changes no computed value."""

    checkpoint_steps: int = 500
    """Steps between two checkpoints; one more is written at the end of every epoch."""
    kept_checkpoints: int = 2
    """Checkpoints kept; older ones are removed."""
    fingerprinted_steps: Literal["by_device", "all"] = "by_device"
    """Steps whose tensors are fingerprinted, so that ``verify`` can name the first that differs: on a CPU, where a step
    with fingerprints takes up to 4 % longer, one in 7, on a GPU, where it takes a quarter longer, one in 37; or all.
    A run is resumed as it began."""

    @property
    def fingerprint_interval(self) -> int | None:
        """Steps from one with fingerprints to the next; None: what suits the device."""
        return 1 if self.fingerprinted_steps == "all" else None

    def _check(self) -> None:
        require_count("record.checkpoint_steps", self.checkpoint_steps, at_least=1)
        require_count("record.kept_checkpoints", self.kept_checkpoints, at_least=2)


@dataclass(frozen=True, kw_only=True)
class RunSettings(Checked):
    """Everything that decides what a run computes, but for the texts themselves."""

    preset: str = "tiny"
    """The preset these settings started from. Nothing is looked up by it; a file of settings fits no other one."""
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
        require(0 <= self.seed < 2**63, "seed", "an integer from 0 to 2**63 - 1", self.seed)

    def to_dict(self) -> dict[str, Any]:
        """The nested plain values as JSON has them: lists, where the settings have tuples."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    def canonical_json(self) -> str:
        """JSON with sorted keys and no spaces: equal settings give equal text."""
        return canonical_json(self.to_dict())

    def digest(self) -> str:
        """SHA-256 of `canonical_json`, in hexadecimal."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def valid_settings() -> dict[str, Any]:
    """Every ``stage.field`` and top-level field with its type, in order."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(RunSettings).items():
        if dataclasses.is_dataclass(hint):
            found |= {f"{name}.{inner}": t for inner, t in typing.get_type_hints(hint).items()}
        else:
            found[name] = hint
    return found


def settings_named(name: str) -> list[str]:
    """The settings ``stage.field`` whose field has this name, dashes read as underscores."""
    field = name.replace("-", "_")
    return [key for key in valid_settings() if field and key.partition(".")[2] == field]


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
    if key == "preset":
        raise SettingsError(f"--set: a setting is required, but 'preset' names where all of them start: {text!r} came")
    if key not in valid:
        meant = settings_named(key)
        there = f"there is {' and '.join(meant)}" if meant else nearest(key, list(valid))
        raise SettingsError(f"--set: {key!r} is not a setting; {there}")
    value = parse(key, valid[key], text.strip())
    stage, _, name = key.rpartition(".")
    if not stage:
        return dataclasses.replace(settings, **{name: value})
    inner = dataclasses.replace(getattr(settings, stage), **{name: value})
    return dataclasses.replace(settings, **{stage: inner})
