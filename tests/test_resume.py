"""A run that was stopped at any moment goes on to the same bits, or says why it cannot."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from minibert import pipeline, preparation
from minibert.artifacts import locked
from minibert.errors import ArtifactError, DivergenceError, ResumeError
from minibert.fingerprints import read_trace
from minibert.progress import Progress
from minibert.record import read_record, record_settings, write_record
from minibert.settings import RunSettings, replace_setting
from minibert.streams import stream
from minibert.training.checkpoint import FOLDER
from minibert.training.step import TrainingStep
from minibert.verify import verify
from tests import faults
from tests.runs import STEPS, fingerprint_seldom, small_settings, write_texts

slow = pytest.mark.slow
CHECKPOINT_STEPS, EPOCH_STEPS = 3, 5
WORKERS = 2


def outcome(directory: Path) -> dict[str, Any]:
    """Everything that a run computed: its files and figures without wall times and dates."""
    record = read_record(directory)
    traces = {path.name: path.read_bytes() for path in sorted((directory / "trace").iterdir())}
    metrics = [line for line in (directory / "metrics.csv").read_text().splitlines() if "seconds," not in line]
    return {
        "files": sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*")),
        "status": record["status"],
        "stages": without_seconds(record["stages"]),
        "metrics": metrics,
        "traces": traces,
        "vocabulary": (directory / "vocabulary.txt").read_bytes(),
        "models": {path.name: weights_sha256(path) for path in sorted(directory.glob("*.keras"))},
    }


def without_seconds(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {name: without_seconds(value) for name, value in figures.items() if not name.endswith("seconds")}
    return [without_seconds(value) for value in figures] if isinstance(figures, list) else figures


def weights_sha256(path: Path) -> str:
    """SHA-256 of the weights in a Keras file; its configuration names objects by their addresses, and its text layer
    has a name that Keras counts up.
    """
    digest = hashlib.sha256()

    def add(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            digest.update(f"{name} {found.dtype} {found.shape} ".encode() + np.asarray(found).tobytes())

    with zipfile.ZipFile(path) as parts, h5py.File(io.BytesIO(parts.read("model.weights.h5"))) as weights:
        weights.visititems(add)
    return digest.hexdigest()


# Killed after every step, and at every file


def serve(jobs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Runs jobs in processes of their own; the results by id."""
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, str(script), str(WORKERS)],
        input="".join(json.dumps(job) + "\n" for job in jobs),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(jobs)
    return {result["id"]: result for result in results}


def moment_of(stage: str, step: int) -> str:
    """When a step's process is killed: one of the moments after the update, drawn once for ever."""
    if step % CHECKPOINT_STEPS and step % EPOCH_STEPS:
        return "after the step"
    moments = ("after the step", "half a checkpoint", "before its name", "after the checkpoint")
    return moments[int(stream(0, "kill", stage, step).words(1)[0] % 4)]


