"""DiffRec and T-DiffRec: diffusion of a user's whole row of interactions (arXiv:2304.04971).

A row is noised a little, a bottleneck network restores it, and the restored row is the list of
scores; there is no embedding of users. T-DiffRec is the same model on rows that weigh recent items
more (`data.time_weights`), and reads nothing but `Interactions.value`.

The output layer is the catalogue (`Head`) and its input is the point, so a reverse path need not
hold rows of the width of the catalogue: see `Folded`.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.interactions import INTERACTIONS
from jaxrec_diff.diffusion import forward, row_process, samplers, timesteps
from jaxrec_diff.diffusion import process as diffusion_process
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.process import Chain, Steps
from jaxrec_diff.diffusion.row_process import ProcessConfig
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.protocols import DIFFREC_SCRIPT, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets.dropout import keep_mask
from jaxrec_diff.nets.mlp import StepMLP
from jaxrec_diff.ops import rng, sparse, vectors

# With eps a point is as wide as the catalogue and so is each of its rows.
_MOST_ITEMS_EPS = 20_000


@dataclass(frozen=True, kw_only=True)
class DiffRecConfig:
    """Settings of DiffRec; the defaults are those published for Yelp."""

    dims: tuple[int, ...] = (1000,)
    """Hidden widths from the bottleneck outwards: 200,600 is I -> 600 -> 200 -> 600 -> I."""
    step_width: int = 10
    """Width of the step embedding."""
    dropout_rate: float = 0.5
    """Dropout of the noised row."""
    normalize: bool = False
    """Scale a row to length 1 before it enters the network."""
    process: ProcessConfig = field(default_factory=ProcessConfig)
    """The diffusion."""
    noise_steps: int = 0
    """Forward steps T' before the reverse path starts; every published run takes none."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(kind="mean"))
    """The reverse path; ddpm adds noise on the way."""
    path: Literal["hidden", "rows"] = "hidden"
    """hidden: the reverse path runs in the first hidden layer, the same numbers for a fraction of
    the work (noise has the same law, but is drawn there); rows: the plain path. predict=eps and
    normalize=true take the plain one."""

    def __post_init__(self) -> None:
        _check_dims("model.dims", self.dims)
        validation.at_least("model.step-width", self.step_width, 2)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        row_process.check_sampler(self.sampler, self.process, self.noise_steps)

    @property
    def hidden_path(self) -> bool:
        """Whether the reverse path runs in the first hidden layer."""
        return self.path == "hidden" and self.process.predict == "x0" and not self.normalize


class Folded(NamedTuple):
    """The reverse path in the first hidden layer, p = x W, once for a set of parameters.

    Let W be `table_in` and z -> z V + b the output layer. A reverse move is linear in x0_hat, x and
    noise, hence
        x_s = a (z V + b) + b' x_t + c eps   =>   p_s = a (z V W + b W) + b' p_t + c eps W
    and eps W has the law of n R with n ~ N(0, 1) and R the triangle of W = Q R. The last move
    returns x0_hat itself, whose z is the point.
    """

    kernel: jax.Array  # f32[h, h], V W
    bias: jax.Array  # f32[h], b W
    root: jax.Array | None  # f32[min(I, h), h], R; None where no noise is drawn


class State(NamedTuple):
    """What is not trained."""

    history: timesteps.History
    folded: Folded | None  # once an evaluation has prepared it


