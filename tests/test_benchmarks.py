"""The benchmarks measure what they say: the same task on every side, and nothing that computes something else."""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minibert.text import Vocabulary

ROOT = Path(__file__).parents[1]
# Last, so that the package that is installed stays the one that is tested.
sys.path.append(str(ROOT))
arithmetic, checks, installed, meter, workers, workloads = (
    importlib.import_module(f"benchmarks.{name}")
    for name in ("arithmetic", "checks", "installed", "meter", "workers", "workloads")
)


# What is not installed


def test_a_missing_module_is_said_or_fails(monkeypatch):
    monkeypatch.delenv(installed.REQUIRED, raising=False)
    installed.require_installed("numpy")
    with pytest.raises(pytest.skip.Exception, match="not run: not installed: no_such_a, no_such_b"):
        installed.require_installed("no_such_a", "numpy", "no_such_b")
    monkeypatch.setenv(installed.REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match=f"{installed.REQUIRED}: not installed: no_such_a"):
        installed.require_installed("no_such_a")


# Arithmetic


@pytest.mark.parametrize(
    ("step", "rows", "flops"),
    [
        # For each of 32 x 256 tokens: key and value 2 x 128 x 256 = 65,536, query 2 x 128 x 128 = 32,768, scores and
        # weighted values 4 x 256 x 128 = 131,072, output 2 x 128 x 128 = 32,768, feed-forward 4 x 128 x 128 = 65,536.
        # In all 8,192 x 327,680 = 2,684,354,560, and three times that with both gradients.
        # The masked-LM loss needs key and value of all, 8,192 x 65,536 = 536,870,912, and the rest, 262,144, of the
        # selected positions alone; each takes 6 x 128 x 30,000 = 23,040,000 in the projection too.
        ("masked_lm", 780, 3 * 536_870_912 + 780 * (3 * 262_144 + 23_040_000)),
        ("masked_lm", 0, 3 * 536_870_912),
        # The dense layers take 2 x 32 x 128 x 64 = 524,288 and 2 x 32 x 64 = 4,096 forward.
        ("frozen", 0, 2_684_354_560 + 2 * 524_288 + 3 * 4_096),
        ("unfrozen", 0, 8_053_063_680 + 3 * 524_288 + 3 * 4_096),
    ],
)
def test_arithmetic_of_a_step_is_that_of_a_hand_count(step, rows, flops):
    assert arithmetic.step_flops(workloads.shape_settings("imdb"), step, rows=rows) == flops


@pytest.mark.parametrize(
    ("answer", "texts", "flops"),
    [
        # Forward alone: the whole encoder and both dense layers, as above.
        ("classify", 32, 2_684_354_560 + 524_288 + 4_096),
        # Key and value of 256 tokens, the rest of one, which is projected to 30,000 words.
        ("fill_mask", 1, 256 * 65_536 + 262_144 + 2 * 128 * 30_000),
    ],
)
def test_arithmetic_of_an_answer_is_that_of_a_hand_count(answer, texts, flops):
    assert arithmetic.answer_flops(workloads.shape_settings("imdb"), answer, texts=texts) == flops


def test_only_the_last_block_is_for_the_selected_positions_alone():
    settings = workloads.shape_settings("imdb")
    deeper = dataclasses.replace(settings, model=dataclasses.replace(settings.model, blocks=3))
    more = arithmetic.step_flops(deeper, "masked_lm", rows=780) - arithmetic.step_flops(settings, "masked_lm", rows=780)
    assert more == 3 * 2 * 2_684_354_560


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_matrix_rate_is_a_rate(backend, monkeypatch):
    installed.require_installed(backend)
    monkeypatch.setitem(arithmetic.MATRIX_SIZES, "cpu", 64)
    for dtype in ("float32", "bfloat16"):
        assert arithmetic.MatrixRate(dtype, backend=backend).flops_per_second() > 1e5


# The same task on every side


@pytest.fixture(scope="module")
def without_dropout():
    settings = workloads.shape_settings("tiny")
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, dropout_rate=0.0))


