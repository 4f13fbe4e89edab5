"""Exact counters: the same code has the same ones, a change is named, and only a reason accepts it."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minibert.errors import ArtifactError, SettingsError
from minibert.perf import counters, counters_file
from minibert.perf.counters import KEYS, differences, peaks_of, versions
from minibert.perf.gate import judged_counters
from minibert.perf.operators import operator_histogram, product_flops
from minibert.perf.worker import Server

COUNTERS: dict[str, Any] = {
    "workload": "masked_lm_step[tiny]",
    "versions": "tensorflow 2.21 keras 3.15",
    "traces": 1,
    "operators": {"AddV2": 31, "MatMul": 14},
    "flops": 541_661_184,
    "forward_flops": 684_396_544,
    "parameters": 287_312,
    "array_bytes": 10_752,
    "device_peaks": {},
}
ROOT = Path(__file__).parents[1]
# Last, so that the package that is installed stays the one that is tested.
sys.path.append(str(ROOT))
step_flops: Any = importlib.import_module("benchmarks.flops").step_flops


def changed(**values: Any) -> dict[str, Any]:
    return {**COUNTERS, **values}


# Graphs


def node(op: str, **attributes: Any) -> Any:
    return SimpleNamespace(op=op, attr={name: Attribute(value) for name, value in attributes.items()})


class Attribute:
    """As protobuf's ``AttrValue``: one of several fields is set."""

    def __init__(self, value: Any) -> None:
        functions = [SimpleNamespace(name=name) for name in (value if isinstance(value, list) else [value])]
        self._field = "list" if isinstance(value, list) else "func"
        self.func, self.list = functions[0], SimpleNamespace(func=functions)

    def HasField(self, name: str) -> bool:  # noqa: N802  protobuf's name
        return name == self._field


def graph(nodes: list[Any], **functions: list[Any]) -> Any:
    library = [SimpleNamespace(signature=SimpleNamespace(name=name), node_def=body) for name, body in functions.items()]
    return SimpleNamespace(node=nodes, library=SimpleNamespace(function=library))


def test_operators_of_called_functions_count_at_every_place_that_calls_them() -> None:
    found = operator_histogram(
        graph(
            [node("MatMul"), node("PartitionedCall", f="inner"), node("PartitionedCall", f="inner")],
            inner=[node("Mul"), node("PartitionedCall", f="innermost")],
            innermost=[node("Add"), node("Add")],
            unused=[node("Sub")],
        )
    )
    assert found == {"Add": 4, "MatMul": 1, "Mul": 2, "PartitionedCall": 4}


def test_operators_of_branches_and_of_a_function_that_calls_itself_are_found() -> None:
    found = operator_histogram(
        graph(
            [node("Case", branches=["one", "two"]), node("While", body="again")],
            one=[node("Exp")],
            two=[node("Log")],
            again=[node("Neg"), node("PartitionedCall", f="again")],
        )
    )
    assert found == {"Case": 1, "Exp": 1, "Log": 1, "Neg": 1, "PartitionedCall": 1, "While": 1}


def test_operators_of_a_real_graph_are_the_same_whenever_it_is_traced() -> None:
    import tensorflow as tf

    def traced(products: int) -> Any:
        @tf.function(autograph=False)
        def inner(x: Any) -> Any:
            for _ in range(products):
                x = tf.linalg.matmul(x, x)
            return x

        @tf.function(autograph=False)
        def outer(x: Any) -> Any:
            return inner(x) + tf.cond(x[0, 0] > 0, lambda: inner(x), lambda: -x)

        return outer.get_concrete_function(tf.TensorSpec([4, 4], tf.float32)).graph.as_graph_def()

    first, again, more = (operator_histogram(traced(count)) for count in (2, 2, 3))
    assert first == again
    assert first["MatMul"] == 4
    old, new = ({**COUNTERS, "operators": found} for found in (first, more))
    assert differences(old, new) == ["MatMul 4 -> 6"]


@pytest.mark.parametrize("is_transposed", [False, True])
def test_products_of_a_graph_are_counted_with_every_dimension(is_transposed: bool) -> None:
    import tensorflow as tf

    def traced(*shapes: list[int | None]) -> Any:
        product = functools.partial(tf.linalg.matmul, transpose_a=is_transposed)
        return tf.function(product, autograph=False).get_concrete_function(*map(tf.TensorSpec, shapes)).graph

    def left(*shape: int | None) -> list[int | None]:
        return [*shape[:-2], *(shape[:-3:-1] if is_transposed else shape[-2:])]

    assert product_flops(traced(left(3, 5), [5, 7])) == 2 * 3 * 5 * 7
    assert product_flops(traced(left(2, 4, 3, 5), [2, 4, 5, 7])) == 2 * 8 * 3 * 5 * 7
    assert product_flops(traced(left(None, 5), [5, 7])) is None, "a product of nobody knows how many rows"


