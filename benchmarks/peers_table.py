"""The rows of ``python -m benchmarks.peers``: from raw figures to ratios, and to a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from benchmarks.arithmetic import step_flops
from benchmarks.stored import Results, conditions_line
from benchmarks.workloads import shape_settings

STEP_NAMES = {"masked_lm": "masked LM", "frozen": "classifier, frozen", "unfrozen": "classifier, unfrozen"}
PEER_NAMES = {
    "notebook": "notebook",
    "keras-hub": "keras-hub",
    "pytorch": "PyTorch, gathered",
    "pytorch-full": "PyTorch, all logits",
}
KEYS = ("shape", "step", "peer")
"""What says which row of `benchmarks.stored.Results` is meant."""

GOALS: Mapping[tuple[str, str], Mapping[str, tuple[float, float]]] = {
    ("masked_lm", "notebook"): {"imdb": (12.0, 10.0), "amazon": (20.0, 16.0)},
    ("masked_lm", "keras-hub"): {"imdb": (3.0, 2.3), "amazon": (4.0, 3.0)},
    ("masked_lm", "pytorch"): {"imdb": (4.0, 3.0), "amazon": (4.0, 2.5)},
    ("frozen", "notebook"): {"imdb": (1.5, 1.2), "amazon": (1.5, 1.2)},
    ("unfrozen", "notebook"): {"imdb": (1.5, 1.2), "amazon": (1.5, 1.2)},
}
"""What was aimed at before anything was measured, and what was to be reached at least, as ratios: by step and peer."""
MOST_BYTES: Mapping[str, float] = {"imdb": 1.2e9, "amazon": 1.0e9}
"""Likewise of the memory of a process that trains."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step at one shape beside one peer; what was not run, or failed, has no figures, and says why.

    Attributes:
        shape: A preset's name.
        step: ``masked_lm``, ``frozen`` or ``unfrozen``.
        peer: One of `PEER_NAMES`; from `benchmarks.precision` another side.
        ratio: The peer's seconds by ours: the median over pairs.
        ratio_low: The lower quartile.
        ratio_high: The upper quartile.
        ours_seconds: Median seconds of our step.
        peer_seconds: Median seconds of the peer's.
        peak_bytes: Most memory that our process had resident, that of several which had most; None where it had run
            another step before, too.
        peer_peak_bytes: Likewise the peer's.
        matrix_rate_fraction: Arithmetic of the step's matrix products by the machine's float32 matrix rate,
            measured between the pairs, by our seconds: 1 would be nothing but products at full rate.
        flops: That arithmetic.
        matrix_flops_per_second: That rate.
        tokens: Tokens of a batch.
        masked_tokens: Selected positions of a batch, in the mean.
        ours_first_loss: Mean loss of a selected token in the first step.
        peer_first_loss: Likewise the peer's, from weights of its own.
        ours_first_call_seconds: Tracing, compiling and the first step.
        peer_first_call_seconds: Likewise the peer's.
        pairs: Number of pairs.
        processes: Fresh pairs of processes that these are of.
        others_rate: Share of the cores, 0 to 1, that other processes took during the turns, in the mean; None
            where the system does not say.
        not_run: What was missing, or None.
        failed: What a side did wrong, or None: then no figure counts, and the command fails.
        environment: Device, threads and versions of both sides.
    """

    shape: str
    step: str
    peer: str
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    ours_seconds: float | None = None
    peer_seconds: float | None = None
    peak_bytes: int | None = None
    peer_peak_bytes: int | None = None
    matrix_rate_fraction: float | None = None
    flops: float | None = None
    matrix_flops_per_second: float | None = None
    tokens: int | None = None
    masked_tokens: float | None = None
    ours_first_loss: float | None = None
    peer_first_loss: float | None = None
    ours_first_call_seconds: float | None = None
    peer_first_call_seconds: float | None = None
    pairs: int = 0
    processes: int = 1
    others_rate: float | None = None
    not_run: str | None = None
    failed: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass
class Measured:
    """The raw figures of one row, of one pair of processes or of several."""

    processes: int = 0
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    others: list[float | None] = field(default_factory=list)
    peaks: list[int | None] = field(default_factory=list)
    peer_peaks: list[int | None] = field(default_factory=list)


def make_row(measured: Measured, facts: dict[str, Any]) -> Row:
    """A row from raw figures and the facts about its sides."""
    settings = shape_settings(facts["shape"])
    ratios = [theirs / ours for ours, theirs in zip(measured.ours, measured.theirs, strict=True)]
    low, middle, high = quartiles(ratios)
    seconds, rate = statistics.median(measured.ours), statistics.median(measured.rates)
    others = [share for share in measured.others if share is not None]
    flops = step_flops(settings, facts["step"], rows=facts["masked_tokens"])
    return Row(
        ratio=middle,
        ratio_low=low,
        ratio_high=high,
        ours_seconds=seconds,
        peer_seconds=statistics.median(measured.theirs),
        matrix_rate_fraction=flops / rate / seconds,
        flops=flops,
        matrix_flops_per_second=rate,
        tokens=settings.pretrain.batch_size * settings.text.sequence_length,
        pairs=len(ratios),
        processes=measured.processes,
        others_rate=statistics.fmean(others) if others else None,
        **facts,
    )


def row_of(kept: Mapping[str, Any]) -> Row:
    """A row from its values, whatever else stands beside them."""
    names = {of_row.name for of_row in fields(Row)}
    return Row(**{name: value for name, value in kept.items() if name in names})


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    head = (
        "| shape | step | beside | ratio (quartiles) | ours | peer | our memory | peer's memory "
        "| of the matrix rate |\n|---|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *map(line, rows)])


def summary(rows: Sequence[Row]) -> str:
    """The ratios alone, a column for each shape: for who wants to know whether it is worth it."""
    shapes = list(dict.fromkeys(row.shape for row in rows))
    lines = [f"| step | beside | {' | '.join(shapes)} |", "|---|---" + "|---" * len(shapes) + "|"]
    by_key = {(row.step, row.peer, row.shape): row for row in rows}
    for step, step_name in STEP_NAMES.items():
        for peer, peer_name in PEER_NAMES.items():
            found = [by_key.get((step, peer, shape)) for shape in shapes]
            if any(found):
                cells = [_ratio(row) if row else "-" for row in found]
                lines.append(f"| {' | '.join((step_name, peer_name, *cells))} |")
    return "\n".join(lines)


def goals(measured: Mapping[str, Sequence[Row]]) -> str:
    """What was aimed at, and what came of it: a column for each machine's rows; in bold where the least is reached."""
    columns = list(measured)
    lines = [f"| shape | step | beside | goal | at least | {' | '.join(columns)} |", "|---" * (5 + len(columns)) + "|"]
    by_key = {(name, row.shape, row.step, row.peer): row for name, rows in measured.items() for row in rows}
    for shape, most in MOST_BYTES.items():
        for (step, peer), wanted in GOALS.items():
            goal, least = wanted[shape]
            found = [by_key.get((name, shape, step, peer)) for name in columns]
            cells = [_held(row.ratio if row else None, "{:.1f}×", least) for row in found]
            named = (shape, STEP_NAMES[step], PEER_NAMES[peer], f"{goal:g}×", f"{least:g}×")
            lines.append(f"| {' | '.join((*named, *cells))} |")
        sizes = [
            max((row.peak_bytes or 0 for row in rows if row.shape == shape), default=0) for rows in measured.values()
        ]
        cells = [_held(-size if size else None, "{:.2f} GB", -most, shown=size / 1e9) for size in sizes]
        lines.append(
            f"| {' | '.join((shape, 'most memory of any', 'itself', '', f'at most {most / 1e9:g} GB', *cells))} |"
        )
    return "\n".join(lines)