@pytest.mark.long
def test_notebook_and_ours_have_the_same_loss_on_the_same_weights(without_dropout):
    notebook_models = importlib.import_module("benchmarks.notebook_models")
    ours = workloads.OurStep(without_dropout, "masked_lm")
    notebook = notebook_models.NotebookStep(without_dropout, "masked_lm")
    notebook_models.copy_weights(ours.model, notebook.model)
    losses = [(ours(number), notebook(number)) for number in range(3)]
    assert losses[0][0] == pytest.approx(losses[0][1], rel=1e-5)
    # Adam's first updates are signs, so what little the gradients differ by shows where they are near 0.
    assert [loss for loss, _ in losses] == pytest.approx([loss for _, loss in losses], rel=1e-3)


@pytest.mark.parametrize("switch", [False, True])
def test_on_a_gpu_our_step_is_a_runs_where_its_process_has_the_switch_for_determinism(switch, monkeypatch):
    """`pytest benchmarks` has it off for all sides: our step was refused there, so that none of its times came."""
    tf, training_step = importlib.import_module("tensorflow"), importlib.import_module("minibert.training.step")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    monkeypatch.setattr(training_step.config, "is_op_determinism_enabled", lambda: switch)
    ours = workloads.OurStep(workloads.shape_settings("tiny"), "frozen")
    assert np.isfinite(ours(0))
    assert bool(ours.training_step.fingerprint_names) is switch
    counts = [ours.training_step.trace_count, len(ours.training_step.graphs)]
    assert counts == ([2, 2] if switch else [1, 1]), "a run's has steps with fingerprints and without"


def test_whole_labels_restore_the_batch():
    settings = workloads.shape_settings("tiny")
    original = workloads.shape_token_ids(settings)
    for batch in workloads.masked_lm_batches(settings):
        token_ids, labels, weight = workloads.whole_labels(batch)
        assert np.array_equal(labels, original[batch["example_ids"]])
        assert np.array_equal(token_ids, batch["token_ids"])
        assert weight.sum() == batch["sample_weight"].sum()
        assert np.array_equal(labels[weight == 0], token_ids[weight == 0])


def test_shapes_have_as_many_selected_positions_as_real_text():
    for name, most, least in (("imdb", 830, 730), ("amazon", 430, 370)):
        batches = workloads.masked_lm_batches(workloads.shape_settings(name))
        assert least < workloads.selected_rows(batches) < most


def test_keras_hub_gets_the_selected_positions_up_to_its_count():
    keras_hub_models = importlib.import_module("benchmarks.keras_hub_models")
    batch = workloads.masked_lm_batches(workloads.shape_settings("tiny"))[0]
    _, labels, weight = workloads.whole_labels(batch)
    positions, found, found_weight = keras_hub_models.mask_positions(batch, 9)
    assert np.array_equal(found_weight.sum(axis=1), np.minimum(weight.sum(axis=1), 9))
    rows, places = np.nonzero(found_weight)
    assert np.array_equal(found[rows, places], labels[rows, positions[rows, places]])
    assert (weight[rows, positions[rows, places]] == 1).all()


def test_keras_hub_drops_out_no_attention_probabilities():
    """Its rate of dropout is that of the attention, too, where no other side draws random numbers."""
    tf, keras_hub = importlib.import_module("tensorflow"), importlib.import_module("keras_hub")
    keras_hub_models = importlib.import_module("benchmarks.keras_hub_models")
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=20, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=8, dropout=0.1,
        max_sequence_length=6,
    )  # fmt: skip
    ids = tf.ones((3, 6), tf.int32)
    inputs = {"token_ids": ids, "segment_ids": ids, "padding_mask": ids}

    def drawn() -> list[int]:
        """Axes of the random numbers that a training step draws."""
        graph = tf.function(lambda: backbone(inputs, training=True), autograph=False).get_concrete_function().graph
        return sorted(op.outputs[0].shape.rank for op in graph.get_operations() if "RandomUniform" in op.type)

    assert drawn() == [3] * 5 + [4] * 2, "embeddings, attention and feed-forward of two blocks; the probabilities"
    keras_hub_models.without_attention_dropout(backbone)
    assert drawn() == [3] * 5


