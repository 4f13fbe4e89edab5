"""The study's timings in a small text file, one line for each pair of processes.

    {"kind": "minibert perf error study", "neighbour": "none", "steps": 5, "products": {"0": 0, "5": 71}, ...}
    {"pair": 0, "levels": {"0": "13245,56,4512,-14,1;13198,-20,4509,3,0", "5": "..."}}

A block is the base's step in microseconds, how much longer the head's took, the same of the control, and
the share of the cores that others took in percent (nothing, where it is not known).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minibert.artifacts import write_bytes
from minibert.errors import ArtifactError
from minibert.perf.pair import Block, PairTimes

KIND, FORMAT = "minibert perf error study", 1
NEIGHBOURS = ("none", "busy")
"""What else the machine did while a study measured."""
_MICRO = 1e-6


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
        """Seconds of stepping in one pair; a file from before this was written down has 1.2."""
        return float(self.header.get("pair_seconds", 1.2))

    def times(self, level: str) -> list[PairTimes]:
        """Each pair's blocks of a level, as the gate would have had them."""
        steps = int(self.header["steps"])
        return [_as_times(level, pair[level], steps) for pair in self.pairs if level in pair]


def write_recording(path: Path, recording: Recording) -> None:
    """Writes the whole file."""
    lines = [json.dumps({"kind": KIND, "format": FORMAT, **recording.header}, allow_nan=False)]
    for number, pair in enumerate(recording.pairs):
        levels = {level: ";".join(map(_encoded, blocks)) for level, blocks in pair.items()}
        lines.append(json.dumps({"pair": number, "levels": levels}))
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def read_recording(path: Path) -> Recording:
    """Reads a file that `write_recording` wrote.

    Raises:
        ArtifactError: It is missing, or not one.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
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
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path}: the timings of a study of errors are required, but {error}") from None


def _check_header(header: dict[str, Any]) -> None:
    """Requires what a replay takes from the first line.

    Raises:
        ValueError: A field does not fit; the message names it.
    """
    neighbour, steps, products = (header.get(name) for name in ("neighbour", "steps", "products"))
    if neighbour not in NEIGHBOURS:
        raise ValueError(f"field 'neighbour': {' or '.join(NEIGHBOURS)} is required, but {neighbour!r} came")
    if type(steps) is not int or steps < 1:
        raise ValueError(f"field 'steps': an integer, 1 or more, is required, but {steps!r} came")
    if not isinstance(products, dict) or not products or not all(map(_is_level, products.items())):
        raise ValueError(f"field 'products': a count for each level is required, but {products!r} came")
    if not 0 < Recording(header).pair_seconds < math.inf:
        raise ValueError(f"field 'pair_seconds': a number above 0 is required, but {header['pair_seconds']!r} came")


def _is_level(item: tuple[str, Any]) -> bool:
    """Whether a level is extra work in percent, and what makes it a count of products."""
    level, count = item
    return 0 <= float(level) < math.inf and type(count) is int and count >= 0


def _as_times(level: str, blocks: Sequence[Block], steps: int) -> PairTimes:
    stepped = sum(2 * steps * (block.base_seconds + block.head_seconds) for block in blocks)
    return PairTimes(level, tuple(blocks), steps, stepped)


def _encoded(block: Block) -> str:
    base, control = round(block.base_seconds / _MICRO), round(block.control_base_seconds / _MICRO)
    head = round(block.head_seconds / _MICRO) - base
    other = round(block.control_head_seconds / _MICRO) - control
    others = "" if block.others_rate is None else round(100 * block.others_rate)
    return f"{base},{head},{control},{other},{others}"


def _decoded(text: str) -> Block:
    base, head, control, other, others = text.split(",")
    return Block(
        int(base) * _MICRO,
        (int(base) + int(head)) * _MICRO,
        int(control) * _MICRO,
        (int(control) + int(other)) * _MICRO,
        int(others) / 100 if others else None,
    )
