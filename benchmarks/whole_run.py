"""A whole run beside the sum of the notebook's steps.

    python -m benchmarks.peers --peer notebook --shape imdb --keep peers.json
    python -m benchmarks.classify --run runs/imdb-seed0 --data imdb.parquet --json > classify.json
    python -m benchmarks.whole_run --run runs/imdb-seed0 --data imdb.parquet --peers peers.json --classify classify.json

Nobody waits hours for the notebook, and a time of another hour says nothing. So the notebook's time for a
stage is the run's own recorded time for it, times the ratio that was measured interleaved: of the training
steps (`benchmarks.peers`), of evaluating (`benchmarks.classify`), and of the texts, which is measured here on
a part of the run's own corpus: vocabulary, encoding and masks. The notebook encodes the texts three times
(train, test, both) and evaluates as often as the run. What only the run does (checkpoints, the record, the
report, waiting, and after an epoch the check and the digest of its weights, whose time is measured here and taken off
its evaluations) is counted for the run alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers_table import STEP_NAMES
from minibert.errors import ArtifactError, MinibertError, SettingsError
from minibert.record import NAME, read_record, record_settings
from minibert.report.times import seconds_by_kind, total_seconds
from minibert.settings import RunSettings

TRAINED = {"pretrain": "masked_lm", "frozen": "frozen", "unfrozen": "unfrozen"}
"""Stage -> the step of `benchmarks.peers`."""
TEXTS, PAIRS = 4_000, 5


def text_ratio(texts: list[str], settings: RunSettings, pairs: int) -> float:
    """The notebook's time for vocabulary, encoding and masks by ours: the median of interleaved pairs."""
    import pyarrow as pa

    from benchmarks import notebook_masking, notebook_text
    from minibert.masking import mask_tokens
    from minibert.text import encode, learn_vocabulary

    tests = len(texts) // 2

    def ours() -> None:
        strings = pa.array(texts, type=pa.string())
        vocabulary = learn_vocabulary([strings], settings.text)
        ids = encode(strings, vocabulary, settings.text)
        masking = dataclasses.replace(settings.masking, vocabulary_size=len(vocabulary))
        mask_tokens(ids, seed=0, settings=masking)

    def theirs() -> None:
        layer = notebook_text.learned_layer(texts, settings.text)
        for part in (texts[tests:], texts[:tests], texts):
            ids = notebook_text.encode(layer, part)
        notebook_masking.mask_tokens(ids, int(ids.max()))

    ours(), theirs()
    ratios = []
    for pair in range(pairs):
        seconds = {}
        for work in (ours, theirs) if pair % 2 == 0 else (theirs, ours):
            started = time.perf_counter()
            work()
            seconds[work] = time.perf_counter() - started
        ratios.append(seconds[theirs] / seconds[ours])
    return statistics.median(ratios)


def digest_seconds(settings: RunSettings) -> dict[str, float]:
    """Seconds that a run takes after an epoch of each of `TRAINED` to check and digest its weights: the median."""
    from minibert.stages import initial_classifier, initial_masked_lm
    from minibert.training.loop import finite_weights
    from minibert.training.state import digest_figures

    masked_lm = initial_masked_lm(settings)
    classifier = initial_classifier(settings, masked_lm)
    found = {}
    for stage in TRAINED:
        seconds, variables = [], list((masked_lm if stage == "pretrain" else classifier).variables)
        for _ in range(PAIRS):
            started = time.perf_counter()
            digest_figures("weights", finite_weights(stage, variables))
            seconds.append(time.perf_counter() - started)
        found[stage] = statistics.median(seconds)
    return found


def table_of(record: dict[str, Any], ratios: dict[str, float], digests: dict[str, float]) -> list[dict[str, Any]]:
    """The stages: the run's seconds by kind, and the notebook's by the ratios.

    Args:
        record: Of the run.
        ratios: ``text``, ``evaluate``, and each of `TRAINED`'s steps.
        digests: From `digest_seconds`.
    """
    rows = []
    for stage in record["stages"]:
        ours = seconds_by_kind(record, stage)
        alone = digests.get(stage, 0.0) * len(record["stages"][stage].get("epochs", ()))
        notebook = max(ours["validation"] - alone, 0.0) * ratios["evaluate"]
        if stage == "encode":
            notebook += ours["preparing"] * ratios["text"]
        elif stage in TRAINED:
            notebook += ours["training"] * ratios[TRAINED[stage]]
        rows.append({"stage": stage, "steps": record["stages"][stage].get("steps"), **ours,
                     "seconds": sum(ours.values()), "notebook_seconds": notebook})  # fmt: skip
    return rows


