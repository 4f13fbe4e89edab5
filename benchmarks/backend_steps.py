"""The masked language model's training step with Keras on JAX and on PyTorch, and on TensorFlow beside them.

Model, loss, dropout and initial weights are the package's own, in `keras.ops`. Only what takes the
gradient and applies the update is written here, as each framework does it best: JAX compiles the whole
step and updates in place (donated buffers), PyTorch runs it eagerly or through ``torch.compile``,
TensorFlow's is the package's own step. An embedding's gradient is dense on JAX and PyTorch, so Adam's second
moment is by word there (see `minibert.training.adam`), and so it is here on TensorFlow. Which one there is
depends on Keras' backend, which is chosen by ``KERAS_BACKEND`` before Keras is imported.

    step = BackendStep(settings)
    step.run(0, 4) -> [loss, loss, loss, loss]
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from benchmarks.checks import WrongLossError
from benchmarks.workloads import masked_lm_batches
from minibert.batches import DERIVED, Arrays, drawn_arrays, locate_rows
from minibert.model.dropout import DropoutStream
from minibert.model.encoder import build_masked_lm
from minibert.model.heads import masked_lm_objective
from minibert.settings import RunSettings
from minibert.training.state import state_digest

READ_BY_STEP = ("token_ids", "positions", "labels", "sample_weight", *DERIVED)
STAGE = "pretrain"


def of_equal_shape(batches: list[Arrays]) -> list[Arrays]:
    """What the step reads of the batches, all of one shape: JAX compiles a step anew for every other."""
    rows, queries = (max(map(count, batches)) for count in (rows_of, queries_of))
    return [with_rows({name: batch[name] for name in READ_BY_STEP}, rows, queries) for batch in batches]


def rows_of(batch: Arrays) -> int:
    """A batch's rows, those that fill up included."""
    return len(batch["positions"])


def queries_of(batch: Arrays) -> int:
    """The rows that each example has room for in attention."""
    return len(batch["row_of_query"]) // len(batch["token_ids"])


def with_rows(batch: Arrays, rows: int, queries: int) -> Arrays:
    """A batch with so many rows, and room for so many queries of an example; neither changes loss or gradient.

    Rows that are added have weight 0, queries that are added belong to no row.
    """
    more = rows - rows_of(batch)
    names = ("positions", "labels", "sample_weight")
    padded = {name: np.pad(array, (0, more)) if name in names else array for name, array in batch.items()}
    is_selected = (batch["row_of_place"] > 0).reshape(len(batch["token_ids"]), -1)
    return {**padded, **locate_rows(is_selected, rows, least_queries=queries)}


