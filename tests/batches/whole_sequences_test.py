"""Whole training sequences against plain Python over the same flat arrays."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.whole_sequences import WHOLE_SEQUENCES
from tests.batches.compiled import compiled


def test_sequences_by_length_are_the_sequences(dataset, settings, training):
    config = replace(settings, buckets=(2, 3))
    fed = compiled(WHOLE_SEQUENCES.by_length(dataset, config, 8, 2))
    rows, found = training, []
    for index in fed.order(jax.random.key(1)):
        row = jnp.arange(index.shape[0], dtype=jnp.int32)
        batch = fed.example(fed.train, index, row, jax.random.key(0))
        assert [part.shape[1] for part in batch.seq] == [2, 3, 5]
        used = np.asarray(batch.row_id)[np.asarray(batch.weight) > 0].tolist()
        assert len(set(used)) == len(used)
        at = 0
        for seq, negative in zip(batch.seq, batch.negative, strict=True):
            assert seq.shape == negative.shape
            for items, others in zip(seq.tolist(), negative.tolist(), strict=True):
                if batch.weight[at] > 0:
                    items = [item for item in items if item]
                    found.append(items)
                    owners = [own for own in rows.values() if own[-len(items) :] == items]
                    assert any(not set(own) & set(others) for own in owners)
                at += 1
    want = [items[-5:] for items in rows.values() if len(items) >= 2]
    # a batch has fixed slots for a length, so the last few may not be dealt out in an epoch
    assert 0 <= len(want) - len(found) < 8
    for items in found:
        want.remove(items)


def test_data_without_users_is_refused(dataset, settings):
    with pytest.raises(ValueError, match="histories without users; this model needs"):
        WHOLE_SEQUENCES.batcher(dataset._replace(user_items=None), settings)
