"""L-DiffRec and LT-DiffRec: DiffRec in the latent space of clustered items (arXiv:2304.04971).

Items fall into C clusters by embeddings of an earlier model. A variational encoder a cluster maps
a user's row to Z numbers, DiffRec's diffusion runs on these, and a decoder maps them back to all
items. Encoders, decoder and denoiser are trained together.

A row enters the encoders as a sum of gathered rows, so the width of the catalogue costs nothing
there, and all tables are in the order of the catalogue: no permutation has to be undone.

Two learning rates, as released, are a rule on paths: `encoder` and `decoder` against `denoiser`.
"""

import functools
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.interactions import INTERACTIONS
from jaxrec_diff.diffusion import forward, row_process, samplers, timesteps
from jaxrec_diff.diffusion import process as diffusion_process
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.diffusion.row_process import ProcessConfig
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.diffrec import _check_dims, drop
from jaxrec_diff.models.protocols import DIFFREC_SCRIPT, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets import clustered
from jaxrec_diff.nets.clustered import ClusterDecoder, ClusterEncoder, Layout
from jaxrec_diff.nets.mlp import StepMLP
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
        _check_dims("model.encoder-dims", self.encoder_dims)
        _check_dims("model.denoiser-dims", self.denoiser_dims)
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


class LatentNet(nn.Module):
    """Encoders, decoder and denoiser."""

    layout: Layout
    config: LDiffRecConfig

    def setup(self) -> None:
        self.encoder = [
            ClusterEncoder(size, widths, self.config.bounded_code)
            for size, widths in zip(*self.layout, strict=True)
        ]
        latent, items = self.layout.latent, sum(self.layout.sizes)
        if self.config.decoder == "joint":
            self.decoder = [ClusterDecoder(items, (latent,))]
        else:
            self.decoder = [
                ClusterDecoder(size, widths) for size, widths in zip(*self.layout, strict=True)
            ]
        self.denoiser = StepMLP(latent, self.config.denoiser_dims, self.config.step_width)

    def __call__(self, items: jax.Array, value: jax.Array, cluster: jax.Array) -> jax.Array:
        """Touches every parameter, for `init` only."""
        mean, _ = self.encode(items, value, cluster)
        return self.hidden(self.denoiser(mean, jnp.zeros(items.shape[0], jnp.int32)))

    def encode(
        self, items: jax.Array, value: jax.Array, cluster: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Rows i32[B, P], f32[B, P] and clusters i32[I] -> mean and log variance, f32[B, Z]."""
        place = jnp.maximum(items - 1, 0)
        mine, inner = cluster[place], clustered.places(cluster, len(self.encoder))[place]
        codes = []
        for c, encoder in enumerate(self.encoder):
            # A place of another cluster stays filled, with value 0.
            ids = jnp.where(items > 0, jnp.where(mine == c, inner, 0) + 1, 0)
            codes.append(jnp.split(encoder(ids, jnp.where(mine == c, value, 0.0)), 2, axis=-1))
        mean, logvar = (jnp.concatenate(part, axis=-1) for part in zip(*codes, strict=True))
        return mean, logvar

    def denoise(self, z: jax.Array, t: jax.Array) -> jax.Array:
        """f32[B, Z] -> f32[B, Z]"""
        return self.denoiser(z, t)

    def hidden(self, z: jax.Array) -> jax.Array:
        """f32[B, Z] -> f32[B, D]: the latent as the rows of `table` see it."""
        if len(self.decoder) == 1:
            return self.decoder[0](z)
        stops = np.cumsum([widths[-1] for widths in self.layout.widths])[:-1]
        parts = jnp.split(z, stops, axis=-1)
        return jnp.concatenate(
            [decoder(part) for decoder, part in zip(self.decoder, parts, strict=True)], axis=-1
        )

    def table(self, cluster: jax.Array) -> tuple[jax.Array, jax.Array]:
        """f32[I, D] and f32[I]: the decoder's last layer, in the order of the catalogue."""
        if len(self.decoder) == 1:
            return self.decoder[0].table, self.decoder[0].bias
        widths = [widths[0] for widths in self.layout.widths]
        table = jnp.zeros((sum(self.layout.sizes), sum(widths)))
        bias, first = jnp.zeros(len(table)), 0
        for c, decoder in enumerate(self.decoder):
            rows = jnp.flatnonzero(cluster == c, size=self.layout.sizes[c])
            table = table.at[rows, first : first + widths[c]].set(decoder.table)
            bias, first = bias.at[rows].set(decoder.bias), first + widths[c]
        return table, bias


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
    process = row_process.make(config.process, config.sampler)
    given = clusters(config, spec)
    layout = clustered.arrange(np.bincount(given, minlength=config.clusters), config.encoder_dims)
    net = LatentNet(layout, config)
    num_rows = spec.num_users
    if spec.user_items is not None:
        num_rows = max(int(np.sum(spec.user_items.end > spec.user_items.start)), 1)

    def call(params, method, *args) -> Any:
        return net.apply({"params": params}, *args, method=method)

    def init(key, example):
        cluster = jnp.asarray(given)
        params = net.init(key, example.items[:1], example.value[:1], cluster)["params"]
        history = timesteps.init_history(config.process.num_steps)
        return Variables(params, State(history, cluster, jnp.int32(0), jnp.int32(0)))

    def loss(params, state, key, example):
        k_in, k_code, k_t, k_eps, k_drop = jax.random.split(key, 5)
        row, mean_over = (
            example.row_id,
            functools.partial(losses.weighted_mean, weight=example.weight, axis_name=axis_name),
        )
        kept = drop(config.input_dropout, k_in, row, example.value)
        mean, logvar = call(params, "encode", example.items, kept, state.cluster)
        z0 = mean
        if config.sampled_latent:
            z0 = mean + jnp.exp(0.5 * logvar) * rng.normal(k_code, row, mean.shape[1:])
        t, inverse = row_process.draw_steps(config.process, k_t, row, state.history)
        eps = rng.normal(k_eps, row, mean.shape[1:])
        zt = forward.q_sample(process.tables, z0, t, eps)
        out = call(params, "denoise", drop(config.dropout_rate, k_drop, row, zt), t)
        target = jax.lax.stop_gradient(z0) if config.detach_target else z0
        each = row_process.step_losses(config.process, process, out, target, zt, eps, t)
        z0_hat = row_process.clean(config.process, process, out, zt, t)

        table, bias = call(params, "table", state.cluster)
        logits = call(params, "hidden", z0_hat) @ table.T + bias
        wanted = example.value if config.clean_target else kept
        miss = likelihood(logits, example.items, wanted)
        terms = {
            "diffusion": mean_over(each * inverse),
            "nll": mean_over(miss),
            "kl": mean_over(divergence(mean, logvar)),
        }
        epoch = state.examples // num_rows
        weights = {
            "diffusion_weight": diffusion_weight(config, epoch),
            "kl_weight": kl_weight(config, state.updates),
        }
        value = (
            weights["diffusion_weight"] * terms["diffusion"]
            + terms["nll"]
            + weights["kl_weight"] * terms["kl"]
        )
        seen = jnp.sum(example.weight > 0)
        seen = seen if axis_name is None else jax.lax.psum(seen, axis_name)
        after = state._replace(
            history=timesteps.update_history(state.history, t, each, example.weight, axis_name),
            updates=state.updates + 1,
            examples=state.examples + seen.astype(jnp.int32),
        )
        return value, Aux(after, terms | weights | {"loss": value})

    def chain(params, state, key, query):
        k_start, k_steps = jax.random.split(key)
        z, _ = call(params, "encode", query.items, query.value, state.cluster)
        drawn = rng.normal(k_start, query.row_id, z.shape[1:]) if config.noise_steps else None
        start = row_process.start(process, z, config.noise_steps, drawn)
        draw = samplers.draw_rows(k_steps, query.row_id, z.shape[1:]) if process.noisy else None

        def denoise(zt, t):
            out = call(params, "denoise", zt, t)
            return row_process.clean(config.process, process, out, zt, t)

        return Chain(process.steps, denoise, start, draw)

    def sample(params, state, key, query):
        return call(params, "hidden", diffusion_process.run(chain(params, state, key, query)))

    def head(params, state):
        return Head(*call(params, "table", state.cluster))

    fixed = not (process.noisy or config.noise_steps)
    return Model(init, loss, sample, head, chain, deterministic=fixed)


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
    input=INTERACTIONS,
    requires=(("items", "clusters"),),
    optional_when=lambda config: config.clusters == 1,
)
