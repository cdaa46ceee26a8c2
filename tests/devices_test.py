"""Every system on one device and on meshes of several: the same losses and the same lists.

Losses of three updates may differ by 1e-5 of themselves, where sums are taken in another order.
Lists of the initial arrays are identical, and what training makes of them is told by the losses.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import layout
from jaxrec_diff.evaluation import rank
from jaxrec_diff.ops import meshes
from jaxrec_diff.training import optim, parallel, state, step
from jaxrec_diff.training.config import TrainConfig
from tests.models import contract_test as contract

MESHES = ((2, 1), (1, 2), (2, 4))
QUICK = ("dimerec", "sasrec", "mf")
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
         for name in contract.SMALL]  # fmt: skip
STEPS = 3
ORDER = np.random.default_rng(4).integers(0, 90, (STEPS, contract.ROWS)).astype(np.int32)


def fitted(name, data, model):
    """Losses of a few updates on a mesh, the state after them, and lists before them."""
    made, batcher = contract.build(name), contract.batcher_of(name)
    variables = contract.compiled_of(name)[1]
    mesh = layout.make_mesh(jax.devices()[: data * model], model=model)
    optimizer = optim.make(TrainConfig(learning_rate=1e-2), STEPS)

    def update(train, key, example):
        return step.update(made, optimizer, train, key, example)

    @jax.jit
    def lists(params, extra, query):
        extra = made.precompute(params, extra)
        drawn = rank.sample(made, params, extra, contract.KEY, query)
        points = drawn.points
        top = rank.top(drawn, k=7, allowed=jnp.arange(contract.ITEMS) != 3)
        return points, top

    updates = parallel.jit_updates(update, batcher.example, mesh)
    train = updates.place(state.create(jax.tree.map(jnp.copy, variables), optimizer))
    asked = updates.place(contract.query(name))
    with jax.set_mesh(mesh):
        points, found = lists(train.params, train.state, asked)
        given = (updates.place(x) for x in (batcher.train, contract.KEY, ORDER))
        train, reports = updates.run(train, *given, np.int32(0), np.int32(STEPS))
    return np.asarray(reports.metrics["loss"][:STEPS]), train, points, found


@functools.cache
def alone(name):
    return fitted(name, 1, 1)


@pytest.mark.parametrize(("data", "model"), MESHES)
@pytest.mark.parametrize("name", NAMES)
def test_devices_train_and_list_as_one_does(name, data, model):
    losses, train, points, found = fitted(name, data, model)
    wanted, _, same_points, same = alone(name)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    np.testing.assert_allclose(points, same_points, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.items, same.items)
    if model == 1:
        return
    cut = [leaf for leaf in jax.tree.leaves(train.params) if any(leaf.sharding.spec)]
    for leaf in cut:
        assert leaf.sharding.spec[0] == meshes.MODEL
        assert leaf.addressable_shards[0].data.shape[0] * model == leaf.shape[0]
    # systems whose tables lie in their state, or by clusters, have none to cut
    assert cut or name.startswith(("ddrm", "ldiffrec", "diffuasr"))