KILLS: dict[str, dict[str, Any]] = {
    f"{stage} {step}": {"stage": stage, "step": step, "moment": moment_of(stage, step)}
    for stage, steps in STEPS.items()
    for step in range(1, steps + 1)
} | {
    "before the first step of frozen": {"stage": "frozen", "step": 1, "moment": "before the step"},
    "before the first step of unfrozen": {"stage": "unfrozen", "step": 1, "moment": "before the step"},
    "second record": {"name": "run.json", "count": 2},
    "last record": {"name": "run.json", "count": 15},
    **{name: {"name": name, "count": 1} for name in ("masked_lm.keras", "classifier.keras", "end_to_end.keras",
                                                     "metrics.csv")},
}  # fmt: skip


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run for every kill, killed and then resumed, and the run that nobody killed."""
    folder = tmp_path_factory.mktemp("killed")
    common = {"settings": small_settings(checkpoint_steps=CHECKPOINT_STEPS).to_dict(), "resume": False, "kill": None}
    jobs = [common | {"id": name, "directory": str(folder / name), "kill": kill} for name, kill in KILLS.items()]
    whole = common | {"id": "whole", "directory": str(folder / "whole")}
    first = serve([whole, *jobs])
    assert first.pop("whole")["exit_code"] == 0
    assert {name: result["exit_code"] for name, result in first.items()} == dict.fromkeys(KILLS, -signal.SIGKILL)
    for name in KILLS:
        shutil.copytree(folder / name, folder / "as killed" / name)
    second = serve([job | {"resume": True, "kill": None} for job in jobs])
    assert {name: result["error"] for name, result in second.items()} == dict.fromkeys(KILLS, "")
    return folder


@slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", KILLS)
def test_a_killed_run_resumes_to_the_same_bits(name: str, killed_and_resumed: Path) -> None:
    killed = read_record(killed_and_resumed / "as killed" / name)
    assert killed["status"] == "running"
    expected = outcome(killed_and_resumed / "whole")
    assert expected["status"] == "complete"
    assert "weights_sha256" in expected["stages"]["unfrozen"]
    assert "optimizer_sha256" in expected["stages"]["unfrozen"]
    assert outcome(killed_and_resumed / name) == expected
    assert verify(killed_and_resumed / name, against=killed_and_resumed / "whole").verdict == "exact"


@slow
@pytest.mark.timeout(1800)
def test_the_kills_left_what_kills_leave(killed_and_resumed: Path) -> None:
    """Fifty steps, each killed at a moment after its update; halves and wholes without their names among them."""
    kills = [kill for kill in KILLS.values() if "stage" in kill and kill["moment"] != "before the step"]
    assert len(kills) == sum(STEPS.values()) == 50
    moments = {kill["moment"] for kill in kills}
    assert moments == {"after the step", "half a checkpoint", "before its name", "after the checkpoint"}
    left = [path.name for path in (killed_and_resumed / "as killed").rglob(".*")]
    assert len([name for name in left if name.endswith(".safetensors")]) >= 2
    assert {name.rpartition(".")[2] for name in left} >= {"safetensors", "json", "keras", "csv"}


@slow
@pytest.mark.timeout(1800)
def test_an_unbroken_run_in_a_forked_process_is_that_of_this_process(killed_and_resumed: Path, small_run: Path) -> None:
    assert outcome(killed_and_resumed / "whole") == outcome(small_run)


@slow
@pytest.mark.timeout(900)
def test_a_killed_run_with_other_masks_in_every_epoch_resumes_to_the_same_bits(tmp_path: Path, small_run: Path) -> None:
    kills = {f"pretrain {step}": KILLS[f"pretrain {step}"] for step in (4, 5, 6, 10, 13, 19, 20)}
    settings = small_settings("masking.static=false", checkpoint_steps=CHECKPOINT_STEPS).to_dict()
    common = {"settings": settings, "resume": False, "kill": None}
    jobs = [common | {"id": name, "directory": str(tmp_path / name), "kill": kill} for name, kill in kills.items()]
    first = serve([common | {"id": "whole", "directory": str(tmp_path / "whole")}, *jobs])
    assert first.pop("whole")["exit_code"] == 0
    assert {result["exit_code"] for result in first.values()} == {-signal.SIGKILL}
    second = serve([job | {"resume": True, "kill": None} for job in jobs])
    assert {result["error"] for result in second.values()} == {""}
    for name in kills:
        assert outcome(tmp_path / name) == outcome(tmp_path / "whole")
    static, other = (read_trace(run / "trace/pretrain.trace") for run in (small_run, tmp_path / "whole"))
    ids = static.header.batch.index("token_ids")
    same = static.rows["batch"][:, ids] == other.rows["batch"][:, ids]
    assert same[:EPOCH_STEPS].all()  # static masking is epoch 0 for ever
    assert not same[EPOCH_STEPS:].any()


# Stopped in this process, without labels: the default tests


class Stop(BaseException):
    """Stops a run where a signal would."""


def stopping(_: TrainingStep) -> None:
    raise Stop


def stop_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    faults.before_step("pretrain", step, stopping)(monkeypatch)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unlabelled run, stopped after 7 of its 16 steps: checkpoints at 4 (an epoch's end) and 6."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as monkeypatch:
        stop_before(monkeypatch, 7)
        with pytest.raises(Stop):
            pipeline.run(small_settings(), directory=folder / "run", data=write_texts(folder / "texts.csv"))
    assert checkpoint_steps(folder / "run") == [4, 6]
    return folder / "run"


def checkpoint_steps(directory: Path) -> list[int]:
    return [int(path.name.split("-")[2]) for path in sorted((directory / FOLDER).glob("*.safetensors"))]


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


class Notes(Progress):
    """Keeps what a user would be told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def resume(directory: Path, settings: RunSettings | None = None, *, progress: Progress | None = None) -> Any:
    data = read_record(directory)["data"]
    return pipeline.run(settings or small_settings(), directory=directory, data=data, resume=True, progress=progress)


