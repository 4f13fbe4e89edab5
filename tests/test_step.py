"""A step is traced once, gives the same bits every time, and is Adam on the gradient of its objective."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from minibert.batches import MaskedLMBatches
from minibert.errors import RepeatabilityError, SettingsError
from minibert.fingerprints import ACTIVATION_TURNS, CPU_INTERVAL, GPU_INTERVAL, TURNS
from minibert.model.heads import ClassifierObjective, MaskedLMObjective
from minibert.settings import ModelSettings
from minibert.training import execution
from minibert.training import step as training_step
from minibert.training.state import optimizer_arrays, set_optimizer, set_weights, state_digest, weight_arrays
from minibert.training.step import TrainingStep
from minibert.training.tensor_fingerprints import fingerprints
from tests import faults, oracles, small_models
from tests.closeness import deviation
from tests.executed_graphs import racing_nodes
from tests.small_models import MASKING, SETTINGS


class Run:
    """A masked language model and its step, which can be put back to their beginning.

    Attributes:
        executed: `racing_nodes` of its first step, by which TensorFlow has made what it runs.
    """

    def __init__(self, settings: ModelSettings = SETTINGS, **options: Any) -> None:
        self.model = small_models.build(settings)
        self.objective = MaskedLMObjective(self.model, reduction="sum")
        options = {"fingerprint_interval": 1, **options}  # of every step, on a GPU too
        self.step = TrainingStep(self.objective, learning_rate=0.001, seed=0, stage="pretrain", **options)
        self._weights, self._optimizer = weight_arrays(self.model.variables), optimizer_arrays(self.step.optimizer)
        self.executed = racing_nodes(lambda: self.train(range(1)))
        self.reset()

    def reset(self) -> None:
        set_weights(self.model.variables, self._weights, source="start")
        set_optimizer(self.step.optimizer, self._optimizer, source="start")

    def digests(self) -> tuple[str, str]:
        return (
            state_digest(weight_arrays(self.model.variables)),
            state_digest(optimizer_arrays(self.step.optimizer)),
        )

    def train(self, steps: range) -> list[tuple[int, list[int]]]:
        batches = small_models.masked_lm_batches()
        results = [self.step(number, batches.batch(number)) for number in steps]
        return [(result.loss_bits, result.fingerprint.tolist()) for result in results]


@pytest.fixture(scope="module")
def shared_run():
    return Run()


@pytest.fixture
def run(shared_run):
    shared_run.reset()
    return shared_run


def test_what_tensorflow_makes_of_it_has_no_sum_that_races(run):
    """It rewrites a graph before it runs it, and joins additions into sums where it knows their shapes."""
    sums, racing = run.executed
    assert sums == 5, (
        "two gradients at the input of attention and of feed-forward, in two blocks, and at the selected rows"
    )
    assert racing == []


def test_it_is_traced_once_for_batches_of_all_sizes(run):
    batches = small_models.masked_lm_batches()
    sizes = {len(batches.batch(step)["token_ids"]) for step in range(3)}
    assert sizes == {8, 6}, "the last batch of an epoch is smaller"
    run.train(range(3))
    everything = MaskedLMBatches(
        small_models.token_ids(),
        seed=0,
        masking=MASKING.__class__(vocabulary_size=small_models.VOCABULARY_SIZE, selection_rate=1.0),
        batch_size=22,
    ).batch(0)
    assert len(everything["positions"]) > len(batches.batch(0)["positions"])
    run.step(3, everything)
    assert run.step.trace_count == 1


@pytest.mark.parametrize(("gpus", "is_on", "is_refused"), [(1, False, True), (1, True, False), (0, False, False)])
def test_a_gpu_without_the_switch_for_determinism_is_refused(
    gpus: int, is_on: bool, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, TensorFlow adds an embedding's gradients as they come: two steps from one state were different ones."""
    model = small_models.build(SETTINGS)
    step = TrainingStep(MaskedLMObjective(model, reduction="sum"), learning_rate=0.001, seed=0, stage="pretrain")
    before = state_digest(weight_arrays(model.variables))
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind] * gpus)
    monkeypatch.setattr(training_step.config, "is_op_determinism_enabled", lambda: is_on)
    message = r"^training step: on a GPU, tf\.config\.experimental\.enable_op_determinism\(\) is required"
    with pytest.raises(RepeatabilityError, match=message) if is_refused else contextlib.nullcontext():
        step(0, small_models.masked_lm_batches().batch(0))
    assert (state_digest(weight_arrays(model.variables)) == before) is is_refused


