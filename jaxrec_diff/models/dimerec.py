"""DimeRec: interests guide a diffusion on the unit sphere (arXiv:2408.12153, WSDM 2025).

A history is pressed into K interest vectors; a denoiser, guided by them, turns a random direction
into the next interest e_u; items are retrieved by inner product with e_u. No code was released:
the docstrings say which reading of the paper a default takes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import negatives
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import forward as diffusion_forward
from jaxrec_diff.diffusion import process, samplers, schedules, sphere, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, check_diffusion, plan, refuse_closed_form
from jaxrec_diff.diffusion.process import Chain, Steps
from jaxrec_diff.models.contract import Aux, Compact, DataSpec, Head, Model, Table, Variables
from jaxrec_diff.models.network import call
from jaxrec_diff.models.protocols import DREAMREC_SCRIPT, Protocol
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.nets.dense import Dense
from jaxrec_diff.nets.embeddings import StepEmbedding
from jaxrec_diff.nets.encoders import SelfAttentiveInterests, last_items
from jaxrec_diff.ops import filled, rng


@dataclass(frozen=True, kw_only=True)
class DimeRecConfig:
    """Settings of DimeRec; the defaults read the paper literally."""

    width: int = 64
    """Size d of the embeddings."""
    num_interests: int = 4
    """Guidance vectors K."""
    interests: Literal["self_attentive", "last_items"] = "self_attentive"
    """self_attentive: ComiRec-SA, learned; last_items: embeddings of the last K items."""
    value_has_position: bool = False
    """Whether interests average H + P (as one summary writes) or H (as ComiRec does)."""
    positions: Literal["start", "end"] = "start"
    """Where places are counted from: the oldest item shown (as in DreamRec's files), or the latest,
    so that an interest can look at the last item of a history of any length."""
    init_scale: float = 0.05
    """Deviation of the item rows at the start. With 1 the rows that are never trained would win
    every ranking by inner product."""
    num_steps: int = 50
    """Diffusion steps T."""
    beta_start: float = 1e-4
    """First beta of the linear schedule."""
    beta_stop: float = 2e-2
    """Last beta of the linear schedule."""
    forward: Literal["grw", "vp_norm"] = "grw"
    """grw: geodesic random walk of Algorithm 1; vp_norm: the normalised Euclidean forward step,
    which hides the target better."""
    forward_alpha: Literal["abar", "beta"] = "abar"
    """Noise scale of grw: sqrt(1 - abar_t), or sqrt(beta_t) as one transcription prints it."""
    noise_scale: Literal["unit", "inv_sqrt_d"] = "unit"
    """Scale of the noise on the sphere, forward and reverse; inv_sqrt_d leaks the target."""
    project: bool = True
    """Project forward noise on the tangent space, as the exponential map requires."""
    temperature: float = 1.0
    """tau_s of the sampled softmax on the sphere; the paper prints none."""
    recon_weight: float = 0.1
    """lambda, weight of the reconstruction loss."""
    ssm_weight: float = 1.0
    """mu, weight of the sampled softmax."""
    normalize_estimate: bool = True
    """Whether the denoiser's output is put on the sphere."""
    negatives: Literal["uniform", "log_uniform", "popularity", "in_batch", "full"] = "uniform"
    """How negatives are drawn (shared by the batch, corrected by their log Q): uniform; log_uniform
    over popularity ranks; by popularity; the batch's own targets; full takes all items."""
    num_negatives: int = 2560
    """Negatives a batch (ignored by full and in_batch)."""
    negatives_power: float = 1.0
    """Exponent of the counts where negatives are drawn by popularity."""
    stop_gradient_xt: bool = False
    """Stop the gradient from the noised target into the item table."""
    score: Literal["ip", "cos"] = "ip"
    """Inner product with raw rows, whose length holds a popularity prior, or with normalised."""
    hoist: bool = True
    """Compute the part of the denoiser that no step changes once; False runs the plain loop."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """The reverse path; temperature 0 or kind mean serve deterministically given the start."""

    def __post_init__(self) -> None:
        validation.at_least("model.width", self.width, 4)
        if self.width % 2:
            raise ValueError(f"model.width must be even, got {self.width}; try {self.width + 1}")
        validation.at_least("model.num-interests", self.num_interests, 1)
        validation.at_least("model.num-negatives", self.num_negatives, 1)
        validation.at_least("model.negatives-power", self.negatives_power, 0)
        validation.above("model.temperature", self.temperature, 0, 1.0)
        validation.above("model.init-scale", self.init_scale, 0, 0.05)
        validation.at_least("model.recon-weight", self.recon_weight, 0)
        validation.at_least("model.ssm-weight", self.ssm_weight, 0)
        check_diffusion(self.num_steps, self.beta_start, self.beta_stop, self.sampler)
        refuse_closed_form(self.sampler, "ddpm")


class DimeRecNet(nn.Module):
    """All parameters of DimeRec; row j of `items` is item j, row 0 padding."""

    num_items: int
    max_len: int
    config: DimeRecConfig

    def setup(self) -> None:
        width, normal = self.config.width, nn.initializers.normal(self.config.init_scale)
        self.items = self.param("items", filled.drawn(normal), (self.num_items + 1, width))
        self.positions = self.param("positions", normal, (self.max_len, width))
        if self.config.interests == "self_attentive":
            self.extract = SelfAttentiveInterests(
                self.config.num_interests, self.config.value_has_position
            )
        self.step = StepEmbedding(width)
        self.inner = Dense(4 * width)
        self.outer = Dense(width)

    def __call__(self, seq: jax.Array, target: jax.Array) -> jax.Array:
        """Touches every parameter, for `init` only."""
        steps = jnp.zeros(target.shape, jnp.int32)
        return self.denoise(self.items[target], steps, self.guide(seq))

    def guide(self, seq: jax.Array) -> jax.Array:
        """i32[B, L] -> f32[B, K, D] the interests g."""
        history, mask = self.items[seq], seq > 0
        if self.config.interests == "last_items":
            return last_items(history, mask, self.config.num_interests)
        place = jnp.arange(seq.shape[-1])
        if self.config.positions == "end":
            place = jnp.maximum(mask.sum(axis=-1, keepdims=True) - 1 - place, 0)
        return self.extract(history, self.positions[place], mask)[0]

    def denoise(self, xt: jax.Array, t: jax.Array, interests: jax.Array) -> jax.Array:
        """x_0 from [x_t ; g_1 .. g_K ; tau(t)], f32[B, D], before it is put on the sphere."""
        flat = interests.reshape(interests.shape[0], -1)
        joined = jnp.concatenate([xt, flat, self.step(t)], axis=-1)
        return self.outer(nn.gelu(self.inner(joined), approximate=False))

    def embed_steps(self, t: jax.Array) -> jax.Array:
        return self.step(t)


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: DimeRecConfig
    net: DimeRecNet
    add_noise: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # x0, t, eps -> x_t
    draw_negatives: negatives.Draw | None  # none where all items are classes
    steps: Steps  # of the reverse path
    noisy: bool  # whether its rows add noise
    axis_name: str | None


def parts(config: DimeRecConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network, the noising and the negatives of DimeRec; arguments as of `build`.

    Raises:
      ValueError: if negatives are drawn by popularity and nothing is known of it.
    """
    net = DimeRecNet(num_items=spec.num_items, max_len=spec.max_len, config=config)
    betas = schedules.linear(config.num_steps, start=config.beta_start, stop=config.beta_stop)
    steps, noisy = plan(config.sampler, diffusion_forward.levels(betas))
    add_noise, draw_negatives = _forward(config, betas), _negatives(config, spec, axis_name)
    return Parts(config, net, add_noise, draw_negatives, steps, noisy, axis_name)


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """Parameters, and no state."""
    return Variables(parts.net.init(key, example.seq, example.target)["params"], state=())


def draw(parts: Parts, key: jax.Array, example: Sequences) -> Sequences:
    """The example with its negatives, if it has none yet; `key` is that of `loss`."""
    if example.negatives is not None or parts.draw_negatives is None:
        return example
    k_negatives = jax.random.split(key, 3)[2]
    return example._replace(negatives=parts.draw_negatives(k_negatives, example, example.target))


def loss(
    parts: Parts, params: Any, state: Any, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """DimeRec, Algorithm 1: guidance, reconstruction and the softmax on the sphere.

        L = L_gem + lambda |x_0 - x0_hat|^2 + mu L_ssm

    Args:
      parts: from `parts`.
      params: of `init`.
      state: (), and stays so.
      key: of the steps and the noise, each row's own, and of the batch's negatives.
      example: B histories with their targets, and with their negatives if they are drawn.

    Returns:
      f32[] the weighted mean, and `Aux` with the metrics "loss", "gem", "recon" and "ssm".

    >>> made = parts(DimeRecConfig(width=4, num_steps=3), DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['gem', 'loss', 'recon', 'ssm'])
    """
    config = parts.config
    example = draw(parts, key, example)
    k_t, k_eps, _ = jax.random.split(key, 3)
    raw = params["items"][example.target]
    x0 = sphere.normalize(raw)
    t = timesteps.uniform(k_t, example.row_id, config.num_steps)
    eps = rng.normal(k_eps, example.row_id, x0.shape[1:])
    xt = parts.add_noise(jax.lax.stop_gradient(x0) if config.stop_gradient_xt else x0, t, eps)
    interests = call(parts, params, "guide", example.seq)
    estimate = _on_sphere(config, call(parts, params, "denoise", xt, t, interests))

    table, drawn = params["items"], example.negatives
    unit = sphere.normalize if config.normalize_estimate else lambda rows: rows
    if drawn is None:
        every = partial(losses.full_softmax, classes=(1, parts.net.num_items + 1))
        gem = every(nearest_interest(interests, raw), table, example.target)
        ssm = every(estimate / config.temperature, unit(table), example.target)
    else:
        rows, correction = table[drawn.ids], negatives.corrections(drawn, example.target)
        gem = gem_loss(interests, raw, rows, correction, -drawn.target_log_q)
        positive = jnp.sum(estimate * unit(raw), axis=-1) / config.temperature
        ssm = losses.sampled_softmax(
            positive - drawn.target_log_q,
            estimate @ unit(rows).T / config.temperature + correction,
        )
    recon = jnp.sum((x0 - estimate) ** 2, axis=-1)

    each = gem + config.recon_weight * recon + config.ssm_weight * ssm
    terms = {"loss": each, "gem": gem, "recon": recon, "ssm": ssm}
    means = {
        name: losses.weighted_mean(term, example.weight, parts.axis_name)
        for name, term in terms.items()
    }
    return means["loss"], Aux(state, means)


def chain(parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery) -> Chain:
    """The reverse process on the sphere of every query, f32[B, D], guided by its interests."""
    del state
    config = parts.config
    k_start, k_steps = jax.random.split(key)
    start = sphere.normalize(rng.normal(k_start, query.row_id, (config.width,)))
    interests = call(parts, params, "guide", query.seq)
    denoise = (hoisted if config.hoist else plain)(parts.net, params, interests)
    steps, draw = parts.steps, None
    if parts.noisy:
        draw = samplers.draw_rows(k_steps, query.row_id, (config.width,))
        steps = steps._replace(c=_noise_scale(config) * steps.c)

    def estimate(xt, t):
        return _on_sphere(config, denoise(xt, t))

    return Chain(steps, estimate, start, draw, project=sphere.normalize)


def sample(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """The next interests, unit vectors f32[B, D]: ends of `chain`."""
    return process.run(chain(parts, params, state, key, query))


def noised(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery, items: jax.Array,
    t: jax.Array,
) -> jax.Array:  # fmt: skip
    """x_t f32[B, D] of the first of the answers i32[B, R]: where a perfect chain would stand."""
    del state
    x0 = sphere.normalize(params["items"][items[:, 0]])
    eps = rng.normal(jax.random.fold_in(key, t), query.row_id, x0.shape[1:])
    return parts.add_noise(x0, jnp.broadcast_to(t, x0.shape[:1]), eps)


def head(parts: Parts, params: Any, state: Any) -> Head:
    """The items' rows, raw or of length 1."""
    del state
    rows = params["items"]
    rows = sphere.normalize(rows) if parts.config.score == "cos" else rows
    return Head(rows, first=1, items=parts.net.num_items)


def interests_only(parts: Parts, params: Any, state: Any, query: SequenceQuery) -> jax.Array:
    """The K interests as points, f32[B, K, D]: what is recommended without the diffusion."""
    del state
    return call(parts, params, "guide", query.seq)


def build(
    config: DimeRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DimeRec as pure functions.

    Args:
      config: settings.
      spec: sizes of the data, and item counts if negatives are log-uniform.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: no code was released, so both protocols sample alike.

    Raises:
      ValueError: on a bad schedule, or a sampler that a chain on the sphere does not have.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)

    def compact(rows):
        return partial(loss, made._replace(net=made.net.clone(num_items=rows - 1)))

    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        draw=partial(draw, made),
        compact=None if config.negatives == "full" else Compact((Table("items"),), compact),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        noised=partial(noised, made),
        variants={"interests_only": partial(interests_only, made)},
    )


def nearest_interest(interests: jax.Array, target: jax.Array) -> jax.Array:
    """The interest with the highest product with the target: f32[B, K, D], f32[B, D] -> f32[B, D].

    The first of equals.
    """
    best = jnp.argmax(jnp.einsum("bkd,bd->bk", interests, target), axis=-1)
    return jnp.take_along_axis(interests, best[:, None, None], axis=1)[:, 0]


def gem_loss(
    interests: jax.Array,
    target: jax.Array,
    negatives: jax.Array,
    correction: jax.Array | float = 0.0,
    target_correction: jax.Array | float = 0.0,
) -> jax.Array:
    """Sampled softmax of the interest nearest to the target (hard read-out, training only).

        k* = argmax_k g_k . e_a,  L = -log softmax(g_k* . [e_a, e_1 .. e_n])_0

    Args:
      interests: f32[B, K, D].
      target: f32[B, D] raw row of the target.
      negatives: f32[n, D] raw rows, shared by the batch.
      correction: f32[B, n] added to the negatives' logits.
      target_correction: f32[B] added to the target's.

    Returns:
      f32[B]
    """
    picked = nearest_interest(interests, target)
    positive = jnp.sum(picked * target, axis=-1) + target_correction
    return losses.sampled_softmax(positive, picked @ negatives.T + correction)


def plain(net: DimeRecNet, params, interests: jax.Array):
    """The denoiser of (x_t, t), called afresh every step."""

    def denoise(xt, t):
        step = jnp.broadcast_to(t, xt.shape[:1])
        return net.apply({"params": params}, xt, step, interests, method="denoise")

    return denoise


def hoisted(net: DimeRecNet, params, interests: jax.Array):
    """The same function: D1 [x; g; tau] = D1x x + (D1g g + b) + D1t tau(t).

    The second term is computed once a user and the third once a step, exactly.
    """
    width = net.config.width
    tau: Any = net.apply({"params": params}, jnp.arange(net.config.num_steps), method="embed_steps")
    inner, outer = params["inner"], params["outer"]
    w_x, w_g, w_t = jnp.split(inner["kernel"], [width, inner["kernel"].shape[0] - width])
    guided = interests.reshape(interests.shape[0], -1) @ w_g + inner["bias"]
    table = tau @ w_t

    def denoise(xt, t):
        hidden = nn.gelu(xt @ w_x + guided + table[t], approximate=False)
        return hidden @ outer["kernel"] + outer["bias"]

    return denoise


def _on_sphere(config: DimeRecConfig, estimate: jax.Array) -> jax.Array:
    return sphere.normalize(estimate) if config.normalize_estimate else estimate


def _noise_scale(config: DimeRecConfig) -> float:
    return config.width**-0.5 if config.noise_scale == "inv_sqrt_d" else 1.0


def _forward(config: DimeRecConfig, betas: np.ndarray):
    """The noising of unit vectors, (x0, t, eps) -> x_t."""
    levels = diffusion_forward.levels(betas)
    if config.forward == "vp_norm":
        tables = diffusion_forward.tables(levels)
        return lambda x0, t, eps: sphere.normalize(diffusion_forward.q_sample(tables, x0, t, eps))
    deviation = np.sqrt(betas) if config.forward_alpha == "beta" else levels.noise
    table = jnp.asarray(_noise_scale(config) * deviation)
    return lambda x0, t, eps: sphere.q_sample(table, x0, t, eps, project=config.project)


def _negatives(
    config: DimeRecConfig, spec: DataSpec, axis_name: str | None
) -> negatives.Draw | None:
    if config.negatives == "full":
        return None
    return negatives.sampler(
        config.negatives, config.num_negatives, spec.num_items, spec.item_counts,
        power=config.negatives_power, axis_name=axis_name,
    )  # fmt: skip


SYSTEM = System(
    config=DimeRecConfig,
    build=build,
    official=DREAMREC_SCRIPT,
    official_differs=False,
    input=SEQUENCES,
    drawn_by=lambda config: "--model.negatives=uniform" if config.negatives == "full" else "",
    item_table=ItemTable(lambda config: config.init_scale),
)
