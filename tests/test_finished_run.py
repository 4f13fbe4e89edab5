"""A run that is held is read once, traced once, and answers as one call does."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import pytest

from minibert import FinishedRun, finished_run, inference
from minibert.errors import ArtifactError, SettingsError
from minibert.settings import CorpusSettings
from minibert.training import pretrain
from tests.runs import small_settings, write_texts

SENTENCE = small_settings().pretrain.sample_sentence
TEXTS = ["A great film!", "I would call it really awful.", "not bad at all <br />"]


@pytest.fixture
def copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.mark.parametrize("compiled", [False, True])
def test_all_its_answers_are_those_of_single_calls(compiled: bool, small_run: Path, tmp_path: Path) -> None:
    run, data = FinishedRun(small_run, compiled=compiled), write_texts(tmp_path / "texts.csv", labelled=True)
    corpus = CorpusSettings(name="table", class_names=("negative", "positive"))
    assert run.classify(TEXTS) == inference.classify(small_run, TEXTS)
    assert run.evaluate(data, corpus=corpus) == inference.evaluate(small_run, data, corpus=corpus)
    sentences = [SENTENCE, "this [mask] was good"]
    filled, expected = run.fill_masks(sentences, top_k=3), inference.fill_masks(small_run, sentences, top_k=3)
    assert [[p.sentence for p in one] for one in filled] == [[p.sentence for p in one] for one in expected]
    for one, other in zip(filled, expected, strict=True):
        assert [p.probability for p in one] == pytest.approx([p.probability for p in other], rel=1e-5)


def test_files_are_read_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, loaded, load = FinishedRun(copy), [], keras.models.load_model

    def load_model(path: Path, **options: Any) -> keras.Model:
        loaded.append(Path(path).name)
        return load(path, **options)

    monkeypatch.setattr(keras.models, "load_model", load_model)
    run.classify(TEXTS[:1])
    assert loaded == ["classifier.keras"]  # what is not asked for is not read
    first = run.fill_mask(SENTENCE), run.classify(TEXTS)
    shutil.rmtree(copy)
    assert (run.fill_mask(SENTENCE), run.classify(TEXTS)) == first
    assert loaded == ["classifier.keras", "masked_lm.keras"]


@pytest.mark.parametrize(("compiled", "traces"), [(True, 1), (False, 6)])
def test_a_graph_is_traced_once_for_all_numbers_of_sentences_and_of_words(
    compiled: bool, traces: int, small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, one_of_each = [], pretrain.one_of_each

    def counted(*batch: Any) -> Any:
        calls.append(batch)
        return one_of_each(*batch)

    monkeypatch.setattr(pretrain, "one_of_each", counted)
    run = FinishedRun(small_run, compiled=compiled)
    for count in (1, 4, 2):
        for top_k in (5, 2):
            assert {len(found) for found in run.fill_masks([SENTENCE] * count, top_k=top_k)} == {top_k}
    assert len(calls) == traces


def test_threads_are_answered_one_after_the_other(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, inside, most, loaded = FinishedRun(small_run), [], [], []
    predict, load = finished_run.predict_masked, keras.models.load_model

    def slow(*given: Any, **named: Any) -> Any:
        inside.append(None)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return predict(*given, **named)

    def counted(path: Path, **options: Any) -> keras.Model:
        loaded.append(Path(path).name)
        return load(path, **options)

    monkeypatch.setattr(finished_run, "predict_masked", slow)
    monkeypatch.setattr(keras.models, "load_model", counted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: run.fill_mask(SENTENCE), range(8)))
    assert most == [1] * 8
    assert loaded == ["masked_lm.keras"]
    assert found == [run.fill_mask(SENTENCE)] * 8


def test_what_was_refused_once_is_refused_again_and_the_rest_is_answered(copy: Path) -> None:
    run = FinishedRun(copy)
    (copy / "masked_lm.keras").write_bytes(b"changed")
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"masked_lm.keras: field 'sha256' of the record does not fit"):
            run.fill_mask(SENTENCE)
        with pytest.raises(SettingsError, match="sentences, number 1: exactly one"):
            run.fill_masks(["no mask"])
        with pytest.raises(SettingsError, match="texts: a list of texts is required"):
            run.classify("good")
    assert len(run.classify(TEXTS)) == len(TEXTS)


def test_a_directory_that_is_no_run_is_refused_at_once(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run.json"):
        FinishedRun(tmp_path)
    (copy / "vocabulary.txt").unlink()
    with pytest.raises(ArtifactError, match=r"vocabulary.txt"):
        FinishedRun(copy)
