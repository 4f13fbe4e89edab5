"""Writes the page of a history, of a gate's answer, or of both: analysed, drawn, put on the disk whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minibert.artifacts import write_bytes
from minibert.errors import MinibertError
from minibert.perf import change_points
from minibert.perf.history import is_begun
from minibert.perf.history_page import render_page
from minibert.perf.since_when import analyze


def write_page(
    out: Path,
    gate: Mapping[str, Any] | None,
    history: Path | None,
    *,
    may_miss: bool,
    repository: Path,
    with_dirty: bool = False,
) -> list[str]:
    """Writes the page.

    Args:
        out: The page's file.
        gate: From `minibert.perf.gate_answer.read_gate`, or `GateAnswer.to_dict`; None: the history alone.
        history: The history's folder; None: the gate alone.
        may_miss: Whether the page may do without a history: there is a gate to show.
        repository: A checkout whose HEAD gives the order of the commits.
        with_dirty: Whether records of a working tree with changes are shown too.

    Returns:
        Notes on what the page lacks, for a person.

    Raises:
        ArtifactError: The history is missing, or a record is damaged, or the page cannot be written.
    """
    notes, analysis, missing = [], None, None
    if history is not None and may_miss and not is_begun(history):
        notes.append(f"there is no history in {history}; the page has the last gate only")
    elif history is not None:
        propose = None
        try:
            propose = change_points.require_otava()
        except MinibertError as error:
            missing = str(error)
            notes.append("change points were NOT searched: apache-otava is not installed; the page says so")
        analysis = analyze(history, repository=repository, propose=propose, with_dirty=with_dirty)
    write_bytes(out, render_page(analysis, gate, missing).encode("utf-8", errors="backslashreplace"))
    return notes
