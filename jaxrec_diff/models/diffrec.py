"""DiffRec and T-DiffRec: diffusion of a user's whole row of interactions (arXiv:2304.04971).

A row is noised a little, a bottleneck network restores it, and the restored row is the list of
scores; there is no embedding of users. T-DiffRec is the same model on rows that weigh recent items
more (`data.time_weights`), and reads nothing but `Interactions.value`.

The output layer is the catalogue (`Head`) and its input is the point, so a reverse path need not
hold rows of the width of the catalogue: see `Folded`.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.interactions import INTERACTIONS, answered
from jaxrec_diff.batches.types import InteractionQuery, Interactions
from jaxrec_diff.diffusion import forward, process, row_process, samplers, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.process import Chain, Steps
from jaxrec_diff.diffusion.row_process import Noised, Process, ProcessConfig
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.network import call
from jaxrec_diff.models.protocols import DIFFREC_SCRIPT, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets import dropout
from jaxrec_diff.nets.mlp import StepMLP
from jaxrec_diff.ops import filled, rng, sparse, vectors


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
        check_dims("model.dims", self.dims)
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


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: DiffRecConfig
    net: StepMLP
    process: Process
    path: Steps  # rows that a chain walks: all, or all but the last, which returns x0_hat as it is
    last: jax.Array  # i32[], step of the last row
    axis_name: str | None


def parts(config: DiffRecConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network and the process of DiffRec; arguments as of `build`."""
    rows = row_process.make(config.process, config.sampler, config.noise_steps)
    net = StepMLP(spec.num_items, config.dims, config.step_width, bias_std=1e-3, catalogue=True)
    but_last, last = _split_last(rows.steps)
    path = rows.steps if config.process.predict == "eps" else but_last
    return Parts(config, net, rows, path, last, axis_name)


def init(parts: Parts, key: jax.Array, example: Interactions) -> Variables:
    """Parameters, an empty history of losses, and nothing folded."""
    del example
    row, t = jnp.zeros((1, parts.net.width)), jnp.zeros(1, jnp.int32)
    params = parts.net.init(key, row, t)["params"]
    return Variables(params, State(timesteps.init_history(parts.config.process.num_steps), None))


def loss(
    parts: Parts, params: Any, state: State, key: jax.Array, example: Interactions
) -> tuple[jax.Array, Aux]:
    """The error of restored rows at drawn steps; DiffRec, Algorithm 1 and Eq. 9-13.

        L = w_t mean (x_0 - f(x_t, t))^2 / (T p_t)

    where p_t grows with the recent losses of step t (`timesteps.importance`), and
    `row_process.step_losses` has the weights and the other mode. T-DiffRec is this loss on values
    that are not 1.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: the history of losses, to which this batch's are added.
      key: of the steps, the noise and dropout, each row's own.
      example: B rows of the interaction matrix.

    Returns:
      f32[] the weighted mean, and `Aux` with the metrics "loss" and "error", which is the loss
      without the division by T p_t.

    >>> made = parts(DiffRecConfig(dims=(4,)), DataSpec(2, num_items=5, max_len=2))
    >>> items, user = jnp.array([[1, 2], [3, 0]]), jnp.arange(2)
    >>> example = Interactions(items, 1.0 * (items > 0), user, weight=jnp.ones(2), row_id=user)
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics), int(aux.state.history.count.sum())
    ((), True, ['error', 'loss'], 2)
    """
    out, x0, at = estimate(parts, params, state, key, example)
    each = row_process.step_losses(parts.process, out, x0, at)
    value = losses.weighted_mean(each * at.inverse, example.weight, parts.axis_name)
    history = timesteps.update_history(state.history, at.t, each, example.weight, parts.axis_name)
    error = losses.weighted_mean(each, example.weight, parts.axis_name)
    return value, Aux(state._replace(history=history), {"loss": value, "error": error})


def estimate(
    parts: Parts, params: Any, state: State, key: jax.Array, example: Interactions
) -> tuple[jax.Array, jax.Array, Noised]:
    """What the network says of noised rows under training's dropout, the rows f32[B, I] and how
    they were noised."""
    k_t, k_eps, k_drop = jax.random.split(key, 3)
    # Rows are as wide as the network's tables from the start: filled up once they are noised, their
    # noise would be drawn inside the padding, which no CPU does with vectors. Columns behind the
    # items change no draw of the others.
    width = parts.net.width
    x0 = sparse.dense(example.items, example.value, filled.rows(width))
    at = row_process.noised(parts.process, k_t, k_eps, x0, example.row_id, state.history)
    xt = jnp.where(jnp.arange(x0.shape[1]) < width, at.xt, 0.0)
    keys = rng.row_keys(k_drop, example.row_id)
    dropped = dropout.drop_rows(keys, _entered(parts.config, xt), parts.config.dropout_rate)
    at = at._replace(xt=xt[:, :width], eps=at.eps[:, :width])
    return call(parts, params, "__call__", dropped, at.t), x0[:, :width], at


