"""Batches with a fixed number of slots for every bucket, against counting."""

import jax
import numpy as np
import pytest

from jaxrec_diff.batches import epochs as batches_epochs

CASES = [
    ((70, 30), 10, 1),
    ((71, 2, 30), 10, 2),
    ((5, 0, 100), 8, 4),
    ((1000, 333, 41, 7), 64, 8),
]


@pytest.mark.parametrize(("sizes", "batch_size", "groups"), CASES)
def test_an_epoch_takes_full_batches_worth_of_distinct_examples(sizes, batch_size, groups):
    steps = sum(sizes) // batch_size
    got = np.asarray(batches_epochs.stratified(jax.random.key(0), sizes, batch_size, groups))
    slots = np.array(batches_epochs.capacities(sizes, batch_size, groups))
    assert got.shape == (steps, slots.sum()) and (slots % groups == 0).all()
    taken = got[got >= 0]
    assert len(set(taken)) == len(taken) == steps * batch_size
    # each device's share of a batch is slots of the first bucket, then of the second, ..
    edges = np.append(0, np.cumsum(sizes))
    of_slot = np.repeat(np.arange(len(sizes)), slots // groups)
    bucket = np.searchsorted(edges, got.reshape(steps, groups, -1), side="right") - 1
    filled = got.reshape(steps, groups, -1) >= 0
    assert (bucket == of_slot)[filled].all()
    # proportions hold in every batch, to less than one example a bucket
    for k, size in enumerate(sizes):
        a_batch = ((bucket == k) & filled).sum(axis=(1, 2))
        share = batch_size * size / sum(sizes)
        assert np.abs(a_batch - share).max() < 1 + 1 / steps
        # and devices share them to within one
        by_device = ((bucket == k) & filled).sum(axis=2)
        assert (by_device.max(axis=1) - by_device.min(axis=1)).max() <= 1


def test_another_epoch_is_another_order_and_nothing_is_left_out_for_good():
    sizes, batch_size = (40, 13), 10
    epochs = [
        np.asarray(batches_epochs.stratified(jax.random.key(epoch), sizes, batch_size))
        for epoch in range(30)
    ]
    assert not np.array_equal(epochs[0], epochs[1])
    seen = np.bincount(np.concatenate([e[e >= 0] for e in epochs]), minlength=53)
    # 50 of 53 a turn; 30 turns
    assert seen.min() >= 20
