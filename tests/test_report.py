"""The page: self-contained, well formed, whole for every kind of run, and deaf to what texts contain."""

from __future__ import annotations

import copy
import functools
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as limited
from hypothesis import strategies as st

from minibert.errors import ArtifactError
from minibert.presets import PUBLISHED
from minibert.record import OTHER_TIMES, write_record
from minibert.report import figures as write
from minibert.report import headline_figures, render_report, sections, summarize, times, write_report
from minibert.report.charts import Chart, Series, integer_ticks, line_chart, nice_ticks
from minibert.report.comparison import compare, compare_speed, why_not_compared
from minibert.report.markup import Markup, element, escape, table
from tests.records import DIGEST, made_up_record

hostile = st.text(max_size=30) | st.sampled_from(
    ["<script>alert(1)</script>", "</style>", '"><b x="', "&amp;", "\0\x1b[2J"]
)


class Page(HTMLParser):
    """Reads a page, checks that every element is closed where it should be, and keeps text and elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def names(self) -> list[str]:
        return [name for name, _ in self.elements]


def without(record: dict[str, Any], *stages: str) -> dict[str, Any]:
    """A run that is still on its way."""
    record["status"] = "running"
    for stage in stages:
        del record["stages"][stage]
    return record


def with_figures(value: float) -> dict[str, Any]:
    """A run whose every figure is this."""
    record = made_up_record()
    for stage in record["stages"].values():
        for epoch in stage.get("epochs", [stage]):
            epoch |= {key: value for key in ("loss", "accuracy", "val_loss", "val_accuracy") if key in epoch}
            for prediction in epoch.get("predictions", []):
                prediction["probability"] = value
    return record


RECORDS = {
    "complete": made_up_record(),
    "imdb": made_up_record("imdb"),
    "without labels": made_up_record("jokes", labelled=False),
    "no notebook": made_up_record("tiny"),
    "one epoch": made_up_record(epochs=1),
    "no epoch": made_up_record(epochs=0),
    "200 epochs": made_up_record(epochs=200),
    "nothing yet": made_up_record()
    | {"status": "running", "stages": {}, "corpus": {}, "environment": {}, "artifacts": {}},
    "encoded": without(made_up_record(), "pretrain", "frozen", "unfrozen", "end_to_end"),
    "pretrained": without(made_up_record(), "frozen", "unfrozen", "end_to_end"),
    "frozen": without(made_up_record("imdb"), "unfrozen", "end_to_end"),
    "only unfrozen": without(made_up_record(), "frozen"),
    "huge": with_figures(1e300),
    "small": with_figures(1e-300),
    "zero": with_figures(0.0),
    "not a number": with_figures(math.nan),
    "infinite": with_figures(math.inf),
    "unknown preset": made_up_record() | {"settings": made_up_record()["settings"] | {"preset": "mine"}},
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())
def test_every_kind_of_run_gives_a_whole_page_and_a_summary(record: dict[str, Any]) -> None:
    page = Page(render_report(record))
    assert page.names().count("h1") == 1
    svg = [attributes for name, attributes in page.elements if name in ("line", "circle", "text", "polyline")]
    for attributes in svg:
        for key in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy"):
            assert math.isfinite(float(attributes.get(key) or 0)), attributes
    lines = summarize(record, Path("runs/a b"), Path("runs/a b/report.html"))
    epochs = record["stages"].get("pretrain", {}).get("epochs") or [{}]
    assert ("minibert fill-mask 'runs/a b'" in lines) is bool(epochs[-1].get("predictions"))
    assert "minibert verify 'runs/a b'" in lines


def test_of_an_untrained_model_no_sentence_is_proposed() -> None:
    record = made_up_record()
    record["stages"]["pretrain"]["epochs"] = []
    lines = summarize(record, Path("runs/a"), Path("runs/a/report.html"))
    assert "minibert classify runs/a 'a text of your own'" in lines
    assert "fill-mask" not in lines
    assert "[mask]" not in lines


def test_the_page_needs_no_network_and_no_script() -> None:
    page = render_report(made_up_record())
    names = Page(page).names()
    assert not {"script", "link", "img", "iframe", "object"} & set(names)
    assert not re.search(r"https?:|url\(|@import|\bsrc=|\bon\w+=", page)


def test_the_same_record_gives_the_same_page() -> None:
    record = made_up_record()
    assert render_report(json.loads(json.dumps(record))) == render_report(record)


def test_the_page_says_what_the_run_came_to() -> None:
    text = Page(render_report(made_up_record())).text
    for said in (
        "names the right class for 82.2 % of 10,000 test texts; the notebook's own run had 82.0 %",
        "loss went from 7.30 to 5.86 in 5 epochs",
        "+0.0022",
        "one unseeded run",
        "40,000: 20,034 negative, 19,966 positive",
        "No setting differs from the preset amazon.",
        "7.9 MB",
    ):
        assert said in text


def test_a_run_that_is_not_finished_says_how_far_it_is() -> None:
    text = Page(render_report(RECORDS["frozen"])).text
    assert "This run is not finished: 5 of 5 epochs of classifier, frozen are done." in text
    text = Page(render_report(RECORDS["nothing yet"])).text
    assert "no epoch has ended yet" in text


def test_settings_of_one_name_in_two_tables_are_both_shown() -> None:
    record = made_up_record()
    record["settings"]["model"]["parts"] = {"first": {"size": 1234}, "second": {"size": 5678}}
    text = Page(render_report(record)).text
    assert "model.parts.first.size" in text
    assert "model.parts.second.size" in text


def test_the_time_is_all_accounted_for_by_stage_and_by_kind() -> None:
    record = made_up_record()
    encode, pretrain = times.seconds_by_kind(record, "encode"), times.seconds_by_kind(record, "pretrain")
    assert list(encode) == list(pretrain) == list(times.KINDS)
    assert list(encode.values()) == [4.2, 0, 0, 0, 0]
    assert list(pretrain.values()) == [3.5, 112 + 113 + 114 + 115 + 116, 2.0, 0.25, 1.5]
    assert list(times.seconds_by_kind(record, "end_to_end").values()) == [0.7, 0, 6.3, 0, 0.4]
    whole = sum(
        stage["seconds"] + sum(stage.get(kind, 0) for kind in OTHER_TIMES) for stage in record["stages"].values()
    )
    assert times.total_seconds(record) == pytest.approx(whole)
    page = Page(render_report(record))
    bars = [attributes for name, attributes in page.elements if name == "div" and attributes.get("class") == "stack"]
    assert len(bars) == 2
    widths = [
        float(str(a["style"]).removeprefix("width:").rstrip("%"))
        for n, a in page.elements
        if n == "span" and "style" in a
    ]
    assert sum(widths) == pytest.approx(200, abs=0.1)
    for kind in times.KINDS:
        assert kind in page.text


def test_a_record_that_says_less_of_its_times_is_shown_with_what_it_says() -> None:
    record = made_up_record()
    for stage in record["stages"].values():
        for kind in OTHER_TIMES:
            stage.pop(kind, None)
    assert times.seconds_by_kind(record, "pretrain")["training"] == 570
    assert "Where the time went" in Page(render_report(record)).text
    assert times.where_the_time_went(RECORDS["nothing yet"]) is None


def test_a_run_without_labels_has_no_classifier() -> None:
    text = Page(render_report(RECORDS["without labels"])).text
    assert "The corpus has no labels" in text
    assert "Sentiment classifier" not in text


def test_the_libraries_that_computed_on_a_gpu_are_shown() -> None:
    record = copy.deepcopy(RECORDS["complete"])
    record["environment"].pop("cuda")
    assert "cublas" not in render_report(record)
    record["environment"]["cuda"] = {"driver": "580.1", "cublas": "12.5.3", "cudnn": None}
    assert "driver 580.1, cublas 12.5.3, cudnn not known" in render_report(record)


def test_settings_that_differ_from_the_preset_are_listed() -> None:
    record = made_up_record()
    record["settings"]["model"]["hidden_size"] = 48
    record["settings"]["seed"] = 9  # a seed is not a recipe
    record["settings"]["masking"]["vocabulary_size"] = 29_999  # the run filled it in
    page = render_report(record)
    assert re.search(r"1 of \d+ settings differ from the preset amazon\.", Page(page).text)
    assert "<code>model.hidden_size</code></td><td><mark><code>48</code></mark></td><td><code>32</code>" in page


def test_a_corpus_that_was_cut_differs_from_the_preset() -> None:
    record = made_up_record()
    record["settings"]["corpus"] |= {"train_examples": 2_000, "test_examples": 500}
    page = render_report(record)
    assert re.search(r"2 of \d+ settings differ from the preset amazon\.", Page(page).text)
    assert "<code>corpus.train_examples</code></td><td><mark><code>2000</code></mark></td><td><code>null</code>" in page


@pytest.mark.parametrize("mask", ["[mask]", "[MASK]", "[Mask]"])
def test_the_sample_sentence_shows_its_mask_once_however_it_is_written(mask: str) -> None:
    record = made_up_record()
    record["settings"]["pretrain"]["sample_sentence"] = f"I have watched this {mask} today"
    assert "“I have watched this <mark>[mask]</mark> today”, by rank" in render_report(record)


def test_the_page_says_what_the_classifier_was_validated_on() -> None:
    record = made_up_record()
    assert "validation is the test split after it" in Page(render_report(record)).text
    record["settings"]["finetune"]["validation_rate"] = 0.1
    assert "validation is the 10.0 % of the train split that were held out after it" in Page(render_report(record)).text
    record["corpus"]["class_counts"] = {"train": [30_000, 10_000], "test": [5_000, 5_000]}
    assert [level for level, _ in sections._majority(record)] == [0.75]


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())
def test_the_figures_of_the_pages_head_are_those_of_the_page(record: dict[str, Any]) -> None:
    found, text = headline_figures(record), Page(render_report(record)).text
    assert found["summary"] in text
    assert {name: found[name] for name in ("preset", "seed", "status")} == {
        "preset": record["settings"]["preset"], "seed": 0, "status": record["status"],
    }  # fmt: skip
    for title, name in (("End-to-end accuracy", "end_to_end_accuracy"), ("Validation accuracy", "validation_accuracy"),
                        ("Masked-LM loss", "masked_lm_loss")):  # fmt: skip
        shown = f"{title}{write.decimal(found[name])}" in text
        assert shown == (found[name] is not None), name


@functools.cache
def plain_elements() -> list[str]:
    """The page's elements where no text tries anything."""
    return Page(render_report(RECORDS["complete"])).names()