def test_a_step_without_fingerprints_trains_the_same_variables_to_the_same_bits(run):
    losses, known = [bits for bits, _ in run.train(range(3))], run.digests()
    run.reset()
    plain, batches = run.step.without_fingerprints(), small_models.masked_lm_batches()
    results = [plain(number, batches.batch(number)) for number in range(3)]
    assert ([result.loss_bits for result in results], run.digests()) == (losses, known)
    assert all(result.fingerprint.size == 0 for result in results)
    assert (plain.trace_count, run.step.trace_count) == (1, 1)
    run.reset()
    assert len(run.train(range(1))[0][1]) == len(run.step.fingerprint_names)


def test_between_two_steps_with_fingerprints_one_trains_to_the_same_bits_without(run):
    known, known_digests = run.train(range(7)), run.digests()
    seldom, batches = Run(fingerprint_interval=3), small_models.masked_lm_batches()
    results = [seldom.step(number, batches.batch(number)) for number in range(7)]
    assert [result.loss_bits for result in results] == [bits for bits, _ in known]
    assert seldom.digests() == known_digests
    for number, (result, (_, fingerprint)) in enumerate(zip(results, known, strict=True)):
        assert result.fingerprint.dtype == np.int32
        assert result.fingerprint.tolist() == (fingerprint if number % 3 == 0 else [0] * len(fingerprint))
        assert result.fingerprint.flags.writeable
    header = run.step.trace_header(batches.batch(0))
    assert seldom.step.trace_header(batches.batch(0)) == dataclasses.replace(header, interval=3)
    sizes = [seldom.step.begin(number, batches.batch(number))[1].shape[0] for number in range(7, 13)]
    assert sizes == [0, 0, len(fingerprint), 0, 0, len(fingerprint)], "between, none is computed"
    assert seldom.step.trace_count == 2, "with fingerprints and without, for all steps"
    assert [has_fingerprints(graph) for graph in seldom.step.graphs] == [True, False]


def has_fingerprints(graph: Any) -> bool:
    return any(kind == "Fingerprint" for kind, *_ in operations(graph))


def test_a_graph_without_fingerprints_that_may_race_is_refused_before_the_first_update(monkeypatch):
    run, looked_at = Run(), []

    def refusing(graph: Any) -> None:
        looked_at.append(has_fingerprints(graph))
        if not looked_at[-1]:
            raise RepeatabilityError("planted")

    monkeypatch.setattr(training_step, "require_repeatable", refusing)
    step = TrainingStep(run.objective, learning_rate=0.001, seed=0, stage="pretrain", fingerprint_interval=3)
    before = run.digests()[0]
    with pytest.raises(RepeatabilityError, match="planted"):
        step(0, small_models.masked_lm_batches().batch(0))
    assert looked_at == [True, False]
    assert run.digests()[0] == before


def test_a_step_without_fingerprints_that_may_race_as_executed_is_undone(monkeypatch):
    """It is executed before the first step, and undone anyway."""
    run, looked_at = Run(), []
    run.step = TrainingStep(run.objective, learning_rate=0.001, seed=0, stage="pretrain", fingerprint_interval=3)
    before = run.digests()

    def of_a_step_without(graphs: list[Any]) -> list[str]:
        looked_at.append(any(b"Fingerprint" in graph.definition.SerializeToString() for graph in graphs))
        return [] if looked_at[-1] else ["planted"]

    monkeypatch.setattr(execution, "hazards_of", of_a_step_without)
    monkeypatch.setattr(execution, "refuse", refuse_planted)
    with pytest.raises(RepeatabilityError, match="planted"):
        run.train(range(1))
    assert (run.digests(), looked_at) == (before, [False])


def refuse_planted(hazards: list[Any], what: str) -> None:
    if hazards:
        raise RepeatabilityError(f"{what}: {hazards}")


def test_an_interval_of_fingerprints_below_one_is_refused(run):
    with pytest.raises(SettingsError, match="fingerprint_interval: an integer from 1 to"):
        TrainingStep(run.objective, learning_rate=0.001, seed=0, stage="pretrain", fingerprint_interval=0)


