"""Rewrites the known answers: ``python -m tests.golden.make [FILE ...]``, all of them by default.

Another known answer is another function here that returns the text of its file, under `@golden`. A
function imports what it needs inside, so that one file can be made without the others' packages.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
GOLDENS: dict[str, Callable[[], str]] = {}
"""File name -> the function that makes its text."""


def golden(name: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Registers the function that makes the known answers of one file."""

    def register(make: Callable[[], str]) -> Callable[[], str]:
        GOLDENS[name] = make
        return make

    return register


def read(name: str) -> str:
    """The text of a checked-in file."""
    return (FOLDER / name).read_text(encoding="utf-8")


MASKING_BLOCKS = (
    {"seed": 0, "epoch": 0, "static": True, "length": 256, "example_ids": range(71)},
    {"seed": 1, "epoch": 0, "static": False, "length": 128, "example_ids": range(141)},
    {"seed": 0, "epoch": 1, "static": False, "length": 256, "example_ids": range(49_929, 50_000)},
    {"seed": 2**63 - 1, "epoch": 4, "static": False, "length": 128, "example_ids": range(2**40, 2**40 + 150)},
)
"""What the masked values are drawn for: the two notebooks' lengths, near and far names."""

MASKING_VOCABULARY_SIZE = 30_000


def masking_token_id(example_id: int, position: int) -> int:
    """The ids that are masked: 2 to 29,999 scattered by a formula, then a few of padding."""
    return 0 if position % 128 >= 120 else 2 + (example_id * 7_919 + position * 104_729) % 29_998


@golden("masking.txt")
def masking() -> str:
    """The first 10,000 selected tokens of all blocks, by the masked example; see README.md for the form."""
    import numpy as np

    from minibert.masking import mask_tokens
    from minibert.settings import MaskingSettings

    lines, left = [], 10_000
    for block in MASKING_BLOCKS:
        settings = MaskingSettings(vocabulary_size=MASKING_VOCABULARY_SIZE, static=block["static"])
        numbers, length = block["example_ids"], block["length"]
        token_ids = np.array([[masking_token_id(i, p) for p in range(length)] for i in numbers])
        masked = mask_tokens(
            token_ids, seed=block["seed"], epoch=block["epoch"], example_ids=numbers, settings=settings
        )
        fields = ("seed", "epoch", "static", "length")
        lines.append("# " + " ".join(f"{field}={block[field]}" for field in fields))
        for row, number in enumerate(numbers):
            places = np.flatnonzero(masked.sample_weight[row]).tolist()[:left]
            if not places:
                continue
            left -= len(places)
            kinds = [_kind(int(masked.token_ids[row, p]), int(token_ids[row, p])) for p in places]
            gaps = [after - before for before, after in zip([-1, *places], places, strict=False)]
            lines.append(f"{number}: " + " ".join(f"{gap}{kind}" for gap, kind in zip(gaps, kinds, strict=True)))
    assert left == 0, f"{left} selected tokens are missing: add examples to the blocks"
    return "\n".join(lines) + "\n"


def _kind(masked_id: int, token_id: int) -> str:
    if masked_id == token_id:
        return "k"
    return "m" if masked_id == MASKING_VOCABULARY_SIZE - 1 else f"r{masked_id}"


@golden("streams.json")
def streams() -> str:
    """Keys, words, orders and initial weights' bits of named streams."""
    import numpy as np

    from minibert.streams import integers_below, permutation, stream, threshold, uniform_float32

    names = [
        [0, "masking", 0],
        [1, "masking", 0],
        [0, "masking", 1],
        [2**63 - 1, "masking", 4],
        [0, "order", "pretrain", 0],
        [0, "weights", "word_embedding/embeddings"],
        [42, "purpose", -1, "Grün\n", 2**70],
        [0, ""],
    ]
    rows = [0, 1, 2**32, 2**64 - 1]
    words = {json.dumps(name): stream(*name).rows(np.array(rows, dtype=np.uint64), 9) for name in names}
    weights = stream(0, "weights", "word_embedding/embeddings").words(256)
    value = {
        "rows": rows,
        "streams": {
            name: {"key": [_hex(k) for k in stream(*json.loads(name)).key], "words": [_row(row) for row in of_name]}
            for name, of_name in words.items()
        },
        "permutations": {
            json.dumps([seed, "order", "pretrain", epoch, count]): " ".join(
                map(str, permutation(seed, "order", "pretrain", epoch, count=count).tolist())
            )
            for seed, epoch, count in ((0, 0, 1), (0, 0, 10), (0, 0, 500), (0, 1, 500), (1, 0, 500))
        },
        "uniform_float32_bits": {
            repr(limit): " ".join(f"{bits:08x}" for bits in uniform_float32(weights, limit).view(np.uint32).tolist())
            for limit in (1.0, 0.05, 0.0141068)
        },
        "integers_below": {
            str(count): " ".join(map(str, integers_below(weights, count).tolist()[:64])) for count in (1, 2, 10, 29_996)
        },
        "thresholds": {repr(rate): _hex(threshold(rate)) for rate in (0.0, 0.1, 1.0 / 9.0, 0.15, 0.9, 1.0)},
    }
    return json.dumps(value, indent=1, ensure_ascii=True) + "\n"


