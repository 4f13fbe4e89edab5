"""Amazon Polarity and folders saved by `datasets`, with a small made-up dataset in the place of the hub's."""

from __future__ import annotations

import io
import sys

import datasets
import huggingface_hub.utils
import pytest

from minibert.corpora import Corpus, amazon, hub, open_corpus
from minibert.corpora.amazon import HUB_NAMES
from minibert.errors import CorpusError, DownloadError
from minibert.progress import Progress
from minibert.settings import CorpusSettings

FEATURES = datasets.Features(
    {
        "label": datasets.ClassLabel(names=["negative", "positive"]),
        "title": datasets.Value("string"),
        "content": datasets.Value("string"),
    }
)


def part(split: str, count: int, blank: int = -1) -> datasets.Dataset:
    rows = [{"label": n % 2, "title": f"title {n}", "content": "" if n == blank else f"{split} {n}"}
            for n in range(count)]  # fmt: skip
    return datasets.Dataset.from_list(rows, features=FEATURES)


@pytest.fixture
def reviews() -> datasets.DatasetDict:
    return datasets.DatasetDict({"train": part("train", 300), "test": part("test", 90)})


def texts(corpus: Corpus, split: str) -> list[tuple[str, int]]:
    return [pair for b in corpus.batches(split) for pair in zip(b.texts.to_pylist(), b.labels.tolist(), strict=True)]


def from_hub(monkeypatch, loader) -> None:
    monkeypatch.setattr(datasets, "load_dataset", loader)


def as_the_notebook(part: datasets.Dataset, count: int, seed: int = 42) -> list[tuple[str, int]]:
    chosen = part.shuffle(seed=seed).select(range(count))
    return list(zip(chosen["content"], chosen["label"], strict=True))


SETTINGS = CorpusSettings(name="amazon", train_examples=40, test_examples=10)


def test_the_choice_is_the_notebooks(monkeypatch, reviews):
    from_hub(monkeypatch, lambda name: reviews)
    corpus = open_corpus(SETTINGS, seed=0)
    assert (corpus.name, corpus.class_names) == ("amazon", ("negative", "positive"))
    assert corpus.examples == {"train": 40, "test": 10}
    assert texts(corpus, "train") == as_the_notebook(reviews["train"], 40)
    assert texts(corpus, "test") == as_the_notebook(reviews["test"], 10)


def test_the_runs_seed_changes_nothing_and_the_shuffle_seed_does(monkeypatch, reviews):
    from_hub(monkeypatch, lambda name: reviews)
    reference = open_corpus(SETTINGS, seed=0).digest
    assert open_corpus(SETTINGS, seed=1).digest == reference
    other = CorpusSettings(name="amazon", train_examples=40, test_examples=10, shuffle_seed=7)
    assert texts(open_corpus(other, seed=0), "train") == as_the_notebook(reviews["train"], 40, 7)


def test_a_saved_folder_is_the_same_corpus(monkeypatch, reviews, tmp_path):
    reviews.save_to_disk(tmp_path / "amazon")
    from_hub(monkeypatch, lambda name: reviews)
    saved, published = open_corpus(SETTINGS, seed=0, data=tmp_path / "amazon"), open_corpus(SETTINGS, seed=0)
    assert saved.digest == published.digest
    assert (saved.source, published.source) == (str(tmp_path / "amazon"), "fancyzhx/amazon_polarity")


def test_without_a_number_as_many_as_the_notebook_takes(monkeypatch, reviews):
    from_hub(monkeypatch, lambda name: reviews)
    monkeypatch.setattr(amazon, "TRAIN_EXAMPLES", 50)
    monkeypatch.setattr(amazon, "TEST_EXAMPLES", 20)
    corpus = open_corpus(CorpusSettings(name="amazon"), seed=0)
    assert corpus.examples == {"train": 50, "test": 20}
    assert texts(corpus, "train") == as_the_notebook(reviews["train"], 50)


def test_a_saved_folder_of_other_columns_is_the_users_own_and_taken_whole(monkeypatch, reviews, tmp_path):
    monkeypatch.setattr(amazon, "TRAIN_EXAMPLES", 50)
    reviews.save_to_disk(tmp_path / "amazon")
    reviews.remove_columns("title").save_to_disk(tmp_path / "mine")
    reviews["train"].save_to_disk(tmp_path / "one")
    settings = CorpusSettings(name="amazon")
    assert open_corpus(settings, seed=0, data=tmp_path / "amazon").examples == {"train": 50, "test": 90}
    assert open_corpus(settings, seed=0, data=tmp_path / "mine").examples == {"train": 300, "test": 90}
    assert open_corpus(settings, seed=0, data=tmp_path / "one").examples == {"train": 240, "test": 60}


