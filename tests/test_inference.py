"""A finished run fills masks, classifies and evaluates; a file that is not the recorded one is named."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from minibert import finished_run, inference
from minibert.artifacts import sha256_of_file
from minibert.errors import ArtifactError, CorpusError, DeviceError, MinibertError, OutOfMemoryError, SettingsError
from minibert.model import backend
from minibert.model.encoder import HEAD_NAME
from minibert.progress import Progress
from minibert.record import read_record, record_settings, write_record
from minibert.settings import CorpusSettings
from minibert.text import Vocabulary, encode, sample_ids
from minibert.training.pretrain import masked_words, predict_masked
from tests.runs import small_settings, write_texts

SENTENCE = small_settings().pretrain.sample_sentence
TEXTS = ["A great film!", "I would call it really awful.", "not bad at all <br />"]


@pytest.fixture
def copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def token_ids(run: Path, texts: list[str]) -> np.ndarray:
    vocabulary = Vocabulary.read(run / "vocabulary.txt")
    return encode(pa.array(texts, type=pa.string()), vocabulary, small_settings().text)


# Right


def test_a_mask_is_filled_as_the_record_says_after_the_last_epoch(small_run: Path) -> None:
    recorded = read_record(small_run)["stages"]["pretrain"]["epochs"][-1]["predictions"]
    found = inference.fill_mask(small_run, SENTENCE)
    assert [(p.token, p.sentence) for p in found] == [(p["token"], p["sentence"]) for p in recorded]
    assert [p.probability for p in found] == pytest.approx([p["probability"] for p in recorded], rel=1e-6)
    assert all(p.sentence == SENTENCE.replace("[mask]", p.token) for p in found)


def test_a_finished_runs_products_are_float32_on_a_gpu_too(small_run: Path) -> None:
    tf.config.experimental.enable_tensor_float_32_execution(True)
    inference.fill_mask(small_run, "I have watched this [mask]")
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_a_mask_in_capitals_is_filled_too(small_run: Path) -> None:
    small, large = (inference.fill_mask(small_run, f"This {mask} was good") for mask in ("[mask]", "[MASK]"))
    assert small == large
    assert [p.sentence for p in large] == [f"This {p.token} was good" for p in large]


def test_a_mask_is_filled_with_the_words_of_the_saved_model(small_run: Path) -> None:
    model = keras.models.load_model(small_run / "masked_lm.keras", compile=False)
    words = Vocabulary.read(small_run / "vocabulary.txt").words
    probabilities = np.asarray(model(token_ids(small_run, ["this [mask] was good"])))[0, 1]
    found = inference.fill_mask(small_run, "this [mask] was good", top_k=len(words) + 5)
    assert len(found) == len(words)
    assert [p.token for p in found[:3]] == [words[i] for i in np.argsort(-probabilities)[:3]]
    assert [p.probability for p in found] == pytest.approx(sorted(probabilities.tolist(), reverse=True), rel=1e-4)
    assert sum(p.probability for p in found) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_masks_of_many_sentences_are_filled_as_each_alone(
    compiled: bool, small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_UNCOMPILED_SENTENCES", 1 if compiled else 1_000)
    sentences = [f"{'good ' * (number % 4)}[mask] was awful" for number in range(finished_run.BATCH_SIZE + 3)]
    together = inference.fill_masks(small_run, sentences, top_k=3)
    assert [[p.sentence for p in found] for found in together] == [
        [sentence.replace("[mask]", p.token) for p in found]
        for sentence, found in zip(sentences, together, strict=True)
    ]
    for number in range(4):
        alone = inference.fill_mask(small_run, sentences[number], top_k=3)
        for found in together[number::4]:
            assert [p.token for p in found] == [p.token for p in alone]
            assert [p.probability for p in found] == pytest.approx([p.probability for p in alone], rel=1e-5)
    assert len({tuple(p.probability for p in found) for found in together}) >= 4
    assert inference.fill_masks(small_run, []) == []


def test_of_words_as_probable_the_smaller_id_comes_first(small_run: Path) -> None:
    model = keras.models.load_model(small_run / "masked_lm.keras", compile=False)
    head = model.get_layer(HEAD_NAME)
    head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
    vocabulary = Vocabulary.read(small_run / "vocabulary.txt")
    sample = sample_ids(["a [mask]"], vocabulary, small_settings().text)
    [found] = predict_masked(masked_words(model), ["a [mask]"], *sample, vocabulary=vocabulary, top_k=7)
    assert [p.token for p in found] == list(vocabulary.words[:7])


def test_classes_are_those_of_the_raw_text_model(small_run: Path) -> None:
    model = keras.models.load_model(small_run / "end_to_end.keras", compile=False)
    positive = np.asarray(model(keras.ops.convert_to_tensor(TEXTS)))[:, 0]
    found = inference.classify(small_run, TEXTS)
    assert [c.label for c in found] == (positive > 0.5).astype(int).tolist()
    names = read_record(small_run)["corpus"]["class_names"]
    assert [c.class_name for c in found] == [names[c.label] for c in found]
    expected = np.maximum(positive, 1.0 - positive)
    assert [c.probability for c in found] == pytest.approx(expected.tolist(), rel=1e-5)


def test_words_that_are_read_and_those_that_are_unknown_are_counted(small_run: Path) -> None:
    known = Vocabulary.read(small_run / "vocabulary.txt").words[2]
    length = small_settings().text.sequence_length
    texts = [known, f"{known} qqqq {known}, qqqq! qqqq", "...", f"{known} " * (length + 3)]
    found = inference.classify(small_run, texts)
    assert [(c.words, c.unknown_words) for c in found] == [(1, 0), (5, 3), (0, 0), (length, 0)]
    assert [c.is_mostly_unknown for c in found] == [False, True, True, False]
    assert [c.is_cut for c in found] == [False, False, False, True]
    for words, is_cut in ((length, False), (length + 1, True)):
        (one,) = inference.classify(small_run, [f"{known}, " * words])
        assert (one.words, one.is_cut) == (length, is_cut)


@pytest.mark.long
def test_a_text_is_classified_alone_as_among_others(small_run: Path) -> None:
    together = inference.classify(small_run, TEXTS * 20)
    assert len(together) == 60
    alone = inference.classify(small_run, TEXTS[:1])[0]
    assert all(together[i].label == alone.label for i in range(0, 60, 3))
    assert together[0].probability == pytest.approx(alone.probability, rel=1e-5)


def test_texts_are_classified_in_pieces_of_bounded_size(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, shown = inference.classify(small_run, TEXTS * 7), io.StringIO()
    monkeypatch.setattr(finished_run, "BATCH_ROWS", 5)
    pieces = inference.classify(small_run, TEXTS * 7, progress=Progress(stream=shown, interval_seconds=0))
    assert [p.class_name for p in pieces] == [w.class_name for w in whole]
    assert [p.probability for p in pieces] == pytest.approx([w.probability for w in whole], rel=1e-5)
    assert shown.getvalue().startswith("classify: 5/21 (24%)")


def test_no_texts_have_no_classes(small_run: Path) -> None:
    assert inference.classify(small_run, []) == []


def labelled(path: Path, *, names: tuple[str, str] = ("negative", "positive"), with_splits: bool = False) -> Path:
    """A table of the run's texts; its label 0 is called ``names[0]``."""
    with write_texts(path, labelled=True).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", *(["split"] if with_splits else [])])
        writer.writerows([[text, names[int(label)], *([split] if with_splits else [])] for text, split, label in rows])
    return path


