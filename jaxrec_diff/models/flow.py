"""Flow: the next item by flow matching behind a causal encoder, in few steps or in one.

The target's row x_0, of unit deviation, lies on a straight line to noise,
x_t = (1 - t) x_0 + t eps. SASRec's network reads a history into a code h once, and a small one
restores x_0 from x_t, t and h; both are asked at every place of a window, as SASRec is. The loss is
the squared error of the estimate and a softmax over the catalogue; a consistency term may make one
call enough.

Everything that ranks by an inner product ranks by the mean of what it would draw, and a call at
t = 1, where x_1 says nothing of x_0, is that mean if the network is perfect: a list of one step is
no feat in itself, and what several add is to be looked at (`--eval.diffuses=true`).

Paths and times are those of FMRec (arXiv:2505.16298), the laws of times of Esser et al. 2024
(arXiv:2403.03206); the consistency term is TA-Rec's idea (arXiv:2510.17245), in a form of our own.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.sequences import WINDOWS
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import forward, process, straight
from jaxrec_diff.diffusion.config import SamplerConfig, refuse_closed_form
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.diffusion.straight import Path, PathConfig
from jaxrec_diff.models import sasrec
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.network import call
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.models.sasrec import SASRecConfig
from jaxrec_diff.nets.restorer import Restorer
from jaxrec_diff.ops import rng

_WIDEST = 0.25  # of the steps that the consistency term draws
_AVERAGE = 0.999  # what a teacher keeps of itself in an update


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Settings of Flow."""

    width: int = 64
    """Size d of embeddings and of the networks."""
    num_blocks: int = 2
    """Blocks of the encoder."""
    num_heads: int = 1
    """Attention heads."""
    dropout_rate: float = 0.2
    """Dropout of the encoder."""
    init_scale: float = 0.02
    """Deviation of initial item and position embeddings."""
    num_steps: int = 60
    """Times T of the grid that is sampled; training draws them from the whole line."""
    path: PathConfig = field(
        default_factory=lambda: PathConfig(time_law="logit_normal", time_mean=4.0, shift=20.0)
    )
    """Law of the times, and their grid: near noise, because a row of 64 numbers is told from all
    others by a noised form of half its size, of which the code of a history learns nothing."""
    ce_weight: float = 1.0
    """Weight of the softmax over the catalogue."""
    mse_weight: float = 0.1
    """Weight of the squared error, which keeps estimates on the scale of their targets; at 1 it
    holds the softmax back."""
    target: Literal["stopped", "learned"] = "stopped"
    """Whether a gradient reaches the item table through the target and its noised form."""
    consistency: float = 0.0
    """Weight of the squared difference of the estimate from that of a step less noise."""
    consistency_delta: float = 1 / 30
    """That step; 0 draws it from (0, 1/4]."""
    consistency_ramp: int = 1000
    """Updates over which the weight rises to its own."""
    teacher: Literal["self", "ema"] = "self"
    """Which network makes the estimate at less noise: the same, or its average over updates."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(kind="ddim", steps=4))
    """The reverse path; ddim is Euler's step of the flow."""

    def __post_init__(self) -> None:
        _encoder(self)
        validation.at_least("model.num-steps", self.num_steps, 1)
        for name in ("ce-weight", "mse-weight", "consistency", "consistency-delta"):
            validation.at_least(f"model.{name}", getattr(self, name.replace("-", "_")), 0)
        validation.within("model.consistency-delta", self.consistency_delta, 0, 1)
        validation.at_least("model.consistency-ramp", self.consistency_ramp, 1)
        validation.within("model.sampler.steps", self.sampler.steps, 0, self.num_steps)
        refuse_closed_form(self.sampler, "ddim")
        if self.ce_weight == 0 and (self.mse_weight == 0 or self.target == "stopped"):
            raise ValueError(
                "model.ce-weight=0 leaves nothing that trains the rows of items; the nearest is "
                "above 0, such as 1.0"
            )


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: FlowConfig
    encoder: sasrec.Parts
    net: Restorer
    path: Path
    axis_name: str | None


class State(NamedTuple):
    """What the consistency term keeps; None where nothing is."""

    updates: jax.Array | None = None  # i32[]
    teacher: Any = None  # parameters of the restorer, averaged


