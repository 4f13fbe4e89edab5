"""The gate's own errors: what was measured is replayed through the gate's own decision."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import psutil
import pytest

from minibert.errors import ArtifactError, SettingsError
from minibert.perf.decision import FASTER, SAME, SLOWER, UNPROVEN, Rules
from minibert.perf.error_study.__main__ import main
from minibert.perf.error_study.collect import PAIR_SECONDS, Study
from minibert.perf.error_study.injection import is_study
from minibert.perf.error_study.power_curve import power_curve
from minibert.perf.error_study.recording import NEIGHBOURS, Recording, pooled, read_recording, write_recording
from minibert.perf.error_study.replay import (
    as_table,
    clopper_pearson,
    drawn_ratios,
    process_scatter,
    rates,
    with_moved_control,
)
from minibert.perf.gate import gate_pair_seconds
from minibert.perf.pair import Block
from minibert.perf.statistics import pair_figure
from minibert.progress import Progress

RULES = Rules(threshold=0.025, confidence=0.99, fewest_pairs=4, fewest_pairs_for_same=4, most_pairs=10)
ROOT = Path(__file__).parents[1]
DRAWN = 60
HEADER = {
    "kind": "minibert perf error study",
    "format": 2,
    "neighbour": "none",
    "steps": 5,
    "pair_seconds": PAIR_SECONDS,
    "products": {"0": 0},
}


def made_up(pairs: int = 40, *, scatter: float = 0.005, others: float = 0.01, neighbour: str = "none") -> Recording:
    """Pairs whose processes differ by chance, and whose head does what a level says."""
    generator = np.random.Generator(np.random.PCG64(5))
    products = {"0": 0, "5": 71, "10": 142}
    recording = Recording(
        {"neighbour": neighbour, "steps": 5, "pair_seconds": PAIR_SECONDS, "products": products, "machine": {}}
    )

    def block(ratio: float) -> Block:
        head = [0.013 * ratio * math.exp(generator.normal(0, 0.01)) for _ in range(2)]
        return Block((0.013, 0.013), (head[0], head[1]), 0.0045, 0.0045, others)

    for _ in range(pairs):
        factor = math.exp(generator.normal(0.0, scatter))
        recording.pairs.append(
            {level: [block(factor * (1 + float(level) / 100)) for _ in range(6)] for level in products}
        )
    return recording


def test_what_is_written_is_read_back_to_ten_microseconds(tmp_path: Path) -> None:
    recording, path = made_up(3), tmp_path / "study.jsonl"
    write_recording(path, recording)
    again = read_recording(path)
    assert again.header == recording.header
    assert again.levels == ["0", "5", "10"]
    for one, two in zip(recording.pairs, again.pairs, strict=True):
        for level in recording.levels:
            for block, other in zip(one[level], two[level], strict=True):
                assert other.base_turns == pytest.approx(block.base_turns, abs=1e-5)
                assert other.head_turns == pytest.approx(block.head_turns, abs=1e-5)
                assert other.control_head_seconds == pytest.approx(block.control_head_seconds, abs=1e-5)
                assert other.others_rate == block.others_rate


def test_a_compressed_recording_is_the_same(tmp_path: Path) -> None:
    plain, packed = tmp_path / "study.jsonl", tmp_path / "study.jsonl.gz"
    for path in (plain, packed):
        write_recording(path, made_up(3))
    assert read_recording(packed) == read_recording(plain)
    assert packed.stat().st_size < plain.stat().st_size / 2
    content = packed.read_bytes()
    write_recording(packed, made_up(3))
    assert packed.read_bytes() == content


def test_a_damaged_compressed_recording_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.jsonl.gz"
    write_recording(path, made_up(3))
    content = path.read_bytes()
    for damaged in (content[:-9], b"no gzip", content[:40] + bytes(40) + content[80:]):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"study\.jsonl\.gz: the timings of a study of errors are required"):
            read_recording(path)
    path.write_bytes(content)
    monkeypatch.setattr("minibert.perf.error_study.recording._MOST_BYTES", 100)
    with pytest.raises(ArtifactError, match="MiB are in it"):
        read_recording(path)


def test_what_the_levels_of_a_pair_have_in_common_is_the_processes() -> None:
    found, nothing = process_scatter(made_up(200, scatter=0.03)), process_scatter(made_up(200, scatter=0.0))
    assert found is not None
    assert found.log_ratio == pytest.approx(0.03, rel=0.15)
    assert found.log_ratio < found.high < 0.036
    assert nothing is not None
    assert nothing.log_ratio <= nothing.high < 0.002
    assert process_scatter(made_up(2)) is None
    assert process_scatter(made_up(20, others=0.5)) is None


def test_an_unknown_share_of_others_stays_unknown(tmp_path: Path) -> None:
    recording, path = made_up(2), tmp_path / "study.jsonl"
    recording.pairs = [{"0": [Block((0.013, 0.013), (0.013, 0.013), 0.0045, 0.0045, None)] * 4}] * 2
    write_recording(path, recording)
    assert read_recording(path).pairs[0]["0"][0].others_rate is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON\n",
        "[]\n",
        '{"benchmarks": []}\n',
        '{"kind": "minibert perf error study", "format": 1, "products": {"0": 0}}\n',
        pytest.param("[" * 100_000 + "\n", id="nested"),
        json.dumps(HEADER) + '\n{"levels": {"0": "1,2"}}\n',
    ],
)
def test_a_file_that_is_no_study_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "study.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match="the timings of a study of errors are required"):
        read_recording(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"neighbour": "../busy"}, "field 'neighbour': one of none, light, busy is required, but '../busy' came"),
        ({"neighbour": None}, "field 'neighbour': one of none, light, busy is required, but None came"),
        ({"steps": 0}, "field 'steps': an integer, 1 or more, is required, but 0 came"),
        ({"steps": True}, "field 'steps': an integer, 1 or more, is required, but True came"),
        ({"steps": "5"}, "field 'steps': an integer, 1 or more, is required, but '5' came"),
        ({"products": {}}, "field 'products': a count for each level is required, but {} came"),
        ({"products": []}, r"field 'products': a count for each level is required, but \[\] came"),
        ({"products": {"0": -1}}, "field 'products': a count for each level is required"),
        ({"products": {"nan": 0}}, "field 'products': a count for each level is required"),
        ({"pair_seconds": 0}, "field 'pair_seconds': a number above 0 is required, but 0 came"),
        ({"pair_seconds": None}, "field 'pair_seconds': a number above 0 is required, but None came"),
    ],
)
def test_a_header_that_cannot_be_replayed_is_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    path.write_text(json.dumps(HEADER) + "\n", encoding="utf-8")
    assert read_recording(path).levels == ["0"]
    path.write_text(json.dumps({**HEADER, **changed}) + "\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"study.jsonl: the timings of a study .* are required, but {message}"):
        read_recording(path)


PARENT = """
import sys, time
from minibert.perf.error_study.collect import neighbour
with neighbour(sys.argv[1]):
    print("begun", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["light", "busy"])
