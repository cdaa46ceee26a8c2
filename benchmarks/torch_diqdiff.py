"""DiQDiff in eager PyTorch, written from the paper and the description of its released code.

It computes what the released training step computes and in its way: all 50 places through all
blocks, a loop over the codes with boolean masks, and similarities by broadcasting to B x B x D.
`contrast_by_matmul` is the one edit that anyone would make first.
"""

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jaxrec_diff.batches import types
from jaxrec_diff.diffusion import forward
from jaxrec_diff.models.diffurec import released_betas
from jaxrec_diff.models.diqdiff import latest_last

WIDTH, HEADS, BLOCKS = 128, 4, 4


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.feed_in, self.feed_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm_attention = nn.LayerNorm(width, eps=1e-12)
        self.norm_feed = nn.LayerNorm(width, eps=1e-12)
        self.drop = nn.Dropout(dropout)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, z: torch.Tensor, padded: torch.Tensor) -> torch.Tensor:
        x = self.norm_attention(z)
        query, key, value = (self.split(f(x)) for f in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        # the rows of padding, not its columns
        weights = self.drop(scores.masked_fill(padded[:, None, :, None], -1e9).softmax(-1))
        mixed = (weights @ value).transpose(1, 2).reshape(z.shape)
        z = z + self.drop(self.out(mixed))
        hidden = functional.gelu(self.feed_in(self.norm_feed(z)), approximate="tanh")
        return self.drop(z + self.drop(self.feed_out(self.drop(hidden))))


class DiQDiff(nn.Module):
    """The network and its code selector; row 0 of `items` is padding."""

    def __init__(self, num_items: int, max_len: int, num_codes: int, dropout: float = 0.1):
        super().__init__()
        self.num_codes = num_codes
        self.items = nn.Embedding(num_items + 1, WIDTH)
        self.norm_in = nn.LayerNorm(WIDTH, eps=1e-12)
        self.norm_out = nn.LayerNorm(WIDTH, eps=1e-12)
        self.drop_in, self.drop_out = nn.Dropout(3 * dropout), nn.Dropout(dropout)
        self.inner, self.outer = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS, dropout) for _ in range(BLOCKS))
        self.selector = nn.Linear(max_len * WIDTH, num_codes)

    def step(self, t: torch.Tensor) -> torch.Tensor:
        rate = torch.exp(torch.arange(WIDTH // 2) * (-math.log(10_000) / (WIDTH // 2)))
        angle = (t * (1000 / 32))[:, None] * rate
        return self.outer(functional.silu(self.inner(torch.cat([angle.cos(), angle.sin()], -1))))

    def embed(self, seq: torch.Tensor) -> torch.Tensor:
        return self.norm_in(self.drop_in(self.items(seq)))

    def codes(self, history: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        flat = history.flatten(1)
        if labels is None:
            hot = functional.gumbel_softmax(self.selector(flat), tau=0.1, hard=True)
            labels = hot.argmax(-1)
        book = torch.zeros(self.num_codes, flat.shape[1])
        for code in range(self.num_codes):
            mine = labels == code
            if mine.sum() > 0:
                book[code] = flat[mine].mean(0)
        return book[labels].view(history.shape)

    def read(self, z: torch.Tensor, padded: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            z = block(z, padded)
        return self.norm_out(self.drop_out(z))[:, -1]


def load(model: DiQDiff, params: dict[str, Any], selector: dict[str, Any] | None = None) -> None:
    """Copies the parameters of `jaxrec_diff.models.diqdiff`; without a selector, which
    is never trained, the port keeps its own."""

    def put(target: torch.Tensor, value: Any) -> None:
        with torch.no_grad():  # a table may end in rows that fill it up
            target.copy_(torch.from_numpy(np.array(value)[: len(target)]))

    def linear(target: nn.Linear, value: Any) -> None:
        put(target.weight, np.asarray(value["kernel"]).T)
        put(target.bias, value["bias"])

    put(model.items.weight, params["items"])
    linear(model.inner, params["step"]["inner"])
    linear(model.outer, params["step"]["outer"])
    if selector is not None:
        linear(model.selector, selector)
    norms = [
        (model.norm_in, params["norm_in"]),
        (model.norm_out, params["transformer"]["norm_out"]),
    ]
    for index, block in enumerate(model.blocks):
        values = params["transformer"][f"blocks_{index}"]
        for name in ("query", "key", "value", "out", "feed_in", "feed_out"):
            linear(getattr(block, name), values[name])
        norms += [(getattr(block, n), values[n]) for n in ("norm_attention", "norm_feed")]
    for norm, value in norms:
        put(norm.weight, value["norm"]["scale"])
        put(norm.bias, value["norm"]["bias"])


def contrast_by_broadcast(points: torch.Tensor) -> torch.Tensor:
    near = functional.cosine_similarity(points[:, None], points[None], dim=-1) / 0.07
    return functional.cross_entropy(near, torch.arange(len(points)))


def contrast_by_matmul(points: torch.Tensor) -> torch.Tensor:
    unit = functional.normalize(points, dim=-1)
    return functional.cross_entropy(unit @ unit.T / 0.07, torch.arange(len(points)))


def train_step(
    model: DiQDiff,
    optimizer: torch.optim.Optimizer,
    signal: torch.Tensor,
    noise: torch.Tensor,
    seq: torch.Tensor,
    target: torch.Tensor,
    contrast: Any,
) -> float:
    """One update with the settings published for Amazon Beauty; histories end in the last place."""
    x0 = model.items(target)
    t = torch.randint(0, len(signal), (len(seq),))
    xt = signal[t][:, None] * x0 + noise[t][:, None] * torch.randn_like(x0)
    history = model.embed(seq)
    injected = 0.001 * (xt + model.step(t))
    z = 0.6 * history + injected[:, None] + 0.4 * model.codes(history)
    points = model.read(z, seq == 0)
    loss = functional.cross_entropy(points @ model.items.weight.T, target) + contrast(points)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def peer_train(
    config: Any, spec: Any, params: Any, example: Any, *, compiled: bool
) -> Callable[[], float]:
    """The peer of `bin/benchmark train`: an update with its contrast as a product."""
    shape = config.width, config.num_heads, config.num_blocks, config.mask, config.num_steps
    weights = config.code_weight, config.history_weight, config.contrast_weight
    if shape != (WIDTH, HEADS, BLOCKS, "query", 32) or weights != (0.4, 0.6, 1.0):
        raise ValueError(
            "the PyTorch port of DiQDiff has the settings published for Amazon Beauty: add "
            "--preset=amazon-beauty"
        )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = DiQDiff(spec.num_items, spec.max_len, config.num_codes, config.dropout_rate)
    load(model, params)
    if compiled:
        model.read = torch.compile(model.read)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    tables = forward.tables(forward.levels(released_betas(config.schedule, config.num_steps)))
    signal, noise = (torch.from_numpy(np.array(table)) for table in (tables.signal, tables.noise))
    whole = types.over_lengths(partial(latest_last, max_len=spec.max_len), example.seq)
    seq = torch.from_numpy(np.array(whole)).long()
    target = torch.from_numpy(np.array(example.target)).long()
    return lambda: train_step(model, adam, signal, noise, seq, target, contrast_by_matmul)
