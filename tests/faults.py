"""Faults to plant into a run, each by one change around healthy code: what a defect, a race or an edit would do.

A fault takes pytest's ``monkeypatch`` and changes one thing. Most change it at one step of one stage, so
that a test can ask for exactly that step back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from minibert import end_to_end, examples, executing, masking, preparation
from minibert.batches import Arrays, ClassifierBatches, MaskedLMBatches
from minibert.corpora.corpus import Corpus, Split, TextBatch, make_corpus
from minibert.errors import DivergenceError
from minibert.model import attention, dropout, encoder, heads
from minibert.model.backend import read
from minibert.model.rows import rearrange
from minibert.text import Vocabulary
from minibert.training import finetune
from minibert.training import step as training_step
from minibert.training.step import TrainingStep

Patch = pytest.MonkeyPatch
Fault = Callable[[Patch], None]


# The batches


def in_batch(stage: str, step: int, change: Callable[[Arrays], None]) -> Fault:
    """Changes the arrays of one batch in place."""
    kind: Any = MaskedLMBatches if stage == "pretrain" else ClassifierBatches
    healthy = kind.batch

    def batch(self: Any, number: int) -> Arrays:
        found: Arrays = healthy(self, number)
        if number == step and self._last._order.stage == stage:
            change(found)
        return found

    return lambda patch: patch.setattr(kind, "batch", batch)


def swap_examples(batch: Arrays) -> None:
    """The first two examples of a classifier's batch change places."""
    for values in batch.values():
        values[[0, 1]] = values[[1, 0]]


def flip_label(batch: Arrays) -> None:
    batch["labels"][0] = 1 - batch["labels"][0]


def change_target(batch: Arrays) -> None:
    batch["labels"][0] += 1


def unmask_one(batch: Arrays) -> None:
    """One selected token is not predicted."""
    batch["sample_weight"][0] = 0.0


def leak_labels(batch: Arrays) -> None:
    """The model reads the words that it is to predict."""
    flat = batch["token_ids"].reshape(-1)
    count = int(batch["sample_weight"].sum())
    flat[batch["positions"][:count]] = batch["labels"][:count]


def skip_step(step: int) -> Fault:
    """From this step on, pretraining is one batch ahead."""
    healthy = MaskedLMBatches.batch
    return lambda patch: patch.setattr(
        MaskedLMBatches, "batch", lambda self, number: healthy(self, number + (number >= step))
    )


def other_masks(step: int) -> Fault:
    """From this step on, masks are drawn with another seed."""
    healthy = MaskedLMBatches.batch

    def batch(self: Any, number: int) -> Arrays:
        seed = self._seed
        self._seed = seed + (number >= step)
        try:
            return healthy(self, number)
        finally:
            self._seed = seed

    return lambda patch: patch.setattr(MaskedLMBatches, "batch", batch)


