"""DiffRec in eager PyTorch, written the way released programs are: a peer for speed.

Dense rows of users by items, a loop over steps, a history of losses updated sample by sample, two
passes of the sampler for validation and test, masks from sparse rows on the host and metrics in
Python loops over users, cut-offs and ranks.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from jaxrec_diff.diffusion import row_process

HISTORY = 10


class Net(nn.Module):
    def __init__(self, num_items: int, dims: tuple[int, ...], step_width: int = 10):
        super().__init__()
        self.step_width = step_width
        self.step = nn.Linear(step_width, step_width)
        inward = [num_items + step_width, *dims[::-1]]
        outward = [*dims, num_items]
        self.inward = nn.ModuleList(map(nn.Linear, inward[:-1], inward[1:]))
        self.outward = nn.ModuleList(map(nn.Linear, outward[:-1], outward[1:]))
        self.drop = nn.Dropout(0.5)

    def forward(self, x, t):
        half = self.step_width // 2
        frequency = torch.exp(-math.log(1e4) * torch.arange(half) / half)
        angle = t[:, None].float() * frequency[None]
        code = self.step(torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1))
        h = torch.cat([self.drop(x), code], dim=-1)
        for layer in self.inward:
            h = torch.tanh(layer(h))
        for i, layer in enumerate(self.outward):
            h = layer(h)
            if i < len(self.outward) - 1:
                h = torch.tanh(h)
        return h


def load(net: Net, params) -> None:
    """Copies parameters of the JAX model."""
    p = {k: np.asarray(v) for k, v in params.items() if not isinstance(v, dict)}

    def put(layer, kernel, bias):
        layer.weight.data = torch.tensor(np.ascontiguousarray(np.asarray(kernel).T))
        layer.bias.data = torch.tensor(np.asarray(bias))

    put(net.step, params["step"]["kernel"], params["step"]["bias"])
    items = net.outward[-1].out_features  # tables may end in rows that fill them up
    put(net.inward[0], np.concatenate([p["table_in"][:items], p["step_in"]]), p["bias_in"])
    hidden = [*net.inward[1:], *net.outward[:-1]]
    for i, layer in enumerate(hidden):
        put(layer, params[f"layers_{i}"]["kernel"], params[f"layers_{i}"]["bias"])
    put(net.outward[-1], p["table_out"][:items].T, p["bias_out"][:items])


class Diffusion:
    """Tables from float64 betas, the loss with its history, and the reverse path."""

    def __init__(self, betas: np.ndarray):
        bar = np.cumprod(1 - betas)
        before = np.append(1.0, bar[:-1])
        snr = bar / (1 - bar)
        tables = {
            "signal": np.sqrt(bar),
            "noise": np.sqrt(1 - bar),
            "c1": betas * np.sqrt(before) / (1 - bar),
            "c2": (1 - before) * np.sqrt(1 - betas) / (1 - bar),
            "weight": np.append(1.0, snr[:-1] - snr[1:]),
        }
        for name, table in tables.items():
            setattr(self, name, torch.tensor(table, dtype=torch.float32))
        self.steps = len(betas)
        self.losses = torch.zeros(self.steps, HISTORY)
        self.count = torch.zeros(self.steps, dtype=int)

    def draw(self, size: int):
        if not (self.count == HISTORY).all():
            return torch.randint(0, self.steps, (size,)), torch.ones(size)
        p = torch.sqrt(torch.mean(self.losses**2, dim=-1))
        p = p / p.sum() * (1 - 1e-3) + 1e-3 / self.steps
        t = torch.multinomial(p, size, replacement=True)
        return t, p[t] * self.steps

    def loss(self, net: Net, x0):
        t, pt = self.draw(len(x0))
        xt = self.signal[t][:, None] * x0 + self.noise[t][:, None] * torch.randn_like(x0)
        each = self.weight[t] * ((x0 - net(xt, t)) ** 2).mean(dim=1)
        for i, value in zip(t, each, strict=True):
            if self.count[i] == HISTORY:
                self.losses[i, :-1] = self.losses[i, 1:].clone()
                self.losses[i, -1] = value.detach()
            else:
                self.losses[i, self.count[i]] = value.detach()
                self.count[i] += 1
        return (each / pt).mean()

    def sample(self, net: Net, x):
        for i in reversed(range(self.steps)):
            out = net(x, torch.full((len(x),), i))
            x = self.c1[i] * out + self.c2[i] * x
        return x


def train_epoch(net, diffusion, optimizer, rows, order) -> float:
    """`order` holds the users of each batch."""
    net.train()
    total = 0.0
    for users in order:
        optimizer.zero_grad()
        loss = diffusion.loss(net, rows[users])
        loss.backward()
        optimizer.step()
        total += float(loss.detach())
    return total / len(order)


@torch.no_grad()
def evaluate(net, diffusion, rows, mask, truth, ks, batch_size: int) -> dict[str, list[float]]:
    """Metrics at `ks`; `mask` is a sparse matrix of what may not be recommended."""
    net.eval()
    predicted = []
    for start in range(0, len(rows), batch_size):
        scores = diffusion.sample(net, rows[start : start + batch_size])
        scores[mask[start : start + batch_size].nonzero()] = -math.inf
        predicted.extend(torch.topk(scores, max(ks)).indices.cpu().numpy().tolist())
    return metrics(truth, predicted, ks)


def metrics(truth, predicted, ks) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {name: [] for name in ("precision", "recall", "ndcg", "mrr")}
    for k in ks:
        sums = dict.fromkeys(out, 0.0)
        for wanted, listed in zip(truth, predicted, strict=True):
            if len(wanted) == 0:
                continue
            hits, dcg, first = 0, 0.0, 0.0
            for j in range(k):
                if listed[j] in wanted:
                    hits += 1
                    dcg += 1.0 / math.log2(j + 2)
                    if first == 0.0:
                        first = 1.0 / (j + 1)
            ideal = sum(1.0 / math.log2(j + 2) for j in range(min(k, len(wanted))))
            sums["precision"] += hits / k
            sums["recall"] += hits / len(wanted)
            sums["ndcg"] += dcg / ideal
            sums["mrr"] += first
        for name, total in sums.items():
            out[name].append(total / len(predicted))
    return out


def peer_sampler(
    config: Any, spec: Any, params: Any, query: Any, *, compiled: bool
) -> Callable[[], Any]:
    """The peer of `bin/benchmark sampler`: users' rows to rows of scores."""
    net, diffusion = _peer(config, spec, params)
    net.eval()
    walked = torch.compile(net) if compiled else net
    rows = _rows(query, spec.num_items)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return diffusion.sample(walked, rows)

    return run


