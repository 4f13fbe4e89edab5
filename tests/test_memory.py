"""Memory that runs out is one line that says whose batch needed it."""

from __future__ import annotations

import pytest
import tensorflow as tf

from minibert.errors import MinibertError, OutOfMemoryError
from minibert.training.memory import within_memory


@pytest.mark.parametrize(
    ("remedy", "behind"), [("", ""), ("a smaller batch_size may help", "; a smaller batch_size may help")]
)
def test_memory_that_runs_out_names_the_work_and_its_batch(remedy: str, behind: str) -> None:
    with pytest.raises(OutOfMemoryError) as caught, within_memory("frozen, step 3", 64, remedy):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nwith shape[64,256]")
    required = "frozen, step 3: memory for a batch of 64 is required, but the device has too little left"
    assert str(caught.value) == f"{required}{behind}"
    assert isinstance(caught.value, MinibertError)


def test_a_tensor_that_cannot_be_is_told_as_it_is_by_tensorflow() -> None:
    """What TensorFlow really raises: a petabyte is more than any device has."""
    with (
        pytest.raises(OutOfMemoryError, match="evaluate: memory for a batch of 32 is required"),
        within_memory("evaluate", 32),
    ):
        tf.zeros([2**50], tf.int8)


def test_other_errors_and_results_pass() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError), within_memory("frozen", 1):
        raise tf.errors.InvalidArgumentError(None, None, "no")
    with within_memory("frozen", 1):
        found = 7
    assert found == 7