def build(
    config: DiffRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DiffRec as pure functions.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: changes nothing here.

    Raises:
      ValueError: if the network predicts noise for a catalogue too large for rows of scores.
    """
    del protocol
    num_items, process = spec.num_items, row_process.make(config.process, config.sampler)
    if config.process.predict == "eps" and num_items > _MOST_ITEMS_EPS:
        raise ValueError(
            f"model.process.predict=eps holds a square of the catalogue, and {num_items} items are "
            f"more than {_MOST_ITEMS_EPS}; x0 does without"
        )
    net = StepMLP(num_items, config.dims, config.step_width, bias_std=1e-3)
    noisy = process.noisy or config.noise_steps > 0

    def call(params, method, *args):
        return net.apply({"params": params}, *args, method=method)

    def init(key, example):
        x = jnp.zeros((1, num_items))
        params = net.init(key, x, jnp.zeros(1, jnp.int32))["params"]
        return Variables(params, State(timesteps.init_history(config.process.num_steps), None))

    def entered(x):
        return vectors.unit(x) if config.normalize else x

    def loss(params, state, key, example):
        k_t, k_eps, k_drop = jax.random.split(key, 3)
        x0 = sparse.dense(example.items, example.value, num_items)
        t, inverse = row_process.draw_steps(config.process, k_t, example.row_id, state.history)
        eps = rng.normal(k_eps, example.row_id, (num_items,))
        xt = forward.q_sample(process.tables, x0, t, eps)
        out = call(
            params, "__call__", drop(config.dropout_rate, k_drop, example.row_id, entered(xt)), t
        )
        each = row_process.step_losses(config.process, process, out, x0, xt, eps, t)
        value = losses.weighted_mean(each * inverse, example.weight, axis_name)
        history = timesteps.update_history(state.history, t, each, example.weight, axis_name)
        metrics = {"loss": value, "error": losses.weighted_mean(each, example.weight, axis_name)}
        return value, Aux(state._replace(history=history), metrics)

    def precompute(params, state):
        return state._replace(folded=fold(params, noisy)) if config.hidden_path else state

    path, last = _split_last(process.steps)

    def chain(params, state, key, query):
        k_start, k_steps = jax.random.split(key)
        if config.hidden_path:
            folded = fold(params, noisy) if state.folded is None else state.folded
            return through_hidden(params, folded, k_start, k_steps, query)
        x0 = sparse.dense(query.items, query.value, num_items)
        drawn = rng.normal(k_start, query.row_id, (num_items,)) if config.noise_steps else None
        x = row_process.start(process, x0, config.noise_steps, drawn)
        draw = samplers.draw_rows(k_steps, query.row_id, (num_items,)) if process.noisy else None

        def denoise(xt, t):
            out = call(params, "__call__", entered(xt), t)
            return row_process.clean(config.process, process, out, xt, t)

        return Chain(process.steps if config.process.predict == "eps" else path, denoise, x, draw)

    def finish(params, x):
        """The point from the end of a chain: its last move returns x0_hat, whose z is the point."""
        if config.process.predict == "eps":
            return x
        if config.hidden_path:
            return call(params, "inner", x, last)
        return call(params, "hidden", entered(x), last)

    def sample(params, state, key, query):
        return finish(params, diffusion_process.run(chain(params, state, key, query)))

    def through_hidden(params, folded, k_start, k_steps, query):
        p = sparse.project(query.items, query.value, params["table_in"])
        size = () if folded.root is None else folded.root.shape[:1]
        if config.noise_steps:
            drawn = rng.normal(k_start, query.row_id, size) @ folded.root
            p = row_process.start(process, p, config.noise_steps, drawn)
        plain = samplers.draw_rows(k_steps, query.row_id, size)

        def denoise(p, t):
            return call(params, "inner", p, t) @ folded.kernel + folded.bias

        return Chain(
            path, denoise, p, (lambda i: plain(i) @ folded.root) if process.noisy else None
        )

    def head(params, state):
        del state
        if config.process.predict == "eps":
            return Head(jnp.eye(num_items))
        return Head(params["table_out"], params["bias_out"])

    return Model(init, loss, sample, head, chain, deterministic=not noisy, precompute=precompute)


def fold(params, noisy: bool) -> Folded:
    """The products of the first and last layer that the hidden path needs."""
    table_in, exact = params["table_in"], jax.lax.Precision.HIGHEST
    return Folded(
        jnp.matmul(params["table_out"].T, table_in, precision=exact),
        jnp.matmul(params["bias_out"], table_in, precision=exact),
        jnp.linalg.qr(table_in, mode="r") if noisy else None,
    )


def drop(rate: float, key: jax.Array, row: jax.Array, x: jax.Array) -> jax.Array:
    """Dropout of f32[B, ...] with a key a row."""
    if rate == 0:
        return x
    keep = jax.vmap(lambda key: keep_mask(key, x.shape[1:], rate))(rng.row_keys(key, row))
    return jnp.where(keep, x / (1.0 - rate), 0.0)


def _check_dims(name: str, dims: tuple[int, ...]) -> None:
    if not dims or min(dims) < 1:
        raise ValueError(f"{name} must be positive widths such as 200,600, got {dims}")


def _split_last(steps: Steps) -> tuple[Steps, jax.Array]:
    """All rows but the last, and the step of the last: it returns x0_hat as it is."""
    return Steps(*(column[:-1] for column in steps)), steps.t[-1]


SYSTEM = System(config=DiffRecConfig, build=build, official=DIFFREC_SCRIPT, input=INTERACTIONS)