def peer_train(
    config: Any, spec: Any, params: Any, example: Any, *, compiled: bool
) -> Callable[[], float]:
    """The peer of `bin/benchmark train`: an update."""
    net, diffusion = _peer(config, spec, params)
    trained = torch.compile(net) if compiled else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0)
    rows = _rows(example, spec.num_items)
    order = torch.arange(len(rows))[None]
    return lambda: train_epoch(trained, diffusion, optimizer, rows, order)


def _peer(config: Any, spec: Any, params: Any) -> tuple[Net, Diffusion]:
    process = config.process
    plain = process.predict == "x0" and config.sampler.kind == "mean" and not config.normalize
    if not plain or config.noise_steps or config.sampler.steps:
        raise ValueError(
            "the PyTorch port of DiffRec predicts rows and walks the means of every step from the "
            "rows as they are"
        )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    net = Net(spec.num_items, tuple(config.dims))
    load(net, params)
    return net, Diffusion(row_process.betas(process))


def _rows(asked: Any, num_items: int) -> torch.Tensor:
    """f32[B, I] of ids and their values."""
    rows = np.zeros((len(asked.items), num_items + 1), np.float32)
    np.put_along_axis(rows, np.asarray(asked.items), np.asarray(asked.value), axis=1)
    return torch.from_numpy(rows[:, 1:].copy())
