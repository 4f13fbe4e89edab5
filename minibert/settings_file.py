"""Settings as a TOML file that says what each of them means, for ``minibert run --settings``.

    settings_toml(preset("imdb"))
        # Which tokens are selected for prediction, and what stands in their place.
        [masking]

        # Probability that a token is selected for prediction.
        selection_rate = 0.15

What a field means stands in the settings' own source, below the field: Python does not keep these docstrings, so they
are read from there.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, Literal

from minibert.settings import RunSettings

_WIDTH = 100
_MARKUP = re.compile(r"``?([^`]+)``?")
_PYTHON = re.compile(r"\b(True|False|None)\b")


def settings_toml(settings: RunSettings) -> str:
    """All settings, each with its meaning and, where there are few, its possible values.

    Args:
        settings: Those of a preset, or of one that was changed.

    Returns:
        A TOML file: read with ``--settings`` on the same preset, it gives the same settings. A field that is None is a
        comment, since TOML has no None.
    """
    lines = [
        f"# The settings of {settings.preset}, with what each means. Change what you like, and:",
        "#",
        f"#     minibert run {settings.preset} --settings FILE.toml --out DIR",
        "#",
        '# Text stands in quotes, a list is written [0, 1] or ["bad", "good"], and a setting whose line is a',
        "# comment is none.",
        "",
    ]
    lines += _fields(settings)
    for field in dataclasses.fields(settings):
        stage = getattr(settings, field.name)
        if dataclasses.is_dataclass(stage):
            lines += [*_comment(_first_paragraph(type(stage))), f"[{field.name}]", "", *_fields(stage)]
    return "\n".join(lines).rstrip() + "\n"


def field_meanings(cls: type[Any]) -> dict[str, str]:
    """The docstrings below a class' fields: name -> one line of plain text.

    Args:
        cls: A class whose source is there.
    """
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = _plain(ast.literal_eval(below.value))
    return found


def _fields(values: Any) -> Iterator[str]:
    """The lines of a dataclass' own fields, an empty one behind each; not of those that are tables."""
    meanings, hints = field_meanings(type(values)), typing.get_type_hints(type(values))
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if not dataclasses.is_dataclass(value):
            yield from _comment(" ".join([meanings[field.name], *_choices(hints[field.name])]))
            yield f"# {field.name} =" if value is None else f"{field.name} = {_toml(value)}"
            yield ""


def _choices(hint: Any) -> Iterator[str]:
    """What a field can be, if that is one of few values."""
    if typing.get_origin(hint) is Literal:
        yield f"(One of {', '.join(_toml(value) for value in typing.get_args(hint))}.)"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def _first_paragraph(cls: type[Any]) -> str:
    return _plain((inspect.getdoc(cls) or "").partition("\n\n")[0])


def _plain(text: str) -> str:
    """One line without markup, with TOML's words where Python's stand."""
    return _PYTHON.sub(lambda word: word[0].lower(), " ".join(_MARKUP.sub(r"\1", text).split()))


def _toml(value: Any) -> str:
    """A value as TOML writes it: JSON's text and true and false are TOML's, too."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
