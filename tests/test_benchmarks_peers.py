"""The table of the peers: rows that say how they came about, kept as they come, and none lost by another's error."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from minibert.errors import ArtifactError, DeviceError

ROOT = Path(__file__).parents[1]
# Last, so that the package that is installed stays the one that is tested.
sys.path.append(str(ROOT))
checks, documents, interleaved, peers, peers_picture, peers_table, stored, workers, workloads = (
    importlib.import_module(f"benchmarks.{name}")
    for name in ("checks", "documents", "interleaved", "peers", "peers_picture", "peers_table", "stored", "workers",
                 "workloads")
)  # fmt: skip

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


def made_up_row(**facts: Any) -> Any:
    measured = peers_table.Measured(
        processes=1,
        ours=[0.2, 0.25, 0.3],
        theirs=[2.4, 2.5, 2.1],
        rates=[2.0e11, 2.2e11, 2.1e11],
        others=[0.02, None, 0.06],
    )
    return peers_table.make_row(measured, FACTS | facts)


Outcome = Callable[[str, str, str], Any]


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Callable[[Outcome], list[tuple[int, Any]]]:
    """Has a row come out as it is told, by shape, step and peer, without any process; gives the pairs of each."""

    @contextlib.contextmanager
    def beside(peer: str, shape: str, rates: Any) -> Any:
        yield SimpleNamespace(ours=SimpleNamespace(shape=shape), theirs=SimpleNamespace(side=peer))

    def told(outcome: Outcome) -> list[tuple[int, Any]]:
        taken: list[tuple[int, Any]] = []

        def measure_row(sides: Any, step: str, *, pairs: int, measured: Any, **_: Any) -> Any:
            taken.append((pairs, measured))
            found = outcome(sides.ours.shape, step, sides.theirs.side)
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(peers, "measure_row", measure_row)
        return taken

    monkeypatch.setattr(peers, "Worker", lambda *_: contextlib.nullcontext(object()))
    monkeypatch.setattr(peers, "beside", beside)
    monkeypatch.setattr(peers, "missing_module", lambda side: None)
    return told


def as_made_up(shape: str, step: str, peer: str) -> Any:
    return made_up_row(shape=shape, step=step, peer=peer)


# Rows, table and picture


def test_a_row_has_the_keys_that_others_read_and_the_figures_of_its_pairs():
    row = dataclasses.asdict(made_up_row())
    assert row.keys() >= ROW_KEYS
    assert row["ratio"] == pytest.approx(10.0)
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert (row["ours_seconds"], row["peer_seconds"]) == (0.25, 2.4)
    assert row["matrix_rate_fraction"] == pytest.approx(row["flops"] / 2.1e11 / 0.25)
    assert json.loads(json.dumps(row)) == row


def test_table_and_picture_show_every_row():
    rows = [
        made_up_row(),
        made_up_row(step="frozen", peak_bytes=None, peer_peak_bytes=None),
        peers_table.Row(shape="imdb", step="masked_lm", peer="pytorch", not_run="torch is not installed"),
        peers_table.Row(shape="imdb", step="masked_lm", peer="pytorch-full", failed="a | b"),
    ]
    table = peers_table.markdown(rows)
    assert "| imdb | masked LM | notebook | **10.0×** (" in table
    assert "| 1.20 GB | 3.20 GB |" in table
    assert "| - | - |" in table, "a peak that is not that of the step alone is none"
    assert "| imdb | masked LM | PyTorch, gathered | not run: torch is not installed |" in table
    assert "| imdb | masked LM | PyTorch, all logits | failed: a / b |" in table
    assert {line.count("|") for line in table.splitlines()} == {10}
    assert peers_table.facts_line(rows) == (
        "Device cpu, default threads; float32 matrix rate 210 GFLOP/s, measured with each row; "
        "ratio: median of 3 interleaved pairs, times: of each side's; "
        "other processes took up to 4% of the cores."
    )
    svg = "{http://www.w3.org/2000/svg}"
    tree = ElementTree.fromstring(peers_picture.picture(rows))
    texts = [text.text or "" for text in tree.iter(f"{svg}text")]
    assert len(list(tree.iter(f"{svg}rect"))) == 2
    assert "masked LM, PyTorch, gathered" in texts
    assert "not run: torch is not installed" in texts


def test_the_summary_has_a_column_for_each_shape_and_says_what_there_is_not():
    rows = [
        made_up_row(),
        made_up_row(shape="amazon", step="frozen"),
        peers_table.Row(shape="imdb", step="frozen", peer="notebook", failed="a | b"),
    ]
    assert peers_table.summary(rows).splitlines() == [
        "| step | beside | imdb | amazon |",
        "|---|---|---|---|",
        "| masked LM | notebook | **10.0×** (8.5 to 11.0) | - |",
        "| classifier, frozen | notebook | failed: a / b | **10.0×** (8.5 to 11.0) |",
    ]


def test_what_was_aimed_at_stands_beside_what_came_and_what_is_reached_is_bold():
    one = [
        made_up_row(),  # 10 times
        made_up_row(peer="pytorch", peak_bytes=1_210_000_000),
        peers_table.Row(shape="amazon", step="frozen", peer="notebook", not_run="why"),
    ]
    table = peers_table.goals({"here": one, "there": []}).splitlines()
    assert table[0] == "| shape | step | beside | goal | at least | here | there |"
    assert "| imdb | masked LM | notebook | 12× | 10× | **10.0×** | - |" in table
    assert "| imdb | masked LM | PyTorch, gathered | 4× | 3× | **10.0×** | - |" in table
    assert "| imdb | masked LM | keras-hub | 3× | 2.3× | - | - |" in table
    assert "| imdb | most memory of any | itself |  | at most 1.2 GB | 1.21 GB | - |" in table
    assert "| amazon | classifier, frozen | notebook | 1.5× | 1.2× | - | - |" in table
    assert "| amazon | most memory of any | itself |  | at most 1 GB | - | - |" in table
    slower = peers_table.goals({"here": [dataclasses.replace(one[0], ratio=9.99)]})
    assert "| 10× | 10.0× |" in slower


def test_threads_that_were_chosen_are_said():
    chosen = {**SIDE, "threads": {"intra_op": 1, "inter_op": 2}}
    row = made_up_row(environment={"ours": chosen, "peer": SIDE})
    assert "Device cpu, threads: intra-op 1; float32" in peers_table.facts_line([row])


def test_every_peer_has_a_name():
    assert peers.PEER_STEPS.keys() == peers_table.PEER_NAMES.keys()
    assert peers.PEER_STEPS.keys() < workers.SIDES.keys()


def test_quartiles_of_few_values():
    assert peers_table.quartiles([2.0]) == (2.0, 2.0, 2.0)
    assert peers_table.quartiles([1.0, 2.0, 3.0]) == (1.5, 2.0, 2.5)


# What is missing, and what fails


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


@pytest.mark.parametrize("error", [workers.WorkerError("notebook: killed"), checks.WrongLossError("another loss")])
def test_a_row_that_fails_leaves_the_others_alone_and_the_command_fails(error, measuring, capsys):
    measuring(lambda *row: error if row == ("imdb", "unfrozen", "notebook") else as_made_up(*row))
    assert peers.main(["--peer", "notebook", "--peer", "keras-hub"]) == 1
    out = capsys.readouterr().out
    assert out.count("**10.0×**") == 7
    assert f"| imdb | classifier, unfrozen | notebook | failed: {error} |" in out


def test_the_pairs_of_a_row_are_of_several_fresh_processes(measuring, capsys):
    taken = measuring(as_made_up)
    assert peers.main(["--peer", "keras-hub", "--pairs", "7"]) == 0
    assert [pairs for pairs, _ in taken] == [3, 2, 2] * 2
    together = [id(measured) for _, measured in taken]
    assert together == [together[0]] * 3 + [together[3]] * 3
    assert together[0] != together[3]
    taken = measuring(as_made_up)
    assert peers.main(["--peer", "keras-hub", "--pairs", "2", "--processes", "5"]) == 0
    assert [pairs for pairs, _ in taken] == [1, 1] * 2
    taken = measuring(as_made_up)
    assert peers.main(["--quick", "--shape", "imdb", "--pairs", "4"]) == 0
    assert taken == [(4, None)] * 3


def test_what_is_wrong_with_one_process_is_wrong_with_the_row(measuring, capsys):
    parts = iter(["right", "wrong", "right"])
    measuring(lambda *row: as_made_up(*row) if next(parts) == "right" else checks.WrongLossError("another loss"))
    assert peers.main(["--peer", "keras-hub", "--shape", "imdb"]) == 1
    assert "failed: another loss" in capsys.readouterr().out
    assert list(parts) == ["right"]


class MadeUpWorker:
    """Stands for a process: each of its turns takes so long."""

    def __init__(self, side: str, seconds: float, peak: int | None = 10**9) -> None:
        self.side, self.shape, self.device, self._seconds, self._peak = side, "imdb", "cpu", seconds, peak
        self._order = ""

    def send(self, order: str, *_: Any) -> None:
        self._order = order

    def answer(self) -> Any:
        return self.ask(self._order)

    def ask(self, order: str, *_: Any) -> Any:
        return {
            "prepare": {"losses": [9.0, 8.9], "moved": {}, "rows": 780.0, "first_call_seconds": 1.0},
            "turn": {"seconds": self._seconds, "loss": 8.0, "others_rate": 0.0},
            "describe": {"peak_bytes": self._peak, "environment": SIDE},
            "matrix_rate": 2e11,
        }[order]


def test_what_one_process_gave_is_added_to_what_others_did(monkeypatch):
    monkeypatch.setattr(interleaved, "require_training", lambda *_: None)
    measured = peers_table.Measured()
    for ours, peak in ((0.2, 2 * 10**9), (0.4, 10**9)):
        sides = interleaved.Workers(
            MadeUpWorker("minibert", ours, peak), MadeUpWorker("notebook", 2.4, None), MadeUpWorker("", 1.0)
        )
        row = interleaved.measure_row(sides, "masked_lm", pairs=2, measured=measured)
    assert (row.pairs, row.processes, row.ratio) == (4, 2, pytest.approx(9.0))
    assert (row.peak_bytes, row.peer_peak_bytes) == (2 * 10**9, None)
    assert measured.ours == [0.2, 0.2, 0.4, 0.4]
    assert "median of 4 interleaved pairs of 2 pairs of processes, times" in peers_table.facts_line([row])


def test_a_peer_without_the_device_is_not_run_and_ends_everything_only_where_it_is_required(measuring, capsys):
    missing = DeviceError("--device cuda: torch 2 sees no such device")
    measuring(lambda *row: missing if row[2] == "pytorch" else as_made_up(*row))
    arguments = ["--peer", "pytorch", "--peer", "keras-hub", "--device", "cuda"]
    assert peers.main(arguments) == 0
    out = capsys.readouterr().out
    assert (out.count("**10.0×**"), out.count("not run: --device cuda: torch 2")) == (2, 2)
    assert peers.main([*arguments, "--require-device"]) == DeviceError.exit_code
    assert "benchmarks.peers: --device cuda: torch 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "0"], "--pairs: 1 or more is required, but 0 came"),
        (["--processes", "0"], "--processes: 1 or more is required, but 0 came"),
        (["--picture", "a.png"], "--picture: a name that ends in .svg is required, but 'a.png' came"),
        (["--redraw"], "--redraw: a file of results is required, but --keep named none"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    assert peers.main(arguments) == 2
    assert message in capsys.readouterr().err


# Kept


def test_rows_are_kept_as_they_come_whatever_happens_later(measuring, tmp_path, monkeypatch):
    kept = tmp_path / "results" / "peers.json"

    def outcome(*row: str) -> Any:
        if row[0] == "amazon":
            raise KeyboardInterrupt
        return as_made_up(*row)

    measuring(outcome)
    with pytest.raises(KeyboardInterrupt):
        peers.main(["--peer", "keras-hub", "--keep", str(kept)])
    results = stored.Results(kept, peers_table.KEYS)
    assert [row["shape"] for row in results.rows] == ["imdb"]
    (under,) = results.conditions_of(results.rows)
    assert under.keys() >= {"date", "commit", "dirty", "processor", "cores", "threads", "versions"}
    assert {"keras-hub", "keras"} <= under["versions"].keys()


def test_kept_rows_are_printed_drawn_and_written_into_the_readme(measuring, tmp_path, monkeypatch, capsys):
    kept, drawn = tmp_path / "peers.json", tmp_path / "peers.svg"
    measuring(as_made_up)
    arguments = ["--keep", str(kept), "--picture", str(drawn)]
    assert peers.main(["--peer", "notebook", *arguments]) == 0
    printed = capsys.readouterr().out
    assert peers.main(["--redraw", *arguments]) == 0
    assert capsys.readouterr().out == printed
    assert len(list(ElementTree.parse(drawn).iter("{http://www.w3.org/2000/svg}rect"))) == 6
    monkeypatch.setattr(documents, "RESULTS", tmp_path)
    block = "<!-- peers: python -m benchmarks.documents -->\n{}<!-- end -->\n"
    assert documents.filled(block.format("old\n")) == (block.format(printed), [])
    monkeypatch.setattr(documents, "RESULTS", tmp_path / "none")
    assert documents.filled(block.format("old\n")) == (block.format("old\n"), ["peers"])


def test_what_is_measured_anew_takes_the_old_place_and_what_is_not_run_does_not(measuring, tmp_path):
    kept = tmp_path / "peers.json"
    arguments = ["--peer", "pytorch", "--keep", str(kept)]
    measuring(as_made_up)
    assert peers.main(arguments) == 0
    measuring(
        lambda *row: DeviceError("none") if row[0] == "imdb" else dataclasses.replace(as_made_up(*row), ratio=3.0)
    )
    assert peers.main(arguments) == 0
    rows = stored.Results(kept, peers_table.KEYS).rows
    assert [(row["shape"], row["ratio"]) for row in rows] == [("imdb", pytest.approx(10.0)), ("amazon", 3.0)]


def test_a_file_that_cannot_be_written_is_named(measuring, tmp_path, capsys):
    (tmp_path / "file").touch()
    measuring(as_made_up)
    code = peers.main(["--peer", "keras-hub", "--keep", str(tmp_path / "file" / "peers.json")])
    assert code == ArtifactError.exit_code
    assert "it cannot be written" in capsys.readouterr().err


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
    assert all(row["ratio"] > 0 and row["not_run"] is row["failed"] is None for row in rows)
    assert rows[0]["peak_bytes"] > 1e8
    assert [row["peak_bytes"] for row in rows[1:]] == [None, None], "the process has run another step before"
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
