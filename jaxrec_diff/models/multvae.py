"""Mult-VAE and Mult-DAE: an autoencoder of a user's row with a multinomial likelihood
(arXiv:1802.05814).

The strongest network without a diffusion that reads what DiffRec reads. L-DiffRec's code is nearly
this model; here rows are scaled to length 1 before dropout and the code is not bounded.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.interactions import INTERACTIONS
from jaxrec_diff.batches.types import InteractionQuery, Interactions
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.network import call
from jaxrec_diff.models.protocols import MATRIX_SCRIPT, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets import dropout
from jaxrec_diff.ops import filled, rng, sparse, vectors


@dataclass(frozen=True, kw_only=True)
class MultVAEConfig:
    """Settings of Mult-VAE; the defaults are the paper's."""

    hidden: int = 600
    """Width of the hidden layer on either side of the code."""
    width: int = 200
    """Width of the code."""
    code: Literal["vae", "dae"] = "vae"
    """vae: a normal code with a penalty; dae: tanh of its mean, without one (weigh parameters down
    by train.weight-decay instead)."""
    dropout_rate: float = 0.5
    """Dropout of the row's entries."""
    kl_weight: float = 0.2
    """Weight of the code's divergence from a standard normal, once it is whole."""
    anneal_steps: int = 20_000
    """Updates over which that weight grows from 0, on a line."""

    def __post_init__(self) -> None:
        validation.at_least("model.hidden", self.hidden, 1)
        validation.at_least("model.width", self.width, 1)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.at_least("model.kl-weight", self.kl_weight, 0)
        validation.at_least("model.anneal-steps", self.anneal_steps, 1)


class MultVAENet(nn.Module):
    """I -> hidden, tanh -> code -> hidden, tanh -> I. Tables have a row an item, filled up."""

    num_items: int
    config: MultVAEConfig

    def setup(self) -> None:
        wide, code = self.config.hidden, self.config.width
        kernel, bias = nn.initializers.glorot_uniform(), nn.initializers.truncated_normal(1e-3)
        shape = (self.num_items, wide)
        self.table_in = self.param("table_in", filled.drawn(kernel), shape)
        self.bias_in = self.param("bias_in", bias, (wide,))
        self.moments = nn.Dense(
            code * (2 if self.config.code == "vae" else 1), kernel_init=kernel, bias_init=bias
        )
        self.outward = nn.Dense(wide, kernel_init=kernel, bias_init=bias)
        self.table_out = self.param("table_out", filled.drawn(kernel), shape)
        self.bias_out = self.param("bias_out", filled.drawn(bias), (self.num_items,))

    def __call__(self, items: jax.Array, value: jax.Array) -> jax.Array:
        """Touches every parameter, for `init` only."""
        return self.decode(self.encode(items, value)[0])

    def encode(self, items: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Rows of length 1, i32[B, P] and f32[B, P] -> mean and log variance of their codes,
        f32[B, D] each; of a code without a law the log variance is 0."""
        hidden = jnp.tanh(sparse.project(items, value, self.table_in) + self.bias_in)
        found = self.moments(hidden)
        if self.config.code == "dae":
            return jnp.tanh(found), jnp.zeros_like(found)
        mean, log_variance = jnp.split(found, 2, axis=-1)
        return mean, log_variance

    def decode(self, code: jax.Array) -> jax.Array:
        """f32[B, D] -> f32[B, hidden], the last layer before the catalogue."""
        return jnp.tanh(self.outward(code))


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: MultVAEConfig
    net: MultVAENet
    num_items: int
    axis_name: str | None


def parts(config: MultVAEConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network of Mult-VAE; arguments as of `build`."""
    return Parts(config, MultVAENet(spec.num_items, config), spec.num_items, axis_name)


def init(parts: Parts, key: jax.Array, example: Interactions) -> Variables:
    """Parameters, and the number of updates made, i32[]."""
    params = parts.net.init(key, example.items[:1], example.value[:1])["params"]
    return Variables(params, jnp.zeros((), jnp.int32))


def loss(
    parts: Parts, params: Any, state: jax.Array, key: jax.Array, example: Interactions
) -> tuple[jax.Array, Aux]:
    """The negative evidence bound of rows; Mult-VAE, Eq. 5 and 6.

        L = -sum_i x_i log softmax(f(z))_i + beta KL(q(z | x) | N(0, 1))

    where z is drawn from q, a normal whose mean and variance are read from the row with entries
    dropped, and beta grows on a line from 0.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: the number of updates made.
      key: of dropout and the codes, each row's own.
      example: B rows of the interaction matrix.

    Returns:
      f32[] the weighted mean, and `Aux` with the metrics "loss", "multinomial" and "kl".

    >>> made = parts(MultVAEConfig(hidden=4, width=2), DataSpec(2, num_items=5, max_len=2))
    >>> items, user = jnp.array([[1, 2], [3, 0]]), jnp.arange(2)
    >>> example = Interactions(items, 1.0 * (items > 0), user, weight=jnp.ones(2), row_id=user)
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics), int(aux.state)
    ((), True, ['kl', 'loss', 'multinomial'], 1)
    """
    config = parts.config
    k_drop, k_code = jax.random.split(key)
    keys = rng.row_keys(k_drop, example.row_id)
    entered = dropout.drop_rows(keys, vectors.unit(example.value), config.dropout_rate)
    mean, log_variance = call(parts, params, "encode", example.items, entered)
    code = mean
    if config.code == "vae":
        drawn = rng.normal(k_code, example.row_id, mean.shape[1:])
        code = mean + drawn * jnp.exp(0.5 * log_variance)
    likelihood = losses.multinomial(
        call(parts, params, "decode", code),
        params["table_out"],
        params["bias_out"],
        example.items,
        example.value,
        num_items=parts.num_items,
    )
    grown = jnp.minimum(state / config.anneal_steps, 1.0)
    weight = config.kl_weight * grown if config.code == "vae" else 0.0
    apart = losses.normal_kl(mean, log_variance)
    each = likelihood + weight * apart
    value, multinomial, kl = (
        losses.weighted_mean(part, example.weight, parts.axis_name)
        for part in (each, likelihood, apart)
    )
    return value, Aux(state + 1, {"loss": value, "multinomial": multinomial, "kl": kl})


def sample(
    parts: Parts, params: Any, state: jax.Array, key: jax.Array, query: InteractionQuery
) -> jax.Array:
    """The last layer before the catalogue of the mean codes, f32[B, hidden]; nothing is drawn."""
    del state, key
    mean, _ = call(parts, params, "encode", query.items, vectors.unit(query.value))
    return call(parts, params, "decode", mean)


def head(parts: Parts, params: Any, state: jax.Array) -> Head:
    """The output layer."""
    del state
    return Head(params["table_out"], params["bias_out"], items=parts.num_items)


def build(
    config: MultVAEConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """Mult-VAE as pure functions.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: changes nothing here.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        deterministic=True,
    )


SYSTEM = System(
    config=MultVAEConfig,
    build=build,
    official=MATRIX_SCRIPT,
    official_differs=False,
    input=INTERACTIONS,
)
