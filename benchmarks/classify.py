"""How fast is a finished run's ``classify``, the first answer included, beside the notebook's ``evaluate``?

    python -m benchmarks.classify --run runs/imdb-seed0 --data imdb.parquet
    python -m benchmarks.classify --run runs/tiny-seed0                      on the embedded corpus

Each side is a fresh Python process. The first answer is the class of one review, from the start of the
process on: imports, loading the model, tracing; the median of three starts, in turns. Then both classify
the same reviews, in turns, and a single one, so that what a call takes once stands apart from what each
review takes. Ours is a `minibert.FinishedRun`; the notebook's is a Keras model with its text layer inside,
with the run's vocabulary and weights, that evaluates raw texts in batches of 32. Both are loaded once, and
must give the same accuracy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checks import WrongLossError
from benchmarks.meter import peak_bytes
from benchmarks.peers_table import quartiles
from benchmarks.stored import conditions, conditions_line
from benchmarks.workers import Child, run_apart
from minibert.errors import MinibertError, SettingsError

SIDES = ("minibert", "notebook")
REVIEWS, PAIRS, STARTS, BATCH_SIZE = 2_000, 7, 3, 32
LEAST_REVIEWS = 2
"""What a call takes once and what a review takes are told apart by the difference of one and some."""
_MODEL, _REVIEWS = "notebook.keras", "reviews.json"


def write_notebook_model(run: Path, path: Path) -> None:
    """Writes the notebook's end-to-end model with a run's vocabulary and weights; in a process of its own."""
    from minibert.quiet import quiet_tensorflow

    quiet_tensorflow()
    import keras

    from benchmarks import notebook_models, notebook_text
    from minibert.record import NAME, read_record, record_settings
    from minibert.text import Vocabulary

    settings, words = record_settings(read_record(run), run / NAME), Vocabulary.read(run / "vocabulary.txt").words
    trained = keras.models.load_model(run / "classifier.keras", compile=False)
    masked_lm = notebook_models.build_masked_lm(settings)
    # Without the head: the encoder went on to be trained with the classifier, and its weights are the classifier's.
    encoder = keras.Model(masked_lm.input, masked_lm.layers[-2].output)
    notebook_models.copy_weights(trained.get_layer("encoder"), encoder)
    classifier = notebook_models.build_classifier(masked_lm, settings, frozen=True)
    for layer, name in zip(classifier.layers[-2:], ("hidden", "logits"), strict=True):
        layer.set_weights(trained.get_layer(name).get_weights())
    encode = keras.layers.TextVectorization(
        output_mode="int",
        standardize=notebook_text.standardize,
        output_sequence_length=settings.text.sequence_length,
        vocabulary=list(words[2:]),
    )
    texts = keras.Input((), dtype="string")
    model = keras.Model(texts, classifier(encode(texts)))
    model.compile(optimizer="sgd", loss="binary_crossentropy", metrics=["accuracy"], jit_compile=False)
    model.save(path)


class Notebook:
    """The notebook's last cells: load the model, evaluate the raw table."""

    def __init__(self, run: Path, folder: Path) -> None:
        from minibert.quiet import quiet_tensorflow

        quiet_tensorflow()
        import keras
        import keras_nlp  # noqa: F401  as the notebook does

        from benchmarks import notebook_text  # noqa: F401  registers the standardization
        from minibert.model.backend import forbid_tensor_float_32

        forbid_tensor_float_32()  # as the other side

        with warnings.catch_warnings():  # it is not trained any more
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            self._model = keras.models.load_model(folder / _MODEL)

    def accuracy(self, texts: list[str], labels: list[int]) -> float:
        """Evaluates the texts."""
        import tensorflow as tf

        given = tf.constant(texts), tf.constant(labels, tf.float32)
        return float(self._model.evaluate(*given, batch_size=BATCH_SIZE, verbose=0)[1])


class Minibert:
    """`minibert.FinishedRun.classify`."""

    def __init__(self, run: Path, folder: Path) -> None:
        from minibert.quiet import quiet_tensorflow

        quiet_tensorflow()
        import minibert

        self._run = minibert.FinishedRun(run)

    def accuracy(self, texts: list[str], labels: list[int]) -> float:
        """The share of texts whose class is their label."""
        found = self._run.classify(texts)
        return float(np.mean([answer.label == label for answer, label in zip(found, labels, strict=True)]))