def test_products_inside_a_called_function_are_not_told() -> None:
    import tensorflow as tf

    inner = tf.function(lambda x: tf.linalg.matmul(x, x), autograph=False)
    outer = tf.function(lambda x: inner(x) + x, autograph=False)
    assert product_flops(outer.get_concrete_function(tf.TensorSpec([4, 4])).graph) is None
    assert product_flops(tf.function(lambda x: x + x).get_concrete_function(tf.TensorSpec([4, 4])).graph) == 0


@pytest.mark.parametrize(("then_multiplies", "flops"), [(False, 2 * 4 * 4 * 4), (True, None)])
def test_products_where_a_condition_holds_count(then_multiplies: bool, flops: int | None) -> None:
    import tensorflow as tf

    def run(x: Any) -> Any:
        x = tf.linalg.matmul(x, x)
        product = tf.function(lambda: tf.linalg.matmul(x, x), autograph=False)
        then = product if then_multiplies else (lambda: x)
        return tf.cond(tf.reduce_all(x > 0), then, product)

    traced = tf.function(run, autograph=False).get_concrete_function(tf.TensorSpec([4, 4]))
    assert product_flops(traced.graph) == flops


# Differences


def test_the_same_counters_do_not_differ() -> None:
    assert differences(COUNTERS, json.loads(json.dumps(COUNTERS))) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"operators": {"AddV2": 31, "MatMul": 16}}, ["MatMul 14 -> 16"]),
        ({"operators": {"AddV2": 31, "MatMul": 14, "Einsum": 2}}, ["Einsum 0 -> 2"]),
        ({"operators": {"AddV2": 31}}, ["MatMul 14 -> 0"]),
        ({"traces": 2}, ["traces 1 -> 2"]),
        ({"parameters": 287_313}, ["parameters 287,312 -> 287,313"]),
        ({"flops": None}, ["flops 541,661,184 -> none"]),
        (
            {"array_bytes": 21_504, "forward_flops": 1},
            ["forward_flops 684,396,544 -> 1", "array_bytes 10,752 -> 21,504"],
        ),
    ],
)
def test_a_change_is_named(values: dict[str, Any], said: list[str]) -> None:
    assert differences(COUNTERS, changed(**values)) == said


def test_a_peak_is_compared_with_that_of_the_same_device() -> None:
    before = changed(device_peaks={"H100": 1_000_000})
    assert differences(before, COUNTERS) == []
    assert differences(before, changed(device_peaks={"A100": 2_000_000})) == []
    assert differences(before, changed(device_peaks={"H100": 1_009_000})) == []
    more = changed(device_peaks={"H100": 1_200_000})
    assert differences(before, more) == ["peak on H100 1,000,000 -> 1,200,000 bytes"]


def test_versions_are_minor_ones() -> None:
    assert versions({"tensorflow": "2.21.0", "keras": "3.15.1"}.get) == "tensorflow 2.21 keras 3.15"
    assert versions({}.get) == "tensorflow none keras none"


# Judged in the gate

KEY = (COUNTERS["workload"], COUNTERS["versions"])


def test_a_gpus_graphs_have_counters_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    assert counters._kernels() in ("", " oneDNN", " GPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"])
    assert counters._kernels() == " GPU"


def test_counters_are_held_against_the_accepted_ones() -> None:
    now = changed(operators={"AddV2": 31, "MatMul": 16})
    assert judged_counters({"head": now, "base": now}, {KEY: COUNTERS}).changes == ("MatMul 14 -> 16",)
    assert judged_counters({"head": now, "base": COUNTERS}, {KEY: now}).verdict == "same"


def test_without_accepted_ones_of_this_version_the_base_is_what_they_are_held_against() -> None:
    now = changed(traces=2)
    found = judged_counters({"head": now, "base": COUNTERS}, {(KEY[0], "tensorflow 2.20 keras 3.15"): now})
    assert (found.verdict, found.against, found.changes) == ("changed", "the base's", ("traces 1 -> 2",))


def test_between_two_versions_counters_are_information_and_the_accepted_ones_decide() -> None:
    other = changed(versions="tensorflow 2.20 keras 3.15", traces=2)
    found = judged_counters({"head": COUNTERS, "base": other}, {})
    assert (found.verdict, found.changes, found.between) == ("other versions", (), ("traces 2 -> 1",))
    assert found.against == f"none are accepted for {KEY[1]}, the base has tensorflow 2.20 keras 3.15"
    found = judged_counters({"head": COUNTERS, "base": other}, {KEY: changed(traces=3)})
    assert (found.verdict, found.changes, found.between) == ("changed", ("traces 3 -> 1",), ("traces 2 -> 1",))


