"""A trace keeps every step's bits, through a crash and a second start, and is believed only if it is whole."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from minibert.errors import ArtifactError
from minibert.fingerprints import TraceHeader, TraceWriter, checksum, read_trace

HEADER = TraceHeader("pretrain", ("example_ids", "token_ids"), ("activation a", "gradient a", "weight a"))


def values_of(step: int) -> dict[str, object]:
    """What a step would give; one bit of the loss and one of a tensor are in the sign's place."""
    loss = np.float32(-1.5 if step % 2 else 1.0 / (step + 1))
    return {
        "loss_bits": int(loss.view(np.uint32)),
        "batch": {"example_ids": np.arange(step, step + 3), "token_ids": np.full((2, 2), step, np.int32)},
        "fingerprint": np.array([step, -step, -(2**31)], dtype=np.int32),
    }


def write(path, steps: range, *, kept: int = 0) -> None:
    writer = TraceWriter(path, HEADER, steps=kept)
    for step in steps:
        writer.append(step, **values_of(step))
    writer.close()


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "trace" / "pretrain.trace"
    write(path, range(4))
    trace = read_trace(path)
    assert trace.header == HEADER
    assert trace.rows["step"].tolist() == [0, 1, 2, 3]
    assert trace.losses.dtype == np.float32
    assert trace.losses.tolist() == [1.0, -1.5, np.float32(1 / 3), -1.5]
    for step in range(4):
        known = values_of(step)
        assert trace.rows["batch"][step].tolist() == [zlib.crc32(array.tobytes()) for array in known["batch"].values()]
        assert trace.rows["tensors"][step].tolist() == known["fingerprint"].tolist()
    assert path.stat().st_size == len(HEADER.encoded()) + 4 * (8 + 4 + 2 * 4 + 3 * 4)


def test_a_trace_that_is_gone_on_with_is_one_that_was_never_stopped(tmp_path):
    write(tmp_path / "whole.trace", range(6))
    write(tmp_path / "parts.trace", range(5))
    write(tmp_path / "parts.trace", range(3, 6), kept=3)  # the checkpoint was older than the trace
    assert (tmp_path / "parts.trace").read_bytes() == (tmp_path / "whole.trace").read_bytes()


def test_a_new_start_drops_what_was_there(tmp_path):
    path = tmp_path / "a.trace"
    write(path, range(6))
    write(path, range(2))
    assert len(read_trace(path).rows) == 2


def test_flushed_rows_can_be_read_before_the_trace_ends(tmp_path):
    writer = TraceWriter(tmp_path / "a.trace", HEADER, steps=0)
    writer.append(0, **values_of(0))
    writer.flush()
    assert len(read_trace(tmp_path / "a.trace").rows) == 1
    writer.close()


@pytest.mark.parametrize("cut", [1, 7, 31])
def test_a_row_cut_by_a_crash_is_left_out(tmp_path, cut):
    path = tmp_path / "a.trace"
    write(path, range(3))
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_trace(path).rows["step"].tolist() == [0, 1]
    write(path, range(2, 3), kept=2)
    assert read_trace(path).rows["step"].tolist() == [0, 1, 2]


def test_a_trace_with_too_few_rows_is_not_gone_on_with(tmp_path):
    path = tmp_path / "a.trace"
    for steps, there in ((0, 0), (3, 3)):
        if steps:
            write(path, range(steps))
        with pytest.raises(ArtifactError) as caught:
            TraceWriter(path, HEADER, steps=4)
        assert str(caught.value) == f"{path}: 4 steps are required, but {there} are there"


@given(array=hypothesis_numpy.arrays(st.sampled_from([np.int32, np.float32, np.int64, np.bool_]),
                                     hypothesis_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0)))  # fmt: skip
def test_checksum_is_the_crc_of_the_bytes_in_order(array):
    assert checksum(array) == zlib.crc32(array.tobytes())
    assert checksum(np.asfortranarray(array)) == checksum(array)


def test_checksum_tells_swapped_elements():
    assert checksum(np.array([1, 2, 3])) != checksum(np.array([2, 1, 3]))


def damaged(header: dict[str, object] | None = None, **changes: object) -> bytes:
    fields = {"format": 1, "stage": "pretrain", "batch": ["a"], "tensors": ["b"], **changes}
    fields = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(fields if header is None else header).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "format 1 is required in its first line"),
        (b"{", "format 1 is required in its first line"),
        (b"[]\n", "format 1 is required"),
        (b"\xff\xfe\n", ""),
        (b"not json\n", ""),
        (damaged(format=2), "format 1 is required"),
        (damaged(stage=None), "'stage'"),
        (damaged(batch=3), ""),
        (damaged(tensors=None), "'tensors'"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, content, what):
    path = tmp_path / "pretrain.trace"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: a fingerprint trace is required, but it cannot be read: ")
    assert what in str(caught.value)


def test_a_missing_trace_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"a fingerprint trace is required, but it cannot be read: .*No such file"):
        read_trace(tmp_path / "pretrain.trace")


def test_rows_that_are_moved_are_refused(tmp_path):
    path = tmp_path / "a.trace"
    write(path, range(3))
    content = path.read_bytes()
    start, size = len(HEADER.encoded()), HEADER.row.itemsize
    path.write_bytes(content[: start + size] + content[start + 2 * size :])
    with pytest.raises(ArtifactError) as caught:
        read_trace(path)
    assert str(caught.value) == (f"{path}: field 'step': 0, 1, 2, ... are required; the trace was edited or damaged")
