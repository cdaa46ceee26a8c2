"""What order is worth, by models that are known to need all, some or none of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.experiments import phases, runs, shuffling
from jaxrec_diff.models.contract import Head, Model
from jaxrec_diff.reporting import orders

ITEMS = 60
TABLE = jnp.asarray(np.random.default_rng(0).integers(-50, 50, (ITEMS + 1, ITEMS)), jnp.float32)


def model(read):
    """A model that scores by the integers that `read` makes of histories, padded at the right."""
    return Model(
        init=None,
        loss=None,
        sample=lambda params, state, key, query: read(query.seq),
        head=lambda params, state: Head(jnp.eye(ITEMS)),
    )


def bag(seq):
    return jnp.where((seq > 0)[:, :, None], TABLE[seq], 0.0).sum(axis=1)


def newest(seq):
    return TABLE[jnp.take_along_axis(seq, jnp.maximum((seq > 0).sum(1) - 1, 0)[:, None], 1)[:, 0]]


def prepared(name, *flags):
    flags = [
        "--train.batch-size=64",
        "--devices=1",
        "--eval.ks=10",
        "--eval.metric=ndcg@10",
        *flags,
    ]
    flags = ["--data.synthetic.num-users=200", f"--data.synthetic.num-items={ITEMS}"] + flags
    chosen = config.parse(config.preset(name, "synthetic").experiment, flags)
    return runs.prepare(name, chosen, "synthetic")


@pytest.fixture(scope="module")
def phase():
    return prepared("sasrec", "--eval.shuffles=2", "--eval.seeds=3").phases[-1]


@pytest.mark.parametrize(("read", "mixed", "kept"), [(bag, True, True), (newest, False, True)])
def test_order_is_needed_as_far_as_a_model_reads_it(phase, read, mixed, kept, monkeypatch):
    monkeypatch.setattr(phases, "model_of", lambda phase: model(read))
    found = shuffling.control(phase, {}, ())
    for name, same in (("shuffled", mixed), ("last_kept", kept)):
        beside = {key: found[name][key] for key in found["real"]}
        assert (beside == found["real"]) == same
        assert (found[name]["overlap"] == 1.0) == same and found[name]["overlap"] > 0
        assert any(found[name]["deviation"].values()) != same
    assert found["rules"]["pairs"]["real"] >= found["rules"]["pairs"]["shuffled"]
    lines = orders.lines({"order": found})
    assert (
        f"({found['shuffled'][found['metric']] / found['real'][found['metric']]:.0%})" in lines[0]
    )
    assert lines[-1].startswith("order hardly matters") or not mixed


def test_a_model_that_reads_no_histories_is_refused():
    with pytest.raises(ValueError, match="eval.shuffles=1 .* mf reads rows of users"):
        prepared("mf", "--eval.shuffles=1")