class BackendStep:
    """The step on Keras' backend.

    Args:
        settings: The shape, the precision and the seed.
        compiled: PyTorch only: through ``torch.compile``.

    Attributes:
        parameters: Number of the model's weights.
    """

    def __init__(self, settings: RunSettings, *, compiled: bool = False) -> None:
        model = _model(settings)
        self.parameters = model.count_params()
        self._settings = settings
        self._prepared: list[tuple[Any, float]] = []
        self._on: Any = _STEPS[keras.backend.backend()](settings, model, compiled)

    def run(self, first: int, steps: int) -> list[float]:
        """Runs steps on prepared batches, which are on the device already, without waiting between them; then waits.

        It has waited when the losses and an updated variable have been fetched.

        Returns:
            The mean loss of a selected token in each step.

        Raises:
            WrongLossError: A weight is not a finite number afterwards.
        """
        self.prepare()
        prepared = [(number, *self._prepared[number % len(self._prepared)]) for number in range(first, first + steps)]
        sums = [self.begin(number, batch) for number, batch, _ in prepared]
        losses = mean_losses(sums, [count for *_, count in prepared])
        self.require_finite(first + steps - 1)
        return losses

    def prepare(self) -> None:
        """Puts the prepared batches on the device, once."""
        if not self._prepared:
            batches = of_equal_shape(masked_lm_batches(self._settings))
            self._prepared = [(self.put(batch), float(batch["sample_weight"].sum())) for batch in batches]

    def start_digests(self) -> dict[str, str]:
        """SHA-256 of what no backend and no device may change, fetched from the device; before the first step.

        Returns:
            ``batches``: of the prepared ones; ``weights``: of the initial ones; ``dropout``: of what the first step's
            dropout layers draw.
        """
        self.prepare()
        batches = {
            f"{number}/{name}": _fetched(array)
            for number, (batch, _) in enumerate(self._prepared)
            for name, array in drawn_arrays(batch).items()
        }
        length, model = self._settings.text.sequence_length, self._settings.model
        shape = (self._settings.pretrain.batch_size, length, model.hidden_size)
        stream = DropoutStream(seed=self._settings.seed, stage=STAGE, step=keras.ops.convert_to_tensor(0, "int32"))
        drawn = {
            name: _fetched(stream.drawn(name, shape)) for name in ("encoder_0_att_dropout", "encoder_0_ffn_dropout")
        }
        return {
            "batches": state_digest({name: array.astype(f"{array.dtype.kind}4") for name, array in batches.items()}),
            "weights": state_digest(self.weights()),
            "dropout": state_digest({name: array.astype(np.uint16) for name, array in drawn.items()}),
        }

    def put(self, batch: Arrays) -> dict[str, Any]:
        """What the step reads of a batch, on the device."""
        return {name: self._on.put(batch[name]) for name in READ_BY_STEP}

    def begin(self, number: int, batch: dict[str, Any]) -> Any:
        """Starts a step and does not wait: the sum of the losses, on the device.

        Args:
            number: The step's, which dropout depends on.
            batch: From `put`.
        """
        return self._on.update(number, batch)

    def weights(self) -> dict[str, np.ndarray]:
        """Every weight as it is now, by its path."""
        return {path: _fetched(value) for path, value in self._on.weights()}

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Every variable of the optimizer by number and path."""
        return {f"{n:04d}/{path}": _fetched(value) for n, (path, value) in enumerate(self._on.optimizer_state())}

    def require_finite(self, number: int) -> None:
        """Waits for the last weight.

        Args:
            number: The last step's, for the message.

        Raises:
            WrongLossError: It is not a finite number.
        """
        if not np.isfinite(_fetched(self._on.updated()).astype(np.float32)).all():
            raise WrongLossError(f"{keras.backend.backend()}: finite weights are required after step {number}")


def mean_losses(sums: list[Any], counts: list[float]) -> list[float]:
    """Waits for steps that `BackendStep.begin` has started: the mean loss of a selected token in each."""
    return [_number(value) / count for value, count in zip(sums, counts, strict=True)]


def first_loss(settings: RunSettings) -> float:
    """The first step's mean loss of a selected token, by TensorFlow: forward only, so that any shape is feasible."""
    import tensorflow as tf

    batch, objective = masked_lm_batches(settings)[0], masked_lm_objective(_model(settings), settings)

    def loss() -> Any:  # a graph frees what it no longer needs
        tensors = {name: tf.constant(batch[name]) for name in READ_BY_STEP}
        with DropoutStream(seed=settings.seed, stage=STAGE, step=tf.constant(0, tf.int64)):
            return objective(tensors)[1]["loss"]

    return _number(tf.function(loss, autograph=False)()) / float(batch["sample_weight"].sum())


