"""Where a step's time goes: the table, and one round of the measurement itself."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minibert.environment import available_cores

sys.path.append(str(Path(__file__).parents[1]))
step_profile, stored, workloads = (
    importlib.import_module(f"benchmarks.{name}") for name in ("step_profile", "stored", "workloads")
)


def row(part: str, seconds: float, floor: float, traffic: float) -> dict[str, Any]:
    rates = {"flops_per_second": 2e11, "bytes_per_second": 1e10, "rounds": 3}
    floors = {"floor_seconds": floor, "traffic_seconds": traffic}
    return {"shape": "imdb", "step": "frozen", "part": part, "seconds": seconds, **floors, **rates}


ROWS = [row("whole step", 0.2, 0.1, 0.0), row("head", 0.12, 0.08, 0.04), row("rest", 0.01, 0.0, 0.0)]


def test_the_table_has_a_part_s_share_of_the_whole_step_and_its_floors() -> None:
    assert step_profile.markdown(ROWS).splitlines()[2:] == [
        "| imdb | classifier, frozen | whole step | 200 ms | 100% | 100 ms | - |",
        "| imdb | classifier, frozen | head | 120 ms | 60% | 80 ms | 40 ms |",
        "| imdb | classifier, frozen | rest | 10 ms | 5% | - | - |",
    ]
    assert step_profile.rates_line(ROWS) == (
        "imdb, classifier, frozen: 200 GFLOP/s in large products, 10 GB/s in copies by one thread; all floors together "
        "are 120 of 200 ms."
    )


def test_the_copy_is_by_all_cores() -> None:
    rows = [{**each, "copy_threads": 2} for each in ROWS]
    assert "10 GB/s in copies by 2 threads; " in step_profile.rates_line(rows)
    rate = step_profile._CopyRate()
    assert rate.threads == available_cores()
    assert [len(parts) for parts in rate._parts] == [rate.threads] * 2
    assert rate.bytes_per_second() > 1e6
    copies, originals = rate._parts
    assert all(np.array_equal(*pair) for pair in zip(copies, originals, strict=True))


def test_a_table_is_kept_where_one_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.json"
    results = stored.Results(kept, step_profile.RESULT_KEYS)
    for part in ROWS:
        results.keep(part, under=stored.conditions())
    assert step_profile.main(["--redraw", "--keep", str(kept)]) == 0
    assert step_profile.markdown(ROWS) in capsys.readouterr().out


@pytest.mark.slow
def test_the_parts_are_timed_beside_the_whole_step_and_leave_its_weights_alone() -> None:
    rows = {row["part"]: row for row in step_profile.measure("tiny", rounds=1)}
    assert list(rows) == ["whole step", "head", "encoder", "Adam", "rest"]
    assert all(rows[name]["seconds"] > 0 for name in ("whole step", "head", "encoder", "Adam"))
    parts = sum(rows[name]["seconds"] for name in ("head", "encoder", "Adam", "rest"))
    assert parts == pytest.approx(rows["whole step"]["seconds"])
    settings = workloads.shape_settings("tiny")
    rows_of_head = len(workloads.OurStep(settings, "masked_lm").batches[0]["positions"])
    logits = 4 * rows_of_head * settings.masking.required_vocabulary_size
    assert rows["head"]["traffic_seconds"] * rows["head"]["bytes_per_second"] == pytest.approx(6 * logits)
    assert rows["encoder"]["traffic_seconds"] == rows["rest"]["traffic_seconds"] == 0
    assert rows["head"]["floor_seconds"] + rows["encoder"]["floor_seconds"] == pytest.approx(
        rows["whole step"]["floor_seconds"]
    )


@pytest.mark.slow
def test_the_update_that_is_timed_changes_no_weight() -> None:
    (whole, *_, adam), (other, *_) = (step_profile.parts_of(workloads.shape_settings("tiny")) for _ in range(2))
    for _ in range(3):
        adam.run()
    assert whole.run().metrics == other.run().metrics
