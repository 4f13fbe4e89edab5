"""What each command does: calls the library, prints what a person or a machine asked for.

A function here takes the parsed options and returns an exit code. The library is imported inside,
because TensorFlow takes seconds, and ``--help`` and a wrong argument need none of it. For the same
reason paths are looked at before.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minibert.checked import printable
from minibert.errors import CorpusError, DeviceError, SettingsError
from minibert.mask_word import require_one_mask, sentence_names, shown_token
from minibert.presets import PRESETS, describe_preset, preset, resolve_settings
from minibert.record import NAME, earlier_record, read_record, record_settings
from minibert.settings import CorpusSettings, RunSettings, replace_setting, settings_from_dict
from minibert.settings_file import settings_toml

if TYPE_CHECKING:
    from minibert.training.pretrain import Prediction

_TEXTS_WORTH_A_BAR = 500
"""Fewer take a few seconds."""
_SHOWN_TEXTS = 6


def run(options: Namespace) -> int:
    """``minibert run``: trains, writes the report, and says what came out."""
    settings = resolve_settings(options.preset, file=options.settings, assignments=options.set, seed=options.seed)
    directory = _run_directory(options, settings)
    _require_data(options.data)
    earlier = earlier_record(directory, resume=options.resume)
    if earlier is not None and options.settings is None and not options.set and options.seed is None:
        own = record_settings(earlier, directory / NAME)
        settings = own if own.preset == settings.preset else settings
    _require_backend()

    from minibert import report, running
    from minibert.progress import Progress

    with Progress(quiet=options.quiet) as progress:
        record = running.run(settings, directory=directory, data=options.data, resume=options.resume, progress=progress)
    page = directory / report.PAGE_NAME
    _print_json(record) if options.json else print(report.summarize(record, directory, page))
    return 0


def _require_backend() -> None:
    """Refuses what a user has asked of Keras; unasked, the command line has asked for TensorFlow before."""
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend != "tensorflow":
        raise DeviceError(f"KERAS_BACKEND: tensorflow is required, but {backend!r} came")


def has_started(options: Namespace) -> bool:
    """Whether a ``run`` with these options has left something that can be resumed."""
    try:
        settings = resolve_settings(options.preset, file=options.settings, assignments=options.set, seed=options.seed)
    except SettingsError:
        return False
    return (_run_directory(options, settings) / "run.json").exists()


def _run_directory(options: Namespace, settings: RunSettings) -> Path:
    given: Path | None = options.out
    return given if given is not None else Path("runs") / f"{options.preset}-seed{settings.seed}"


def fill_mask(options: Namespace) -> int:
    """``minibert fill-mask``: the likeliest words for each ``[mask]``."""
    sentences = options.sentences
    is_one = len(sentences) == 1
    names = ["sentence"] if is_one else sentence_names(len(sentences))
    if options.file is not None:
        sentences = _read_lines(options.file)
        names = [f"{_shown(options.file)}, line {number}" for number in range(1, len(sentences) + 1)]
    read_record(options.directory)
    for name, sentence in zip(names, sentences, strict=True):
        require_one_mask(name, sentence)
    _require_backend()

    from minibert import inference
    from minibert.progress import Progress

    with Progress(quiet=options.quiet or len(sentences) < _TEXTS_WORTH_A_BAR) as progress:
        found = inference.fill_masks(options.directory, sentences, top_k=options.top_k, names=names, progress=progress)
    if options.json:
        listed = [
            [{"token": p.token, "probability": float(p.probability), "sentence": p.sentence} for p in predictions]
            for predictions in found
        ]
        _print_json(listed[0] if is_one else listed)
        return 0
    print("\n\n".join(_prediction_table(predictions) for predictions in found))
    return 0


def _prediction_table(predictions: Sequence[Prediction]) -> str:
    """A line for each prediction: its probability, the word, the sentence."""
    tokens = [printable(shown_token(p.token)) for p in predictions]
    width = max(map(len, tokens), default=0)
    lines = zip(tokens, predictions, strict=True)
    return "\n".join(f"{p.probability:.4f}  {token:{width}}  {printable(p.sentence)}" for token, p in lines)


def classify(options: Namespace) -> int:
    """``minibert classify``: each text's class and probability."""
    texts = options.texts if options.file is None else _read_lines(options.file)
    read_record(options.directory)
    _require_backend()

    from minibert import inference
    from minibert.progress import Progress

    with Progress(quiet=options.quiet or len(texts) < _TEXTS_WORTH_A_BAR) as progress:
        found = inference.classify(options.directory, texts, progress=progress)
    if options.json:
        _print_json([{"text": text, **dataclasses.asdict(one)} for text, one in zip(texts, found, strict=True)])
        return 0
    width = max((len(c.class_name) for c in found), default=0)
    for text, c in zip(texts, found, strict=True):
        shown = text if len(text) <= 72 else f"{text[:71]}…"
        print(f"{printable(c.class_name):{width}}  {c.probability:.4f}  {printable(shown)}")
    if not options.quiet:
        numbered = list(enumerate(found, start=1))
        _note_texts(
            [number for number, c in numbered if c.words == 0], "it has no word, so the class says nothing of it"
        )
        why = "less than a half of what is read are words of the run's vocabulary, so the class says little"
        _note_texts([number for number, c in numbered if c.words and c.is_mostly_unknown], why)
        why = f"only the first {max((c.words for c in found), default=0)} words are read"
        _note_texts([number for number, c in numbered if c.is_cut], why)
    return 0


