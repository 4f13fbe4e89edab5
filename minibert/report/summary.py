"""A run in a few lines, for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minibert.checked import printable
from minibert.mask_word import shown_token
from minibert.report.comparison import (
    ONE_DRAW,
    Comparison,
    changed_settings,
    compare,
    published_figures,
    shown_setting,
    why_not_compared,
)
from minibert.report.figures import NOTHING, count, decimal, duration, signed
from minibert.report.stages import epochs_of, stage_of
from minibert.report.times import total_seconds

MOST_CHANGES = 4
"""Changed settings that are shown by value."""


def summarize(record: dict[str, Any], directory: Path, page: Path) -> str:
    """The run's figures, the notebook's beside them, where the artifacts are and what to try next."""
    settings = record["settings"]
    head = f"{settings['preset']}, seed {settings['seed']}: {record['status']} in {duration(total_seconds(record))}"
    lines = [
        head,
        *_corpus(record),
        *_changed(record),
        "",
        *_figures(record),
        "",
        *_places(record, directory, page),
        "",
        *_next_commands(record, directory),
    ]
    return "\n".join(lines)


def _corpus(record: dict[str, Any]) -> Iterator[str]:
    """Which texts were used, and how many: a preset or a setting may have taken a part."""
    found = record.get("corpus") or {}
    texts = ", ".join(f"{count(n)} {split}" for split, n in (found.get("examples") or {}).items() if n)
    if texts:
        names = found.get("class_names")
        classes = (
            "; no labels" if names is None else "; classes " + ", ".join(f"{i} = {n}" for i, n in enumerate(names))
        )
        yield printable(f"  texts: {texts} ({found.get('name')}{classes})")


def _changed(record: dict[str, Any]) -> Iterator[str]:
    """What is not as in the preset: some by value, the others by their number."""
    changed = changed_settings(record)
    shown = [f"{key} {shown_setting(value)}, not {shown_setting(usual)}" for key, (value, usual) in changed.items()]
    if len(shown) > MOST_CHANGES:
        shown[MOST_CHANGES:] = [f"{len(shown) - MOST_CHANGES} more, which the report has"]
    if shown:
        yield printable(f"  changed: {'; '.join(shown)}")


def _figures(record: dict[str, Any]) -> Iterator[str]:
    published = published_figures(record)
    rows = _last_of_each(compare(record)) if published is not None else list(_own_figures(record))
    titles = [f"{row.stage.replace('_', ' ')}: {row.figure}" for row in rows]
    width = max(map(len, titles), default=0)
    if published is not None:
        yield f"  {'':{width}}  this run  {published.notebook}"
    for title, row in zip(titles, rows, strict=True):
        line = f"  {title:{width}}  {decimal(row.here):>8}"
        if published is not None:
            shown = "not shown" if row.published is None else f"{decimal(row.published)} ({signed(row.difference)})"
            line += f"  {shown}"
        yield line.rstrip()
    if published is not None:
        yield f"  {ONE_DRAW}"
    refused = why_not_compared(record)
    if refused is not None:
        yield f"  {refused}"
    predictions = (epochs_of(record, "pretrain") or [{}])[-1].get("predictions") or []
    if predictions:
        words = ", ".join(f"{shown_token(p['token'])} {p['probability']:.3f}" for p in predictions)
        yield printable(f"  [mask]: {words}")


def _last_of_each(rows: list[Comparison]) -> list[Comparison]:
    """One row for each series of epochs: its last, which is the one that stays."""
    last: dict[tuple[str, str], Comparison] = {}
    for row in rows:
        last[row.stage, row.figure.partition(",")[0]] = row
    return list(last.values())


def _own_figures(record: dict[str, Any]) -> Iterator[Comparison]:
    for stage, figure, key in (
        ("pretrain", "masked-LM loss", "loss"),
        ("frozen", "validation accuracy", "val_accuracy"),
        ("unfrozen", "validation accuracy", "val_accuracy"),
    ):
        epochs = epochs_of(record, stage)
        if epochs:
            title = f"{figure}, epoch {epochs[-1].get('epoch', NOTHING)}"
            yield Comparison(stage=stage, figure=title, here=epochs[-1].get(key), published=None)
    end = stage_of(record, "end_to_end")
    for key in ("accuracy", "loss"):
        if key in end:
            yield Comparison(stage="end_to_end", figure=f"{key} on raw test text", here=end[key], published=None)


def _places(record: dict[str, Any], directory: Path, page: Path) -> Iterator[str]:
    yield f"  report     {page}"
    written = {name.partition("/")[0] + ("/" if "/" in name else "") for name in record.get("artifacts") or {}}
    yield f"  artifacts  {directory}: {', '.join(['run.json', 'metrics.csv', 'vocabulary.txt', *sorted(written)])}"


def _next_commands(record: dict[str, Any], directory: Path) -> Iterator[str]:
    place = shlex.quote(str(directory))
    sentence = record["settings"]["pretrain"]["sample_sentence"]
    predictions = (epochs_of(record, "pretrain") or [{}])[-1].get("predictions")
    yield "  Try next:"
    if predictions:
        yield f"    minibert fill-mask {place} {shlex.quote(sentence)}"
    if stage_of(record, "end_to_end"):
        completed = predictions[0]["sentence"] if predictions else "a text of your own"
        yield f"    minibert classify {place} {shlex.quote(completed)}"
    yield f"    minibert verify {place}"
