"""Classifier guidance by recommenders that were trained in the same run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.batches import cut, types
from jaxrec_diff.evaluation import rank
from jaxrec_diff.experiments import generation, pipeline, restore, runs
from jaxrec_diff.models import diffuasr, registry
from jaxrec_diff.models.readers import unpacked
from jaxrec_diff.training import state as training_state

FLAGS = [
    "--data.synthetic.num-users=300", "--data.synthetic.num-items=40",
    "--data.synthetic.num-interests=4", "--data.synthetic.min-length=5",
    "--data.synthetic.max-length=12", "--data.max-len=8", "--data.buckets=8", "--data.prefix-len=3",
    "--model.guidance=classifier", "--model.denoiser=mlp", "--model.mlp-hidden=128",
    "--model.num-steps=50", "--model.sampler.steps=5", "--train.batch-size=64",
    "--model.predict=x0", "--train.num-epochs=80", "--train.eval-every=80",
    "--train.learning-rate=0.005",
    "--backbone.model.width=16", "--backbone.model.num-blocks=1", "--backbone.train.batch-size=64",
    "--backbone.train.learning-rate=0.01", "--backbone.train.num-epochs=15",
    "--backbone.train.eval-every=15", "--backbone.model.dropout-rate=0.1", "--devices=1",
]  # fmt: skip
KEY = jax.random.key(3)


class Enough(Exception):
    """Ends a run whose generator is trained."""


@pytest.fixture(scope="module", params=["sasrec", pytest.param("bert4rec", marks=pytest.mark.slow)])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guided") / "run"
    chosen = config.choose({"model": "diffuasr", "backbone": request.param})
    asked = config.parse(chosen.settings.experiment, FLAGS)
    run = runs.prepare("diffuasr", asked, "synthetic")

    def leave(progress):
        if not progress.phase:  # the recommender on longer sequences, which nothing here needs
            raise Enough

    with pytest.raises(Enough):
        pipeline.train(run, folder, log=lambda text: None, on_progress=leave)
    return folder


def opened(workdir, *flags):
    """The generator's parts, its arrays and queries of all users."""
    phase, train = generation.generator_of(restore.reopen(workdir, list(flags)), workdir)
    made = diffuasr.parts(phase.settings.model, phase.spec)
    users = jnp.arange(phase.dataset.num_users)
    query = cut.queries(phase.dataset.user_items, users, max_len=phase.settings.data.max_len)
    return phase, made, training_state.averaged(train), train.state, query


@pytest.mark.parametrize("on", ["x0_hat", "xt"])
def test_guidance_raises_a_trained_recommenders_log_probability(trained, on):
    found = []
    for weight in (0, 3):
        _, made, params, state, query = opened(
            trained, f"--model.classifier-on={on}", f"--model.guidance-weight={weight}"
        )
        points = jax.jit(partial(diffuasr.points, made))(
            params, state, KEY, query
        )  # the same noise
        assert 0.3 < np.std(points) < 2  # rows have 1
        found.append(np.asarray(diffuasr.log_prob(made, params, state, KEY, query, points)))
    plain, guided = found
    # two log probabilities near log(1/2) that differ by .03 are 3 % of a probability apart
    assert guided.mean() > plain.mean() + 0.03
    assert (guided > plain).mean() > 0.85


def test_points_on_items_are_read_as_the_recommender_reads_the_items(trained):
    phase, made, params, state, _ = opened(trained, "--model.classifier-target=softmax")
    backbone = phase.settings.backbone.model
    spec = phase.spec._replace(exports={}, reader=None)
    model = registry.system(backbone).build(backbone, spec, protocol="honest")
    weights = unpacked(phase.spec.exports)
    rng = np.random.default_rng(0)
    items, target = rng.integers(1, 41, (30, 3)), rng.integers(1, 41, (30, 1))
    # the recommender is shown the items, the generator's reader their standardised rows
    shown = types.SequenceQuery(jnp.asarray(items, jnp.int32), jnp.arange(30))
    head = model.head(weights, ())
    points = model.sample(weights, (), KEY, shown)
    assert head.bias is None
    scores = np.asarray(points @ rank.item_rows(head).T, np.float64)
    log_softmax = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    asked = types.SequenceQuery(jnp.asarray(target, jnp.int32), jnp.arange(30))
    points = jnp.asarray(state["items"])[items]
    np.testing.assert_allclose(
        diffuasr.log_prob(made, params, state, KEY, asked, points),
        np.take_along_axis(log_softmax, target - 1, axis=1)[:, 0],
        atol=1e-4,
    )