def line(row: Row) -> str:
    """A row of the table."""
    named = (row.shape, STEP_NAMES[row.step], PEER_NAMES.get(row.peer, row.peer))
    if row.ratio is None:
        return f"| {' | '.join((*named, outcome(row)))} | | | | | |"
    assert row.ours_seconds is not None
    assert row.peer_seconds is not None
    cells = (
        *named,
        _ratio(row),
        f"{row.ours_seconds * 1e3:.0f} ms",
        f"{row.peer_seconds * 1e3:.0f} ms",
        _gigabytes(row.peak_bytes),
        _gigabytes(row.peer_peak_bytes),
        f"{row.matrix_rate_fraction:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def outcome(row: Row) -> str:
    """The ratio, or why there is none."""
    if row.ratio is None:
        return (f"failed: {row.failed}" if row.failed else f"not run: {row.not_run}").replace("|", "/")
    return f"{row.ratio:.1f}×"


def _ratio(row: Row) -> str:
    """The ratio with its quartiles, or why there is none."""
    if row.ratio is None:
        return outcome(row)
    return f"**{row.ratio:.1f}×** ({row.ratio_low:.1f} to {row.ratio_high:.1f})"


def _held(value: float | None, form: str, least: float, *, shown: float | None = None) -> str:
    """A figure, in bold where it is no less than it has to be."""
    if value is None:
        return "-"
    text = form.format(value if shown is None else shown)
    return f"**{text}**" if value >= least else text


def _gigabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e9:.2f} GB"


