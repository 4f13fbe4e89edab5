"""What every benchmark shares: TensorFlow's settings, and a table of throughput after pytest-benchmark's own."""

from __future__ import annotations

import os
from typing import Any

# Before anything imports TensorFlow or Keras.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

_COLUMNS = "{:<44}{:>14}{:>12}{:>14}{:>12}"


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Prints tokens a second, the ratio to the notebook's version, the first call and the peak memory."""
    session = getattr(config, "_benchmarksession", None)
    timed = [b for b in getattr(session, "benchmarks", ()) if b and "tokens_per_second" in b.extra_info]
    if not timed:
        return
    terminalreporter.section("throughput; how many times faster than the notebook's own, interleaved")
    terminalreporter.line(_COLUMNS.format("", "tokens/s", "ratio", "first call", "peak"))
    for bench in sorted(timed, key=lambda b: (b.group or "", b.name)):
        info = bench.extra_info
        figures = (
            f"{info['tokens_per_second']:,}",
            f"{info['ratio']:.2f}",
            f"{info['first_call_seconds']:.2f} s",
            f"{info['peak_bytes'] / 1e9:.2f} GB",
        )
        terminalreporter.line(_COLUMNS.format(bench.name.removeprefix("test_"), *figures))
