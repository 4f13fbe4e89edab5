"""Tables of the user's: formats, columns, labels, splits, and everything that is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minibert.corpora import Corpus, open_corpus
from minibert.errors import CorpusError
from minibert.progress import Progress
from minibert.settings import CorpusSettings

TEXTS = [
    "A fine film",
    "two\nlines",
    'she said "no"',
    "NA",
    "null",
    "123",
    "café, naïve",
    "  padded ",
    "2020-01-01",
    "<br />x",
    "€\t!",
    "true",
]
ROWS = [{"text": text, "label": "pos" if place % 2 else "neg"} for place, text in enumerate(TEXTS)]
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")


def write(path: Path, rows: list[dict]) -> Path:
    """Writes a table in the format of its suffix."""
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5)
        return path
    stream = io.StringIO(newline="")
    if suffix == ".csv":
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    elif suffix == ".tsv":
        stream.write("".join("\t".join(map(str, row)) + "\n" for row in [rows[0].keys(), *map(dict.values, rows)]))
    else:
        stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    content = stream.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def contents(corpus: Corpus) -> dict[str, list]:
    """All texts and labels of a corpus."""
    found = {}
    for split in ("train", "test"):
        found[split] = []
        for batch in corpus.batches(split):
            labels = [None] * len(batch.texts) if batch.labels is None else batch.labels.tolist()
            found[split] += zip(batch.texts.to_pylist(), labels, strict=True)
    return found


def opened(path: Path, *, seed: int = 0, **settings) -> Corpus:
    return open_corpus(CorpusSettings(name="table", **settings), seed=seed, data=path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_corpus(suffix, tmp_path):
    rows = ROWS
    if ".tsv" in suffix:  # which has no way to write a tab or a line end within a field
        rows = [{**row, "text": re.sub(r"[\t\n]", "|", row["text"])} for row in ROWS]
    corpus = opened(write(tmp_path / f"reviews{suffix}", rows))
    assert (corpus.name, corpus.class_names, corpus.examples) == ("table", ("neg", "pos"), {"train": 10, "test": 2})
    found = contents(corpus)
    assert sorted(found["train"] + found["test"]) == sorted((r["text"], int(r["label"] == "pos")) for r in rows)
    assert corpus.digest == opened(write(tmp_path / "reference.csv", rows)).digest


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(str.strip)
tables = st.lists(texts, min_size=4, max_size=12)


@settings(max_examples=40)
@given(tables, st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
@example(['"Best" film ever', '"Great!"', 'so "so', '"'], ".tsv")
def test_texts_come_back_as_written(tmp_path_factory, values, suffix):
    if suffix == ".tsv":
        values = [re.sub(r"[\t\r\n]", "|", value) for value in values]
    rows = [{"split": "train" if place < len(values) - 2 else "test", "review": text, "sentiment": str(place % 2)}
            for place, text in enumerate(values)]  # fmt: skip
    found = contents(opened(write(tmp_path_factory.mktemp("table") / f"t{suffix}", rows)))
    assert [text for text, _ in found["train"] + found["test"]] == values


def test_a_long_file_is_read_in_batches_with_quoted_line_ends(tmp_path):
    rows = [{"text": f"row {n}\r\n" + "x" * (n % 700), "label": n % 2} for n in range(5000)]
    corpus = opened(write(tmp_path / "long.csv", rows), test_rate=0.5)
    batches = list(corpus.batches("train"))
    assert len(batches) > 1
    assert sum(len(batch.texts) for batch in batches) == corpus.examples["train"] == 2500
    found = {text: label for part in contents(corpus).values() for text, label in part}
    assert found == {row["text"]: row["label"] for row in rows}


def test_blank_lines_and_a_byte_order_mark_do_not_count(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\r\n\r\na,0\r\nb,1\r\n\r\nc,0\r\nd,1\r\n")
    assert sum(opened(path).examples.values()) == 4


@pytest.mark.parametrize(
    ("columns", "settings", "text"),
    [
        (["text", "review", "label"], {}, "review"),
        (["Joke", "content", "label"], {}, "content"),
        (["content", "text", "label"], {}, "text"),
        (["Joke", "label"], {}, "Joke"),
        (["text", "body", "label"], {"text_column": "body"}, "body"),
    ],
)
def test_text_column_is_the_first_known_one_or_the_named_one(columns, settings, text, tmp_path):
    rows = [{column: f"{column} {n}" if column != "label" else n % 2 for column in columns} for n in range(8)]
    found = contents(opened(write(tmp_path / "t.csv", rows), **settings))
    assert {value.split()[0] for value, _ in found["train"]} == {text}


@pytest.mark.parametrize(
    ("columns", "settings", "label"),
    [
        (["text", "label", "sentiment"], {}, "sentiment"),
        (["text", "label"], {}, "label"),
        (["text", "label", "stars"], {"label_column": "stars"}, "stars"),
    ],
)
def test_label_column_is_the_first_known_one_or_the_named_one(columns, settings, label, tmp_path):
    rows = [{column: f"{column}{n % 2}" for column in columns} for n in range(8)]
    assert opened(write(tmp_path / "t.csv", rows), **settings).class_names == (f"{label}0", f"{label}1")


@pytest.mark.parametrize(
    ("values", "suffix", "names"),
    [
        ((1, 0), ".parquet", ("0", "1")),
        (("1", "0"), ".csv", ("0", "1")),
        (("10", "9"), ".csv", ("9", "10")),
        ((10, 9), ".jsonl", ("9", "10")),
        ((1, -1), ".csv", ("-1", "1")),
        (("pos", "neg"), ".csv", ("neg", "pos")),
        (("no", "No"), ".csv", ("No", "no")),
        (("b", "7"), ".csv", ("7", "b")),
        ((True, False), ".jsonl", ("False", "True")),
        ((4.5, 0.5), ".parquet", ("0.5", "4.5")),
        ((10.5, 9.5), ".parquet", ("9.5", "10.5")),
        ((10.5, 9.5), ".jsonl", ("9.5", "10.5")),
        ((10.5, 9.5), ".csv", ("9.5", "10.5")),
        (("10.5", "9.5"), ".tsv", ("9.5", "10.5")),
        (("10.5", "9.5"), ".jsonl", ("9.5", "10.5")),
        (("+.5", "-1.5"), ".csv", ("-1.5", "+.5")),
        (("1e1", "9"), ".csv", ("9", "1e1")),
        (("1.0", "1"), ".csv", ("1", "1.0")),
        (("20000000000000001", "20000000000000000.5"), ".csv", ("20000000000000000.5", "20000000000000001")),
        (("nan", "inf"), ".csv", ("inf", "nan")),
        (("1_0", "9"), ".csv", ("9", "1_0")),
        (("1e9999999999", "2"), ".csv", ("2", "1e9999999999")),
    ],
)
def test_label_values_are_sorted_and_named_as_they_stand(values, suffix, names, tmp_path):
    rows = [{"text": f"t{n}", "label": values[n % 2]} for n in range(8)]
    corpus = opened(write(tmp_path / f"t{suffix}", rows))
    assert corpus.class_names == names
    assert {(int(t[1:]) % 2, label) for t, label in contents(corpus)["train"]} == {(0, 1), (1, 0)}


def test_class_names_of_the_settings_win(tmp_path):
    assert opened(write(tmp_path / "t.csv", ROWS), class_names=("bad", "good")).class_names == ("bad", "good")


def test_which_value_has_which_name_is_shown(tmp_path):
    path, shown = write(tmp_path / "t.csv", ROWS), io.StringIO()
    for names in ((), ("neg", "pos"), ("bad", "good")):  # nothing to show but for the last
        open_corpus(CorpusSettings(class_names=names), seed=0, data=path, progress=Progress(stream=shown))
    assert "column 'label': neg is called bad, pos is called good" in shown.getvalue()
    assert shown.getvalue().count("is called") == 2


@pytest.mark.parametrize("for_evaluation", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("order", [("negative", "positive"), ("positive", "negative")])
def test_values_that_are_the_class_names_keep_their_own(order, suffix, for_evaluation, tmp_path):
    """`negative` is the smaller value: by the order alone, it was called positive where positive is named first."""
    rows = [{"text": f"{('bad', 'good')[n % 2]} {n}", "label": ("negative", "positive")[n % 2]} for n in range(10)]
    path = write(tmp_path / f"t{suffix}", rows)
    corpus = open_corpus(CorpusSettings(class_names=order), seed=0, data=path, for_evaluation=for_evaluation)
    assert corpus.class_names == ("negative", "positive")
    found = contents(corpus)
    assert {(text.split()[0], label) for text, label in found["train"] + found["test"]} == {("bad", 0), ("good", 1)}


@pytest.mark.parametrize("order", [("negative", "positive"), ("positive", "negative")])
def test_a_value_that_is_one_of_the_class_names_keeps_it(order, tmp_path):
    for values, names in (
        (("neg", "positive"), ("negative", "positive")),
        (("negative", "pos"), ("negative", "positive")),
    ):
        rows = [{"text": f"t{n}", "label": values[n % 2]} for n in range(10)]
        assert opened(write(tmp_path / "t.csv", rows), class_names=order).class_names == names


def test_numbers_that_are_the_class_names_keep_their_own(tmp_path):
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(10)]
    for suffix in (".csv", ".jsonl", ".parquet"):
        assert opened(write(tmp_path / f"t{suffix}", rows), class_names=("1", "0")).class_names == ("0", "1")


def test_dictionary_and_large_string_columns_are_text(tmp_path):
    table = pa.table(
        {
            "text": pa.array([f"t{n}" for n in range(6)], pa.large_string()),
            "label": pa.array(["a", "b"] * 3).dictionary_encode(),
            "split": pa.array(["train"] * 4 + ["test"] * 2).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    corpus = opened(tmp_path / "t.parquet")
    assert contents(corpus) == {
        "train": [("t0", 0), ("t1", 1), ("t2", 0), ("t3", 1)],
        "test": [("t4", 0), ("t5", 1)],
    }


def test_columns_may_stand_in_any_order(tmp_path):
    rows = [{"label": n % 2, "split": "test" if n > 3 else "train", "text": f"t{n}"} for n in range(6)]
    for suffix in (".csv", ".jsonl", ".parquet"):
        assert contents(opened(write(tmp_path / f"t{suffix}", rows)))["test"] == [("t4", 0), ("t5", 1)]


def test_split_column_is_honoured_and_examples_keep_their_order(tmp_path):
    rows = [{"text": f"t{n}", "label": n % 2, "split": "test" if n % 3 == 0 else "train"} for n in range(12)]
    found = contents(opened(write(tmp_path / "t.csv", rows), seed=7))
    assert [t for t, _ in found["test"]] == ["t0", "t3", "t6", "t9"]
    assert [t for t, _ in found["train"]] == ["t1", "t2", "t4", "t5", "t7", "t8", "t10", "t11"]


FOLDS = [{"text": f"t{n}", "label": n % 2, "fold": "test" if n > 7 else "train"} for n in range(10)]


def test_the_column_of_splits_can_be_another(tmp_path):
    corpus = opened(write(tmp_path / "t.csv", FOLDS), split_column="fold")
    assert [text for text, _ in contents(corpus)["test"]] == ["t8", "t9"]
    rows = [{**row, "split": "valid"} for row in FOLDS]  # which is then a column as any other
    assert opened(write(tmp_path / "t.jsonl", rows), split_column="fold").digest == corpus.digest


def test_a_column_of_splits_can_be_left_alone(tmp_path):
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(10)]
    plain = opened(write(tmp_path / "plain.csv", rows))
    for value in ("train", "valid", ""):
        path = write(tmp_path / "t.csv", [{**row, "split": value} for row in rows])
        assert opened(path, split_column="").digest == plain.digest


def test_a_column_called_split_may_be_the_label_or_the_text(tmp_path):
    rows = [{"text": f"t{n}", "split": f"s{n % 2}"} for n in range(10)]
    assert opened(write(tmp_path / "t.csv", rows), label_column="split").class_names == ("s0", "s1")
    assert opened(write(tmp_path / "t.csv", rows), text_column="split").examples == {"train": 10, "test": 0}


def test_seeded_split_depends_on_the_seed_and_not_on_the_format(tmp_path):
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(100)]
    paths = [write(tmp_path / f"t{suffix}", rows) for suffix in (".csv", ".parquet", ".jsonl")]
    assert len({opened(path, seed=1).digest for path in paths}) == 1
    assert opened(paths[0], seed=1).digest != opened(paths[0], seed=2).digest


def test_numbers_of_examples_are_honoured(tmp_path):
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(100)]
    corpus = opened(write(tmp_path / "t.csv", rows), train_examples=30, test_examples=6)
    labels = [label for _, label in contents(corpus)["train"]]
    assert (corpus.examples, np.bincount(labels).tolist()) == ({"train": 30, "test": 6}, [15, 15])


def test_an_unlabelled_table_is_all_train(tmp_path):
    corpus = opened(write(tmp_path / "t.csv", [{"text": f"t{n}"} for n in range(7)]))
    assert (corpus.class_names, corpus.examples) == (None, {"train": 7, "test": 0})
    assert all(batch.labels is None for batch in corpus.batches("train"))
    assert list(corpus.batches("test")) == []


def test_an_unlabelled_table_keeps_its_own_splits(tmp_path):
    rows = [{"text": f"t{n}", "split": "train" if n < 5 else "test"} for n in range(7)]
    assert opened(write(tmp_path / "t.csv", rows)).examples == {"train": 5, "test": 2}


def test_progress_counts_the_rows(tmp_path):
    seen = []

    class Recorder:
        def start(self, description, total=None):
            seen.append(description)
            return self

        def advance(self, n=1):
            seen.append(n)

        def finish(self):
            seen.append("done")

    open_corpus(CorpusSettings(), seed=0, data=write(tmp_path / "t.csv", ROWS), progress=Recorder())
    assert seen == ["check t.csv", 12, "done", "digest of the texts", 10, 2, "done"]


# What is refused: file name, content, settings, and the message behind the file's name.
GOOD = b"text,label\na,0\nb,1\nc,0\nd,1\n"
REFUSED = {
    "empty file": ("t.csv", b"", {}, "a table with rows is required, but the file is empty"),
    "blank lines only": ("t.csv", b"\n\n", {}, "a header is required, but there are blank lines only"),
    "header only": ("t.csv", b"text,label\n", {}, "a table with rows is required, but it has none"),
    "empty lines": ("t.jsonl", b"\n\n", {}, "a table with rows is required, but it has none"),
    "no text column": ("t.csv", b"title,label\na,0\n", {},
                       "is required, but there are 'title', 'label'"),
    "named column": ("t.csv", GOOD, {"text_column": "body"},
                     "text column 'body' is required, but there are 'text', 'label'"),
    "named label": ("t.csv", GOOD, {"label_column": "stars"},
                    "label column 'stars' is required, but there are 'text', 'label'"),
    "one column twice": ("t.csv", GOOD, {"label_column": "text"},
                         "two columns are required, but 'text' is both text and label"),
    "same names": ("t.csv", b"text,text\na,b\n", {}, "different column names are required, but 'text' comes twice"),
    "three labels": ("t.csv", GOOD + b"e,2\n", {},
                     "two label values are required in column 'label', but there are more: '0', '1', '2'"),
    "one class": ("t.csv", b"text,label\na,1\nb,1\n", {},
                  "two label values are required in column 'label', but 1 came: '1'"),
    "lone row": ("t.csv", b"text,label\na,1\nb,1\nc,0\n", {},
                 "t.csv: column 'label': two rows or more of each class are required for a split, but 1 came"),
    "null label": ("t.jsonl", b'{"text":"a","label":0}\n{"text":"b","label":null}\n', {},
                   "row 2: column 'label': a label is required, but null came"),
    "missing label": ("t.jsonl", b'{"text":"a","label":0}\n{"text":"b"}\n', {},
                      "row 2: column 'label': a label is required, but null came"),
    "empty label": ("t.csv", b"text,label\na,0\nb,\n", {},
                    "row 2: column 'label': a label is required, but an empty one came"),
    "nan label": ("t.jsonl", b'{"text":"a","label":0.0}\n{"text":"b","label":NaN}\n', {},
                  "row 2: column 'label': a label is required, but null came"),
    "label list": ("t.jsonl", b'{"text":"a","label":[0]}\n', {},
                   "row 1: column 'label': text or a number is required, but a list came"),
    "null text": ("t.jsonl", b'{"text":"a","label":0}\n{"text":null,"label":1}\n', {},
                  "row 2: column 'text': text is required, but null came"),
    "all null text": ("t.jsonl", b'{"text":null,"label":0}\n', {},
                      "row 1: column 'text': text is required, but null came"),
    "empty text": ("t.csv", b'text,label\na,0\n"",1\n', {},
                   "row 2: column 'text': text is required, but an empty one came"),
    "blank text": ("t.csv", b'text,label\na,0\n"\n \t",1\n', {},
                   "row 2: column 'text': text is required, but an empty one came"),
    "Unicode space": ("t.csv", "text,label\na,0\n\u2003 ,1\n".encode(), {},
                      "row 2: column 'text': text is required, but an empty one came"),
    "text is numbers": ("t.jsonl", b'{"text":1,"label":0}\n', {},
                        "column 'text': text is required, but int64 came"),
    "mixed text": ("t.jsonl", b'{"text":"a","label":0}\n{"text":1,"label":1}\n', {},
                   "row 2: column 'text': text as before is required, but an integer came"),
    "mixed labels": ("t.jsonl", b'{"text":"a","label":0}\n{"text":"b","label":true}\n', {},
                     "row 2: column 'label': an integer as before is required, but a boolean came"),
    "large label": ("t.jsonl", b'{"text":"a","label":0}\n{"text":"b","label":99999999999999999999}\n', {},
                    "row 2: column 'label': Unicode text or a 64-bit number is required"),
    "surrogate": ("t.jsonl", b'{"text":"a","label":0}\n{"text":"\\ud800","label":1}\n', {},
                  "row 2: column 'text': Unicode text or a 64-bit number is required"),
    "not UTF-8": ("t.csv", b"text,label\ntea,1\ncaf\xe9,0\n", {}, "line 3: UTF-8 is required"),
    "not UTF-8 header": ("t.csv", b"t\xffxt,label\na,0\n", {}, "line 1: UTF-8 is required"),
    "not UTF-8, compressed": ("t.tsv.gz", gzip.compress(b"text\tlabel\na\t0\n\xff\t1\n"), {},
                              "line 3: UTF-8 is required"),
    "not UTF-8 JSON": ("t.jsonl", b'{"text":"caf\xe9","label":0}\n', {}, "line 1: UTF-8 is required"),
    "UTF-16": ("t.csv", GOOD.decode().encode("utf-16"), {}, "UTF-8 is required, but UTF-16 came"),
    "short row": ("t.csv", GOOD + b"e\n", {},
                  "row 5 (line 6): 2 fields are required, as in the header, but 1 came"),
    "long row": ("t.csv", b"text,label\na,b,0\n", {},
                 "row 1 (line 2): 2 fields are required, as in the header, but 3 came"),
    "unclosed quote": ("t.csv", b'label,text\n0,a\n1,"b\nc\n', {}, "row 2 (line 4): malformed: unexpected end of data"),
    "text behind a quote": ("t.csv", b'text,label\n"a"b,0\n', {},
                            "row 1 (line 2): malformed: ',' expected after '\"'"),
    "JSON array": ("t.json", b'[{"text":"a","label":0}]\n', {},
                   "row 1: one JSON object a line is required, but a list came"),
    "JSON document": ("t.json", b'{\n"text":"a"}\n', {},
                      "row 1: one JSON object a line is required (Expecting property name"),
    "no JSON": ("t.jsonl", b'{"text":"a","label":0}\nhello\n', {},
                "row 2: one JSON object a line is required (Expecting value"),
    "other split": ("t.csv", b"text,label,split\na,0,train\nb,1,valid\n", {},
                    "row 2: column 'split': train or test is required, but 'valid' came"),
    "null split": ("t.jsonl", b'{"text":"a","label":0,"split":"train"}\n{"text":"b","label":1}\n', {},
                   "row 2: column 'split': train or test is required, but None came"),
    "numbers as split": ("t.jsonl", b'{"text":"a","label":0,"split":1}\n', {},
                         "column 'split': train or test is required, but int64 came"),
    "named split": ("t.csv", GOOD, {"split_column": "fold"},
                    "split column 'fold' is required, but there are 'text', 'label'"),
    "split is label": ("t.csv", GOOD, {"split_column": "label"},
                       "three columns are required, but 'label' is split and text or label"),
    "other named split": ("t.csv", b"text,label,fold\na,0,train\nb,1,valid\n", {"split_column": "fold"},
                          "row 2: column 'fold': train or test is required, but 'valid' came"),
    "one example": ("t.csv", GOOD, {"train_examples": 1, "test_rate": 0.5},
                    "two classes are required in the train split, but one came (examples in it: 1)"),
    "quote in TSV": ("t.tsv", b'text\tlabel\n"a\nb"\t0\n', {},
                     "row 1 (line 2): 2 fields are required, as in the header, but 1 came"),
    "train only": ("t.csv", b"text,label,split\na,0,train\nb,1,train\n", {},
                   "a test split with rows is required in a labelled table with splits"),
    "test only": ("t.csv", b"text,label,split\na,0,test\nb,1,test\n", {},
                  "a train split with rows is required in a labelled table with splits"),
    "unlabelled, test only": ("t.csv", b"text,split\na,test\n", {},
                              "a train split with rows is required, but all rows are test"),
    "one class in train": ("t.csv", b"text,label,split\na,0,train\nb,1,test\n", {},
                           "two classes are required in the train split, but one came"),
    "suffix": ("t.xlsx", b"x", {}, "also as .gz), .tar.gz or a folder is required, but .xlsx came"),
    "no suffix": ("reviews", b"x", {}, "also as .gz), .tar.gz or a folder is required, but no suffix came"),
    "compressed Parquet": ("t.parquet.gz", b"x", {}, "but .gz came"),
    "no Parquet": ("t.parquet", b"not parquet at all", {}, "cannot be read: Parquet magic bytes not found"),
    "no gzip": ("t.csv.gz", b"text,label\na,0\n", {}, "the compressed file is truncated or damaged"),
    "truncated gzip": ("t.csv.gz", gzip.compress(GOOD)[:-9], {}, "the compressed file is truncated"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_tables_are_named_in_one_line(case, tmp_path):
    name, content, settings, message = REFUSED[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CorpusError) as raised:
        opened(path, **settings)
    text = str(raised.value)
    assert "\n" not in text
    assert message in text
    assert text.startswith(f"{path}: ")


def test_row_numbers_count_over_batches(tmp_path):
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(5000)]
    rows[4321]["text"] = " "
    for suffix in (".csv", ".jsonl", ".parquet"):
        with pytest.raises(CorpusError, match="row 4322: column 'text'"):
            opened(write(tmp_path / f"t{suffix}", rows))


def test_binary_and_number_columns_are_no_text(tmp_path):
    for values, kind in ((pa.array([b"a", b"b"]), "binary"), (pa.array([1.0, 2.0]), "double")):
        pq.write_table(pa.table({"text": values, "label": [0, 1]}), tmp_path / "t.parquet")
        with pytest.raises(CorpusError, match=f"column 'text': text is required, but {kind} came"):
            opened(tmp_path / "t.parquet")


def test_time_stamps_are_no_labels(tmp_path):
    stamps = pa.array([0, 1], pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["a", "b"], "label": stamps}), tmp_path / "t.parquet")
    with pytest.raises(CorpusError, match="column 'label': text, numbers or booleans are required"):
        opened(tmp_path / "t.parquet")


def test_invalid_bytes_in_parquet_are_found(tmp_path):
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(b"ab\xff\xfe"))
    pq.write_table(pa.table({"text": bad, "label": [0, 1]}), tmp_path / "t.parquet")
    with pytest.raises(CorpusError, match="row 2: column 'text': UTF-8 is required"):
        opened(tmp_path / "t.parquet")


def test_truncated_parquet_is_refused(tmp_path):
    path = write(tmp_path / "t.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorpusError, match=r"t\.parquet: cannot be read: "):
        opened(path)


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path):
    path = write(tmp_path / "t.csv", ROWS)
    corpus = opened(path)
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    with pytest.raises(CorpusError, match="the file must not change while it is used"):
        list(corpus.batches("train"))
    path.unlink()
    with pytest.raises(CorpusError, match=r"t\.csv: cannot be read: No such file"):
        list(corpus.batches("train"))
