"""A model from raw text to sentiment: the text layer inside, the classifier behind it.

model.predict(tf.constant(["A great film!"]))  ->  [[0.97]]
model.evaluate(frame)                          ->  loss and accuracy on columns review and sentiment, raw
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from minibert.checked import is_unicode, require
from minibert.corpora.corpus import TextBatch
from minibert.errors import SettingsError
from minibert.scoring import score
from minibert.settings import TextSettings
from minibert.text import Vocabulary, lower_case_table, stripped_pattern


@keras.saving.register_keras_serializable(package="minibert")
class Standardize:
    """The standardization of `minibert.text` as TensorFlow operations, for ``TextVectorization``.

    Args:
        lowercase: ``ascii``, ``unicode`` or ``none``.
        line_break: Literal markup that becomes a space.
        stripped_characters: Characters that are removed.
    """

    def __init__(self, lowercase: str, line_break: str, stripped_characters: str) -> None:
        self.lowercase, self.line_break, self.stripped_characters = lowercase, line_break, stripped_characters

    def __call__(self, texts: Any) -> Any:
        """Standardizes strings of any shape."""
        if self.lowercase == "ascii":
            texts = tf.strings.lower(texts)  # A to Z only
        elif self.lowercase == "unicode":
            texts = _lower(texts)
        if self.line_break:
            literal = "".join("\\" + c if not c.isalnum() and c.isascii() else c for c in self.line_break)
            texts = tf.strings.regex_replace(texts, literal, " ")
        if self.stripped_characters:
            texts = tf.strings.regex_replace(texts, stripped_pattern(self.stripped_characters), "")
        return texts

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "lowercase": self.lowercase,
            "line_break": self.line_break,
            "stripped_characters": self.stripped_characters,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Standardize:
        """Makes it again."""
        return cls(**config)


def _lower(texts: Any) -> Any:
    """Lower-cases each character by itself, as Arrow does.

    ``tf.strings.lower(encoding="utf-8")`` would look at a letter's neighbours (a Σ that ends a word) and at the
    machine's language (a Turkish I), and makes two characters of İ. TensorFlow before 2.20 replaces the 66 code points
    that Unicode says are no characters by U+FFFD.
    """
    points = tf.strings.unicode_decode(tf.reshape(texts, [-1]), "UTF-8")
    lowered = points.with_values(tf.gather(lower_case_table(), points.values))
    return tf.reshape(tf.strings.unicode_encode(lowered, "UTF-8"), tf.shape(texts))


@keras.saving.register_keras_serializable(package="minibert")
class EndToEndClassifier(keras.Model):
    """A functional model of raw strings whose `evaluate` also takes a raw table."""

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        *,
        text_column: str = "review",
        label_column: str = "sentiment",
        **options: Any,
    ) -> Any:
        """Evaluates as Keras does; or on a DataFrame with a text and a 0 / 1 label column.

        Args:
            x: Strings (examples,), or a DataFrame.
            y: Labels (examples,), if ``x`` is strings.
            text_column: A DataFrame's column of texts; the notebooks' by default.
            label_column: Its column of labels.
            **options: As Keras'.

        Raises:
            SettingsError: The DataFrame has no such columns, where the message says which it has, or no rows; or a text
                is none, or a label is neither 0 nor 1, where it says in which row, counted from 1.
        """
        if hasattr(x, "columns") and y is None:
            texts = _column(x, text_column, "text_column", "Unicode text", _text)
            labels = _column(x, label_column, "label_column", "0 or 1", _label)
            x, y = tf.constant(texts), tf.constant(labels)
        return super().evaluate(x, y, **options)


def _column(frame: Any, column: str, argument: str, required: str, read: Callable[[Any], Any]) -> list[Any]:
    """A DataFrame's column, each value as ``read`` gives it; None is what it gives of a wrong one."""
    if column not in frame.columns:
        there = ", ".join(map(repr, frame.columns))
        raise SettingsError(f"{argument}: a column of the table is required ({there}), but {column!r} came")
    values = frame[column].tolist()
    if not values:
        raise SettingsError(f"{argument}: a column with rows is required, but {column!r} has none")
    found = [read(value) for value in values]
    if None in found:
        row = found.index(None)
        require(False, f"{argument}: row {row + 1} of column {column!r}", required, values[row])
    return found


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and is_unicode(value) else None


def _label(value: Any) -> float | None:
    """0.0 or 1.0 of a number, a truth value or a number in text; None of anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # nothing, a word, or far too much
        return None
    return number if number in (0.0, 1.0) else None


def build_end_to_end(classifier: keras.Model, vocabulary: Vocabulary, settings: TextSettings) -> keras.Model:
    """Puts the text layer before a classifier.

    Args:
        classifier: Ids (batch, sequence) to probability (batch, 1).
        vocabulary: Words by id.
        settings: Standardization and sequence length.

    Returns:
        Compiled model from strings (batch,) to the probability of label 1 (batch, 1).

    Source: ``get_end_to_end`` of both notebooks; theirs ignores its argument and reads a global.
    """
    encode = keras.layers.TextVectorization(
        standardize=Standardize(settings.lowercase, settings.line_break, settings.stripped_characters),
        split="whitespace",
        output_mode="int",
        output_sequence_length=settings.sequence_length,
        vocabulary=list(vocabulary.words[2:]),
        name="encode",
    )
    texts = keras.Input((), dtype="string", name="texts")
    # Older Keras does not know the length of what its text layer gives.
    token_ids = keras.layers.Reshape((settings.sequence_length,), name="token_ids")(encode(texts))
    model = EndToEndClassifier(texts, classifier(token_ids), name="end_to_end")
    # SGD has no state, so a model that only evaluates carries none. Named, because Keras counts its names up.
    sgd = keras.optimizers.SGD(name="sgd")
    model.compile(optimizer=sgd, loss="binary_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def evaluate_raw_text(
    model: keras.Model, batches: Iterable[TextBatch], *, batch_size: int, advance: Callable[..., None]
) -> dict[str, Any]:
    """Evaluates a raw-text model on raw, labelled texts, in bounded memory.

    Args:
        model: From `build_end_to_end`.
        batches: Texts with labels.
        batch_size: Texts per call of the model.
        advance: Is told of every call: the number of texts, and the accuracy so far.

    Returns:
        ``loss`` (mean binary cross-entropy), ``accuracy`` (0 to 1) and ``examples``, as `minibert.scoring` defines
        them: the model is run up to its logits.
    """
    classifier = model.get_layer("classifier")
    logits_of = keras.Model(classifier.input, classifier.get_layer("logits").output)
    encode, token_ids = model.get_layer("encode"), model.get_layer("token_ids")
    signature = [tf.TensorSpec([None], tf.string)]
    predict = tf.function(lambda texts: logits_of(token_ids(encode(texts)), training=False), input_signature=signature)
    logits, labels, correct, count = [], [], 0, 0
    for batch in batches:
        texts = np.array(batch.texts.to_pylist(), dtype=object)
        assert batch.labels is not None
        labels.append(batch.labels)
        for start in range(0, len(texts), batch_size):
            part = slice(start, start + batch_size)
            logits.append(predict(tf.constant(texts[part])).numpy()[:, 0])
            count += len(logits[-1])
            correct += int(np.sum((logits[-1] > 0) == (batch.labels[part] == 1)))
            advance(len(logits[-1]), accuracy=correct / count)
    return dataclasses.asdict(score(np.concatenate(logits), np.concatenate(labels)))