def _fetched(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _number(tensor: Any) -> float:
    return float(_fetched(tensor))


def _model(settings: RunSettings) -> Any:
    # Not `minibert.stages.initial_masked_lm`, which imports TensorFlow.
    return build_masked_lm(
        settings.model,
        vocabulary_size=settings.masking.required_vocabulary_size,
        sequence_length=settings.text.sequence_length,
        seed=settings.seed,
    )


def _optimizer(settings: RunSettings, variables: list[Any]) -> Any:
    optimizer = keras.optimizers.Adam(settings.pretrain.learning_rate)
    optimizer.build(variables)
    return optimizer


class _JaxStep:
    """One compiled function of (weights, optimizer's state, step, batch); the first two are donated."""

    def __init__(self, settings: RunSettings, model: Any, compiled: bool) -> None:
        import jax

        objective = masked_lm_objective(model, settings)
        self._variables = variables = objective.variables
        self._optimizer = optimizer = _optimizer(settings, variables)

        def loss_of(weights: list[Any], number: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
            with (
                keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))),
                DropoutStream(seed=settings.seed, stage=STAGE, step=number),
            ):
                value, metrics, _ = objective(batch)
            return value, metrics["loss"]

        def update(weights: list[Any], state: list[Any], number: Any, batch: dict[str, Any]) -> Any:
            gradients, loss = jax.grad(loss_of, has_aux=True)(weights, number, batch)
            weights, state = optimizer.stateless_apply(state, gradients, weights)
            return weights, state, loss

        self._run = jax.jit(update, donate_argnums=(0, 1))
        self.put = jax.device_put
        # Copies, since what is donated is gone: the model keeps its own.
        self._weights = [jax.numpy.array(variable.value) for variable in variables]
        self._state = [jax.numpy.array(variable.value) for variable in optimizer.variables]

    def update(self, number: int, batch: dict[str, Any]) -> Any:
        self._weights, self._state, loss = self._run(self._weights, self._state, np.uint32(number), batch)
        return loss

    def updated(self) -> Any:
        return self._weights[-1]

    def weights(self) -> Iterator[tuple[str, Any]]:
        return zip((variable.path for variable in self._variables), self._weights, strict=True)

    def optimizer_state(self) -> Iterator[tuple[str, Any]]:
        return zip((variable.path for variable in self._optimizer.variables), self._state, strict=True)


class _Variables:
    """What is trained and updated are Keras' variables."""

    _variables: list[Any]
    _optimizer: Any

    def updated(self) -> Any:
        return self._variables[-1].value

    def weights(self) -> Iterator[tuple[str, Any]]:
        return ((variable.path, variable.value) for variable in self._variables)

    def optimizer_state(self) -> Iterator[tuple[str, Any]]:
        return ((variable.path, variable.value) for variable in self._optimizer.variables)


class _TorchStep(_Variables):
    """Autograd, and Keras' Adam on the gradients."""

    def __init__(self, settings: RunSettings, model: Any, compiled: bool) -> None:
        import torch

        objective = masked_lm_objective(model, settings)
        self._variables = objective.variables
        self._optimizer = _optimizer(settings, self._variables)
        self._no_gradient = torch.no_grad

        def losses(number: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
            with DropoutStream(seed=settings.seed, stage=STAGE, step=number):
                value, metrics, _ = objective(batch)
            return value, metrics["loss"].detach()

        if compiled:  # Keras calls every layer through one function, which is compiled anew for each
            torch._dynamo.config.recompile_limit = 1_024
        self._losses = torch.compile(losses, dynamic=False) if compiled else losses
        # Keras' own objects on PyTorch hold a step's activations in cycles: many steps' would fill the device. What is
        # there already is left out of every later collection, which so takes less than a millisecond.
        gc.collect()
        gc.freeze()
        self.put = tensor = keras.ops.convert_to_tensor
        self._number = lambda number: tensor(number, dtype="int64")  # a plain integer would be compiled in

    def update(self, number: int, batch: dict[str, Any]) -> Any:
        for variable in self._variables:
            variable.value.grad = None
        value, loss = self._losses(self._number(number), batch)
        value.backward()
        with self._no_gradient():
            self._optimizer.apply([variable.value.grad for variable in self._variables], self._variables)
        del value
        gc.collect()
        return loss


class _TensorFlowStep(_Variables):
    """The package's own step, without fingerprints, which the others do not have either, and not waited for."""

    def __init__(self, settings: RunSettings, model: Any, compiled: bool) -> None:
        from minibert.training.step import TrainingStep, is_deterministic

        self._step = TrainingStep(
            masked_lm_objective(model, settings),
            learning_rate=settings.pretrain.learning_rate,
            seed=settings.seed,
            stage=STAGE,
            embedding_second_moment="word",
            fingerprints=False,
            checked=is_deterministic(),  # without TensorFlow's switch a GPU's step would be refused
        )
        self._variables, self._optimizer = self._step.objective.variables, self._step.optimizer
        self.put = keras.ops.convert_to_tensor

    def update(self, number: int, batch: dict[str, Any]) -> Any:
        metrics, _ = self._step.begin(number, batch)
        return metrics["loss"]


_STEPS = {"jax": _JaxStep, "torch": _TorchStep, "tensorflow": _TensorFlowStep}
