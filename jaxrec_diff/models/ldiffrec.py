"""L-DiffRec and LT-DiffRec: DiffRec in the latent space of clustered items (arXiv:2304.04971).

Items fall into C clusters by embeddings of an earlier model. A variational encoder a cluster maps
a user's row to Z numbers, DiffRec's diffusion runs on these, and a decoder maps them back to all
items. Encoders, decoder and denoiser are trained together.

A row enters the encoders as a sum of gathered rows, so the width of the catalogue costs nothing
there, and all tables are in the order of the catalogue: no permutation has to be undone.

Two learning rates, as released, are a rule on paths: `encoder` and `decoder` against `denoiser`.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.interactions import INTERACTIONS, answered
from jaxrec_diff.batches.types import InteractionQuery, Interactions
from jaxrec_diff.diffusion import forward, process, row_process, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.diffusion.row_process import Noised, Process, ProcessConfig
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.diffrec import check_dims
from jaxrec_diff.models.network import call
from jaxrec_diff.models.protocols import DIFFREC_SCRIPT, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets import clustered, dropout
from jaxrec_diff.nets.clustered import LatentNet
from jaxrec_diff.ops import kmeans, rng


@dataclass(frozen=True, kw_only=True)
class LDiffRecConfig:
    """Settings of L-DiffRec; the defaults are those published for Yelp."""

    clusters: int = 2
    """Clusters C of items; 1 needs no embeddings."""
    cluster_seed: int = 1
    """Of k-means."""
    cluster_by: Literal["ego_items", "items"] = "ego_items"
    """Which embeddings are clustered. ego_items: the backbone's own table, before any step along
    the graph; items: what it ranks by, which is also taken where there is no other."""
    encoder_dims: tuple[int, ...] = (300,)
    """Widths of the encoders from the latent outwards, over all clusters; the first is Z."""
    decoder: Literal["joint", "clustered"] = "joint"
    """joint: one linear layer from Z to all items, as in every published run; clustered: a decoder
    a cluster that mirrors its encoder."""
    denoiser_dims: tuple[int, ...] = (300,)
    """Hidden widths of the denoiser from the bottleneck outwards."""
    step_width: int = 10
    """Width of the step embedding."""
    input_dropout: float = 0.1
    """Dropout of a row before the encoders."""
    dropout_rate: float = 0.5
    """Dropout of the noised latent."""
    sampled_latent: bool = True
    """Train on a draw from the encoder's normal instead of its mean."""
    bounded_code: bool = True
    """End the encoders with tanh, as released; the paper's head is linear."""
    detach_target: bool = False
    """Keep the gradient of the diffusion's target out of the encoders."""
    clean_target: bool = False
    """Reconstruct the row itself instead of what dropout left of it, as released."""
    process: ProcessConfig = field(
        default_factory=lambda: ProcessConfig(noise_min=5e-3, fix_first=False)
    )
    """The diffusion."""
    noise_steps: int = 0
    """Forward steps T' before the reverse path starts."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(kind="mean"))
    """The reverse path."""
    diffusion_weight: float = 0.03
    """Weight of the diffusion's loss in the first epoch, lambda."""
    diffusion_epochs: int = 500
    """It falls by lambda / this an epoch; 0 keeps it."""
    diffusion_floor: float = 0.005
    """It falls no further."""
    kl_weight: float = 0.3
    """Largest weight of the encoder's divergence."""
    kl_steps: int = 200
    """It grows by 1 / this an update; 0 starts at the largest."""

    def __post_init__(self) -> None:
        validation.at_least("model.clusters", self.clusters, 1)
        validation.at_least("model.cluster-seed", self.cluster_seed, 0)
        check_dims("model.encoder-dims", self.encoder_dims)
        check_dims("model.denoiser-dims", self.denoiser_dims)
        if self.clusters > min(self.encoder_dims):
            raise ValueError(
                f"model.clusters={self.clusters} needs a unit a cluster in every layer of "
                f"model.encoder-dims, got {self.encoder_dims}; at most {min(self.encoder_dims)}"
            )
        validation.at_least("model.step-width", self.step_width, 2)
        validation.within("model.input-dropout", self.input_dropout, 0, 0.999)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        for name in (
            "diffusion_weight",
            "diffusion_epochs",
            "diffusion_floor",
            "kl_weight",
            "kl_steps",
        ):
            validation.at_least(f"model.{name.replace('_', '-')}", getattr(self, name), 0)
        row_process.check_sampler(self.sampler, self.process, self.noise_steps)


