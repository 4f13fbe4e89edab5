"""The corpus interface: a digest that is a function of content, and the choice of a reader."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minibert.corpora import Corpus, TextBatch, open_corpus
from minibert.corpora.corpus import content_digest, make_corpus, text_array
from minibert.errors import CorpusError, SettingsError
from minibert.settings import CorpusSettings

texts = st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), st.integers(0, 1)), max_size=8)
cuts = st.lists(st.integers(0, 8), max_size=4)


def corpus_of(rows: dict[str, list[tuple[str, int]]], names=("no", "yes"), cut_at=(), *, sliced=False) -> Corpus:
    """A corpus of these rows, in batches that end at the given places."""

    def read(split):
        ends = sorted({0, len(rows[split]), *(c for c in cut_at if c <= len(rows[split]))})
        for start, stop in itertools.pairwise(ends):
            part = rows[split][start:stop]
            column = pa.array([text for text, _ in part], pa.string())
            if sliced:  # a slice of a longer array, as readers of memory-mapped files give
                column = pa.array(["before", *column.to_pylist(), "behind"], pa.string())[1:-1]
            yield TextBatch(column, None if names is None else np.array([label for _, label in part], dtype=np.int8))

    return make_corpus("made up", names, read)


def digest_by_hand(rows: dict[str, list[tuple[str, int]]], names: tuple[str, str] | None) -> str:
    """The layout in `content_digest`'s docstring, written out without Arrow or NumPy."""
    total = hashlib.sha256(hashlib.sha256(json.dumps(list(names or [])).replace(", ", ",").encode()).digest())
    for split in ("train", "test"):
        encoded = [text.encode() for text, _ in rows[split]]
        total.update(len(encoded).to_bytes(8, "little"))
        total.update(hashlib.sha256(b"".join(encoded)).digest())
        total.update(hashlib.sha256(b"".join(len(e).to_bytes(8, "little") for e in encoded)).digest())
        total.update(hashlib.sha256(bytes(label for _, label in rows[split]) if names else b"").digest())
    return total.hexdigest()


@settings(max_examples=60)
@given(train=texts, test=texts, cut_at=cuts, labelled=st.booleans(), sliced=st.booleans())
@example(train=[], test=[], cut_at=[], labelled=True, sliced=False)
@example(train=[("", 0), ("é", 1)], test=[("", 1)], cut_at=[1], labelled=True, sliced=True)
def test_digest_does_not_depend_on_batch_size(train, test, cut_at, labelled, sliced):
    rows, names = {"train": train, "test": test}, ("no", "yes") if labelled else None
    whole = corpus_of(rows, names)
    parts = corpus_of(rows, names, cut_at, sliced=sliced)
    assert whole.digest == parts.digest == digest_by_hand(rows, names)
    assert whole.examples == parts.examples == {"train": len(train), "test": len(test)}
    assert whole.labelled is labelled


def test_digest_tells_contents_apart():
    base = {"train": [("ab", 0), ("c", 1)], "test": [("d", 0)]}
    variants = [
        corpus_of(base),
        corpus_of(base, None),
        corpus_of(base, ("no", "no")),
        corpus_of(base, ("n", "oyes")),
        corpus_of({**base, "train": [("a", 0), ("bc", 1)]}),
        corpus_of({**base, "train": [("c", 1), ("ab", 0)]}),
        corpus_of({**base, "train": [("ab", 0), ("c", 0)]}),
        corpus_of({"train": base["train"] + base["test"], "test": []}),
        corpus_of({"train": base["train"][:1], "test": base["train"][1:] + base["test"]}),
        corpus_of({**base, "test": [("d", 0), ("", 0)]}),
    ]
    assert len({corpus.digest for corpus in variants}) == len(variants)


def test_batches_can_be_read_again():
    corpus = corpus_of({"train": [("a", 0), ("b", 1)], "test": [("c", 0)]}, cut_at=[1])
    first, second = ([b.texts.to_pylist() for b in corpus.batches("train")] for _ in range(2))
    assert first == second == [["a"], ["b"]]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=6))
def test_text_array_holds_the_texts(values):
    array = text_array([value.encode() for value in values])
    array.validate(full=True)
    assert array.to_pylist() == values


def test_no_corpus_is_the_embedded_one():
    corpus = open_corpus(CorpusSettings(train_examples=20, test_examples=10), seed=0)
    assert (corpus.name, corpus.examples) == ("embedded", {"train": 20, "test": 10})
    assert corpus.source == "the corpus 'embedded'"
    assert content_digest(corpus.read, corpus.class_names) == (corpus.digest, corpus.examples)


def test_a_table_without_data_is_a_settings_error():
    with pytest.raises(SettingsError, match=r"--data: a table is required"):
        open_corpus(CorpusSettings(name="table"), seed=0)


@pytest.mark.parametrize("name", ["imdb", "amazon", "jokes", "embedded", "table"])
def test_data_that_are_not_there_are_named(name, tmp_path):
    with pytest.raises(CorpusError, match=r"missing\.csv: a file or folder is required, but there is none"):
        open_corpus(CorpusSettings(name=name), seed=0, data=tmp_path / "missing.csv")


@pytest.mark.parametrize("name", ["imdb", "embedded", "table"])
def test_any_table_replaces_the_named_reader(name, tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "fine,1\nfoul,0\n" * 5, encoding="utf-8")
    corpus = open_corpus(CorpusSettings(name=name), seed=0, data=path)
    assert (corpus.name, corpus.examples) == ("table", {"train": 8, "test": 2})


def test_a_folder_that_is_nothing_known_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="a folder with aclImdb/ or one saved by datasets is required"):
        open_corpus(CorpusSettings(), seed=0, data=tmp_path)


def run_python(code: str) -> str:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout


def test_readers_import_nothing_heavy(tmp_path):
    """Arrow itself loads pandas where it is installed; nothing here needs it."""
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "fine,1\nfoul,0\n" * 5, encoding="utf-8")
    loaded = run_python(
        "import sys; from pathlib import Path; import minibert.corpora; print('pyarrow' in sys.modules);"
        "from minibert.settings import CorpusSettings; from minibert.corpora import open_corpus;"
        f"open_corpus(CorpusSettings(), seed=0, data=Path({str(path)!r})); open_corpus(CorpusSettings(), seed=0);"
        "print(sorted({'tensorflow', 'keras', 'datasets', 'torch'} & set(sys.modules)))"
    )
    assert loaded.split("\n")[:2] == ["False", "[]"]