def test_an_attention_that_still_drops_out_is_refused():
    class Another:
        """Has the names, but decides by something else."""

        def __init__(self):
            self._dropout, self._dropout_layer = 0.1, SimpleNamespace(rate=0.1)

        def __call__(self, query, value, training):
            return query * (0.5 if training else 1.0)

    keras_hub_models = importlib.import_module("benchmarks.keras_hub_models")
    layer = SimpleNamespace(name="layer 0", _self_attention_layer=Another())
    with pytest.raises(RuntimeError, match="layer 0: attention without dropout is required, but it drops"):
        keras_hub_models.without_attention_dropout(SimpleNamespace(hidden_dim=8, transformer_layers=[layer]))


@pytest.mark.long
def test_pytorchs_losses_are_the_same_gathered_or_not(without_dropout):
    installed.require_installed("torch", "transformers")
    torch_models = importlib.import_module("benchmarks.torch_models")
    gathered = torch_models.TorchStep(without_dropout, "masked_lm")
    full = torch_models.FullTorchStep(without_dropout, "masked_lm")
    full.model.load_state_dict(gathered.model.state_dict())
    assert [gathered(number) for number in range(3)] == pytest.approx([full(number) for number in range(3)], rel=1e-4)


@pytest.mark.slow
def test_keras_hubs_loss_is_that_of_its_probabilities_at_the_selected_positions(without_dropout):
    keras_hub_models = importlib.import_module("benchmarks.keras_hub_models")
    step = keras_hub_models.KerasHubStep(without_dropout, "masked_lm")
    features, labels, weight = step.batches[0]
    logits = np.asarray(step.model(features, training=False), dtype=np.float64)
    largest = logits.max(axis=-1)
    normalizer = largest + np.log(np.exp(logits - largest[..., None]).sum(axis=-1))
    losses = normalizer - np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    assert step(0) == pytest.approx((losses * weight).sum() / weight.sum(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["frozen", "unfrozen"])
@pytest.mark.parametrize("side", ["minibert", "notebook", "keras-hub", "pytorch"])
def test_every_sides_classifier_moves_what_it_trains(side, step):
    installed.require_installed(*workers.NEEDED.get(side, ()))
    made = workers.build_workload(side, workloads.shape_settings("tiny"), step, "cpu")
    before = checks.weight_digests(made.weights())
    losses = [made(number) for number in range(2 * workloads.PREPARED_BATCHES)]
    moved = checks.moved_rates(before, checks.weight_digests(made.weights()))
    checks.require_training(side, step, losses, moved)
    assert (moved["encoder"] > 0) == (step == "unfrozen")


@pytest.mark.parametrize("order", ["tensorflow, benchmarks.torch_models", "benchmarks.torch_models, tensorflow"])
def test_transformers_can_be_imported_beside_tensorflow(order):
    """PyTorch's wheels bring Triton, whose library ends a process that has TensorFlow's."""
    installed.require_installed("torch", "transformers")
    code = f"import {order}"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=200, check=False
    )
    assert found.returncode == 0, found.stderr[-2_000:]


