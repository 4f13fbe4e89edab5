"""An object's fields from a JSON file, each checked when it is taken; an error names the file and the field's path."""

from __future__ import annotations

import math
import reprlib
from datetime import datetime, timezone
from typing import Any

from minibert.errors import ArtifactError
from minibert.perf.counters import NUMBERS

LONGEST_NAME = 300
SHORT = reprlib.Repr()
"""Shows what came, which may be anything, in a line."""
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 160
SHORT.maxdict = SHORT.maxlist = 2


class Fields:
    """An object whose fields are taken one by one.

    Args:
        values: What the file holds there; an object is required.
        where: The file, for messages.
        path: The object's own path in the file; empty for the whole file.
        hint: What is said where a field is missing.
    """

    def __init__(self, values: Any, where: str, path: str = "", hint: str = "") -> None:
        self.where, self.path, self.hint = where, path, hint
        if not isinstance(values, dict):
            raise ArtifactError(f"{where}field {path!r}: an object is required, but {type(values).__name__} came")
        self.values: dict[str, Any] = values

    def error(self, name: str, required: str, came: object) -> ArtifactError:
        """The error for a field that does not fit."""
        came = SHORT.repr(came)
        return ArtifactError(f"{self.where}field {self.full(name)!r}: {required} is required, but {came} came")

    def full(self, name: str) -> str:
        """A field's path in the file."""
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str, kind: type) -> Any:
        """A field that has to be there, of this type."""
        if name not in self.values:
            hint = f"; {self.hint}" if self.hint else ""
            raise ArtifactError(f"{self.where}field {self.full(name)!r} is required, but it is missing{hint}")
        value = self.values[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(name, _KINDS[kind], value)
        return value

    def optional(self, name: str, kind: type, default: Any) -> Any:
        """A field that may be missing or null."""
        return default if self.values.get(name) is None else self.take(name, kind)

    def fields(self, name: str) -> Fields:
        """An object within this one."""
        return Fields(self.take(name, dict), self.where, self.full(name), self.hint)

    def name(self, name: str, default: str | None = None) -> str:
        """A text that can stand in a line: printable, not empty, at most `LONGEST_NAME` characters."""
        text = self.take(name, str) if default is None else self.optional(name, str, default)
        if not text.strip() or len(text) > LONGEST_NAME or not text.isprintable():
            raise self.error(name, f"a printable name of at most {LONGEST_NAME} characters", text)
        return str(text)

    def count(self, name: str, *, least: int = 0) -> int | None:
        """A number of things, or null."""
        value = self.optional(name, int, None)
        if value is not None and value < least:
            raise self.error(name, f"{least} or more", value)
        return value

    def seconds(self, name: str) -> float:
        """A time: finite and above 0."""
        if name not in self.values:
            self.take(name, float)
        return self._positive(name, self.values[name])

    def seconds_list(self, name: str) -> list[float] | None:
        """Times, or null."""
        values = self.optional(name, list, None)
        return None if values is None else [self._positive(f"{name}[{i}]", value) for i, value in enumerate(values)]

    def optional_seconds(self, name: str) -> float | None:
        """A time that may be missing, or too short for its digits."""
        return None if self.values.get(name) in (None, 0) else self.seconds(name)

    def time(self, name: str) -> str:
        """A moment as ISO 8601 in UTC, whole seconds; one without a zone is taken for UTC, as old versions wrote it."""
        text = self.take(name, str)
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
            moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
            return moment.astimezone(timezone.utc).isoformat(timespec="seconds")
        except (ValueError, OverflowError):
            raise self.error(name, "an ISO 8601 time", text) from None

    def counters(self, name: str) -> dict[str, Any] | None:
        """Exact counters, or null: what is compared later are numbers, and those of operators and devices by name.

        A counter that is missing is none: minibert has had others before, and will.
        """
        found = self.optional(name, dict, None)
        if found is None:
            return None
        counters = self.fields(name)
        for counter in NUMBERS:
            counters.count(counter)
        for group in ("operators", "device_peaks"):
            named = Fields(counters.optional(group, dict, {}), self.where, counters.full(group))
            for key in named.values:
                if named.count(key) is None:
                    raise named.error(key, "an integer", None)
        return dict(found)

    def require_plain(self, name: str, value: Any) -> None:
        """Requires what other programs can read: Python takes NaN, Infinity and half a character from JSON."""
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(name, "a finite number", value)
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self.error(name, "a text of whole characters", value) from None
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, part in inner:
            self.require_plain(name, key)
            self.require_plain(f"{name}.{key}", part)

    def _positive(self, name: str, value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        try:
            seconds = float(value) if is_number else math.nan
        except OverflowError:
            seconds = math.inf
        if not 0 < seconds < math.inf:
            raise self.error(name, "a finite number above 0", value)
        return seconds


_KINDS: dict[type, str] = {
    bool: "true or false", dict: "an object", float: "a number", int: "an integer", list: "a list", str: "text",
}  # fmt: skip
