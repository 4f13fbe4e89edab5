"""A step whose sums could race is refused by name, and what TensorFlow makes of ours has no such sum either."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from minibert.errors import RepeatabilityError
from minibert.training.repeatability import racing_sums, require_repeatable
from minibert.training.step import TrainingStep
from tests.executed_graphs import racing_nodes

BATCH = {"inputs": np.ones((2, 3, 4), np.float32)}


class Projections:
    """A block whose input feeds so many dense layers and the residual sum: the fault that Keras' attention has."""

    def __init__(self, *names: str) -> None:
        inputs = keras.Input((3, 4))
        hidden = keras.layers.Dense(4, name="embedding")(inputs)
        outputs = [keras.layers.Dense(4, name=name)(hidden) for name in names]
        self.model = keras.Model(inputs, keras.layers.Add(name="joined")([hidden, *outputs]), name="block")
        self.variables = self.model.trainable_weights

    def __call__(self, batch):
        hidden = self.model(batch["inputs"])
        total = tf.reduce_sum(hidden * hidden)
        return total, {"loss": total, "count": tf.constant(1.0)}, {"joined": hidden}


def step_of(*names: str, checked: bool = True) -> TrainingStep:
    return TrainingStep(Projections(*names), learning_rate=0.1, seed=0, stage="pretrain", checked=checked)


def named(text: str) -> set[str]:
    """Which of the projections a message names; Keras counts their names up."""
    return {name for name in ("query", "key", "value") if f"{name}_" in text or f"{name}/" in text}


def test_a_block_input_with_three_projections_is_refused_and_they_are_named():
    step = step_of("query", "key", "value")
    before = [variable.numpy() for variable in step.objective.variables]
    with pytest.raises(RepeatabilityError) as caught:
        step(0, BATCH)
    message = str(caught.value)
    assert message.startswith(
        "training step: at most two consumers of a tensor with a gradient are required, but 4 gradients are added in a "
        "racing order (AddN"
    )
    assert "\n" not in message
    assert named(message) == {"query", "key", "value"}
    after = [variable.numpy() for variable in step.objective.variables]
    assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True)), "refused before any update"


def test_two_consumers_are_the_most():
    for names, found in ((["query"], []), (["query", "key"], [3]), (["query", "key", "value"], [4])):
        step = step_of(*names, checked=False)
        step.trace(BATCH)
        assert [len(racing.layers) for racing in racing_sums(step.graph)] == found


def test_a_racing_step_runs_only_unchecked():
    step = step_of("query", "key", "value", checked=False)
    step(0, BATCH)
    (racing,) = racing_sums(step.graph)
    assert named(" ".join(racing.layers)) == {"query", "key", "value"}


def traced(function, *shapes):
    signature = [tf.TensorSpec(shape) for shape in shapes]
    return tf.function(function, autograph=False).get_concrete_function(*signature).graph


def test_sums_inside_functions_are_found():
    """Also where all functions have one name: a graph is called as its Python function, here ``<lambda>``."""
    inner = tf.function(lambda x: tf.add_n([x, x * 2.0, x * 3.0]), autograph=False)
    middle = tf.function(lambda x: inner(x) + 1.0, autograph=False)
    graph = traced(lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: middle(x), lambda: x), [3])
    assert len(racing_sums(graph)) == 1
    with pytest.raises(RepeatabilityError, match="3 gradients are added in a racing order"):
        require_repeatable(graph)


def test_compiled_sums_whole_numbers_and_pairs_are_accepted():
    compiled = tf.function(lambda x: tf.add_n([x, x * 2.0, x * 3.0]), autograph=False, jit_compile=True)

    def run(x):
        whole = tf.cast(x, tf.int32)
        return compiled(x), tf.add_n([whole, whole + 1, whole + 2]), tf.add_n([x, x * 2.0])

    require_repeatable(traced(run, [3]))


# The executed graph; those of the real steps are in test_step.py


def test_rewriting_does_make_sums_that_race():
    """The danger is real: TensorFlow turns ((a + b) + c) + d of known shapes into one sum of four."""

    @tf.function(autograph=False)
    def chain(x):
        a, b, c, d = (tf.matmul(x * float(n), x) for n in range(1, 5))
        return ((a + b) + c) + d

    x = tf.ones([3, 3])
    require_repeatable(chain.get_concrete_function(x).graph)
    _, racing = racing_nodes(lambda: chain(x))
    assert [name.rpartition(" of ")[2] for name in racing] == ["4"]