class Evaluation:
    """What is asked of a side's process; its argument is the folder that `measure` prepares."""

    def __init__(self, side: str, run: Path, folder: Path) -> None:
        self._texts, self._labels = json.loads((folder / _REVIEWS).read_text(encoding="utf-8"))
        self._made: Any = {"minibert": Minibert, "notebook": Notebook}[side](run, folder)

    def first(self, started: float) -> float:
        """Seconds from when the process was started to the class of one review."""
        self._made.accuracy(self._texts[:1], self._labels[:1])
        return time.time() - started

    def turn(self, count: int) -> tuple[float, float]:
        """Seconds for so many reviews, and the accuracy."""
        began = time.perf_counter()
        accuracy = self._made.accuracy(self._texts[:count], self._labels[:count])
        return time.perf_counter() - began, accuracy

    def peak(self, _: None) -> int:
        """The process' peak memory in bytes."""
        return peak_bytes()


class Side(Child):
    """One side's process.

    Attributes:
        first_seconds: From the start of the process to the class of one review.
    """

    def __init__(self, side: str, run: Path, folder: Path) -> None:
        started = time.time()
        super().__init__(side, Evaluation, side, run, folder)
        self.first_seconds: float = self.ask("first", started)


def reviews_for(run: Path, data: str | None, count: int) -> tuple[list[str], list[int]]:
    """Raw test reviews and labels of a run's corpus: so many, or all that there are.

    Raises:
        SettingsError: There are fewer than two, or they have no labels.
    """
    from minibert.corpora.opening import open_corpus
    from minibert.record import NAME, read_record, record_settings

    settings = record_settings(read_record(run), run / NAME)
    corpus = open_corpus(settings.corpus, seed=settings.seed, data=Path(data) if data else None)
    if not corpus.labelled:
        raise SettingsError(f"--run: a run of a labelled corpus is required, but {run} is of one without labels")
    texts: list[str] = []
    labels: list[int] = []
    for batch in corpus.batches("test"):
        texts += batch.texts.to_pylist()
        labels += batch.labels.tolist()
        if len(texts) >= count:
            break
    if len(texts) < LEAST_REVIEWS:
        raise SettingsError(f"--run: {LEAST_REVIEWS} or more test reviews are required, but {run} has {len(texts)}")
    return texts[:count], labels[:count]


def measure(run: Path, data: str | None, most: int, pairs: int) -> dict[str, Any]:
    """Both sides, the first answers one after the other, then in turns.

    Args:
        run: A finished run of a labelled corpus.
        data: Its data, if it was given any.
        most: Reviews, if there are as many.
        pairs: Pairs of turns.

    Raises:
        SettingsError: There are too few reviews.
        WorkerError: A side failed.
        WrongLossError: The sides differ in more than one review's class.
    """
    reviews = reviews_for(run, data, most)
    count = len(reviews[0])
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        run_apart(write_notebook_model, run, folder / _MODEL)
        (folder / _REVIEWS).write_text(json.dumps(reviews), encoding="utf-8")
        firsts, sides = _started(run, folder, stack)
        accuracies = {side: made.ask("turn", count)[1] for side, made in sides.items()}
        if abs(accuracies["minibert"] - accuracies["notebook"]) > 1.5 / count:
            raise WrongLossError(f"the same accuracy is required of both sides, but {accuracies} came")
        seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
        for pair in range(pairs):
            for side in SIDES if pair % 2 == 0 else SIDES[::-1]:
                seconds[side].append((sides[side].ask("turn", count)[0], sides[side].ask("turn", 1)[0]))
        peaks = {side: made.ask("peak") for side, made in sides.items()}
    figures = {"reviews": count, "pairs": pairs, "accuracy": accuracies["minibert"]}
    for side in SIDES:
        figures |= {f"{side}_peak_bytes": peaks[side], **_figures_of(side, count, firsts[side], seconds[side])}
    return {**figures, **_ratios(seconds), "conditions": conditions()}


