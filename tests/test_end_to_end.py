"""The raw-text model is the text's encoding and the classifier, in one file that opens without help."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minibert.corpora.corpus import TextBatch
from minibert.end_to_end import Standardize, build_end_to_end, evaluate_raw_text
from minibert.errors import SettingsError
from minibert.model.encoder import build_masked_lm
from minibert.model.heads import build_classifier
from minibert.scoring import score
from minibert.settings import FinetuneSettings, ModelSettings, TextSettings
from minibert.text import Vocabulary, encode, learn_vocabulary, standardize
from minibert.training.finetune import ClassifierForward
from tests.closeness import deviation

TEXTS = ["A great film!<br />Great.", "a bad film", "", "Été naïve [mask] unseen", "bad\u2028bad\x85 bad", "great " * 9]
LABELS = [1, 0, 0, 1, 0, 1]
SETTINGS = TextSettings(vocabulary_size=20, sequence_length=6)
MODEL = ModelSettings(hidden_size=8, heads=2, feed_forward_size=8)


def arrow(texts: list[str]) -> pa.Array:
    return pa.array(texts, type=pa.string())


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return learn_vocabulary([arrow(TEXTS)], SETTINGS)


@pytest.fixture(scope="module")
def classifier(vocabulary):
    masked_lm = build_masked_lm(MODEL, vocabulary_size=len(vocabulary), sequence_length=6, seed=0)
    return build_classifier(masked_lm, FinetuneSettings(classifier_size=6), MODEL, seed=0)


@pytest.fixture(scope="module")
def model(classifier, vocabulary):
    return build_end_to_end(classifier, vocabulary, SETTINGS)


def known_probabilities(classifier, vocabulary) -> np.ndarray:
    return classifier(encode(arrow(TEXTS), vocabulary, SETTINGS)).numpy()


def test_predicting_raw_texts_is_encoding_and_classifying(model, classifier, vocabulary):
    probabilities = model.predict(tf.constant(TEXTS), verbose=0)
    assert probabilities.shape == (len(TEXTS), 1)
    assert deviation(probabilities, known_probabilities(classifier, vocabulary)) < 1e-6
    assert deviation(model(tf.constant(TEXTS)), probabilities) < 1e-6


@hypothesis_settings(max_examples=30)
@given(texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30), min_size=1))
@example(texts=["BAD<BR />\x1cbad\xa0bad \x0bgreat", "[mask] [MASK] [UNK]"])
def test_texts_are_encoded_as_for_training(model, vocabulary, texts):
    ids = model.get_layer("encode")(tf.constant(texts)).numpy()
    assert ids.tolist() == encode(arrow(texts), vocabulary, SETTINGS).tolist()


any_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
CASES = "İI\u0131iΣς ΟΔΥΣΣΕΥΣ ẞß ǄǅǆﬁŉKÅΩⒶⅧᲐ\u13a0\uab70𐐀𞤀 \ufeffÉ\ufffe\uffff\U0010ffff\x7f\x01"
UNICODE = TextSettings(lowercase="unicode", line_break="", stripped_characters="")
KEEPS_NONCHARACTERS = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 20)
NONCHARACTERS = {c: 0xFFFD for c in range(sys.maxunicode + 1) if 0xFDD0 <= c <= 0xFDEF or c & 0xFFFE == 0xFFFE}


def decoded(texts):
    """As TensorFlow decodes them: before 2.20 the 66 code points that are no characters are replaced."""
    return texts if KEEPS_NONCHARACTERS else [text.translate(NONCHARACTERS) for text in texts]


@given(texts=st.lists(any_text, min_size=1))
@example(texts=[CASES, "", "\ufeff"])
def test_all_letters_are_lowered_in_the_model_as_for_training(texts):
    found = Standardize("unicode", "", "")(tf.constant(texts)).numpy()
    assert [text.decode() for text in found] == decoded(standardize(arrow(texts), UNICODE).to_pylist())


def test_every_character_is_lowered_in_the_model_as_for_training():
    characters = [chr(c) for c in range(1, sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    texts = ["".join(characters[start : start + 4096]) for start in range(0, len(characters), 4096)]
    found = Standardize("unicode", "", "")(tf.constant(texts)).numpy()
    assert [text.decode() for text in found] == decoded(standardize(arrow(texts), UNICODE).to_pylist())


@pytest.mark.parametrize("lowercase", ["ascii", "unicode", "none"])
@pytest.mark.parametrize("shape", [(), (0,), (6,), (3, 2), (6, 1)])
def test_texts_of_any_shape_keep_it(shape, lowercase):
    texts = tf.reshape(tf.constant(["ÉTÉ"] * int(np.prod(shape)), tf.string), shape)
    for layer in (Standardize(lowercase, "", ""), tf.function(Standardize(lowercase, "", ""))):
        found = layer(texts)
        assert found.shape == shape
        assert {text.decode() for text in np.ravel(found)} <= {"ÉtÉ", "été", "ÉTÉ"}


def test_a_model_that_lowers_all_letters_is_saved_and_loaded(classifier, tmp_path):
    settings = TextSettings(vocabulary_size=20, sequence_length=6, lowercase="unicode")
    vocabulary = learn_vocabulary([arrow(TEXTS)], settings)
    build_end_to_end(classifier, vocabulary, settings).save(tmp_path / "model.keras")
    loaded, texts = keras.models.load_model(tmp_path / "model.keras", safe_mode=True), ["ÉTÉ", "été NAÏVE Bad"]
    ids = loaded.get_layer("encode")(tf.constant(texts)).numpy()
    assert ids.tolist() == encode(arrow(texts), vocabulary, settings).tolist()
    assert (ids[0, 0], ids[0, 0] > 1) == (ids[1, 0], True)


@pytest.mark.parametrize(
    "changed",
    [
        {"lowercase": "none"},
        {"lowercase": "unicode"},
        {"line_break": ""},
        {"line_break": "(.*) é-\\d"},
        {"stripped_characters": ""},
        {"stripped_characters": "^]\\-[é"},
    ],
)
def test_every_text_setting_is_the_same_in_the_model(changed):
    settings = TextSettings(**changed)
    layer = Standardize(settings.lowercase, settings.line_break, settings.stripped_characters)
    texts = ["ÉTÉ Film<br />a(.*) é-\\dB^]\\-[c. ...", "", "<BR /> A"]
    found = [text.decode() for text in layer(tf.constant(texts)).numpy()]
    assert found == standardize(arrow(texts), settings).to_pylist()
    assert Standardize.from_config(layer.get_config()).get_config() == layer.get_config()


def test_every_text_is_predicted_alone(model):
    whole = model(tf.constant(TEXTS)).numpy()
    for row, text in enumerate(TEXTS):
        assert deviation(model(tf.constant([text])), whole[row : row + 1]) < 1e-6


# Saved and loaded


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("end_to_end") / "end_to_end.keras"
    model.save(path)
    return path


def test_a_saved_model_is_loaded_in_safe_mode_and_predicts_the_same(model, saved):
    loaded = keras.models.load_model(saved, safe_mode=True)
    assert type(loaded) is type(model)
    assert np.array_equal(loaded(tf.constant(TEXTS)), model(tf.constant(TEXTS)))
    assert loaded.get_layer("encode").get_vocabulary() == model.get_layer("encode").get_vocabulary()


@pytest.mark.slow
def test_a_saved_model_opens_in_a_fresh_process(saved):
    code = (
        "import sys, minibert, keras, tensorflow as tf; model = keras.models.load_model(sys.argv[1])\n"
        "print(float(model.predict(tf.constant(['a great film']), verbose=0)[0, 0]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0.0 < float(done.stdout) < 1.0


# Evaluated


@pytest.mark.long
def test_evaluate_takes_a_raw_table(model, classifier, vocabulary):
    probability = known_probabilities(classifier, vocabulary)[:, 0].astype(np.float64)
    labels = np.array(LABELS)
    loss = -np.where(labels == 1, np.log(probability), np.log1p(-probability)).mean()
    accuracy = ((probability > 0.5) == (labels == 1)).mean()
    columns = {"text_column": "text", "label_column": "label"}
    for frame, named in (
        (pd.DataFrame({"review": TEXTS, "sentiment": LABELS}), {}),
        (pd.DataFrame({"number": range(6), "sentiment": LABELS, "review": TEXTS}, index=range(10, 16)), {}),
        (pd.DataFrame({"text": TEXTS, "label": np.array(LABELS, dtype=np.int8), "more": 0}), columns),
    ):
        found = model.evaluate(frame, verbose=0, batch_size=4, **named)
        np.testing.assert_allclose(found, [loss, accuracy], rtol=1e-5)
    found = model.evaluate(tf.constant(TEXTS), tf.constant(LABELS, tf.float32), verbose=0, return_dict=True)
    np.testing.assert_allclose([found["loss"], found["accuracy"]], [loss, accuracy], rtol=1e-5)


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        (["text", "label"], {}, "text_column: a column of the table is required ('text', 'label'), but 'review' came"),
        (
            ["review", "label"],
            {},
            "label_column: a column of the table is required ('review', 'label'), but 'sentiment'",
        ),
        (["review", "sentiment"], {"text_column": "body"}, "text_column: a column of the table is required"),
    ],
)
def test_a_table_without_the_columns_is_refused_not_guessed(model, columns, named, message):
    frame = pd.DataFrame({columns[0]: TEXTS, columns[1]: LABELS})
    with pytest.raises(SettingsError, match=re.escape(message)):
        model.evaluate(frame, verbose=0, **named)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("review", None, "text_column: row 3 of column 'review': Unicode text is required, but None came"),
        ("review", float("nan"), "text_column: row 3 of column 'review': Unicode text is required, but nan came"),
        ("review", pd.NA, "text_column: row 3 of column 'review': Unicode text is required, but <NA> came"),
        ("review", 7, "text_column: row 3 of column 'review': Unicode text is required, but 7 came"),
        ("review", "\udcff", r"text_column: row 3 of column 'review': Unicode text is required, but '\udcff' came"),
        ("sentiment", "positive", "label_column: row 3 of column 'sentiment': 0 or 1 is required, but 'positive' came"),
        ("sentiment", None, "label_column: row 3 of column 'sentiment': 0 or 1 is required, but None came"),
        ("sentiment", float("nan"), "label_column: row 3 of column 'sentiment': 0 or 1 is required, but nan came"),
        ("sentiment", 2, "label_column: row 3 of column 'sentiment': 0 or 1 is required, but 2 came"),
        ("sentiment", 10**400, "label_column: row 3 of column 'sentiment': 0 or 1 is required, but 1000"),
    ],
    ids=["none", "nan", "NA", "number", "surrogate", "word", "no label", "nan label", "two", "too much"],
)
def test_a_table_with_a_wrong_value_is_refused_by_its_row(model, column: str, value: Any, message: str):
    table = {"review": [*TEXTS], "sentiment": [*LABELS]}
    table[column][2] = value
    frame = pd.DataFrame({name: pd.Series(values, range(10, 16), object) for name, values in table.items()})
    with pytest.raises(SettingsError) as caught:
        model.evaluate(frame, verbose=0)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_table_without_rows_is_refused(model):
    with pytest.raises(SettingsError, match="text_column: a column with rows is required, but 'review' has none"):
        model.evaluate(pd.DataFrame({"review": [], "sentiment": []}), verbose=0)


@pytest.mark.parametrize("kind", ["bool", "Int64", "float64", "category", "str"])
def test_a_table_may_have_its_labels_in_any_type(model, kind):
    expected = model.evaluate(pd.DataFrame({"review": TEXTS, "sentiment": LABELS}), verbose=0)
    frame = pd.DataFrame({"review": TEXTS, "sentiment": pd.Series(LABELS).astype(kind)})
    assert model.evaluate(frame, verbose=0) == expected


def test_raw_texts_are_evaluated_as_the_classifier_scores_them(model, classifier, vocabulary):
    told = []
    batches = [TextBatch(arrow(TEXTS[:4]), np.array(LABELS[:4], np.int8)),
               TextBatch(arrow(TEXTS[4:]), np.array(LABELS[4:], np.int8))]  # fmt: skip
    found = evaluate_raw_text(
        model, batches, batch_size=3, advance=lambda count, accuracy: told.append((count, accuracy))
    )
    forward = ClassifierForward(classifier)
    expected = score(forward.logits(encode(arrow(TEXTS), vocabulary, SETTINGS), batch_size=3), np.array(LABELS))
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert (found["accuracy"], found["examples"]) == (expected.accuracy, 6)
    assert [count for count, _ in told] == [3, 1, 2]
    assert told[-1][1] == pytest.approx(expected.accuracy)
