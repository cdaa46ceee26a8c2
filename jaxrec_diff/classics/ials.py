"""iALS: matrix factors of implicit feedback by alternating least squares.

    sum_{(u,i) in S} (1 - p_u q_i)^2 + a sum_{u,i} (p_u q_i)^2
      + l (sum_u (n_u + a I)^v |p_u|^2 + sum_i (d_i + a U)^v |q_i|^2)

as Rendle, Krichene, Zhang and Koren revisited it (RecSys 2022, arXiv:2110.14037): its penalty grows
with how often a user or an item occurs. Nothing is learnt of a user: its vector is solved for from
its items, so any history can be scored.
"""

import numpy as np

from jaxrec_diff.classics import scores
from jaxrec_diff.ops import graph, ragged
from jaxrec_diff.ops.graph import Rows

_PLACES = 2**22  # numbers of a batch of rows gathered at once


def solve(
    sets: Rows, others: np.ndarray, unobserved: float, regularisation: float, power: float = 1.0
) -> np.ndarray:
    """The best vectors of rows, given those of their members: f[N, D].

        (a Q^T Q + sum_{i in N(u)} q_i q_i^T + l (n_u + a I)^v 1) p_u = sum_{i in N(u)} q_i

    Args:
      sets: rows of users with items as members, or of items with users.
      others: f[M, D] vectors of the members, M of them in all.
      unobserved: a, weight of every pair.
      regularisation: l.
      power: v, 1 scales the penalty with the weight of a row.
    """
    counts = np.diff(sets.start).astype(np.int64)
    width = others.shape[1]
    every = unobserved * (others.T @ others)
    penalty = regularisation * (counts + unobserved * len(others)) ** power
    out = np.zeros((len(counts), width), others.dtype)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]  # a row of nothing is zero
    first = 0
    while first < len(order):
        # a batch is as wide as its longest row, which is its last
        size = max(_PLACES // (width * max(int(counts[order[first]]), width)), 1)
        rows = order[first : first + size]
        while len(rows) > 1 and len(rows) * width * counts[rows[-1]] > 2 * _PLACES:
            rows = rows[: len(rows) // 2]
        longest = int(counts[rows[-1]])
        inside = np.arange(longest) < counts[rows, None]
        place = np.where(inside, sets.start[rows, None] + np.arange(longest), 0)
        near = np.where(inside[:, :, None], others[sets.members[place]], 0)
        system = every + np.swapaxes(near, 1, 2) @ near
        system[:, np.arange(width), np.arange(width)] += penalty[rows, None].astype(others.dtype)
        out[rows] = np.linalg.solve(system, near.sum(axis=1)[:, :, None])[:, :, 0]
        first += len(rows)
    return out


def items(
    sets: Rows,
    num_items: int,
    *,
    width: int = 128,
    unobserved: float = 0.1,
    regularisation: float = 0.003,
    power: float = 1.0,
    epochs: int = 12,
    seed: int = 0,
    dtype: type = np.float32,
) -> np.ndarray:
    """The vectors of items after `epochs` turns of both sides, f[I, D]; from N(0, 0.01 / D)."""
    by_item, _ = graph.transpose(sets, num_items)
    start = np.random.default_rng(seed).normal(0.0, 0.1 / np.sqrt(width), (num_items, width))
    found: np.ndarray = start.astype(dtype)
    for _ in range(epochs):
        users = solve(sets, found, unobserved, regularisation, power)
        found = solve(by_item, users, unobserved, regularisation, power)
    return found


def objective(
    sets: Rows,
    users: np.ndarray,
    items: np.ndarray,
    unobserved: float,
    regularisation: float,
    power: float = 1.0,
) -> float:
    """What alternating least squares lowers; the module's formula."""
    counts, degree = np.diff(sets.start), np.bincount(sets.members, minlength=len(items))
    _, user = ragged.expand(0, counts)
    close = np.einsum("nd,nd->n", users[user], items[sets.members])
    pairs = np.sum((users.T @ users) * (items.T @ items))
    of_users = (counts + unobserved * len(items)) ** power @ np.sum(users**2, axis=1)
    of_items = (degree + unobserved * len(users)) ** power @ np.sum(items**2, axis=1)
    return float(
        np.sum((1 - close) ** 2) + unobserved * pairs + regularisation * (of_users + of_items)
    )


def score_by(
    items: np.ndarray, unobserved: float, regularisation: float, power: float = 1.0
) -> scores.Score:
    """Rows are folded in and scored by inner products."""

    def score(sets: Rows) -> np.ndarray:
        return solve(sets, items, unobserved, regularisation, power) @ items.T

    return score