def test_the_neighbour_ends_with_who_started_it_even_if_that_is_killed(kind: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, kind], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"begun\n"
        (neighbour,) = psutil.Process(parent.pid).children()
        try:
            assert neighbour.is_running()
            parent.kill()
            parent.communicate(timeout=60)  # the neighbour has the other end of the pipe
        finally:
            parent.kill()
            with contextlib.suppress(psutil.NoSuchProcess):
                neighbour.kill()


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # R: binom.test(count, total)$conf.int
    [(0, 10, 0.0, 0.3084971), (10, 10, 0.6915029, 1.0), (1, 20, 0.001265089, 0.2487328), (5, 10, 0.187086, 0.812914)],
)
def test_bounds_are_those_of_clopper_and_pearson(count: int, total: int, low: float, high: float) -> None:
    assert clopper_pearson(count, total) == pytest.approx((low, high), abs=1e-6)


def test_a_replay_finds_what_was_planted_and_says_the_same_every_time() -> None:
    recording = made_up()
    found = {level: rates(recording, level, gates=60, rules=RULES) for level in recording.levels}
    assert found["0"].rate(SAME) == 1.0
    assert found["5"].rate(SLOWER) == found["10"].rate(SLOWER) == 1.0
    assert found["5"].ratio == pytest.approx(0.05, abs=0.005)
    assert found["0"].separate[SAME] == 10  # 40 pairs, 4 for each gate
    assert found["5"].separate[SLOWER] == 5
    assert found["5"].bounds(SLOWER) == clopper_pearson(5, 5)
    assert rates(recording, "5", gates=60, rules=RULES) == found["5"]
    assert "5 of 5" in as_table("none", list(found.values()))


def test_beside_a_neighbour_every_gate_is_unproven() -> None:
    recording = made_up(12, others=0.4, neighbour="busy")
    assert all(rates(recording, level, gates=10, rules=RULES).rate(UNPROVEN) == 1.0 for level in recording.levels)