def mask_rate(patch: Patch) -> None:
    """Half as many tokens are selected as the settings ask for."""
    healthy = masking._rule_of

    def halved(settings: Any) -> Any:
        rule = healthy(settings)
        return dataclasses.replace(rule, selected_below=rule.selected_below // 2)

    patch.setattr(masking, "_rule_of", halved)


# The state between two steps


def lost_update(stage: str, step: int) -> Fault:
    """After a step, weights and optimizer are what they were before it."""
    healthy = TrainingStep.__call__

    def call(self: Any, number: int, batch: Arrays) -> Any:
        state = [*self.objective.variables, *self.optimizer.variables]
        before = [np.array(variable) for variable in state]
        result = healthy(self, number, batch)
        if number == step and self._stage == stage:
            for variable, value in zip(state, before, strict=True):
                variable.assign(value)
        return result

    return lambda patch: patch.setattr(TrainingStep, "__call__", call)


def before_step(stage: str, step: int, change: Callable[[TrainingStep], None]) -> Fault:
    """Changes weights or optimizer just before a step."""
    healthy = TrainingStep.__call__

    def call(self: Any, number: int, batch: Arrays) -> Any:
        if number == step and self._stage == stage:
            change(self)
        return healthy(self, number, batch)

    return lambda patch: patch.setattr(TrainingStep, "__call__", call)


def one_ulp(path: str) -> Callable[[TrainingStep], None]:
    """The first element of a weight becomes the next greater float32."""
    return _first_element(path, lambda value: np.nextafter(value, np.float32(np.inf)))


def not_a_number(path: str) -> Callable[[TrainingStep], None]:
    """The first element of a weight becomes NaN."""
    return _first_element(path, lambda value: np.float32(np.nan))


def flipped_exponent(path: str) -> Callable[[TrainingStep], None]:
    """The highest bit of the first element's exponent is flipped, as a particle in a memory cell does."""
    return _first_element(path, lambda value: (value.view(np.uint32) ^ np.uint32(1 << 30)).view(np.float32))


def in_row(path: str, row: int) -> Callable[[TrainingStep], None]:
    """One element of one row of a weight becomes the next greater float32."""

    def change(value: np.ndarray) -> None:
        value[row, 0] = np.nextafter(value[row, 0], np.float32(np.inf))

    return lambda step: _in_place(step.objective.variables, path, change)


def in_encoder(path: str, factor: float, *, row: int = 0) -> Callable[[TrainingStep], None]:
    """One row of a weight of a classifier's encoder, which a frozen stage does not train, is multiplied."""

    def change(value: np.ndarray) -> None:
        value[row] *= np.float32(factor)

    def in_step(step: TrainingStep) -> None:
        objective: Any = step.objective
        _in_place(objective._classifier.get_layer("encoder").variables, path, change)

    return in_step


def _first_element(path: str, changed: Callable[[np.float32], np.float32]) -> Callable[[TrainingStep], None]:
    def change(value: np.ndarray) -> None:
        value.flat[0] = changed(value.flat[0])

    return lambda step: _in_place(step.objective.variables, path, change)


def _in_place(variables: list[Any], path: str, change: Callable[[np.ndarray], None]) -> None:
    """Changes the value of the variable with this path."""
    variable = next(v for v in variables if v.path == path)
    value = np.array(variable)
    change(value)
    variable.assign(value)


def after_training(stage: str, change: Callable[[TrainingStep], None]) -> Fault:
    """Changes weights or optimizer after the last step of a stage."""
    healthy = executing.train

    def train(trained: Any, *given: Any, **named: Any) -> None:
        healthy(trained, *given, **named)
        if trained.name == stage:
            change(trained.step)

    return lambda patch: patch.setattr(executing, "train", train)


def optimizer_state(path_end: str) -> Callable[[TrainingStep], None]:
    """One of the optimizer's variables is doubled."""

    def change(step: TrainingStep) -> None:
        variable = next(v for v in step.optimizer.variables if v.path.endswith(path_end))
        variable.assign(np.array(variable) * np.float32(2.0))

    return change


# What a step computes


def changed_gradient(step: int) -> Fault:
    """At one step, one element of the gradient of the vocabulary projection's bias is a little larger."""
    healthy = heads.masked_lm_loss

    def loss(hidden: Any, kernel: Any, bias: Any, labels: Any, weight: Any, **chunks: int) -> Any:
        is_now = tf.equal(dropout._scope.stream._step, step)

        @tf.custom_gradient
        def same(value: Any) -> Any:
            def gradient(upstream: Any) -> Any:
                first = tf.one_hot(0, tf.size(upstream), dtype=upstream.dtype)
                return tf.where(is_now, upstream + 1e-3 * first, upstream)

            return tf.identity(value), gradient

        return healthy(hidden, kernel, same(tf.convert_to_tensor(bias)), labels, weight, **chunks)

    return lambda patch: patch.setattr(heads, "masked_lm_loss", loss)


def other_dropout_stream(patch: Patch) -> None:
    healthy = training_step.DropoutStream
    patch.setattr(training_step, "DropoutStream", lambda *, seed, stage, step: healthy(seed=seed, stage="x", step=step))


def carried_dropout_step(patch: Patch) -> None:
    """Dropout counts from 1."""
    healthy = training_step.DropoutStream
    patch.setattr(
        training_step, "DropoutStream", lambda *, seed, stage, step: healthy(seed=seed, stage=stage, step=step + 1)
    )


def adam(**changes: Any) -> Fault:
    """Other parameters of the optimizer."""
    healthy = training_step.Adam
    return lambda patch: patch.setattr(
        training_step, "Adam", lambda rate, **given: healthy(**{"learning_rate": rate, **given, **changes})
    )


def layer_norm_epsilon(patch: Patch) -> None:
    healthy = encoder.LayerNormalization
    patch.setattr(encoder, "LayerNormalization", lambda **given: healthy(**{**given, "epsilon": 2 * given["epsilon"]}))


def activation_function(patch: Patch) -> None:
    healthy = keras.layers.Dense
    patch.setattr(
        keras.layers,
        "Dense",
        lambda *given, **named: healthy(
            *given, **{**named, **({"activation": "gelu"} if named["name"] == "inner" else {})}
        ),
    )


def dropout_rate(patch: Patch) -> None:
    healthy = encoder.StreamDropout
    patch.setattr(encoder, "StreamDropout", lambda rate, **given: healthy(rate * 1.1, **given))


def loss_reduction(patch: Patch) -> None:
    healthy = heads.MaskedLMObjective.__init__

    def mean(self: Any, model: Any, *, reduction: str, **chunks: int) -> None:
        healthy(self, model, reduction="mean", **chunks)

    patch.setattr(heads.MaskedLMObjective, "__init__", mean)


def initial_weights(patch: Patch) -> None:
    healthy = encoder.set_initial_weights
    patch.setattr(encoder, "set_initial_weights", lambda model, seed, *, heads: healthy(model, seed + 1, heads=heads))


def thawed_encoder(patch: Patch) -> None:
    """The frozen stage trains the encoder."""
    healthy = heads.ClassifierObjective.__init__
    patch.setattr(
        heads.ClassifierObjective,
        "__init__",
        lambda self, classifier, *, encoder_trainable, **given: healthy(
            self, classifier, encoder_trainable=True, **given
        ),
    )


def kept_optimizer(patch: Patch) -> None:
    """The unfrozen stage's optimizer counts on from the frozen stage's steps."""
    healthy = TrainingStep.__init__

    def init(self: Any, objective: Any, **given: Any) -> None:
        healthy(self, objective, **given)
        if given["stage"] == "unfrozen":
            self.optimizer.iterations.assign(15)

    patch.setattr(TrainingStep, "__init__", init)


def three_consumers(patch: Patch) -> None:
    """The key and each half of the value take the last block's input."""

    def project_apart(self: Any, rows: Any, length: int, queries: attention.Queries, most: Any) -> list[list[Any]]:
        kernels, biases = (tf.split(read(weight), 6, axis=-1) for weight in (self.qkv_kernel, self.qkv_bias))
        of_query, of_key = (tf.concat(kernels[place : place + 2], axis=1) for place in (0, 2))
        query_bias, key_bias = (tf.concat(biases[place : place + 2], axis=0) for place in (0, 2))
        query = rearrange(queries.hidden @ of_query + query_bias, queries.row_of_query, queries.query_of_row)
        halves = [tf.matmul(rows, kernel) + bias for kernel, bias in zip(kernels[4:], biases[4:], strict=True)]
        others = (tf.matmul(rows, of_key) + key_bias, tf.concat(halves, axis=1))
        parts = [self._by_group(query, 1, most), *(self._by_group(other, 1, length) for other in others)]
        return [[part for group in groups for part in group] for groups in zip(*parts, strict=True)]

    patch.setattr(attention.SelfAttention, "_project_apart", project_apart)


def third_consumer(patch: Patch) -> None:
    """A block that computes every position adds a part of its input to what its attention gives."""
    healthy = attention.SelfAttention.call

    def call(self: Any, inputs: Any, padding_mask: Any = None, queries: Any = None) -> Any:
        attended = healthy(self, inputs, padding_mask, queries)
        return attended if queries is not None else attended + 1e-3 * inputs

    patch.setattr(attention.SelfAttention, "call", call)


# What is computed beside the steps


def validation_loss(patch: Patch) -> None:
    healthy = finetune.score
    patch.setattr(
        finetune,
        "score",
        lambda logits, labels: dataclasses.replace(healthy(logits, labels), loss=healthy(logits, labels).loss + 1e-9),
    )


def evaluation_that_diverges(patch: Patch) -> None:
    """An epoch's end finds something that is no number."""
    from minibert.training import pretrain

    def diverge(*given: Any, **named: Any) -> Any:
        raise DivergenceError("pretrain: a finite figure is required, but nan came")

    patch.setattr(pretrain, "predict_masked", diverge)


def predictions(patch: Patch) -> None:
    """The sample sentence's second best word is shown first."""
    from minibert.training import pretrain

    healthy = pretrain.predict_masked
    patch.setattr(pretrain, "predict_masked", lambda *given, **named: [words[1:] for words in healthy(*given, **named)])


def weights_after_training(patch: Patch) -> None:
    """The raw-text model is built with a classifier that is not the trained one."""
    healthy = executing.build_end_to_end

    def build(classifier: Any, *given: Any) -> Any:
        variable = classifier.get_layer("logits").bias
        variable.assign(np.nextafter(np.array(variable), np.float32(np.inf)))
        return healthy(classifier, *given)

    patch.setattr(executing, "build_end_to_end", build)


def raw_text(patch: Patch) -> None:
    """The raw-text model does not strip what the classifier's texts were stripped of."""
    healthy = end_to_end.Standardize.__call__

    def call(self: Any, texts: Any) -> Any:
        return tf.strings.regex_replace(healthy(self, texts), "e", "")

    patch.setattr(end_to_end.Standardize, "__call__", call)


# The inputs


def swapped_in_corpus(patch: Patch) -> None:
    """The first two training examples have changed places in the source."""
    healthy = preparation.open_corpus

    def opened(*given: Any, **named: Any) -> Corpus:
        corpus = healthy(*given, **named)

        def read(split: Split) -> Any:
            for batch in corpus.batches(split):
                order = [1, 0, *range(2, len(batch.texts))]
                labels = None if batch.labels is None else batch.labels[order]
                yield TextBatch(batch.texts.take(order), labels)

        return make_corpus(corpus.name, corpus.class_names, read)

    patch.setattr(preparation, "open_corpus", opened)


def other_word(patch: Patch) -> None:
    """One word of the vocabulary is another."""
    healthy = examples.learn_vocabulary

    def learned(*given: Any, **named: Any) -> Vocabulary:
        words = list(healthy(*given, **named).words)
        words[5] += "x"
        return Vocabulary(tuple(words))

    patch.setattr(examples, "learn_vocabulary", learned)


def other_encoding(patch: Patch) -> None:
    """The last token of every example is lost."""
    healthy = examples.encode

    def encoded(*given: Any) -> np.ndarray:
        ids = healthy(*given)
        ids[:, -1] = 0
        return ids

    patch.setattr(examples, "encode", encoded)
