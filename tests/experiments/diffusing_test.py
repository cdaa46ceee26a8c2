"""Whether a diffusion matters, asked of networks that are known to read x_t, or not to."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.diffusion import forward, process, samplers
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.evaluation import shown
from jaxrec_diff.experiments import diffusing, judging, phases, runs
from jaxrec_diff.models.contract import Head, Model
from jaxrec_diff.ops import streams
from jaxrec_diff.reporting import diffusion

ITEMS = 60
TABLE = jnp.asarray(np.random.default_rng(0).normal(size=(ITEMS + 1, ITEMS)), jnp.float32)
LEVELS = forward.levels(np.linspace(1e-6, 0.5, 6))


def toy(denoiser, kind):
    """A model of points in the space of scores, x_0 the indicator of an item; `denoiser` makes
    (x_t, t) -> x0_hat of a history."""
    tables = forward.tables(LEVELS)
    steps = samplers.one_step(LEVELS) if kind == "one_step" else samplers.ddpm_steps(LEVELS)

    def chain(params, state, key, query):
        k_start, k_steps = jax.random.split(key)
        start = jax.random.normal(k_start, (query.seq.shape[0], ITEMS))
        draw = samplers.draw_rows(k_steps, query.row_id, (ITEMS,))
        return Chain(steps, denoiser(query.seq, tables), start, draw)

    def noised(params, state, key, query, items, t):
        x0 = jax.nn.one_hot(items[:, 0] - 1, ITEMS)
        return forward.at_step(tables, key, query.row_id, x0, t)

    return Model(
        init=None,
        loss=None,
        sample=lambda params, state, key, query: process.run(chain(params, state, key, query)),
        head=lambda params, state: Head(jnp.eye(ITEMS)),
        chain=chain,
        noised=noised,
    )


def blind(seq, tables):
    taste = jnp.where((seq > 0)[:, :, None], TABLE[seq], 0.0).sum(axis=1)
    return lambda xt, t: taste


def copying(seq, tables):
    return lambda xt, t: xt / tables.signal[t]


def prepared(name, *flags):
    flags = ["--train.batch-size=64", "--devices=1", "--eval.metric=ndcg@10", *flags]
    flags = ["--data.synthetic.num-users=200", f"--data.synthetic.num-items={ITEMS}", *flags]
    chosen = config.parse(config.preset(name, "synthetic").experiment, flags)
    return runs.prepare(name, chosen, "synthetic").phases[-1]


@pytest.fixture(scope="module")
def phase():
    return prepared("dimerec", "--eval.ks=1,10", "--eval.seeds=3")


def asked(phase, denoiser, monkeypatch):
    monkeypatch.setattr(
        phases, "model_of", lambda phase: toy(denoiser, phase.settings.model.sampler.kind)
    )
    return diffusing.control(phase, {}, ())


def test_a_network_that_ignores_x_t_says_the_same_whatever_it_is_shown(phase, monkeypatch):
    found = asked(phase, blind, monkeypatch)
    rows = found["rows"]
    assert set(rows) == set(diffusion.ROWS) - {diffusing.UNGUIDED}
    figures = {
        name: {k: v for k, v in row.items() if k not in ("steps", "overlap")}
        for name, row in rows.items()
    }
    assert all(row == figures[diffusing.OWN] for row in figures.values())
    assert figures[diffusing.OWN]["ndcg@10"] > 0
    assert {row["overlap"] for row in rows.values()} == {1.0} and found["draws"] == 1.0
    assert rows[diffusing.ONE_CALL]["steps"] == 1 and rows[diffusing.FULL]["steps"] == 6
    assert "no use of x_t" in diffusion.verdict(found)
    assert found["left_out"] == {diffusing.UNGUIDED: "it has no guidance"}


def test_a_network_that_copies_x_t_is_as_good_as_what_it_is_shown(phase, monkeypatch):
    def unmeasured(name, dataset):
        raise ValueError(f"not measured for {name}")

    monkeypatch.setattr(config, "fast", unmeasured)
    found = asked(phase, copying, monkeypatch)
    rows, test = found["rows"], phase.dataset.test
    assert found["left_out"][diffusing.FAST] == "not measured for dimerec"
    assert rows[diffusing.ANSWER]["hr@1"] == 1.0 and rows[diffusing.ANSWER]["ndcg@10"] == 1.0
    # shown nothing, all items score alike, and ties are lost
    assert rows[diffusing.WITHOUT]["hr@10"] == 0.0
    # shown another's answer, it hits where that is one's own and not yet seen
    users = phase.dataset.test_users
    other = shown.strangers(users, streams.strangers(phase.settings.seed))
    answer = test.items[test.end]
    hit = answer[other] == answer
    assert 0 < hit.sum() < len(hit) / 4
    assert rows[diffusing.STRANGER]["hr@1"] == pytest.approx(hit.mean())
    assert found["draws"] < 0.5 and rows[diffusing.FULL]["overlap"] == 1.0
    assert "reads x_t" in diffusion.verdict(found)


def test_own_lists_are_the_full_chain_and_guidance_is_taken_away(monkeypatch):
    fast = config.Fast(model={"sampler.kind": "ddim", "sampler.steps": 2}, measured="a.json")
    monkeypatch.setattr(config, "fast", lambda name, dataset: fast)
    phase = prepared(
        "dreamrec", "--model.sampler.kind=mean", "--model.num-steps=5", "--model.width=8",
        "--model.guidance-weight=3.0", "--eval.ks=10",
    )  # fmt: skip
    index = jnp.zeros(2, jnp.int32)
    example = phase.batcher.example(phase.batcher.train, index, index, jax.random.key(0))
    variables = phases.model_of(phase).init(jax.random.key(0), example)
    found = diffusing.control(phase, *variables)
    rows = found["rows"]
    own, full = rows[diffusing.OWN], rows[diffusing.FULL]
    assert own == full and own["steps"] == 5
    assert rows[diffusing.FAST]["steps"] == 2
    plain = phases.changed(
        phase,
        settings=replace(phase.settings, model=replace(phase.settings.model, guidance_weight=0.0)),
    )
    top = judging.lists_of(plain, "test", k=10)(*variables, streams.draw(phase.settings.seed, 0))
    unguided = rows[diffusing.UNGUIDED]
    assert {name: unguided[name] for name in top.metrics} == top.metrics
    assert unguided["overlap"] < 1.0
    (row,) = (row for row in diffusing._rows(plain) if row.name == diffusing.UNGUIDED)
    with pytest.raises(ValueError, match="no weight as it is"):
        row.make()


def test_a_model_without_a_reverse_process_has_no_rows():
    assert diffusing.control(prepared("sasrec"), {}, ()) == {}