def parts(config: FlowConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The networks and the tables of Flow; arguments as of `build`."""
    encoder = sasrec.parts(_encoder(config), spec, axis_name=axis_name)
    path = straight.make(config.path, config.num_steps, config.sampler)
    return Parts(config, encoder, Restorer(config.width), path, axis_name)


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """SASRec's parameters and, as "restorer", those of the network behind it."""
    k_encoder, k_net = jax.random.split(key)
    params = sasrec.init(parts.encoder, k_encoder, example).params
    none = jnp.zeros((1, parts.config.width))
    restorer = parts.net.init(k_net, none, jnp.zeros(1), none)["params"]
    state = State()
    if parts.config.consistency:
        averaged = parts.config.teacher == "ema"
        teacher = jax.tree.map(jnp.copy, restorer) if averaged else None
        state = State(jnp.int32(0), teacher)
    return Variables(params | {"restorer": restorer}, state)


def loss(
    parts: Parts, params: Any, state: State, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """The next item of every place, restored from a point of its line to noise.

        L = w mse(x0_hat, x_0) - v log softmax(E x0_hat)_j + c mse(x0_hat, f(x_s, s, h)),
        x0_hat = f(x_t, t, h),  x_0 = e_j / rms(E),  s = max(t - delta, 0)

    The last term is `consistency`; no gradient passes its second estimate, which is x_0 itself at
    s = 0 and is made from the same noise and the same code of the history.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: counts updates and averages the teacher, where there is a consistency term.
      key: of dropout, times and noise, each place's own.
      example: B histories with their targets, of one or of several lengths.

    Returns:
      f32[] the mean over places that are asked, and `Aux` with the metrics "loss", "ce", "mse" and,
      where there is one, "consistency".

    >>> made = parts(FlowConfig(width=4), DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, sorted(aux.metrics)
    ((), ['ce', 'loss', 'mse'])
    """
    config = parts.config
    k_encoder, k_t, k_eps, k_delta = jax.random.split(key, 4)
    asked = sasrec.ask_everywhere(parts.encoder, params, k_encoder, example)
    place = types.over_lengths(partial(_places, parts), example.seq, example.row_id)
    x0 = clean(parts, params, asked.target)
    if config.target == "stopped":
        x0 = jax.lax.stop_gradient(x0)
    t = straight.draw_times(config.path, k_t, place)
    eps = rng.normal(k_eps, place, x0.shape[1:])
    hat = restored(parts, params["restorer"], straight.noised(x0, t, eps), t, asked.point)
    classes = 1, parts.encoder.num_items + 1
    each = {
        "ce": losses.full_softmax(hat, params["items"], asked.target, classes=classes),
        "mse": losses.mse(hat, x0),
    }
    weights: dict[str, Any] = {"ce": config.ce_weight, "mse": config.mse_weight}
    if state.updates is not None:
        s = jnp.maximum(t - _steps(config, k_delta, place), 0.0)
        teacher = params["restorer"] if state.teacher is None else state.teacher
        cleaner = restored(parts, teacher, straight.noised(x0, s, eps), s, asked.point)
        cleaner = jnp.where(s[:, None] > 0, cleaner, x0)
        each["consistency"] = losses.mse(hat, jax.lax.stop_gradient(cleaner))
        ramp = jnp.minimum(state.updates / config.consistency_ramp, 1.0)
        weights["consistency"] = config.consistency * ramp
        state = State(state.updates + 1, _averaged(state.teacher, params["restorer"]))
    means = {
        name: losses.weighted_mean(of, asked.weight, parts.axis_name) for name, of in each.items()
    }
    value = jnp.sum(jnp.stack([weights[name] * mean for name, mean in means.items()]))
    return value, Aux(state, {"loss": value} | means)


def clean(parts: Parts, params: Any, items: jax.Array) -> jax.Array:
    """x_0 of items i32[N], f32[N, D]: their rows, divided by the root mean square of the table.

    So noise of deviation 1 means the same whatever the table; a scale changes no list.
    """
    table = params["items"]
    row = jnp.arange(len(table))[:, None]
    real = (row > 0) & (row <= parts.encoder.num_items)
    count = parts.encoder.num_items * table.shape[1]
    square = jnp.sum(jnp.where(real, table, 0.0) ** 2) / count
    return table[items] * jax.lax.rsqrt(jax.lax.stop_gradient(square) + 1e-12)


def restored(parts: Parts, net: Any, xt: jax.Array, t: jax.Array, code: jax.Array) -> jax.Array:
    """x0_hat of points at times of their own: f32[N, D], f32[N], f32[N, D] -> f32[N, D].

    Args:
      parts: from `parts`.
      net: the parameters "restorer".
      xt: f32[N, D].
      t: f32[N], in [0, 1).
      code: f32[N, D] what the encoder says of the history.
    """
    return call(parts, net, "__call__", xt, straight.told(t), code)


def chain(parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery) -> Chain:
    """The reverse process of every query, f32[B, D], from noise to the next item."""
    del state
    k_start, k_steps = jax.random.split(key)
    net, code = params["restorer"], sasrec.encoded(parts.encoder, params, query)
    of_time = call(parts, net, "of_time", straight.told(parts.path.times))
    of_history = call(parts, net, "of_history", code)
    start = rng.normal(k_start, query.row_id, code.shape[1:])

    def denoise(xt, t):
        return call(parts, net, "restore", xt, of_time[t], of_history, code)

    draw = straight.noise(parts.path, k_steps, query.row_id, start)
    return Chain(parts.path.steps, denoise, start, draw)


def sample(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """Estimates of the next item's row, f32[B, D]: ends of `chain`."""
    return process.run(chain(parts, params, state, key, query))


def without_x_t(parts: Parts, params: Any, state: Any, query: SequenceQuery) -> jax.Array:
    """One call of the network at t = 1 on x = 0: what is recommended without a diffusion."""
    del state
    code = sasrec.encoded(parts.encoder, params, query)
    time = jnp.full(len(code), 1.0 - parts.config.path.start)
    return restored(parts, params["restorer"], jnp.zeros_like(code), time, code)


def noised(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery, items: jax.Array,
    t: jax.Array,
) -> jax.Array:  # fmt: skip
    """x_t f32[B, D] of the first of the answers i32[B, R]: where a perfect chain would stand."""
    del state
    x0 = clean(parts, params, items[:, 0])
    return forward.at_step(parts.path.tables, key, query.row_id, x0, t)


def head(parts: Parts, params: Any, state: Any) -> Head:
    """The items' rows."""
    return sasrec.head(parts.encoder, params, state)


def build(
    config: FlowConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """Flow as pure functions.

    Histories may come in several lengths, which changes no number: a place sees only those before
    it.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: both rank alike.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        noised=partial(noised, made),
        variants={"without_x_t": partial(without_x_t, made)},
    )


def _encoder(config: FlowConfig) -> SASRecConfig:
    """SASRec under the same settings, which checks them."""
    return SASRecConfig(
        width=config.width, num_blocks=config.num_blocks, num_heads=config.num_heads,
        dropout_rate=config.dropout_rate, init_scale=config.init_scale,
    )  # fmt: skip


def _places(parts: Parts, seq: jax.Array, row_id: jax.Array) -> jax.Array:
    """A number for every place of a global batch, the same in any company: i32[B L_k]."""
    return (row_id[:, None] * parts.encoder.net.max_len + jnp.arange(seq.shape[1])).reshape(-1)


def _steps(config: FlowConfig, key: jax.Array, place: jax.Array) -> jax.Array:
    """How much cleaner the second estimate of each place is made, f32[N]."""
    if config.consistency_delta > 0:
        return jnp.full(place.shape, config.consistency_delta)
    return _WIDEST * (1.0 - rng.uniform(key, place))


def _averaged(teacher: Any, net: Any) -> Any:
    """The teacher one update on, if there is one."""
    if teacher is None:
        return None
    net = jax.lax.stop_gradient(net)
    return jax.tree.map(lambda old, new: old + (1 - _AVERAGE) * (new - old), teacher, net)


SYSTEM = System(
    config=FlowConfig,
    build=build,
    official=HISTORIES_COMPETE,
    official_differs=False,
    input=WINDOWS,
    accepts_buckets=lambda config: True,
    item_table=ItemTable(lambda config: config.init_scale),
)
