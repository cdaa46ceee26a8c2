"""Histories and what came before them, against plain Python over the same flat arrays."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxrec_diff.batches.prefixes import PREFIXES


def test_examples_hold_the_answer_and_the_newest_of_the_rest(dataset, settings, training):
    config = replace(settings, max_len=2, prefix_len=2)
    found = PREFIXES.view(dataset, config)
    fed = PREFIXES.batcher(found, config)
    index = jnp.arange(-1, fed.num_examples, dtype=jnp.int32)
    batch = fed.example(fed.train, index, jnp.arange(len(index)), jax.random.key(0))
    assert batch.weight.tolist() == [0.0] + [1.0] * fed.num_examples
    held = {*found.valid_users.tolist(), *found.test_users.tolist()}
    got = zip(batch.prefix[1:].tolist(), batch.seq[1:].tolist(), strict=True)
    want = [
        (items[:2], (items[2:][-2:] + [0])[:2])
        for user, items in training.items()
        if len(items) >= 3 and user not in held
    ]
    assert sorted(got) == sorted(want)
