"""Texts and nested values that settings, commands and pages share."""

from __future__ import annotations

import pytest

from minibert.checked import flat, is_line, printable


@pytest.mark.parametrize(
    ("nested", "expected"),
    [
        ({}, {}),
        ({"seed": 1, "model": {"heads": 2}}, {"seed": 1, "model.heads": 2}),
        ({"a": {"v": 1, "c": {"v": 2}}, "b": {"v": 3}}, {"a.v": 1, "a.c.v": 2, "b.v": 3}),
        ({"a": {}, "b": [{"v": 1}]}, {"b": [{"v": 1}]}),
    ],
)
def test_values_are_named_by_their_whole_path(nested: dict[str, object], expected: dict[str, object]) -> None:
    assert flat(nested) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("why", True), (" é ", True), ("", False), (" ", False), ("a\n", False), ("a\tb", False), ("\udcff", False)],
)
def test_a_line_is_printable_and_says_something(text: str, expected: bool) -> None:
    assert is_line(text) == expected


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert printable("é\x1b[2J\n\u2028b") == "é [2J  b"
