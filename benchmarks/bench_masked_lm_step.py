"""How long does a training step of the masked language model take, beside the notebook's and others' own?

    pytest benchmarks/bench_masked_lm_step.py -m "slow or not slow"

The table of benchmarks/README.md is made by ``python -m benchmarks.peers``, whose sides have processes of their own.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.measuring import SHAPE_PARAMETERS, Steps, require_side, step_facts, time_beside
from benchmarks.workers import OURS, SIDES
from benchmarks.workloads import PREPARED_BATCHES


@pytest.mark.bench
@pytest.mark.benchmark(group="masked-LM step")
@pytest.mark.parametrize("shape", SHAPE_PARAMETERS)
@pytest.mark.parametrize("side", SIDES)
def test_masked_lm_step(benchmark: Any, device: str, side: str, shape: str) -> None:
    require_side(side)
    steps = Steps(side, shape, "masked_lm", device)
    reference = None if side == "notebook" else Steps("notebook", shape, "masked_lm", device)
    steps.check_device(device)
    facts = step_facts(benchmark, steps, device)

    time_beside(benchmark, steps, reference, facts, side=side, warm_up=2 * PREPARED_BATCHES, device=device)

    steps.check()
    if side == OURS:
        ours = steps.workload.training_step
        assert ours.trace_count == len(ours.graphs), "with fingerprints and without, each once"
