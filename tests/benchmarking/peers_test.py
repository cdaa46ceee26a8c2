"""The loops that a compiled scan is compared with walk the path that its table says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.benchmarking import peers
from jaxrec_diff.diffusion import forward, process, samplers, schedules
from jaxrec_diff.models.sasrec import SASRecConfig

LEVELS = forward.levels(schedules.linear(5, start=1e-3, stop=0.2))
W = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32) * 0.4


STEPS = samplers.ddpm_steps(LEVELS)


def chain_of(params, state, key, query, steps=STEPS):
    """A condition worked out once, guidance in the denoiser, noise and a projection."""
    cond = jnp.tanh(query @ params)
    draw = samplers.draw_rows(key, jnp.arange(len(query)), (4,))
    unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1.0)
    return process.Chain(steps, lambda xt, t: (xt @ params + cond) / (1.0 + t), query, draw, unit)


ARGS = (jnp.asarray(W), (), jax.random.key(3), jnp.ones((5, 4)))


@pytest.mark.parametrize("way", [peers.loop, peers.eager])
@pytest.mark.parametrize("steps", [samplers.ddpm_steps(LEVELS), samplers.dpmpp_steps(LEVELS)])
def test_peers_end_where_the_scan_does(way, steps):
    made = lambda *args: chain_of(*args, steps=steps)
    wanted = jax.jit(lambda *args: process.run(made(*args)))(*ARGS)
    run = way(made, *ARGS)
    np.testing.assert_allclose(run(), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run(), run())


def test_a_loop_works_the_condition_out_once():
    seen = []

    def counted(params, state, key, query):
        jax.debug.callback(lambda: seen.append(1))
        return chain_of(params, state, key, query)

    run = peers.loop(counted, *ARGS)
    jax.block_until_ready(run())
    jax.effects_barrier()
    assert len(seen) == 1


def test_a_peer_on_another_path_is_far_away():
    """The comparison sees one wrong coefficient of five."""
    steps = samplers.ddpm_steps(LEVELS)
    wrong = steps._replace(b=steps.b.at[3].multiply(1.2))
    ends = [peers.loop(lambda *a, s=s: chain_of(*a, steps=s), *ARGS)() for s in (steps, wrong)]
    assert peers.difference(ends[1], ends[0]) > 1e-3


def test_a_system_without_a_port_says_so():
    with pytest.raises(ValueError, match="sasrec has no PyTorch port"):
        peers.port(SASRecConfig(), "sampler")
