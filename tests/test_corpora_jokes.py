"""Short Jokes: a CSV with ID and Joke, or the hub; never labelled."""

from __future__ import annotations

import csv
from pathlib import Path

import datasets
import pytest

from minibert.corpora import open_corpus
from minibert.corpora.jokes import HUB_NAME
from minibert.errors import CorpusError, DownloadError
from minibert.settings import CorpusSettings

JOKES = [f'Why did chicken {n} cross the road?\nTo be number {n}, "of course".' for n in range(30)]


def write(path: Path, rows: list[dict]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def texts(corpus, split="train") -> list[str]:
    return [text for batch in corpus.batches(split) for text in batch.texts.to_pylist()]


def test_the_published_csv_is_all_train_and_unlabelled(tmp_path):
    path = write(tmp_path / "shortjokes.csv", [{"ID": n + 1, "Joke": joke} for n, joke in enumerate(JOKES)])
    corpus = open_corpus(CorpusSettings(name="jokes"), seed=0, data=path)
    assert (corpus.name, corpus.class_names, corpus.labelled) == ("jokes", None, False)
    assert corpus.examples == {"train": 30, "test": 0}
    assert texts(corpus) == JOKES
    assert texts(corpus, "test") == []


def test_the_hub_gives_the_same_corpus(tmp_path, monkeypatch):
    asked = []

    def load(name):
        asked.append(name)
        rows = {"ID": list(range(30)), "Joke": JOKES}
        return datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = open_corpus(CorpusSettings(name="jokes"), seed=0)
    path = write(tmp_path / "shortjokes.csv", [{"ID": n + 1, "Joke": joke} for n, joke in enumerate(JOKES)])
    assert corpus.digest == open_corpus(CorpusSettings(name="jokes"), seed=0, data=path).digest
    assert asked == [HUB_NAME]


def test_labels_are_not_looked_at_unless_a_column_is_named(tmp_path):
    path = write(tmp_path / "t.csv", [{"Joke": joke, "label": n % 3} for n, joke in enumerate(JOKES)])
    assert not open_corpus(CorpusSettings(name="jokes"), seed=0, data=path).labelled
    with pytest.raises(CorpusError, match="two label values are required in column 'label'"):
        open_corpus(CorpusSettings(name="jokes", label_column="label"), seed=0, data=path)


def test_a_split_that_the_table_asks_for_is_honoured(tmp_path):
    rows = [{"Joke": joke, "split": "test" if n % 3 == 0 else "train"} for n, joke in enumerate(JOKES)]
    corpus = open_corpus(CorpusSettings(name="jokes"), seed=0, data=write(tmp_path / "t.csv", rows))
    assert corpus.examples == {"train": 20, "test": 10}


def test_fewer_examples_can_be_asked_for(tmp_path):
    path = write(tmp_path / "t.csv", [{"Joke": joke} for joke in JOKES])
    corpus = open_corpus(CorpusSettings(name="jokes", train_examples=7), seed=0, data=path)
    assert corpus.examples == {"train": 7, "test": 0}


def test_blank_jokes_are_kept_as_empty_texts(tmp_path, monkeypatch):
    path = write(tmp_path / "t.csv", [{"ID": 1, "Joke": "Ha"}, {"ID": 2, "Joke": ""}, {"ID": 3, "Joke": "NA"}])
    assert texts(open_corpus(CorpusSettings(name="jokes"), seed=0, data=path)) == ["Ha", "", "NA"]
    rows = datasets.Dataset.from_dict({"ID": [1, 2], "Joke": ["Ha", None]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict({"train": rows}))
    assert texts(open_corpus(CorpusSettings(name="jokes"), seed=0)) == ["Ha", ""]


def test_a_table_without_jokes_is_refused(tmp_path):
    path = write(tmp_path / "t.csv", [{"ID": 1, "Pun": "Ha"}])
    with pytest.raises(CorpusError, match=r"a text column review, text, content, Joke, .* there are 'ID', 'Pun'"):
        open_corpus(CorpusSettings(name="jokes"), seed=0, data=path)


def test_a_table_separated_by_semicolons_is_named_as_one(tmp_path):
    (tmp_path / "t.csv").write_text("text;label\nHa;good\n")
    with pytest.raises(CorpusError, match=r"there are 'text;label'; it seems to be separated by semicolons, where"):
        open_corpus(CorpusSettings(name="jokes"), seed=0, data=tmp_path / "t.csv")


def test_an_unreachable_hub_is_a_download_error():
    """Tests are offline: this is the real loader."""
    with pytest.raises(DownloadError, match=f"{HUB_NAME}: cannot be fetched from the hub .* give a local copy"):
        open_corpus(CorpusSettings(name="jokes"), seed=0)
