"""The step with Keras on JAX and on PyTorch: the same masks, weights and first loss as TensorFlow's.

What is not installed is not run, and says so: such a test is reported as skipped, with its reason, or fails in ``tox -e
peers``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
backends, backend_measuring, checks, installed, stored, workers, workloads = (
    importlib.import_module(f"benchmarks.{name}")
    for name in ("backends", "backend_measuring", "checks", "installed", "stored", "workers", "workloads")
)


ROW = {
    "backend": "jax",
    "device": "cuda",
    "device_name": "a GPU",
    "shape": "large",
    "precision": "bfloat16",
    "compiled": False,
    "deterministic": False,
    "seconds": 0.02,
    "synchronized_seconds": 0.021,
    "tokens": 16_384,
    "peak_bytes": 1,
    "matrix_rate_fraction": 0.5,
    "matrix_flops_per_second": 7e14,
    "first_call_seconds": 30.0,
    "device_peak_bytes": 2 * 10**10,
    "loss_distance": 1e-4,
}
UNDER = {"processor": "p", "cores": 2, "instruction_sets": [], "versions": {"jax": "1"}, "date": "d", "gpu": ["G"]}


def run_backends(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.backends", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False, env=os.environ)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_first_loss_on_another_backend_is_tensorflows(backend):
    installed.require_installed(backend)
    done = run_backends("--backend", backend, "--shape", "tiny", "--turns", "1", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["loss_distance"] < 1e-5
    assert len(row["losses"]) == 2 * workloads.PREPARED_BATCHES
    assert 0 < row["floor_seconds"] < row["seconds"]
    assert row["seconds"] > 0
    assert row["matrix_rate_fraction"] > 0


def test_stored_first_loss_is_this_tensorflows():
    backend_steps = importlib.import_module("benchmarks.backend_steps")
    wanted = stored.Results(backends.FIRST_LOSSES, ("shape",)).find(shape="tiny")["losses"][0]
    assert backend_steps.first_loss(workloads.shape_settings("tiny")) == pytest.approx(wanted, rel=1e-6)


def test_every_shape_has_stored_losses_and_a_stored_start():
    results = stored.Results(backends.FIRST_LOSSES, ("shape",))
    for shape in (*workloads.SHAPES, backends.LARGE):
        row = results.find(shape=shape)
        assert set(row["start"]) == {"batches", "weights", "dropout"}
        assert all(5 < loss < 12 for loss in row["losses"])
        assert len(row["losses"]) == (1 if shape == backends.LARGE else 2 * workloads.PREPARED_BATCHES)


def test_another_loss_in_any_step_gives_no_figures():
    task = {"backend": "jax", "device": "cpu", "shape": "tiny", "precision": "float32"}
    losses = stored.Results(backends.FIRST_LOSSES, ("shape",)).find(shape="tiny")["losses"]

    def changed(factor, step=5):
        return [loss * factor if number == step else loss for number, loss in enumerate(losses)]

    assert backends.require_losses(task, losses) == 0.0
    assert backends.require_losses(task, changed(1 + 5e-6)) == pytest.approx(5e-6, rel=1e-3)
    with pytest.raises(checks.WrongLossError, match=r"a loss within 1e-05 of 7\.40\d+ is required in step 5, but 7\.4"):
        backends.require_losses(task, changed(1 + 2e-5))
    with pytest.raises(checks.WrongLossError, match="in step 0, but nan came"):
        backends.require_losses(task, changed(float("nan"), step=0))
    assert backends.require_losses({**task, "precision": "bfloat16"}, changed(1.0005)) == pytest.approx(5e-4)
    assert backends.require_losses({**task, "shape": "none"}, losses) is None


@pytest.mark.parametrize("name", ["batches", "weights", "dropout"])
def test_another_start_gives_no_figures(name):
    task = {"backend": "jax", "device": "cpu", "shape": "tiny"}
    start = stored.Results(backends.FIRST_LOSSES, ("shape",)).find(shape="tiny")["start"]
    backends.require_start(task, start)
    message = rf"{name} of SHA-256 {start[name][:16]}\.\.\. are required, but 0+\.\.\. came"
    with pytest.raises(checks.WrongLossError, match=message):
        backends.require_start(task, {**start, name: "0" * 64})
    with pytest.raises(checks.WrongLossError, match=rf"{name} of SHA-256"):
        backends.require_start(task, {other: digest for other, digest in start.items() if other != name})


def test_stored_start_is_this_tensorflows():
    backend_steps = importlib.import_module("benchmarks.backend_steps")
    start = backend_steps.BackendStep(workloads.shape_settings("tiny")).start_digests()
    backends.require_start({"backend": "tensorflow", "device": "cpu", "shape": "tiny"}, start)


def test_tensorfloat32_is_refused_where_it_is_float32(capsys):
    arguments = ["--backend", "torch", "--precision", "tensorfloat32"]
    assert backends.main(arguments) == 2
    assert "--precision tensorfloat32: --device cuda is required, but cpu came" in capsys.readouterr().err


class FakeTorch:
    """What `backend_measuring.set_up` asks of PyTorch."""

    def __init__(self, obeys=True):
        self.obeys, self.precision, self.deterministic = obeys, None, False
        self.set_float32_matmul_precision = lambda precision: setattr(self, "precision", precision)

    def use_deterministic_algorithms(self, mode):
        self.deterministic = mode and self.obeys

    def are_deterministic_algorithms_enabled(self):
        return self.deterministic


@pytest.mark.parametrize(("precision", "products"), [("float32", "highest"), ("tensorfloat32", "high")])
def test_a_backend_is_told_precision_and_determinism(precision, products, monkeypatch):
    monkeypatch.setattr(backend_measuring, "require_device", lambda *_: "a GPU")
    task = {"backend": "torch", "device": "cuda", "precision": precision, "deterministic": True}
    torch = FakeTorch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert backend_measuring.set_up(task) == "a GPU"
    assert (torch.precision, torch.deterministic) == (products, True)
    monkeypatch.setitem(sys.modules, "torch", FakeTorch(obeys=False))
    with pytest.raises(
        backends.DeviceError, match="--backend torch: its switch for determinism is not as it was asked"
    ):
        backend_measuring.set_up(task)
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    with pytest.raises(backends.DeviceError, match="--backend jax: its switch for determinism"):
        backend_measuring.set_up({**task, "backend": "jax"})


class FakeTensorFlowOptions:
    """As ``tf.config.experimental`` where a GPU's products are TensorFloat-32, as they are by default."""

    products, deterministic = True, False

    def enable_tensor_float_32_execution(self, allowed):
        self.products = allowed

    def enable_op_determinism(self):
        self.deterministic = True


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("precision", backends.PRECISIONS)
def test_tensorflow_is_told_precision_and_determinism(precision, deterministic, monkeypatch):
    options = FakeTensorFlowOptions()
    tensorflow = SimpleNamespace(config=SimpleNamespace(experimental=options))
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    monkeypatch.setattr(backend_measuring, "require_device", lambda *_: "a GPU")
    monkeypatch.setattr(backend_measuring, "is_deterministic", lambda _: options.deterministic)
    task = {"backend": "tensorflow", "device": "cuda", "precision": precision, "deterministic": deterministic}
    assert backend_measuring.set_up(task) == "a GPU"
    assert (options.products, options.deterministic) == (precision == "tensorfloat32", deterministic)


