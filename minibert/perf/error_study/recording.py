"""The study's timings in a small text file, one line for each pair of processes.

    {"kind": "minibert perf error study", "neighbour": "none", "steps": 1, "products": {"0": 0, "5": 71}, ...}
    {"pair": 0, "levels": {"0": "2645,56,-31,12,451,-4,1;2698,-20,15,4,450,3,0", "5": "..."}}

A block is the base's step in its first turn, how much longer the head's next to it took, the same of the base's and the
head's second turn beside the first, the control after the base's turns, and how much longer it took after the head's:
all in units of 10 microseconds; and the share of the cores that others took in percent (nothing, where it is not
known). A file whose name ends in ``.gz`` is compressed.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minibert.artifacts import write_bytes
from minibert.errors import ArtifactError, SettingsError
from minibert.perf.pair import Block, PairTimes

KIND, FORMAT = "minibert perf error study", 2
NEIGHBOURS = ("none", "light", "busy")
"""What else the machine did while a study measured."""
_UNIT = 1e-5
_MOST_BYTES = 64 << 20
"""Of a compressed file, unpacked: a small file can hold a very large one."""


_NO_RECORDING = (
    *(OSError, EOFError, zlib.error),
    *(ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError),
)
"""What reading a file raises that is none, or not a whole one."""


@dataclass
class Recording:
    """What a study measured.

    Attributes:
        header: Neighbour, machine, seconds of a pair, steps in a turn, and products by level.
        pairs: For each pair of processes, its blocks by level, in percent of extra work.
    """

    header: dict[str, Any]
    pairs: list[Mapping[str, Sequence[Block]]] = field(default_factory=list)

    @property
    def levels(self) -> list[str]:
        """The levels, the least extra work first."""
        return sorted(self.header["products"], key=float)

    @property
    def pair_seconds(self) -> float:
        """Seconds of stepping in one pair."""
        return float(self.header["pair_seconds"])

    def times(self, level: str) -> list[PairTimes]:
        """Each pair's blocks of a level, as the gate would have had them."""
        steps = int(self.header["steps"])
        return [_as_times(level, pair[level], steps) for pair in self.pairs if level in pair]


def write_recording(path: Path, recording: Recording) -> None:
    """Writes the whole file, compressed where ``path`` ends in ``.gz``; the same timings give the same bytes."""
    lines = [json.dumps({"kind": KIND, "format": FORMAT, **recording.header}, allow_nan=False)]
    for number, pair in enumerate(recording.pairs):
        levels = {level: ";".join(map(_encoded, blocks)) for level, blocks in pair.items()}
        lines.append(json.dumps({"pair": number, "levels": levels}))
    content = "".join(f"{line}\n" for line in lines).encode()
    write_bytes(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_recording(path: Path) -> Recording:
    """Reads a file that `write_recording` wrote.

    Raises:
        ArtifactError: It is missing, or not one.
    """
    try:
        lines = _content(path).decode().splitlines()
        header = json.loads(lines[0])
        if header.pop("kind") != KIND or header.pop("format") != FORMAT:
            raise ValueError("its first line is of something else")
        _check_header(header)
        pairs = [
            {
                level: [_decoded(block) for block in blocks.split(";")]
                for level, blocks in json.loads(line)["levels"].items()
            }
            for line in lines[1:]
        ]
        return Recording(header, list(pairs))
    except _NO_RECORDING as error:
        raise ArtifactError(f"{path}: the timings of a study of errors are required, but {error}") from None


def pooled(recordings: Sequence[Recording]) -> list[Recording]:
    """One recording for each neighbour, with the pairs of all that have it: more pairs say more.

    Raises:
        SettingsError: Two with one neighbour differ in their levels, the seconds of a pair or the steps of a turn.
    """
    found: dict[str, Recording] = {}
    for recording in recordings:
        first = found.setdefault(recording.header["neighbour"], Recording(recording.header))
        for what in ("levels", "pair_seconds", "steps"):
            one, other = ((r.levels if what == "levels" else r.header[what]) for r in (first, recording))
            if one != other:
                raise SettingsError(f"replay: recordings of the same {what} are required, but {one} and {other} came")
        first.pairs.extend(recording.pairs)
    return list(found.values())


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    with gzip.open(path) as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES >> 20} MiB are in it")
    return content


def _check_header(header: dict[str, Any]) -> None:
    """Requires what a replay takes from the first line.

    Raises:
        ValueError: A field does not fit; the message names it.
    """
    neighbour, steps, products = (header.get(name) for name in ("neighbour", "steps", "products"))
    if neighbour not in NEIGHBOURS:
        raise ValueError(f"field 'neighbour': one of {', '.join(NEIGHBOURS)} is required, but {neighbour!r} came")
    if type(steps) is not int or steps < 1:
        raise ValueError(f"field 'steps': an integer, 1 or more, is required, but {steps!r} came")
    if not isinstance(products, dict) or not products or not all(map(_is_level, products.items())):
        raise ValueError(f"field 'products': a count for each level is required, but {products!r} came")
    seconds = header.get("pair_seconds")
    if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"field 'pair_seconds': a number above 0 is required, but {seconds!r} came")


def _is_level(item: tuple[str, Any]) -> bool:
    """Whether a level is extra work in percent, and what makes it a count of products."""
    level, count = item
    return 0 <= float(level) < math.inf and type(count) is int and count >= 0


def _as_times(level: str, blocks: Sequence[Block], steps: int) -> PairTimes:
    stepped = sum(2 * steps * (block.base_seconds + block.head_seconds) for block in blocks)
    return PairTimes(level, tuple(blocks), steps, stepped)


def _encoded(block: Block) -> str:
    turns = (block.base_turns[0], block.head_turns[0], block.base_turns[1], block.head_turns[1])
    first, *others = (round(seconds / _UNIT) for seconds in turns)
    control, other = round(block.control_base_seconds / _UNIT), round(block.control_head_seconds / _UNIT)
    rate = "" if block.others_rate is None else round(100 * block.others_rate)
    return ",".join(map(str, (first, *(value - first for value in others), control, other - control, rate)))


def _decoded(text: str) -> Block:
    *numbers, rate = text.split(",")
    first, head_first, base_second, head_second, control, other = map(int, numbers)
    return Block(
        (first * _UNIT, (first + base_second) * _UNIT),
        ((first + head_first) * _UNIT, (first + head_second) * _UNIT),
        control * _UNIT,
        (control + other) * _UNIT,
        int(rate) / 100 if rate else None,
    )
