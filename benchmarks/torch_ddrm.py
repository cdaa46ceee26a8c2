"""DDRM in eager PyTorch, written from the paper's equations: the peer of the benchmarks.

It computes what the released program computes: two networks of the whole input at every call, T
means down from the noised mean of a user's items, and another pass of them for another split.
`recommend` leaves out what anyone would edit first; `as_released` keeps it: the graph is walked for
every batch of users, means are taken user by user, and scores are products that are summed after
they were all written down.
"""

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import nn

from jaxrec_diff.models import ddrm
from jaxrec_diff.ops import graph

STEP_WIDTH = 10
ACTIVATIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


class Net(nn.Module):
    """f(x, t, c): layers around a bottleneck, linear at the end."""

    def __init__(self, width: int, dims: tuple[int, ...], activation: str, dropout: float):
        super().__init__()
        sizes = [2 * width + STEP_WIDTH, *dims[::-1], *dims[1:], width]
        self.step = nn.Linear(STEP_WIDTH, STEP_WIDTH)
        self.layers = nn.ModuleList(map(nn.Linear, sizes[:-1], sizes[1:]))
        self.act, self.drop = ACTIVATIONS[activation], nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        half = STEP_WIDTH // 2
        angle = t[:, None].float() * torch.exp(-math.log(1e4) * torch.arange(half) / half)
        code = self.step(torch.cat([angle.cos(), angle.sin()], dim=-1))
        h = torch.cat([self.drop(x), code, cond], dim=-1)
        for layer in self.layers[:-1]:
            h = self.act(layer(h))
        return self.layers[-1](h)


class DDRM(nn.Module):
    """The networks of both sides and the tables of the diffusion."""

    def __init__(self, width: int, config: Any):
        super().__init__()
        net = config.dims, config.activation, config.dropout_rate
        self.user, self.item = Net(width, *net), Net(width, *net)
        self.reconstruction, self.gamma = config.reconstruction, config.gamma
        self.start_noise = config.start_noise
        betas = ddrm.betas_of(config)
        bar = np.cumprod(1.0 - betas)
        before = np.append(1.0, bar[:-1])
        tables = {
            "signal": np.sqrt(bar),
            "noise": np.sqrt(1.0 - bar),
            "c1": betas * np.sqrt(before) / (1.0 - bar),
            "c2": (1.0 - before) * np.sqrt(1.0 - betas) / (1.0 - bar),
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.tensor(table, dtype=torch.float32))
        self.num_steps, self.calls = len(betas), len(betas) + config.extra_steps


class Frozen(NamedTuple):
    """What the backbone left: its first tables and the graph that they are walked along."""

    users: torch.Tensor
    items: torch.Tensor
    adjacency: torch.Tensor  # sparse, [U + I, U + I], normalised
    layers: int
    owned: list[np.ndarray]  # every user's items, ids less one


def load(model: DDRM, params: Any) -> None:
    """Takes the parameters of `jaxrec_diff.models.ddrm`."""

    def put(layer: nn.Linear, kernel: Any, bias: Any) -> None:
        layer.weight.copy_(torch.from_numpy(np.array(kernel).T))
        layer.bias.copy_(torch.from_numpy(np.array(bias)))

    with torch.no_grad():
        for side in ("user", "item"):
            net, leaves = getattr(model, side), params[side]
            first, *inner, last = net.layers
            put(net.step, leaves["step"]["kernel"], leaves["step"]["bias"])
            put(first, leaves["kernel_in"], leaves["bias_in"])
            put(last, leaves["outer"]["kernel"], leaves["outer"]["bias"])
            for index, layer in enumerate(inner):
                values = leaves[f"inner_{index}"]
                put(layer, values["kernel"], values["bias"])


def adjacency(sets: graph.Rows, num_items: int) -> torch.Tensor:
    """D^{-1/2} [[0, R], [R^T, 0]] D^{-1/2}, sparse, of every user's items."""
    row = np.repeat(np.arange(len(sets.start) - 1), np.diff(sets.start))
    shape = len(sets.start) - 1, num_items
    rated = scipy.sparse.csr_matrix((np.ones(len(row)), (row, sets.members)), shape)
    both = scipy.sparse.bmat([[None, rated], [rated.T, None]]).tocsr()
    scale = scipy.sparse.diags(1.0 / np.sqrt(np.maximum(both.sum(axis=1).A1, 1.0)))
    made = (scale @ both @ scale).tocsr().astype(np.float32)
    return torch.sparse_csr_tensor(made.indptr, made.indices, made.data, made.shape)


def propagated(frozen: Frozen) -> tuple[torch.Tensor, torch.Tensor]:
    """Users and items as the mean of the layers of the graph."""
    walked = [torch.cat([frozen.users, frozen.items])]
    for _ in range(frozen.layers):
        walked.append(torch.sparse.mm(frozen.adjacency, walked[-1]))
    nodes = torch.stack(walked).mean(dim=0)
    return nodes[: len(frozen.users)], nodes[len(frozen.users) :]