def chain(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery
) -> Chain:
    """The reverse process from every user's row; of rows f32[B, I] or in the first hidden layer.

    Where the network predicts rows it stops before the last move, which only hands on x0_hat:
    `finish` makes the point of it.
    """
    k_start, k_steps = jax.random.split(key)
    if parts.config.hidden_path:
        folded = fold(parts, params) if state.folded is None else state.folded
        return through_hidden(parts, params, folded, k_start, k_steps, query)
    return through_rows(parts, params, k_start, k_steps, query)


def through_rows(
    parts: Parts, params: Any, k_start: jax.Array, k_steps: jax.Array, query: InteractionQuery
) -> Chain:
    """The plain path, f32[B, I]: a call of the whole network a step."""

    def network(xt, t):
        return call(parts, params, "__call__", _entered(parts.config, xt), t)

    x0 = sparse.dense(query.items, query.value, parts.net.width)
    whole = row_process.reverse(parts.process, network, k_start, k_steps, x0, query.row_id)
    return whole._replace(steps=parts.path)


def through_hidden(
    parts: Parts,
    params: Any,
    folded: Folded,
    k_start: jax.Array,
    k_steps: jax.Array,
    query: InteractionQuery,
) -> Chain:
    """The same path in the first hidden layer, f32[B, h]; see `Folded`."""

    def denoise(p, t):
        return call(parts, params, "inner", p, t) @ folded.kernel + folded.bias

    p = sparse.project(query.items, query.value, params["table_in"])
    root = folded.root
    if root is None:
        return Chain(parts.path, denoise, p)
    size, noise_steps = root.shape[:1], parts.process.noise_steps
    if noise_steps:
        drawn = rng.normal(k_start, query.row_id, size) @ root
        p = samplers.warm_start(parts.process.tables, p, noise_steps, drawn)
    if not parts.process.noisy:
        return Chain(parts.path, denoise, p)
    plain = samplers.draw_rows(k_steps, query.row_id, size)
    return Chain(parts.path, denoise, p, lambda i: plain(i) @ root)


def finish(parts: Parts, params: Any, end: jax.Array) -> jax.Array:
    """Points f32[B, D] from the end of `chain`: its last move returns x0_hat = z V + b, whose z is
    the point; where the network predicts noise, the end itself."""
    if parts.config.process.predict == "eps":
        return end
    if parts.config.hidden_path:
        return call(parts, params, "inner", end, parts.last)
    return call(parts, params, "hidden", _entered(parts.config, end), parts.last)


def finish_chain(parts: Parts, params: Any, state: State, end: jax.Array) -> jax.Array:
    """`finish` with the arguments of `Model.finish`."""
    del state
    return finish(parts, params, end)


def noised(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery,
    items: jax.Array, t: jax.Array,
) -> jax.Array:  # fmt: skip
    """x_t of rows with their answers i32[B, R] among their items, as `chain` walks them: f32[B, I],
    or in the first hidden layer, f32[B, h]."""
    del state
    row, width = answered(query, items), parts.net.width
    x0 = sparse.dense(row.items, row.value, width)
    xt = forward.at_step(parts.process.tables, key, query.row_id, x0, t)
    return xt @ params["table_in"][:width] if parts.config.hidden_path else xt


def sample(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery
) -> jax.Array:
    """The last hidden layer of restored rows, f32[B, h], or rows of scores f32[B, I] under eps."""
    return finish(parts, params, process.run(chain(parts, params, state, key, query)))


def head(parts: Parts, params: Any, state: State) -> Head:
    """The output layer; none of rows of scores."""
    del state
    if parts.config.process.predict == "eps":
        return Head(None, items=parts.net.width)
    return Head(params["table_out"], params["bias_out"], items=parts.net.width)


def precompute(parts: Parts, params: Any, state: State) -> State:
    """The state with `fold`'s products, where the path runs through the hidden layer."""
    if not parts.config.hidden_path:
        return state
    return state._replace(folded=fold(parts, params))


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
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        finish=partial(finish_chain, made),
        finish_step=None if config.process.predict == "eps" else made.last,
        noised=partial(noised, made),
        deterministic=not made.process.draws,
        precompute=partial(precompute, made),
    )


def fold(parts: Parts, params: Any) -> Folded:
    """The products of the first and last layer that the hidden path needs; R where it draws."""
    table_in, exact = params["table_in"], jax.lax.Precision.HIGHEST
    return Folded(
        jnp.matmul(params["table_out"].T, table_in, precision=exact),
        jnp.matmul(params["bias_out"], table_in, precision=exact),
        jnp.linalg.qr(table_in[: parts.net.width], mode="r") if parts.process.draws else None,
    )


def check_dims(name: str, dims: tuple[int, ...]) -> None:
    """Raises ValueError unless `dims` are positive widths, one at least."""
    if not dims or min(dims) < 1:
        raise ValueError(f"{name} must be positive widths such as 200,600, got {dims}")


def _split_last(steps: Steps) -> tuple[Steps, jax.Array]:
    """All rows but the last, and the step of the last: it returns x0_hat as it is."""
    return Steps(*(column[:-1] for column in steps)), steps.t[-1]


def _entered(config: DiffRecConfig, x: jax.Array) -> jax.Array:
    return vectors.unit(x) if config.normalize else x


SYSTEM = System(
    config=DiffRecConfig,
    build=build,
    official=DIFFREC_SCRIPT,
    official_differs=False,
    input=INTERACTIONS,
)