def test_a_replay_ends_where_the_gate_would_have_no_time_left() -> None:
    """A pair steps 8.3 s of a gate here; ten of them, for which a scatter this large asks, would be 83 s."""
    recording = made_up(40, scatter=0.1)
    recording.header["pair_seconds"] = gate_pair_seconds() / 8
    found = rates(recording, "0", gates=20, rules=RULES)
    assert found.factor == pytest.approx(8)
    assert found.stepping_seconds == pytest.approx(7 * 8.3, rel=0.02)
    assert found.rate(UNPROVEN) > 0.8
    assert "(8 times the study's)" in as_table("none", [found])


def test_of_a_recording_that_stepped_for_longer_the_first_blocks_count() -> None:
    recording = made_up(40)
    for pair in recording.pairs:  # 20 blocks of 0.26 s, of which the gate would have taken the first 6
        for level, blocks in pair.items():
            slower = [
                dataclasses.replace(block, head_turns=tuple(2 * turn for turn in block.head_turns)) for block in blocks
            ]
            pair[level] = [*blocks, *slower, *slower]
    recording.header["pair_seconds"] = 4.0
    found = rates(recording, "0", gates=20, rules=RULES)
    assert found.factor == 1
    assert found.ratio == pytest.approx(0, abs=0.01)


def test_drawn_gates_have_the_ratio_of_their_level_and_no_control_that_moved() -> None:
    for level in ("0", "5"):
        found = drawn_ratios(made_up(40), level, gates=30, rules=RULES)
        assert len(found) == 30
        assert float(np.mean(found)) == pytest.approx(1 + int(level) / 100, abs=0.005)
        assert found == drawn_ratios(made_up(40), level, gates=30, rules=RULES)
    assert drawn_ratios(with_moved_control(made_up(40), 0.2), "0", gates=30, rules=RULES) == []
    assert drawn_ratios(made_up(3), "0", gates=30, rules=RULES) == [], "a gate takes four pairs"


def test_a_separate_gate_that_has_too_few_pairs_left_does_not_count() -> None:
    """Whatever its reason would say: the time limit ends one in other words."""
    assert rates(made_up(4), "10", gates=1, rules=RULES).separate.total() == 0
    assert rates(made_up(8), "10", gates=1, rules=RULES).separate == {SLOWER: 1}
    assert rates(made_up(11), "10", gates=1, rules=RULES).separate == {SLOWER: 1}


class StillControl:
    """Stands for the control's process."""

    def ask(self, order: str, **_: Any) -> dict[str, float]:
        assert order == "build"
        return {"step_seconds": 0.005}


def test_what_is_measured_is_kept_pair_by_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = iter(made_up(3).pairs)

    def one_pair(*_: Any) -> Any:
        for pair in pairs:
            return pair
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "_calibrate", lambda _: (0.013, 0.00002))
    monkeypatch.setattr(Study, "_worker", lambda *_: contextlib.nullcontext(StillControl()))
    monkeypatch.setattr(Study, "_one_pair", one_pair)
    path = tmp_path / "study.jsonl"
    with pytest.raises(KeyboardInterrupt):
        Study(tmp_path, tmp_path, Progress(quiet=True)).collect(
            minutes=1, kind="none", save=lambda recording: write_recording(path, recording)
        )
    kept = read_recording(path)
    assert len(kept.pairs) == 3
    assert kept.pair_seconds == PAIR_SECONDS


