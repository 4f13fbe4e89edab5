"""The notebook's code and ours from the same ids, masks, order and initial weights: do they come out the same?

    python -m benchmarks.paired_run --data imdb.parquet
    python -m benchmarks.paired_run --data imdb.parquet --reviews 4000 --length 128 --vocabulary 10000 --epochs 5
    python -m benchmarks.paired_run --data imdb.parquet --side ours --side ours-by-word --reviews 25000 \
        --length 256 --vocabulary 30000 --without-dropout 0

Each side trains the masked language model, then, on its encoder as it was before training and after 1, 2 and
all epochs, the classifier: frozen, then unfrozen. First without dropout, where equal codes must agree but
for rounding; then with dropout, whose masks differ, so that they agree within what seeds differ by.

There are two codes and two kinds of Adam (`minibert.training.adam`): for a word that stands in a batch several
times, its second moment adds up the squares of the word's gradients, or it squares their sum. ``notebook`` and
``ours`` do the first, as Keras 3 on TensorFlow and the package's default; the other two sides do the second.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.stored import conditions, conditions_line
from minibert.errors import MinibertError, SettingsError
from minibert.quiet import quiet_tensorflow
from minibert.settings import RunSettings

SIDES = ("notebook", "ours", "ours-by-word", "notebook-by-word")
WITH_DROPOUT = SIDES[:3]
COMPARED = (("notebook", "ours"), ("notebook-by-word", "ours-by-word"), ("notebook", "ours-by-word"))
"""The first two are pairs of the same recipe; the third shows what the kind of Adam does."""
FIRST_STEPS = (1, 10, 100)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run.

    Attributes:
        settings: Of both codes; the dropout rate is that of the runs with dropout.
        data: The reviews, as a table.
        sides: Names of `SIDES`; None: all without dropout, all but the last with it.
        without_dropout: Seeds of runs without dropout.
        seeds: Seeds of runs with dropout.
    """

    settings: RunSettings
    data: Path
    sides: tuple[str, ...] | None = None
    without_dropout: int = 1
    seeds: int = 2

    def runs(self) -> Iterator[tuple[float, int, str]]:
        """Dropout rate, seed and side of every run, in order."""
        kinds = ((0.0, self.without_dropout, SIDES), (self.settings.model.dropout_rate, self.seeds, WITH_DROPOUT))
        for rate, seeds, usual in kinds:
            for seed in range(seeds):
                for side in self.sides or usual:
                    yield rate, seed, side


def paired_settings(
    *, reviews: int, length: int, vocabulary: int, epochs: int, more: Sequence[str] = ()
) -> RunSettings:
    """Notebook 1's recipe at another size: half as many reviews to validate on as to train on.

    Raises:
        SettingsError: A number is too small, or one of ``more`` is not a setting.
    """
    from minibert.presets import resolve_settings

    for name, value, least in (("--reviews", reviews, 4), ("--epochs", epochs, 1)):
        if value < least:
            raise SettingsError(f"{name}: {least} or more is required, but {value} came")
    usual = (
        *(f"corpus.train_examples={reviews}", f"corpus.test_examples={reviews // 2}"),
        *(f"text.sequence_length={length}", f"text.vocabulary_size={vocabulary}", f"pretrain.epochs={epochs}"),
        "finetune.unfrozen_epochs=2",
    )
    return resolve_settings("imdb", assignments=(*usual, *more))


def classified_epochs(epochs: int) -> set[int]:
    """After which epochs of the masked language model the classifier is trained."""
    return {epoch for epoch in (0, 1, 2, epochs) if epoch <= epochs}


def run_all(plan: Plan) -> Iterator[dict[str, Any]]:
    """Runs every side; a row for each, with the losses of every step."""
    quiet_tensorflow()
    from benchmarks.paired_sides import Data
    from minibert.model.backend import forbid_tensor_float_32
    from minibert.preparation import prepare

    forbid_tensor_float_32()

    prepared = prepare(plan.settings, data=plan.data)
    for rate, seed, side in plan.runs():
        model = dataclasses.replace(plan.settings.model, dropout_rate=rate)
        settings = dataclasses.replace(prepared.settings, model=model, seed=seed)
        yield {"side": side, "dropout_rate": rate, "seed": seed, **_run(side, Data(settings, prepared.examples))}


def _run(name: str, data: Any) -> dict[str, Any]:
    from benchmarks.paired_sides import SIDES as MADE

    started, epochs = time.perf_counter(), data.settings.pretrain.epochs
    side = MADE[name](data)
    losses, snapshots = side.pretrain(classified_epochs(epochs))
    seconds = time.perf_counter() - started
    per_epoch = len(losses) // epochs
    classified = {str(epoch): side.classify(snapshot) for epoch, snapshot in sorted(snapshots.items())}
    return {
        "epoch_losses": [statistics.fmean(losses[i : i + per_epoch]) for i in range(0, len(losses), per_epoch)],
        "frozen": {epoch: found.frozen for epoch, found in classified.items()},
        "unfrozen": {epoch: found.unfrozen for epoch, found in classified.items()},
        "losses": losses,
        "classifier_losses": {epoch: found.losses for epoch, found in classified.items()},
        "pretrain_seconds": seconds,
        "seconds": time.perf_counter() - started,
    }


