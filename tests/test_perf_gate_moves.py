"""Every gated benchmark moves when its own code is slowed, and its unrelated neighbours do not.

Real workers time a copy of the package in which one function does much more than it should. The margins
are wide, because what is asked is whether a benchmark measures its code at all, not how well.
"""

from __future__ import annotations

import re
import shutil
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import minibert
from minibert.environment import available_cores
from minibert.perf.benchmark_files import own_files
from minibert.perf.counters import differences
from minibert.perf.decision import FAILED, Rules
from minibert.perf.gate import Comparison
from minibert.perf.pair import CONTROL, time_pair
from minibert.perf.process import Worker
from minibert.perf.workloads import BUILDERS, DEFAULT

SECONDS = 5.0

_TWICE = """
_once = {function}


def {function}(*arguments, **more):
    _once(*arguments, **more)
    return _once(*arguments, **more)
"""
_MORE_PRODUCTS = """
_as_it_was = {name}.__call__


def _slowed(self, batch):
    objective, metrics, activations = _as_it_was(self, batch)
    if {when}:
        hidden = ops.stop_gradient(list(activations.values())[0])
        rows = ops.reshape(ops.cast(hidden, "float32"), (-1, hidden.shape[-1]))
        for _ in range(150):
            rows = ops.tanh(ops.matmul(rows, ops.matmul(ops.transpose(rows[:64]), rows[:64])))
        metrics = {{**metrics, "loss": metrics["loss"] + 1e-30 * ops.sum(rows)}}
    return objective, metrics, activations


{name}.__call__ = _slowed
"""
_FROZEN = "len(self.variables) <= 4"


@dataclass(frozen=True)
class Plant:
    """Code that is put at the end of a file, what it slows, what it touches beside, and whether the graph shows it."""

    file: str
    code: str
    slowed: str
    touched: str = ""
    in_graph: bool = False


PLANTS = [
    Plant("masking.py", _TWICE.format(function="mask_tokens"), "masking"),
    Plant("text.py", _TWICE.format(function="encode"), "encoding", touched="prediction[tiny]"),
    Plant("training/finetune.py", "\n_once = ClassifierForward.logits\n\n\ndef _twice(self, *ids, **more):\n"
          "    _once(self, *ids, **more)\n    return _once(self, *ids, **more)\n\n\n"
          "ClassifierForward.logits = _twice\n", "prediction[tiny]"),
    Plant("model/heads.py", _MORE_PRODUCTS.format(name="MaskedLMObjective", when="True"),
          "masked_lm_step[tiny]", in_graph=True),
    Plant("model/heads.py", _MORE_PRODUCTS.format(name="ClassifierObjective", when=_FROZEN),
          "frozen_step[tiny]", in_graph=True),
    Plant("model/heads.py", _MORE_PRODUCTS.format(name="ClassifierObjective", when=f"not ({_FROZEN})"),
          "unfrozen_step[tiny]", in_graph=True),
]  # fmt: skip


def test_every_gated_benchmark_has_a_plant() -> None:
    assert {plant.slowed for plant in PLANTS} == set(DEFAULT)


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.slowed)
def test_a_benchmark_moves_when_its_own_code_is_slowed_and_no_other_does(plant: Plant, tmp_path: Path) -> None:
    ratios, changes = compared_with(plant, DEFAULT, tmp_path)
    assert ratios.pop(plant.slowed) > 1.3, ratios
    assert any(line.startswith("MatMul ") for line in changes.pop(plant.slowed)) == plant.in_graph
    for name in ratios.keys() - {plant.touched}:
        assert 0.8 < ratios[name] < 1.25, (name, ratios)
        assert not changes[name], (name, changes)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(set(BUILDERS) - set(DEFAULT)))
def test_a_benchmark_of_another_shape_moves_with_the_same_code(name: str, tmp_path: Path) -> None:
    kind = name.partition("[")[0]
    plant = next(plant for plant in PLANTS if plant.slowed.startswith(f"{kind}["))
    ratios, changes = compared_with(plant, (name, "masking"), tmp_path)
    assert ratios[name] > 1.3, ratios
    assert any(line.startswith("MatMul ") for line in changes[name]) == plant.in_graph
    assert 0.8 < ratios["masking"] < 1.25, ratios
    assert not changes["masking"], changes


def compared_with(
    plant: Plant, names: tuple[str, ...], folder: Path
) -> tuple[dict[str, float], dict[str, tuple[str, ...]]]:
    """The ratio of times and the changed counters of each benchmark, planted tree by tree as it is."""
    trees = {side: folder / side for side in ("base", "head")}
    for tree in trees.values():
        source = Path(minibert.__file__).parent
        shutil.copytree(source, tree / "minibert", ignore=shutil.ignore_patterns("__pycache__"))
    planted = trees["head"] / "minibert" / plant.file
    planted.write_text(planted.read_text(encoding="utf-8") + plant.code, encoding="utf-8")
    ratios, changes = {}, {}
    with (
        Worker("base", python=Path(sys.executable), tree=trees["base"], perf=own_files(folder)) as base,
        Worker("head", python=Path(sys.executable), tree=trees["head"], perf=own_files(folder)) as head,
        Worker(CONTROL, python=Path(sys.executable), tree=trees["head"], perf=own_files(folder)) as control,
    ):
        control_seconds = control.ask("build", name=CONTROL)["step_seconds"]
        for name in names:
            step_seconds = max(worker.ask("build", name=name)["step_seconds"] for worker in (base, head))
            ratios[name] = median_ratio(base, head, control, name, step_seconds, control_seconds)
            head.ask("check", name=name)
            changes[name] = differences(base.ask("count", name=name), head.ask("count", name=name))
    return ratios, changes


def median_ratio(
    base: Worker, head: Worker, control: Worker, name: str, step_seconds: float, control_seconds: float
) -> float:
    """Head by base, over the half of the blocks in which other processes took the least."""
    times = time_pair(
        base,
        head,
        control,
        name,
        seconds=SECONDS,
        step_seconds=step_seconds,
        control_seconds=control_seconds,
        cores=available_cores(),
    )
    quietest = sorted(times.blocks, key=lambda block: block.others_rate or 0.0)[: len(times.blocks) // 2]
    return statistics.median(block.head_seconds / block.base_seconds for block in quietest)


_SPINNING = """
import threading


def _spin():
    while True:
        sum(range(100_000))


threading.Thread(target=_spin, daemon=True).start()
"""


@pytest.mark.slow
def test_a_head_whose_thread_goes_on_while_it_waits_has_failed(tmp_path: Path) -> None:
    trees = {side: tmp_path / side for side in ("base", "head", CONTROL)}
    for tree in trees.values():
        source = Path(minibert.__file__).parent
        shutil.copytree(source, tree / "minibert", ignore=shutil.ignore_patterns("__pycache__"))
    planted = trees["head"] / "minibert" / "masking.py"
    planted.write_text(planted.read_text(encoding="utf-8") + _SPINNING, encoding="utf-8")
    perf = own_files(tmp_path)
    (found,) = Comparison(
        start=lambda side: Worker(side, python=Path(sys.executable), tree=trees[side], perf=perf),
        names=["masking"],
        rules=Rules(),
        time_limit_seconds=60.0,
    ).run()
    assert found.decision.verdict == FAILED
    assert re.fullmatch(r"head: it works on while it waits for its turn: .*, the base 0\.0\d", found.decision.reason)
