"""The parts of the page that show what was learned: figures, curves, predictions, comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from minibert.mask_word import MASK, around_mask, shown_token
from minibert.report import figures
from minibert.report.charts import Chart, Series, line_chart
from minibert.report.comparison import (
    ONE_DRAW,
    compare,
    compare_speed,
    published_figures,
    why_compared,
    why_not_compared,
)
from minibert.report.markup import Content, Markup, element, escape, section, table
from minibert.report.stages import STAGE_NAMES, epochs_of, stage_of
from minibert.report.times import total_seconds

MOST_EPOCHS_IN_TABLE = 12
MOST_RANKS_IN_TABLE = 10


def headline_figures(record: dict[str, Any]) -> dict[str, Any]:
    """What the head of the page says, in plain values; a figure that the run has not come to yet is None."""
    unfrozen, pretrain = epochs_of(record, "unfrozen"), epochs_of(record, "pretrain")
    return {
        "preset": record["settings"]["preset"],
        "seed": record["settings"]["seed"],
        "status": record["status"],
        "summary": verdict(record),
        "end_to_end_accuracy": stage_of(record, "end_to_end").get("accuracy"),
        "validation_accuracy": unfrozen[-1].get("val_accuracy") if unfrozen else None,
        "masked_lm_loss": pretrain[-1].get("loss") if pretrain else None,
        "seconds": total_seconds(record),
    }


def headline(record: dict[str, Any]) -> Markup:
    """What the run came to, in a sentence and in a few large figures."""
    tiles = [*_tiles(record)]
    return element("div", element("p", verdict(record), class_="verdict"),
                   element("div", tiles, class_="tiles") if tiles else None)  # fmt: skip


def verdict(record: dict[str, Any]) -> str:
    """The run in a sentence or two."""
    losses = [epoch.get("loss") for epoch in epochs_of(record, "pretrain")]
    said = []
    if record.get("status") != "complete":
        said.append(f"This run is not finished: {_reached(record)}.")
    end, published = stage_of(record, "end_to_end"), published_figures(record)
    if end.get("accuracy") is not None:
        line = f"The raw-text model names the right class for {figures.percent(end['accuracy'])} of "
        line += f"{figures.count(end.get('examples'))} test texts"
        if published is not None:
            line += f"; the notebook's own run had {figures.percent(published.end_to_end_accuracy)}"
        said.append(f"{line}.")
    if len(losses) > 1:
        first, last = figures.decimal(losses[0], 2), figures.decimal(losses[-1], 2)
        said.append(f"The masked language model's loss went from {first} to {last} in {len(losses)} epochs.")
    elif losses:
        said.append(f"The masked language model's loss is {figures.decimal(losses[0], 2)} after one epoch.")
    if record.get("status") == "complete" and not end:
        said.append("The corpus has no labels, so there is no classifier.")
    return " ".join(said)


def _reached(record: dict[str, Any]) -> str:
    settings = record["settings"]
    for name, epochs in (
        ("unfrozen", settings["finetune"]["unfrozen_epochs"]),
        ("frozen", settings["finetune"]["frozen_epochs"]),
        ("pretrain", settings["pretrain"]["epochs"]),
    ):
        if stage_of(record, name):
            return f"{len(epochs_of(record, name))} of {epochs} epochs of {STAGE_NAMES[name]} are done"
    return "no epoch has ended yet"


def _tiles(record: dict[str, Any]) -> Iterator[Markup]:
    found, published = headline_figures(record), published_figures(record)
    if found["end_to_end_accuracy"] is not None:
        note = f"notebook {figures.decimal(published.end_to_end_accuracy)}" if published else "on raw test text"
        yield _tile("End-to-end accuracy", figures.decimal(found["end_to_end_accuracy"]), note)
    if epochs_of(record, "unfrozen"):
        note = f"unfrozen, epoch {len(epochs_of(record, 'unfrozen'))}"
        yield _tile("Validation accuracy", figures.decimal(found["validation_accuracy"]), note)
    if epochs_of(record, "pretrain"):
        note = f"nats a token, epoch {len(epochs_of(record, 'pretrain'))}"
        yield _tile("Masked-LM loss", figures.decimal(found["masked_lm_loss"]), note)
    if found["seconds"]:
        yield _tile("Time", figures.duration(found["seconds"]), "all stages")


def _tile(title: str, figure: str, note: str) -> Markup:
    return element("div", element("span", title, class_="tile-title"), element("strong", figure),
                   element("span", note, class_="quiet"), class_="tile")  # fmt: skip


def language_model(record: dict[str, Any]) -> Markup | None:
    """The loss by epoch, and what stands for ``[mask]`` after each."""
    epochs = epochs_of(record, "pretrain")
    if not epochs:
        return None
    published = published_figures(record)
    lines = [Series(name="this run", points=_points(epochs, "loss"))]
    if published is not None and published.pretrain_losses:
        points = list(enumerate(published.pretrain_losses, 1))
        lines.append(Series(name="notebook", points=points, role="published"))
    chart = Chart(title="Loss on the selected tokens", x_label="epoch", y_label="nats a token", series=lines)
    return section("Masked language model", element("div", line_chart(chart), _losses(epochs), class_="pair"),
                   _predictions(record, epochs))  # fmt: skip


def _losses(epochs: Sequence[dict[str, Any]]) -> Markup:
    rows = [
        (e.get("epoch"), figures.decimal(e.get("loss")), figures.count(e.get("count")),
         figures.count(e.get("steps")), figures.duration(e.get("seconds")))
        for e in epochs
    ]  # fmt: skip
    return table(("epoch", "loss", "selected", "steps", "time"), rows, numeric=range(5))


def _points(epochs: Sequence[dict[str, Any]], key: str, after: int = 0) -> list[tuple[float, float | None]]:
    return [(after + number, epoch.get(key)) for number, epoch in enumerate(epochs, 1)]


def _predictions(record: dict[str, Any], epochs: Sequence[dict[str, Any]]) -> Markup | None:
    shown = [epoch for epoch in epochs if epoch.get("predictions")]
    if not shown:
        return None
    step = -(-len(shown) // MOST_EPOCHS_IN_TABLE)
    shown = shown[::-step][::-1]  # the last epoch always
    rows = [(f"epoch {e.get('epoch')}", [(p["token"], p["probability"]) for p in e["predictions"]]) for e in shown]
    published = published_figures(record)
    if published is not None and published.first_epoch_predictions:
        rows.insert(0, ("notebook, epoch 1", list(published.first_epoch_predictions)))
    ranks = min(max(len(words) for _, words in rows), MOST_RANKS_IN_TABLE)
    most = max((p for _, words in rows for _, p in words), default=0.0) or 1.0
    cells = [
        (title, *(_prediction(words[rank], most) if rank < len(words) else None for rank in range(ranks)))
        for title, words in rows
    ]
    head: list[Content] = ["", *(str(rank + 1) for rank in range(ranks))]
    before, behind = around_mask(record["settings"]["pretrain"]["sample_sentence"])
    quoted = [before, element("mark", MASK), behind]
    left_out = f" Every {step}th epoch is shown." if step > 1 else ""
    return escape([
        element("h3", "Likeliest words for the sample sentence"),
        element("p", "“", quoted, "”, by rank; bars show probability.", left_out),
        element("div", table(head, cells), class_="predictions"),
    ])  # fmt: skip


def _prediction(prediction: tuple[str, float], most: float) -> Markup:
    token, probability = prediction
    share = max(0.0, min(1.0, probability / most)) if probability == probability else 0.0
    return element("div", element("b", shown_token(token)), element("span", figures.decimal(probability, 3)),
                   element("i", style=f"width:{92 * share:.1f}%"), class_="word")  # fmt: skip


def classifier(record: dict[str, Any]) -> Markup | None:
    """Accuracy and loss over both stages, joined, with the boundary between them."""
    frozen, unfrozen = epochs_of(record, "frozen"), epochs_of(record, "unfrozen")
    if not frozen and not unfrozen:
        return None
    accuracy = _classifier_chart(record, "Accuracy", "accuracy", "share of texts that are right")
    loss = _classifier_chart(record, "Loss", "loss", "binary cross-entropy, nats")
    note = "Epochs count on from the frozen encoder to the unfrozen one. Training figures are means over an epoch "
    note += f"with dropout on; validation is {_validated_on(record)} after it, with dropout off."
    return section("Sentiment classifier", element("div", line_chart(accuracy), line_chart(loss), class_="pair"),
                   element("p", note, class_="quiet"))  # fmt: skip


def _classifier_chart(record: dict[str, Any], title: str, key: str, y_label: str) -> Chart:
    frozen, unfrozen = epochs_of(record, "frozen"), epochs_of(record, "unfrozen")
    lines = [
        Series(name=name, points=[*_points(frozen, k), *_points(unfrozen, k, len(frozen))], role=role)
        for name, k, role in (("training", key, "second"), ("validation", f"val_{key}", "first"))
    ]
    published = published_figures(record)
    levels: list[tuple[float, str]] = []
    if key == "accuracy":
        levels = _majority(record)
        if published is not None:
            found = published.frozen_validation_accuracies[: len(frozen)]
            points: list[tuple[float, float | None]] = list(enumerate(found, 1))
            if unfrozen:
                points.append((len(frozen) + 1, published.unfrozen_first_validation_accuracy))
            lines.append(Series(name="notebook", points=points, role="published"))
    joined = [(len(frozen) + 0.5, "frozen", "unfrozen")] if frozen and unfrozen else []
    return Chart(title=title, x_label="epoch", y_label=y_label, series=lines, levels=levels, boundaries=joined,
                 y_end=1.0 if key == "accuracy" else None)  # fmt: skip


def _validated_on(record: dict[str, Any]) -> str:
    """The texts that the classifier is validated on, in words."""
    rate = record["settings"]["finetune"]["validation_rate"]
    return f"the {figures.percent(rate)} of the train split that were held out" if rate else "the test split"


def _majority(record: dict[str, Any]) -> list[tuple[float, str]]:
    """What naming the commoner class every time would reach in validation; what is held out has the train split's."""
    split = "train" if record["settings"]["finetune"]["validation_rate"] else "test"
    counts = ((record.get("corpus") or {}).get("class_counts") or {}).get(split) or []
    return [(max(counts) / sum(counts), "always the commoner class")] if sum(counts) else []


def beside_the_notebook(record: dict[str, Any]) -> Markup | None:
    """This run's figures beside the published ones, and the speed of both."""
    published, rows = published_figures(record), compare(record)
    refused = why_not_compared(record)
    if refused is not None:
        return section("Beside the notebook", element("p", refused))
    if published is None:
        return None
    cells = [
        (STAGE_NAMES[row.stage], row.figure, figures.decimal(row.here),
         "not shown" if row.published is None else figures.decimal(row.published), figures.signed(row.difference))
        for row in rows
    ]  # fmt: skip
    speeds = [(STAGE_NAMES[name], figures.decimal(here, 1), shown) for name, here, shown in compare_speed(record)]
    return section(
        f"Beside {published.notebook}",
        element("p", why_compared(record), " ", ONE_DRAW),
        table(("figure", "this run", "notebook", "difference"), cells, numeric=(1, 2, 3), grouped=True),
        element("h3", "Milliseconds a step"),
        element("p", f"The notebook ran on another machine ({published.machine}); this is no race.", class_="quiet"),
        table(("stage", "this run", "notebook"), speeds, numeric=(1, 2)),
    )
