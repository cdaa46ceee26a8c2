# %% [markdown]
# # The pure functions inside another program
#
# A diffusion model of its own: a network in Flax, a plain loop, and from this package the schedule,
# the forward process, classifier-free guidance and a sampler. Those need jax, numpy and chex; no
# config, no trainer, no data loader comes with them.
#
#     python -m jaxrec_diff.examples.pure_functions [UPDATES]
#
# The data are two crescents in the plane, one for each condition, so that it can be checked by eye
# whether guidance does what it should.

# %%
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses
from jaxrec_diff.diffusion import forward, guidance, process, samplers, schedules, timesteps

UPDATES = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
NUM_STEPS, BATCH, DROP, LEARNING_RATE = 100, 256, 0.1, 2e-3


def crescents(key, side):
    """f32[B, 2] points on the upper (side 0) or the lower (1) half of a ring."""
    angle = jnp.pi * jax.random.uniform(key, side.shape)
    up = 1 - 2.0 * side
    return jnp.stack([jnp.cos(angle), up * jnp.sin(angle)], axis=-1)


# %% [markdown]
# ## The forward process
#
# A schedule is a host array of betas in float64. Its last level is made pure noise, which is where
# sampling starts. It becomes noise levels, of which the tables of the forward process and of
# reverse paths are made once.

# %%
levels = forward.levels(schedules.zero_terminal_snr(schedules.cosine(NUM_STEPS)))
tables = forward.tables(levels)


# %% [markdown]
# ## A network
#
# It sees a noisy point, its step and the side, and estimates the clean point. Side 2 means that no
# side is given.


# %%
class Net(nn.Module):
    width: int = 64

    @nn.compact
    def __call__(self, xt, t, side):
        angle = t[:, None] / NUM_STEPS * jnp.pi * 2.0 ** jnp.arange(4)
        step = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
        x = jnp.concatenate([xt, step, jax.nn.one_hot(side, 3)], axis=-1)
        for _ in range(2):
            x = nn.gelu(nn.Dense(self.width)(x))
        return nn.Dense(2)(x)


net = Net()
NO_SIDE = 2


def estimate(params, xt, t, side):
    return net.apply(params, xt, t, side)


# %% [markdown]
# ## The loss and a loop
#
# Everything is a pure function, so it goes under `jit`, `grad` and `scan` like any other code. The
# optimiser is Adam, written out.


# %%
def loss(params, key):
    k_side, k_data, k_t, k_eps, k_drop = jax.random.split(key, 5)
    row = jnp.arange(BATCH)  # noise is keyed by row: results do not depend on how a batch is split
    side = jax.random.bernoulli(k_side, 0.5, (BATCH,)).astype(jnp.int32)
    x0 = crescents(k_data, side)
    t = timesteps.uniform(k_t, row, NUM_STEPS)
    xt = forward.q_sample(tables, x0, t, jax.random.normal(k_eps, x0.shape))
    shown = jnp.where(jax.random.bernoulli(k_drop, DROP, (BATCH,)), NO_SIDE, side)
    return losses.mse(estimate(params, xt, t, shown), x0).mean()


def update(carry, key):
    params, mean, square, count = carry
    value, grads = jax.value_and_grad(loss)(params, key)
    count = count + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g**2, square, grads)

    def moved(p, m, s):
        m, s = m / (1 - 0.9**count), s / (1 - 0.999**count)
        return p - LEARNING_RATE * m / (jnp.sqrt(s) + 1e-8)

    return (jax.tree.map(moved, params, mean, square), mean, square, count), value


k_init, k_train, k_start = jax.random.split(jax.random.key(0), 3)
params = net.init(k_init, jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32))
zeros = jax.tree.map(jnp.zeros_like, params)
start = (params, zeros, zeros, jnp.float32(0))
(params, *_), values = jax.jit(lambda s, keys: jax.lax.scan(update, s, keys))(
    start, jax.random.split(k_train, UPDATES)
)
first, last = float(values[:50].mean()), float(values[-50:].mean())
print(f"loss {first:.3f} at first, {last:.3f} after {UPDATES} updates")


# %% [markdown]
# ## Sampling
#
# A denoiser is any function (x_t, t) -> x_0. Guidance takes two and gives one; a sampler is a table
# of coefficients. Table, denoiser and start are a chain, and one scan runs any of them. Here are 20
# steps of DDIM, guided by weight 1.


# %%
steps = samplers.ddim_steps(levels, schedules.subset(NUM_STEPS, 20)[::-1])


@jax.jit
def sample(params, key, side):
    def shown(side):
        return lambda xt, t: estimate(params, xt, jnp.broadcast_to(t, side.shape), side)

    nobody = jnp.full_like(side, NO_SIDE)
    denoise = guidance.classifier_free(shown(side), shown(nobody), weight=1.0)
    start = jax.random.normal(key, (*side.shape, 2))
    return process.run(process.Chain(steps, denoise, start))


side = jnp.arange(1000) % 2
points = np.asarray(sample(params, k_start, side))
radius = np.linalg.norm(points, axis=1)
right_side = float(np.mean((points[:, 1] < 0) == (np.asarray(side) == 1)))
print(f"radius {radius.mean():.3f} +- {radius.std():.3f}, {right_side:.1%} on the side asked for")
