"""A step whose sums could race is refused by name, and what TensorFlow makes of ours has no such sum either."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from minibert.errors import RepeatabilityError
from minibert.training import execution
from minibert.training.execution import CheckedFunction, executed_graphs, hazards_of, require_repeatable_execution
from minibert.training.repeatability import hazards, require_repeatable
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
        assert [len(hazard.layers) for hazard in hazards(step.graph.as_graph_def())] == found


def test_a_racing_step_runs_only_unchecked():
    step = step_of("query", "key", "value", checked=False)
    step(0, BATCH)
    (hazard,) = hazards(step.graph.as_graph_def())
    assert hazard.kind == "racing sum"
    assert named(" ".join(hazard.layers)) == {"query", "key", "value"}


def traced(function, *shapes):
    signature = [tf.TensorSpec(shape) for shape in shapes]
    return tf.function(function, autograph=False).get_concrete_function(*signature).graph


def kinds(graph) -> list[str]:
    return sorted(hazard.kind for hazard in hazards(graph.as_graph_def()))


def three(x):
    return tf.add_n([x, x * 2.0, x * 3.0])


def compiled(function):
    return tf.function(function, autograph=False, jit_compile=True)


inner = tf.function(three, autograph=False)
middle = tf.function(lambda x: inner(x) + 1.0, autograph=False)


@pytest.mark.parametrize(
    "function",
    [
        three,
        middle,
        lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: middle(x), lambda: x),
        lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: middle(x)),
        lambda x: tf.switch_case(tf.cast(x[0], tf.int32), [lambda: x, lambda: x + 1.0, lambda: middle(x)]),
        lambda x: tf.while_loop(lambda y: tf.reduce_sum(y) < 9.0, lambda y: [middle(y)], [x])[0],
        lambda x: tf.while_loop(lambda y: tf.reduce_sum(middle(y)) < 9.0, lambda y: [y + 1.0], [x])[0],
        lambda x: tf.map_fn(middle, x),
        lambda x: tf.math.accumulate_n([x, x * 2.0, x * 3.0]),
        lambda x: tf.add_n([tf.cast(x * float(n), tf.bfloat16) for n in range(3)]),
        lambda x: tf.add_n([tf.cast(x * float(n), tf.float16) for n in range(3)]),
        lambda x: tf.add_n([tf.cast(x * float(n), tf.float64) for n in range(3)]),
        lambda x: tf.add_n([tf.complex(x * float(n), x) for n in range(3)]),
    ],
    ids=["here", "a function", "then", "else", "a branch", "a loop's body", "a loop's condition", "a map",
         "accumulated", "bfloat16", "float16", "float64", "complex"],
)  # fmt: skip
def test_a_sum_of_three_is_found_wherever_it_is(function):
    """Also where all functions have one name: a graph is called as its Python function, here ``<lambda>``."""
    graph = traced(function, [3])
    assert kinds(graph) == ["racing sum"]
    with pytest.raises(RepeatabilityError, match="3 gradients are added in a racing order"):
        require_repeatable(graph)


def test_compiled_sums_whole_numbers_and_pairs_are_accepted():
    def run(x):
        whole = [tf.add_n([tf.cast(x, dtype)] * 3) for dtype in (tf.int32, tf.int64, tf.uint8)]
        return compiled(three)(x), whole, tf.add_n([x, x * 2.0])

    require_repeatable(traced(run, [3]))


def test_a_function_without_a_graph_is_refused():
    definition = traced(lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: middle(x), lambda: x), [3]).as_graph_def()
    assert len(hazards(definition)) == 1
    lost = definition.library.function.pop()
    with pytest.raises(RepeatabilityError, match="the graph of every function is required, but") as caught:
        hazards(definition)
    assert repr(lost.signature.name) in str(caught.value)


# Calls of one compiled function


softmax = compiled(tf.nn.softmax)
other_softmax = compiled(tf.nn.softmax)
twice = tf.function(lambda x: softmax(x) + softmax(x * 2.0), autograph=False)


def waiting(x, before):
    with tf.control_dependencies([before]):
        return tf.identity(x)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: softmax(x) + softmax(x * 2.0), 1),
        (lambda x: softmax(x) + softmax(x * 2.0) + softmax(x * 3.0), 3),
        (twice, 1),
        (lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: softmax(x), lambda: x) + softmax(x), 1),
        (lambda x: tf.switch_case(tf.cast(x[0], tf.int32), [lambda: x, lambda: twice(x), lambda: x]), 1),
        (lambda x: softmax(softmax(x)), 0),
        (lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: softmax(x), lambda: softmax(x * 2.0)), 0),
        (lambda x: softmax(x) + other_softmax(x), 0),
        (lambda x: softmax(x) + softmax(waiting(x * 2.0, softmax(x))), 2),  # one of three pairs is in order
        (compiled(lambda y: softmax(y) + softmax(y * 2.0)), 0),  # one call, and XLA orders what is in it
    ],
)
def test_two_calls_of_one_compiled_function_need_an_order(function, found):
    graph = traced(function, [3])
    assert kinds(graph) == ["unordered calls"] * found
    if found:
        with pytest.raises(RepeatabilityError, match="calls of a compiled function in a fixed order are required"):
            require_repeatable(graph)


def test_of_one_devices_part_no_order_is_asked():
    """Two of its calls may have their order by way of another device; its sums are its own."""
    definition = traced(lambda x: softmax(x) + softmax(x * 2.0) + three(x), [3]).as_graph_def()
    assert sorted(hazard.kind for hazard in hazards(definition)) == ["racing sum", "unordered calls"]
    assert [hazard.kind for hazard in hazards(definition, is_whole=False)] == ["racing sum"]


def test_an_order_by_control_alone_is_an_order():
    def run(x):
        first = softmax(x)
        return first, softmax(waiting(x * 2.0, first))

    require_repeatable(traced(run, [3]))


# Random operations


GENERATOR = tf.random.Generator.from_seed(1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + tf.random.uniform([3], seed=1),
        lambda x: x + tf.random.normal([3]),
        lambda x: x + tf.random.truncated_normal([3]),
        tf.random.shuffle,
        lambda x: tf.random.categorical([x], 2),
        lambda x: tf.random.gamma([1], x),
        lambda x: tf.random.poisson([1], x),
        lambda x: x + GENERATOR.uniform([3]),
        lambda x: tf.nn.dropout(x, 0.5),
        compiled(lambda x: x + tf.random.uniform([3])),
        lambda x: tf.switch_case(tf.cast(x[0], tf.int32), [lambda: x, lambda: x + tf.random.uniform([3])]),
        lambda x: tf.raw_ops.NonDeterministicInts(shape=tf.constant([3])),
    ],
)
def test_random_operations_with_a_state_are_refused(function):
    tf.random.set_seed(1)  # with op determinism on, as runs leave it, they are not even traced without
    graph = traced(function, [3])
    assert set(kinds(graph)) == {"random operation"}
    with pytest.raises(RepeatabilityError, match="random numbers from named streams are required, but"):
        require_repeatable(graph)


def test_random_operations_of_a_seed_alone_are_accepted():
    def run(x):
        return x + tf.random.stateless_uniform([3], [1, 2]) + tf.random.stateless_normal([3], [1, 2])

    require_repeatable(traced(run, [3]))


# Python and collective operations


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (lambda x: tf.py_function(lambda y: y, [x], tf.float32), "Python", "PyFunc calls Python"),
        (lambda x: tf.numpy_function(lambda y: y, [x], tf.float32), "Python", "PyFunc calls Python"),
        (lambda x: tf.numpy_function(lambda y: y, [x], tf.float32, stateful=False), "Python", "PyFunc.* calls Python"),
        (lambda x: tf.cond(x[0] > 0, lambda: tf.py_function(lambda y: y, [x], tf.float32), lambda: x), "Python",
         "calls Python"),
        (lambda x: tf.raw_ops.CollectiveReduce(input=x, group_size=2, group_key=1, instance_key=1, merge_op="Add",
                                               final_op="Id", subdiv_offsets=[0]),
         "collective operation", "CollectiveReduce is between devices"),
        (lambda x: tf.raw_ops.NcclAllReduce(input=x, reduction="sum", num_devices=2, shared_name="a"),
         "collective operation", "NcclAllReduce is between devices"),
    ],
    ids=["py_function", "numpy_function", "stateless", "in a branch", "collective", "NCCL"],
)  # fmt: skip
def test_python_and_collective_operations_are_refused(function, kind, message):
    graph = traced(function, [3])
    assert kinds(graph) == [kind]
    with pytest.raises(RepeatabilityError, match=message):
        require_repeatable(graph)


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


class Chain:
    """((a + b) + c) + d of products: two consumers each as it is traced, one sum of four as it is executed."""

    def __init__(self, count: int) -> None:
        self.variables = [keras.Variable(np.eye(4, dtype=np.float32), name=f"kernel_{n}") for n in range(count)]
        for number, variable in enumerate(self.variables):
            variable._path = f"kernel_{number}"

    def __call__(self, batch):
        products = []
        for number, variable in enumerate(self.variables):
            with tf.name_scope(f"chain/product_{number}/"):
                products.append(tf.matmul(batch["inputs"][:, 0], variable.value))
        total, *others = products
        for other in others:
            total = total + other
        loss = tf.reduce_sum(total * total)
        return loss, {"loss": loss, "count": tf.constant(1.0)}, {"joined": total}


@pytest.mark.parametrize(("count", "is_refused"), [(2, False), (4, True)])
def test_a_step_that_is_rewritten_into_a_race_is_refused(count, is_refused):
    step = TrainingStep(Chain(count), learning_rate=0.1, seed=0, stage="pretrain")
    step.trace(BATCH)
    require_repeatable(step.graph)
    if not is_refused:
        for number in range(2):
            step(number, BATCH)
        return
    state = [*step.objective.variables, *step.optimizer.variables]
    state[-1].assign(np.full(state[-1].shape, -0.0, np.float32))
    before = [np.array(variable).tobytes() for variable in state]
    for _ in range(2):  # and it stays refused
        with pytest.raises(RepeatabilityError) as caught:
            step(0, BATCH)
        assert [np.array(variable).tobytes() for variable in state] == before, "the update is undone"
        assert all(f"product_{number}" in str(caught.value) for number in range(count)), "the layers are named"
        assert str(caught.value).startswith("training step, as TensorFlow executes it: at most two consumers")
        assert "4 gradients are added in a racing order" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_step_whose_executed_graph_is_not_shown_is_refused(monkeypatch):
    step = TrainingStep(Chain(2), learning_rate=0.1, seed=0, stage="pretrain")
    with executed_graphs() as graphs:
        tf.fill([7, 11], 1.0) + tf.ones([7, 11])
    assert graphs, "operations outside a function have graphs too, and are not the step's"

    @contextlib.contextmanager
    def others() -> Any:
        yield graphs

    with monkeypatch.context() as patch:
        patch.setattr(execution, "executed_graphs", others)
        with pytest.raises(RepeatabilityError, match="the graph that TensorFlow executes is required, but it gave non"):
            step(0, BATCH)


def test_only_the_first_call_is_looked_at(monkeypatch):
    function = CheckedFunction(tf.function(lambda x: x + 1.0, autograph=False).get_concrete_function(tf.ones([])))
    assert float(function(tf.ones([]))) == 2.0
    monkeypatch.setattr(execution, "executed_graphs", None)
    assert float(function(tf.ones([]))) == 2.0


def test_what_is_evaluated_is_looked_at_too():
    @tf.function(autograph=False)
    def chain(x):
        a, b, c = (tf.matmul(x * float(n), x) for n in range(1, 4))
        return (a + b) + c

    with pytest.raises(RepeatabilityError, match=r"evaluation of frozen, as TensorFlow executes it: .* 3 gradients"):
        require_repeatable_execution(lambda: chain(tf.ones([3, 3])), "evaluation of frozen")
    assert require_repeatable_execution(lambda: 7, "nothing") == 7


def test_looking_is_switched_off_where_the_block_fails():
    with pytest.raises(ZeroDivisionError), executed_graphs():
        raise ZeroDivisionError
    with executed_graphs() as graphs:
        tf.function(three, autograph=False)(tf.ones([3]))
    assert [hazard.kind for hazard in hazards_of(graphs)] == ["racing sum"]