def test_evaluation_on_the_test_split_gives_the_recorded_figures(small_run: Path, tmp_path: Path) -> None:
    recorded = read_record(small_run)["stages"]
    found = inference.evaluate(small_run, labelled(tmp_path / "texts.csv", with_splits=True))
    assert found.examples == 9
    assert found.accuracy == recorded["end_to_end"]["accuracy"]
    assert found.loss == pytest.approx(recorded["end_to_end"]["loss"], rel=1e-5)
    assert found.loss == pytest.approx(recorded["unfrozen"]["epochs"][-1]["val_loss"], rel=1e-6)


def test_without_splits_every_row_is_evaluated(small_run: Path, tmp_path: Path) -> None:
    assert inference.evaluate(small_run, labelled(tmp_path / "texts.csv")).examples == 38


def test_classes_are_matched_by_name_not_by_number(small_run: Path, tmp_path: Path) -> None:
    names = read_record(small_run)["corpus"]["class_names"]
    straight = inference.evaluate(small_run, labelled(tmp_path / "a.csv", names=tuple(names)))
    named = CorpusSettings(name="table", class_names=tuple(names))
    numbers = labelled(tmp_path / "b.csv", names=("0", "1"))
    assert straight == inference.evaluate(small_run, numbers, corpus=named)
    # Sorted label values decide which is 0: with these names the file's 0 is the run's 1.
    corpus = CorpusSettings(name="table", class_names=tuple(names[::-1]))
    flipped = inference.evaluate(small_run, numbers, corpus=corpus)
    assert flipped.accuracy == pytest.approx(1.0 - straight.accuracy)