@pytest.mark.long
def test_a_stopped_run_goes_on_to_the_same_bits(copy: Path, unlabelled_run: Path) -> None:
    (copy / ".run.0123abcd.json").write_text("half a rec")
    (copy / FOLDER / ".0-pretrain-00000009-x.0123abcd.safetensors").write_bytes(b"half")
    assert resume(copy) == read_record(copy)
    assert outcome(copy) == outcome(unlabelled_run)


@pytest.mark.long
def test_a_run_with_fingerprints_at_some_steps_goes_on_with_them(
    unlabelled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two such steps, and gone on with as it began, whatever is asked for."""
    texts, seldom = unlabelled_run.parent / "texts.csv", fingerprint_seldom(monkeypatch, 5)
    pipeline.run(seldom, directory=tmp_path / "whole", data=texts)
    with monkeypatch.context() as stopped:
        stop_before(stopped, 7)
        with pytest.raises(Stop):
            pipeline.run(seldom, directory=tmp_path / "run", data=texts)
    notes = Notes()
    resume(tmp_path / "run", small_settings(), progress=notes)
    assert "the run goes on with record.fingerprinted_steps=by_device, as it began" in notes.lines
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    traces = [(tmp_path / name / "trace" / "pretrain.trace").read_bytes() for name in ("run", "whole")]
    assert traces[0] == traces[1]
    assert read_trace(tmp_path / "run" / "trace" / "pretrain.trace").header.interval == 5


def test_a_run_goes_on_with_its_own_data(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "execute", lambda prepared, **_: prepared.record["data"])
    data = read_record(copy)["data"]
    assert Path(data).name == "texts.csv"
    assert pipeline.run(small_settings(), directory=copy, resume=True) == data


@pytest.mark.long
def test_weights_that_diverge_in_an_epochs_last_step_are_not_kept(
    tmp_path: Path, unlabelled_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, healthy = tmp_path / "run", TrainingStep.__call__

    def diverging(self: Any, number: int, batch: Any) -> Any:
        result = healthy(self, number, batch)
        if number == 3:
            variable = self.objective.variables[0]
            variable.assign(np.full(variable.shape, np.nan, dtype=np.float32))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "__call__", diverging)
        with pytest.raises(DivergenceError, match=r"pretrain, epoch 1: a finite weight \S+ is required, but nan came"):
            pipeline.run(small_settings(), directory=run, data=write_texts(tmp_path / "texts.csv"))
    assert checkpoint_steps(run) == [3]
    resume(run)
    assert outcome(run) == outcome(unlabelled_run)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1], marks=pytest.mark.long),
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        pytest.param(lambda content: b"", marks=pytest.mark.long),
    ],
    ids=["cut", "one bit flipped", "emptied"],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    damage: Any, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = max((copy / FOLDER).glob("*.safetensors"))
    path.write_bytes(damage(path.read_bytes()))
    begun: list[int] = []

    def stop(self: Any, number: int, batch: Any) -> None:
        begun.append(number)
        raise Stop

    monkeypatch.setattr(TrainingStep, "__call__", stop)
    notes = Notes()
    with pytest.raises(Stop):
        resume(copy, progress=notes)
    assert begun == [4]
    (line,) = notes.lines
    assert line.startswith(f"{path}: damaged")
    assert line.endswith("the checkpoint before it is used")
    assert not path.exists()
    assert path.with_name(f"{path.name}.damaged").exists(), "it is kept for whoever wants to look at it"


@pytest.mark.long
def test_from_the_checkpoint_before_a_damaged_one_the_bits_are_the_same(copy: Path, unlabelled_run: Path) -> None:
    path = max((copy / FOLDER).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    resume(copy)
    assert outcome(copy) == outcome(unlabelled_run)


@slow
def test_before_its_first_checkpoint_a_run_begins_anew(stopped: Path, unlabelled_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        stop_before(monkeypatch, 2)
        with pytest.raises(Stop):
            pipeline.run(small_settings(), directory=run, data=stopped.parent / "texts.csv")
    assert not (run / FOLDER).exists()
    assert read_trace(run / "trace" / "pretrain.trace").rows["step"].tolist() == [0, 1]
    resume(run)
    assert outcome(run) == outcome(unlabelled_run)


# Damaged files: named, and nothing is changed


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def assert_left_as_it_is(directory: Path, kind: type[ArtifactError], message: str) -> None:
    """Resuming is refused with this message, and no file is touched."""
    before = contents(directory)
    with pytest.raises(kind) as refusal:
        resume(directory)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert contents(directory) == before


def test_with_every_checkpoint_damaged_a_run_is_not_begun_anew(copy: Path) -> None:
    paths = sorted((copy / FOLDER).glob("*.safetensors"))
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):  # the second time, too
        assert_left_as_it_is(
            copy, ResumeError, f"a whole checkpoint is required, but every one is damaged: {paths[1]}, {paths[0]}"
        )


def test_with_every_checkpoint_gone_a_run_is_not_begun_anew(copy: Path) -> None:
    shutil.rmtree(copy / FOLDER)
    assert_left_as_it_is(copy, ResumeError, "run.json has the stage 'pretrain', but there is none")


def first_line_cut(content: bytes, rows: int) -> bytes:
    return content[:40]


def rows_cut(content: bytes, rows: int) -> bytes:
    return content[: -rows * 2]


def row_edited(content: bytes, rows: int) -> bytes:
    place = content.index(b"\n") + 2 * rows
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def name_edited(content: bytes, rows: int) -> bytes:
    return content.replace(b"activation word", b"activation wort", 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(
            first_line_cut, "a fingerprint trace is required, but its first line is not right", marks=pytest.mark.long
        ),
        pytest.param(rows_cut, "6 steps are required, but 5 are there", marks=pytest.mark.long),
        (row_edited, "of row 1 does not fit: it was edited"),
        (name_edited, "field 'checksum' of row 0 does not fit: it was edited"),
    ],
)
def test_a_damaged_trace_is_named(damage: Any, message: str, copy: Path) -> None:
    trace = copy / "trace" / "pretrain.trace"
    trace.write_bytes(damage(trace.read_bytes(), read_trace(trace).header.row.itemsize))
    assert_left_as_it_is(copy, ArtifactError, f"{trace}: ")
    assert_left_as_it_is(copy, ArtifactError, message)


def test_a_trace_of_another_run_is_named(copy: Path, small_run: Path) -> None:
    """Whole, with the same names: but not the trace up to the checkpoint."""
    trace = copy / "trace" / "pretrain.trace"
    shutil.copy(small_run / "trace" / "pretrain.trace", trace)
    message = f"{trace}: the trace of the checkpoint after step 6 is required, but another is there"
    assert_left_as_it_is(copy, ArtifactError, message)


def test_a_damaged_vocabulary_is_named(copy: Path) -> None:
    path = copy / "vocabulary.txt"
    path.write_bytes(path.read_bytes()[:-1])
    assert_left_as_it_is(copy, ArtifactError, f"{path}: the record's field 'vocabulary_sha256' does not fit")


def test_a_checkpoint_of_another_run_is_named(copy: Path) -> None:
    """The record was exchanged for one of another learning rate, which is what is asked for."""
    settings = replace_setting(small_settings(), "pretrain.learning_rate=0.1")
    record = read_record(copy)
    resolved = replace_setting(record_settings(record, copy), "pretrain.learning_rate=0.1")
    write_record(copy, record | {"settings": resolved.to_dict(), "settings_digest": resolved.digest()})
    before = contents(copy)
    with pytest.raises(ResumeError) as refusal:
        resume(copy, settings)
    path = max((copy / FOLDER).glob("*.safetensors"))
    assert str(refusal.value) == (
        f"resume: a checkpoint of the run in run.json is required, but {path} is of one with other settings"
    )
    assert contents(copy) == before


@pytest.mark.parametrize("damage", ["cut", pytest.param("gone", marks=slow)])
@pytest.mark.slow
def test_a_damaged_file_of_a_finished_stage_is_named(damage: str, small_run: Path, tmp_path: Path) -> None:
    """Stopped in the second stage, with the first one's model and trace behind it."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        faults.before_step("frozen", 4, stopping)(monkeypatch)
        with pytest.raises(Stop):
            pipeline.run(small_settings(), directory=run)
    for name in ("masked_lm.keras", "trace/pretrain.trace"):
        path, content = run / name, (run / name).read_bytes()
        path.write_bytes(content[:-1]) if damage == "cut" else path.unlink()
        expected = "the checkpoint's field 'sha256' does not fit" if damage == "cut" else "but it is missing"
        assert_left_as_it_is(run, ArtifactError, f"{path}: ")
        assert_left_as_it_is(run, ArtifactError, expected)
        path.write_bytes(content)
    resume(run)
    assert outcome(run) == outcome(small_run)


# Refused


def assert_refused(directory: Path, message: str, settings: RunSettings | None = None, data: Any = None) -> None:
    before = contents(directory)
    with pytest.raises(ResumeError) as refusal:
        pipeline.run(
            settings or small_settings(),
            directory=directory,
            data=data or read_record(directory)["data"],
            resume=True,
        )
    assert str(refusal.value).startswith("resume: what the run computes has changed: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert contents(directory) == before


def test_a_run_that_another_process_writes_is_left_as_it_is(copy: Path) -> None:
    (copy / ".run.0123abcd.json").write_text("half a rec")
    with locked(copy, wait=False):
        message = f"{copy}: a place that no other process writes to is required, but one does"
        assert_left_as_it_is(copy, ArtifactError, message)


def test_what_has_changed_is_said_before_the_texts_are_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "open_corpus", lambda *_, **__: pytest.fail("they are read"))
    assert_refused(copy, "setting seed was 0 and is 1", replace_setting(small_settings(), "seed=1"))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("masking.selection_rate=0.2", "setting masking.selection_rate was 0.15 and is 0.2"),
        ("seed=1", "setting seed was 0 and is 1"),
        ("pretrain.epochs=5", "setting pretrain.epochs was 4 and is 5"),
        ("model.precision=mixed_bfloat16", "setting model.precision was 'float32' and is 'mixed_bfloat16'"),
    ],
)
def test_other_settings_are_refused(assignment: str, message: str, stopped: Path) -> None:
    assert_refused(stopped, message, replace_setting(small_settings(), assignment))


