"""Where a run's time went: by stage, and by what was done in it.

Older records say less: what they do not say is taken for 0.
"""

from __future__ import annotations

from typing import Any

from minibert.report import figures
from minibert.report.markup import Markup, element, section, table
from minibert.report.stages import STAGE_NAMES, STAGES, epochs_of, stage_of

KINDS = {
    "preparing": "reading, counting and encoding texts; building and tracing the models",
    "training": "steps, the compilation in the first of them included",
    "validation": "the validation texts or the sample sentence after each epoch, the raw test texts at the end",
    "waiting": "for the next batch, and for the display of progress",
    "writing": "checkpoints, the record and the models",
}
"""What a run does, and what is counted as it."""


def seconds_by_kind(record: dict[str, Any], name: str) -> dict[str, float]:
    """The seconds of one stage, for each of `KINDS`."""
    stage = stage_of(record, name)
    whole, building = _number(stage, "seconds"), _number(stage, "building_seconds")
    training = float(sum(epoch.get("seconds") or 0.0 for epoch in epochs_of(record, name)))
    is_preparation = name == "encode"
    return {
        "preparing": building + (whole if is_preparation else 0.0),
        "training": training,
        "validation": 0.0 if is_preparation else max(whole - training, 0.0),
        "waiting": _number(stage, "waiting_seconds"),
        "writing": _number(stage, "writing_seconds"),
    }


def total_seconds(record: dict[str, Any]) -> float:
    """What all stages took together."""
    return sum(sum(seconds_by_kind(record, name).values()) for name in STAGES)


def step_milliseconds(stage: dict[str, Any]) -> float | None:
    """Mean time of a training step in a stage's finished epochs, evaluation not included."""
    epochs = stage.get("epochs") or []
    steps = sum(epoch.get("steps") or 0 for epoch in epochs)
    return 1000 * sum(epoch.get("seconds") or 0.0 for epoch in epochs) / steps if steps else None


def where_the_time_went(record: dict[str, Any]) -> Markup | None:
    """A bar of the stages, a bar of what was done, and a table of both."""
    total = total_seconds(record)
    if not total > 0:
        return None
    by_stage = {name: seconds_by_kind(record, name) for name in STAGES if stage_of(record, name)}
    by_kind = {kind: sum(seconds[kind] for seconds in by_stage.values()) for kind in KINDS}
    stages = {name: sum(seconds.values()) for name, seconds in by_stage.items()}
    rows = [
        ([element("i", class_=f"key {name}"), STAGE_NAMES[name]], *_cells(seconds, total),
         figures.decimal(step_milliseconds(stage_of(record, name)), 1))
        for name, seconds in by_stage.items()
    ]  # fmt: skip
    rows.append((element("b", "all"), *_cells(by_kind, total), figures.NOTHING))
    heads = [[element("i", class_=f"key {kind}"), kind] for kind in KINDS]
    short = {name: title.removeprefix("classifier, ") for name, title in STAGE_NAMES.items()}
    meanings = ". ".join(f"{kind.capitalize()}: {meaning}" for kind, meaning in KINDS.items())
    return section(
        "Where the time went",
        _bar(stages, short, total, "share of each stage in the time"),
        _bar(by_kind, {kind: kind for kind in KINDS}, total, "share of what was done in the time"),
        table(("stage", *heads, "time", "share", "ms a step"), rows, numeric=range(1, len(KINDS) + 4)),
        element("p", f"{meanings}. Importing TensorFlow is in none of them.", class_="quiet"),
    )


def _number(stage: dict[str, Any], key: str) -> float:
    return float(stage.get(key) or 0.0)


def _cells(seconds: dict[str, float], total: float) -> list[str]:
    """The times of each kind, their sum and its share."""
    whole = sum(seconds.values())
    shown = [figures.duration(value) if value else figures.NOTHING for value in seconds.values()]
    return [*shown, figures.duration(whole), figures.percent(whole / total)]


def _bar(seconds: dict[str, float], titles: dict[str, str], total: float, label: str) -> Markup:
    parts = [_segment(name, titles[name], value / total) for name, value in seconds.items() if value > 0]
    return element("div", parts, class_="stack", role="img", aria_label=label)


def _segment(name: str, title: str, share: float) -> Markup:
    label = f"{title} {figures.percent(share)}"
    return element("span", label if share > 0.13 else "", class_=name, style=f"width:{100 * share:.3f}%", title=label)