@pytest.mark.parametrize(
    "order", [("negative", "positive"), pytest.param(("positive", "negative"), marks=pytest.mark.long)]
)
@pytest.mark.parametrize("names", [("negative", "positive"), ("positive", "negative")])
def test_a_table_of_the_class_names_is_matched_by_them_and_not_by_their_order(
    small_run: Path, tmp_path: Path, names: tuple[str, str], order: tuple[str, str]
) -> None:
    """A run on 0 and 1 with the names positive, negative once took the words of a new table for each other."""
    words = labelled(tmp_path / "words.csv", names=names)
    named = CorpusSettings(name="table", class_names=order)
    assert inference.evaluate(small_run, words, corpus=named) == inference.evaluate(small_run, words)


def test_the_names_of_a_runs_settings_do_not_rename_the_words_of_a_new_table(copy: Path, tmp_path: Path) -> None:
    words, record = labelled(tmp_path / "words.csv"), read_record(copy)
    straight = inference.evaluate(copy, words)
    settings = record_settings(record, copy)
    corpus = dataclasses.replace(settings.corpus, class_names=("positive", "negative"))
    settings = dataclasses.replace(settings, corpus=corpus)
    write_record(copy, record | {"settings": settings.to_dict(), "settings_digest": settings.digest()})
    assert inference.evaluate(copy, words) == straight


# Refused


@pytest.mark.parametrize("names", [("ham", "spam"), ("0", "1")])
def test_classes_of_other_names_are_named(small_run: Path, tmp_path: Path, names: tuple[str, str]) -> None:
    data = labelled(tmp_path / "texts.csv", names=names)
    message = f"texts.csv: the classes .* are required, but '{names[0]}' and '{names[1]}' came; corpus.class_names"
    with pytest.raises(CorpusError, match=message):
        inference.evaluate(small_run, data)