@pytest.mark.parametrize(("gpus", "asked", "interval"), [(0, None, 7), (1, None, 37), (1, 1, 1), (0, 5, 5)])
def test_one_step_in_7_has_fingerprints_and_on_a_gpu_one_in_37(gpus, asked, interval, run, monkeypatch):
    """There a step with them takes a quarter longer; neither has a divisor in common with the turns, a power of two."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind] * gpus)
    step = TrainingStep(run.objective, learning_rate=0.001, seed=0, stage="pretrain", fingerprint_interval=asked)
    assert step.fingerprint_interval == interval
    assert {math.gcd(CPU_INTERVAL * GPU_INTERVAL, turns) for turns in (TURNS, ACTIVATION_TURNS)} == {1}


XLA_COMPILATIONS = """
import json, os, sys
from pathlib import Path
dump, checkout = sys.argv[1:]
sys.path.append(checkout)
os.environ["XLA_FLAGS"] = f"--xla_dump_to={dump} --xla_dump_hlo_as_text"
from minibert.batches import MaskedLMBatches
from minibert.errors import RepeatabilityError
from minibert.model.heads import MaskedLMObjective
from minibert.settings import MaskingSettings
from minibert.training.step import TrainingStep
from tests import small_models
masking = MaskingSettings(vocabulary_size=small_models.VOCABULARY_SIZE, selection_rate=0.8)
batches = MaskedLMBatches(small_models.token_ids(), seed=0, masking=masking, batch_size=16)
step = TrainingStep(
    MaskedLMObjective(small_models.build(), reduction="sum"), learning_rate=0.001, seed=0, stage="pretrain"
)
for number in range(8 * batches.steps_per_epoch):
    batch = batches.batch(number)
    step(number, batch)
    compiled = len(list(Path(dump).glob("*.before_optimizations.txt")))
    print(json.dumps([[len(batch[name]) for name in ("token_ids", "positions", "row_of_query")], compiled]))
"""
"""The shape of each step's batch, and how many modules XLA has compiled so far: it writes each into a folder."""


