"""Histories and next items against plain Python over the same flat arrays."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxrec_diff.batches.sequences import SEQUENCES, WINDOWS


def test_every_training_item_with_a_history_is_a_target_once(dataset, settings, training):
    fed = SEQUENCES.batcher(dataset, settings)
    index = jnp.arange(fed.num_examples, dtype=jnp.int32)
    batch = fed.example(fed.train, index, index, jax.random.key(0))
    got = [
        ([item for item in seq if item], target)
        for seq, target in zip(batch.seq.tolist(), batch.target.tolist(), strict=True)
    ]
    want = [
        (items[max(0, at - settings.max_len) : at], items[at])
        for items in training.values()
        for at in range(1, len(items))
    ]
    assert sorted(got) == sorted(want)


def test_windows_make_every_training_item_a_target_once(dataset, settings, training):
    length, fed = 2, WINDOWS.batcher(dataset, replace(settings, max_len=2))
    index = jnp.arange(fed.num_examples, dtype=jnp.int32)
    batch = fed.example(fed.train, index, index, jax.random.key(0))
    got = []
    for seq, target in zip(batch.seq.tolist(), batch.target.tolist(), strict=True):
        seen = [item for item in seq if item]
        got += [(a, b) for a, b in zip(seen, [*seen[1:], target], strict=True)]
    want = [pair for items in training.values() for pair in itertools.pairwise(items)]
    assert sorted(got) == sorted(want) and length == batch.seq.shape[1]
