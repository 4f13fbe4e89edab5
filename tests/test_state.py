"""State is all the bits under names: its digest tells any change, and it is set only where it fits."""

from __future__ import annotations

import hashlib

import keras
import numpy as np
import pytest

from minibert.errors import ArtifactError
from minibert.training.state import optimizer_arrays, set_optimizer, set_weights, state_digest, weight_arrays


@pytest.fixture
def model():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dropout(0.5, name="dropout")(keras.layers.Dense(2, name="one")(inputs))
    return keras.Model(inputs, keras.layers.Dense(1, name="two")(hidden))


def test_weights_are_named_by_path_without_the_seeds_of_keras(model):
    arrays = weight_arrays(model.variables)
    assert list(arrays) == ["one/kernel", "one/bias", "two/kernel", "two/bias"]
    assert len(model.variables) == 5


def test_weights_are_set_bit_for_bit(model):
    odd = {name: np.full(value.shape, -0.0, np.float32) for name, value in weight_arrays(model.variables).items()}
    odd["one/kernel"][0] = [1e-45, np.nan]
    set_weights(model.variables, {**odd, "more": np.zeros(1)}, source="checkpoint")
    assert {n: v.tobytes() for n, v in weight_arrays(model.variables).items()} == {
        n: v.tobytes() for n, v in odd.items()
    }


def test_optimizers_are_set_bit_for_bit(model):
    one, other = (keras.optimizers.Adam(0.001, name="adam") for _ in range(2))
    for optimizer in (one, other):
        optimizer.build(model.trainable_variables)
    one.apply([np.full(v.shape, 0.5, np.float32) for v in model.trainable_variables], model.trainable_variables)
    assert state_digest(optimizer_arrays(one)) != state_digest(optimizer_arrays(other))
    set_optimizer(other, optimizer_arrays(one), source="checkpoint")
    assert state_digest(optimizer_arrays(one)) == state_digest(optimizer_arrays(other))
    assert int(other.iterations) == 1


def digest_of(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_digest_is_what_its_docstring_says():
    arrays = {"b": np.array([[1.0, -0.0]], dtype=np.float32), "a": np.array(3, dtype=np.int64)}
    # A scalar counts as an array of one element.
    assert state_digest(arrays) == digest_of(
        b"a\0<i8\0(1,)\0", arrays["a"].tobytes(), b"b\0<f4\0(1, 2)\0", arrays["b"].tobytes()
    )


def test_the_digest_tells_every_change_and_nothing_else():
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float32)}
    ulp = arrays["a"].copy()
    ulp[1, 2] = np.nextafter(ulp[1, 2], np.float32(9))
    changed = [
        {**arrays, "a": ulp},
        {**arrays, "a": arrays["a"].reshape(3, 2)},
        {**arrays, "a": arrays["a"].astype(np.float64)},
        {**arrays, "a": arrays["a"][::-1]},
        {**arrays, "b": -arrays["b"]},
        {"a": arrays["a"], "c": arrays["b"]},
        {"a": arrays["b"], "b": arrays["a"]},
        {"a": arrays["a"]},
        {},
    ]
    assert len({state_digest(some) for some in [arrays, *changed]}) == len(changed) + 1
    same = [dict(reversed(arrays.items())), {**arrays, "a": np.asfortranarray(arrays["a"])}]
    assert {state_digest(some) for some in same} == {state_digest(arrays)}


def test_a_weight_that_is_missing_or_of_another_shape_is_named(model):
    arrays = weight_arrays(model.variables)
    with pytest.raises(ArtifactError) as caught:
        set_weights(model.variables, {n: v for n, v in arrays.items() if n != "two/bias"}, source="some file")
    assert str(caught.value) == "some file: weight 'two/bias' is required, but it is missing"
    with pytest.raises(ArtifactError) as caught:
        set_weights(model.variables, {**arrays, "one/kernel": np.zeros((2, 3), np.float32)}, source="some file")
    assert str(caught.value) == "some file: 'one/kernel': shape (3, 2) is required, not (2, 3)"


def test_an_optimizer_that_does_not_fit_is_refused(model):
    optimizer = keras.optimizers.Adam(0.001, name="adam")
    optimizer.build(model.trainable_variables)
    arrays = optimizer_arrays(optimizer)
    with pytest.raises(ArtifactError) as caught:
        set_optimizer(optimizer, dict(list(arrays.items())[1:]), source="some file")
    assert str(caught.value) == (
        f"some file: {len(arrays)} optimizer variables are required, but {len(arrays) - 1} came"
    )
    name = next(name for name in arrays if "one_kernel" in name)
    with pytest.raises(ArtifactError, match=r"some file: '.*one_kernel.*': shape \(3, 2\) is required, not \(1,\)"):
        set_optimizer(optimizer, {**arrays, name: np.zeros(1, np.float32)}, source="some file")


def test_weights_of_one_path_keep_their_own_values():
    """Keras' loader calls the feed-forward weights of all blocks the same."""
    inputs = keras.Input((2,))
    twins = [keras.Sequential([keras.layers.Dense(2, name="inner")], name=f"block_{n}") for n in range(3)]
    both = keras.Model(inputs, twins[2](twins[1](twins[0](inputs))))
    for variable in both.variables:
        short = variable.path.partition("/")[2]
        try:
            variable.path = short  # Keras 3.5
        except AttributeError:
            variable._path = short
    arrays = weight_arrays(both.variables)
    assert list(arrays) == ["inner/kernel", "inner/bias", "inner/kernel#2", "inner/bias#2", "inner/kernel#3",
                            "inner/bias#3"]  # fmt: skip
    before = state_digest(arrays)
    both.variables[0].assign(np.zeros((2, 2)))
    assert state_digest(weight_arrays(both.variables)) != before, "not only the last one counts"
    set_weights(both.variables, arrays, source="checkpoint")
    assert state_digest(weight_arrays(both.variables)) == before
    with pytest.raises(ArtifactError, match="weight 'inner/kernel#2' is required, but it is missing"):
        set_weights(both.variables, {n: v for n, v in arrays.items() if n != "inner/kernel#2"}, source="some file")