@pytest.mark.slow
def test_xla_compiles_its_groups_once_for_a_shape(tmp_path):
    """That the step is traced once says nothing about its compiled groups, which are compiled for each shape."""
    command = [sys.executable, "-c", XLA_COMPILATIONS, str(tmp_path), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)  # XLA reads its flags once
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    shapes = [tuple(shape) for shape, _ in steps]
    assert len(set(shapes)) > 2
    assert len({examples for examples, _, _ in shapes}) == 2
    assert len({queries // examples for examples, _, queries in shapes}) == 2, "8 or 16 queries of an example"
    added = np.diff([0, *(compiled for _, compiled in steps)])
    is_new = np.array([shape not in shapes[:number] for number, shape in enumerate(shapes)])
    assert added[0] > 1
    assert (added[~is_new] == 0).all()
    assert (added <= added[0]).all(), "a shape takes no more than every group"


def test_the_same_steps_give_the_same_bits(run):
    trace, digests = run.train(range(4)), run.digests()
    for _ in range(3):
        run.reset()
        assert run.train(range(4)) == trace
        assert run.digests() == digests


def test_steps_after_a_restart_give_the_same_bits(run):
    trace, digests = run.train(range(5)), run.digests()
    run.reset()
    run.train(range(2))
    weights, optimizer = weight_arrays(run.model.variables), optimizer_arrays(run.step.optimizer)
    run.reset()
    set_weights(run.model.variables, weights, source="checkpoint")
    set_optimizer(run.step.optimizer, optimizer, source="checkpoint")
    assert run.train(range(2, 5)) == trace[2:]
    assert run.digests() == digests


@pytest.mark.long
def test_fingerprints_change_no_weight(run):
    trace, digests = run.train(range(3)), run.digests()
    bare = Run(fingerprints=False)
    without = bare.train(range(3))
    assert [loss for loss, _ in without] == [loss for loss, _ in trace]
    assert all(fingerprint == [] for _, fingerprint in without)
    assert bare.digests() == digests


def test_fingerprints_are_hashes_of_bytes_named_in_the_order_of_computation(run):
    batch = small_models.masked_lm_batches().batch(0)
    before = weight_arrays(run.objective.variables)
    result = run.step(0, batch)
    names = run.step.fingerprint_names
    kinds = [name.partition(" ")[0] for name in names]
    assert kinds == sorted(kinds), "activations, then gradients, then weights"
    assert len(result.fingerprint) == len(names) == len(set(names))
    assert result.fingerprint.dtype == np.int32
    found = dict(zip(names, result.fingerprint.tolist(), strict=True))
    gradients = [name for name in names if name.startswith("gradient")]
    assert gradients[0] == "gradient mlm_cls/bias", "the gradient is computed from the end"
    assert gradients[-1] == "gradient word_embedding/embeddings"
    after = {v.path: v.numpy() for v in run.objective.variables}
    for path, value in after.items():
        assert found[f"weight {path}"] == farm_hash(value), path
    words = before["word_embedding/embeddings"][batch["token_ids"]]
    assert found["activation word_embedding"] == farm_hash(words)


def farm_hash(array: np.ndarray) -> int:
    """Of the array's bytes as a string: the low 32 bits, signed."""
    return int(np.asarray(tf.fingerprint(tf.constant([array.tobytes()]))[0, :4]).view(np.int32)[0])


def fingerprint_of(array: np.ndarray, step: int | None) -> int:
    """One array's."""
    return int(fingerprints([tf.constant(array)], step).numpy()[0])


CHANGES = {
    "doubled": lambda x: x * 2,
    "negated": lambda x: -x,
    "transposed": lambda x: x.T.copy().reshape(x.shape),
    "rows in another order": lambda x: x[::-1],
    "two values swapped": lambda x: np.concatenate([x.reshape(-1)[[1, 0]], x.reshape(-1)[2:]]).reshape(x.shape),
    "one ulp more and one less": lambda x: (x.view(np.int32) + np.array([[1], [-1], [0]], np.int32)).view(np.float32),
    "all a bit larger": lambda x: np.nextafter(x, np.float32(np.inf)),
    "minus zero": lambda x: np.where(x == 0, np.float32(-0.0), x),
    "shifted by one place": lambda x: np.roll(x, 1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("columns", [2, 512])
def test_every_kind_of_change_changes_the_fingerprint(change, columns):
    value = np.arange(3 * columns, dtype=np.float32).reshape(3, columns)
    changed = CHANGES[change](value)
    assert changed.shape == value.shape
    assert fingerprint_of(changed, 0) != fingerprint_of(value, 0)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_fingerprint_is_farmhash(count):
    value = np.arange(1, count + 1, dtype=np.float32) / 3
    known = oracles.farm_hash_64(value.tobytes()) & 0xFFFFFFFF
    assert fingerprint_of(value, 0) % 2**32 == known


def turn_of(rows: int, step: int, most_turns: int) -> slice:
    """The rows that have their turn at a step."""
    turns = min(most_turns, 1 << (rows.bit_length() - 1))
    turn = step % turns
    return slice(rows * turn // turns, rows * (turn + 1) // turns)


@pytest.mark.parametrize(("rows", "turns"), [(1, 1), (3, 2), (32, 32), (33, 32), (48, 32), (70, 32)])
def test_a_large_activation_is_fingerprinted_by_turns_and_no_row_is_left_out(rows, turns):
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 2, 2_049]), tf.TensorSpec([], tf.int64)])
    def of_step(value, step):
        return fingerprints([value], step)[0]

    healthy = np.random.Generator(np.random.PCG64(0)).standard_normal((rows, 2, 2_049)).astype(np.float32)
    before = [int(of_step(healthy, step)) for step in range(turns)]
    assert before == [farm_hash(healthy[turn_of(rows, step, ACTIVATION_TURNS)]) for step in range(turns)]
    assert before == [int(of_step(healthy, step)) for step in range(turns, 2 * turns)]
    for row in range(rows):
        changed = healthy.copy()
        changed[row, 1, 7] = np.nextafter(changed[row, 1, 7], np.float32(np.inf))
        seen = [step for step in range(turns) if int(of_step(changed, step)) != before[step]]
        assert len(seen) == 1
        for interval in (CPU_INTERVAL, GPU_INTERVAL):
            assert seen[0] in [interval * number % turns for number in range(turns)]
        assert fingerprint_of(changed, None) == farm_hash(changed)


def test_of_tensors_of_several_lengths_no_row_is_left_out():
    kinds = [([None, 3, 800], tf.float32), ([None, 3, 800], tf.bfloat16), ([None, 2_100], tf.float32), ([], tf.int64)]
    generator = np.random.Generator(np.random.PCG64(1))
    words, few = (generator.standard_normal((rows, 100)).astype(np.float32) for rows in (700, 9))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(*kind) for kind in kinds])
    def of_step(examples, halves, others, step):
        return fingerprints([examples, tf.constant(words), halves, others, tf.constant(few)], step)

    for rows, other_rows in ((8, 5), (30, 61)):
        examples = generator.standard_normal((rows, 3, 800)).astype(np.float32)
        others = generator.standard_normal((other_rows, 2_100)).astype(np.float32)
        halves = tf.cast(examples, tf.bfloat16)
        rounded = tf.cast(halves, tf.float32).numpy()
        for step in range(ACTIVATION_TURNS + 1):
            turn = turn_of(max(rows, other_rows), step, ACTIVATION_TURNS)
            of_words = turn_of(len(words), step, TURNS)
            parts = [examples[turn], words[of_words], rounded[turn], others[turn], few]
            assert of_step(examples, halves, others, step).numpy().tolist() == [farm_hash(part) for part in parts]


