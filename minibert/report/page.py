"""The page ``report.html``: one file, no network, no script, made from ``run.json`` alone."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from minibert.artifacts import write_bytes
from minibert.record import read_record
from minibert.report import inputs, sections, times
from minibert.report.markup import Markup, element, escape

PAGE_NAME = "report.html"


def write_report(directory: Path) -> Path:
    """Writes a run's page into its directory; an old one is replaced at once or not at all.

    Returns:
        The page's path.

    Raises:
        ArtifactError: ``run.json`` is missing or damaged (file and field are named), or the page
            cannot be written.
    """
    directory = Path(directory)
    page = render_report(read_record(directory))
    target = directory / PAGE_NAME
    write_bytes(target, page.encode("utf-8", errors="backslashreplace"))
    return target


def render_report(record: dict[str, Any]) -> str:
    """A run's record as a whole HTML page; a run that is not finished shows what it has.

    Determinism: the same record gives the same text.
    """
    settings = record["settings"]
    title = f"{settings['preset']}, seed {settings['seed']}"
    body = [
        element("header", element("p", "minibert run", class_="over"), element("h1", title), sections.headline(record)),
        sections.language_model(record),
        sections.classifier(record),
        sections.beside_the_notebook(record),
        times.where_the_time_went(record),
        inputs.corpus(record),
        inputs.settings(record),
        inputs.environment(record),
        inputs.digests(record),
        inputs.foot(record),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · minibert"),
        element("style", Markup(_style())),
    ]
    return f"<!DOCTYPE html>\n{element('html', element('head', head), element('body', escape(body)), lang='en')}\n"


def _style() -> str:
    return resources.files("minibert.report").joinpath("style.css").read_text(encoding="utf-8")