def markdown(rows: Sequence[dict[str, Any]], ratios: dict[str, float]) -> str:
    """A row for each stage, and the whole."""
    lines = [
        "| stage | steps | the run | of it training | validating | waiting for batches | the notebook | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = {stage: STEP_NAMES[step] for stage, step in TRAINED.items()}
    lines += [_line(names.get(row["stage"], row["stage"].replace("_", " ")), row) for row in rows]
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name not in ("stage", "steps")}
    lines.append(_line("**whole run**", {**total, "steps": None}))
    said = ", ".join(f"{name.replace('_', ' ')} {ratio:.2f}" for name, ratio in ratios.items())
    return "\n".join([*lines, "", f"Interleaved ratios, the notebook's time by ours: {said}."])


def _line(name: str, row: dict[str, Any]) -> str:
    times = [row[kind] for kind in ("seconds", "training", "validation", "waiting", "notebook_seconds")]
    cells = (f"{row['steps']:,}" if row["steps"] else "", *map(_duration, times))
    return f"| {name} | {' | '.join(cells)} | **{row['notebook_seconds'] / row['seconds']:.1f}×** |"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.1f} s" if seconds < 120 else f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else (
        f"{minutes} min")  # fmt: skip


def _texts_of(settings: RunSettings, data: str | None, count: int) -> list[str]:
    from minibert.corpora.opening import open_corpus

    corpus = open_corpus(settings.corpus, seed=settings.seed, data=Path(data) if data else None)
    texts: list[str] = []
    for batch in corpus.batches("train"):
        texts += batch.texts.to_pylist()
        if len(texts) >= count:
            break
    return texts[:count]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: JSON of a benchmark is required, but it cannot be read: {error}") from None


def step_ratios(path: Path, shape: str) -> dict[str, float]:
    """The ratios of a shape's training steps beside the notebook's, from rows of `benchmarks.peers`."""
    content = _read_json(path)
    every = content["rows"] if isinstance(content, dict) else content  # kept, or printed by --json
    rows = [row for row in every if row["shape"] == shape and row["peer"] == "notebook"]
    found = {row["step"]: float(row["ratio"]) for row in rows if row["ratio"] is not None}
    missing = [step for step in TRAINED.values() if step not in found]
    if missing:
        raise SettingsError(f"{path}: the notebook's steps at shape {shape} are required, but {missing} are missing")
    return found


def evaluation_ratio(path: Path) -> float:
    """The notebook's time by ours for each further review, from the figures of `benchmarks.classify`."""
    ratio = _read_json(path)["ratio"]
    if ratio is None:
        raise SettingsError(
            f"{path}: a ratio of each further review is required, but there were too few reviews for it"
        )
    return float(ratio)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a finished run")
    parser.add_argument("--peers", type=Path, required=True, metavar="FILE.json", help="of benchmarks.peers")
    parser.add_argument("--classify", type=Path, required=True, metavar="FILE.json", help="of benchmarks.classify")
    parser.add_argument("--data", metavar="PATH", help="the run's data, if it was given any")
    parser.add_argument("--texts", type=int, default=TEXTS, metavar="N", help=f"default: {TEXTS}")
    parser.add_argument("--json", action="store_true", help="print the rows instead of the table")
    options = parser.parse_args(arguments)
    try:
        record = read_record(options.run)
        settings = record_settings(record, options.run / NAME)
        ratios = step_ratios(options.peers, settings.preset)
        ratios["evaluate"] = evaluation_ratio(options.classify)
        from minibert.quiet import quiet_tensorflow

        quiet_tensorflow()
        ratios["text"] = text_ratio(_texts_of(settings, options.data, options.texts), settings, PAIRS)
        rows = table_of(record, ratios, digest_seconds(settings))
    except MinibertError as error:
        print(f"benchmarks.whole_run: {error}", file=sys.stderr)
        return error.exit_code
    assert np.isclose(total_seconds(record), sum(row["seconds"] for row in rows))
    print(json.dumps({"rows": rows, "ratios": ratios}, indent=2) if options.json else markdown(rows, ratios))
    return 0


if __name__ == "__main__":
    sys.exit(main())
