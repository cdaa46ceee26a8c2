"""Programs of every system are made for accelerators too, of operations that they have."""

import functools
import re

import jax
import numpy as np
import pytest

from jaxrec_diff import layout
from jaxrec_diff.evaluation import rank
from jaxrec_diff.training import optim, parallel, state, step
from jaxrec_diff.training.config import TrainConfig
from tests.models import contract_test as contract

PLATFORMS = ("tpu", "cuda")
# Sharding and the like, which every compiler knows, and JAX's own kernels of each.
KNOWN = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "annotate_device_placement"}
OWN = {"tpu": ("Qr", "TopK", "ProductOfElementaryHouseholderReflectors", "Eigh"),
       "cuda": ("cu_", "cusolver_", "hipsolver_")}  # fmt: skip
# One of a kind of system; every variant of the settings is `slow`.
QUICK = ("dimerec", "sasrec", "diffrec-noisy", "lightgcn", "diffuasr")
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
         for name in contract.SMALL]  # fmt: skip


@functools.cache
def shapes(name):
    """A model, and the shapes of its state before training, of an example and of a query."""
    made = contract.build(name)
    batch, asked = contract.example(name), contract.query(name)
    optimizer = optim.make(TrainConfig(), 3)

    def initial(batch):
        return state.create(made.init(jax.random.key(0), batch), optimizer)

    train = jax.eval_shape(initial, batch)
    return made, optimizer, train, asked


def check(lowered, platform):
    """No operation that only another platform has."""
    text = lowered.as_text()
    for call in set(re.findall(r"custom_call @([\w.$]+)", text)):
        assert call in KNOWN or call.startswith(OWN[platform]), f"{platform} has no {call}"
    assert len(text) > 1000


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", NAMES)
def test_training_sampling_and_ranking_lower(name, platform):
    made, optimizer, train, asked = shapes(name)
    mesh = layout.make_mesh(jax.devices()[:1])

    def update(train, key, example):
        return step.update(made, optimizer, train, key, example)

    def lists(params, extra, key, query):
        extra = made.precompute(params, extra)
        drawn = rank.sample(made, params, extra, key, query)
        if drawn.points.ndim == 3 and made.score_pooling == "best":
            return rank.nearest(drawn, distinct=True), rank.top(drawn, k=5)
        return rank.top(drawn, k=5, seen=None)

    batcher = contract.batcher_of(name)
    updates = parallel.jit_updates(update, batcher.example, mesh)
    order = np.zeros((3, contract.ROWS), np.int32)
    given = train, batcher.train, contract.KEY, order, np.int32(0), np.int32(3)
    with jax.set_mesh(mesh):
        check(updates.run.trace(*given).lower(lowering_platforms=(platform,)), platform)
        asks = train.params, train.state, contract.KEY, asked
        check(jax.jit(lists).trace(*asks).lower(lowering_platforms=(platform,)), platform)


def test_branches_on_the_backend_are_left_to_the_compiler():
    """A program may be lowered on one backend for another."""
    from pathlib import Path

    import jaxrec_diff

    package = Path(jaxrec_diff.__file__).parent
    for path in package.rglob("*.py"):
        if package / "benchmarking" not in path.parents:  # it measures the machine that it runs on
            assert "default_backend" not in path.read_text(), path