def _note_texts(numbers: list[int], why: str) -> None:
    """One line on stderr on some texts, if there are any, by their numbers from 1."""
    if not numbers:
        return
    shown = ", ".join(map(str, numbers[:_SHOWN_TEXTS]))
    more = f" and {len(numbers) - _SHOWN_TEXTS:,} more" if len(numbers) > _SHOWN_TEXTS else ""
    print(f"minibert: text {shown}{more}: {why}", file=sys.stderr)


def evaluate(options: Namespace) -> int:
    """``minibert evaluate``: loss and accuracy of the raw-text model on labelled texts."""
    corpus = _corpus_settings(read_record(options.directory), options.set)
    _require_data(options.data)
    _require_backend()

    from minibert import inference
    from minibert.progress import Progress

    with Progress(quiet=options.quiet) as progress:
        found = inference.evaluate(options.directory, options.data, corpus=corpus, progress=progress)
    figures = {"loss": float(found.loss), "accuracy": float(found.accuracy), "examples": int(found.examples)}
    if options.json:
        _print_json(figures)
    else:
        print(f"accuracy {found.accuracy:.4f}  loss {found.loss:.4f}  {found.examples:,} examples")
    return 0


def _corpus_settings(record: dict[str, Any], assignments: list[str]) -> CorpusSettings | None:
    """The recorded corpus settings with ``corpus.field=value`` applied; None where nothing is changed."""
    if not assignments:
        return None
    settings: RunSettings = settings_from_dict(RunSettings, record["settings"])
    for assignment in assignments:
        if not assignment.strip().startswith("corpus."):
            raise SettingsError(f"--set: corpus.field=value is required here, but {assignment!r} came")
        settings = replace_setting(settings, assignment)
    return settings.corpus


def presets(options: Namespace) -> int:
    """``minibert presets``: what there is to run; of one that is named, its settings."""
    named = preset(options.preset) if options.preset is not None else None
    if options.json:
        names = PRESETS if named is None else [options.preset]
        found = [{"name": n, **describe_preset(n), "settings": preset(n).to_dict()} for n in names]
        _print_json(found if named is None else found[0])
        return 0
    if named is not None:
        print(settings_toml(named), end="")
        return 0
    for name in PRESETS:
        parts = describe_preset(name)
        print(f"{name}\n  {parts['summary']}")
        for title in ("command", "expect", "time"):
            print(f"  {title.capitalize():8} {parts[title]}")
    print(
        "minibert presets PRESET > FILE.toml writes all its settings down, for minibert run PRESET --settings FILE.toml"
    )
    return 0


def report(options: Namespace) -> int:
    """``minibert report``: the page, from the record alone."""
    from minibert.report import headline_figures, write_report

    page = write_report(options.directory)
    if options.json:
        _print_json({"page": str(page), **headline_figures(read_record(options.directory))})
    else:
        print(page)
    return 0


def doctor(options: Namespace) -> int:
    """``minibert doctor``: this environment, and what is wrong with it."""
    from minibert.doctor import describe_diagnosis, diagnose

    diagnosis = diagnose()
    _print_json(diagnosis) if options.json else print(describe_diagnosis(diagnosis))
    return int(diagnosis["exit_code"])


def verify(options: Namespace) -> int:
    """``minibert verify``: a verdict on a run, on two, or on the repeatability of one step."""
    for directory in filter(None, (options.directory, options.against)):
        read_record(directory)
    _require_data(options.data)
    for name, other in (("data", "against"), ("tolerance", "repeat")):
        if getattr(options, name) is not None and getattr(options, other) is not None:
            raise SettingsError(f"--{name}: a command without --{other} is required, but both came")
    if options.against is None:
        _require_backend()

    from minibert import verify as verification
    from minibert.progress import Progress

    verdict: Any
    with Progress(quiet=options.quiet) as progress:
        if options.repeat is not None:
            verdict = verification.repeat(options.directory, count=options.repeat, data=options.data, progress=progress)
        else:
            chosen = {} if options.tolerance is None else {"tolerance": options.tolerance}
            verdict = verification.verify(
                options.directory, against=options.against, data=options.data, progress=progress, **chosen
            )
    if options.json:
        _print_json(verdict.to_dict())
    else:
        for line in verdict.explanation:
            print(printable(line))
    return int(verdict.exit_code)


def _require_data(path: Path | None) -> None:
    if path is not None and not path.exists():
        raise CorpusError(f"--data: a file or a folder is required, but {path} is not there")


def _shown(path: Path) -> str:
    """What a message calls a file of texts."""
    return "stdin" if str(path) == "-" else str(path)


def _read_lines(path: Path) -> list[str]:
    """One text on each line; only a line feed ends a line, because texts may hold other separators."""
    name = _shown(path)
    try:
        content = sys.stdin.buffer.read() if name == "stdin" else path.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise CorpusError(f"{name}: a readable file is required, but {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CorpusError(
            f"{name}, line {line}: UTF-8 is required, but byte {error.start} of the file is not"
        ) from None
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise CorpusError(f"{name}, line {number}: a text is required, but the line is empty")
    if not lines:
        raise CorpusError(f"{name}: one text on each line is required, but the file is empty")
    return [line.removesuffix("\r") for line in lines]


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
