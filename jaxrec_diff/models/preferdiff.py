"""PreferDiff: a diffusion of the next item that prefers it to others (arXiv:2410.13117).

DreamRec's network and reverse process with another loss: the error of the restored target is its
squared cosine distance, and it shall be smaller than the error of the restored *mean of the other
targets of the batch*. The encoder has a second residual, and the path is a short DDIM.

Where the paper and the released code differ the default follows the code, except that the network
is told the step that it was trained with (`network_t`), and that lists come from x_T = 0 (`start`).
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import closed_form, process, samplers, timesteps
from jaxrec_diff.diffusion.closed_form import Law
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.process import Chain, Steps
from jaxrec_diff.models import dreamrec
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.dreamrec import DreamRecConfig, DreamRecNet
from jaxrec_diff.models.network import call
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.nets.encoders import HistoryBlock
from jaxrec_diff.ops import rng

_DISTANCES = {
    "cosine": losses.cosine,
    "l2": losses.mse,
    "l1": losses.l1,
    "huber": losses.huber,
}


@dataclass(frozen=True, kw_only=True)
class PreferDiffConfig:
    """Settings of PreferDiff; the defaults are the released ones but for the width, which is 3072
    there."""

    width: int = 256
    """Size d of embeddings and of the network."""
    num_heads: int = 2
    """Attention heads of the history encoder."""
    dropout_rate: float = 0.1
    """Dropout of the history encoder."""
    loss: Literal["cosine", "l2", "l1", "huber"] = "cosine"
    """Distance between an embedding and its estimate. The preference term makes that of the others
    large: cosine is at most 4, l2 has no bound and may diverge."""
    preference: float = 0.6
    """Share of the preference term, 1 - lambda; 0 leaves DreamRec's objective."""
    gamma: float = 5.0
    """Scale of the difference of distances in the preference term."""
    preference_over: Literal["batch", "example"] = "batch"
    """batch: the term compares means over the batch, as the released code does; example: each
    target is compared with its own others."""
    schedule: Literal["linear", "exp", "cosine_clip", "sqrt"] = "linear"
    """Noise schedule; cosine_clip is the code's "cosine"."""
    num_steps: int = 2000
    """Diffusion steps T."""
    beta_start: float = 1e-4
    """First beta of the linear schedule."""
    beta_stop: float = 2e-2
    """Last beta of the linear schedule; it is not rescaled with T."""
    drop_rate: float = 0.1
    """Chance that training drops the condition."""
    guidance_weight: float = 2.0
    """w in (1 + w) f(x, h) - w f(x, null)."""
    guidance: Literal["folded", "two_calls"] = "folded"
    """folded: one call with the condition (1 + w) h - w null, which is exact; two_calls: the plain
    form."""
    network_t: Literal["index", "official"] = "index"
    """The step that the network is told while it samples: that of the noise level, or one more
    except at the end, as the code does, whose first one was never trained."""
    start: Literal["zero", "noise"] = "zero"
    """x_T: zero, whose list is the mean of all lists and the same every time, or noise."""
    reverse: Literal["product", "walk"] = "product"
    """product: a path without noise is one affine map of x_T and h, worked out once, exactly; walk:
    step by step, cheaper where fewer rows are asked for than the network is wide. (closed_form is
    a product in any case, and the mean of its law where `start` is zero.)"""
    score: Literal["ip", "cos"] = "ip"
    """Inner product with raw or with normalised rows."""
    sampler: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(kind="ddim", steps=21, spacing="strided")
    )
    """The reverse path."""

    def __post_init__(self) -> None:
        validation.at_least("model.num-heads", self.num_heads, 1)
        validation.within("model.preference", self.preference, 0, 1)
        validation.above("model.gamma", self.gamma, 0, 5.0)
        _shared(self)


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: PreferDiffConfig
    base: dreamrec.Parts  # DreamRec's, around PreferDiff's encoder and path
    axis_name: str | None

    @property
    def net(self) -> DreamRecNet:
        return self.base.net


class State(NamedTuple):
    """No array is kept but what an evaluation works out once."""

    law: Law | None = None  # the whole reverse path, of `precompute`


