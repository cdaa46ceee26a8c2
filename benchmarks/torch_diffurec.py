"""DiffuRec in eager PyTorch, written from the paper's equations: the peer of the benchmarks.

It computes what the released script computes, in the same order: every history padded to L places,
all places through all blocks, a fresh lambda for every place at every call, 32 calls of the whole
network a recommendation. Like the script's, its products are PyTorch's own; unlike the script's,
lambda is drawn where it is used and schedule tables are not copied at every step.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from jaxrec_diff.models.diffurec import released_betas


class Block(nn.Module):
    """z + drop(MHA(LN z)), then z + drop(W2 drop(gelu(W1 LN z))), then drop(z)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width, eps=1e-12)
        self.norm_feed = nn.LayerNorm(width, eps=1e-12)
        self.feed_in, self.feed_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, z: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        rows, length, width = z.shape
        x = self.norm_attention(z)
        query, key, value = (
            layer(x).view(rows, length, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(width // self.heads)
        # the released mask: rows of padding, not their columns
        scores = scores.masked_fill(~real[:, None, :, None], -1e9)
        mixed = self.drop(scores.softmax(dim=-1)) @ value
        z = z + self.drop(self.out(mixed.transpose(1, 2).reshape(rows, length, width)))
        hidden = nn.functional.gelu(self.feed_in(self.norm_feed(z)), approximate="tanh")
        z = z + self.drop(self.feed_out(self.drop(hidden)))
        return self.drop(z)


class DiffuRec(nn.Module):
    """Histories are padded on the left; row 0 of `items` is padding."""

    def __init__(self, num_items: int, width: int, blocks: int, heads: int, betas: np.ndarray):
        super().__init__()
        self.width, self.num_steps = width, len(betas)
        self.items = nn.Embedding(num_items + 1, width)
        self.norm_in = nn.LayerNorm(width, eps=1e-12)
        self.history_drop, self.drop = nn.Dropout(0.3), nn.Dropout(0.1)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.blocks = nn.ModuleList(Block(width, heads, 0.1) for _ in range(blocks))
        self.norm_out = nn.LayerNorm(width, eps=1e-12)
        bar = np.cumprod(1.0 - betas)
        before = np.append(1.0, bar[:-1])
        tables = {
            "signal": np.sqrt(bar),
            "noise": np.sqrt(1.0 - bar),
            "c1": betas * np.sqrt(before) / (1.0 - bar),
            "c2": (1.0 - before) * np.sqrt(1.0 - betas) / (1.0 - bar),
            "sd": np.sqrt(betas),
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.tensor(table, dtype=torch.float32))

    def history(self, seq: torch.Tensor) -> torch.Tensor:
        return self.norm_in(self.history_drop(self.items(seq)))

    def read(self, history, xt, t, real) -> torch.Tensor:
        half = self.width // 2
        rate = torch.exp(torch.arange(half) * -(math.log(10_000) / half))
        angle = (t * (1000.0 / self.num_steps))[:, None] * rate
        wave = torch.cat([angle.cos(), angle.sin()], dim=-1)
        y = xt + self.outer(nn.functional.silu(self.inner(wave)))
        z = history + (0.001 + 0.001 * torch.randn_like(history)) * y[:, None]
        for block in self.blocks:
            z = block(z, real)
        return self.norm_out(self.drop(z))[:, -1]


def train_step(model: DiffuRec, optimizer, seq: torch.Tensor, target: torch.Tensor) -> float:
    model.train()
    x0 = model.items(target)
    t = torch.randint(0, model.num_steps, target.shape)
    xt = model.signal[t][:, None] * x0 + model.noise[t][:, None] * torch.randn_like(x0)
    point = model.read(model.history(seq), xt, t, seq > 0)
    loss = nn.functional.cross_entropy(point @ model.items.weight.T, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def sample(model: DiffuRec, seq: torch.Tensor) -> torch.Tensor:
    """The end of the whole reverse chain."""
    model.eval()
    history, real = model.history(seq), seq > 0
    x = torch.randn(len(seq), model.width)
    for step in reversed(range(model.num_steps)):
        t = torch.full((len(seq),), step)
        x0 = model.read(history, x, t, real)
        x = model.c1[step] * x0 + model.c2[step] * x
        if step:
            x = x + model.sd[step] * torch.randn_like(x)
    return x


@torch.no_grad()
def recommend(model: DiffuRec, seq: torch.Tensor, k: int) -> torch.Tensor:
    """The k best rows of the table after it."""
    return (sample(model, seq) @ model.items.weight.T).topk(k, dim=-1).indices


def load(model: DiffuRec, params) -> None:
    """Takes the parameters of `DiffuRecNet`."""

    def put(layer, leaf):
        if "norm" in leaf:
            leaf = {"kernel": np.asarray(leaf["norm"]["scale"]), "bias": leaf["norm"]["bias"]}
        layer.weight.copy_(torch.tensor(np.asarray(leaf["kernel"]).T))
        layer.bias.copy_(torch.tensor(np.asarray(leaf["bias"])))

    with torch.no_grad():
        # a table may end in rows that fill it up
        rows = np.asarray(params["items"])[: len(model.items.weight)]
        model.items.weight.copy_(torch.tensor(rows))
        put(model.norm_in, params["norm_in"])
        put(model.inner, params["step"]["inner"])
        put(model.outer, params["step"]["outer"])
        put(model.norm_out, params["transformer"]["norm_out"])
        for index, block in enumerate(model.blocks):
            leaves = params["transformer"][f"blocks_{index}"]
            for name in ("query", "key", "value", "out", "feed_in", "feed_out", "norm_attention",
                         "norm_feed"):  # fmt: skip
                put(getattr(block, name), leaves[name])


def peer_sampler(
    config: Any, spec: Any, params: Any, query: Any, *, compiled: bool
) -> Callable[[], Any]:
    """The peer of `bin/benchmark sampler`: histories to points, by all steps of the chain."""
    if config.sampler.kind != "ddpm" or config.sampler.steps:
        raise ValueError("the PyTorch port of DiffuRec walks every ddpm step")
    model = _peer(config, spec, params)
    if compiled:
        model.read = torch.compile(model.read)
    seq = _padded_left(query.seq, spec.max_len)
    return lambda: sample(model, seq)


def peer_train(
    config: Any, spec: Any, params: Any, example: Any, *, compiled: bool
) -> Callable[[], float]:
    """The peer of `bin/benchmark train`: an update."""
    model = _peer(config, spec, params)
    if compiled:
        model.read = torch.compile(model.read)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    seq = _padded_left(example.seq, spec.max_len)
    target = torch.from_numpy(np.array(example.target)).long()
    return lambda: train_step(model, adam, seq, target)


def _peer(config: Any, spec: Any, params: Any) -> DiffuRec:
    if config.mask != "query" or config.positions:
        raise ValueError(
            "the PyTorch port of DiffuRec has the released network: add --model.mask=query "
            "--model.positions=false"
        )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    betas = released_betas(config.schedule, config.num_steps)
    model = DiffuRec(spec.num_items, config.width, config.num_blocks, config.num_heads, betas)
    load(model, params)
    return model


def _padded_left(seq: Any, length: int) -> torch.Tensor:
    """Histories of one length or of several, padded on the right, as the released code pads."""
    parts = []
    for part in seq if isinstance(seq, tuple) else (seq,):
        part = np.asarray(part)
        wide = np.pad(part, ((0, 0), (0, length - part.shape[1])))
        shift = (wide == 0).sum(axis=1)[:, None]
        parts.append(np.take_along_axis(wide, (np.arange(length) - shift) % length, axis=1))
    return torch.from_numpy(np.concatenate(parts)).long()
