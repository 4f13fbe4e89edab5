"""What fills a training process' memory: whole rows from fresh processes, and the user's allocator is put back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import memory_profile
from benchmarks.memory_profile import GLIBC, OURS, array_bytes, main, markdown, run_rows
from benchmarks.workloads import masked_lm_batches, shape_settings
from minibert.model import masked_lm_loss


def made_up(imports: float, seconds: float) -> dict[str, Any]:
    sizes = {"imports": imports, "model": 0.9e9, "first_step": 1.0e9, "peak": 1.2e9, "arrays": 0.1e9}
    return {**sizes, "seconds": seconds}


def test_allocators_alternate_and_a_row_is_the_median_of_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def apart(function: Any, task: dict[str, Any]) -> dict[str, Any]:
        asked.append((task["allocator"], os.environ.get("MALLOC_PERTURB_")))
        return made_up(0.7e9 + len(asked), 0.1 * len(asked))

    monkeypatch.delenv("MALLOC_PERTURB_", raising=False)
    monkeypatch.setattr(memory_profile, "run_apart", apart)
    rows = run_rows(["tiny"], processes=3, steps=1)
    ours, glibc = (OURS, None), (GLIBC, "0")
    assert asked == [ours, glibc, glibc, ours, ours, glibc]
    assert "MALLOC_PERTURB_" not in os.environ
    assert [(row["allocator"], row["processes"], row["seconds"]) for row in rows] == [
        (OURS, 3, pytest.approx(0.4)),
        (GLIBC, 3, pytest.approx(0.3)),
    ]
    line = "| tiny | minibert's | 0.70 GB | 0.90 GB | 1.00 GB | 1.20 GB | 0.10 GB | 400 ms |"
    assert markdown(rows).splitlines()[2] == line


def test_a_setting_of_the_users_own_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(function: Any, task: dict[str, Any]) -> dict[str, Any]:
        raise memory_profile.WorkerError("gone")

    monkeypatch.setenv("MALLOC_PERTURB_", "7")
    monkeypatch.setattr(memory_profile, "run_apart", fail)
    with pytest.raises(memory_profile.WorkerError, match="gone"):
        memory_profile._apart({"allocator": GLIBC})
    assert os.environ["MALLOC_PERTURB_"] == "7"


def test_arrays_are_weights_gradients_moments_and_a_chunk_of_logits() -> None:
    settings = shape_settings("tiny")
    rows = max(len(batch["positions"]) for batch in masked_lm_batches(settings))
    vocabulary = settings.masking.required_vocabulary_size
    assert array_bytes("tiny", 1_000) == 4 * (4_000 + (rows + 66) * vocabulary), "one chunk"


def test_of_several_chunks_one_is_there_and_the_transposed_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_lm_loss, "CHUNK_BYTES", 1)
    settings = shape_settings("tiny")
    rows = max(len(batch["positions"]) for batch in masked_lm_batches(settings))
    vocabulary = settings.masking.required_vocabulary_size
    assert array_bytes("tiny", 1_000) == 4 * (4_000 + (rows // 64 + 66 + 64) * vocabulary)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps: 1 or more is required, but 0 came"),
        (["--processes", "-1"], "--processes: 1 or more is required, but -1 came"),
    ],
)
def test_wrong_counts_are_an_error(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) != 0
    assert message in capsys.readouterr().err


def test_nothing_kept_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory_profile, "FILE", tmp_path / "none.json")
    assert main(["--redraw"]) != 0
    assert "a file of results is required, but it is missing" in capsys.readouterr().err
    (tmp_path / "none.json").write_text(json.dumps({"conditions": [], "rows": []}))
    assert main(["--redraw"]) == 0


@pytest.mark.slow
def test_a_fresh_process_has_more_resident_with_each_part() -> None:
    rows = run_rows(["tiny"], processes=1, steps=2)
    for row in rows:
        sizes = [row[name] for name in ("imports", "model", "first_step", "peak")]
        assert sizes == sorted(sizes)
        assert 0 < row["arrays"] < row["peak"]
    assert [row["allocator"] for row in rows] == [OURS, GLIBC]
