"""Batches in a few lengths against plain Python and against counting."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches import lengths as batches_lengths
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.ops.ragged import Ragged
from tests.batches.compiled import compiled


def histories(lengths):
    end = np.cumsum(lengths)
    return Ragged(np.ones(end[-1] + 1, np.int32), end - lengths, end, end + 1)


@pytest.mark.parametrize("seed", range(4))
def test_chosen_lengths_pad_least_of_all(seed):
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.25, 200), 14)  # some are longer than max_len
    config = DataConfig(max_len=10)
    clipped = np.minimum(lengths, 10)

    def places(cuts):
        return sum(min(c for c in cuts if c >= length) for length in clipped)

    longest = clipped.max()
    best = min(places((*cuts, longest)) for cuts in itertools.combinations(range(1, longest), 3))
    chosen = batches_lengths.bucket_lengths(histories(lengths), config)
    assert len(chosen) <= 4 and chosen[-1] == 10 and list(chosen) == sorted(set(chosen))
    assert places(chosen) == best


def test_few_lengths_need_few_buckets_and_set_ones_are_kept():
    three = histories(np.array([3] * 5 + [7] * 2))
    assert batches_lengths.bucket_lengths(three, DataConfig(max_len=7)) == (3, 7)
    assert batches_lengths.bucket_lengths(three, DataConfig(max_len=7, buckets=(2, 4))) == (2, 4, 7)
    assert batches_lengths.bucket_lengths(three, DataConfig(max_len=7, buckets=(7,))) == (7,)


def test_bad_buckets():
    for buckets, said in (((8, 4), "4,8"), ((0, 3), "such as 3"), ((8, 99), "exceed")):
        with pytest.raises(ValueError, match=said):
            DataConfig(max_len=50, buckets=buckets)


def test_batches_by_length_hold_the_same_examples(dataset, settings):
    config = replace(settings, buckets=(2, 3))
    fed, plain = (
        compiled(SEQUENCES.by_length(dataset, config, 16, 2)),
        compiled(SEQUENCES.batcher(dataset, settings)),
    )
    index = fed.order(jax.random.key(1))[1]
    row = jnp.arange(index.shape[0], dtype=jnp.int32)
    batch = fed.example(fed.train, index, row, jax.random.key(0))
    assert [part.shape[1] for part in batch.seq] == [2, 3, 5]
    assert sum(part.shape[0] for part in batch.seq) == index.shape[0]
    real = np.asarray(batch.row_id)[np.asarray(batch.weight) > 0].tolist()
    assert len(set(real)) == len(real)
    everything = plain.example(
        plain.train, jnp.arange(plain.num_examples), jnp.arange(plain.num_examples), None
    )
    known = {
        (*map(int, seq), int(target))
        for seq, target in zip(everything.seq, everything.target, strict=True)
    }
    padded = np.concatenate([np.pad(part, ((0, 0), (0, 5 - part.shape[1]))) for part in batch.seq])
    for seq, target, weight in zip(padded, batch.target, batch.weight, strict=True):
        assert weight == 0 or (*map(int, seq), int(target)) in known
    assert 13 <= batch.weight.sum() <= 18
    # rows of the two halves come from the two devices' shares
    half = index.shape[0] // 2
    one = fed.example(fed.train, index[:half], row[:half], jax.random.key(0))
    for part, share in zip(batch.seq, one.seq, strict=True):
        np.testing.assert_array_equal(part[: share.shape[0]], share)


def test_grouped_queries_are_the_queries(dataset, settings):
    config = replace(settings, buckets=(3, 4))
    fed, plain = (
        compiled(SEQUENCES.by_length(dataset, config, 16, 1)),
        compiled(SEQUENCES.batcher(dataset, settings)),
    )
    for split in ("valid", "test"):
        rows = np.concatenate([group.rows for group in fed.groups[split]])
        assert sorted(rows) == list(range(len(dataset.valid.start)))
        for group in fed.groups[split]:
            got = jax.jit(group.query)(fed.splits[split], jnp.asarray(group.rows))
            want = plain.query(plain.splits[split], jnp.asarray(group.rows))
            np.testing.assert_array_equal(got.row_id, want.row_id)
            np.testing.assert_array_equal(got.seq, want.seq[:, : got.seq.shape[1]])
            assert not want.seq[:, got.seq.shape[1] :].any()


@pytest.mark.parametrize("devices", [2, 4])
def test_rows_of_batches_by_length_do_not_depend_on_the_devices(dataset, settings, devices):
    # What keys the noise of an example: the same numbers however the batch is dealt out.
    config, found = replace(settings, buckets=(2, 3)), []
    for count in (1, devices):
        fed = compiled(SEQUENCES.by_length(dataset, config, 16, count))
        for index in fed.order(jax.random.key(1)):
            row = jnp.arange(index.shape[0], dtype=jnp.int32)
            batch = fed.example(fed.train, index, row, jax.random.key(0))
            flat = [tuple(map(int, seq)) for part in batch.seq for seq in part]
            columns = zip(flat, batch.target, batch.row_id, batch.weight, strict=True)
            found.append({(seq, int(t), int(r)) for seq, t, r, weight in columns if weight > 0})
    half = len(found) // 2
    assert found[:half] == found[half:]
