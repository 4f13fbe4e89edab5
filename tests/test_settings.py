"""Settings: every value is checked, every text form is read back, equal settings are equal bytes."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st

from minibert.errors import SettingsError
from minibert.settings import (
    CorpusSettings,
    FinetuneSettings,
    MaskingSettings,
    ModelSettings,
    PretrainSettings,
    RecordSettings,
    RunSettings,
    TextSettings,
    canonical_json,
    replace_setting,
    settings_from_dict,
    valid_settings,
)
from tests.strategies import masking_settings, rates, seeds

positive = st.integers(1, 2**31 - 1)
positive_float = st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False)
one_line = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Zs"]), max_size=20)
names = st.lists(one_line.filter(lambda text: text and "," not in text), min_size=2, max_size=2, unique=True).map(tuple)


@st.composite
def model_settings(draw: st.DrawFn) -> ModelSettings:
    heads = draw(st.integers(1, 16))
    return ModelSettings(
        hidden_size=heads * draw(st.integers(1, 64)),
        heads=heads,
        feed_forward_size=draw(positive),
        blocks=draw(positive),
        dropout_rate=draw(st.just(0.0) | st.floats(2**-16, 1 - 2**-16)),
        layer_norm_epsilon=draw(positive_float),
        padding_mask=draw(st.booleans()),
        precision=draw(st.sampled_from(["float32", "mixed_bfloat16"])),
    )


text_settings = st.builds(
    TextSettings,
    vocabulary_size=st.integers(4, 2**31 - 1),
    sequence_length=positive,
    lowercase=st.sampled_from(["ascii", "unicode", "none"]),
    line_break=one_line,
    stripped_characters=one_line,
    vocabulary_splits=st.sampled_from(["train", "train+test"]),
)
pretrain_settings = st.builds(
    PretrainSettings,
    epochs=st.integers(0, 100),
    batch_size=positive,
    learning_rate=positive_float,
    loss_reduction=st.sampled_from(["sum", "mean"]),
    embedding_second_moment=st.sampled_from(["occurrence", "word"]),
    splits=st.sampled_from(["train", "train+test"]),
    sample_sentence=one_line.filter(lambda text: "[" not in text).map(lambda text: f"{text} [mask]".strip()),
    top_k=positive,
)
finetune_settings = st.builds(
    FinetuneSettings,
    frozen_epochs=st.integers(0, 100),
    unfrozen_epochs=st.integers(0, 100),
    batch_size=positive,
    learning_rate=positive_float,
    embedding_second_moment=st.sampled_from(["occurrence", "word"]),
    classifier_size=positive,
    frozen_dropout=st.booleans(),
    validation_rate=st.floats(0, 1, exclude_max=True),
)
corpus_settings = st.builds(
    CorpusSettings,
    name=st.sampled_from(["imdb", "amazon", "jokes", "embedded", "table"]),
    text_column=one_line,
    label_column=one_line,
    split_column=one_line,
    class_names=st.just(()) | names,
    positive_label=st.sampled_from([0, 1]),
    test_rate=st.floats(0, 1, exclude_min=True, exclude_max=True),
    train_examples=st.none() | st.integers(0, 2**31 - 1),
    test_examples=st.none() | st.integers(0, 2**31 - 1),
    shuffle_seed=seeds,
)
record_settings = st.builds(
    RecordSettings,
    checkpoint_steps=positive,
    kept_checkpoints=st.integers(2, 100),
    fingerprinted_steps=st.sampled_from(["by_device", "all"]),
)
run_settings = st.builds(
    RunSettings,
    preset=one_line,
    seed=seeds,
    corpus=corpus_settings,
    text=text_settings,
    masking=masking_settings(),
    model=model_settings(),
    pretrain=pretrain_settings,
    finetune=finetune_settings,
    record=record_settings,
)


@given(run_settings)
def test_settings_come_back_from_plain_values_and_from_json(settings: RunSettings) -> None:
    assert settings.to_dict() == json.loads(json.dumps(settings.to_dict())), "lists, no tuples"
    assert settings_from_dict(RunSettings, settings.to_dict()) == settings
    again = settings_from_dict(RunSettings, json.loads(settings.canonical_json()))
    assert again == settings
    assert again.digest() == settings.digest()


@given(run_settings, st.randoms())
def test_canonical_json_does_not_depend_on_the_order_of_keys(settings: RunSettings, random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    assert canonical_json(shuffled(settings.to_dict())) == settings.canonical_json()


@given(run_settings, run_settings)
def test_digests_are_equal_where_settings_are(left: RunSettings, right: RunSettings) -> None:
    assert (left.digest() == right.digest()) == (left == right)


def test_canonical_json_is_this_text() -> None:
    value = {"b": [1, 2.0, 1e-06, "é\n"], "a": {"d": None, "c": True}}
    assert canonical_json(value) == '{"a":{"c":true,"d":null},"b":[1,2.0,1e-06,"é\\n"]}'


def test_canonical_json_refuses_what_json_does_not_have() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"loss": math.nan})


def as_text(value: Any) -> str:
    """What a user writes after ``=``."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