def facts_line(rows: Sequence[Row]) -> str:
    """How the rows were measured, as a sentence for under the table; empty where none was."""
    measured = [row for row in rows if row.ratio is not None]
    if not measured:
        return ""
    sides = [side for row in measured for side in row.environment.values()]
    devices = dict.fromkeys(_device(row.environment["ours"]) for row in measured)
    rates = sorted({f"{(row.matrix_flops_per_second or 0.0) / 1e9:.0f}" for row in measured}, key=int)
    rate = rates[0] if len(rates) == 1 else f"{rates[0]} to {rates[-1]}"
    counts = sorted({row.pairs for row in measured})
    pairs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    processes = max(row.processes for row in measured)
    pairs += f" interleaved pairs{f' of {processes} pairs of processes' if processes > 1 else ''}"
    shares = [row.others_rate for row in measured if row.others_rate is not None]
    others = f"; other processes took up to {max(shares):.0%} of the cores" if shares else ""
    return (
        f"Device {'; '.join(devices)}, {_threads(sides)}; float32 matrix rate {rate} GFLOP/s, measured with each row; "
        f"ratio: median of {pairs}, times: of each side's{others}."
    )


def kept_text(results: Results) -> str:
    """The table of what is kept, how it was measured and under which conditions; empty where nothing is kept."""
    rows = [row_of(kept) for kept in results.rows]
    notes = f"{facts_line(rows)} {conditions_line(results.conditions_of(results.rows))}"
    return f"{markdown(rows)}\n\n{notes.strip()}" if rows else ""


def kept_summary(results: Results) -> str:
    """The ratios of what is kept, and under which conditions; empty where nothing is kept."""
    rows = [row_of(kept) for kept in results.rows]
    return f"{summary(rows)}\n\n{conditions_line(results.conditions_of(results.rows))}" if rows else ""


def _device(side: Mapping[str, Any]) -> str:
    """The device, and which GPU: its clocks change by the second."""
    return "".join([side["device"], *(f", {gpu.partition(',')[0]}" for gpu in side.get("gpu", []))])


def _threads(sides: Sequence[Mapping[str, Any]]) -> str:
    """Whether every framework was left its own number of threads: 0 is TensorFlow's, all cores PyTorch's."""
    chosen = {
        f"{name.replace('_', '-')} {count}"
        for side in sides
        for name, count in (side["threads"] or {}).items()
        if count not in (0, side["cores"])
    }
    return f"threads: {', '.join(sorted(chosen))}" if chosen else "default threads"