@pytest.mark.parametrize(("train", "test"), [(0, 0), (1000, 1000)])
def test_no_or_too_many_examples_are_all_of_them(train, test, monkeypatch, reviews):
    from_hub(monkeypatch, lambda name: reviews)
    settings = CorpusSettings(name="amazon", train_examples=train, test_examples=test)
    assert open_corpus(settings, seed=0).examples == {"train": 300, "test": 90}


def test_a_blank_review_of_the_published_corpus_is_kept(monkeypatch):
    blank = datasets.DatasetDict({"train": part("train", 30, blank=4), "test": part("test", 9)})
    from_hub(monkeypatch, lambda name: blank)
    corpus = open_corpus(CorpusSettings(name="amazon"), seed=0)
    assert ("", 0) in texts(corpus, "train")


def test_a_local_folder_of_the_datasets_name_is_not_taken_for_it(monkeypatch, reviews, tmp_path):
    """`datasets` looks at the working directory first."""
    asked = []

    def load(name):
        asked.append(name)
        raise datasets.exceptions.DatasetNotFoundError("gone")

    from_hub(monkeypatch, load)
    (tmp_path / "amazon_polarity").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DownloadError, match=r"cannot be fetched from the hub \(DatasetNotFoundError: gone\)"):
        open_corpus(SETTINGS, seed=0)
    assert asked == ["fancyzhx/amazon_polarity"]
    (tmp_path / "fancyzhx" / "amazon_polarity").mkdir(parents=True)
    message = r"\(fancyzhx/amazon_polarity in the working directory would be taken for it\); give a local copy"
    with pytest.raises(DownloadError, match=message):
        open_corpus(SETTINGS, seed=0)
    assert asked == ["fancyzhx/amazon_polarity"]


LIBRARIES = (datasets.utils, huggingface_hub.utils)


@pytest.fixture
def drawing():
    """Both libraries draw bars, as they do by themselves."""
    before = [library.are_progress_bars_disabled() for library in LIBRARIES]
    for library in LIBRARIES:
        library.enable_progress_bars()
    yield
    for library, disabled in zip(LIBRARIES, before, strict=True):
        if disabled:
            library.disable_progress_bars()


def bars() -> list[bool]:
    return [not library.are_progress_bars_disabled() for library in LIBRARIES]


@pytest.mark.parametrize(
    ("progress", "shown"),
    [(None, False), (Progress(quiet=True), False), (Progress(stream=io.StringIO()), True)],
    ids=["silent", "quiet", "shown"],
)
@pytest.mark.parametrize("name", ["amazon", "jokes"])
def test_the_hubs_own_bars_are_drawn_only_where_progress_is_shown(name, progress, shown, monkeypatch, reviews, drawing):
    seen = []

    def load(name):
        seen.append(bars())
        return reviews

    from_hub(monkeypatch, load)
    settings = CorpusSettings(name=name, train_examples=40, test_examples=10)
    open_corpus(settings, seed=0, progress=progress)
    assert seen == [[shown, shown]]
    assert bars() == [True, True]


def test_the_hubs_bars_are_as_before_after_an_error(monkeypatch, drawing):
    def load(name):
        raise ConnectionError("no network")

    from_hub(monkeypatch, load)
    with pytest.raises(DownloadError):
        open_corpus(SETTINGS, seed=0)
    assert bars() == [True, True]
    datasets.utils.disable_progress_bars()
    with pytest.raises(DownloadError):
        open_corpus(SETTINGS, seed=0)
    assert bars() == [False, True]


def test_a_saved_folder_is_opened_without_bars(monkeypatch, reviews, tmp_path, drawing):
    reviews.save_to_disk(tmp_path / "amazon")
    load, seen = datasets.load_from_disk, []
    monkeypatch.setattr(datasets, "load_from_disk", lambda path: seen.append(bars()) or load(path))
    open_corpus(SETTINGS, seed=0, data=tmp_path / "amazon", progress=Progress(stream=io.StringIO()))
    assert {tuple(shown) for shown in seen} == {(False, False)}


@pytest.mark.parametrize("order", [("negative", "positive"), ("positive", "negative")])
def test_classes_that_a_saved_folder_names_keep_their_names(order, reviews, tmp_path):
    reviews.save_to_disk(tmp_path / "amazon")
    settings = CorpusSettings(name="table", class_names=order)
    assert open_corpus(settings, seed=0, data=tmp_path / "amazon").class_names == ("negative", "positive")
    renamed = CorpusSettings(name="table", class_names=("bad", "good"))
    assert open_corpus(renamed, seed=0, data=tmp_path / "amazon").class_names == ("bad", "good")


