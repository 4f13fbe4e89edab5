"""What the documents say can be followed: tables that are kept, links that lead somewhere, commands that exist."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from minibert.arguments import build_parser
from minibert.errors import ArtifactError
from minibert.presets import preset
from minibert.settings import replace_setting

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
documents = importlib.import_module("benchmarks.documents")

PAGES = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/GATE.md", "tests/golden/README.md")
]
_FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def commands(page: Path) -> list[str]:
    """A page's commands: the lines of its fences, and what stands between backticks; without variables before them."""
    text = text_of(page)
    lines = "\n".join(_FENCE.findall(text)).replace("$ ", "").splitlines()
    prose = re.sub(r"\s+", " ", _FENCE.sub("", text))
    found = [line.partition("  #")[0] for line in lines] + re.findall(r"`([^`]+)`", prose)
    single = [one.strip() for command in found for one in command.split(" && ")]
    return [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", command) for command in single]


def commands_of(page: Path, start: str) -> list[str]:
    return [command for command in commands(page) if command.startswith(start)]


def is_understood(words: list[str]) -> bool:
    try:
        options = build_parser().parse_args(words)
    except SystemExit as end:
        return end.code == 0  # --help and --version end so
    if words[0] == "run":
        settings = preset(options.preset)
        for assignment in options.set:
            settings = replace_setting(settings, assignment)
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
    for command in commands_of(page, "minibert "):
        words = shlex.split(re.split(r" \|\| | > ", command)[0])[1:]
        if {"...", "PRESET", "COMMAND"} & set(words) or " [-" in command:
            continue  # says what there is, and is no command
        is_name = all(re.fullmatch(r"[a-z-]+", word) for word in words) and words[0] != "run"  # `minibert verify`
        assert is_understood([*words, "--help"] if is_name else words), command


@pytest.mark.parametrize("page", PAGES, ids=named(PAGES))
def test_modules_that_are_called_exist_and_know_their_options(page):
    for command in commands_of(page, "python -m "):
        module, *words = shlex.split(command)[2:]
        found = importlib.util.find_spec(module)
        assert found, module
        assert found.origin, module
        known = "".join(path.read_text(encoding="utf-8") for path in Path(found.origin).parent.glob("*.py"))
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert f'"{option}"' in known, command  # there or in a module beside it, since some share options


@pytest.mark.parametrize("page", PAGES, ids=named(PAGES))
def test_extras_environments_and_tests_that_are_named_exist(page):
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    environments = (ROOT / "tox.ini").read_text(encoding="utf-8")
    for command in commands(page):
        for extra in re.findall(r"[\w,]+", "".join(re.findall(r'install "\.\[([\w,]+)\]"', command))):
            assert all(f"\n{name} = [" in project for name in extra.split(",")), command
        for names in re.findall(r"^tox -e ([\w,]+)", command):
            assert all(name in environments for name in names.split(",")), command
        for path in re.findall(r"^pytest .*?((?:tests|benchmarks)/\w+\.py)", command):
            assert (ROOT / path).is_file(), command


def test_there_is_something_to_follow():
    """Or a mistake in what finds links and commands would leave nothing to test."""
    readme, measured = PAGES[0], PAGES[2]
    assert len(commands_of(readme, "minibert ")) > 30
    assert len(commands_of(measured, "python -m benchmarks.")) > 15
    assert len(re.findall(r"\]\(([^)\s]+)\)", text_of(readme))) > 12