@limited(max_examples=15)  # each tries every setting
@given(run_settings)
def test_every_setting_can_be_written_on_the_command_line(settings: RunSettings) -> None:
    for key in valid_settings().keys() - {"preset"}:
        stage, _, field = key.rpartition(".")
        value = getattr(getattr(settings, stage) if stage else settings, field)
        assert replace_setting(settings, f"{key}={as_text(value)}") == settings, key


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("seed=7", 7),
        ("seed = 1_000", 1000),
        ("pretrain.learning_rate=1e-4", 1e-4),
        ("pretrain.learning_rate=2", 2.0),
        ("pretrain.sample_sentence=a = [mask], b", "a = [mask], b"),
        ("text.line_break=", ""),
        ("text.lowercase=none", "none"),
        ("text.lowercase=unicode", "unicode"),
        ("corpus.positive_label=1", 1),
        ("corpus.split_column=", ""),
        ("finetune.embedding_second_moment=word", "word"),
        ("finetune.frozen_dropout=false", False),
        ("finetune.validation_rate=0.1", 0.1),
        ("masking.static=False", False),
        ("masking.vocabulary_size=None", None),
        ("masking.vocabulary_size=300", 300),
        ("masking.protected_ids=", ()),
        ("masking.protected_ids=0,1", (0, 1)),
        ("masking.protected_ids= 0, 1, ", (0, 1)),
        ("corpus.class_names=good,bad", ("good", "bad")),
    ],
)
def test_an_assignment_is_read_by_the_type_of_its_field(assignment: str, value: object) -> None:
    settings = replace_setting(RunSettings(), assignment)
    stage, _, field = assignment.partition("=")[0].strip().rpartition(".")
    found = getattr(getattr(settings, stage) if stage else settings, field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("pretrain.epochs", "--set: stage.field=value is required, but 'pretrain.epochs' came"),
        ("pretrain.epoch=1", "--set: 'pretrain.epoch' is not a setting; the nearest is 'pretrain.epochs'"),
        ("model.hiden_size=1", "the nearest is 'model.hidden_size'"),
        ("model=1", "'model' is not a setting"),
        ("epochs=1", "--set: 'epochs' is not a setting; there is pretrain.epochs"),
        ("learning-rate=1", "there is pretrain.learning_rate and finetune.learning_rate"),
        ("preset=imdb", "--set: a setting is required, but 'preset' names where all of them start: 'imdb' came"),
        ("=1", "'' is not a setting; there are preset, seed, corpus.name"),
        ("pretrain.epochs=two", "pretrain.epochs: an integer is required, but 'two' came"),
        ("pretrain.epochs=2.5", "pretrain.epochs: an integer is required, but '2.5' came"),
        ("pretrain.learning_rate=fast", "pretrain.learning_rate: a number is required, but 'fast' came"),
        ("pretrain.learning_rate=nan", "pretrain.learning_rate: a number above 0 is required, but nan came"),
        ("masking.selection_rate=1e400", "masking.selection_rate: a rate from 0 to 1 is required, but inf came"),
        (f"pretrain.epochs={'1' * 9000}", "pretrain.epochs: an integer is required, but '1111"),
        ("masking.static=1", "masking.static: true or false is required, but '1' came"),
        ("masking.protected_ids=0,x", "masking.protected_ids: an integer is required, but 'x' came"),
        ("text.lowercase=ASCII", "one of 'ascii', 'unicode', 'none' is required, but 'ASCII' came"),
        ("corpus.positive_label=2", "corpus.positive_label: one of 0, 1 is required, but '2' came"),
        ("corpus.positive_label=true", "corpus.positive_label: one of 0, 1 is required, but 'true' came"),
        ("model.heads=7", "model.heads: a divisor of model.hidden_size (128) is required, but 7 came"),
    ],
)
def test_a_wrong_assignment_says_what_is_wrong(assignment: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        replace_setting(RunSettings(), assignment)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (
            TextSettings,
            {"vocabulary_size": 3},
            "text.vocabulary_size: an integer from 4 to 2**31 - 1 is required, but 3 came",
        ),
        (TextSettings, {"vocabulary_size": 30_000.0}, "text.vocabulary_size: an integer is required"),
        (TextSettings, {"vocabulary_size": True}, "text.vocabulary_size: an integer is required, but True"),
        (
            TextSettings,
            {"sequence_length": 0},
            "text.sequence_length: an integer from 1 to 2**31 - 1 is required, but 0 came",
        ),
        (TextSettings, {"line_break": None}, "text.line_break: text is required, but None came"),
        (TextSettings, {"vocabulary_splits": "test"}, "one of 'train', 'train+test' is required, but 'test' came"),
        (MaskingSettings, {"selection_rate": 1.5}, "masking.selection_rate: a rate from 0 to 1 is required"),
        *(
            (
                MaskingSettings,
                {"selection_rate": sign * 10**400},
                f"masking.selection_rate: a number that a float can hold is required, but {str(sign)[:-1]}1000",
            )
            for sign in (1, -1)
        ),
        (MaskingSettings, {"selection_rate": 10**9000}, "a number that a float can hold is required, but int too long"),
        (MaskingSettings, {"selection_rate": "0.15"}, "masking.selection_rate: a number is required"),
        (MaskingSettings, {"replacement_rate": -0.1}, "masking.replacement_rate: a rate from 0 to 1 is required"),
        (MaskingSettings, {"random_rate": math.nan}, "masking.random_rate: a rate from 0 to 1 is required"),
        (MaskingSettings, {"protected_ids": (0, 0)}, "masking.protected_ids: a list of different ids"),
        (MaskingSettings, {"protected_ids": (-1,)}, "masking.protected_ids: a list of different ids"),
        (MaskingSettings, {"protected_ids": 0}, "masking.protected_ids: a list is required, but 0 came"),
        (MaskingSettings, {"protected_ids": ("0",)}, "masking.protected_ids: an integer is required"),
        (
            MaskingSettings,
            {"vocabulary_size": 1},
            "masking.vocabulary_size: an integer from 2 to 2**31 - 1 is required, but 1 came",
        ),
        (MaskingSettings, {"vocabulary_size": 2}, "masking.protected_ids: ids below 2 is required"),
        (MaskingSettings, {"static": 1}, "masking.static: true or false is required, but 1 came"),
        (
            ModelSettings,
            {"hidden_size": 0},
            "model.hidden_size: an integer from 1 to 2**31 - 1 is required, but 0 came",
        ),
        (ModelSettings, {"heads": 3}, "model.heads: a divisor of model.hidden_size (128) is required, but 3 came"),
        (ModelSettings, {"blocks": -1}, "model.blocks: an integer from 1 to 2**31 - 1 is required, but -1 came"),
        *(
            (
                ModelSettings,
                {"dropout_rate": rate},
                "model.dropout_rate: 0, or a rate that 16 bits tell from 0 and from 1,",
            )
            for rate in (1.0, -0.1, math.nan, 7e-6, 0.999995)
        ),
        (ModelSettings, {"layer_norm_epsilon": math.inf}, "model.layer_norm_epsilon: a number above 0 is required"),
        (ModelSettings, {"precision": "float16"}, "one of 'float32', 'mixed_bfloat16' is required"),
        (PretrainSettings, {"epochs": -1}, "pretrain.epochs: an integer from 0 to 2**31 - 1 is required, but -1 came"),
        (
            PretrainSettings,
            {"batch_size": 0},
            "pretrain.batch_size: an integer from 1 to 2**31 - 1 is required, but 0 came",
        ),
        (PretrainSettings, {"learning_rate": 0}, "pretrain.learning_rate: a number above 0 is required"),
        (
            PretrainSettings,
            {"embedding_second_moment": "sum"},
            "pretrain.embedding_second_moment: one of 'occurrence', 'word' is required, but 'sum' came",
        ),
        (PretrainSettings, {"epochs": 2**31}, "pretrain.epochs: an integer from 0 to 2**31 - 1 is required"),
        (
            PretrainSettings,
            {"epochs": 10**5000},
            "pretrain.epochs: an integer from 0 to 2**31 - 1 is required, but int",
        ),
        *(
            (
                PretrainSettings,
                {"sample_sentence": sentence},
                "pretrain.sample_sentence: exactly one [mask] is required, but",
            )
            for sentence in ("", "a film", "[mask] [MASK]", "[mask] and [mask]")
        ),
        (PretrainSettings, {"top_k": 0}, "pretrain.top_k: an integer from 1 to 2**31 - 1 is required, but 0 came"),
        (
            FinetuneSettings,
            {"frozen_epochs": -1},
            "finetune.frozen_epochs: an integer from 0 to 2**31 - 1 is required, but -1 came",
        ),
        (
            FinetuneSettings,
            {"unfrozen_epochs": -1},
            "finetune.unfrozen_epochs: an integer from 0 to 2**31 - 1 is required",
        ),
        (
            FinetuneSettings,
            {"classifier_size": 0},
            "finetune.classifier_size: an integer from 1 to 2**31 - 1 is required",
        ),
        (
            FinetuneSettings,
            {"embedding_second_moment": "words"},
            "finetune.embedding_second_moment: one of 'occurrence'",
        ),
        *(
            (
                FinetuneSettings,
                {"validation_rate": rate},
                f"finetune.validation_rate: a rate from 0 to below 1 is required, but {rate} came",
            )
            for rate in (1.0, -0.1, math.nan)
        ),
        (FinetuneSettings, {"frozen_dropout": 1}, "finetune.frozen_dropout: true or false is required, but 1 came"),
        (CorpusSettings, {"name": "imbd"}, "corpus.name: one of 'imdb', 'amazon'"),
        *(
            (CorpusSettings, {"positive_label": label}, f"one of 0, 1 is required, but {label!r} came")
            for label in (2, True, 1.0, "1", None)  # True would be 1 to Python, and true in a record
        ),
        *(
            (CorpusSettings, {"class_names": names}, "corpus.class_names: two different names is required")
            for names in (("a", "b", "c"), ("a",), ("a", "a"))
        ),
        (CorpusSettings, {"shuffle_seed": -1}, "corpus.shuffle_seed: an integer from 0 to 2**63 - 1 is required"),
        (CorpusSettings, {"text_column": "\udcff"}, r"corpus.text_column: Unicode text is required, but '\udcff' came"),
        (CorpusSettings, {"test_rate": 0.0}, "corpus.test_rate: a rate between 0 and 1 is required, but 0.0 came"),
        (
            CorpusSettings,
            {"train_examples": -1},
            "corpus.train_examples: an integer from 0 to 2**31 - 1 is required, but -1 came",
        ),
        (
            CorpusSettings,
            {"test_examples": -1},
            "corpus.test_examples: an integer from 0 to 2**31 - 1 is required, but -1 came",
        ),
        (
            RecordSettings,
            {"checkpoint_steps": 0},
            "record.checkpoint_steps: an integer from 1 to 2**31 - 1 is required",
        ),
        (
            RecordSettings,
            {"kept_checkpoints": 1},
            "record.kept_checkpoints: an integer from 2 to 2**31 - 1 is required, but 1 came",
        ),
        (
            RecordSettings,
            {"fingerprinted_steps": 5},
            "record.fingerprinted_steps: one of 'by_device', 'all' is required, but 5 came",
        ),
        (RunSettings, {"seed": -1}, "seed: an integer from 0 to 2**63 - 1 is required, but -1 came"),
        (RunSettings, {"seed": 2**63}, "seed: an integer from 0 to 2**63 - 1 is required"),
        (RunSettings, {"text": 5}, "text: TextSettings or a table of them is required, but 5 came"),
        (RunSettings, {"model": TextSettings()}, "model: ModelSettings or a table of them is required"),
    ],
)
def test_a_wrong_argument_says_what_is_required(cls: type[Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)) as caught:
        cls(**arguments)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, "'modle' is not a setting; the nearest is 'model'"),
        ({"model": {"heads": "4"}}, "model.heads: an integer is required, but '4' came"),
        ({"model": {"head": 4}}, "model: 'head' is not a setting; the nearest is 'heads'"),
        ({"model": {"zzz": 4}}, "'zzz' is not a setting; there are hidden_size, heads"),
        ({"model": 4}, "model: ModelSettings or a table of them is required, but 4 came"),
    ],
)
def test_an_unknown_key_names_the_nearest(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        settings_from_dict(RunSettings, values)


@given(rates)
def test_a_whole_number_is_taken_for_a_real_one(rate: float) -> None:
    assert MaskingSettings(selection_rate=int(rate)).selection_rate == float(int(rate))
    assert type(MaskingSettings(selection_rate=int(rate)).selection_rate) is float


def test_settings_are_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunSettings().seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        ModelSettings(128)  # type: ignore[misc]


def test_the_mask_is_the_last_id_and_needs_a_vocabulary() -> None:
    assert MaskingSettings(vocabulary_size=30_000).mask_id == 29_999
    with pytest.raises(SettingsError, match=r"masking\.vocabulary_size: a number of ids is required, but None came"):
        _ = MaskingSettings().mask_id


def test_every_setting_is_documented() -> None:
    """A setting without a sentence of its own is a number that nobody can choose."""
    from pathlib import Path

    import minibert

    modules = [Path(minibert.__file__).with_name(name) for name in ("settings.py", "training_settings.py")]
    source = "\n".join(module.read_text(encoding="utf-8") for module in modules)
    for key in valid_settings():
        field = key.rpartition(".")[2]
        assert re.search(rf'^    {field}: [^\n]+\n    """', source, re.MULTILINE), key
