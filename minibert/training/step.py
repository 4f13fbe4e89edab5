"""One optimizer update as a traced function, at some steps with a fingerprint of everything it computed.

    step(7, batch) -> StepResult(metrics={"loss": ..., "count": ...}, fingerprint=int32 [...])

The graph is checked before the first update, and what TensorFlow made of it by the first update, which is undone
if that is refused: no state comes of a step whose gradient could be summed in a racing order (see
`minibert.training.repeatability`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config

from minibert.allocator import give_back_freed_memory
from minibert.batches import Arrays, drawn_arrays
from minibert.checked import require_count
from minibert.errors import RepeatabilityError
from minibert.fingerprints import CPU_INTERVAL, GPU_INTERVAL, TraceHeader
from minibert.model.dropout import DropoutStream
from minibert.settings import EmbeddingSecondMoment
from minibert.training.adam import Adam, sum_of_squares
from minibert.training.execution import CheckedFunction
from minibert.training.repeatability import require_repeatable
from minibert.training.tensor_fingerprints import fingerprints, is_by_turns

Batch = Mapping[str, Any]
"""Arrays of `minibert.batches`, or the tensors that `tensors_of` makes of them."""


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
        fingerprint_interval: Steps from one that does to the next, from step 0 on; None: what suits the device,
            `minibert.fingerprints.CPU_INTERVAL` or ``GPU_INTERVAL``.
        checked: Whether a graph with a racing sum is refused; False serves to study one, and then every row of
            every tensor is fingerprinted at each step that has fingerprints.

    Raises:
        SettingsError: The interval is below 1.
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
        if fingerprint_interval is None:
            fingerprint_interval = GPU_INTERVAL if _is_on_a_gpu() else CPU_INTERVAL
        require_count("fingerprint_interval", fingerprint_interval, at_least=1)
        self.fingerprint_interval = fingerprint_interval
        # Named, because Keras counts up: the same state would have another digest in a resumed process.
        self.optimizer = Adam(learning_rate, name="adam")
        self.optimizer.build(objective.variables)
        self.fingerprint_names: list[str] = []
        self.fingerprints_by_turns: list[str] = []
        self._trace_count = 0
        self._update = tf.function(self._apply, jit_compile=True, autograph=False)
        self._function: Any = None
        self._has_run = False
        self._between: TrainingStep | None = None
        if fingerprints and fingerprint_interval > 1:
            self._between = self.without_fingerprints()

    def __call__(self, step: int, batch: Batch) -> StepResult:
        """Updates the variables by one batch.

        Args:
            step: Global step of the stage, from 0; it names the dropout masks.
            batch: Arrays of `minibert.batches`, or their tensors.

        Raises:
            RepeatabilityError: The graph, as traced or as executed, has something that may not repeat; the
                variables and the optimizer are as they were.
        """
        metrics, computed = self.begin(step, batch)
        values = {name: value.numpy() for name, value in metrics.items()}
        is_between = self._between_at(step) is not None
        fingerprint = np.zeros(len(self.fingerprint_names), np.int32) if is_between else computed.numpy()
        return StepResult(
            metrics={name: float(value) for name, value in values.items()},
            loss_bits=int(values["loss"].view(np.uint32)),
            fingerprint=fingerprint,
        )

    def begin(self, step: int, batch: Batch) -> tuple[dict[str, Any], Any]:
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
        if (between := self._between_at(step)) is not None:
            return between.begin(step, batch)
        call = self._function if self._has_run else self._first_call
        result: tuple[dict[str, Any], Any] = call(tf.constant(step, tf.int64), tensors_of(batch))
        self._has_run = True
        return result

    def trace(self, batch: Batch) -> None:
        """Traces the step for batches like this one, if it is not traced yet, and checks the graph.

        Where only some steps have fingerprints, that is done with them and without.

        Raises:
            RepeatabilityError: The graph has a sum that may race, or it is for a GPU and TensorFlow's switch for
                determinism is off.
        """
        if self._function is None:
            self._function = self._traced(tensors_of(batch))
        if self._between is not None:
            self._between.trace(batch)

    def trace_header(self, batch: Arrays) -> TraceHeader:
        """What stands in the rows of the step's fingerprint trace; once it is traced.

        Args:
            batch: Arrays of `minibert.batches`.
        """
        names = (tuple(self.fingerprint_names), tuple(self.fingerprints_by_turns))
        return TraceHeader(self._stage, tuple(drawn_arrays(batch)), *names, self.fingerprint_interval)

    def _between_at(self, step: int) -> TrainingStep | None:
        """The step without fingerprints, where this one has none though others have."""
        return self._between if step % self.fingerprint_interval != 0 else None

    def _first_call(self, *arguments: Any) -> Any:
        """Executes the step; a step that is refused for what TensorFlow executed is undone.

        The one between those with fingerprints, if there is one, is executed before, and undone: it is refused before
        anything is trained, and at a first step, whose moments are zero, there is less to keep for that than later.
        """
        state = [*self.objective.variables, *self.optimizer.variables]
        give_back_freed_memory()  # of tracing
        before = [_kept(variable) for variable in state]
        try:
            if self._between is not None and not self._between._has_run:
                self._between._function(*arguments)
                self._between._has_run = True
                _restore(state, before)
                give_back_freed_memory()  # of compiling
            result = self._function(*arguments)
        except RepeatabilityError:
            _restore(state, before)
            raise
        del before
        give_back_freed_memory()  # of compiling
        return result

    def without_fingerprints(self) -> TrainingStep:
        """The same step on the same variables and optimizer, without fingerprints: to tell what these cost.

        Where only some steps have fingerprints, it is the one that is taken between: two traces of one step differ by
        where their memory lies.
        """
        if self._between is not None:
            return self._between
        plain = copy.copy(self)
        plain._fingerprints, plain._between, plain._function, plain._has_run = False, None, None, False
        plain._trace_count = 0
        return plain

    @property
    def trace_count(self) -> int:
        """How often the step was traced, with fingerprints and without."""
        return self._trace_count + (0 if self._between is None else self._between.trace_count)

    @property
    def graph(self) -> Any:
        """The traced graph, with fingerprints if any step has them; there is one after the first call."""
        return self._function.graph

    @property
    def graphs(self) -> list[Any]:
        """The traced graphs: that, and the one without fingerprints, where it is taken between."""
        return [self.graph, *([] if self._between is None else self._between.graphs)]

    def graph_for(self, batch: Batch) -> Any:
        """The step's graph for exactly these shapes, so that none in it is open: to be looked at, not to be run.

        Args:
            batch: As in a call.
        """
        traced = copy.copy(self)  # what a trace writes down is of the graph that runs: with known shapes it is other
        signature = {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in tensors_of(batch).items()}
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
        self._trace_count += 1
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
        self.fingerprints_by_turns = [name for name, t in tensors.items() if turn is not None and is_by_turns(t.shape)]
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


def _restore(variables: list[Any], values: list[np.ndarray]) -> None:
    """Undoes updates.

    Args:
        variables: What was updated.
        values: Of each what `_kept` gave.
    """
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.broadcast_to(value, variable.shape))


def _kept(variable: Any) -> np.ndarray:
    """A copy of a variable's value; of one that is all zeros, as Adam's moments are before the first step, one zero."""
    value = np.array(variable)
    return value if np.atleast_1d(value).view(np.uint8).any() else np.zeros((), value.dtype)  # -0.0 is kept


def tensors_of(batch: Batch) -> dict[str, Any]:
    """What a step reads of a batch, as tensors: a thread may make them while the step before runs.

    Args:
        batch: Arrays of `minibert.batches`, or what this gave of them. The examples' identity stays outside.
    """
    return {name: tf.convert_to_tensor(value) for name, value in batch.items() if name != "example_ids"}
