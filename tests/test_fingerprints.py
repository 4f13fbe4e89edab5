"""A trace keeps every step's bits, through a crash and a second start, and is believed only if it is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from minibert.errors import ArtifactError
from minibert.fingerprints import TraceHeader, TraceWriter, checksum, encode_trace, read_trace

HEADER = TraceHeader("pretrain", ("example_ids", "token_ids"), ("activation a", "gradient a", "weight a"))


def values_of(step: int) -> dict[str, object]:
    """What a step would give; one bit of the loss and one of a tensor are in the sign's place."""
    loss = np.float32(-1.5 if step % 2 else 1.0 / (step + 1))
    return {
        "loss_bits": int(loss.view(np.uint32)),
        "batch": {"example_ids": np.arange(step, step + 3), "token_ids": np.full((2, 2), step, np.int32)},
        "fingerprint": np.array([step, -step, -(2**31)], dtype=np.int32),
    }


def write(path, steps: range, *, kept: int = 0, sha256: str | None = None) -> str:
    """Writes rows; the digest of the whole trace."""
    writer = TraceWriter(path, HEADER, steps=kept, sha256=sha256)
    for step in steps:
        writer.append(step, **values_of(step))
    writer.close()
    return writer.sha256


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
    assert path.stat().st_size == len(HEADER.encoded()) + 4 * (8 + 4 + 2 * 4 + 3 * 4 + 4)
    content = path.read_bytes()
    start, size = len(HEADER.encoded()), HEADER.row.itemsize
    for step in range(4):
        row = content[start + step * size :][:size]
        assert int.from_bytes(row[-4:], "little") == zlib.crc32(content[:start] + row[:-4])
    assert encode_trace(HEADER, trace.rows) == content


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


def test_synced_rows_can_be_read_before_the_trace_ends(tmp_path):
    writer = TraceWriter(tmp_path / "a.trace", HEADER, steps=0)
    writer.append(0, **values_of(0))
    writer.sync()
    assert len(read_trace(tmp_path / "a.trace").rows) == 1
    writer.close()


def test_rows_are_held_and_written_together_in_their_order(tmp_path, monkeypatch):
    path, steps, written = tmp_path / "a.trace", 2 * TraceWriter.held_rows + 3, []
    writer = TraceWriter(path, HEADER, steps=0)
    monkeypatch.setattr(writer, "_written", lambda rows: written.append(rows["step"].tolist()))
    for step in range(steps):
        writer.append(step, **values_of(step))
        if step == TraceWriter.held_rows + 1:
            writer.flush()
    assert writer.sha256 == write(tmp_path / "at_once.trace", range(steps))
    writer.close()
    whole, ends = list(range(steps)), (TraceWriter.held_rows, TraceWriter.held_rows + 2, 2 * TraceWriter.held_rows + 2)
    assert written == [whole[: ends[0]], whole[ends[0] : ends[1]], whole[ends[1] : ends[2]], whole[ends[2] :]]
    assert path.read_bytes() == (tmp_path / "at_once.trace").read_bytes()
    assert writer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_trace(path).rows["step"].tolist() == whole


def test_a_trace_is_closed_though_its_last_rows_cannot_be_written(tmp_path):
    writer = TraceWriter(tmp_path / "a.trace", HEADER, steps=0)
    writer.append(0, **{**values_of(0), "fingerprint": np.zeros(7, np.int32)})
    with pytest.raises(ValueError, match="could not broadcast"):
        writer.close()
    writer.close()
    assert len(read_trace(tmp_path / "a.trace").rows) == 0


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
    with pytest.raises(ArtifactError, match="a fingerprint trace is required, but No such file"):
        TraceWriter(path, HEADER, steps=4)
    write(path, range(3))
    with pytest.raises(ArtifactError) as caught:
        TraceWriter(path, HEADER, steps=4)
    assert str(caught.value) == f"{path}: 4 steps are required, but 3 are there"


@given(array=hypothesis_numpy.arrays(st.sampled_from([np.int32, np.float32, np.int64, np.bool_]),
                                     hypothesis_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0)))  # fmt: skip
def test_checksum_is_the_crc_of_the_bytes_in_order(array):
    assert checksum(array) == zlib.crc32(array.tobytes())
    assert checksum(np.asfortranarray(array)) == checksum(array)


def test_checksum_tells_swapped_elements():
    assert checksum(np.array([1, 2, 3])) != checksum(np.array([2, 1, 3]))


