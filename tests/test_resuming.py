"""A run goes on only where nothing that decides its bits has changed, and what has changed is said."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from minibert.errors import ResumeError
from minibert.record import read_record, write_record
from minibert.resuming import (
    changed_code,
    changed_encoding,
    changed_environment,
    changed_inputs,
    computation_digests,
    require_resumable,
)
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
        (("corpus", "vocabulary_sha256"), "f" * 64, "the digest of the vocabulary was 3f2a"),
        (("corpus", "ids_sha256"), "f" * 64, "the digest of the token ids was 3f2a"),
        (("code", "masking.py"), "2" * 64, "the code of masking.py changed"),
        (("code",), {"text.py": "1" * 64, "new.py": "2"}, "the code of masking.py, new.py changed"),
        (("environment", "packages", "numpy"), "2.1.0", "package numpy was 2.0.0 and is 2.1.0"),
        (("environment", "packages", "keras"), None, "package keras was "),
        (("environment", "packages", "tensorflow-metal"), "1.2.0", "package tensorflow-metal was None and is 1.2.0"),
        (("environment", "cpu", "model"), "another", "cpu.model was "),
        (("environment", "cpu", "identity"), "AuthenticAMD 25 1 1", "cpu.identity was "),
        (("environment", "cpu", "instruction_sets"), [], "cpu.instruction_sets was "),
        (("environment", "platform", "machine"), "arm65", "machine was "),
        (("environment", "platform", "libc"), "musl 1.2", "libc was "),
        (("environment", "python"), "3.99.0", "python was "),
        (("environment", "keras"), {"floatx": "float16"}, "keras.floatx was "),
        (("environment", "graph_options"), {"jit": "True"}, "graph_options.jit was None and is 'True'"),
        (("environment", "threads"), {"intra_op": 3, "inter_op": 1}, "threads.intra_op was "),
        (("environment", "devices"), [{"type": "GPU", "name": "one"}], "devices was "),
        (("environment", "cuda"), {"driver": "1.0"}, "cuda.driver was "),
        (("environment", "variables", "TF_ENABLE_ONEDNN_OPTS"), "0", "variables.TF_ENABLE_ONEDNN_OPTS was None and is"),
        (
            ("environment", "variables", "ONEDNN_DEFAULT_FPMATH_MODE"),
            "BF16",
            "variables.ONEDNN_DEFAULT_FPMATH_MODE was None and is 'BF16'",
        ),
        (
            ("environment", "variables", "TF_SET_ONEDNN_FPMATH_MODE"),
            "BF16",
            "variables.TF_SET_ONEDNN_FPMATH_MODE was None and is 'BF16'",
        ),
        (("environment", "variables", "NVIDIA_TF32_OVERRIDE"), "0", "variables.NVIDIA_TF32_OVERRIDE was None and is"),
    ],
)
def test_what_decides_bits_is_named(path, value, message):
    with pytest.raises(ResumeError) as caught:
        require_resumable(*changed(*path, value=value))
    assert str(caught.value).startswith("resume: the run is complete, but what it computes has changed: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_change_is_said_at_once():
    earlier, now = changed("settings", "seed", value=1)
    now["code"]["text.py"] = "9" * 64
    now["corpus"]["digest"] = "e" * 64
    assert len(list(changed_inputs(earlier, now))) == 2
    assert list(changed_code(earlier, now)) == ["the code of text.py changed"]
    assert list(changed_environment(earlier, now)) == list(changed_encoding(earlier, now)) == []
    with pytest.raises(ResumeError) as caught:
        require_resumable(earlier, now)
    assert str(caught.value).count("; ") == 2


def test_a_run_that_is_not_complete_is_said_to_be_resumed():
    earlier, now = changed("settings", "seed", value=1)
    message = (
        "resume: what the run computes has changed: setting seed was 0 and is 1 (without settings of its own a resumed "
        "run goes on as it began, and another directory takes a new run)"
    )
    with pytest.raises(ResumeError, match=f"^{re.escape(message)}$"):
        require_resumable(earlier | {"status": "running"}, now)


def test_a_variable_that_was_not_recorded_yet_was_not_set():
    earlier, now = changed("environment", "variables", "OMP_NUM_THREADS", value=None)
    del earlier["environment"]["variables"]["OMP_NUM_THREADS"]
    require_resumable(earlier, now)


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (("settings", "seed"), 1, "settings"),
        (("corpus", "digest"), "f" * 64, "corpus"),
        (("corpus", "ids_sha256"), "f" * 64, "corpus"),
        (("code", "masking.py"), "2" * 64, "code"),
        (("environment", "packages", "numpy"), "2.1.0", "environment"),
        (("settings", "record", "checkpoint_steps"), 7, None),
        (("environment", "variables", "PYTHONHASHSEED"), "12", None),
        (("data",), "/elsewhere", None),
    ],
)
def test_a_computation_has_a_digest_for_each_part(path, value, part):
    one, two = (computation_digests(record) for record in changed(*path, value=value))
    assert [name for name in one if one[name] != two[name]] == ([part] if part else [])
    assert all(len(digest) == 64 for digest in one.values())


def test_a_record_from_a_file_equals_one_in_memory(tmp_path):
    write_record(tmp_path, made_up_record())
    require_resumable(read_record(tmp_path), made_up_record())
    assert computation_digests(read_record(tmp_path)) == computation_digests(made_up_record())


def test_before_the_corpus_is_read_the_rest_is_compared():
    earlier, now = changed("corpus", "digest", value="f" * 64)
    del now["corpus"]
    require_resumable(earlier, now)
    now["settings"]["seed"], now["code"]["text.py"] = 1, "9" * 64
    with pytest.raises(ResumeError, match=r"setting seed was 0 and is 1; the code of text\.py changed \(without"):
        require_resumable(earlier, now)