def test_a_backends_own_switch_is_set_before_it_is_imported(monkeypatch):
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": "--xla_a=1"})
    task = {"backend": "jax", "device": "cuda", "precision": "tensorfloat32", "deterministic": True}
    backends.choose_backend({**task, "shares_device": True})
    assert os.environ == {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cuda",
        "JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "XLA_FLAGS": "--xla_a=1 --xla_gpu_deterministic_ops=true",
    }
    monkeypatch.setattr(os, "environ", {})
    backends.choose_backend({**task, "backend": "torch"})
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_padding_rows_have_no_weight():
    backend_steps = importlib.import_module("benchmarks.backend_steps")
    batches = workloads.masked_lm_batches(workloads.shape_settings("tiny"))
    padded = backend_steps.of_equal_shape(batches)
    assert len({tuple((name, array.shape) for name, array in batch.items()) for batch in padded}) == 1
    for batch, wide in zip(batches, padded, strict=True):
        assert "example_ids" not in wide
        assert wide["sample_weight"].sum() == batch["sample_weight"].sum()
        assert np.array_equal(wide["labels"][: len(batch["labels"])], batch["labels"])


def test_large_shape_is_bert_base_at_length_512():
    settings = backend_measuring.large_settings()
    assert (settings.model.hidden_size, settings.model.blocks, settings.text.sequence_length) == (768, 12, 512)
    bfloat16 = backend_measuring.settings_of({"shape": "large", "precision": "bfloat16"})
    assert bfloat16.model.precision == "mixed_bfloat16"