def test_counters_that_only_one_side_has_are_not_compared() -> None:
    assert judged_counters({"head": COUNTERS}, {}).verdict == "not compared"
    assert judged_counters({}, {KEY: COUNTERS}).verdict == "not compared"


# The file


def test_accepting_writes_a_sorted_line_for_each_workload(tmp_path: Path) -> None:
    path = tmp_path / "counters.jsonl"
    other = changed(workload="encoding", operators={})
    said = counters_file.accept(path, [COUNTERS, other], reason="first counters")
    assert said == [
        "masked_lm_step[tiny] at tensorflow 2.21 keras 3.15: new",
        "encoding at tensorflow 2.21 keras 3.15: new",
    ]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["workload"] for line in lines] == ["encoding", "masked_lm_step[tiny]"]
    assert list(json.loads(lines[0])) == [*KEYS, "reason"]


def test_accepting_again_changes_the_line_that_changed_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "counters.jsonl"
    other = changed(workload="encoding", operators={})
    counters_file.accept(path, [COUNTERS, other], reason="first counters")
    before = path.read_text(encoding="utf-8").splitlines()
    now = changed(operators={"AddV2": 31, "MatMul": 16})
    said = counters_file.accept(path, [now, other], reason="two more products")
    after = path.read_text(encoding="utf-8").splitlines()
    assert said == ["masked_lm_step[tiny] at tensorflow 2.21 keras 3.15: MatMul 14 -> 16"]
    assert before[0] == after[0]
    assert json.loads(after[1])["reason"] == "two more products"
    assert counters_file.accept(path, [now, other], reason="again") == []
    assert path.read_text(encoding="utf-8").splitlines() == after


def test_counters_of_other_versions_stay_when_new_ones_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "counters.jsonl"
    counters_file.accept(path, [COUNTERS], reason="first")
    counters_file.accept(path, [changed(versions="tensorflow 2.22 keras 3.16")], reason="a new version")
    assert len(counters_file.read_counters(path)) == 2


def test_a_peak_stays_accepted_where_the_measuring_device_reports_none(tmp_path: Path) -> None:
    path = tmp_path / "counters.jsonl"
    counters_file.accept(path, [changed(device_peaks={"H100": 1_000_000})], reason="first")
    counters_file.accept(path, [changed(traces=2)], reason="on a CPU")
    said = counters_file.accept(path, [changed(traces=2, device_peaks={"A100": 900_000})], reason="another device")
    assert said == ["masked_lm_step[tiny] at tensorflow 2.21 keras 3.15: first peak on A100"]
    assert counters_file.read_counters(path)[KEY]["device_peaks"] == {"H100": 1_000_000, "A100": 900_000}


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines"])
def test_a_reason_is_one_line(tmp_path: Path, reason: str) -> None:
    with pytest.raises(SettingsError, match="--reason: one line that says why is required"):
        counters_file.accept(tmp_path / "counters.jsonl", [COUNTERS], reason=reason)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not JSON\n", "line 1: a JSON object is required"),
        pytest.param("[" * 100_000, "line 1: a JSON object is required", id="nested"),
        ("[]\n", "line 1: field 'workload' is required"),
        ('{"workload": "masking"}\n', "line 1: field 'versions' is required"),
        (json.dumps({**COUNTERS, "reason": ""}) + "\n", "field 'reason': a text is required"),
        (json.dumps({**COUNTERS, "reason": "x", "operators": {"MatMul": -1}}), "field 'operators': counts by operator"),
        (json.dumps({**COUNTERS, "reason": "x", "device_peaks": None}), "field 'device_peaks': bytes by device"),
        (json.dumps({**COUNTERS, "reason": "x", "traces": 1.5}), "field 'traces': a count is required"),
        ((json.dumps({**COUNTERS, "reason": "x"}) + "\n") * 2, "line 2: one line each is required"),
    ],
)
def test_a_file_that_is_not_of_counters_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "counters.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError) as raised:
        counters_file.read_counters(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)


