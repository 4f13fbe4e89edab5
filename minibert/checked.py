"""Frozen dataclasses whose fields are checked against their annotations, and values read as them.

The settings are made of these: a value of the wrong type or an unknown name is an error that names the
field, what was required and what came.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from minibert.errors import SettingsError

_LONGEST_SHOWN = 200
"""Characters of a wrong value in a message."""


def require(condition: bool, argument: str, required: str, came: object) -> None:
    """Raises where a condition does not hold: the argument, what it requires, and what came."""
    if not condition:
        raise SettingsError(f"{argument}: {required} is required, but {_shown(came)} came")


def _shown(came: object) -> str:
    """A value for a message of one line, however long it is."""
    try:
        text = repr(came)
    except ValueError:  # Python writes no integer of more than some thousand digits
        return f"{type(came).__name__} too long to show"
    return shortened(text)


def shortened(text: str) -> str:
    """A text for a message: its beginning, if it is long."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def require_rate(argument: str, value: float) -> None:
    """Requires a finite number from 0 to 1."""
    require(math.isfinite(value) and 0.0 <= value <= 1.0, argument, "a rate from 0 to 1", value)


def require_positive(argument: str, value: float) -> None:
    """Requires a finite number above 0."""
    require(math.isfinite(value) and value > 0, argument, "a number above 0", value)


def require_count(argument: str, value: int, *, at_least: int = 0) -> None:
    """Requires a number of things that an array can have."""
    require(at_least <= value < 2**31, argument, f"an integer from {at_least} to 2**31 - 1", value)


class Checked:
    """Checks field types on construction, then the ranges that a subclass names in `_check`.

    Args:
        stage: What errors put before a field's name, as ``--set`` writes it; empty for top-level fields.
    """

    _prefix = ""

    def __init_subclass__(cls, stage: str = "") -> None:
        super().__init_subclass__()
        cls._prefix = f"{stage}." if stage else ""

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            object.__setattr__(self, name, coerce(f"{self._prefix}{name}", hint, getattr(self, name)))
        self._check()

    def _check(self) -> None:
        pass


def canonical_json(value: Any) -> str:
    """JSON of plain values with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested tables by their whole path, such as ``pretrain.epochs``; an empty table has none."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def coerce(path: str, hint: Any, value: Any) -> Any:
    """Checks ``value`` against a field's type; an int is taken for a float, a list for a tuple."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return coerce(path, next(a for a in arguments if a is not type(None)), value)
    if origin is Literal:
        known = any(type(value) is type(a) and value == a for a in arguments)  # True is no 1
        require(known, path, "one of " + ", ".join(map(repr, arguments)), value)
        return value
    if origin is tuple:
        require(isinstance(value, list | tuple), path, "a list", value)
        return tuple(coerce(path, arguments[0], item) for item in value)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return settings_from_dict(typing.cast("type[Checked]", hint), value, path)
        required = f"{getattr(hint, '__name__', hint)} or a table of them"
        require(isinstance(value, typing.cast(type, hint)), path, required, value)
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        require(abs(value) <= sys.float_info.max, path, "a number that a float can hold", value)
        return float(value)
    correct = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    require(correct, path, {int: "an integer", float: "a number", str: "text", bool: "true or false"}[hint], value)
    if hint is str:  # what was no UTF-8 on a command line comes as lone surrogates, which no file can hold
        require(is_unicode(value), path, "Unicode text", value)
    return value


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, and so can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_line(text: str) -> bool:
    """Whether a text is one printable line that says something."""
    return text.isprintable() and bool(text.strip())


def printable(text: str) -> str:
    """A text for a terminal: control characters, line ends among them, as spaces. Texts come from anywhere."""
    return "".join(c if c.isprintable() else " " for c in text)


def nearest(key: str, valid: list[str]) -> str:
    """Words for an error: the valid key that is most like a wrong one, or all of them."""
    close = closest(key, valid)
    return f"the nearest is {close!r}" if close is not None else "there are " + ", ".join(valid)


def closest(key: str, valid: Iterable[str]) -> str | None:
    """The valid key that is most like a wrong one; None if none is like it."""
    return next(iter(difflib.get_close_matches(key, list(valid), n=1, cutoff=0.4)), None)


def settings_from_dict(cls: type[Any], values: Mapping[str, Any], path: str = "settings") -> Any:
    """Makes a settings dataclass from nested plain values.

    Raises:
        SettingsError: A key is unknown (the nearest valid one is named) or a value does not fit.
    """
    valid = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in valid:
            raise SettingsError(f"{path}: {key!r} is not a setting; {nearest(key, valid)}")
    return cls(**values)


def parse(key: str, hint: Any, text: str) -> Any:
    """Reads a value of the command line by the field's type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if text.lower() == "none" else parse(key, arguments[0], text)
    if origin is Literal:
        return next((a for a in arguments if str(a) == text), text)
    if origin is tuple:
        return tuple(parse(key, arguments[0], part) for part in text.split(",") if part.strip())
    if hint is bool:
        require(text.lower() in ("true", "false"), key, "true or false", text)
        return text.lower() == "true"
    if hint in (int, float):
        try:
            return hint(text.replace("_", ""))
        except ValueError:
            require(False, key, "an integer" if hint is int else "a number", text)
    return text
