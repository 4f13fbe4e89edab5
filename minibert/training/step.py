"""One optimizer update as a traced function, with a fingerprint of everything it computed.

    step(7, batch) -> StepResult(metrics={"loss": ..., "count": ...}, fingerprint=int32 [...])

The graph is checked before the first update, and what TensorFlow made of it by the first update, which is undone
if that is refused: no state comes of a step whose gradient could be summed in a racing order (see
`minibert.training.repeatability`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config

from minibert.allocator import give_back_freed_memory
from minibert.batches import Arrays, drawn_arrays
from minibert.errors import RepeatabilityError
from minibert.fingerprints import ACTIVATION_TURNS, GPU_INTERVAL, TURNS, TraceHeader
from minibert.model.dropout import DropoutStream
from minibert.settings import EmbeddingSecondMoment
from minibert.training.adam import Adam, sum_of_squares
from minibert.training.execution import CheckedFunction
from minibert.training.repeatability import require_repeatable


class Objective(Protocol):
    """What a step minimizes: gives the objective, sums for the metrics, and the activations by layer."""

    variables: list[Any]

    def __call__(self, batch: dict[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """The objective, the metrics' sums and the activations of a batch."""
        ...


@dataclass(frozen=True)
class StepResult:
    """What one step gives back.

    Attributes:
        metrics: Sums over the batch: ``loss``, ``count`` and, for a classifier, ``accuracy``.
        loss_bits: The bits of the float32 loss sum.
        fingerprint: int32, one for each name of `TrainingStep.fingerprint_names`; of those that are also in
            `TrainingStep.fingerprints_by_turns`, it is of one part of the rows. Zeros at a step between two with
            fingerprints.
    """

    metrics: dict[str, float]
    loss_bits: int
    fingerprint: np.ndarray


