"""A run goes on only where nothing that decides its bits has changed, and what has changed is said."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from minibert.errors import ResumeError
from minibert.record import read_record, write_record
from minibert.resuming import changed_environment, changed_inputs, require_resumable
from tests.records import made_up_record


def changed(*path: str, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    earlier = made_up_record()
    earlier["code"] = {"masking.py": "0" * 64, "text.py": "1" * 64}
    earlier["environment"]["packages"]["numpy"] = "2.0.0"
    now = copy.deepcopy(earlier)
    inner: Any = now
    for part in path[:-1]:
        inner = inner[part]
    if path:
        inner[path[-1]] = value
    return earlier, now


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), None),
        (("settings", "preset"), "another name"),
        (("settings", "record", "checkpoint_steps"), 7),
        (("settings", "record", "kept_checkpoints"), 9),
        (("environment", "variables", "PYTHONHASHSEED"), "12"),
        (("environment", "packages", "datasets"), "99"),
        (("environment", "platform", "release"), "another kernel"),
        (("environment", "memory_bytes"), 1),
        (("started",), "2030-01-01T00:00:00+00:00"),
        (("status",), "running"),
        (("stages",), {}),
        (("data",), "/elsewhere"),
    ],
)
def test_what_decides_no_bits_may_change(path, value):
    require_resumable(*changed(*path, value=value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("settings", "seed"), 1, "setting seed was 0 and is 1"),
        (("settings", "masking", "selection_rate"), 0.2, "setting masking.selection_rate was 0.15 and is 0.2"),
        (("settings", "masking", "protected_ids"), [0, 1], "setting masking.protected_ids was [0, 1, 2] and is [0, 1]"),
        (("settings", "pretrain", "epochs"), 6, "setting pretrain.epochs was 5 and is 6"),
        (("corpus", "digest"), "f" * 64, "the corpus' digest was 3f2a"),
        (("corpus", "vocabulary_sha256"), "f" * 64, "the corpus' vocabulary_sha256 was 3f2a"),
        (("corpus", "ids_sha256"), "f" * 64, "the corpus' ids_sha256 was 3f2a"),
        (("code", "masking.py"), "2" * 64, "the code of masking.py changed"),
        (("code",), {"text.py": "1" * 64, "new.py": "2"}, "the code of masking.py, new.py changed"),
        (("environment", "packages", "numpy"), "2.1.0", "package numpy was 2.0.0 and is 2.1.0"),
        (("environment", "packages", "keras"), None, "package keras was "),
        (("environment", "cpu", "model"), "another", "cpu.model was "),
        (("environment", "cpu", "instruction_sets"), [], "cpu.instruction_sets was "),
        (("environment", "platform", "machine"), "arm65", "machine was "),
        (("environment", "threads"), {"intra_op": 3, "inter_op": 1}, "threads.intra_op was "),
        (("environment", "devices"), [{"type": "GPU", "name": "one"}], "devices was "),
        (("environment", "variables", "TF_ENABLE_ONEDNN_OPTS"), "0", "variables.TF_ENABLE_ONEDNN_OPTS was None and is"),
    ],
)
def test_what_decides_bits_is_named(path, value, message):
    with pytest.raises(ResumeError) as caught:
        require_resumable(*changed(*path, value=value))
    assert str(caught.value).startswith("resume: what the run computes has changed: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_change_is_said_at_once():
    earlier, now = changed("settings", "seed", value=1)
    now["code"]["text.py"] = "9" * 64
    now["corpus"]["digest"] = "e" * 64
    assert len(list(changed_inputs(earlier, now))) == 2
    assert list(changed_environment(earlier, now)) == ["the code of text.py changed"]
    with pytest.raises(ResumeError) as caught:
        require_resumable(earlier, now)
    assert str(caught.value).count("; ") == 2


def test_a_record_from_a_file_equals_one_in_memory(tmp_path):
    """JSON makes lists of tuples; that is no change."""
    record = made_up_record()
    write_record(tmp_path, record)
    now = made_up_record()
    now["settings"]["masking"]["protected_ids"] = tuple(now["settings"]["masking"]["protected_ids"])
    require_resumable(read_record(tmp_path), now)