def sample(model: DDRM, net: Any, x: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """The end of the chain of means from the noised `x`; `net` is the item side's."""
    last = model.num_steps - 1
    if model.start_noise:
        x = model.signal[last] * x + model.noise[last] * torch.randn_like(x)
    for i in reversed(range(model.calls)):
        at = min(i, last)
        x = model.c1[at] * net(x, torch.full((len(x),), i), cond) + model.c2[at] * x
    return x


def listed(scores: torch.Tensor, mask: Any, k: int) -> list[list[int]]:
    """The k best of what a sparse matrix does not mask."""
    scores[mask.nonzero()] = -math.inf
    return torch.topk(scores, k).indices.tolist()


@torch.no_grad()
def recommend(
    model: DDRM, vectors: tuple[torch.Tensor, ...], mask: Any, k: int, batch_size: int
) -> list[list[int]]:
    """Lists for every user, from `vectors`: users, items and the means of users' items."""
    model.eval()
    users, items, means = vectors
    found: list[list[int]] = []
    for start in range(0, len(users), batch_size):
        rows = slice(start, start + batch_size)
        points = sample(model, model.item, means[rows], users[rows])
        found += listed(points @ items.T, mask[rows], k)
    return found


@torch.no_grad()
def as_released(model: DDRM, frozen: Frozen, mask: Any, k: int, batch_size: int) -> list[list[int]]:
    """`recommend` in the released program's way."""
    model.eval()
    found: list[list[int]] = []
    for start in range(0, len(frozen.users), batch_size):
        users, items = propagated(frozen)
        rows = range(start, min(start + batch_size, len(users)))
        means = torch.stack([items[frozen.owned[row]].mean(dim=0) for row in rows])
        points = sample(model, model.item, means, users[rows.start : rows.stop])
        scores = (points[:, None] * items[None]).sum(dim=-1)
        found += listed(scores, mask[rows.start : rows.stop], k)
    return found


def train_step(
    model: DDRM,
    optimizer: torch.optim.Optimizer,
    user: torch.Tensor,
    item: torch.Tensor,
    other: torch.Tensor,
) -> float:
    """One update on vectors f32[B, D] of users, their items and items that are not theirs."""
    model.train()
    t = torch.randint(0, model.num_steps, (len(user),))
    signal, noise = model.signal[t][:, None], model.noise[t][:, None]
    user_hat = model.user(signal * user + noise * torch.randn_like(user), t, item)
    item_hat = model.item(signal * item + noise * torch.randn_like(item), t, user)
    score = (user_hat * item_hat).sum(dim=-1)
    ranked = nn.functional.softplus((user_hat * other).sum(dim=-1) - score)
    apart = ((user_hat - user) ** 2).mean(dim=-1) + ((item_hat - item) ** 2).mean(dim=-1)
    each = (1 - model.reconstruction) * ranked + 0.5 * model.reconstruction * apart
    loss = (torch.sigmoid(score).detach() ** model.gamma * each).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def peer_sampler(
    config: Any, spec: Any, params: Any, query: Any, *, compiled: bool
) -> Callable[[], Any]:
    """The peer of `bin/benchmark sampler`: users to points, by all means of the chain."""
    if config.sampler.kind != "mean" or config.sampler.steps:
        raise ValueError("the PyTorch port of DDRM walks the means of every step")
    model, vectors = _peer(config, spec, params)
    model.eval()
    walked = torch.compile(model.item) if compiled else model.item
    user = torch.from_numpy(np.array(query.user)).long()
    means, cond = vectors.means[user], vectors.users[user]

    def run() -> torch.Tensor:
        with torch.no_grad():
            return sample(model, walked, means, cond)

    return run


def peer_train(
    config: Any, spec: Any, params: Any, example: Any, *, compiled: bool
) -> Callable[[], float]:
    """The peer of `bin/benchmark train`: an update."""
    if config.reweight != "sigmoid_pow":
        raise ValueError("the PyTorch port of DDRM has model.reweight=sigmoid_pow")
    model, vectors = _peer(config, spec, params)
    if compiled:
        model.user, model.item = torch.compile(model.user), torch.compile(model.item)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    ids = (np.array(example.user), np.array(example.positive) - 1, np.array(example.negative) - 1)
    user, item, other = (torch.from_numpy(part).long() for part in ids)
    given = vectors.users[user], vectors.items[item], vectors.items[other]
    return lambda: train_step(model, adam, *given)


def _peer(config: Any, spec: Any, params: Any) -> tuple[DDRM, ddrm.State]:
    """The model and the backbone's vectors as tensors."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    vectors = ddrm.State(*map(torch.from_numpy, ddrm.vectors(config, spec)))
    model = DDRM(vectors.items.shape[1], config)
    load(model, params)
    return model, vectors