def test_the_second_name_is_tried_where_the_first_is_unknown(monkeypatch, reviews):
    asked = []

    def load(name):
        asked.append(name)
        if name == HUB_NAMES[0]:
            raise datasets.exceptions.DatasetNotFoundError("it moved")
        return reviews

    from_hub(monkeypatch, load)
    assert open_corpus(SETTINGS, seed=0).examples == {"train": 40, "test": 10}
    assert asked == ["fancyzhx/amazon_polarity", "amazon_polarity"]


@pytest.mark.parametrize(
    "error", [ConnectionError("Couldn't reach it\nat all"), datasets.exceptions.DatasetNotFoundError("gone"),
              FileNotFoundError("not cached"), ValueError("odd"), OSError(28, "No space left on device")]
)  # fmt: skip
def test_errors_of_the_hub_are_one_line_with_a_way_out(error, monkeypatch):
    def load(name):
        raise error

    from_hub(monkeypatch, load)
    with pytest.raises(DownloadError) as raised:
        open_corpus(SETTINGS, seed=0)
    message = str(raised.value)
    assert message.startswith("fancyzhx/amazon_polarity: cannot be fetched from the hub (")
    assert message.endswith("give a local copy with --data")
    assert type(error).__name__ in message
    assert "\n" not in message


def test_an_unreachable_hub_is_asked_once(monkeypatch):
    asked = []

    def load(name):
        asked.append(name)
        raise ConnectionError("no network")

    from_hub(monkeypatch, load)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(DownloadError):
        open_corpus(SETTINGS, seed=0)
    assert asked == ["fancyzhx/amazon_polarity"]


def test_without_the_package_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DownloadError, match=r"the package datasets is required.*pip install datasets\)"):
        open_corpus(SETTINGS, seed=0)
    (tmp_path / "state.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CorpusError, match="the package datasets is required"):
        open_corpus(CorpusSettings(), seed=0, data=tmp_path)


def test_a_missing_split_is_named(monkeypatch, reviews):
    from_hub(monkeypatch, lambda name: datasets.DatasetDict({"train": reviews["train"]}))
    with pytest.raises(CorpusError, match="the splits train and test are required, but there is no test"):
        open_corpus(SETTINGS, seed=0)


def test_a_missing_column_is_named(monkeypatch, reviews):
    from_hub(monkeypatch, lambda name: reviews.remove_columns("content"))
    with pytest.raises(CorpusError, match="text column 'content' is required, but there are 'label', 'title'"):
        open_corpus(SETTINGS, seed=0)


# Folders saved by datasets, as any table.


def test_a_saved_table_without_splits_is_split_by_the_seed(reviews, tmp_path):
    reviews["train"].save_to_disk(tmp_path / "one")
    corpus = open_corpus(CorpusSettings(name="table"), seed=0, data=tmp_path / "one")
    assert (corpus.name, corpus.class_names) == ("table", ("negative", "positive"))
    assert corpus.examples == {"train": 240, "test": 60}


def test_saved_splits_are_honoured_and_others_are_not_read(reviews, tmp_path):
    reviews["unsupervised"] = part("unsupervised", 20)
    reviews.save_to_disk(tmp_path / "all")
    corpus = open_corpus(CorpusSettings(name="table"), seed=0, data=tmp_path / "all")
    assert corpus.examples == {"train": 300, "test": 90}
    assert texts(corpus, "test") == [(f"test {n}", n % 2) for n in range(90)]


def test_a_selection_of_a_saved_table_is_honoured(reviews, tmp_path):
    reviews["train"].select(range(100, 120)).save_to_disk(tmp_path / "some")
    corpus = open_corpus(CorpusSettings(name="table"), seed=0, data=tmp_path / "some")
    assert {text for split in ("train", "test") for text, _ in texts(corpus, split)} == {
        f"train {n}" for n in range(100, 120)
    }


def test_saved_splits_that_are_neither_train_nor_test_are_refused(reviews, tmp_path):
    datasets.DatasetDict({"validation": reviews["test"]}).save_to_disk(tmp_path / "odd")
    with pytest.raises(CorpusError, match="a train or test split is required, but there are validation"):
        open_corpus(CorpusSettings(), seed=0, data=tmp_path / "odd")


def test_splits_with_different_columns_are_refused(reviews):
    table = hub.DatasetTable(
        datasets.DatasetDict({"train": reviews["train"], "test": reviews["test"].remove_columns("content")}), "made up"
    )
    with pytest.raises(CorpusError, match="column 'content' is required in both splits"):
        list(table.batches(["content"]))


def test_a_damaged_folder_is_refused(reviews, tmp_path):
    reviews["train"].save_to_disk(tmp_path / "one")
    for file in (tmp_path / "one").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CorpusError, match="one: datasets cannot read this folder: ") as raised:
        open_corpus(CorpusSettings(), seed=0, data=tmp_path / "one")
    assert "\n" not in str(raised.value)