def parts(config: PreferDiffConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network and the tables of PreferDiff; arguments as of `build`."""
    base = dreamrec.parts(_shared(config), spec, axis_name=axis_name)
    block = partial(HistoryBlock, residual=True, projections="xavier")
    base = base._replace(net=base.net.clone(encoder=block))
    if config.network_t == "official":
        base = base._replace(steps=told_one_more(base.steps))
    return Parts(config, base, axis_name)


def told_one_more(steps: Steps) -> Steps:
    """A path whose network is told step t + 1 at the noise level of t, and 0 at that of 0."""
    return steps._replace(t=steps.t + (steps.t > 0))


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """Parameters, and an empty state."""
    return Variables(dreamrec.init(parts.base, key, example).params, State())


def loss(
    parts: Parts, params: Any, state: Any, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """Restores the target, and rather than the mean of the batch's other targets.

        L = lambda D+ + (1 - lambda) softplus(gamma (D+ - D-))

    D+ is the distance of x0_hat from the target e_b, D- that of the others' mean from its estimate
    at the same step, under the same condition, with noise of its own; both are means over the batch
    (`preference_over`).

    Args:
      parts: from `parts`.
      params: of `init`.
      state: stays as it is.
      key: of the steps, the noise, dropout and the conditions dropped, each row's own.
      example: B histories with their targets.

    Returns:
      f32[] the value, and `Aux` with the metrics "loss", "distance" and "others_distance".

    >>> made = parts(PreferDiffConfig(width=4), DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, sorted(aux.metrics)
    ((), ['distance', 'loss', 'others_distance'])
    """
    base, row = parts.base, example.row_id
    k_t, k_eps, k_drop, k_encoder = jax.random.split(key, 4)
    target = call(base, params, "embed", example.target)
    t = timesteps.uniform(k_t, row, parts.config.num_steps)
    cond = dreamrec.training_condition(base, params, k_drop, k_encoder, example)
    distance = _DISTANCES[parts.config.loss]
    near = distance(dreamrec.restored(base, params, k_eps, row, target, t, cond), target)
    others = others_mean(target, example.weight, parts.axis_name)
    k_others = jax.random.fold_in(k_eps, 1)
    far = distance(dreamrec.restored(base, params, k_others, row, others, t, cond), others)
    value = objective(parts, near, far, example.weight)
    means = (losses.weighted_mean(d, example.weight, parts.axis_name) for d in (near, far))
    return value, Aux(state, {"loss": value} | dict(zip(_METRICS, means, strict=True)))


_METRICS = ("distance", "others_distance")


def others_mean(x0: jax.Array, weight: jax.Array, axis_name: str | None = None) -> jax.Array:
    """The mean of all other rows, (S - x_b) / (n - 1), f32[B, D] -> f32[B, D].

    Rows of weight 0 are nobody's others. One that is alone is its own: it has no direction to be
    kept away from.

    Args:
      x0: f32[B, D].
      weight: f32[B].
      axis_name: device axis of `pmap`: the others are those of the global batch.

    >>> others_mean(jnp.array([[1.0], [2.0], [6.0]]), jnp.ones(3)).ravel().tolist()
    [4.0, 3.5, 1.5]
    """
    real = (weight > 0).astype(x0.dtype)
    total, count = jnp.sum(real[:, None] * x0, axis=0), jnp.sum(real)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    others = (total - x0) / jnp.maximum(count - 1.0, 1.0)
    return jnp.where((real[:, None] > 0) & (count > 1.0), others, x0)


def objective(parts: Parts, near: jax.Array, far: jax.Array, weight: jax.Array) -> jax.Array:
    """The loss f32[] of distances f32[B] of the targets and of the others.

    Under `pmap` the mean over devices is the loss of the global batch.
    """
    config, axis_name = parts.config, parts.axis_name
    mean = partial(losses.weighted_mean, weight=weight, axis_name=axis_name)
    reconstruction = mean(near)
    if config.preference_over == "example":
        preference = mean(losses.bpr(config.gamma * far, config.gamma * near))
    else:
        pair = mean(near), mean(far)
        if axis_name is not None:  # the softplus is of the global batch
            pair = jax.lax.pmean(pair, axis_name)
        preference = losses.bpr(config.gamma * pair[1], config.gamma * pair[0])
    return (1.0 - config.preference) * reconstruction + config.preference * preference


def chain(parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery) -> Chain:
    """The guided reverse process of every query, f32[B, D], from x_T to the item."""
    del state
    net, steps = parts.net, parts.base.steps
    k_start, k_steps = jax.random.split(key)
    cond = call(parts, params, "encode", query.seq)
    if parts.config.guidance == "two_calls":
        denoise = dreamrec.two_calls(net, params, cond)
    else:
        denoise = dreamrec.folded(net, params, cond, steps.t)
    shape = cond.shape[1:]
    draw = samplers.draw_rows(k_steps, query.row_id, shape) if parts.base.noisy else None
    return Chain(steps, denoise, start(parts, k_start, query.row_id), draw)


def start(parts: Parts, key: jax.Array, row_id: jax.Array) -> jax.Array:
    """x_T of rows i32[B], f32[B, D]."""
    width = parts.config.width
    if parts.config.start == "zero":
        return jnp.zeros((row_id.shape[0], width))
    return rng.normal(key, row_id, (width,))


def sample(
    parts: Parts, params: Any, state: State, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """Ends of `chain`, f32[B, D], by one product where the path has one."""
    law = path_law(parts, params) if state.law is None else state.law
    if law is None:
        return process.run(chain(parts, params, state, key, query))
    k_start, _ = jax.random.split(key)
    xt = start(parts, k_start, query.row_id)
    return closed_form.apply(law, guided(parts, params, query), xt)


def path_law(parts: Parts, params: Any) -> Law | None:
    """The reverse path as one affine map of x_T and of `guided`; None where it is walked.

    `closed_form` is the ddpm path, whose noise is a part of the map.
    """
    config, steps = parts.config, parts.base.steps
    by_law = config.sampler.kind == "closed_form"
    if not by_law and (
        config.reverse == "walk" or parts.base.noisy or not closed_form.composes(steps)
    ):
        return None
    weight, _, shifts = dreamrec.first_layer(parts.net, params, steps.t)
    compose = closed_form.closed_form if by_law else closed_form.transport
    return compose(steps, weight, shifts)


def guided(parts: Parts, params: Any, query: SequenceQuery) -> jax.Array:
    """What the history adds to every estimate, ((1 + w) h - w null) W_h: f32[B, D]."""
    cond = call(parts, params, "encode", query.seq)
    return dreamrec.guided(parts.net, params, cond)


def without_x_t(parts: Parts, params: Any, state: Any, query: SequenceQuery) -> jax.Array:
    """One call of the network at step 0 on x = 0: what is recommended without a diffusion."""
    del state
    _, _, shifts = dreamrec.first_layer(parts.net, params, jnp.zeros(1, jnp.int32))
    return guided(parts, params, query) + shifts


def precompute(parts: Parts, params: Any, state: State) -> State:
    """The state with `path_law`."""
    return state._replace(law=path_law(parts, params))


def noised(
    parts: Parts, params: Any, state: State, key: jax.Array, query: SequenceQuery,
    items: jax.Array, t: jax.Array,
) -> jax.Array:  # fmt: skip
    """DreamRec's, at the noise level of the step that the network is told."""
    level = jnp.maximum(t - 1, 0) if parts.config.network_t == "official" else t
    return dreamrec.noised(parts.base, params, state, key, query, items, level)


def head(parts: Parts, params: Any, state: Any) -> Head:
    """The items' rows."""
    return dreamrec.head(parts.base, params, state)


def build(
    config: PreferDiffConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """PreferDiff as pure functions.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: the released script samples as we do, so both protocols do.

    Raises:
      ValueError: on a schedule outside (0, 1].
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    by_law = config.sampler.kind == "closed_form"
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        noised=partial(noised, made),
        deterministic=config.start == "zero" and (by_law or not made.base.noisy),
        variants={"without_x_t": partial(without_x_t, made)},
        precompute=partial(precompute, made),
    )


def _shared(config: PreferDiffConfig) -> DreamRecConfig:
    """DreamRec under the same settings, which checks them."""
    return DreamRecConfig(
        width=config.width, num_heads=config.num_heads, dropout_rate=config.dropout_rate,
        schedule=config.schedule, num_steps=config.num_steps, beta_start=config.beta_start,
        beta_stop=config.beta_stop, drop_rate=config.drop_rate, score=config.score,
        guidance_weight=config.guidance_weight, guidance=config.guidance, sampler=config.sampler,
    )  # fmt: skip


SYSTEM = System(
    config=PreferDiffConfig,
    build=build,
    official=HISTORIES_COMPETE,
    official_differs=False,
    input=SEQUENCES,
    item_table=ItemTable(lambda config: 1.0),
)
