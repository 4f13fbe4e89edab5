"""A run's directory is looked at before anything is read, downloaded or loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

import minibert
from minibert.errors import ArtifactError
from minibert.running import require_place, run


def test_a_place_that_is_or_can_be_made_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for directory in (tmp_path, tmp_path / "new", tmp_path / "a" / "b", Path("new"), Path()):
        require_place(directory)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", [(), ("a",), ("a", "b")])
def test_a_parent_that_is_a_file_is_named(tmp_path: Path, below: tuple[str, ...]) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ArtifactError, match=r"a folder cannot be made there: .*file is a file"):
        require_place(file.joinpath(*below))


def test_a_folder_that_may_not_be_written_to_is_named_before_the_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allowed(path: Path, mode: int) -> bool:
        return path != tmp_path

    monkeypatch.setattr(os, "access", allowed)
    pipeline = ModuleType("minibert.pipeline")
    monkeypatch.setitem(sys.modules, "minibert.pipeline", pipeline)  # it cannot run
    with pytest.raises(ArtifactError, match=r"new: a folder cannot be written there: .* is read-only for this user"):
        run(minibert.preset("tiny"), directory=tmp_path / "new")
