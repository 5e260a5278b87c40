"""Batches of one size: every row is in them, in order, with its label and weight."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from lazy import Lazy

batches = Lazy("moa_ray.training.batches")
SIZE = 16


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**31))
def test_batches_visit_every_row_and_go_on_from_the_beginning(n_rows, batch_size, seed):
    """Each tile is painted with its row, each row's label follows from it."""
    tiles = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, SIZE, SIZE, 3))
    rows = np.random.default_rng(seed).choice(40, n_rows, replace=False)
    weights = np.array([1, 2, 4], dtype=np.float32)
    dataset = batches.Batches(tiles, np.arange(40) % 3, rows, batch_size, weights)
    visited = []
    for index in range(len(dataset)):
        images, labels, sample_weights = dataset[index]
        assert images.dtype == np.uint8
        assert images.shape == (batch_size, SIZE, SIZE, 3)
        seen = images[:, 0, 0, 0]
        np.testing.assert_array_equal(labels, seen % 3)
        np.testing.assert_array_equal(sample_weights, weights[seen % 3])
        visited += list(seen)
    assert dataset.workers > 1  # so that Keras switches off an autotuning which holds up the end of epochs
    expected = list(rows)
    while len(expected) < len(visited):
        expected.append(rows[len(expected) % n_rows])
    assert visited == expected
    assert len(visited) - n_rows < batch_size
    to_predict = batches.Batches(tiles, np.arange(40) % 3, rows, batch_size)
    assert [image[0, 0, 0] for index in range(len(to_predict)) for image in to_predict[index][0]] == visited