def test_unlabelled_texts_cannot_be_evaluated(small_run: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"texts.csv: labels are required to evaluate, but there are none"):
        inference.evaluate(small_run, write_texts(tmp_path / "texts.csv"))


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("no mask here", r"exactly one \[mask\] .* but 0 came in 'no mask here'"),
        ("[mask] and [mask]", r"exactly one \[mask\] .* but 2 came"),
        ("", r"exactly one \[mask\] .* but 0 came in ''"),
        ("word " * 24 + "[mask]", r"\[mask\] among the first 24 words .* is required, but it is word 25"),
        ("a [mask] film " + "word " * 24 + "[MASK]", r"exactly one \[mask\] .* but 2 came"),
        ("x[mask]y", r"one \[mask\], as a word of its own, is required, but 0 came in 'x\[mask\]y'"),
        ("\udcff [mask]", "sentence: Unicode text is required"),
    ],
    ids=["none", "two", "empty", "behind the end", "the second behind the end", "within a word", "no Unicode"],
)
def test_a_sentence_without_exactly_one_mask_is_refused(sentence: str, message: str, small_run: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        inference.fill_mask(small_run, sentence)


@pytest.mark.parametrize("top_k", [0, -1, 2.5, "3", True, None])
def test_only_a_number_of_predictions_can_be_asked_for(top_k: Any, small_run: Path) -> None:
    message = f"top_k: an integer, 1 or more, is required, but {top_k!r} came"
    with pytest.raises(SettingsError, match=re.escape(message)):
        inference.fill_mask(small_run, SENTENCE, top_k=top_k)


@pytest.mark.parametrize("text", ["", "  \n", None, 7, "\udcff"])
def test_a_text_that_is_empty_or_no_text_is_named_by_its_number(text: Any, small_run: Path) -> None:
    with pytest.raises(SettingsError, match="texts: Unicode text that is not empty is required, but number 2 is "):
        inference.classify(small_run, ["good", text])


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("good", r"exactly one \[mask\] is required, but 0 came in 'good'"),
        (None, "Unicode text is required, but None came"),
    ],
)
def test_a_sentence_of_several_is_named_by_its_number(sentence: Any, message: str, small_run: Path) -> None:
    with pytest.raises(SettingsError, match=f"sentences, number 2: {message}"):
        inference.fill_masks(small_run, ["a [mask]", sentence])


@pytest.mark.parametrize("sentences", ["good", None, 7])
def test_what_is_no_list_of_sentences_is_refused(sentences: Any, small_run: Path) -> None:
    with pytest.raises(SettingsError, match=f"sentences: a list of sentences is required, but {sentences!r} came"):
        inference.fill_masks(small_run, sentences)


@pytest.mark.parametrize("texts", ["good", None, 7])
def test_what_is_no_list_of_texts_is_refused(texts: Any, small_run: Path) -> None:
    with pytest.raises(SettingsError, match=f"texts: a list of texts is required, but {texts!r} came"):
        inference.classify(small_run, texts)


def test_a_wrong_argument_is_named_before_the_run_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="texts: "):
        inference.classify(tmp_path / "none", "good")
    with pytest.raises(SettingsError, match="sentences: "):
        inference.fill_masks(tmp_path / "none", "a [mask]")
    for fill, given in ((inference.fill_mask, "a [mask]"), (inference.fill_masks, ["a [mask]"])):
        with pytest.raises(SettingsError, match="top_k: "):
            fill(tmp_path / "none", given, top_k=0)


def test_sentences_may_come_one_by_one(small_run: Path) -> None:
    sentences = ["a [mask]", "this [mask] was good"]
    assert inference.fill_masks(small_run, iter(sentences)) == inference.fill_masks(small_run, sentences)


@pytest.mark.long
def test_a_run_without_labels_fills_masks_and_does_not_classify(unlabelled_run: Path, tmp_path: Path) -> None:
    assert len(inference.fill_mask(unlabelled_run, SENTENCE, top_k=3)) == 3
    with pytest.raises(ArtifactError, match="a run of a labelled corpus is required, but this one has no classifier"):
        inference.classify(unlabelled_run, TEXTS)
    with pytest.raises(ArtifactError, match="a run of a labelled corpus is required"):
        inference.evaluate(unlabelled_run, labelled(tmp_path / "texts.csv"))


def use(run: Path, command: str, folder: Path) -> Any:
    if command == "fill_mask":
        return inference.fill_mask(run, SENTENCE)
    return (
        inference.classify(run, TEXTS) if command == "classify" else inference.evaluate(run, labelled(folder / "x.csv"))
    )


COMMANDS = {"fill_mask": "masked_lm.keras", "classify": "classifier.keras", "evaluate": "classifier.keras"}


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(content[:-9] if kind == "cut" else content[:middle] + b"x" + content[middle + 1 :])