@pytest.mark.slow
def test_how_often_checkpoints_are_written_may_change(copy: Path, unlabelled_run: Path) -> None:
    resume(copy, small_settings(checkpoint_steps=50))
    assert outcome(copy) == outcome(unlabelled_run)


def test_another_corpus_is_refused(stopped: Path, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.csv")
    texts.write_text(texts.read_text(encoding="utf-8").replace("awesome", "awful", 1), encoding="utf-8")
    assert_refused(stopped, "the corpus' digest was ", data=texts)


def test_a_corpus_with_another_number_of_words_is_refused_as_another_corpus(copy: Path, tmp_path: Path) -> None:
    """With the recorded settings, as the command takes them; the number of words is no setting of anybody's."""
    texts = tmp_path / "texts.csv"
    texts.write_text("text\n" + "".join(f"a film {number % 7} that was {'good' * 3}\n" for number in range(40)))
    recorded = record_settings(read_record(copy), copy / "run.json")
    assert recorded.masking.vocabulary_size is not None
    assert_refused(copy, "has changed: the corpus' digest was ", recorded, data=texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["code"].update({"masking.py": "0"}), "the code of masking.py changed"),
        (lambda record: record["code"].update({"new.py": "0"}), "the code of new.py changed"),
        (lambda record: record["environment"]["packages"].update(tensorflow="2.0.0"),
         "package tensorflow was 2.0.0 and is "),
        (lambda record: record["environment"]["packages"].update(numpy=None), "package numpy was None and is "),
        (lambda record: record["environment"]["threads"].update(intra_op=7), "threads.intra_op was 7 and is 0"),
        (lambda record: record["environment"]["cpu"].update(model="8086"), "cpu.model was '8086' and is "),
        (lambda record: record["environment"]["variables"].update(TF_ENABLE_ONEDNN_OPTS="0"),
         "variables.TF_ENABLE_ONEDNN_OPTS was '0' and is None"),
    ],
    ids=["code", "new module", "TensorFlow", "NumPy", "threads", "processor", "oneDNN"],
)  # fmt: skip
def test_other_code_packages_and_machines_are_refused(change: Any, message: str, copy: Path) -> None:
    record = read_record(copy)
    change(record)
    write_record(copy, record)
    assert_refused(copy, message)


