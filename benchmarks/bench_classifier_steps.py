"""How long do the classifier's training steps take, frozen and unfrozen, beside the notebook's and others' own?

pytest benchmarks/bench_classifier_steps.py -m "slow or not slow"
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.measuring import SHAPE_PARAMETERS, Steps, require_side, step_facts, time_beside
from benchmarks.workers import GROUP_SIDES, OURS
from benchmarks.workloads import PREPARED_BATCHES


@pytest.mark.bench
@pytest.mark.benchmark(group="classifier steps")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("step", ["frozen", "unfrozen"])
@pytest.mark.parametrize("side", GROUP_SIDES)
def test_classifier_step(benchmark: Any, device: str, side: str, step: str, shape: str) -> None:
    require_side(side)
    steps = Steps(side, shape, step, device)
    reference = None if side == "notebook" else Steps("notebook", shape, step, device)
    steps.check_device(device)
    facts = step_facts(benchmark, steps, device)

    time_beside(benchmark, steps, reference, facts, side=side, warm_up=2 * PREPARED_BATCHES, device=device)

    steps.check()
    if side == OURS:
        ours = steps.workload.training_step
        assert ours.trace_count == len(ours.graphs), "with fingerprints and without, each once"