@limited(max_examples=25)
@given(hostile)
@example("<script>alert(1)</script>")
@example("\0")
def test_what_texts_contain_never_becomes_an_element(text: str) -> None:
    record = copy.deepcopy(RECORDS["complete"])
    record["settings"]["pretrain"]["sample_sentence"] = f"{text}[mask]{text}"
    record["stages"]["pretrain"]["epochs"][0]["predictions"][0]["token"] = text
    record["corpus"]["name"] = text
    record["corpus"]["class_names"] = [text, text]
    record["environment"]["cpu"]["model"] = text
    record["started"] = text
    record["artifacts"] = {text: {"sha256": text, "bytes": 1}}
    found = Page(render_report(record)).names()
    assert set(found) == set(plain_elements())
    for name in ("b", "i", "style", "svg", "details"):
        assert found.count(name) == plain_elements().count(name)


@given(hostile)
def test_escaped_text_reads_as_itself(text: str) -> None:
    page = Page(element("p", text, title=text))
    assert page.names() == ["p"]
    kept = "".join(c if c >= " " or c in "\n\t" else "\ufffd" for c in text if c != "\x7f")
    assert page.text == kept
    assert page.elements[0][1]["title"] == kept


def test_markup_is_escaped_once_and_only_by_element() -> None:
    assert escape("<&>") == "&lt;&amp;&gt;"
    assert escape([Markup("<i></i>"), "<", None, 3]) == "<i></i>&lt;3"
    assert element("svg", viewBox="0 0 1 1", stroke_width=2, class_="a", fill=None) == (
        '<svg viewBox="0 0 1 1" stroke-width="2" class="a"></svg>'
    )


