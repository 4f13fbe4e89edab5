"""The benchmarks measure what they say: the same task on every side, and rows that say how they came about."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from minibert.errors import DeviceError

ROOT = Path(__file__).parents[1]
# Last, so that the package that is installed stays the one that is tested.
sys.path.append(str(ROOT))
arithmetic, peers, peers_picture, peers_table, workers, workloads = (
    importlib.import_module(f"benchmarks.{name}")
    for name in ("arithmetic", "peers", "peers_picture", "peers_table", "workers", "workloads")
)

ROW_KEYS = {"shape", "step", "peer", "ratio", "ours_seconds", "peer_seconds", "peak_bytes", "matrix_rate_fraction"}
SIDE = {"device": "cpu", "processor": "a processor", "cores": 2, "threads": None, "versions": {"keras": "3.15.1"}}
FACTS: dict[str, Any] = {
    "shape": "imdb",
    "step": "masked_lm",
    "peer": "notebook",
    "masked_tokens": 780.0,
    "ours_first_call_seconds": 5.0,
    "peer_first_call_seconds": 4.0,
    "peak_bytes": 1_200_000_000,
    "peer_peak_bytes": 3_200_000_000,
    "environment": {"ours": SIDE, "peer": SIDE},
}


def made_up_row() -> Any:
    measured = peers_table.Measured(
        ours=[0.2, 0.25, 0.3], theirs=[2.4, 2.5, 2.1], rates=[2.0e11, 2.2e11, 2.1e11], others=[0.02, None, 0.06]
    )
    return peers_table.make_row(measured, FACTS)


# Arithmetic


@pytest.mark.parametrize(
    ("step", "rows", "flops"),
    [
        # For each of 32 x 256 tokens: query, key and value 2 x 128 x 384 = 98,304, scores and weighted values
        # 4 x 256 x 128 = 131,072, output 2 x 128 x 128 = 32,768, feed-forward 4 x 128 x 128 = 65,536.
        # In all 8,192 x 327,680 = 2,684,354,560, and three times that with both gradients; a selected
        # position takes 6 x 128 x 30,000 = 23,040,000.
        ("masked_lm", 780, 8_053_063_680 + 780 * 23_040_000),
        ("masked_lm", 0, 8_053_063_680),
        # The dense layers take 2 x 32 x 128 x 64 = 524,288 and 2 x 32 x 64 = 4,096 forward.
        ("frozen", 0, 2_684_354_560 + 2 * 524_288 + 3 * 4_096),
        ("unfrozen", 0, 8_053_063_680 + 3 * 524_288 + 3 * 4_096),
    ],
)
def test_arithmetic_of_a_step_is_that_of_a_hand_count(step, rows, flops):
    assert arithmetic.step_flops(workloads.shape_settings("imdb"), step, rows=rows) == flops


def test_matrix_rate_is_a_rate():
    assert arithmetic.MatrixRate().flops_per_second() > 1e8


# The same task on every side


@pytest.fixture(scope="module")
def without_dropout():
    settings = workloads.shape_settings("tiny")
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, dropout_rate=0.0))


def test_notebook_and_ours_have_the_same_loss_on_the_same_weights(without_dropout):
    notebook_models = importlib.import_module("benchmarks.notebook_models")
    ours = workloads.OurStep(without_dropout, "masked_lm")
    notebook = notebook_models.NotebookStep(without_dropout, "masked_lm")
    notebook_models.copy_weights(ours.model, notebook.model)
    losses = [(ours(number), notebook(number)) for number in range(3)]
    assert losses[0][0] == pytest.approx(losses[0][1], rel=1e-5)
    # Adam's first updates are signs, so what little the gradients differ by shows where they are near 0.
    assert [loss for loss, _ in losses] == pytest.approx([loss for _, loss in losses], rel=1e-3)


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


def test_pytorchs_losses_are_the_same_gathered_or_not(without_dropout):
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
        pytest.skip("not run: torch or transformers is not installed (the extra `peers` has them)")
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


# Rows, table and picture


def test_a_row_has_the_keys_that_others_read_and_the_figures_of_its_pairs():
    row = dataclasses.asdict(made_up_row())
    assert row.keys() >= ROW_KEYS
    assert row["ratio"] == pytest.approx(10.0)
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert (row["ours_seconds"], row["peer_seconds"]) == (0.25, 2.4)
    assert row["matrix_rate_fraction"] == pytest.approx(row["flops"] / 2.1e11 / 0.25)
    assert json.loads(json.dumps(row)) == row


def test_what_was_not_run_says_why(monkeypatch, capsys):
    monkeypatch.setattr(peers, "missing_module", lambda side: "torch")
    assert peers.main(["--peer", "pytorch", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["shape"], row["ratio"], row["not_run"]) for row in rows] == [
        ("imdb", None, "torch is not installed"),
        ("amazon", None, "torch is not installed"),
    ]
    assert peers.main(["--peer", "pytorch"]) == 0
    assert capsys.readouterr().out.count("not run: torch is not installed") == 2


def test_table_and_picture_show_every_row():
    rows = [
        made_up_row(),
        peers_table.Row(shape="imdb", step="masked_lm", peer="pytorch", not_run="torch is not installed"),
    ]
    table = peers_table.markdown(rows)
    assert "| imdb | masked LM | notebook | **10.0×** (" in table
    assert (
        "float32 matrix rate 210 GFLOP/s; median of 3 interleaved pairs; other processes took up to 4% of the cores"
        in table
    )
    drawn = peers_picture.picture([dataclasses.asdict(row) for row in rows], peers_table.STEP_NAMES)
    svg = "{http://www.w3.org/2000/svg}"
    tree = ElementTree.fromstring(drawn)
    assert len(list(tree.iter(f"{svg}rect"))) == 1
    assert any("torch is not installed" in (text.text or "") for text in tree.iter(f"{svg}text"))


def test_quartiles_of_few_values():
    assert peers_table.quartiles([2.0]) == (2.0, 2.0, 2.0)
    assert peers_table.quartiles([1.0, 2.0, 3.0]) == (1.5, 2.0, 2.5)


# What does not count


@pytest.mark.parametrize("losses", [[5.0, float("nan")], [5.0] * 8, [5.0] * 4 + [6.0] * 4])
def test_a_step_that_does_not_train_gives_no_figures(losses):
    with pytest.raises(workers.WorkerError, match=r"is required|are required"):
        peers.require_training("notebook", "masked_lm", losses)


def test_a_device_that_computes_something_else_gives_no_figures():
    peers.require_same_losses("cuda", [7.0, 6.0], [7.0001, 6.0])
    with pytest.raises(DeviceError, match=r"--device cuda: the CPU's loss 6\.000000 is required in step 1"):
        peers.require_same_losses("cuda", [7.0, 6.01], [7.0, 6.0])
    with pytest.raises(DeviceError):
        peers.require_same_losses("cuda", [float("nan")], [7.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "0"], "--pairs: 1 or more is required, but 0 came"),
        (["--picture", "a.png"], "--picture: a name that ends in .svg is required, but 'a.png' came"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    assert peers.main(arguments) == 2
    assert message in capsys.readouterr().err


# The whole command


def run_peers(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.peers", "--shape", "tiny", "--quick", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
def test_quick_run_measures_every_step_of_the_notebook(tmp_path):
    done = run_peers("--json", "--pairs", "2", "--picture", str(tmp_path / "ratios.svg"))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["step"], row["peer"], row["pairs"]) for row in rows] == [
        (step, "notebook", 2) for step in workloads.STEPS
    ]
    assert all(row["ratio"] > 0 and row["peak_bytes"] > 1e8 and row["not_run"] is None for row in rows)
    ElementTree.parse(tmp_path / "ratios.svg")


@pytest.mark.slow
def test_a_missing_device_is_named_and_fails_where_it_is_required():
    tensorflow = importlib.import_module("tensorflow")
    if tensorflow.config.list_physical_devices("GPU"):
        pytest.skip("not run: there is a GPU")
    done = run_peers("--device", "cuda", "--require-device")
    assert done.returncode == DeviceError.exit_code
    assert "--device cuda: TensorFlow" in done.stderr
    done = run_peers("--device", "cuda")
    assert done.returncode == 0
    assert done.stdout.count("not run: --device cuda") == 3
