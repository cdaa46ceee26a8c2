"""Every device holds the rows that it ranks, and cuts from them what the whole split gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.batches import cut
from jaxrec_diff.batches.interactions import INTERACTIONS
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.data.config import DataConfig, SyntheticConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.evaluation import evaluator, shares
from jaxrec_diff.ops import meshes

SETTINGS = DataConfig(
    max_len=5,
    buckets=(2, 5),
    time_weight_min=0.5,
    synthetic=SyntheticConfig(num_users=203, num_items=30, num_interests=4, max_length=14),
)
DATASET = load("synthetic", SETTINGS)
BATCH = 24
MESHES = [(1, 1), (4, 1), (8, 1), (2, 4)]


def fed(kind):
    """Batches of a kind, in two lengths where it has some, and the test split."""
    if kind is SEQUENCES:
        batcher = kind.by_length(DATASET, SETTINGS, 16, 1)
    else:
        batcher = kind.batcher(DATASET, SETTINGS)
    split = evaluator.split_of(
        DATASET.test,
        batcher.splits["test"],
        batcher.query,
        groups=batcher.groups.get("test", ()),
        alone=batcher.alone,
    )
    return batcher, split


@pytest.mark.parametrize(("data", "model"), MESHES)
@pytest.mark.parametrize("kind", [SEQUENCES, INTERACTIONS], ids=lambda kind: kind.name)
def test_devices_cut_what_the_whole_split_gives(kind, data, model):
    batcher, split = fed(kind)
    mesh = layout.make_mesh(jax.devices()[: data * model], model=model)
    made, ranked = shares.of_split(split, BATCH, mesh), []
    for group, batches in zip(split.groups, made.batches, strict=True):
        own = jax.jit(shares.cutter(group.query, {"": split}, mesh))
        for row, place in batches:
            query, answers = own(made.arrays, row, place)
            want = group.query(split.rows, jnp.asarray(row))
            jax.tree.map(np.testing.assert_array_equal, query, want)
            sizes = {"max_seen": split.max_seen, "max_relevant": split.max_relevant}
            want = cut.answers(split.histories, jnp.asarray(row), **sizes)
            jax.tree.map(np.testing.assert_array_equal, answers[""], want)
            assert query.row_id.sharding.shard_shape(row.shape) == (len(row) // data,)
            ranked.extend(row[row >= 0].tolist())
    assert sorted(ranked) == list(range(split.num_rows))


@pytest.mark.parametrize("kind", [SEQUENCES, INTERACTIONS], ids=lambda kind: kind.name)
def test_a_device_holds_its_share_and_no_more(kind):
    held = {}
    for data, model in MESHES:
        mesh = layout.make_mesh(jax.devices()[: data * model], model=model)
        leaves = jax.tree.leaves(shares.of_split(fed(kind)[1], BATCH, mesh).arrays)
        for leaf in leaves:
            assert leaf.sharding.spec == P(meshes.DATA)
            assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {1}
            assert leaf.shape[0] == data
        held[data] = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    for data in (2, 4, 8):  # shares differ by a batch that is not full, and by long histories
        assert held[1] / data <= held[data] < 1.25 * held[1] / data


def test_no_row_goes_from_a_device_to_another():
    split, mesh = fed(SEQUENCES)[1], layout.make_mesh(model=2)
    made = shares.of_split(split, BATCH, mesh)
    own = jax.jit(shares.cutter(split.groups[0].query, {"": split}, mesh))
    text = own.lower(made.arrays, *made.batches[0][0]).compile().as_text()
    assert not [name for name in ("all-gather", "all-reduce", "all-to-all") if name in text]