def test_one_ulp_of_one_weight_changes_the_fingerprint(run):
    _, first = run.train(range(1))[0]
    run.reset()
    kernel = run.model.get_layer("mlm_cls").kernel
    value = kernel.numpy()
    value[3, 7] = np.nextafter(value[3, 7], np.float32(np.inf))
    kernel.assign(value)
    _, second = run.train(range(1))[0]
    pairs = zip(run.step.fingerprint_names, first, second, strict=True)
    changed = {name for name, one, two in pairs if one != two}
    assert "weight mlm_cls/kernel" in changed
    assert not any(name.startswith("activation") for name in changed)


def test_dropout_follows_the_step(run):
    batch, losses = small_models.masked_lm_batches().batch(0), []
    for number in (0, 1, 0):
        run.reset()
        losses.append(run.step(number, batch).loss_bits)
    assert losses[0] == losses[2] != losses[1]


def test_metrics_are_sums(run):
    batch = small_models.masked_lm_batches().batch(0)
    result = run.step(0, batch)
    assert set(result.metrics) == {"loss", "count"}
    assert result.metrics["count"] == batch["sample_weight"].sum()
    assert np.array(result.loss_bits, np.uint32).view(np.float32) == np.float32(result.metrics["loss"])


def test_it_learns(run):
    batch = small_models.masked_lm_batches().batch(0)
    losses = [run.step(0, batch).metrics["loss"] for _ in range(60)]
    assert losses[-1] < 0.9 * losses[0]


# Adam


class Linear:
    """Objective whose gradient is what the batch says."""

    def __init__(self, start: np.ndarray) -> None:
        self.variables = [tf_variable(start)]

    def __call__(self, batch):
        total = tf.reduce_sum(self.variables[0].value * batch["slopes"])
        return total, {"loss": total, "count": tf.constant(1.0)}, {}


def tf_variable(value: np.ndarray):
    return keras.Variable(value, name="weight")


def test_the_update_is_adams():
    generator = np.random.Generator(np.random.PCG64(0))
    start = generator.standard_normal(50).astype(np.float32)
    slopes = [(generator.standard_normal(50) * 10.0**power).astype(np.float32) for power in (0, -3, 2, -8, 0, 1)]
    slopes[1][:10] = 0.0
    objective = Linear(start)
    step = TrainingStep(objective, learning_rate=0.01, seed=0, stage="pretrain")
    for number, slope in enumerate(slopes):
        step(number, {"slopes": slope})
    known = oracles.adam(start, [slope.astype(np.float64) for slope in slopes], 0.01)
    assert deviation(objective.variables[0].numpy() - start, known - start) < 1e-5


class KerasAdam(keras.optimizers.Adam):
    """Keras' own update of dense gradients."""

    def apply_with_squares(self, gradients, squares, variables):
        self.apply(gradients, variables)


def operations(graph) -> list[tuple[str, ...]]:
    """Kind, name and inputs of every operation of a traced graph and of its functions, in order.

    Functions and captured variables are named by numbers that count up in a process, which are left out.
    """

    def listed(nodes) -> list[tuple[str, ...]]:
        captured: dict[str, int] = {}

        def plain(name: str) -> str:
            return re.sub(r"^\^?\d+", lambda found: f"capture {captured.setdefault(found[0], len(captured))}", name)

        return [(re.sub(r"_\d+$", "", node.op), *map(plain, [node.name, *node.input])) for node in nodes]

    def order(function) -> tuple[str, int]:
        name, _, number = function.signature.name.rpartition("_")
        return name, int(number)

    definition = graph.as_graph_def()
    bodies = [listed(function.node_def) for function in sorted(definition.library.function, key=order)]
    return [operation for body in [listed(definition.node), *bodies] for operation in body]


