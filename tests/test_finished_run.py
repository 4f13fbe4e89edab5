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
from minibert.training.finetune import ClassifierForward
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
    """Of two runs, too, and whatever they ask."""
    runs, inside, most, loaded = [FinishedRun(small_run) for _ in range(2)], [], [], []

    def alone(call: Any) -> Any:
        def counted(*given: Any, **named: Any) -> Any:
            inside.append(None)
            most.append(len(inside))
            time.sleep(0.02)
            found = call(*given, **named)
            inside.pop()
            return found

        return counted

    def load_model(path: Path, **options: Any) -> keras.Model:
        loaded.append(Path(path).name)
        return load(path, **options)

    load = keras.models.load_model
    monkeypatch.setattr(keras.models, "load_model", alone(load_model))
    monkeypatch.setattr(finished_run, "predict_masked", alone(finished_run.predict_masked))
    monkeypatch.setattr(ClassifierForward, "logits", alone(ClassifierForward.logits))
    data = write_texts(small_run.parent / "threads.csv", labelled=True)
    corpus = CorpusSettings(name="table", class_names=("negative", "positive"))
    questions = [
        lambda run: run.fill_mask(SENTENCE),
        lambda run: run.classify(TEXTS),
        lambda run: run.evaluate(data, corpus=corpus),
    ]
    asked = [(question, run) for question in questions for run in runs] * 2
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda both: both[0](both[1]), asked))
    assert set(most) == {1}
    assert sorted(loaded) == ["classifier.keras"] * 2 + ["masked_lm.keras"] * 2
    assert found == [question(run) for question, run in asked]


def test_texts_may_be_made_by_asking_the_same_run(small_run: Path) -> None:
    run, sentences = FinishedRun(small_run), [SENTENCE, "this [mask] was good"]
    found = run.classify(run.fill_mask(sentence)[0].sentence for sentence in sentences)
    assert found == run.classify([run.fill_mask(sentence)[0].sentence for sentence in sentences])


@pytest.mark.parametrize("path", [None, 7])
def test_what_is_no_path_is_named(path: Any, small_run: Path) -> None:
    with pytest.raises(SettingsError, match=f"directory: a path is required, but {path} came"):
        FinishedRun(path)
    with pytest.raises(SettingsError, match=f"data: a path is required, but {path} came"):
        FinishedRun(small_run).evaluate(path)


def test_names_are_as_many_as_sentences(small_run: Path) -> None:
    with pytest.raises(SettingsError, match=r"names: as many as there are sentences, 2, is required, but \['a'\] came"):
        FinishedRun(small_run).fill_masks([SENTENCE, SENTENCE], names=["a"])


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
