"""What a dispatch of updates shows the step, and reports, under both ways to use devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import layout
from jaxrec_diff.training import parallel

BATCH, STEPS = 8, 5
DATA = np.random.default_rng(0).normal(size=20).astype(np.float32)
ORDER = np.random.default_rng(1).integers(0, 20, (STEPS, BATCH)).astype(np.int32)


class Train(NamedTuple):
    step: jax.Array
    total: jax.Array


def dispatched(mode, devices, *pieces, explode_at=-1):
    """Runs `pieces` of (first, count); the reports of each and the last state."""
    axis_name = parallel.AXIS if mode == "pmap" else None

    def examples(data, index, row, key):
        return data[index] * (row + 1), jax.random.uniform(key)

    def update(train, key, example):
        weighted, drawn = example
        loss = weighted.sum() if axis_name is None else jax.lax.psum(weighted.sum(), axis_name)
        after = Train(train.step + 1, train.total + loss)
        loss = jnp.where(train.step >= explode_at, jnp.nan, loss) if explode_at >= 0 else loss
        return after, {"loss": loss, "drawn": drawn, "noise": jax.random.uniform(key)}

    wrap = {"jit": parallel.jit_updates, "pmap": parallel.pmap_updates}[mode]
    updates = wrap(update, examples, layout.make_mesh(jax.devices()[:devices]))
    train = updates.place(Train(jnp.int32(0), jnp.float32(0)))
    data, key, order = (updates.place(x) for x in (DATA, jax.random.key(2), ORDER))
    found = []
    for first, count in pieces:
        train, reports = updates.run(train, data, key, order, np.int32(first), np.int32(count))
        found.append(jax.device_get(reports))
    return found, jax.device_get(updates.fetch(train))


WAYS = [("jit", 1), ("jit", 8), ("pmap", 2), ("pmap", 8)]


@pytest.mark.parametrize(("mode", "devices"), WAYS)
def test_updates_see_their_batch_and_its_places(mode, devices):
    (found,), train = dispatched(mode, devices, (1, 3))
    want = (DATA[ORDER] * np.arange(1, BATCH + 1)).sum(axis=1)
    np.testing.assert_allclose(found.metrics["loss"][:3], want[1:4], rtol=1e-5)
    assert not found.metrics["loss"][3:].any() and found.bad_step == -1
    assert len(found.metrics["loss"]) == parallel.MOST_UPDATES
    assert train.step == 3
    np.testing.assert_allclose(train.total, want[1:4].sum(), rtol=1e-5)


@pytest.mark.parametrize(("mode", "devices"), WAYS)
def test_batches_are_drawn_anew_by_step_alone(mode, devices):
    (whole,), _ = dispatched(mode, devices, (0, 5))
    pieces, _ = dispatched("jit", 1, (0, 2), (2, 1), (3, 2))
    drawn = whole.metrics["drawn"][:5]
    assert len(set(drawn.tolist())) == 5 and drawn.min() > 0
    assert not set(drawn.tolist()) & set(whole.metrics["noise"][:5].tolist())
    parts = [each.metrics["drawn"][:n] for each, n in zip(pieces, (2, 1, 2), strict=True)]
    np.testing.assert_array_equal(drawn, np.concatenate(parts))


@pytest.mark.parametrize(("mode", "devices"), [("jit", 1), ("pmap", 2)])
def test_the_first_bad_update_is_named_by_its_step(mode, devices):
    found, _ = dispatched(mode, devices, (0, 2), (2, 3), explode_at=3)
    assert [int(each.bad_step) for each in found] == [-1, 4]