def test_everything_that_changed_is_named(copy: Path) -> None:
    record = read_record(copy)
    record["code"]["masking.py"] = "0"
    write_record(copy, record)
    settings = replace_setting(replace_setting(small_settings(), "seed=1"), "pretrain.learning_rate=0.1")
    with pytest.raises(ResumeError, match=r"setting pretrain.learning_rate .*; setting seed .*; the code of masking"):
        resume(copy, settings)


def test_a_hash_seed_is_no_reason_to_refuse(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = read_record(copy)
    record["environment"]["variables"]["PYTHONHASHSEED"] = "123"
    write_record(copy, record)
    monkeypatch.setattr(pipeline, "execute", lambda *_, **__: "goes on")
    assert resume(copy) == "goes on"


def test_a_damaged_record_is_not_resumed(copy: Path) -> None:
    path = copy / "run.json"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"run.json: JSON is required"):
        pipeline.run(small_settings(), directory=copy, resume=True)


def test_a_folder_without_a_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a run directory with a run.json is required"):
        pipeline.run(small_settings(), directory=tmp_path, resume=True)


def test_a_run_in_a_folder_is_not_overwritten(stopped: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a new or empty folder is required .*; --resume goes on with the run"):
        pipeline.run(small_settings(), directory=stopped)


def test_a_complete_run_is_left_as_it_is(unlabelled_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(unlabelled_run, tmp_path / "run"))
    before = outcome(copy)
    (copy / FOLDER).mkdir()
    (copy / FOLDER / f"0-pretrain-00000016-{'0' * 64}.safetensors").write_bytes(b"left by a kill at the very end")
    notes = Notes()
    assert resume(copy, progress=notes) == read_record(unlabelled_run)
    assert notes.lines == [f"{copy} is complete; nothing is left to do"]
    assert outcome(copy) == before


@pytest.mark.parametrize("change", ["settings", "code", "corpus"])
def test_a_complete_run_is_not_the_answer_to_something_else(change: str, unlabelled_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(unlabelled_run, tmp_path / "run"))
    texts, settings = write_texts(tmp_path / "texts.csv"), small_settings()
    if change == "settings":
        settings, message = replace_setting(settings, "seed=1"), "setting seed was 0 and is 1"
    elif change == "code":
        record = read_record(copy)
        record["code"]["masking.py"], message = "0", "the code of masking.py changed"
        write_record(copy, record)
    else:
        texts.write_text(texts.read_text(encoding="utf-8").replace("awesome", "awful", 1), encoding="utf-8")
        message = "the corpus' digest was "
    before = contents(copy)
    with pytest.raises(ResumeError) as refusal:
        pipeline.run(settings, directory=copy, data=texts, resume=True)
    assert str(refusal.value).startswith("resume: the run is complete, but what it computes has changed: ")
    assert message in str(refusal.value)
    assert contents(copy) == before


# A disk that fills up


@contextlib.contextmanager
def full_disk(folder: Path, size: int) -> Iterator[None]:
    """A folder that takes so many bytes in all; where it cannot be had, so many in one file."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    is_mounted = shutil.which("mount") and not subprocess.run(mount, check=False, capture_output=True).returncode
    if is_mounted:
        try:
            yield
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
            shutil.copytree(folder, folder.with_name("kept"))
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        shutil.copytree(folder.with_name("kept"), folder, dirs_exist_ok=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(  # at its fullest the folder has some 478 kB
    "kilobytes", [pytest.param(size, marks=slow) for size in (16, 100, 200, 300, 400, 440, 460)]
)
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    kilobytes: int, tmp_path: Path, unlabelled_run: Path
) -> None:
    run, texts = tmp_path / "disk" / "run", write_texts(tmp_path / "texts.csv")
    with full_disk(tmp_path / "disk", kilobytes * 1024):
        with pytest.raises(ArtifactError) as failure:
            pipeline.run(small_settings(), directory=run, data=texts)
        print(f"{kilobytes} kB: {failure.value}")
        assert str(failure.value).startswith(f"{run}")
        assert "it cannot be written: the disk is full" in str(failure.value) or "File too large" in str(failure.value)
        assert "\n" not in str(failure.value)
        assert not list(run.rglob(".*"))
    if (run / "run.json").exists():
        resume(run)
    else:
        shutil.rmtree(run)
        pipeline.run(small_settings(), directory=run, data=texts)
    assert outcome(run) == outcome(unlabelled_run)


# Ctrl-C and SIGTERM


@slow
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stop_is_one_line_that_says_how_to_go_on(number: int, code: int, word: str, tmp_path: Path) -> None:
    words = ["run", "tiny", "--out", str(tmp_path / "run"), "--set", "corpus.train_examples=96",
             "corpus.test_examples=32", "record.checkpoint_steps=1", "text.sequence_length=32"]  # fmt: skip
    command = [sys.executable, "-m", "minibert"]
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "from minibert.__main__ import main\n"
        "sys.exit(main())\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list((tmp_path / "run").glob(f"{FOLDER}/*.safetensors")) and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(number)
    out, error = run.communicate()
    assert (run.returncode, out) == (code, ""), error
    assert error.splitlines()[-1] == f"minibert: {word}; resume with: minibert {shlex.join([*words, '--resume'])}"
    assert "Traceback" not in error
    again = subprocess.run([*command, *words, "--resume"], check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    whole = [word.replace(str(tmp_path / "run"), str(tmp_path / "whole")) for word in words]
    subprocess.run([*command, *whole], check=True, capture_output=True)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