class TrainingStep:
    """A training step, traced once for all batch sizes; where not every step has fingerprints, once more without them.

    Args:
        objective: The loss of a batch and its trainable variables.
        learning_rate: Adam's.
        seed: The run's root seed, for dropout.
        stage: The stage's name, for dropout.
        embedding_second_moment: What Adam's takes of a word that repeats; see `minibert.training.adam`.
        fingerprints: Whether the step also computes fingerprints.
        fingerprint_interval: Steps from one that does to the next, from step 0 on; None: 1 on a CPU, and
            `minibert.fingerprints.GPU_INTERVAL` on a GPU.
        checked: Whether a graph with a racing sum is refused; False serves to study one, and then every row of
            every tensor is fingerprinted at every step.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        learning_rate: float,
        seed: int,
        stage: str,
        embedding_second_moment: EmbeddingSecondMoment = "occurrence",
        fingerprints: bool = True,
        fingerprint_interval: int | None = None,
        checked: bool = True,
    ) -> None:
        self.objective, self._seed, self._stage, self._checked = objective, seed, stage, checked
        self._by_occurrence, self._fingerprints = embedding_second_moment == "occurrence", fingerprints
        self.fingerprint_interval = fingerprint_interval or (GPU_INTERVAL if _is_on_a_gpu() else 1)
        self._between: TrainingStep | None = None
        # Named, because Keras counts up: the same state would have another digest in a resumed process.
        self.optimizer = Adam(learning_rate, name="adam")
        self.optimizer.build(objective.variables)
        self.fingerprint_names: list[str] = []
        self.fingerprints_by_turns: list[str] = []
        self.trace_count = 0
        self._update = tf.function(self._apply, jit_compile=True, autograph=False)
        self._function: Any = None
        self._has_run = False

    def __call__(self, step: int, batch: Arrays) -> StepResult:
        """Updates the variables by one batch.

        Args:
            step: Global step of the stage, from 0; it names the dropout masks.
            batch: Arrays of `minibert.batches`.

        Raises:
            RepeatabilityError: The graph, as traced or as executed, has something that may not repeat; the
                variables and the optimizer are as they were.
        """
        metrics, fingerprint = self.begin(step, batch)
        if self._is_between(step):
            fingerprint = np.zeros(len(self.fingerprint_names), dtype=np.int32)
        values = {name: value.numpy() for name, value in metrics.items()}
        return StepResult(
            metrics={name: float(value) for name, value in values.items()},
            loss_bits=int(values["loss"].view(np.uint32)),
            fingerprint=np.asarray(fingerprint),
        )

    def begin(self, step: int, batch: Arrays) -> tuple[dict[str, Any], Any]:
        """Updates the variables by one batch, and fetches nothing: a GPU may still be at it.

        Args:
            step: As in a call.
            batch: As in a call.

        Returns:
            The metrics and the fingerprint of `StepResult`, as tensors; without an element where there is none.

        Raises:
            RepeatabilityError: As in a call.
        """
        self.trace(batch)
        if self._is_between(step):
            self._between = self._between or self.without_fingerprints()
            return self._between.begin(step, batch)
        call = self._function if self._has_run else self._first_call
        result: tuple[dict[str, Any], Any] = call(tf.constant(step, tf.int64), _tensors(batch))
        self._has_run = True
        return result

    def trace(self, batch: Arrays) -> None:
        """Traces the step for batches like this one, if it is not traced yet, and checks the graph.

        Raises:
            RepeatabilityError: The graph has a sum that may race, or it is for a GPU and TensorFlow's switch for
                determinism is off.
        """
        if self._function is None:
            self._function = self._traced(_tensors(batch))

    def trace_header(self, batch: Arrays) -> TraceHeader:
        """What stands in the rows of the step's fingerprint trace; once it is traced.

        Args:
            batch: As in a call.
        """
        names = (tuple(self.fingerprint_names), tuple(self.fingerprints_by_turns))
        return TraceHeader(self._stage, tuple(drawn_arrays(batch)), *names, self.fingerprint_interval)

    def _is_between(self, step: int) -> bool:
        """Whether a step has no fingerprints though others have."""
        return self._fingerprints and step % self.fingerprint_interval != 0

    def _first_call(self, *arguments: Any) -> Any:
        """Executes the step; a step that is refused for what TensorFlow executed is undone."""
        state = [*self.objective.variables, *self.optimizer.variables]
        give_back_freed_memory()  # of tracing
        before = [_kept(variable) for variable in state]
        try:
            result = self._function(*arguments)
        except RepeatabilityError:
            for variable, value in zip(state, before, strict=True):
                variable.assign(np.broadcast_to(value, variable.shape))
            raise
        del before
        give_back_freed_memory()  # of compiling
        return result

    def without_fingerprints(self) -> TrainingStep:
        """The same step on the same variables and optimizer, without fingerprints: to tell what these cost."""
        plain = copy.copy(self)
        plain._fingerprints, plain._function, plain._has_run = False, None, False
        plain.trace_count = 0
        return plain

    @property
    def graph(self) -> Any:
        """The traced graph; there is one after the first call."""
        return self._function.graph

    def graph_for(self, batch: Arrays) -> Any:
        """The step's graph for exactly these shapes, so that none in it is open: to be looked at, not to be run.

        Args:
            batch: As in a call.
        """
        traced = copy.copy(self)  # what a trace writes down is of the graph that runs: with known shapes it is other
        signature = {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in _tensors(batch).items()}
        function = tf.function(traced._run, autograph=False)
        return function.get_concrete_function(tf.TensorSpec([], tf.int64), signature).graph

    def _traced(self, tensors: dict[str, Any]) -> Any:
        signature = {name: tf.TensorSpec([None, *t.shape[1:]], t.dtype) for name, t in tensors.items()}
        function = tf.function(self._run, autograph=False)
        concrete = function.get_concrete_function(tf.TensorSpec([], tf.int64), signature)
        if not self._checked:
            return concrete
        if not is_deterministic():
            raise RepeatabilityError(
                "training step: on a GPU, tf.config.experimental.enable_op_determinism() is required, but it is off"
            )
        require_repeatable(concrete.graph)
        return CheckedFunction(concrete)

    def _run(self, step: Any, batch: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        self.trace_count += 1
        variables = [variable.value for variable in self.objective.variables]
        with (
            DropoutStream(seed=self._seed, stage=self._stage, step=step),
            tf.GradientTape(watch_accessed_variables=False) as tape,
        ):
            tape.watch(variables)
            objective, metrics, activations = self.objective(batch)
        sparse = tape.gradient(objective, variables)
        gradients = [tf.convert_to_tensor(gradient) for gradient in sparse]
        self._update(gradients, [sum_of_squares(gradient) if self._by_occurrence else None for gradient in sparse])
        if not self._fingerprints:
            return metrics, tf.zeros([0], tf.int32)
        named = {f"activation {name}": value for name, value in activations.items()}
        names = [variable.path for variable in self.objective.variables]
        named |= {f"gradient {name}": value for name, value in reversed(list(zip(names, gradients, strict=True)))}
        named |= {f"weight {name}": variable for name, variable in zip(names, variables, strict=True)}
        tensors = {name: tf.convert_to_tensor(value) for name, value in named.items()}
        turn = step if self._checked else None
        self.fingerprint_names = list(tensors)
        self.fingerprints_by_turns = [name for name, t in tensors.items() if turn is not None and _is_large(t.shape)]
        with tf.control_dependencies([objective]):  # beside the forward pass they would hold its products up
            return metrics, fingerprints(list(tensors.values()), turn)

    def _apply(self, gradients: list[Any], squares: list[Any]) -> None:
        self.optimizer.apply_with_squares(gradients, squares, self.objective.variables)


def is_deterministic() -> bool:
    """Whether TensorFlow's own operations repeat in this process: on a GPU only with its switch for determinism on.

    Without it, a GPU adds the gradients of an embedding as they come.
    """
    return config.is_op_determinism_enabled() or not _is_on_a_gpu()


def _is_on_a_gpu() -> bool:
    return bool(tf.config.list_logical_devices("GPU"))


def _kept(variable: Any) -> np.ndarray:
    """A copy of a variable's value; of one that is all zeros, as Adam's moments are before the first step, one zero."""
    value = np.array(variable)
    return value if np.atleast_1d(value).view(np.uint8).any() else np.zeros((), value.dtype)  # -0.0 is kept


def _tensors(batch: Arrays) -> dict[str, Any]:
    """The arrays that the step reads; the examples' identity stays outside."""
    return {name: tf.convert_to_tensor(value) for name, value in batch.items() if name != "example_ids"}


