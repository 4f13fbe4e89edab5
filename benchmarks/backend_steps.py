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

from typing import Any

import keras
import numpy as np

from benchmarks.checks import WrongLossError
from benchmarks.workloads import masked_lm_batches
from minibert.batches import Arrays
from minibert.model.dropout import DropoutStream
from minibert.model.encoder import build_masked_lm
from minibert.model.heads import MaskedLMObjective
from minibert.settings import RunSettings

READ_BY_STEP = ("token_ids", "positions", "labels", "sample_weight")
STAGE = "pretrain"


def of_equal_shape(batches: list[Arrays]) -> list[Arrays]:
    """The batches with equally many rows: more of them have weight 0, which changes neither loss nor gradient.

    JAX compiles a step anew for every shape.
    """
    rows = max(len(batch["positions"]) for batch in batches)
    return [
        {name: np.pad(array, (0, rows - len(array))) if array.ndim == 1 else array for name, array in part.items()}
        for part in ({name: batch[name] for name in READ_BY_STEP} for batch in batches)
    ]


class BackendStep:
    """The step on Keras' backend, on prepared batches that are on the device already.

    Args:
        settings: The shape, the precision and the seed.
        compiled: PyTorch only: through ``torch.compile``.
    """

    def __init__(self, settings: RunSettings, *, compiled: bool = False) -> None:
        model = _model(settings)
        self.parameters = model.count_params()
        batches = of_equal_shape(masked_lm_batches(settings))
        self._counts = [float(batch["sample_weight"].sum()) for batch in batches]
        self._on: Any = _STEPS[keras.backend.backend()](settings, model, batches, compiled)

    def run(self, first: int, steps: int) -> list[float]:
        """Runs steps without waiting between them, then waits: the mean loss of a selected token in each.

        It has waited when the losses and an updated variable have been fetched.

        Raises:
            WrongLossError: A weight is not a finite number afterwards.
        """
        numbers = range(first, first + steps)
        sums = [self._on.update(number, number % len(self._counts)) for number in numbers]
        losses = [
            float(_fetched(value)) / self._counts[n % len(self._counts)] for n, value in zip(numbers, sums, strict=True)
        ]
        if not np.isfinite(_fetched(self._on.updated()).astype(np.float32)).all():
            raise WrongLossError(
                f"{keras.backend.backend()}: finite weights are required after step {first + steps - 1}"
            )
        return losses


def first_loss(settings: RunSettings) -> float:
    """The first step's mean loss of a selected token, by TensorFlow: forward only, so that any shape is feasible."""
    import tensorflow as tf

    batch, objective = masked_lm_batches(settings)[0], _objective(settings, _model(settings))

    def loss() -> Any:  # a graph frees what it no longer needs
        tensors = {name: tf.constant(batch[name]) for name in READ_BY_STEP}
        with DropoutStream(seed=settings.seed, stage=STAGE, step=tf.constant(0, tf.int64)):
            return objective(tensors)[1]["loss"]

    return float(_fetched(tf.function(loss, autograph=False)())) / float(batch["sample_weight"].sum())


def _fetched(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _model(settings: RunSettings) -> Any:
    # Not `minibert.stages.initial_masked_lm`, which imports TensorFlow.
    return build_masked_lm(
        settings.model,
        vocabulary_size=settings.masking.required_vocabulary_size,
        sequence_length=settings.text.sequence_length,
        seed=settings.seed,
    )


def _objective(settings: RunSettings, model: Any) -> MaskedLMObjective:
    return MaskedLMObjective(model, reduction=settings.pretrain.loss_reduction)


def _optimizer(settings: RunSettings, variables: list[Any]) -> Any:
    optimizer = keras.optimizers.Adam(settings.pretrain.learning_rate)
    optimizer.build(variables)
    return optimizer


class _JaxStep:
    """One compiled function of (weights, optimizer's state, step, batch); the first two are donated."""

    def __init__(self, settings: RunSettings, model: Any, batches: list[Arrays], compiled: bool) -> None:
        import jax

        objective = _objective(settings, model)
        variables = objective.variables
        optimizer = _optimizer(settings, variables)

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
        self._batches = [jax.device_put(batch) for batch in batches]
        # Copies, since what is donated is gone: the model keeps its own.
        self._weights = [jax.numpy.array(variable.value) for variable in variables]
        self._state = [jax.numpy.array(variable.value) for variable in optimizer.variables]

    def update(self, number: int, place: int) -> Any:
        self._weights, self._state, loss = self._run(
            self._weights, self._state, np.uint32(number), self._batches[place]
        )
        return loss

    def updated(self) -> Any:
        return self._weights[-1]


class _TorchStep:
    """Autograd, and Keras' Adam on the gradients."""

    def __init__(self, settings: RunSettings, model: Any, batches: list[Arrays], compiled: bool) -> None:
        import torch

        objective = _objective(settings, model)
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
        tensor = keras.ops.convert_to_tensor
        self._batches = [{name: tensor(array) for name, array in batch.items()} for batch in batches]
        self._number = lambda number: tensor(number, dtype="int64")  # a plain integer would be compiled in

    def update(self, number: int, place: int) -> Any:
        for variable in self._variables:
            variable.value.grad = None
        value, loss = self._losses(self._number(number), self._batches[place])
        value.backward()
        with self._no_gradient():
            self._optimizer.apply([variable.value.grad for variable in self._variables], self._variables)
        return loss

    def updated(self) -> Any:
        return self._variables[-1].value


class _TensorFlowStep:
    """The package's own step, without fingerprints, which the others do not have either, and not waited for."""

    def __init__(self, settings: RunSettings, model: Any, batches: list[Arrays], compiled: bool) -> None:
        from minibert.training.step import TrainingStep

        self._step = TrainingStep(
            _objective(settings, model),
            learning_rate=settings.pretrain.learning_rate,
            seed=settings.seed,
            stage=STAGE,
            embedding_second_moment="word",
            fingerprints=False,
        )
        tensor = keras.ops.convert_to_tensor
        self._batches = [{name: tensor(array) for name, array in batch.items()} for batch in batches]

    def update(self, number: int, place: int) -> Any:
        metrics, _ = self._step.begin(number, self._batches[place])
        return metrics["loss"]

    def updated(self) -> Any:
        return self._step.objective.variables[-1].value


_STEPS = {"jax": _JaxStep, "torch": _TorchStep, "tensorflow": _TensorFlowStep}