class State(NamedTuple):
    """What is not trained."""

    history: timesteps.History
    cluster: jax.Array  # i32[I] of each item, as k-means found them before training
    updates: jax.Array  # i32[] made, for the divergence's weight
    examples: jax.Array  # i32[] rows seen, for the diffusion's


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: LDiffRecConfig
    net: LatentNet
    process: Process
    cluster: np.ndarray  # i32[I] of each item
    num_rows: int  # users with items, a pass over the data
    axis_name: str | None


def parts(config: LDiffRecConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network, the process and the clusters of L-DiffRec; arguments as of `build`.

    Raises:
      ValueError: if there are several clusters and nothing to make them from.
    """
    made = row_process.make(config.process, config.sampler, config.noise_steps)
    cluster = clusters(config, spec)
    sizes = np.bincount(cluster, minlength=config.clusters)
    net = LatentNet(
        clustered.arrange(sizes, config.encoder_dims),
        config.denoiser_dims,
        config.step_width,
        bounded=config.bounded_code,
        joint=config.decoder == "joint",
    )
    num_rows = spec.num_users
    if spec.user_items is not None:
        num_rows = max(int(np.sum(spec.user_items.end > spec.user_items.start)), 1)
    return Parts(config, net, made, cluster, num_rows, axis_name)


def init(parts: Parts, key: jax.Array, example: Interactions) -> Variables:
    """Parameters, an empty history of losses, the clusters and counters at 0."""
    cluster = jnp.asarray(parts.cluster)
    params = parts.net.init(key, example.items[:1], example.value[:1], cluster)["params"]
    history = timesteps.init_history(parts.config.process.num_steps)
    return Variables(params, State(history, cluster, jnp.int32(0), jnp.int32(0)))


def loss(
    parts: Parts, params: Any, state: State, key: jax.Array, example: Interactions
) -> tuple[jax.Array, Aux]:
    """The latent diffusion, the items it gives back and the prior; L-DiffRec, Eq. 14-17.

        L = lambda L_diffusion(z_0) - sum_j x_j log softmax(decoder(z0_hat))_j
            + gamma KL(q(z | x) | N(0, 1))

    `diffusion_weight` is lambda and falls, `kl_weight` is gamma and rises. LT-DiffRec is this loss
    on values that are not 1.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: the history of losses, to which this batch's are added, and the counters.
      key: of the code, the steps, the noise and both dropouts, each row's own.
      example: B rows of the interaction matrix.

    Returns:
      f32[] the weighted mean, and `Aux` with the metrics "loss", "diffusion", "nll" and "kl", and
      with both weights.

    >>> config = LDiffRecConfig(clusters=1, encoder_dims=(2,), denoiser_dims=(4,))
    >>> made = parts(config, DataSpec(2, num_items=5, max_len=2))
    >>> items, user = jnp.array([[1, 2], [3, 0]]), jnp.arange(2)
    >>> example = Interactions(items, 1.0 * (items > 0), user, weight=jnp.ones(2), row_id=user)
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), int(aux.state.examples)
    ((), True, 2)
    >>> sorted(aux.metrics)
    ['diffusion', 'diffusion_weight', 'kl', 'kl_weight', 'loss', 'nll']
    """
    config, axis_name = parts.config, parts.axis_name
    seen = estimate(parts, params, state, key, example)
    target = jax.lax.stop_gradient(seen.z0) if config.detach_target else seen.z0
    each = row_process.step_losses(parts.process, seen.out, target, seen.at)
    z0_hat = row_process.clean(parts.process, seen.out, seen.at.xt, seen.at.t)
    table, bias = call(parts, params, "table", state.cluster)
    logits = call(parts, params, "hidden", z0_hat) @ table.T + bias
    wanted = example.value if config.clean_target else seen.value
    terms = {
        "diffusion": each * seen.at.inverse,
        "nll": likelihood(logits, example.items, wanted),
        "kl": divergence(seen.mean, seen.logvar),
    }
    means = {
        name: losses.weighted_mean(term, example.weight, axis_name) for name, term in terms.items()
    }
    weights = {
        "diffusion_weight": diffusion_weight(config, state.examples // parts.num_rows),
        "kl_weight": kl_weight(config, state.updates),
    }
    value = (
        weights["diffusion_weight"] * means["diffusion"]
        + means["nll"]
        + weights["kl_weight"] * means["kl"]
    )
    rows = jnp.sum(example.weight > 0)
    rows = rows if axis_name is None else jax.lax.psum(rows, axis_name)
    after = state._replace(
        history=timesteps.update_history(state.history, seen.at.t, each, example.weight, axis_name),
        updates=state.updates + 1,
        examples=state.examples + rows.astype(jnp.int32),
    )
    return value, Aux(after, means | weights | {"loss": value})


class Estimate(NamedTuple):
    """Rows as training sees them, with their codes."""

    value: jax.Array  # f32[B, P], what dropout left of a row
    mean: jax.Array  # f32[B, Z], of the code's normal
    logvar: jax.Array  # f32[B, Z]
    z0: jax.Array  # f32[B, Z], the code
    at: Noised  # the code at a drawn step
    out: jax.Array  # f32[B, Z], what the denoiser says of it


def estimate(
    parts: Parts, params: Any, state: State, key: jax.Array, example: Interactions
) -> Estimate:
    """Codes of rows, noised and restored, under training's dropouts."""
    config, row_id = parts.config, example.row_id
    k_in, k_code, k_t, k_eps, k_drop = jax.random.split(key, 5)
    keys = rng.row_keys(k_in, row_id)
    value = dropout.drop_rows(keys, example.value, config.input_dropout)
    mean, logvar = call(parts, params, "encode", example.items, value, state.cluster)
    z0 = mean
    if config.sampled_latent:
        z0 = mean + jnp.exp(0.5 * logvar) * rng.normal(k_code, row_id, mean.shape[1:])
    at = row_process.noised(parts.process, k_t, k_eps, z0, row_id, state.history)
    dropped = dropout.drop_rows(rng.row_keys(k_drop, row_id), at.xt, config.dropout_rate)
    out = call(parts, params, "denoise", dropped, at.t)
    return Estimate(value, mean, logvar, z0, at, out)