_WHOLE_ELEMENTS = 1 << 16
_WHOLE_ROW_ELEMENTS = 1 << 11


def fingerprints(tensors: list[Any], step: Any) -> Any:
    """The low 32 bits of the FarmHash64 of each tensor's bytes: any changed, moved or scaled value changes it.

    A tensor of more than 65,536 elements (2,048 in a row, where the number of rows is not fixed) is fingerprinted by
    turns: of a weight, at step s the eighth s mod 8 of its rows; of activations, whose rows are the batch's examples,
    one in 32. A difference in one row of a weight, which stays, is then seen at most seven steps later. One in the
    activations of one example is seen in its turn or by what is computed from it, and if it changes nothing that is
    computed, not at all. Hashing every row at every step took 3 % of the masked-LM step at notebook 1's shape, and as
    much of a frozen classifier's at notebook 2's.

    Args:
        tensors: Float32 or bfloat16, at least one axis each.
        step: int64 scalar, at least 0, or None: then every row counts.

    Returns:
        int32, (tensors,).

    Source: Pike and Alakuijala, FarmHash (github.com/google/farmhash); ``tf.fingerprint`` computes it at the
    speed at which the memory gives the bytes.
    """
    by_turns = [step is not None and _is_large(tensor.shape) for tensor in tensors]
    large = [tensor for tensor, is_large in zip(tensors, by_turns, strict=True) if is_large]
    # Once for all of so many rows: for one tensor, each operator takes as long as hashing a small one.
    known = dict.fromkeys(tensor.shape[0] for tensor in large if tensor.shape[0] is not None)
    turns = {rows: _turn(rows, step, TURNS) for rows in known}
    if unknown := [tensor for tensor in large if tensor.shape[0] is None]:
        turns[None] = _turn(_most_rows(unknown), step, ACTIVATION_TURNS)
    hashes = []
    for tensor, is_large in zip(tensors, by_turns, strict=True):
        part = tf.strided_slice(tensor, *turns[tensor.shape[0]]) if is_large else tensor  # rows: nothing is copied
        if tensor.dtype == tf.bfloat16:
            part = tf.cast(part, tf.float32)
        hashes.append(tf.fingerprint(tf.reshape(part, [1, -1])))
    return tf.bitcast(tf.concat(hashes, axis=0)[:, :4], tf.int32)


def _most_rows(tensors: list[Any]) -> Any:
    """The length of the longest of tensors: none of a shorter one's rows is left out either."""
    first_axes = np.cumsum([0, *(len(tensor.shape) for tensor in tensors)])[:-1]
    return tf.reduce_max(tf.gather(tf.concat([tf.shape(tensor) for tensor in tensors], axis=0), first_axes))


def _turn(rows: Any, step: Any, most_turns: int) -> tuple[Any, Any, Any]:
    """The first of the rows that have their turn at a step, the one behind the last, and 1: int64, (1,) each."""
    rows = tf.cast(rows, tf.int64)
    turn_rows = tf.maximum((rows + most_turns - 1) // most_turns, 1)
    turns = tf.maximum((rows + turn_rows - 1) // turn_rows, 1)
    first = step % turns * turn_rows
    return first[None], (first + turn_rows)[None], tf.ones([1], tf.int64)


def _is_large(shape: Any) -> bool:
    if shape[0] is None:
        return tf.TensorShape(shape[1:]).num_elements() > _WHOLE_ROW_ELEMENTS
    return shape.num_elements() > _WHOLE_ELEMENTS