@pytest.mark.slow
def test_by_word_graph_and_bits_are_those_of_keras_own_adam(run, monkeypatch):
    batches, found = small_models.masked_lm_batches(), []
    for adam in (training_step.Adam, KerasAdam):
        monkeypatch.setattr(training_step, "Adam", adam)
        run.reset()
        step = TrainingStep(
            run.objective,
            learning_rate=0.001,
            seed=0,
            stage="pretrain",
            embedding_second_moment="word",
            fingerprint_interval=1,
        )
        assert racing_nodes(lambda: step(0, batches.batch(0))) == run.executed  # noqa: B023
        trace = [step(number, batches.batch(number)).fingerprint.tolist() for number in range(1, 4)]
        state = [state_digest(weight_arrays(run.model.variables)), state_digest(optimizer_arrays(step.optimizer))]
        found.append((operations(step.graph), trace, state))
    assert found[0] == found[1]
    run.reset()
    run.train(range(4))
    assert not set(run.digests()) & set(state), "by occurrence they are others"
    assert list(optimizer_arrays(run.step.optimizer)) == list(optimizer_arrays(step.optimizer))


# The classifier's step


@pytest.mark.long
def test_a_frozen_step_moves_the_head_alone_and_an_unfrozen_one_everything():
    classifier, batches = small_models.build_classifier(), small_models.classifier_batches()
    encoder, start = classifier.get_layer("encoder"), weight_arrays(classifier.variables)
    moved = {}
    for frozen in (True, False):
        set_weights(classifier.variables, start, source="start")
        objective = ClassifierObjective(classifier, encoder_trainable=not frozen)
        step = TrainingStep(objective, learning_rate=0.001, seed=0, stage="frozen" if frozen else "unfrozen")
        results = []
        sums, racing = racing_nodes(lambda: results.append(step(0, batches.batch(0))))  # noqa: B023
        assert (sums > 0, racing) == (not frozen, []), "a frozen encoder has no gradient to sum"
        assert set(results[0].metrics) == {"loss", "accuracy", "count"}
        after = weight_arrays(classifier.variables)
        moved[frozen] = {name for name, value in after.items() if not np.array_equal(value, start[name])}
    assert moved[True] == {"hidden/kernel", "hidden/bias", "logits/kernel", "logits/bias"}
    assert moved[False] > moved[True]
    assert {v.path for v in encoder.trainable_variables} <= moved[False]


@pytest.mark.long
def test_a_third_consumer_in_an_ordinary_block_is_refused_where_it_has_a_gradient(monkeypatch):
    faults.third_consumer(monkeypatch)
    classifier, batch = small_models.build_classifier(), small_models.classifier_batches().batch(0)
    for frozen in (True, False):
        objective = ClassifierObjective(classifier, encoder_trainable=not frozen)
        stage = "frozen" if frozen else "unfrozen"
        step = TrainingStep(objective, learning_rate=0.001, seed=0, stage=stage, fingerprint_interval=1)
        refused = pytest.raises(
            RepeatabilityError, match=r"3 gradients are added in a racing order .*encoder_1_multiheadattention"
        )
        with contextlib.nullcontext() if frozen else refused:
            step.trace(batch)
        assert (step.trace_count, bool(step.fingerprint_names)) == (1, True)


@pytest.mark.slow
def test_a_frozen_step_is_the_same_by_word_and_by_occurrence():
    classifier, batch = small_models.build_classifier(), small_models.classifier_batches().batch(0)
    for frozen in (True, False):
        objective, graphs = ClassifierObjective(classifier, encoder_trainable=not frozen), []
        for moment in ("occurrence", "word"):
            step = TrainingStep(objective, learning_rate=0.001, seed=0, stage="frozen", embedding_second_moment=moment)
            step.trace(batch)
            graphs.append(operations(step.graph))
        assert (graphs[0] == graphs[1]) == frozen, "the frozen one trains no embedding"


# Other settings


@pytest.mark.parametrize(
    ("changed", "tolerance"),
    [
        pytest.param({"padding_mask": True, "blocks": 1}, 0.2, marks=pytest.mark.long),
        pytest.param({"precision": "mixed_bfloat16"}, 0.03, marks=pytest.mark.slow),
    ],
)
def test_other_settings_train_too(run, changed, tolerance):
    """In bfloat16 the loss stays near float32's; the weights are float32 either way."""
    known = run.train(range(3))
    other = Run(dataclasses.replace(SETTINGS, **changed))
    found = other.train(range(3))
    losses = [np.array([bits for bits, _ in trace], np.uint32).view(np.float32) for trace in (found, known)]
    assert 0.0 < deviation(*losses) < tolerance
    assert other.executed[1] == []
    assert all(variable.dtype == "float32" for variable in other.model.trainable_variables)
    other.reset()
    assert other.train(range(3)) == found, "the same bits every time"
