"""The table of the groups says what pytest-benchmark measured, each side in the notebook's terms."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

# Last, so that the package that is installed stays the one that is tested.
sys.path.append(str(Path(__file__).parents[1]))
groups: Any = importlib.import_module("benchmarks.groups")


def timed(group: str, seconds: list[float], beside: list[float], **params: str) -> dict[str, Any]:
    """A benchmark as pytest-benchmark writes it, as far as it is read."""
    return {
        "group": group,
        "params": params,
        "stats": {"data": seconds, "median": sorted(seconds)[len(seconds) // 2]},
        "extra_info": {
            "device": "cpu",
            "reference_data": beside,
            "reference_seconds": sorted(beside)[len(beside) // 2],
        },
    }


def result_file(path: Path, *benchmarks: dict[str, Any], **changes: Any) -> Path:
    """A result of this machine, this commit and these packages, but for what is changed."""
    here = {**groups._here(), **changes}
    content = {
        "commit_info": {"id": here["commit"]},
        "machine_info": {
            "minibert": {"identity": here["machine"]},
            "environment": {"packages": here["packages"]},
            "peers": here["peers"],
        },
        "benchmarks": list(benchmarks),
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_side_has_a_column_and_a_group_at_a_shape_has_a_line(tmp_path, capsys):
    path = result_file(
        tmp_path / "result.json",
        timed("masking", [0.1] * 4, [0.1, 0.2, 0.3, 0.2], side="minibert", shape="imdb", way="whole"),
        timed("classifier steps", [2.0] * 4, [1.0] * 4, side="pytorch", shape="amazon", step="frozen"),
        timed("classifier steps", [0.5] * 4, [1.0] * 4, side="minibert", shape="amazon", step="frozen"),
        {"group": "gated", "params": None, "stats": {}, "extra_info": {}},
    )
    assert groups.main([str(path), "--keep", str(tmp_path / "groups.json")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == [
        "| group | shape | notebook | minibert | PyTorch |",
        "|---|---|---|---|---|",
        "| masking: whole | imdb | 200 ms | 2.00× (1.75 to 2.25) | - |",
        "| classifier steps: frozen | amazon | 1,000 ms | 2.00× (2.00 to 2.00) | 0.50× (0.50 to 0.50) |",
    ]
    kept = json.loads((tmp_path / "groups.json").read_text(encoding="utf-8"))["rows"]
    assert [row["ratio"] for row in kept] == pytest.approx([2.0, 0.5, 2.0])


@pytest.mark.parametrize("name", ["commit", "machine", "packages", "peers"])
def test_a_result_of_elsewhere_is_refused(name, tmp_path, capsys):
    path = result_file(tmp_path / "result.json", **{name: "another"})
    assert groups.main([str(path)]) != 0
    assert f"{path}: {name}: " in capsys.readouterr().err


def test_a_result_without_times_beside_the_notebook_is_refused(tmp_path, capsys):
    assert groups.main([str(result_file(tmp_path / "result.json"))]) != 0
    assert "times beside the notebook's version are required, but none is there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "No such file"),
        ("{", "JSONDecodeError"),
        ('{"benchmarks": 3}', "TypeError"),
        ('{"benchmarks": [{}]}', "KeyError('extra_info')"),
        ('{"benchmarks": []}', "KeyError('commit_info')"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(content, what, tmp_path, capsys):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert groups.main([str(path), "--keep", str(tmp_path / "groups.json")]) != 0
    message = capsys.readouterr().err
    assert message.startswith(f"benchmarks.groups: {path}: ")
    assert what in message
    assert message.count("\n") == 1
    assert not (tmp_path / "groups.json").exists()
