"""Examples cut on the host from small arrays, against those cut from all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.interactions import INTERACTIONS
from jaxrec_diff.batches.prefixes import PREFIXES
from jaxrec_diff.batches.sequences import SEQUENCES, WINDOWS
from jaxrec_diff.batches.triplets import TRIPLETS, TRIPLETS_BY_USER
from jaxrec_diff.batches.whole_sequences import WHOLE_SEQUENCES
from jaxrec_diff.data import views

KINDS = [
    SEQUENCES, WINDOWS, PREFIXES, INTERACTIONS, TRIPLETS, TRIPLETS_BY_USER, WHOLE_SEQUENCES,
]  # fmt: skip
BATCH, STEPS = 12, 2


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_small_arrays_give_the_same_examples(dataset, settings, kind, by_length, tmp_path):
    if by_length and kind.by_length is None:
        pytest.skip("has one length")
    own = kind.view(dataset, settings)
    if kind is WHOLE_SEQUENCES:  # with items ahead of them that nobody chose
        made = np.random.default_rng(1).integers(1, 21, (dataset.num_users, settings.prefix_len))
        own = views.longer(dataset, made.astype(np.int32))
    if by_length:
        fed = kind.by_length(own, settings, BATCH, 1)
        order = np.asarray(jax.jit(fed.order)(jax.random.key(4)))[:STEPS]
    else:
        fed = kind.batcher(own, settings)
        order = np.random.default_rng(0).integers(0, fed.num_examples, (STEPS, BATCH))
        order = order.astype(np.int32)
    keys = jax.random.split(jax.random.key(5), STEPS)
    mapped = jax.tree.map(lambda leaf: _on_disk(tmp_path, leaf), fed.train)
    row_id = np.arange(order.shape[1], dtype=np.int32)
    small = fed.stream.cut(mapped, order, row_id, keys)
    places = np.where(order >= 0, np.arange(order.size).reshape(order.shape), -1)

    def joined(*args):
        return fed.stream.join(fed.stream.example(*args))

    cut = [jax.jit(example) for example in (fed.example, joined)]
    for n in range(STEPS):
        whole = cut[0](fed.train, order[n], row_id, keys[n])
        found = cut[1](small, places[n].astype(np.int32), row_id, keys[n])
        jax.tree.map(np.testing.assert_array_equal, found, whole)
        assert whole.weight.sum() > 0

    # another chunk is no other shape, however long its histories are
    again = fed.stream.cut(mapped, np.full_like(order, order.max()), row_id, keys)
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), each) for each in (small, again)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_empty_slots_weigh_nothing(dataset, settings, kind):
    fed = kind.batcher(kind.view(dataset, settings), settings)
    keys, index = jax.random.split(jax.random.key(5), 1), np.array([[3, -1, 2]], np.int32)
    small = fed.stream.cut(fed.train, index, np.arange(3, dtype=np.int32), keys)
    found = fed.stream.example(small, np.array([0, -1, 2]), jnp.arange(3), keys[0])
    assert found.weight.tolist() == [1.0, 0.0, 1.0]


def _on_disk(folder, leaf):
    path = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(path, leaf)
    return np.load(path, mmap_mode="r")