def test_groups_head_their_rows() -> None:
    rows = [("one", "a"), ("one", "b"), ("two", "c")]
    assert Page(table(("t",), rows, grouped=True)).text == "toneabtwoc"


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12), st.integers(2, 9))
def test_ticks_are_round_even_and_cover_the_range(low: float, span: float, count: int) -> None:
    high = low + span
    if not high - low > 1e-6 * abs(low):
        return
    ticks = nice_ticks(low, high, count)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= high - 1e-6 * step
    assert 2 <= len(ticks) <= count + 3
    assert all(math.isclose(b - a, step, rel_tol=1e-6, abs_tol=1e-9 * abs(low)) for a, b in pairwise(ticks))


@given(st.integers(1, 50), st.integers(0, 10**6))
def test_epochs_have_few_whole_ticks(low: int, more: int) -> None:
    ticks = integer_ticks(low, low + more)
    assert 1 <= len(ticks) <= 11
    assert low <= ticks[0]
    assert ticks[-1] <= low + more


@given(st.lists(st.lists(st.none() | st.floats(), min_size=1, max_size=6), min_size=1, max_size=4))
@example([[-1.7e308, 1.7e308]])
@example([[1e16, 1e16 + 2]])
@example([[5e-324, 0.0]])
def test_any_values_can_be_drawn(values: list[list[float | None]]) -> None:
    series = [Series(name=f"s{i}", points=list(enumerate(line, 1))) for i, line in enumerate(values)]
    picture = Page(line_chart(Chart(title="t", x_label="epoch", y_label="y", series=series)))
    drawn = [line for line in values if any(v is not None and abs(v) < 1e300 for v in line)]
    names = [a for name, a in picture.elements if name == "text" and "name" in (a.get("class") or "")]
    assert len(names) == len(drawn)
    places = sorted(float(a["y"] or 0) for a in names)
    assert all(b - a >= 15.9 for a, b in pairwise(places))  # no name upon another
    points = [a for name, a in picture.elements if name == "circle"]
    assert all(0 <= float(a["cx"] or 0) <= 480 and 0 <= float(a["cy"] or 0) <= 300 for a in points)


