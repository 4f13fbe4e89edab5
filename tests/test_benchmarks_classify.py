"""`classify` beside the notebook's `evaluate`: the rates count what was read, and a side that fails is named."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from minibert.errors import SettingsError
from tests.runs import TEST_EXAMPLES

ROOT = Path(__file__).parents[1]
# Last, so that the package that is installed stays the one that is tested.
sys.path.append(str(ROOT))
classify, workers = (importlib.import_module(f"benchmarks.{name}") for name in ("classify", "workers"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reviews", "1"], "--reviews: 2 or more is required, but 1 came"),
        (["--pairs", "0"], "--pairs: 1 or more is required, but 0 came"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, tmp_path, capsys):
    assert classify.main(["--run", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_each_further_review_is_the_difference_of_many_and_one():
    found = classify._ratios({"minibert": [(1.5, 0.5)], "notebook": [(6.0, 4.0)]})
    assert (found["call_ratio"], found["ratio"]) == (4.0, 2.0)
    noise = classify._ratios({"minibert": [(1.5, 0.5), (0.4, 0.5)], "notebook": [(6.0, 4.0)] * 2})
    assert noise["call_ratio"] > 1
    assert noise["ratio"] is None, "a call with all reviews was no longer than one with a single review"


@pytest.mark.slow
def test_reviews_are_read_up_to_those_there_are(small_run, unlabelled_run, monkeypatch):
    texts, labels = classify.reviews_for(small_run, None, 2_000)
    assert len(texts) == len(labels) == TEST_EXAMPLES
    assert classify.reviews_for(small_run, None, 3) == (texts[:3], labels[:3])
    monkeypatch.setattr(classify, "LEAST_REVIEWS", TEST_EXAMPLES + 1)
    with pytest.raises(SettingsError, match=rf"10 or more test reviews are required, but .* has {TEST_EXAMPLES}"):
        classify.reviews_for(small_run, None, 2_000)
    data = str(unlabelled_run.parent / "texts.csv")
    with pytest.raises(SettingsError, match="a run of a labelled corpus is required"):
        classify.reviews_for(unlabelled_run, data, 2_000)


@pytest.mark.slow
def test_both_sides_classify_a_runs_reviews_alike(small_run, monkeypatch, capsys):
    monkeypatch.setattr(classify, "STARTS", 1)
    assert classify.main(["--run", str(small_run), "--pairs", "1", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["reviews"] == TEST_EXAMPLES
    for side in classify.SIDES:
        whole = TEST_EXAMPLES / row[f"{side}_reviews_per_second"]
        start = row[f"{side}_first_answer_seconds"]
        assert row[f"{side}_with_start_per_second"] == pytest.approx(TEST_EXAMPLES / (whole + start))
        assert row[f"{side}_peak_bytes"] > 1e8
    assert f"in a call with {TEST_EXAMPLES} reviews" in classify.markdown(row)


@pytest.mark.slow
def test_a_side_that_cannot_start_is_named(tmp_path):
    (tmp_path / classify._REVIEWS).write_text(json.dumps([["a review"] * 2, [0, 1]]), encoding="utf-8")
    with pytest.raises(workers.WorkerError, match="notebook: "):
        classify.Side("notebook", tmp_path, tmp_path)