def _started(run: Path, folder: Path, stack: ExitStack) -> tuple[dict[str, list[float]], dict[str, Side]]:
    """The first answers of some fresh processes of each side in turn, and the last of each, which live on."""
    firsts: dict[str, list[float]] = {side: [] for side in SIDES}
    sides: dict[str, Side] = {}
    for start in range(STARTS):
        for side in SIDES if start % 2 == 0 else SIDES[::-1]:
            if side in sides:
                sides[side].close()
            sides[side] = stack.enter_context(Side(side, run, folder))
            firsts[side].append(sides[side].first_seconds)
    return firsts, sides


def _figures_of(side: str, count: int, firsts: list[float], seconds: list[tuple[float, float]]) -> dict[str, float]:
    first, whole = statistics.median(firsts), statistics.median(many for many, _ in seconds)
    return {
        f"{side}_first_answer_seconds": first,
        f"{side}_one_review_seconds": statistics.median(one for _, one in seconds),
        f"{side}_reviews_per_second": count / whole,
        f"{side}_with_start_per_second": count / (first + whole),
    }


def _ratios(seconds: dict[str, list[tuple[float, float]]]) -> dict[str, float | None]:
    """The notebook's seconds by ours, pair by pair: of whole calls, and of what each further review takes.

    The latter are None where some call with all reviews took no longer than one with a single review.
    """
    pairs = list(zip(seconds["minibert"], seconds["notebook"], strict=True))
    calls = quartiles([theirs[0] / ours[0] for ours, theirs in pairs])
    differences = [(theirs[0] - theirs[1], ours[0] - ours[1]) for ours, theirs in pairs]
    can_tell = all(min(both) > 0 for both in differences)
    further = quartiles([theirs / ours for theirs, ours in differences]) if can_tell else (None, None, None)
    names = ("ratio_low", "ratio", "ratio_high")
    return {**{f"call_{name}": value for name, value in zip(names, calls, strict=True)},
            **dict(zip(names, further, strict=True))}  # fmt: skip


def markdown(row: dict[str, Any]) -> str:
    """Both sides as a table."""
    lines = [
        "| | first answer | one more review, alone | reviews a second in a call | with the start | memory |",
        "|---|---|---|---|---|---|",
    ]
    for side in SIDES:
        cells = (
            f"{row[f'{side}_first_answer_seconds']:.1f} s",
            f"{1e3 * row[f'{side}_one_review_seconds']:.0f} ms",
            f"{row[f'{side}_reviews_per_second']:,.0f}",
            f"{row[f'{side}_with_start_per_second']:,.0f}",
            f"{row[f'{side}_peak_bytes'] / 1e9:.2f} GB",
        )
        lines.append(f"| {side} | {' | '.join(cells)} |")
    call = f"**{row['call_ratio']:.2f}×** ({row['call_ratio_low']:.2f} to {row['call_ratio_high']:.2f})"
    further = (
        "too few to tell"
        if row["ratio"] is None
        else f"**{row['ratio']:.2f}×** ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
    )
    summary = (
        f"{call} the notebook's rate in a call with {row['reviews']:,} reviews, {further} for each further review; "
        f"median of {row['pairs']} interleaved pairs, accuracy {row['accuracy']:.4f} on both sides. "
        f"{conditions_line([row['conditions']])}"
    )
    return "\n".join([*lines, "", summary])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classify", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a finished run of a labelled corpus")
    parser.add_argument("--data", metavar="PATH", help="its data, if it was given any")
    parser.add_argument("--reviews", type=int, default=REVIEWS, metavar="N", help=f"default: {REVIEWS}")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"default: {PAIRS}")
    parser.add_argument("--json", action="store_true", help="print the figures instead of the table")
    options = parser.parse_args(arguments)
    try:
        if options.reviews < LEAST_REVIEWS:
            raise SettingsError(f"--reviews: {LEAST_REVIEWS} or more is required, but {options.reviews} came")
        if options.pairs < 1:
            raise SettingsError(f"--pairs: 1 or more is required, but {options.pairs} came")
        row = measure(options.run, options.data, options.reviews, options.pairs)
    except MinibertError as error:
        print(f"benchmarks.classify: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(row, indent=2) if options.json else markdown(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
