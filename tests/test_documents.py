"""What the documents say can be followed: tables that are kept, links that lead somewhere, commands that exist."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from minibert.cli import build_parser
from minibert.errors import ArtifactError

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
documents = importlib.import_module("benchmarks.documents")

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "tests/golden/README.md")]
_FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def commands(page: Path, start: str) -> list[str]:
    """Whole commands of a page that begin so: lines of its fences, and what stands between backticks."""
    text = text_of(page)
    lines = "\n".join(_FENCE.findall(text)).replace("$ ", "").splitlines()
    prose = re.sub(r"\s+", " ", _FENCE.sub("", text))
    found = [line.partition("  #")[0].partition(" && ")[0].strip() for line in lines] + re.findall(r"`([^`]+)`", prose)
    return [command for command in found if command.startswith(start)]


def is_understood(words: list[str]) -> bool:
    try:
        build_parser().parse_args(words)
    except SystemExit as end:
        return end.code == 0  # --help and --version end so
    return True


@pytest.mark.parametrize("page", documents.DOCUMENTS, ids=named(documents.DOCUMENTS))
def test_blocks_are_what_is_kept(page):
    """Who measures anew also runs ``python -m benchmarks.documents``."""
    assert documents.filled(text_of(page)) == (text_of(page), [])


def test_every_block_stands_in_a_document():
    names = [match for page in documents.DOCUMENTS for match in re.findall(r"<!-- (\w+): python", text_of(page))]
    assert sorted(names) == sorted(documents.BLOCKS)


def test_a_block_is_filled_or_left_and_a_wrong_name_is_said(monkeypatch):
    block = "a\n<!-- {}: python -m benchmarks.documents -->\nold\n<!-- end -->\nb\n"
    monkeypatch.setattr(documents, "BLOCKS", {"one": lambda: "new", "other": lambda: None})
    text, missing = documents.filled(block.format("one") + block.format("other"))
    assert text == block.format("one").replace("old", "new") + block.format("other")
    assert missing == ["other"]
    with pytest.raises(ArtifactError, match="but 'none' came"):
        documents.filled(block.format("none"))


@pytest.mark.parametrize(
    ("argument", "code", "first"), [([], 0, "new"), (["--check"], 1, "old")], ids=["write", "check"]
)
def test_all_documents_are_written_or_checked(monkeypatch, tmp_path, argument, code, first):
    block = "<!-- one: python -m benchmarks.documents -->\n{}\n<!-- end -->\n"
    pages = (tmp_path / "first.md", tmp_path / "second.md")
    for page, content in zip(pages, ("old", "new"), strict=True):
        page.write_text(block.format(content))
    monkeypatch.setattr(documents, "BLOCKS", {"one": lambda: "new"})
    monkeypatch.setattr(documents, "DOCUMENTS", pages)
    assert documents.main(argument) == code
    assert [page.read_text() for page in pages] == [block.format(first), block.format("new")]


@pytest.mark.parametrize("page", PAGES, ids=named(PAGES))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", text_of(page)))
    for link in links:
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=named(PAGES))
def test_commands_of_minibert_are_understood(page):
    for command in commands(page, "minibert "):
        words = shlex.split(re.split(r" \|\| | > ", command)[0])[1:]
        if {"...", "PRESET"} & set(words) or " [-" in command:
            continue  # says what there is, and is no command
        is_name = all(re.fullmatch(r"[a-z-]+", word) for word in words)  # the command itself: `minibert verify`
        assert is_understood([*words, "--help"] if is_name else words), command


@pytest.mark.parametrize("page", PAGES, ids=named(PAGES))
def test_modules_that_are_called_exist(page):
    modules = [shlex.split(command)[2] for command in commands(page, "python -m ")]
    for module in modules:
        assert importlib.util.find_spec(module), module
