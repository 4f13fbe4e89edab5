"""A model from raw text to sentiment: the text layer inside, the classifier behind it.

model.predict(tf.constant(["A great film!"]))  ->  [[0.97]]
model.evaluate(frame)                          ->  columns review and sentiment, raw
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from minibert.corpora.corpus import TextBatch
from minibert.settings import TextSettings
from minibert.text import Vocabulary, stripped_pattern


@keras.saving.register_keras_serializable(package="minibert")
class Standardize:
    """The standardization of `minibert.text` as TensorFlow operations, for ``TextVectorization``.

    Args:
        lowercase: ``ascii`` or ``none``.
        line_break: Literal markup that becomes a space.
        stripped_characters: Characters that are removed.
    """

    def __init__(self, lowercase: str, line_break: str, stripped_characters: str) -> None:
        self.lowercase, self.line_break, self.stripped_characters = lowercase, line_break, stripped_characters

    def __call__(self, texts: Any) -> Any:
        """Standardizes strings of any shape."""
        if self.lowercase != "none":
            texts = tf.strings.lower(texts)  # A to Z only
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


@keras.saving.register_keras_serializable(package="minibert")
class EndToEndClassifier(keras.Model):
    """A functional model of raw strings whose `evaluate` also takes a raw table."""

    def evaluate(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Evaluates as Keras does; or on a DataFrame with a text and a 0 / 1 label column.

        Args:
            x: Strings (examples,), or a DataFrame: its columns ``review`` and ``sentiment``, or else its
                first two, are texts and labels.
            y: Labels (examples,), if ``x`` is strings.
            **kwargs: As Keras'.
        """
        if hasattr(x, "columns") and y is None:
            columns = list(x.columns)
            text, label = ("review", "sentiment") if {"review", "sentiment"} <= set(columns) else columns[:2]
            x, y = tf.constant(x[text].tolist()), tf.constant(x[label].astype("float32").tolist())
        return super().evaluate(x, y, **kwargs)


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
    # SGD has no state, so a model that only evaluates carries none.
    model.compile(optimizer="sgd", loss="binary_crossentropy", metrics=["accuracy"], jit_compile=False)
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
        ``loss`` (mean binary cross-entropy), ``accuracy`` (0 to 1) and ``examples``.
    """
    signature = [tf.TensorSpec([None], tf.string)]
    predict = tf.function(lambda texts: model(texts, training=False), input_signature=signature)
    losses, correct, count = 0.0, 0, 0
    for batch in batches:
        texts = np.array(batch.texts.to_pylist(), dtype=object)
        assert batch.labels is not None
        for start in range(0, len(texts), batch_size):
            part = slice(start, start + batch_size)
            probability = predict(tf.constant(texts[part])).numpy()[:, 0]
            loss, hits = _probability_score(probability, batch.labels[part])
            losses, correct, count = losses + loss, correct + hits, count + len(probability)
            advance(len(probability), accuracy=correct / count)
    return {"loss": losses / count, "accuracy": correct / count, "examples": count}


def _probability_score(probability: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """Sum of binary cross-entropies, probabilities clipped to 1e-7 as Keras does, and right answers."""
    clipped = np.clip(probability.astype(np.float64), 1e-7, 1.0 - 1e-7)
    losses = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))
    return float(losses.sum()), int(np.sum((probability > 0.5) == (labels == 1)))
