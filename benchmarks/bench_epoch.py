"""How long does a whole epoch of the masked language model take, beside the notebook's ``fit`` and the peers' loops?

    pytest benchmarks/bench_epoch.py -m "slow or not slow"

Ours draws its order and masks, builds its batches and digests its weights within the time; the
notebook's masks are drawn before, as the notebook does. keras-hub and PyTorch mask each batch anew, as their guides do.
Arithmetic and masked tokens are the task's, with our masks: what a side does beyond them is not counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.arithmetic import step_flops
from benchmarks.measuring import SHAPE_PARAMETERS, Steps, peak_facts, require_side, time_beside
from benchmarks.workers import GROUP_SIDES, OURS, build_for
from benchmarks.workloads import OurStep, shape_settings, shape_token_ids
from minibert.masking import mask_tokens
from minibert.settings import RunSettings

STEPS_PER_EPOCH = {"tiny": 12, "amazon": 12, "imdb": 6}
ROUNDS = {"tiny": 15, "amazon": 5, "imdb": 5}  # an epoch of the notebook's takes up to a quarter of a minute


class OurEpoch:
    """An epoch by our own loop, from step 0; the weights go on from where they are."""

    def __init__(self, settings: RunSettings, token_ids: np.ndarray) -> None:
        from minibert.batches import MaskedLMBatches
        from minibert.training.loop import Stage

        step = OurStep(settings, "masked_lm")
        self.stage = Stage(
            name="pretrain",
            step=step.training_step,
            batches=MaskedLMBatches(
                token_ids, seed=settings.seed, masking=settings.masking, batch_size=settings.pretrain.batch_size
            ),
            epochs=1,
            variables=list(step.model.variables),
            evaluate=lambda epoch: {},
        )
        self.losses: list[float] = []

    def __call__(self) -> None:
        from minibert.training.loop import Progression, train

        progression = Progression()
        train(
            self.stage,
            progression,
            trace=None,
            checkpoint_steps=self.stage.steps + 1,
            keep=lambda progression: None,
            advance=lambda progression, figures: None,
        )
        self.losses.append(progression.epochs[-1]["loss"])


class NotebookEpoch:
    """An epoch by Keras' ``fit`` on a ``tf.data`` pipeline, as in the notebooks."""

    def __init__(self, settings: RunSettings, token_ids: np.ndarray) -> None:
        import tensorflow as tf

        from benchmarks.notebook_models import build_masked_lm

        masked = mask_tokens(token_ids, seed=settings.seed, settings=settings.masking)
        arrays = (masked.token_ids, masked.labels, masked.sample_weight)
        dataset = tf.data.Dataset.from_tensor_slices(arrays)
        self._batches = dataset.shuffle(1_000).batch(settings.pretrain.batch_size)
        self._model = build_masked_lm(settings)
        self.losses: list[float] = []

    def __call__(self) -> None:
        self.losses.append(self._model.fit(self._batches, epochs=1, shuffle=False, verbose=0).history["loss"][-1])


EPOCHS = {
    OURS: (__name__, "OurEpoch"),
    "notebook": (__name__, "NotebookEpoch"),
    "keras-hub": ("benchmarks.keras_hub_models", "KerasHubEpoch"),
    "pytorch": ("benchmarks.torch_models", "TorchEpoch"),
}
"""Side -> the module and the class of its epoch, which is called and remembers its losses."""


def epoch_of(side: str, shape: str, device: str) -> Any:
    """A side's epoch."""
    settings = shape_settings(shape)
    return build_for(side, *EPOCHS[side], settings, shape_token_ids(settings, STEPS_PER_EPOCH[shape]), device=device)


@pytest.mark.bench
@pytest.mark.benchmark(group="epoch")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", GROUP_SIDES)
def test_epoch(benchmark: Any, device: str, side: str, shape: str) -> None:
    require_side(side)
    settings = shape_settings(shape)
    token_ids = shape_token_ids(settings, STEPS_PER_EPOCH[shape])
    if device != "cpu" and side == OURS:
        Steps(side, shape, "masked_lm", device).check_device(device)
    timed = epoch_of(side, shape, device)
    reference = None if side == "notebook" else epoch_of("notebook", shape, device)
    masked = mask_tokens(token_ids, seed=settings.seed, settings=settings.masking)
    steps, selected = STEPS_PER_EPOCH[shape], int(masked.sample_weight.sum())
    facts = {
        "tokens": token_ids.size,
        "masked_tokens": selected,
        "steps": steps,
        "flops": steps * step_flops(settings, "masked_lm", rows=selected / steps),
        "bytes": token_ids.nbytes,
        **peak_facts(benchmark, side, device, epoch_of, shape, device),
    }

    time_beside(benchmark, timed, reference, facts, side=side, rounds=ROUNDS[shape], device=device)

    assert np.isfinite(timed.losses).all()
    assert timed.losses[-1] < timed.losses[0]