def _hex(word: int) -> str:
    return f"{word:016x}"


def _row(words: object) -> str:
    return " ".join(_hex(word) for word in words.tolist())  # type: ignore[attr-defined]


@golden("embedded_corpus.json")
def embedded_corpus() -> str:
    """The embedded corpus' digest, counts and first texts."""
    from minibert.corpora.embedded import embedded_corpus, embedded_reviews

    corpus = embedded_corpus(2_400, 600)
    value = {
        "digest": corpus.digest,
        "examples": corpus.examples,
        "class_names": corpus.class_names,
        "first_texts": embedded_reviews("train", 0, 4).texts.to_pylist(),
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


@golden("epoch_order.txt")
def epoch_order() -> str:
    """The order of examples in training: ``seed stage epoch count: example ids``."""
    from minibert.batches import ExampleOrder

    names = ((0, "pretrain", 0, 300), (0, "pretrain", 1, 300), (7, "frozen", 0, 100), (2**63 - 1, "unfrozen", 4, 100))
    lines = []
    for seed, stage, epoch, count in names:
        order = ExampleOrder(seed=seed, stage=stage, examples=count, batch_size=32).epoch_order(epoch)
        lines.append(f"{seed} {stage} {epoch} {count}: " + " ".join(map(str, order.tolist())))
    return "\n".join(lines) + "\n"


@golden("token_ids.json")
def token_ids() -> str:
    """Words and ids of embedded reviews, and of what is hard to split, by a vocabulary of the embedded corpus."""
    import pyarrow as pa

    from minibert.corpora.embedded import embedded_corpus, embedded_reviews
    from minibert.settings import TextSettings
    from minibert.text import encode, learn_vocabulary, split_words

    settings = TextSettings(vocabulary_size=500, sequence_length=48)
    vocabulary = learn_vocabulary((batch.texts for batch in embedded_corpus(512, 64).batches("train")), settings)
    hard = ['It\'s A<br />GREAT -- [mask] "film"!', "", "\x85 Été\u2028naïve\ta\x1cb ...", "<BR /><br  />[MASK]."]
    texts = pa.array([*embedded_reviews("test", 0, 4).texts.to_pylist(), *hard], type=pa.string())
    value = {
        "vocabulary_sha256": vocabulary.digest(),
        "first_words": " ".join(vocabulary.words[1:40]),
        "texts": [
            {
                "text": text,
                "words": " ".join(split_words(pa.array([text]), settings)[0].to_pylist()),
                "ids": " ".join(map(str, ids)),
            }
            for text, ids in zip(texts.to_pylist(), encode(texts, vocabulary, settings).tolist(), strict=True)
        ],
    }
    return json.dumps(value, indent=1, ensure_ascii=True) + "\n"


INITIAL_WEIGHTS = (
    ("word_embedding/embeddings", (500, 32), 4),
    ("position_embedding/embeddings", (64, 32), 4),
    ("encoder_0_multiheadattention/qkv_kernel", (32, 96), 4),
    ("encoder_0_multiheadattention/qkv_bias", (96,), 4),
    ("encoder_0_multiheadattention/output_kernel", (32, 32), 4),
    ("encoder_0_att_layernormalization/gamma", (32,), 4),
    ("encoder_0_ffn/inner/kernel", (32, 64), 4),
    ("encoder_0_ffn/outer/kernel", (64, 32), 4),
    ("mlm_cls/kernel", (32, 500), 4),
    ("hidden/kernel", (32, 64), 1),
    ("logits/kernel", (64, 1), 1),
)
"""Path, shape and heads of weights of a small model."""


@golden("initial_weights.json")
def initial_weights() -> str:
    """SHA-256 of each weight's little-endian float32 bytes, and the bits of its first values."""
    import hashlib

    from minibert.model.initial_weights import initial_weight

    value = {}
    for seed in (0, 2**63 - 1):
        for path, shape, heads in INITIAL_WEIGHTS:
            weight = initial_weight(seed, path, shape, heads=heads).astype("<f4")
            value[f"{seed} {path}"] = {
                "shape": list(shape),
                "heads": heads,
                "sha256": hashlib.sha256(weight.tobytes()).hexdigest(),
                "first_bits": " ".join(f"{bits:08x}" for bits in weight.reshape(-1)[:16].view("<u4").tolist()),
            }
    return json.dumps(value, indent=1) + "\n"


@golden("small_run.json")
def small_run(*, add_platform: bool = False) -> str:
    """What `tests.runs.small_settings` trains on and comes to, on each platform that it was recorded on."""
    import contextlib
    import tempfile

    from minibert import pipeline
    from tests.runs import small_settings

    known: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError):  # not there yet, or not readable: it is made anew
        known = known_runs()
    with tempfile.TemporaryDirectory() as folder:
        pipeline.run(small_settings(), directory=Path(folder) / "run")
        answers = with_answer(known, run_answer(Path(folder) / "run"), add_platform=add_platform)
    return json.dumps(answers, indent=1) + "\n"