def test_the_file_of_the_repository_is_one() -> None:
    path = ROOT / counters_file.FILE
    known = counters_file.read_counters(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [tuple(json.loads(line)[key] for key in ("workload", "versions")) for line in lines] == sorted(known)


# What counts


@pytest.fixture(scope="module")
def counted() -> Any:
    """Counts a step of a very small model, with as many blocks as asked for."""
    from minibert.perf import workloads
    from minibert.perf.counters import count
    from minibert.settings import ModelSettings

    def counters(*, feed_forward: int = 8, **model: Any) -> dict[str, Any]:
        settings = workloads.shape_settings("tiny")
        small = ModelSettings(hidden_size=8, heads=2, feed_forward_size=feed_forward, **model)
        patch = pytest.MonkeyPatch()
        patch.setattr(workloads, "shape_settings", lambda _: dataclasses.replace(settings, model=small))
        try:
            step = workloads.Step("frozen", "tiny")
        finally:
            patch.undo()
        step(0)
        found = count("frozen_step[tiny]", step.subject())
        assert found["flops"] == step_flops(dataclasses.replace(settings, model=small), "frozen", rows=0)
        assert step.subject()["traces"] == 1, "a graph that is only looked at was counted"
        names = step._step.fingerprint_names
        step._step.graph_for(step._batches[0])
        assert step._step.fingerprint_names is names, "the trace's header would be of another graph"
        return found

    return counters


@pytest.mark.long
def test_counters_repeat_and_move_with_the_model(counted: Any) -> None:
    one, again, two = counted(blocks=1), counted(blocks=1), counted(blocks=2)
    assert differences(one, again) == []
    assert one["traces"] == 1
    wider = counted(blocks=1, feed_forward=12)
    assert [change.split()[0] for change in differences(one, wider)] == ["flops", "forward_flops", "parameters"]
    changes = differences(one, two)
    for name in ("flops", "forward_flops", "parameters", "MatMul"):
        assert any(change.startswith(f"{name} ") for change in changes), changes
    assert not any(change.startswith(("traces", "array_bytes")) for change in changes), changes


@pytest.mark.long
@pytest.mark.parametrize("kernels", ["", " oneDNN"], ids=["TensorFlow's own", "oneDNN"])
@pytest.mark.parametrize("kind", ["masked_lm", "frozen", "unfrozen"])
def test_the_accepted_counters_are_of_this_code(kind: str, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes the step also runs ``minibert perf accept --reason ...``, with oneDNN on and off."""
    from minibert.model import attention
    from minibert.perf import workloads
    from minibert.perf.counters import count

    monkeypatch.setattr(attention, "softmax_is_one_pass", lambda: bool(kernels))
    monkeypatch.setattr(counters, "_kernels", lambda: kernels)

    name = f"{kind}_step[tiny]"
    step = workloads.Step(kind, "tiny")
    step(0)
    found = count(name, step.subject())
    accepted = counters_file.read_counters(ROOT / counters_file.FILE).get((name, found["versions"]))
    if accepted is None:
        pytest.skip(f"not run: no counters are accepted for {found['versions']}")
    assert differences(accepted, found) == []


@pytest.mark.long
def test_a_steps_products_are_float32_on_a_gpu_too() -> None:
    import tensorflow as tf

    from minibert.perf import workloads

    tf.config.experimental.enable_tensor_float_32_execution(True)
    workloads.Step("frozen", "tiny")
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_workloads_without_a_graph_count_their_arrays() -> None:
    from minibert.perf.counters import count
    from minibert.perf.workloads import build

    masking = build("masking")
    masking(0)
    masking.check()
    found = count("masking", masking.subject())
    assert (found["operators"], found["parameters"], found["flops"]) == ({}, 0, None)
    assert found["array_bytes"] == 4 * np.zeros((256, 128), np.int32).nbytes


class FakeGPU:
    """As ``tf.config``: one GPU, on which a process before has had far more in use than any step."""

    def __init__(self) -> None:
        self.experimental, self.held, self.peak = self, 700, 9_000

    def list_logical_devices(self, kind: str) -> list[str]:
        assert kind == "GPU"
        return ["GPU:0"]

    list_physical_devices = list_logical_devices

    def get_device_details(self, device: str) -> dict[str, str]:
        return {"device_name": "H100"}

    def get_memory_info(self, device: str) -> dict[str, int]:
        return {"current": self.held, "peak": self.peak}

    def reset_memory_stats(self, device: str) -> None:
        self.peak = self.held

    def step(self) -> None:
        self.peak = max(self.peak, self.held + 50)


def test_a_peak_is_that_of_the_steps_alone_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGPU()
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=gpu))
    assert peaks_of(gpu.step) == {"H100": 50}
    monkeypatch.setattr(gpu, "get_memory_info", unknown)
    assert peaks_of(gpu.step) == {}


def unknown(device: str) -> dict[str, int]:
    raise ValueError(f"{device} reports no memory")


def test_a_worker_counts_the_peak_of_one_workload_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGPU()
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=gpu))
    server = Server(lambda name: FakeWorkload(gpu, {"large": 3_000, "small": 20}[name]))
    for name in ("large", "small"):
        server._workloads[name], server._numbers[name] = server._make(name), 0
        server.step(name)
    assert server.count("large")["device_peaks"] == {"H100": 3_000}
    assert server.count("small")["device_peaks"] == {"H100": 20}


class FakeWorkload:
    """Needs so many bytes in a step."""

    def __init__(self, gpu: FakeGPU, needed: int) -> None:
        self._gpu, self._needed = gpu, needed

    def __call__(self, number: int) -> None:
        self._gpu.peak = max(self._gpu.peak, self._gpu.held + self._needed)

    def subject(self) -> dict[str, Any]:
        return {}