GRADIENT = """
import sys

from benchmarks import backends

backends.choose_backend({"backend": sys.argv[1], "device": "cpu", "precision": "bfloat16"})
import numpy as np

from benchmarks.backend_measuring import with_precision
from benchmarks.backend_steps import BackendStep
from benchmarks.workloads import masked_lm_batches, shape_settings

settings, moments = shape_settings("amazon"), []
for precision in ("float32", "bfloat16"):
    step = BackendStep(with_precision(settings, precision))
    step.run(0, 1)
    moments.append(next(a for name, a in step.optimizer_state().items() if "word_embedding" in name))
places = int((masked_lm_batches(settings)[0]["token_ids"] == 0).sum())
wide, narrow = (moment[0].astype(np.float64) for moment in moments)
print(places, np.linalg.norm(narrow - wide) / np.linalg.norm(wide))
"""
"""Adam's first moment after its first step is a tenth of the gradient: padding's in bfloat16 beside float32."""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_paddings_gradient_is_bfloat16s_and_no_worse(backend):
    """Added up in bfloat16, a thousand places are 27 % off on JAX."""
    installed.require_installed(backend)
    command = [sys.executable, "-c", GRADIENT, backend]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    places, distance = map(float, done.stdout.split())
    assert places > 1000
    assert 0 < distance < 0.05


@pytest.mark.slow
def test_the_step_on_tensorflow_is_the_packages_own_and_waits_at_the_end_only(monkeypatch):
    backend_steps, step = (
        importlib.import_module(name) for name in ("benchmarks.backend_steps", "minibert.training.step")
    )
    settings = workloads.shape_settings("tiny")
    pretrain = dataclasses.replace(settings.pretrain, embedding_second_moment="word")
    ours = workloads.OurStep(dataclasses.replace(settings, pretrain=pretrain), "masked_lm", fingerprints=False)
    known = [ours(number) for number in range(5)]
    made = backend_steps.BackendStep(settings)
    monkeypatch.delattr(step.TrainingStep, "__call__")  # it fetches
    assert made.run(0, 5) == pytest.approx(known, rel=1e-5)
    made._on.updated().assign_add(np.full(made._on.updated().shape, np.nan, np.float32))
    with pytest.raises(checks.WrongLossError, match="tensorflow: finite weights are required after step 6"):
        made.run(5, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--backend: one of jax, torch, tensorflow is required, but none came"),
        (["--backend", "jax", "--turns", "0"], "--turns: 1 or more is required, but 0 came"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    assert backends.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_missing_backend_is_said_and_fails_where_it_is_required(monkeypatch, capsys):
    def missing(task, *, alone):
        raise backends.DeviceError("--backend jax: it is not installed")

    monkeypatch.setattr(backends, "measure_apart", missing)
    assert backends.main(["--backend", "jax"]) == 0
    assert "not run: --backend jax: it is not installed" in capsys.readouterr().err
    assert backends.main(["--backend", "jax", "--require-device"]) == backends.DeviceError.exit_code


@pytest.mark.parametrize("error", [checks.WrongLossError("another loss"), workers.WorkerError("its process ended")])
def test_what_fails_leaves_the_others_alone_and_the_command_fails(error, monkeypatch, capsys):
    def measured(task, *, alone):
        if task["shape"] == "imdb":
            raise error
        return {**ROW, "shape": task["shape"], "conditions": UNDER}

    monkeypatch.setattr(backends, "measure_apart", measured)
    assert backends.main(["--backend", "jax"]) == 1
    out, err = capsys.readouterr()
    assert f"failed: {error}" in err
    assert "| jax | a GPU | amazon |" in out


def test_kept_rows_are_printed_as_a_table(tmp_path, capsys):
    stored.Results(tmp_path / "b.json", backends.KEYS).keep(ROW, under=UNDER)
    assert backends.main(["--table", str(tmp_path / "b.json")]) == 0
    out = capsys.readouterr().out
    assert backends.named({**ROW, "compiled": True, "deterministic": True}) == "jax, torch.compile, deterministic"
    assert "| jax | a GPU | large | bfloat16 | **20.0 ms** | 21.0 ms | 819,200 | 0.500 of 700.00 TFLOP/s |" in out
    assert "p, 2 cores, G; jax 1; d." in out
