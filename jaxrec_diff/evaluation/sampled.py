"""The rank of an answer among a few drawn items, and figures by the length of the history.

SASRec's protocol: each answer is ranked with 100 items that are not the user's. Negatives are drawn
once from a seed and the *raw* sequences, so that every model and every augmented copy of the data
is judged on the same candidates. Sampled ranks favour other models than full ones do (Krichene and
Rendle 2020, doi:10.1145/3394486.3403226); they are here to be compared with published figures.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.evaluation import metrics, rank, shares
from jaxrec_diff.evaluation.types import Split
from jaxrec_diff.models.contract import Model
from jaxrec_diff.ops import id_rows, meshes, streams
from jaxrec_diff.ops.ragged import Ragged

_ROWS = 4096
GROUPS = {"short": (0, 5), "medium": (6, 20), "long": (21, np.inf)}  # items of a history


def draw(rows: Ragged, num_items: int, count: int, seed: int = 0) -> np.ndarray:
    """Distinct items outside each row's history and answers, uniformly, i32[N, count].

    Raises:
      ValueError: if a row leaves fewer items than that.
    """
    rng = streams.candidates(seed)
    size = int(np.max(rows.stop - rows.start, initial=0))
    out = np.zeros((len(rows.start), count), np.int32)
    for first in range(0, len(out), _ROWS):
        start, stop = (part[first : first + _ROWS, None] for part in (rows.start, rows.stop))
        place = start + np.arange(size)
        own = np.where(place < stop, rows.items[np.where(place < stop, place, 0)], 0)
        free = num_items - np.array([len(set(row)) - (0 in row) for row in own.tolist()])
        if free.min() < count:
            raise ValueError(
                f"eval.candidates={count} items are asked for beside an answer, but a user leaves "
                f"{free.min()}; at most {free.min()} can be drawn"
            )
        chosen = np.zeros((len(own), 0), np.int64)
        while chosen.shape[1] < count or not (chosen[:, :count] > 0).all():
            more = rng.integers(1, num_items + 1, (len(own), 2 * count))
            chosen = _fresh(np.concatenate([chosen, more], axis=1), own)
        out[first : first + _ROWS] = chosen[:, :count]
    return out


def ranks(drawn: rank.Drawn, answer: jax.Array, negatives: jax.Array) -> jax.Array:
    """i32[B]: candidates that score at least as much as the answer, itself included.

    Args:
      drawn: what scores items, from `rank.sample`.
      answer: i32[B] item ids.
      negatives: i32[B, C] item ids.
    """
    points, head, score_pooling = drawn
    place = jnp.concatenate([answer[:, None], negatives], axis=1) + (head.first - 1)
    points = points[:, None] if points.ndim == 2 else points
    if head.table is None:
        scores = jnp.take_along_axis(points, place[:, None], axis=2)
    else:
        rows = head.table[place]
        scores = jnp.einsum("bpd,bcd->bpc", points, rows, precision=jax.lax.Precision.HIGHEST)
    scores = scores.max(axis=1) if score_pooling == "best" else jax.nn.logsumexp(scores, axis=1)
    if head.bias is not None:
        scores = scores + head.bias[place]
    # what is no number is beaten by everything
    lost = jnp.isnan(scores[:, :1])
    return 1 + jnp.sum((scores[:, 1:] >= scores[:, :1]) | lost, axis=1)


def evaluator(
    model: Model,
    split: Split,
    negatives: np.ndarray,
    mesh: Mesh,
    *,
    ks: tuple[int, ...],
    batch_size: int,
) -> Callable[[Any, Any, jax.Array], dict[str, np.ndarray]]:
    """A function (params, state, key) -> f32[N] per user of each `metrics.grouped`, compiled once.

    Args:
      model: what a `build` made.
      split: rows with one answer each.
      negatives: i32[N, C] from `draw`.
      mesh: devices; a batch is sharded over them.
      ks: cut-offs.
      batch_size: rows at once; changes no number.
    """
    dealt = shares.of_split(split, batch_size, mesh)

    def batch(cut, params, state, key, beside, *given):
        query, answers = cut(*given)
        drawn = rank.sample(model, params, state, key, query)
        return ranks(drawn, answers[""].relevant[:, 0], beside)

    everywhere, by_row = NamedSharding(mesh, P()), NamedSharding(mesh, P(meshes.DATA))
    programs = [
        jax.jit(
            partial(batch, shares.cutter(group.query, {"": split}, mesh)), out_shardings=everywhere
        )
        for group in split.groups
    ]

    def run(params, state, key):
        out: dict[str, np.ndarray] = {}
        state = rank.precompute(model, params, state)
        for program, batches in zip(programs, dealt.batches, strict=True):
            for index, at in batches:
                beside = layout.put(negatives[np.maximum(index, 0)], by_row)
                with jax.set_mesh(mesh):
                    each = program(params, state, key, beside, dealt.arrays, index, at)
                found = figures(layout.whole(each)[index >= 0], negatives.shape[1] + 1, ks)
                for name, values in found.items():
                    out.setdefault(name, np.zeros(split.num_rows, np.float32))
                    out[name][index[index >= 0]] = values
        return out

    return run


def figures(ranks: np.ndarray, among: int, ks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Each `metrics.grouped` of rows whose one answer has rank i32[B] among so many, f[B] each.

    >>> {name: values.tolist() for name, values in figures(np.array([1, 3]), 101, (1,)).items()}
    {'hr@1': [1.0, 0.0], 'ndcg@1': [1.0, 0.0]}
    """
    place = np.broadcast_to(np.arange(1, among + 1), (len(ranks), among))
    hit = place == ranks[:, None]
    values = metrics.at_cut_offs(hit, place, np.ones(len(ranks), np.int64), ks)
    return {name: values[name] for name in metrics.grouped(values)}


def by_length(per_user: dict[str, np.ndarray], lengths: np.ndarray) -> dict[str, dict[str, float]]:
    """Means over all users and over those with short, medium and long histories, with counts."""
    out = {"all": _means(per_user, np.ones(len(lengths), bool))}
    for name, (least, most) in GROUPS.items():
        inside = (lengths >= least) & (lengths <= most)
        if inside.any():
            out[name] = _means(per_user, inside)
    return out


def _means(per_user: dict[str, np.ndarray], inside: np.ndarray) -> dict[str, float]:
    means = {k: float(np.mean(v[inside], dtype=np.float64)) for k, v in per_user.items()}
    return {"users": int(inside.sum())} | means


def _fresh(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Each row's values moved to the front in their order, without repeats and without its own;
    0 behind them."""
    good = (values > 0) & ~id_rows.repeats(values) & ~id_rows.member(values, own)
    front = np.argsort(~good, axis=1, kind="stable")
    return np.where(
        np.take_along_axis(good, front, axis=1), np.take_along_axis(values, front, axis=1), 0
    )