def test_a_study_keeps_the_time_that_it_is_given_and_names_too_little(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[float] = []

    def collect(_: Any, *, minutes: float, **__: Any) -> Recording:
        given.append(minutes)
        return made_up(1)

    monkeypatch.setattr(Study, "collect", collect)
    monkeypatch.chdir(ROOT)
    assert main(["--minutes", "2", "--gates", "100"]) == SettingsError.exit_code
    assert "--minutes: at least 3 are required for one pair of processes and 100 drawn gates" in capsys.readouterr().err
    assert main(["--minutes", "4", "--gates", "100"]) == 0
    assert given == [pytest.approx(4 - 0.6)]


def test_too_few_pairs_are_unproven() -> None:
    found = rates(made_up(3), "10", gates=5, rules=RULES)
    assert found.rate(UNPROVEN) == 1.0
    assert found.separate.total() == 0
    assert found.bounds(SLOWER) == (0.0, 1.0)


def test_the_power_curve_is_a_picture_with_a_curve_for_each_neighbour() -> None:
    recordings = [
        made_up(20, others=others, neighbour=kind) for kind, others in zip(NEIGHBOURS, (0.01, 0.05, 0.5), strict=True)
    ]
    found = {
        recording.header["neighbour"]: [rates(recording, level, gates=10, rules=RULES) for level in recording.levels]
        for recording in recordings
    }
    picture = ElementTree.fromstring(power_curve(found, threshold=0.025))
    lines = [each for each in picture.iter() if each.tag.endswith("polyline")]
    assert [line.get("class") for line in lines] == ["none", "light", "busy"]
    assert "5 %: 100.0%" in (picture.get("aria-label") or "")


def test_a_replay_from_the_command_line_prints_its_table_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, picture = tmp_path / "study.jsonl", tmp_path / "power.svg"
    write_recording(path, made_up(20))
    assert main(["--replay", str(path), "--gates", "10", "--picture", str(picture)]) == 0
    assert capsys.readouterr().out.count("\n| none |") == 3
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    assert main(["--replay", str(path), "--gates", "10", "--control-moved", "0.2"]) == 0
    assert capsys.readouterr().out.count("| 100.0% | 0 of ") == 3
    assert main(["--replay", str(path), "--control-moved", "-1"]) == SettingsError.exit_code
    assert "control_moved: a rate above -1 is required, but -1.0 came" in capsys.readouterr().err
    assert main(["--replay", str(tmp_path / "nothing.jsonl")]) == ArtifactError.exit_code
    assert "nothing.jsonl" in capsys.readouterr().err


def test_recordings_of_one_neighbour_are_read_as_one() -> None:
    (found,) = pooled([made_up(3), made_up(4)])
    assert len(found.pairs) == 7
    other = made_up(3)
    other.header["steps"] += 1
    with pytest.raises(SettingsError, match="recordings of the same steps are required, but 5 and 6 came"):
        pooled([made_up(3), other])


def test_a_workload_of_the_study_is_told_by_its_name() -> None:
    assert is_study("study[137]")
    assert not is_study("masking")


def test_a_figure_of_a_recorded_pair_counts_its_stepping(tmp_path: Path) -> None:
    recording = made_up(1)
    figure: Any = pair_figure(recording.times("0")[0])
    blocks = recording.pairs[0]["0"]
    assert figure.stepping_seconds == pytest.approx(sum(10 * (b.base_seconds + b.head_seconds) for b in blocks))


# What was measured, replayed: the gate's promises


def recorded(neighbour: str) -> Recording:
    """All that was measured beside a neighbour."""
    files = sorted((ROOT / "benchmarks").glob(f"error_study_{neighbour}*.jsonl.gz"))
    (recording,) = pooled([read_recording(file) for file in files])
    assert recording.header["neighbour"] == neighbour
    return recording


@pytest.mark.parametrize("kind", ["none", "light", "busy"])
def test_the_same_code_is_called_slower_in_one_gate_of_those_drawn_at_most(kind: str) -> None:
    """In one of a hundred is the goal; of 1,000, none is."""
    assert rates(recorded(kind), "0", gates=DRAWN, rules=Rules()).rate(SLOWER) <= 1 / DRAWN


@pytest.mark.parametrize(("kind", "least"), [("none", 0.95)])
def test_on_a_quiet_machine_5_percent_more_is_called_slower(kind: str, least: float) -> None:
    """In 99 gates of a hundred is the goal; of 1,000, 990 are."""
    assert rates(recorded(kind), "5", gates=DRAWN, rules=Rules()).rate(SLOWER) >= least


@pytest.mark.parametrize(
    ("rate", "least", "most"), [(0.0, 0.0, 0.1), pytest.param(0.12, 0.95, 1.0, marks=pytest.mark.long)]
)
def test_a_control_that_moved_is_seen_in_a_machines_own_noise(rate: float, least: float, most: float) -> None:
    recording = with_moved_control(recorded("none"), rate)
    assert least <= rates(recording, "0", gates=30, rules=Rules()).rate(UNPROVEN) <= most


def test_beside_a_neighbour_every_recorded_gate_is_unproven() -> None:
    recording = recorded("busy")
    assert all(rates(recording, level, gates=20, rules=Rules()).rate(UNPROVEN) == 1.0 for level in recording.levels)


@pytest.mark.parametrize("level", ["5", "10"])
@pytest.mark.parametrize("kind", ["none", "light", "busy"])
def test_a_slowdown_is_never_called_none(kind: str, level: str) -> None:
    found = rates(recorded(kind), level, gates=DRAWN, rules=Rules())
    assert found.rate(SAME) + found.rate(FASTER) <= 0.05