def damaged(header: object = None, **changes: object) -> bytes:
    fields = {"format": 5, "stage": "pretrain", "batch": ["a"], "tensors": ["b"], **changes}
    fields = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(fields if header is None else header).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "field 'format': 5 is required"),
        (b"{", "field 'format': 5 is required"),
        (b"[]\n", "field 'format': 5 is required"),
        (b"\xff\xfe\n", ""),
        (b"not json\n", ""),
        pytest.param(b"[" * 100_000 + b"\n", "", id="nested"),
        (damaged(format=4), "field 'format': 5 is required, but 4 came, of another minibert"),
        (damaged(stage=None), "field 'stage': a str is required"),
        (damaged(batch=3), "field 'batch': a list is required"),
        (damaged(tensors=None), "field 'tensors': a list is required"),
        (damaged(tensors=["a", "b", "a"]), "field 'tensors': different names are required"),
        (damaged(batch=[["a"]]), "field 'batch': different names are required"),
        (damaged(interval=0), "field 'interval': a whole number from 1 is required, but 0 came"),
        (damaged(interval=2.0), "field 'interval': a whole number from 1 is required, but 2.0 came"),
        (damaged(interval=True), "field 'interval': a whole number from 1 is required, but True came"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, content, what):
    path = tmp_path / "pretrain.trace"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: a fingerprint trace is required, but its first line is not right: ")
    assert what in str(caught.value)


def test_a_missing_trace_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"a fingerprint trace is required, but No such file"):
        read_trace(tmp_path / "pretrain.trace")


def test_names_that_would_hide_one_another_are_refused():
    with pytest.raises(ValueError, match="field 'tensors': different names are required"):
        TraceHeader("pretrain", (), ("weight inner/kernel", "weight inner/kernel"))


def test_rows_that_are_moved_are_refused(tmp_path):
    path = tmp_path / "a.trace"
    write(path, range(3))
    content = path.read_bytes()
    start, size = len(HEADER.encoded()), HEADER.row.itemsize
    path.write_bytes(content[: start + size] + content[start + 2 * size :])
    with pytest.raises(ArtifactError) as caught:
        read_trace(path)
    assert str(caught.value) == f"{path}: field 'step' of row 1 does not fit: it was edited"


@given(data=st.data())
def test_every_edited_bit_is_noticed_and_the_file_is_named(tmp_path_factory, data):
    """Whatever bit of a whole trace is flipped: the header's, or a row's, which is named."""
    path = tmp_path_factory.getbasetemp() / "edited.trace"
    write(path, range(3))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ArtifactError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    start = len(HEADER.encoded())
    if place >= start:
        assert f"of row {(place - start) // HEADER.row.itemsize} does not fit" in str(caught.value)
    with pytest.raises(ArtifactError):
        TraceWriter(path, HEADER, steps=3)
    assert path.read_bytes() == before


# Gone on with from a checkpoint


def test_rows_that_part_from_the_checkpoints_digest_are_refused_and_left(tmp_path):
    path, other = tmp_path / "a.trace", tmp_path / "b.trace"
    digest = write(path, range(3))
    rows = read_trace(path).rows.copy()
    rows["loss"][1] += 1
    other.write_bytes(encode_trace(HEADER, rows))  # edited, with a checksum that fits
    before = other.read_bytes()
    with pytest.raises(ArtifactError) as caught:
        TraceWriter(other, HEADER, steps=3, sha256=digest)
    assert str(caught.value) == f"{other}: the trace of the checkpoint after step 3 is required, but another is there"
    assert other.read_bytes() == before
    assert write(path, range(3, 5), kept=3, sha256=digest) == write(tmp_path / "whole.trace", range(5))


def test_rows_after_the_checkpoint_do_not_matter(tmp_path):
    """A loss of power may leave anything there."""
    path, whole = tmp_path / "a.trace", tmp_path / "whole.trace"
    digest = write(path, range(2))
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    write(path, range(2, 4), kept=2, sha256=digest)
    write(whole, range(4))
    assert path.read_bytes() == whole.read_bytes()


def test_a_trace_of_other_names_is_not_gone_on_with(tmp_path):
    path = tmp_path / "a.trace"
    write(path, range(2))
    before = path.read_bytes()
    other = TraceHeader("pretrain", HEADER.batch, ("activation a", "gradient a", "weight b"))
    with pytest.raises(ArtifactError, match="the stage's own names are required in its first line"):
        TraceWriter(path, other, steps=2)
    seldom = dataclasses.replace(HEADER, interval=37)
    with pytest.raises(ArtifactError, match=r"one step in 1, which is required to go on, but one in 37 is asked for"):
        TraceWriter(path, seldom, steps=2)
    assert path.read_bytes() == before


def test_the_interval_of_fingerprints_is_read_as_it_was_written(tmp_path):
    """A trace of every step does not tell it: it is the one that earlier versions wrote."""
    header, path = dataclasses.replace(HEADER, interval=37), tmp_path / "a.trace"
    TraceWriter(path, header, steps=0).close()
    assert read_trace(path).header == header
    assert b"interval" not in HEADER.encoded()