def agreements(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How far two sides are apart without dropout, on the same seed."""
    found = {(row["seed"], row["side"]): row for row in rows if row["dropout_rate"] == 0}
    return [
        {"sides": list(pair), "seed": seed, **_distances(found[seed, pair[0]], found[seed, pair[1]])}
        for seed in sorted({seed for seed, _ in found})
        for pair in COMPARED
        if (seed, pair[0]) in found and (seed, pair[1]) in found
    ]


def _distances(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """The largest relative distance of the losses of the first steps, and the largest of the accuracies."""
    apart = [abs(a - b) / abs(b) for a, b in zip(one["losses"], two["losses"], strict=True)]
    accuracies = [
        abs(a - b)
        for stage in ("frozen", "unfrozen")
        for epoch, of_epoch in one[stage].items()
        for a, b in zip(of_epoch, two[stage][epoch], strict=True)
    ]
    untrained = zip(one["classifier_losses"]["0"], two["classifier_losses"]["0"], strict=True)
    return {
        "loss": {str(steps): max(apart[:steps]) for steps in (*FIRST_STEPS, len(apart)) if steps <= len(apart)},
        "untrained_classifier_loss": max(abs(a - b) / abs(b) for a, b in untrained),
        "accuracy": max(accuracies),
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Two tables: how near the sides are, and what each reaches."""
    return "\n\n".join(part for part in (_agreement_table(agreements(rows)), _figure_table(rows)) if part)


def _agreement_table(found: Sequence[dict[str, Any]]) -> str:
    if not found:
        return ""
    lines = ["| without dropout | seed | largest relative distance of a step's loss | largest of an accuracy |"]
    lines.append("|---|---|---|---|")
    for row in found:
        steps = ", ".join(f"{distance:.1e} in {count} steps" for count, distance in row["loss"].items())
        lines.append(f"| {' and '.join(row['sides'])} | {row['seed']} | {steps} | {row['accuracy']:.4f} |")
    return "\n".join(lines)


def _figure_table(rows: Sequence[dict[str, Any]]) -> str:
    epochs = list(rows[0]["frozen"])
    heads = [f"{stage}, on {epoch} epochs" for stage in ("frozen", "unfrozen") for epoch in epochs]
    lines = [
        f"| dropout | side | seed | masked-LM loss | {' | '.join(heads)} | time |",
        "|---" * (len(heads) + 5) + "|",
    ]
    for row in rows:
        losses = ", ".join(f"{loss:.4f}" for loss in row["epoch_losses"])
        cells = [_span(row[stage][epoch]) for stage in ("frozen", "unfrozen") for epoch in epochs]
        start, seconds = (f"{row['dropout_rate']:g}", row["side"], str(row["seed"]), losses), f"{row['seconds']:.0f} s"
        lines.append(f"| {' | '.join((*start, *cells, seconds))} |")
    return "\n".join(lines)


def _span(accuracies: Sequence[float]) -> str:
    """The lowest and the highest accuracy of the epochs."""
    if not accuracies:
        return "–"
    return f"{min(accuracies):.4f} to {max(accuracies):.4f}" if len(accuracies) > 1 else f"{accuracies[0]:.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _main(options)
    except MinibertError as error:
        print(f"benchmarks.paired_run: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    first_line = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired_run", description=first_line)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="the reviews, as a table")
    parser.add_argument("--reviews", type=int, default=2000, metavar="N", help="to train on (default: 2000)")
    parser.add_argument("--length", type=int, default=128, metavar="L", help="tokens of a review (default: 128)")
    parser.add_argument("--vocabulary", type=int, default=5000, metavar="V", help="token ids (default: 5000)")
    parser.add_argument("--epochs", type=int, default=5, metavar="E", help="of the masked LM (default: 5)")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="runs with dropout (default: 2)")
    parser.add_argument("--without-dropout", type=int, default=1, metavar="N", help="runs without it (default: 1)")
    parser.add_argument("--side", action="append", choices=SIDES, help="only this side; may be repeated")
    parser.add_argument("--set", action="append", default=[], metavar="stage.field=value", help="changes all sides")
    parser.add_argument("--json", action="store_true", help="print everything for a machine, losses step by step")
    return parser


def _main(options: argparse.Namespace) -> int:
    for name, value in (("--seeds", options.seeds), ("--without-dropout", options.without_dropout)):
        if value < 0:
            raise SettingsError(f"{name}: 0 or more is required, but {value} came")
    if not options.seeds + options.without_dropout:
        raise SettingsError("--seeds: 1 or more is required where --without-dropout is 0, but 0 came")
    settings = paired_settings(
        reviews=options.reviews,
        length=options.length,
        vocabulary=options.vocabulary,
        epochs=options.epochs,
        more=options.set,
    )
    sides = tuple(dict.fromkeys(options.side)) if options.side else None
    plan = Plan(settings=settings, data=options.data, sides=sides, without_dropout=options.without_dropout,
                seeds=options.seeds)  # fmt: skip
    rows = []
    for row in run_all(plan):
        rows.append(row)
        print(_figure_table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    under = conditions()
    if options.json:
        print(json.dumps({"conditions": under, "runs": rows, "agreement": agreements(rows)}))
    else:
        print(markdown(rows), "", conditions_line([under]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
