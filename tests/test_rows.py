"""Rows go where they are sent, and their gradients come back; nothing is added up on the way."""

from __future__ import annotations

import tensorflow as tf

from minibert.model.rows import rearrange, take_rows


def test_rows_go_back_to_their_places_and_those_that_fill_up_to_none() -> None:
    matrix = tf.reshape(tf.range(10.0), (5, 2))
    positions, row_of_place = tf.constant([1, 4, 0]), tf.constant([0, 1, 0, 0, 2])  # the third row fills up
    with tf.GradientTape() as tape:
        tape.watch(matrix)
        rows = take_rows(matrix, positions, row_of_place)
    upstream = tf.constant([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    assert rows.numpy().tolist() == [[2.0, 3.0], [8.0, 9.0], [0.0, 1.0]]
    assert tape.gradient(rows, matrix, upstream).numpy().tolist() == [[0, 0], [1, 2], [0, 0], [0, 0], [3, 4]]


def test_rows_are_rearranged_and_their_gradients_taken_back() -> None:
    rows, numbers, back = tf.constant([[1.0], [2.0], [3.0]]), tf.constant([0, 3, 1, 0]), tf.constant([3, 0, 2])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        other = rearrange(rows, numbers, back)
    assert other.numpy().tolist() == [[0.0], [3.0], [1.0], [0.0]]
    assert tape.gradient(other, rows, tf.constant([[5.0], [6.0], [7.0], [8.0]])).numpy().tolist() == [[7], [0], [6]]
