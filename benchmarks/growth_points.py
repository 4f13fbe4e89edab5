"""One point of ``python -m benchmarks.growth``, measured in a process of its own.

    python -m benchmarks.growth_points sequence_length 512 --seconds 4    prints one JSON object

A step's point is the package's own masked-LM step at notebook 1's shape with one size changed. A corpus'
point is everything that a run does with the texts before it trains: reading and checking the embedded
generator's rows, vocabulary, encoding, and an epoch's order and masks. Memory is the process' peak, beside
what it had before there was any data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from benchmarks.devices import as_a_run
from benchmarks.meter import Meter, peak_bytes
from benchmarks.workloads import PREPARED_BATCHES, shape_settings
from minibert.allocator import keep_freed_memory
from minibert.settings import RunSettings

STEP_AXES = ("vocabulary_size", "sequence_length", "batch_size", "blocks")
CORPUS_AXIS = "corpus_rows"
LEAST_STEPS = 4
PARTS = ("read", "vocabulary", "encode", "masks")


def settings_at(axis: str, value: int, base: str = "imdb") -> RunSettings:
    """A notebook's shape with one size changed."""
    settings = shape_settings(base)
    stage = {"sequence_length": "text", "batch_size": "pretrain", "blocks": "model"}.get(axis)
    if axis == "vocabulary_size":
        masking = dataclasses.replace(settings.masking, vocabulary_size=value)
        text = dataclasses.replace(settings.text, vocabulary_size=value)
        return dataclasses.replace(settings, masking=masking, text=text)
    assert stage is not None, axis
    return dataclasses.replace(settings, **{stage: dataclasses.replace(getattr(settings, stage), **{axis: value})})


def measure_step(axis: str, value: int, base: str, seconds: float) -> dict[str, Any]:
    """Median seconds of a step, its arithmetic, and the process' memory."""
    as_a_run()
    from benchmarks.flops import step_flops
    from benchmarks.workloads import OurStep, selected_rows

    OurStep(shape_settings("tiny"), "masked_lm")(0)  # runtime, tracing and compiling, which every point has
    baseline, settings = peak_bytes(), settings_at(axis, value, base)
    step = OurStep(settings, "masked_lm")
    losses = [step(number) for number in range(2 * PREPARED_BATCHES)]
    assert np.isfinite(losses).all(), losses
    times: list[float] = []
    meter = Meter()
    while len(times) < LEAST_STEPS or sum(times) < seconds:
        started = time.perf_counter()
        step(len(times))
        times.append(time.perf_counter() - started)
    rows = selected_rows(step.batches)
    low, high = np.quantile(times, [0.25, 0.75]).tolist()
    return {
        "seconds": statistics.median(times),
        "seconds_low": low,
        "seconds_high": high,
        "cpu_seconds": meter.cpu_seconds() / len(times),
        "others_rate": meter.others_rate(),
        "steps": len(times),
        "work": step_flops(settings, "masked_lm", rows=rows),
        "parameters": step.model.count_params(),
        "peak_bytes": peak_bytes(),
        "baseline_bytes": baseline,
    }


def measure_corpus(rows: int) -> dict[str, Any]:
    """Seconds of each part of a run before its training, and the process' memory beside the encoded ids."""
    import pyarrow as pa

    from minibert.batches import MaskedLMBatches
    from minibert.corpora.corpus import BATCH_ROWS, SPLITS
    from minibert.corpora.embedded import embedded_corpus
    from minibert.examples import encode_corpus
    from minibert.presets import preset
    from minibert.text import learn_vocabulary

    settings = preset("tiny")
    test = max(rows // 5, 1)
    encode_corpus(embedded_corpus(BATCH_ROWS, BATCH_ROWS), settings)  # what is loaded once, and a batch's buffers
    baseline, times, meter = peak_bytes(), [time.perf_counter()], Meter()
    corpus = embedded_corpus(rows - test, test)
    times.append(time.perf_counter())
    texts = (batch.texts for split in SPLITS for batch in corpus.batches(split))
    vocabulary = learn_vocabulary(texts, settings.text)
    times.append(time.perf_counter())
    examples = encode_corpus(corpus, settings, vocabulary=vocabulary)
    statistics_of_corpus = examples.statistics()
    times.append(time.perf_counter())
    masking = dataclasses.replace(settings.masking, vocabulary_size=len(vocabulary))
    batches = MaskedLMBatches(examples.token_ids, seed=0, masking=masking, batch_size=settings.pretrain.batch_size)
    selected = sum(float(batches.batch(step)["sample_weight"].sum()) for step in range(batches.steps_per_epoch))
    times.append(time.perf_counter())
    assert 0.1 < selected / statistics_of_corpus["tokens"] < 0.15, selected
    return {
        "seconds": times[-1] - times[0],
        **{f"{part}_seconds": later - earlier for part, earlier, later in zip(PARTS, times, times[1:], strict=False)},
        "cpu_seconds": meter.cpu_seconds(),
        "others_rate": meter.others_rate(),
        "work": rows,
        "tokens": statistics_of_corpus["tokens"],
        "vocabulary_size": len(vocabulary),
        "ids_bytes": examples.token_ids.nbytes,
        "arrow_bytes": pa.total_allocated_bytes(),
        "peak_bytes": peak_bytes(),
        "baseline_bytes": baseline,
    }


def main() -> int:
    """Prints the point as JSON on the last line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth_points")
    parser.add_argument("axis", choices=(*STEP_AXES, CORPUS_AXIS))
    parser.add_argument("value", type=int)
    parser.add_argument("--base", default="imdb")
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    keep_freed_memory()  # as a run does from its beginning
    if options.axis == CORPUS_AXIS:
        found = measure_corpus(options.value)
    else:
        found = measure_step(options.axis, options.value, options.base, options.seconds)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
