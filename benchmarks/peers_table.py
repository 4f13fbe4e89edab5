"""The rows of ``python -m benchmarks.peers``: from raw figures to ratios, and to a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.arithmetic import step_flops
from benchmarks.workloads import shape_settings

STEP_NAMES = {"masked_lm": "masked LM", "frozen": "classifier, frozen", "unfrozen": "classifier, unfrozen"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step at one shape beside one peer; what was not run has no figures, and says why.

    Attributes:
        shape: A preset's name.
        step: ``masked_lm``, ``frozen`` or ``unfrozen``.
        peer: ``notebook``, ``keras-hub`` or ``pytorch``.
        ratio: The peer's seconds by ours: the median over pairs.
        ratio_low: The lower quartile.
        ratio_high: The upper quartile.
        ours_seconds: Median seconds of our step.
        peer_seconds: Median seconds of the peer's.
        peak_bytes: Most memory that our process had resident.
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
        others_rate: Share of the cores, 0 to 1, that other processes took during the turns, in the mean; None
            where the system does not say.
        not_run: Why there are no figures, or None.
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
    others_rate: float | None = None
    not_run: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass
class Measured:
    """The raw figures of one row."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    others: list[float | None] = field(default_factory=list)


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
        others_rate=statistics.fmean(others) if others else None,
        **facts,
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def markdown(rows: Sequence[Row]) -> str:
    """The table, and what it was measured on."""
    head = (
        "| shape | step | beside | ratio (quartiles) | ours | peer | our memory | peer's memory "
        "| of the matrix rate |\n|---|---|---|---|---|---|---|---|---|"
    )
    lines = [head, *(line(row) for row in rows)]
    measured = [row for row in rows if row.environment]
    if measured:
        lines += ["", _conditions(measured)]
    return "\n".join(lines)


def line(row: Row) -> str:
    """A row of the table."""
    if row.ratio is None:
        return f"| {row.shape} | {STEP_NAMES[row.step]} | {row.peer} | not run: {row.not_run} | | | | | |"
    assert row.ours_seconds is not None
    assert row.peer_seconds is not None
    assert row.peak_bytes is not None
    assert row.peer_peak_bytes is not None
    cells = (
        row.shape,
        STEP_NAMES[row.step],
        row.peer,
        f"**{row.ratio:.1f}×** ({row.ratio_low:.1f} to {row.ratio_high:.1f})",
        f"{row.ours_seconds * 1e3:.0f} ms",
        f"{row.peer_seconds * 1e3:.0f} ms",
        f"{row.peak_bytes / 1e9:.2f} GB",
        f"{row.peer_peak_bytes / 1e9:.2f} GB",
        f"{row.matrix_rate_fraction:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _conditions(rows: Sequence[Row]) -> str:
    sides = {"minibert": rows[0].environment["ours"], **{row.peer: row.environment["peer"] for row in rows}}
    ours = sides["minibert"]
    versions = {name: version for side in sides.values() for name, version in side["versions"].items()}
    rate = statistics.median(row.matrix_flops_per_second or 0.0 for row in rows)
    counts = sorted({row.pairs for row in rows})
    pairs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"{ours['processor']}, {ours['cores']} cores, default threads, device {ours['device']}"
        f"{''.join(f', {gpu}' for gpu in ours.get('gpu', []))}; "
        f"float32 matrix rate {rate / 1e9:.0f} GFLOP/s; median of {pairs} interleaved pairs; "
        f"{_others(rows)}" + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + "."
    )


def _others(rows: Sequence[Row]) -> str:
    """How quiet the machine was, by its loudest row."""
    shares = [row.others_rate for row in rows if row.others_rate is not None]
    return f"other processes took up to {max(shares):.0%} of the cores; " if shares else ""
