"""The contract between a recommender and everything around it: four pure functions.

`loss` reads examples, which hold the answer; `sample` reads queries, which do not, so an answer
cannot leak into a recommendation by accident. A model never scores the catalogue: it returns
points and the rows they are compared with (`Head`); `jaxrec_diff.ranking` owns the product.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from jaxrec_diff import samplers, schedules, validation
from jaxrec_diff.batches import Slices


class DataSpec(NamedTuple):
    """What a model may know of the data before it sees an example."""

    num_users: int
    num_items: int
    max_len: int  # L, places in a history
    item_counts: np.ndarray | None = None  # i64[I], how often item j + 1 occurs in training
    profiles: Slices | None = None  # row u is user u's training items, on the host
    exports: Mapping[str, np.ndarray] = MappingProxyType({})  # what the backbone learned
    prefix_len: int = 0  # M, items generated ahead of a history
    reader: "Reader | None" = None  # how the backbone reads items it is given as points


class Reader(NamedTuple):
    """A trained sequence model as a function of embedded items, differentiable in them."""

    params: Any  # numpy
    read: Callable[[Any, jax.Array], jax.Array]  # params, f32[B, M, D] -> f32[B, D]
    """Scores the item that follows M given ones by inner product with the rows of "items"."""


_NETWORK = "network/"  # of exported parameters, by path


def packed(params: Any) -> dict[str, np.ndarray]:
    """A tree of parameters as named arrays, for an export; `unpacked` reads them back."""
    flat = traverse_util.flatten_dict(jax.device_get(params), sep="/")
    return {_NETWORK + name: np.asarray(leaf) for name, leaf in flat.items()}


def unpacked(exports: Mapping[str, np.ndarray]) -> Any:
    """The tree that `packed` took apart; other arrays are passed over."""
    flat = {k.removeprefix(_NETWORK): v for k, v in exports.items() if k.startswith(_NETWORK)}
    return traverse_util.unflatten_dict(flat, sep="/")


class Variables(NamedTuple):
    """All arrays of a model."""

    params: Any  # trained by gradients
    state: Any  # everything else: loss history, codebook, counters, graph edges, ()


class Aux(NamedTuple):
    """What `loss` returns beside its value."""

    state: Any  # same structure, shapes and dtypes as the state that went in
    metrics: dict[str, jax.Array]  # scalars


class Head(NamedTuple):
    """The catalogue as rows: item j + 1 scores `point . table[j] + bias[j]`."""

    table: jax.Array  # f32[I, D]
    bias: jax.Array | None = None  # f32[I]


class Model(NamedTuple):
    """A recommender as four pure functions; no mode flag: `loss` is training, the rest is not.

    Every draw that belongs to a row is keyed by `example.row` or `query.row`, so that the numbers
    do not depend on how a batch is split or on the number of devices.
    """

    init: Callable[[jax.Array, Any], Variables]  # key, example
    loss: Callable[[Any, Any, jax.Array, Any], tuple[jax.Array, Aux]]  # params, state, key, example
    sample: Callable[[Any, Any, jax.Array, Any], jax.Array]  # params, state, key, query -> [B, D]
    head: Callable[[Any, Any], Head]  # params, state
    probes: dict[str, Callable[[Any, Any, Any], jax.Array]] = {}
    """Further points of the same model, (params, state, query) -> [B, ..., D], ranked beside it as
    controls: what it would recommend without its diffusion, say. Several points of a row each
    nominate: an item scores the best of them."""
    prepare: Callable[[Any, Any], Any] = lambda params, state: state
    """params, state -> the state with what all rows of an evaluation share worked out (embeddings
    moved along a graph, say). It saves time only: `sample`, `head` and the probes say the same from
    a state that was not prepared."""
    pool: Literal["best", "mixture"] = "best"
    """What an item scores where a row has several points: the best of its scores, or the log of
    their summed exponentials, which ranks by a mean of probabilities where points are normalised
    log probabilities."""


Protocol = Literal["honest", "official"]


class Rules(NamedTuple):
    """How a protocol ranks."""

    mask_seen: bool  # items of the history are no candidates
    trained_only: bool  # items that never occur in training are no candidates
    multiple_of: int = 1  # rows beyond the last full batch of this size are dropped
    all_users: bool = False  # users without an answer count, with zeros
    decimals: int | None = None  # to which the validation metric is rounded before it is compared


HONEST = Rules(mask_seen=True, trained_only=True)
SamplerKind = Literal["ddpm", "mean", "ddim", "dpmpp", "one_step", "closed_form"]


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """The reverse path from noise to a point."""

    kind: SamplerKind = "ddpm"
    """ddpm (ancestral), mean (its means only), ddim, dpmpp (DPM-Solver++(2M)), one_step (a single
    call at the noisiest level), closed_form (the exact law of the ddpm or mean chain, affine
    denoisers only)."""
    steps: int = 0
    """Reverse steps; 0 takes every step of the schedule."""
    eta: float = 0.0
    """Noise of ddim, 0 to 1; 1 is the ancestral step."""
    temperature: float = 1.0
    """Scale of the noise of ddpm and closed_form."""
    spacing: Literal["trailing", "leading", "linspace", "quad", "trunc"] = "trailing"
    """Which steps are visited when there are fewer than the schedule has."""
    noise: Literal["std_small", "std_large", "var_small", "exp_var"] = "std_small"
    """Coefficient of ddpm's noise: deviation of the posterior, of the forward step, the posterior's
    variance itself (as one algorithm box prints it) or exp of half of it (as one script has it)."""

    def __post_init__(self) -> None:
        validation.at_least("model.sampler.steps", self.steps, 0)
        validation.within("model.sampler.eta", self.eta, 0, 1)
        validation.at_least("model.sampler.temperature", self.temperature, 0)


def check_diffusion(num_steps: int, start: float, stop: float, sampler: SamplerConfig) -> None:
    """Refuses a linear schedule outside (0, 1] and more reverse steps than it has.

    Raises:
      ValueError: naming the setting and the nearest valid value.
    """
    validation.at_least("model.num-steps", num_steps, 1)
    validation.above("model.beta-start", start, 0, 1e-4)
    validation.within("model.beta-stop", stop, start, 1)
    validation.within("model.sampler.steps", sampler.steps, 0, num_steps)


def check_heads(width: int, num_heads: int) -> None:
    """Raises ValueError, naming the nearest width, unless `num_heads` divide `width`."""
    validation.at_least("model.num-heads", num_heads, 1)
    if width < 1 or width % num_heads:
        near = max(round(width / num_heads), 1) * num_heads
        raise ValueError(
            f"model.width must be a multiple of model.num-heads={num_heads}, got {width}; the "
            f"nearest is {near}"
        )


def refuse_closed_form(sampler: SamplerConfig, nearest: str) -> None:
    """Raises ValueError where a path needs an affine denoiser; for networks that are not."""
    if sampler.kind == "closed_form":
        raise ValueError(
            "model.sampler.kind=closed_form needs an affine denoiser, which this network is not; "
            f"the nearest is {nearest}"
        )


def plan(config: SamplerConfig, betas: np.ndarray) -> tuple[samplers.Steps, bool]:
    """The table of a reverse path and whether its rows add noise."""
    total, ts = len(betas), None
    if 0 < config.steps < total:
        ts = schedules.subset(total, config.steps, config.spacing)[::-1]
    if config.kind == "ddim":
        return samplers.ddim_steps(betas, ts, eta=config.eta), config.eta > 0
    if config.kind == "dpmpp":
        return samplers.dpmpp_steps(betas, ts), False
    if config.kind == "one_step":
        return samplers.one_step(betas), False
    if config.kind == "mean":
        return samplers.ddpm_steps(betas, ts, temperature=0.0), False
    steps = samplers.ddpm_steps(betas, ts, temperature=config.temperature, noise=config.noise)
    return steps, config.temperature > 0