def chain(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery
) -> Chain:
    """The reverse process from every user's mean code, f32[B, Z]."""
    k_start, k_steps = jax.random.split(key)
    code, _ = call(parts, params, "encode", query.items, query.value, state.cluster)
    network = partial(call, parts, params, "denoise")
    return row_process.reverse(parts.process, network, k_start, k_steps, code, query.row_id)


def sample(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery
) -> jax.Array:
    """Ends of `chain` as the decoder's last layer sees them, f32[B, D]."""
    return finish(parts, params, state, process.run(chain(parts, params, state, key, query)))


def finish(parts: Parts, params: Any, state: State, end: jax.Array) -> jax.Array:
    """What the decoder's last layer sees of the end of `chain`, f32[B, D]."""
    del state
    return call(parts, params, "hidden", end)


def noised(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery,
    items: jax.Array, t: jax.Array,
) -> jax.Array:  # fmt: skip
    """x_t f32[B, Z] of the codes of rows with their answers i32[B, R] among their items."""
    row = answered(query, items)
    code, _ = call(parts, params, "encode", row.items, row.value, state.cluster)
    return forward.at_step(parts.process.tables, key, query.row_id, code, t)


def head(parts: Parts, params: Any, state: State) -> Head:
    """The decoder's last layer, in the order of the catalogue."""
    return Head(*call(parts, params, "table", state.cluster))