@pytest.mark.parametrize("kind", ["missing", "cut", "edited"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_that_is_not_the_recorded_one_is_named(command: str, kind: str, copy: Path, tmp_path: Path) -> None:
    damage(copy / COMMANDS[command], kind)
    with pytest.raises(ArtifactError, match=f"{COMMANDS[command]}: ") as error:
        use(copy, command, tmp_path)
    assert "\n" not in str(error.value)


def test_a_file_with_the_recorded_digest_that_is_no_model_is_named(copy: Path) -> None:
    path, record = copy / "masked_lm.keras", read_record(copy)
    path.write_bytes(b"not a model")
    record["artifacts"]["masked_lm.keras"]["sha256"] = sha256_of_file(path)
    write_record(copy, record)
    with pytest.raises(ArtifactError, match=r"masked_lm.keras: a Keras model is required, but it cannot be loaded"):
        inference.fill_mask(copy, SENTENCE)


@pytest.mark.parametrize("kind", ["missing", "cut", "edited"])
@pytest.mark.parametrize("name", ["run.json", "vocabulary.txt"])
def test_a_damaged_record_or_vocabulary_is_named(name: str, kind: str, copy: Path, tmp_path: Path) -> None:
    damage(copy / name, kind)
    for command in COMMANDS:
        with pytest.raises(ArtifactError, match=name):
            use(copy, command, tmp_path)


def test_a_vocabulary_of_another_run_is_named(copy: Path) -> None:
    path = copy / "vocabulary.txt"
    words = path.read_text(encoding="utf-8").split("\n")
    words[3], words[4] = words[4], words[3]
    path.write_text("\n".join(words), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"vocabulary.txt: it is not the run's"):
        inference.fill_mask(copy, SENTENCE)


def test_a_run_that_did_not_finish_has_no_model(copy: Path, tmp_path: Path) -> None:
    record = read_record(copy)
    record["artifacts"] = {}
    write_record(copy, record | {"status": "running"})
    for command, name in COMMANDS.items():
        what = (
            f"{name}: a finished run is required, but this model is not there: minibert run small .* --resume goes on"
        )
        with pytest.raises(ArtifactError, match=what):
            use(copy, command, tmp_path)


def test_every_error_here_is_one_of_ours_and_one_line(small_run: Path, tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "none", small_run / "run.json"):
        with pytest.raises(MinibertError) as error:
            inference.fill_mask(wrong, SENTENCE)
        assert "\n" not in str(error.value)


def test_a_models_code_is_not_run(copy: Path) -> None:
    """Keras' safe mode is on: a model file with a Lambda layer is refused, even if the record names it."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x)])
    model.save(copy / "masked_lm.keras")
    record = read_record(copy)
    record["artifacts"]["masked_lm.keras"]["sha256"] = sha256_of_file(copy / "masked_lm.keras")
    write_record(copy, record)
    with pytest.raises(ArtifactError, match=r"masked_lm.keras: a Keras model is required"):
        inference.fill_mask(copy, SENTENCE)


@pytest.mark.parametrize("command", COMMANDS)
def test_another_backend_is_refused(
    command: str, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "BACKEND", "jax")
    with pytest.raises(DeviceError, match="Keras' backend: tensorflow is required, but 'jax' came"):
        use(small_run, command, tmp_path)


@pytest.mark.parametrize(
    ("command", "said"), [("fill_mask", "fill-mask"), ("classify", "classify"), ("evaluate", "evaluate")]
)
def test_memory_that_runs_out_is_told(
    command: str, said: str, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(*_: Any, **__: Any) -> Any:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(finished_run, "predict_masked", large)
    monkeypatch.setattr(finished_run.ClassifierForward, "logits", large)
    with pytest.raises(OutOfMemoryError, match=f"{said}: memory for a batch of (1|32) is required"):
        use(small_run, command, tmp_path)


def test_a_model_that_is_missing_is_named_before_texts_are_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "classifier.keras").unlink()
    monkeypatch.setattr(finished_run, "open_corpus", None)
    with pytest.raises(ArtifactError, match=r"classifier.keras: a finished run is required"):
        inference.evaluate(copy, copy / "texts.csv")