def test_a_step_of_pytorch_is_on_the_device_that_is_asked_for(monkeypatch):
    asked, made = [], SimpleNamespace(TorchStep=lambda *given: given, OurStep=lambda *given: given)
    monkeypatch.setattr(workers.importlib, "import_module", {"benchmarks.torch_models": made}.get)
    monkeypatch.setattr(workers, "require_torch_device", asked.append)
    assert workers.build_workload("pytorch", "settings", "masked_lm", "cuda") == ("settings", "masked_lm", "cuda")
    assert asked == ["cuda"]
    monkeypatch.setattr(workers.importlib, "import_module", {"benchmarks.workloads": made}.get)
    assert workers.build_workload("minibert", "settings", "frozen", "cuda") == ("settings", "frozen")
    assert asked == ["cuda"], "TensorFlow's device is the process'"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tensorflows_sides_compute_in_float32_on_the_wanted_device(device, monkeypatch):
    from benchmarks import devices

    allowed, hidden, growing = [], [], []
    config = SimpleNamespace(
        experimental=SimpleNamespace(
            enable_tensor_float_32_execution=allowed.append, set_memory_growth=lambda *given: growing.append(given)
        ),
        set_visible_devices=lambda *given: hidden.append(given),
        list_physical_devices=lambda kind: [f"{kind}:0"],
    )
    tensorflow = SimpleNamespace(config=config, test=SimpleNamespace(is_built_with_cuda=lambda: True))
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    devices.claim_tensorflow_device(device)
    assert allowed == [False]
    assert (hidden, growing) == (([([], "GPU")], []) if device == "cpu" else ([], [("GPU:0", True)]))


# What does not count


BOTH, HEAD = {"encoder": 1.0, "head": 1.0}, {"encoder": 0.0, "head": 1.0}
FALLING = [5.0] * 4 + [4.0] * 4


@pytest.mark.parametrize(
    ("step", "losses", "moved", "message"),
    [
        ("masked_lm", [5.0, float("nan")], BOTH, "finite losses are required"),
        ("masked_lm", [5.0] * 8, BOTH, "a loss that falls is required"),
        ("masked_lm", [5.0] * 4 + [6.0] * 4, BOTH, "a loss that falls is required"),
        ("masked_lm", FALLING, HEAD, "an encoder that is trained is required, but none of its weights changed"),
        ("unfrozen", FALLING, HEAD, "an encoder that is trained is required, but none of its weights changed"),
        ("frozen", FALLING, {"encoder": 0.5, "head": 1.0}, "a held encoder is required, but 50% of its weights"),
        ("frozen", FALLING, {"encoder": 0.0, "head": 0.5}, "a head that is trained is required, but 50% of its"),
        ("frozen", [float("inf")] * 8, HEAD, "finite losses are required"),
    ],
)
def test_a_step_that_does_not_train_gives_no_figures(step, losses, moved, message):
    with pytest.raises(checks.WrongLossError, match=rf"notebook: {step}: {message}"):
        checks.require_training("notebook", step, losses, moved)


def test_a_step_that_trains_gives_figures():
    checks.require_training("notebook", "masked_lm", FALLING, BOTH)
    checks.require_training("notebook", "frozen", FALLING[::-1], HEAD)
    checks.require_training("notebook", "unfrozen", FALLING[::-1], {"encoder": 0.2, "head": 1.0})


def test_the_weights_that_moved_are_counted_by_part():
    weights = {"encoder": [np.zeros((2, 3)), np.zeros(4)], "head": [np.float32(1.0)]}
    before = checks.weight_digests(weights)
    weights["encoder"][1][2] = 1e-30
    assert checks.moved_rates(before, checks.weight_digests(weights)) == {"encoder": 0.5, "head": 0.0}


def test_a_device_that_computes_something_else_gives_no_figures():
    checks.require_same_losses("cuda", [7.0, 6.0], [7.0001, 6.0])
    with pytest.raises(checks.WrongLossError, match=r"--device cuda: the CPU's loss 6\.000000 is required in step 1"):
        checks.require_same_losses("cuda", [7.0, 6.01], [7.0, 6.0])
    with pytest.raises(checks.WrongLossError):
        checks.require_same_losses("cuda", [float("nan")], [7.0])


# Processes


def test_a_process_answers_orders_and_names_what_it_cannot_do():
    with workers.Child("a list", list, [1, 2, 2]) as child:
        assert child.ask("count", 2) == 2
        with pytest.raises(workers.WorkerError, match="a list: AttributeError: 'list' object has no attribute 'turn'"):
            child.ask("turn")
        assert child.ask("count", 1) == 1


def test_a_process_that_dies_is_named():
    with workers.Child("a side", os._exit, 3) as child, pytest.raises(workers.WorkerError) as raised:
        child.ask("turn")
    assert str(raised.value) == "a side: its process ended with code 3"
    with pytest.raises(workers.WorkerError, match="_exit: its process ended before it gave a result"):
        workers.run_apart(os._exit, 3)