def build(
    config: LDiffRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """L-DiffRec as pure functions.

    Args:
      config: settings.
      spec: sizes of the data; `exports` holds "items" f32[I, D], embeddings to cluster, or
        "clusters" i32[I] itself.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: changes nothing here.

    Raises:
      ValueError: if there are several clusters and nothing to make them from.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        finish=partial(finish, made),
        noised=partial(noised, made),
        deterministic=not made.process.draws,
    )


def likelihood(logits: jax.Array, items: jax.Array, value: jax.Array) -> jax.Array:
    """-sum_j x_j log softmax(logits)_j of rows x as ids and values; no second [B, I] array.

    Args:
      logits: f32[B, I].
      items: i32[B, P] ids, 0 on padding.
      value: f32[B, P], 0 on padding.

    Returns:
      f32[B].
    """
    own = jnp.take_along_axis(logits, jnp.maximum(items - 1, 0), axis=-1)
    return value.sum(axis=-1) * jax.nn.logsumexp(logits, axis=-1) - jnp.sum(value * own, axis=-1)


def divergence(mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """KL(N(mean, exp logvar) | N(0, 1)), summed over the latent: f32[B, Z] twice -> f32[B]."""
    return 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - 1.0 - logvar, axis=-1)


def diffusion_weight(config: LDiffRecConfig, epoch: jax.Array) -> jax.Array:
    """max(lambda (1 - e / E), floor) after e finished passes over the data."""
    fall = epoch / config.diffusion_epochs if config.diffusion_epochs else 0.0
    return jnp.maximum(config.diffusion_weight * (1.0 - fall), config.diffusion_floor)


def kl_weight(config: LDiffRecConfig, updates: jax.Array) -> jax.Array:
    """min(cap, n / N) after n updates."""
    rise = updates / config.kl_steps if config.kl_steps else jnp.float32(jnp.inf)
    return jnp.minimum(config.kl_weight, rise)


def clusters(config: LDiffRecConfig, spec: DataSpec) -> np.ndarray:
    """i32[I] cluster of each item.

    Raises:
      ValueError: if the arrays given do not fit the catalogue, or there are none.
    """
    if config.clusters == 1:
        return np.zeros(spec.num_items, np.int32)
    if "clusters" in spec.exports:
        return _given_clusters(config, spec)
    if "items" not in spec.exports:
        raise ValueError(
            f"model.clusters={config.clusters} needs embeddings of items to cluster: a backbone, "
            "or an npz file with an array 'items'; model.clusters=1 does without"
        )
    name = config.cluster_by if config.cluster_by in spec.exports else "items"
    points = np.asarray(spec.exports[name], np.float32)
    if points.ndim != 2 or len(points) != spec.num_items:
        raise ValueError(
            f"the array {name!r} has shape {points.shape}, but there are {spec.num_items} items; "
            "it needs a row an item"
        )
    with jax.ensure_compile_time_eval():  # sizes of layers follow from it, also under a trace
        key = jax.random.key(config.cluster_seed)
        return np.asarray(_cluster(jnp.asarray(points), config.clusters, key).cluster)


def _given_clusters(config: LDiffRecConfig, spec: DataSpec) -> np.ndarray:
    given = np.asarray(spec.exports["clusters"])
    fits = given.shape == (spec.num_items,) and given.dtype.kind in "iu"
    if not fits or sorted(np.unique(given)) != list(range(config.clusters)):
        raise ValueError(
            f"the array 'clusters' must hold the numbers 0 to {config.clusters - 1}, one for each "
            f"of {spec.num_items} items, got {given.dtype}{list(given.shape)} from "
            f"{given.min(initial=0)} to {given.max(initial=0)}"
        )
    return given.astype(np.int32)


_cluster = jax.jit(kmeans.kmeans, static_argnums=1)


SYSTEM = System(
    config=LDiffRecConfig,
    build=build,
    official=DIFFREC_SCRIPT,
    official_differs=False,
    input=INTERACTIONS,
    requires=(("items", "clusters"),),
    optional_when=lambda config: config.clusters == 1,
)