def test_a_line_is_broken_where_a_value_is_missing() -> None:
    points = [(1, 1.0), (2, 2.0), (3, None), (4, 2.0), (5, 1.0)]
    chart = Chart(title="t", x_label="", y_label="", series=[Series(name="s", points=points)])
    assert Page(line_chart(chart)).names().count("polyline") == 2


def not_as_published(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The record with ``stage__field`` settings changed, or ``corpus`` figures."""
    for key, value in changes.items():
        stage, _, field = key.partition("__")
        (record["settings"][stage] if field else record["corpus"])[field or key] = value
    return record


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text__sequence_length": 64}, "text.sequence_length is 64, not 128"),
        ({"masking__static": False}, "masking.static is false, not true"),
        ({"masking__protected_ids": [0, 1]}, "masking.protected_ids is [0, 1], not [0, 1, 2]"),
        ({"model__heads": 2, "pretrain__epochs": 1}, "model.heads is 2, not 4 (and 1 more setting)"),
        ({"model__heads": 2, "pretrain__epochs": 1, "finetune__frozen_epochs": 1}, "(and 2 more settings)"),
        ({"examples": {"train": 800, "test": 200}},
         "the corpus has 800 train and 200 test texts, not 40,000 train and 10,000 test"),
        ({"examples": {}}, "the corpus has no texts, not 40,000 train"),
        ({"class_names": None}, "the corpus has no labels"),
        ({"model__heads": 2, "examples": {"train": 1}}, "model.heads is 2, not 4; the corpus has 1 train texts"),
    ],
)  # fmt: skip
def test_another_recipe_or_corpus_is_not_compared_and_a_line_says_why(changes: dict[str, Any], reason: str) -> None:
    record = not_as_published(made_up_record("amazon"), **changes)
    why = why_not_compared(record)
    assert why is not None
    assert why.startswith("Not compared with notebook 2, Amazon: ")
    assert reason in why
    assert compare(record) == compare_speed(record) == []
    text = Page(render_report(record)).text
    assert text.count(why) == 1
    for told in ("0.8196", "the notebook's own run", "one unseeded run", "Milliseconds a step"):
        assert told not in text
    summary = summarize(record, Path("runs/x"), Path("runs/x/report.html"))
    assert summary.count(why) == 1
    assert "0.8196" not in summary


def test_what_decides_no_figure_keeps_the_comparison() -> None:
    record = not_as_published(
        made_up_record("imdb"),
        corpus__class_names=["bad", "good"],
        corpus__text_column="body",
        masking__vocabulary_size=29_998,
        pretrain__sample_sentence="[mask]",
        pretrain__top_k=3,
        record__checkpoint_steps=7,
        name="table",
        class_names=["bad", "good"],
    )
    record["settings"]["seed"] = 8
    assert why_not_compared(record) is None
    assert len(compare(record)) > 5
    text = Page(render_report(record)).text
    assert "the corpus has as many texts as the notebook's, 25,000 train and 25,000 test." in text


def test_a_preset_without_a_notebook_gives_no_reason() -> None:
    for name in ("tiny", "jokes"):
        assert why_not_compared(made_up_record(name)) is None
        assert "ompared" not in summarize(made_up_record(name), Path("x"), Path("x/report.html"))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1))
@example([0.5], 0.5)
@example([1.0, 1.0], 1.0)
@example([0.0], 0.0)
def test_an_accuracys_axis_ends_at_one(values: list[float], level: float) -> None:
    series = [Series(name="a", points=list(enumerate(values, 1)))]
    chart = Chart(title="t", x_label="", y_label="", series=series, levels=[(level, "always")], y_end=1.0)
    page = Page(line_chart(chart))
    marks = [float(text) for text in re.findall(r'text-anchor="end"[^>]*>(-?[0-9.e-]+)</text>', line_chart(chart))]
    assert max(marks) == 1.0
    assert min(marks) >= 0.0
    assert page.names().count("circle") == len(values)


def test_an_axis_that_a_value_exceeds_does_not_end_below_it() -> None:
    series = [Series(name="a", points=[(1, 0.5), (2, 3.0)])]
    assert ">3" in line_chart(Chart(title="t", x_label="", y_label="", series=series, y_end=1.0))


def test_the_comparison_has_every_published_figure() -> None:
    rows = compare(made_up_record("amazon"))
    published = PUBLISHED["amazon"]
    values = [row.published for row in rows]
    assert values[:5] == list(published.pretrain_losses)
    assert values[5:10] == list(published.frozen_validation_accuracies)
    assert values[10:] == [0.8416, 0.3583, 0.8196, 0.7103]
    assert rows[-1].difference == pytest.approx(0.7011 - 0.7103)
    assert compare(made_up_record("tiny")) == []


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (write.decimal(0.80471), "0.8047"), (write.decimal(None), "–"), (write.decimal(math.nan), "not finite"),
        (write.decimal(1e-9), "1.00e-09"), (write.decimal(3.2e7), "3.20e+07"), (write.decimal(0.0), "0.0000"),
        (write.signed(0.0022), "+0.0022"), (write.signed(-0.5), "−0.5000"), (write.signed(0.0), "0.0000"),
        (write.signed(None), "–"), (write.count(1234567), "1,234,567"), (write.percent(0.8218), "82.2 %"),
        (write.duration(0.0123), "12.3 ms"), (write.duration(0.9999), "1.0 s"), (write.duration(59.94), "59.9 s"),
        (write.duration(59.97), "1 min 0 s"), (write.duration(3599.6), "1 h 0 min"), (write.duration(None), "–"),
        (write.size(0), "0 bytes"), (write.size(999), "999 bytes"), (write.size(999_960), "1.0 MB"),
        (write.size(7_923_411), "7.9 MB"), (write.size(None), "–"),
    ],
)  # fmt: skip
def test_figures_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected


def test_the_summary_stands_beside_the_notebook() -> None:
    lines = summarize(made_up_record(), Path("runs/x"), Path("runs/x/report.html"))
    assert "notebook 2, Amazon" in lines
    assert re.search(r"end to end: accuracy on raw test text +0\.8218 +0\.8196 \(\+0\.0022\)", lines)
    assert "pretrain: loss, epoch 5" in lines
    assert "epoch 4" not in lines
    assert "minibert classify" in lines
    assert "\n  texts: 40,000 train, 10,000 test (amazon; classes 0 = negative, 1 = positive)\n" in lines
    lines = summarize(made_up_record("jokes", labelled=False), Path("runs/x"), Path("runs/x/report.html"))
    assert "notebook" not in lines
    assert "classify" not in lines
    assert "(jokes; no labels)" in lines


def test_the_summary_shows_what_was_changed_some_by_value_and_the_others_by_number() -> None:
    record = made_up_record()
    assert "changed:" not in summarize(record, Path("x"), Path("x/report.html"))
    record["settings"]["model"]["hidden_size"] = 48
    record["settings"]["corpus"] |= {"train_examples": 2_000}
    record["settings"]["seed"] = 9
    lines = summarize(record, Path("x"), Path("x/report.html"))
    assert "\n  changed: corpus.train_examples 2000, not null; model.hidden_size 48, not 32\n" in lines
    record["settings"]["pretrain"] |= {"epochs": 2, "batch_size": 8, "learning_rate": 0.5}
    assert "; 1 more, which the report has\n" in summarize(record, Path("x"), Path("x/report.html"))
    record["settings"]["preset"] = "my own"
    assert "changed:" not in summarize(record, Path("x"), Path("x/report.html"))


def test_what_to_classify_next_is_the_runs_own_sentence_completed() -> None:
    record = made_up_record()
    assert "classify x 'I have watched this movie and it was awesome'" in summarize(record, Path("x"), Path("x/r.html"))
    record["stages"]["pretrain"]["epochs"][-1]["predictions"][0]["sentence"] = "It's good"
    assert "classify x 'It'\"'\"'s good'" in summarize(record, Path("x"), Path("x/r.html"))


def test_the_summary_names_the_files_and_the_folder_of_traces_once() -> None:
    record = made_up_record()
    for stage in ("pretrain", "frozen"):
        record["artifacts"][f"trace/{stage}.trace"] = {"sha256": DIGEST, "bytes": 1}
    lines = summarize(record, Path("runs/x"), Path("runs/x/report.html")).splitlines()
    assert "  artifacts  runs/x: run.json, metrics.csv, vocabulary.txt, masked_lm.keras, trace/" in lines


def test_padding_that_is_predicted_is_named() -> None:
    record = made_up_record()
    record["stages"]["pretrain"]["epochs"][-1]["predictions"][0]["token"] = ""
    assert "(padding) 0.200, film 0.100" in summarize(record, Path("x"), Path("x/report.html"))
    assert "(padding)" in Page(render_report(record)).text


def test_a_report_is_written_beside_its_record_and_replaced_whole(tmp_path: Path) -> None:
    write_record(tmp_path, made_up_record())
    page = write_report(tmp_path)
    first = page.read_bytes()
    assert page == tmp_path / "report.html"
    assert write_report(tmp_path).read_bytes() == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "run.json"]


def test_a_damaged_record_is_named_and_the_old_page_stays(tmp_path: Path) -> None:
    write_record(tmp_path, made_up_record())
    old = write_report(tmp_path).read_bytes()
    record = tmp_path / "run.json"
    whole = record.read_text(encoding="utf-8")
    record.write_text(whole[: len(whole) // 2], encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"run\.json"):
        write_report(tmp_path)
    record.write_text(whole.replace('"accuracy": 0.8218', '"accuracy": 0.9218'), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"run\.json: field"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == old


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run\.json: .* there is none"):
        write_report(tmp_path)