def test_a_silent_process_is_ended(monkeypatch):
    monkeypatch.setattr(workers, "WAIT_SECONDS", 0.01)
    with workers.Child("a side", list, [1]) as child:
        with pytest.raises(workers.WorkerError, match=r"a side: no answer for 0\.01 s"):
            child.ask("count", 1)  # it has hardly started
        monkeypatch.setattr(workers, "WAIT_SECONDS", 60)
        with pytest.raises(workers.WorkerError, match="a side: its process ended"):
            child.ask("count", 1)


def test_a_result_or_an_error_comes_out_of_a_process():
    assert workers.run_apart(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        workers.run_apart(divmod, 7, 0)


@pytest.mark.long
def test_a_processs_peak_is_not_that_of_the_one_that_started_it(monkeypatch, tmp_path):
    held = np.ones(60_000_000)
    assert meter.peak_bytes() > held.nbytes
    assert workers.run_apart(meter.peak_bytes) < 0.6 * held.nbytes
    monkeypatch.setattr(meter, "_STATUS", tmp_path / "elsewhere")
    assert meter.peak_bytes() > held.nbytes


def _fill(side, count):
    held = []
    return lambda: held.append(np.ones(count))


def test_peak_memory_is_that_of_two_calls_in_a_process_that_does_nothing_else():
    small, large = (workers.peak_bytes_alone("minibert", None, _fill, count) for count in (1, 10_000_000))
    assert 150e6 < large - small < 200e6


def _text_work(side, *task):
    masking, encoding = (importlib.import_module(f"benchmarks.bench_{name}") for name in ("masking", "encoding"))
    settings, token_ids, texts, vocabulary = task
    works = (
        masking.masking_work(side, settings, token_ids, 32),
        encoding.learning_work(side, settings.text, texts),
        encoding.encoding_work(side, settings.text, texts, vocabulary),
    )

    def work():
        for each in works:
            each()
        assert not {"tensorflow", "torch", "keras"} & set(sys.modules)

    return work


def test_our_masking_and_encoding_are_measured_alone_without_a_framework():
    settings, texts = workloads.shape_settings("tiny"), ["some words", "more words"]
    token_ids = np.full((40, settings.text.sequence_length), 3)
    task = (settings, token_ids, texts, Vocabulary(("", "[UNK]", "some", "words", "[mask]")))
    assert workers.peak_bytes_alone("minibert", None, _text_work, *task) < 500e6


def _never(side):
    raise ValueError("it cannot be made")


def test_work_that_cannot_be_made_alone_names_its_side():
    with pytest.raises(workers.WorkerError, match="notebook: ValueError: it cannot be made"):
        workers.peak_bytes_alone("notebook", None, _never)


def test_a_side_names_its_own_packages_alone():
    assert list(workers.environment("notebook", "cpu")["versions"]) == ["tensorflow", "keras", "numpy", "keras-nlp"]
    assert workers.environment("minibert", "cpu")["versions"].keys() > {"minibert", "tensorflow"}
    assert workers.jit_compile("notebook") is False
    assert workers.jit_compile("bfloat16") == "elementwise groups only"
    assert workers.SIDES.keys() == workers._PACKAGES.keys()


def test_the_first_call_is_the_first_one_even_where_another_device_was_checked(monkeypatch):
    clock, measuring = iter(range(100)), importlib.import_module("benchmarks.measuring")
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: float(next(clock)) ** 2)
    monkeypatch.setattr(measuring, "build_workload", lambda *given: SimpleNamespace(weights=dict))
    steps = measuring.Steps("ours", "tiny", "masked_lm", "cpu")
    steps.workload = lambda number: 1.0 / (1 + number)
    assert math.isnan(steps.first_call_seconds)
    assert [steps() for _ in range(3)] == [1.0, 1 / 2, 1 / 3]
    assert steps.first_call_seconds == 1.0  # from 0 to 1; the second call took 5
