"""The command line: what it accepts, prints and returns, and that it imports only what it must."""

from __future__ import annotations

import argparse
import contextlib
import doctest
import errno
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import minibert
from minibert import errors
from minibert.arguments import build_parser, one_assignment_each
from minibert.cli import main
from minibert.presets import preset
from minibert.progress import Progress
from minibert.record import write_record
from minibert.report import headline_figures
from minibert.settings import RunSettings, replace_setting
from tests.records import made_up_record

HEAVY = ("tensorflow", "keras", "keras_hub", "keras_nlp", "numpy", "pandas", "pyarrow", "datasets", "rich", "absl")
PlaceModule = Callable[..., ModuleType]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> PlaceModule:
    """Puts a made-up module in the place of one that would load TensorFlow."""

    def put(name: str, **functions: Any) -> ModuleType:
        module = ModuleType(f"minibert.{name}")
        for key, value in functions.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, f"minibert.{name}", module)
        monkeypatch.setattr(minibert, name, module, raising=False)
        return module

    return put


@pytest.fixture
def finished(tmp_path: Path) -> str:
    """A directory with the record of a run."""
    write_record(tmp_path, made_up_record("tiny"))
    return str(tmp_path)


def fake_run(calls: list[dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A pipeline that writes a record and remembers what it was asked for."""

    def run(settings: RunSettings, **options: Any) -> dict[str, Any]:
        calls.append({"settings": settings, **options})
        record = made_up_record("tiny")
        record["settings"] = json.loads(settings.canonical_json())
        record["settings_digest"] = settings.digest()
        options["directory"].mkdir(parents=True, exist_ok=True)
        write_record(options["directory"], record)
        return record

    return run


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def minibert_process(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minibert", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


# What it imports


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["--version"], 0),
        (["presets"], 0),
        (["presets", "--json"], 0),
        ([], 2),
        (["walk"], 2),
        (["run"], 2),
        (["run", "tny"], 2),
        (["run", "tiny", "--set", "pretrain.epoch=1"], 2),
        (["run", "tiny", "--set", "model.heads=3"], 2),
        (["run", "tiny", "--settings", "none.toml"], 2),
        (["run", "tiny", "--seed", "-1"], 2),
        (["report", "none"], 4),
        (["fill-mask", "none", "a [mask]"], 4),
        (["classify", "none", "a text"], 4),
        (["classify", "none", "--file", "none"], 3),
        (["evaluate", "none", "--data", "none"], 4),
        (["verify", "none"], 4),
        (["run", "tiny", "--data", "none"], 3),
        (["run", "tiny", "--set", "pretrain.sample_sentence=a film"], 2),
        (["run", "tiny", "--out", "none", "--resume"], 4),
        (["run", "tiny", "--out", __file__], 4),
    ],
)
def test_what_needs_no_model_imports_nothing_heavy(words: list[str], code: int) -> None:
    program = f"""
import sys
try:
    from minibert.cli import main
    code = main({words!r})
except SystemExit as stop:
    code = stop.code
found = [name for name in {HEAVY!r} if name in sys.modules]
print(found, file=sys.stderr)
sys.exit(99 if found else code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr


def test_importing_the_package_is_cheap_and_lists_its_names() -> None:
    program = f"""
import sys, minibert
assert not [name for name in {HEAVY!r} if name in sys.modules]
assert set(minibert.__all__) <= set(dir(minibert))
assert minibert.preset("tiny").preset == "tiny"
assert minibert.MaskingSettings is sys.modules["minibert.settings"].MaskingSettings
assert not [name for name in {HEAVY!r} if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_every_public_name_can_be_had() -> None:
    for name in minibert.__all__:
        assert getattr(minibert, name) is not None, name
    with pytest.raises(AttributeError, match="module 'minibert' has no attribute 'masktokens'"):
        _ = minibert.masktokens


def test_what_a_public_function_returns_is_public() -> None:
    functions = [value for value in (getattr(minibert, name) for name in minibert.__all__) if inspect.isfunction(value)]
    assert len(functions) >= 9
    for function in functions:
        hint = typing.get_type_hints(function)["return"]
        for kind in (hint, *typing.get_args(hint)):
            if getattr(kind, "__module__", "").startswith("minibert"):
                assert getattr(minibert, kind.__name__) is kind, f"{function.__name__} returns it"


@pytest.mark.long
def test_importing_keras_after_minibert_registers_the_layers() -> None:
    program = """
import sys, minibert
assert "minibert.model" not in sys.modules
import keras
assert "minibert.model" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


# run


def test_run_resolves_settings_names_the_directory_and_writes_the_report(
    place: PlaceModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[dict[str, Any]] = []
    place("pipeline", run=fake_run(calls))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").touch()
    assignments = ["--set", "pretrain.epochs=1", "model.heads=2", "--set", "finetune.batch_size=8"]
    words = ["run", "tiny", "--seed", "3", *assignments]
    assert main([*words, "--data", "a.csv", "--quiet"]) == 0
    settings = calls[0]["settings"]
    assert (settings.seed, settings.pretrain.epochs, settings.model.heads, settings.finetune.batch_size) == (3, 1, 2, 8)
    assert (calls[0]["directory"], calls[0]["data"]) == (Path("runs/tiny-seed3"), Path("a.csv"))
    assert not calls[0]["resume"]
    assert isinstance(calls[0]["progress"], Progress)
    assert (tmp_path / "runs/tiny-seed3/report.html").exists()
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "tiny, seed 3: complete" in captured.out
    assert "minibert fill-mask runs/tiny-seed3" in captured.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "a=1", "tiny"], ["--set", "a=1", "tiny"]),
        (["tiny", "--set", "a=1", "b=2"], ["tiny", "--set", "a=1", "--set", "b=2"]),
        (["--set", "a=1", "b=2", "tiny", "c=3"], ["--set", "a=1", "--set", "b=2", "tiny", "c=3"]),
        (["--set=a=1", "b=", "--set", "c=3"], ["--set=a=1", "--set", "b=", "--set", "c=3"]),
        (["--set", "a=1", "--out", "x=y", "b=2"], ["--set", "a=1", "--out", "x=y", "b=2"]),
        (["--set", "a=1", "runs/a=1", "./b=2", "a word=3"], ["--set", "a=1", "runs/a=1", "./b=2", "a word=3"]),
        (["--set", "a=1", "--", "b=2"], ["--set", "a=1", "--", "b=2"]),
        (["--set", "--set", "a=1"], ["--set", "--set", "--set", "a=1"]),
        (["--set"], ["--set"]),
        (["b=2"], ["b=2"]),
    ],
)
def test_one_set_takes_the_assignments_behind_it_and_no_other_word(words: list[str], expected: list[str]) -> None:
    assert one_assignment_each(words) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "pretrain.epochs=1", "model.heads=2", "tiny"],
        ["--set", "pretrain.epochs=1", "tiny", "--set", "model.heads=2"],
        ["--set=pretrain.epochs=1", "model.heads=2", "--quiet", "tiny"],
        ["tiny", "--set", "pretrain.epochs=1", "model.heads=2"],
        ["tiny", "--set", "pretrain.epochs=1", "--set", "model.heads=2"],
    ],
)
def test_settings_may_stand_before_and_behind_the_preset(
    words: list[str], place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[dict[str, Any]] = []
    place("pipeline", run=fake_run(calls))
    assert main(["run", *words, "--out", str(tmp_path / "out")]) == 0
    settings = calls[0]["settings"]
    assert (settings.preset, settings.pretrain.epochs, settings.model.heads) == ("tiny", 1, 2)


def test_a_run_from_python_writes_the_same_report(place: PlaceModule, tmp_path: Path) -> None:
    place("pipeline", run=fake_run([]))
    record = minibert.run(minibert.preset("tiny"), directory=tmp_path / "one")
    assert record["settings"]["preset"] == "tiny"
    assert main(["run", "tiny", "--out", str(tmp_path / "two"), "--quiet"]) == 0
    pages = [(tmp_path / name / "report.html").read_text(encoding="utf-8") for name in ("one", "two")]
    assert pages[0] == pages[1]


def test_run_prints_the_record_as_json(place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place("pipeline", run=fake_run([]))
    assert main(["run", "tiny", "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["preset"] == "tiny"


def test_seed_of_the_settings_names_the_directory(
    place: PlaceModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    place("pipeline", run=fake_run(calls))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("seed = 11\n")
    (tmp_path / "runs/tiny-seed11").mkdir(parents=True)
    write_record(tmp_path / "runs/tiny-seed11", made_up_record("tiny"))
    assert main(["run", "tiny", "--settings", "mine.toml", "--quiet", "--resume"]) == 0
    assert calls[0]["directory"] == Path("runs/tiny-seed11")
    assert calls[0]["resume"]


def test_a_run_goes_on_with_its_own_settings_if_none_are_given(place: PlaceModule, tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []
    place("pipeline", run=fake_run(calls))
    record = made_up_record("tiny")
    own = replace_setting(preset("tiny"), "masking.static=false")
    record |= {"settings": own.to_dict(), "settings_digest": own.digest()}
    words = ["run", "tiny", "--out", str(tmp_path), "--quiet", "--resume"]
    for further in ([], ["--set", "pretrain.epochs=1"], ["--seed", "0"]):
        write_record(tmp_path, record)
        assert main([*words, *further]) == 0
    write_record(tmp_path, record)
    assert main([words[0], "imdb", *words[2:]]) == 0  # which the pipeline refuses
    assert [call["settings"] for call in calls] == [
        own, replace_setting(preset("tiny"), "pretrain.epochs=1"), preset("tiny"), preset("imdb")
    ]  # fmt: skip


# Errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MinibertError("what"), 1),
        (errors.SettingsError("what"), 2),
        (errors.CorpusError("what"), 3),
        (errors.DownloadError("what"), 3),
        (errors.ArtifactError("what"), 4),
        (errors.ResumeError("what"), 4),
        (errors.RepeatabilityError("what"), 5),
        (errors.OutOfMemoryError("what"), 1),
        (errors.DeviceError("what"), 6),
    ],
)
def test_an_error_is_one_line_and_its_class_gives_the_code(
    place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    place("pipeline", run=raising(error))
    assert main(["run", "tiny", "--out", str(tmp_path / "out")]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "minibert: error: what\n"


def test_a_message_of_several_lines_becomes_one(
    place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place("pipeline", run=raising(errors.CorpusError("one\n  two")))
    main(["run", "tiny", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err == "minibert: error: one two\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/a.keras"), "out/a.keras: No space left on device"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError("unable to write"), "unable to write"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: OSError, message: str
) -> None:
    place("pipeline", run=raising(error))
    assert main(["run", "tiny", "--out", str(tmp_path / "out")]) == 4
    assert capsys.readouterr().err == f"minibert: error: {message}\n"


def test_memory_that_is_not_there_is_one_line(
    place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place("pipeline", run=raising(MemoryError("Unable to allocate 5.59 PiB for an array")))
    assert main(["run", "tiny", "--out", str(tmp_path / "out")]) == 1
    message = "more memory is required than there is (Unable to allocate 5.59 PiB for an array)"
    assert capsys.readouterr().err == f"minibert: error: {message}\n"


def test_a_programming_error_is_not_hidden(place: PlaceModule, tmp_path: Path) -> None:
    place("pipeline", run=raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["run", "tiny", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("given", [[], ["--resume"]])
def test_an_interrupted_run_says_how_to_go_on(
    place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    out = tmp_path / "my run"

    def write_and_stop(*_: Any, **__: Any) -> None:
        out.mkdir(exist_ok=True)
        write_record(out, made_up_record("tiny"))
        raise KeyboardInterrupt

    if given:
        out.mkdir()
        write_record(out, made_up_record("tiny"))
    place("pipeline", run=write_and_stop)
    assert main(["run", "tiny", "--out", str(out), *given]) == 130
    assert capsys.readouterr().err == f"minibert: interrupted; resume with: minibert run tiny --out '{out}' --resume\n"


@pytest.mark.skipif(os.name == "nt", reason="a signal to oneself ends the process there")
def test_an_interruption_that_a_library_made_another_error_of_is_one(
    place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallow(*_: Any, **__: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise SystemError("bad argument to internal function")

    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        place("pipeline", run=swallow)
        assert main(["run", "tiny", "--out", str(tmp_path / "none")]) == 130
        assert capsys.readouterr().err == "minibert: interrupted\n"
    finally:
        signal.signal(signal.SIGINT, kept)
    place("pipeline", run=raising(SystemError("a real one")))
    with pytest.raises(SystemError, match="a real one"):
        main(["run", "tiny", "--out", str(tmp_path / "none")])


def test_a_run_that_has_written_nothing_is_just_interrupted(
    place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place("pipeline", run=raising(KeyboardInterrupt()))
    assert main(["run", "tiny", "--out", str(tmp_path / "none")]) == 130
    assert capsys.readouterr().err == "minibert: interrupted\n"


def test_other_commands_are_just_interrupted(
    finished: str, place: PlaceModule, capsys: pytest.CaptureFixture[str]
) -> None:
    place("inference", fill_masks=raising(KeyboardInterrupt()))
    assert main(["fill-mask", finished, "a [mask]"]) == 130
    assert capsys.readouterr().err == "minibert: interrupted\n"


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "minibert", "presets"]
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full cannot refuse to be written to")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with Path("/dev/full").open("wb") as stdout:
        command = [sys.executable, "-m", "minibert", "presets"]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (4, "minibert: error: No space left on device\n")


def test_closed_streams_swallow() -> None:
    program = "import os, sys; os.close(1); os.close(2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    for words, code in ((["presets"], 0), (["run", "tny"], 2)):
        done = subprocess.run([sys.executable, "-c", program, "-m", "minibert", *words], check=False)
        assert done.returncode == code


def test_a_terminal_that_cannot_show_a_character_shows_its_number() -> None:
    done = minibert_process("run", "é", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stderr == r"minibert: error: preset: '\xe9' is not a preset; there are imdb, amazon, jokes, tiny" + "\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fill-mask", "d"], "one of the arguments SENTENCE --file is required"),
        (["fill-mask", "d", "s", "--file", "f"], "not allowed with argument"),
        (["fill-mask", "d", "s", "--top-k", "0"], "an integer, 1 or more, is required, but '0' came"),
        (["fill-mask", "d", "s", "--top-k", "x"], "an integer, 1 or more, is required, but 'x' came"),
        (["classify", "d"], "one of the arguments TEXT --file is required"),
        (["classify", "d", "t", "--file", "f"], "not allowed with argument"),
        (["evaluate", "d"], "the following arguments are required: --data"),
        (["run", "tiny", "--data", ""], "argument --data: a path that is not empty is required, but '' came"),
        (["evaluate", "d", "--data", ""], "argument --data: a path that is not empty is required, but '' came"),
        (["verify", "d", "--data="], "argument --data: a path that is not empty is required, but '' came"),
        (["verify", "d", "--against", "e", "--repeat", "2"], "not allowed with argument"),
        (["verify", "d", "--repeat", "0"], "an integer, 1 or more, is required"),
        (["verify", "d", "--tolerance", "-1"], "a relative deviation from 0 to 1 is required"),
        (["verify", "d", "--tolerance", "nan"], "a relative deviation from 0 to 1 is required"),
        (["verify", "d", "--tolerance", "5"], "a relative deviation from 0 to 1 is required"),
        (["run", "tiny", "--seed", "x"], "argument --seed: an integer is required, but 'x' came"),
        (
            ["run", "tiny", "--see", "1"],
            "minibert run: error: unrecognized arguments: --see 1; the nearest to --see is --seed",
        ),
        (
            ["run", "tiny", "--settigns=a"],
            "unrecognized arguments: --settigns=a; the nearest to --settigns is --settings\n",
        ),
        (
            ["perf", "gate", "--bas", "x"],
            "perf gate: error: unrecognized arguments: --bas x; the nearest to --bas is --base\n",
        ),
        (
            ["run", "tiny", "--learning-rate=1"],
            "; it may be a setting: --set pretrain.learning_rate=VALUE or --set finetune.learning_rate=VALUE\n",
        ),
        (["verify", "d", "--epochs", "2"], "unrecognized arguments: --epochs 2; the nearest to --epochs is --repeat\n"),
        (["run", "tiny", "--xyzzy"], "unrecognized arguments: --xyzzy\n"),
        (["run", "tiny", "--set"], "argument --set: expected one argument"),
        (["run", "tiny", "--set", "seed=1", "imdb"], "unrecognized arguments: imdb"),
        (["run", "--set", "tiny"], "argument --set: stage.field=value is required, but 'tiny' came"),
        (["run", "tiny", "--set", "seed", "1"], "argument --set: stage.field=value is required, but 'seed' came"),
    ],
)
def test_wrong_words_exit_with_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


# Keras' backend


@pytest.mark.parametrize("before", [None, "", "tensorflow"])
def test_keras_is_asked_for_tensorflow_before_its_own_configuration_is(
    before: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``~/.keras/keras.json`` may name another one, and Keras takes an empty variable for none."""
    monkeypatch.delenv("KERAS_BACKEND") if before is None else monkeypatch.setenv("KERAS_BACKEND", before)
    assert main(["presets"]) == 0
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "tiny", "--out", "{}/out"],
        ["fill-mask", "{}", "a [mask]"],
        ["classify", "{}", "a text"],
        ["evaluate", "{}", "--data", "{}"],
        ["verify", "{}"],
        ["verify", "{}", "--repeat", "2"],
    ],
)
def test_another_backend_is_refused_before_it_is_imported(
    words: list[str], finished: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for name in ("inference", "running", "verify"):
        monkeypatch.setitem(sys.modules, f"minibert.{name}", None)
    assert main([word.format(finished) for word in words]) == 6
    assert capsys.readouterr().err == "minibert: error: KERAS_BACKEND: tensorflow is required, but 'jax' came\n"


# The other commands


def test_fill_mask_prints_words_with_probabilities(
    finished: str, place: PlaceModule, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def fill_masks(directory: Path, sentences: list[str], *, top_k: int, **_: Any) -> list[list[SimpleNamespace]]:
        asked.append((directory, sentences, top_k))
        return [
            [
                SimpleNamespace(token=t, probability=p, sentence=f"a {t}")
                for t, p in (("movie", 0.25), ("é\x1b", 0.125), ("", 0.0625))
            ]
        ]

    place("inference", fill_masks=fill_masks)
    assert main(["fill-mask", finished, "a [mask]", "--top-k", "2"]) == 0
    assert asked == [(Path(finished), ["a [mask]"], 2)]
    assert capsys.readouterr().out == "0.2500  movie      a movie\n0.1250  é          a é \n0.0625  (padding)  a \n"
    assert main(["fill-mask", finished, "a [mask]", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1] == {"token": "é\x1b", "probability": 0.125, "sentence": "a é\x1b"}


def fake_fill_masks(
    directory: Path, sentences: list[str], *, top_k: int, names: list[str], progress: Progress
) -> list[list[SimpleNamespace]]:
    return [[SimpleNamespace(token="x", probability=0.5, sentence=s.replace("[mask]", "x"))] for s in sentences]


@pytest.mark.parametrize("source", ["arguments", "file"])
def test_fill_mask_takes_several_sentences(
    source: str, finished: str, place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place("inference", fill_masks=fake_fill_masks)
    (tmp_path / "sentences.txt").write_text("a [mask]\n[mask] b\n")
    words = ["a [mask]", "[mask] b"] if source == "arguments" else ["--file", str(tmp_path / "sentences.txt")]
    assert main(["fill-mask", finished, *words]) == 0
    assert capsys.readouterr().out == "0.5000  x  a x\n\n0.5000  x  x b\n"
    assert main(["fill-mask", finished, *words, "--json"]) == 0
    assert [[p["sentence"] for p in listed] for listed in json.loads(capsys.readouterr().out)] == [["a x"], ["x b"]]


def test_fill_mask_of_a_file_with_one_line_prints_a_list_for_the_line(
    finished: str, place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place("inference", fill_masks=fake_fill_masks)
    (tmp_path / "sentences.txt").write_text("a [mask]")
    assert main(["fill-mask", finished, "--file", str(tmp_path / "sentences.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [[{"token": "x", "probability": 0.5, "sentence": "a x"}]]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["a [mask]"], ["sentence"]),
        (["a [mask]", "[mask]"], ["sentences, number 1", "sentences, number 2"]),
        (["--file", "-"], ["stdin, line 1", "stdin, line 2"]),
    ],
)
def test_sentences_are_called_by_where_they_stand(
    words: list[str], names: list[str], finished: str, place: PlaceModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fill_masks(directory: Path, sentences: list[str], **named: Any) -> list[list[SimpleNamespace]]:
        asked.append(named["names"])
        return fake_fill_masks(directory, sentences, **named)

    place("inference", fill_masks=fill_masks)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a [mask]\n[mask]\n")))
    assert main(["fill-mask", finished, *words]) == 0
    assert asked == [names]


def test_options_may_stand_before_sentences_and_texts(
    finished: str, place: PlaceModule, capsys: pytest.CaptureFixture[str]
) -> None:
    place("inference", fill_masks=fake_fill_masks, classify=fake_classify)
    assert main(["fill-mask", finished, "--top-k", "3", "a [mask]"]) == 0
    assert main(["fill-mask", "--json", finished, "--quiet", "a [mask]", "[mask]"]) == 0
    assert main(["classify", finished, "--quiet", "a text", "another"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main(["fill-mask", finished, "--top-k", "3"])
    assert "one of the arguments SENTENCE --file is required" in capsys.readouterr().err


def test_a_sentence_without_a_mask_is_named_by_its_place(
    finished: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sentences.txt").write_text("a [mask]\nb\n")
    for words, place in (
        (["a [mask]", "b"], "sentences, number 2"),
        (["--file", str(tmp_path / "sentences.txt")], f"{tmp_path / 'sentences.txt'}, line 2"),
        (["b"], "sentence"),
    ):
        assert main(["fill-mask", finished, *words]) == 2
        said = f"minibert: error: {place}: exactly one [mask] is required, but 0 came in 'b'\n"
        assert capsys.readouterr().err == said


def fake_classify(directory: Path, texts: list[str], *, progress: Progress) -> list[Any]:
    words = [text.split() for text in texts]
    counts = [(min(len(one), 5), one.count("zzz"), len(one) > 5) for one in words]
    return [minibert.Classification(0, "positive", 0.75, *count) for count in counts]


def test_classify_names_the_class_of_each_text(
    finished: str, place: PlaceModule, capsys: pytest.CaptureFixture[str]
) -> None:
    place("inference", classify=fake_classify)
    assert main(["classify", finished, "good", "x" * 100]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "positive  0.7500  good"
    assert second == f"positive  0.7500  {'x' * 71}…"
    assert main(["classify", finished, "good", "--json"]) == 0
    found = {"label": 0, "class_name": "positive", "probability": 0.75, "words": 1, "unknown_words": 0, "is_cut": False}
    assert json.loads(capsys.readouterr().out) == [{"text": "good", **found}]


def test_texts_of_unknown_words_are_named(
    finished: str, place: PlaceModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """A half of them is not most; what is printed for a machine stays as it is."""
    place("inference", classify=fake_classify)
    assert main(["classify", finished, "good", "zzz good zzz", "zzz good", "zzz"]) == 0
    said = "less than a half of what is read are words of the run's vocabulary, so the class says little"
    assert capsys.readouterr().err == f"minibert: text 2, 4: {said}\n"
    assert main(["classify", finished, *["zzz"] * 9]) == 0
    assert capsys.readouterr().err == f"minibert: text 1, 2, 3, 4, 5, 6 and 3 more: {said}\n"
    for words in (["--quiet", "zzz"], ["--json", "zzz"], ["good"]):
        assert main(["classify", finished, *words]) == 0
        assert capsys.readouterr().err == ""


def test_a_text_without_a_word_is_named_as_such(
    finished: str, place: PlaceModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no unknown words either."""
    place("inference", classify=fake_classify)
    assert main(["classify", finished, "good", " ", "zzz"]) == 0
    empty, unknown = capsys.readouterr().err.splitlines()
    assert empty == "minibert: text 2: it has no word, so the class says nothing of it"
    assert unknown.startswith("minibert: text 3: less than a half")


def test_texts_that_are_longer_than_what_is_read_are_named(
    finished: str, place: PlaceModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their end may say the opposite."""
    place("inference", classify=fake_classify)
    long = "a long story, but not bad"
    assert main(["classify", finished, "good", long, "bad", long]) == 0
    assert capsys.readouterr().err == "minibert: text 2, 4: only the first 5 words are read\n"
    assert main(["classify", finished, "--quiet", long]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo", ["one", "two"]),
        (b"\xef\xbb\xbfone\n", ["one"]),
        ("a\u2028b\x0bc\n".encode(), ["a\u2028b\x0bc"]),  # only a line feed ends a text
    ],
)
def test_classify_reads_a_text_from_each_line(
    finished: str,
    place: PlaceModule,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    texts: list[str],
) -> None:
    place("inference", classify=fake_classify)
    file = tmp_path / "texts"
    file.write_bytes(content)
    assert main(["classify", finished, "--json", "--file", str(file)]) == 0
    assert [found["text"] for found in json.loads(capsys.readouterr().out)] == texts


def test_classify_reads_stdin(
    finished: str, place: PlaceModule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place("inference", classify=fake_classify)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n")))
    assert main(["classify", finished, "--json", "--file", "-"]) == 0
    assert [found["text"] for found in json.loads(capsys.readouterr().out)] == ["one"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "one text on each line is required, but the file is empty"),
        (b"one\n\ntwo\n", ", line 2: a text is required, but the line is empty"),
        (b"one\n \t\n", ", line 2: a text is required, but the line is empty"),
        (b"one\n\xff\n", "line 2: UTF-8 is required, but byte 4 of the file is not"),
    ],
)
def test_a_file_of_texts_that_is_none_is_named(
    finished: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    file = tmp_path / "texts"
    file.write_bytes(content)
    assert main(["classify", finished, "--file", str(file)]) == 3
    shown = capsys.readouterr().err
    assert shown.startswith(f"minibert: error: {file}")
    assert message in shown


def test_a_missing_file_of_texts_is_named(finished: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", finished, "--file", str(tmp_path / "none")]) == 3
    assert "none: a readable file is required, but No such file or directory" in capsys.readouterr().err


def test_evaluate_passes_changed_corpus_settings(
    place: PlaceModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def evaluate(directory: Path, data: Path, **options: Any) -> SimpleNamespace:
        asked.append(options)
        return SimpleNamespace(loss=0.5, accuracy=0.75, examples=1200)

    place("inference", evaluate=evaluate)
    write_record(tmp_path, made_up_record("tiny"))
    table = tmp_path / "a.csv"
    table.touch()
    words = ["evaluate", str(tmp_path), "--data", str(table), "--quiet"]
    assert main(words) == 0
    assert capsys.readouterr().out == "accuracy 0.7500  loss 0.5000  1,200 examples\n"
    assert asked[0]["corpus"] is None
    assert main([*words, "--set", "corpus.text_column=body", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"loss": 0.5, "accuracy": 0.75, "examples": 1200}
    assert asked[1]["corpus"].text_column == "body"
    assert main([*words, "--set", "model.heads=1"]) == 2
    assert "corpus.field=value is required here, but 'model.heads=1' came" in capsys.readouterr().err


def test_presets_lists_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    shown = capsys.readouterr().out
    assert "minibert run imdb" in shown
    assert "`" not in shown
    assert main(["presets", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [preset["name"] for preset in found] == ["imdb", "amazon", "jokes", "tiny"]
    assert found[1]["settings"]["model"]["hidden_size"] == 32


def test_report_prints_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path, made_up_record())
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert main(["report", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("page") == str(tmp_path / "report.html")
    assert found == headline_figures(made_up_record())
    assert (found["end_to_end_accuracy"], found["status"]) == (0.8218, "complete")
    assert main(["report", str(tmp_path / "none")]) == 4


def test_verify_returns_the_verdict_as_exit_code(
    place: PlaceModule, finished: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def answer(*place_: Any, **options: Any) -> SimpleNamespace:
        asked.append((*place_, {key: value for key, value in options.items() if key != "progress"}))
        return SimpleNamespace(
            exit_code=12, explanation=["different", "step 3"], to_dict=lambda: {"verdict": "different"}
        )

    place("verify", verify=answer, repeat=answer)
    other = tmp_path / "other"
    other.mkdir()
    write_record(other, made_up_record("tiny"))
    assert main(["verify", finished, "--quiet"]) == 12
    assert capsys.readouterr().out == "different\nstep 3\n"
    assert main(["verify", finished, "--against", str(other), "--json"]) == 12
    assert json.loads(capsys.readouterr().out) == {"verdict": "different"}
    assert main(["verify", finished, "--repeat", "4"]) == 12
    run = Path(finished)
    assert main(["verify", finished, "--data", str(other), "--tolerance", "1e-5"]) == 12
    assert asked == [
        (run, {"against": None, "data": None}),
        (run, {"against": other, "data": None}),
        (run, {"count": 4, "data": None}),
        (run, {"against": None, "data": other, "tolerance": 1e-5}),
    ]


def commands_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that can be called; ``perf`` has commands of its own."""
    for group in parser._subparsers._group_actions:  # type: ignore[union-attr]
        for name, subparser in (group.choices or {}).items():
            if subparser._subparsers is None:
                yield name, subparser
            else:
                yield from ((f"{name} {inner}", found) for inner, found in commands_of(subparser))


def test_every_command_has_a_function_and_a_description() -> None:
    found = dict(commands_of(build_parser()))
    names = ["run", "fill-mask", "classify", "evaluate", "presets", "report", "doctor", "verify"]
    assert [name for name in found if not name.startswith("perf ")] == names
    for name, subparser in found.items():
        assert subparser.get_default("command") is not None, name
        assert subparser.description, name


def test_the_packages_own_example_is_true() -> None:
    results = doctest.testmod(minibert)
    assert (results.failed, results.attempted) == (0, 3)