def known_runs() -> list[dict[str, Any]]:
    """The recorded answers of `run_answer`, of one platform each; all platforms are held to the first one's losses."""
    answers: list[dict[str, Any]] = json.loads(read("small_run.json"))
    return answers


def with_answer(
    known: list[dict[str, Any]], answer: dict[str, Any], *, add_platform: bool = False
) -> list[dict[str, Any]]:
    """The known answers if this is one of them, else this one alone: the others are then of code before a change.

    Args:
        known: Of one platform each.
        answer: From `run_answer`.
        add_platform: Puts the answer behind the known ones, if its platform is not among them.

    Raises:
        SystemExit: It cannot be put there: its platform has another answer, or it is of other settings or batches. Or
            it would take the place of all that are known, though only the platform is another.
    """
    if answer in known:
        return known
    is_known_platform = any(each["platform"] == answer["platform"] for each in known)
    if not add_platform:
        if known and not is_known_platform and computes_the_same(known[0], answer):
            raise SystemExit(
                "small_run.json: this platform has no recorded run, and its losses are the recorded ones: "
                "--add-platform adds it; remove the file to begin anew"
            )
        return [answer]
    if is_known_platform:
        raise SystemExit("small_run.json: this platform has a run of other bits: make it without --add-platform")
    if known and drawn(known[0]) != drawn(answer):
        raise SystemExit("small_run.json: the recorded runs have other settings or batches; make them anew first")
    return [*known, answer]


def computes_the_same(known: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether a run has the settings, batches and, but for roundings, the losses of a known one."""
    import numpy as np

    def losses(run: dict[str, Any]) -> list[float]:
        return [loss for stage in run["stages"].values() for loss in stage["losses"]]

    one, two = losses(known), losses(answer)
    return drawn(known) == drawn(answer) and len(one) == len(two) and np.allclose(two, one, rtol=1e-5, atol=0.0)


def drawn(answer: dict[str, Any]) -> list[str]:
    """What is the same on every platform: digests of the settings and of each stage's batches."""
    return [answer["settings_digest"], *(stage["batches_sha256"] for stage in answer["stages"].values())]


def run_answer(directory: Path) -> dict[str, Any]:
    """Of a run: the loss sum of every step (float32), a digest of all batches, digests of weights and optimizer,
    the raw-text figures, and the platform whose bits these are.
    """
    import hashlib

    import numpy as np

    from minibert.fingerprints import read_trace
    from minibert.record import read_record

    record, stages = read_record(directory), {}
    for name in ("pretrain", "frozen", "unfrozen"):
        trace, found = read_trace(directory / "trace" / f"{name}.trace"), record["stages"][name]
        stages[name] = {
            "losses": [float(loss) for loss in trace.losses],
            "batches_sha256": hashlib.sha256(np.ascontiguousarray(trace.rows["batch"]).tobytes()).hexdigest(),
            "weights_sha256": found["weights_sha256"],
            "optimizer_sha256": found["optimizer_sha256"],
        }
    return {
        "settings_digest": record["settings_digest"],
        "platform": platform_of(record["environment"]),
        "stages": stages,
        "end_to_end": {name: record["stages"]["end_to_end"][name] for name in ("loss", "accuracy")},
    }


ARITHMETIC = ("TF", "XLA", "OMP", "ONEDNN", "DNNL")
"""What the variables that change bits begin with."""


def platform_of(environment: dict[str, Any]) -> dict[str, Any]:
    """What the bits of float32 arithmetic may depend on; caches and identity were not recorded with the first."""
    packages, variables = environment["packages"], environment["variables"]
    cpu = {name: value for name, value in environment["cpu"].items() if name not in ("caches", "identity")}
    return {
        "packages": {name: packages[name] for name in ("tensorflow", "keras", "numpy")},
        "machine": environment["platform"]["machine"],
        "cpu": cpu,
        "threads": environment["threads"],
        "devices": environment["devices"],
        "variables": {name: variables[name] for name in sorted(variables) if name.split("_")[0] in ARITHMETIC},
    }


def main() -> None:
    """Writes the files that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.make", description=main.__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"one of {', '.join(GOLDENS)}; all by default")
    parser.add_argument(
        "--add-platform", action="store_true", help="adds this platform's run to those that small_run.json has"
    )
    arguments = parser.parse_args()
    names = arguments.files or list(GOLDENS)
    if arguments.add_platform:
        GOLDENS["small_run.json"] = functools.partial(small_run, add_platform=True)
    unknown = sorted(set(names) - set(GOLDENS))
    if unknown:
        parser.error(f"no known answer is named {', '.join(unknown)}")
    for name in names:
        text = GOLDENS[name]()
        path = FOLDER / name
        changed = not path.exists() or read(name) != text
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{name}: {'rewritten' if changed else 'unchanged'}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
