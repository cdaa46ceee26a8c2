"""DreamRec in eager PyTorch, written from the paper's equations: the peer of the benchmarks.

It computes what the released script computes, in the same order (two network calls a reverse step,
the step MLP evaluated for every row of a batch), without the script's avoidable costs: no loop over
rows to pick the last state, no table look-ups that wait for the device. So it is a little faster
than the script.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from jaxrec_diff.diffusion import schedules


class StepEmbedding(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        half = self.width // 2
        rate = torch.exp(torch.arange(half) * -(math.log(10_000) / (half - 1)))
        angle = t[:, None] * rate[None, :]
        sinusoids = torch.cat([angle.sin(), angle.cos()], dim=-1)
        return self.outer(nn.functional.gelu(self.inner(sinusoids)))


class DreamRec(nn.Module):
    """Embeddings, history encoder and denoiser; row 0 of `items` is padding."""

    def __init__(self, num_items: int, max_len: int, width: int, dropout: float = 0.1):
        super().__init__()
        self.width, self.max_len = width, max_len
        self.items = nn.Embedding(num_items + 1, width)
        self.positions = nn.Embedding(max_len, width)
        self.null = nn.Parameter(torch.randn(1, width))
        self.drop = nn.Dropout(dropout)
        self.norm_in, self.norm_attention = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_feed, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.feed_in, self.feed_out = nn.Linear(width, width), nn.Linear(width, width)
        self.step = StepEmbedding(width)
        self.outer = nn.Linear(3 * width, width)
        self.register_buffer("causal", torch.ones(max_len, max_len).tril().bool())

    def encode(self, seq: torch.Tensor) -> torch.Tensor:
        mask = seq > 0
        x = self.items(seq) + self.positions(torch.arange(self.max_len))
        x = self.drop(x) * mask[..., None]
        normed = self.norm_in(x)
        scores = self.query(normed) @ self.key(x).transpose(1, 2) / math.sqrt(self.width)
        allowed = self.causal & mask[:, None, :]
        weights = scores.masked_fill(~allowed, -(2.0**32) + 1).softmax(dim=-1)
        weights = self.drop(weights * mask[..., None])
        inner = self.norm_attention(weights @ self.value(x) + normed)
        hidden = self.drop(self.feed_out(self.feed_in(inner).relu()))
        out = self.norm_out(self.norm_feed(hidden + inner) * mask[..., None])
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        return out[torch.arange(len(seq)), last]

    def denoise(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.cat([x, cond, self.step(t)], dim=1))


def load(model: DreamRec, params: dict[str, Any]) -> None:
    """Copies the parameters of `jaxrec_diff.models.dreamrec` into the port."""

    def put(target: torch.Tensor, value: Any) -> None:
        with torch.no_grad():  # a table may end in rows that fill it up
            target.copy_(torch.from_numpy(np.array(value)[: len(target)]))

    put(model.items.weight, params["items"])
    put(model.positions.weight, params["positions"])
    put(model.null, params["null"])
    block = params["block"]
    for name in ("norm_in", "norm_attention", "norm_feed", "norm_out"):
        put(getattr(model, name).weight, block[name]["scale"])
        put(getattr(model, name).bias, block[name]["bias"])
    linears = [(getattr(model, name), block[name]) for name in ("query", "key", "value")]
    linears += [(getattr(model, name), block[name]) for name in ("feed_in", "feed_out")]
    linears += [(model.step.inner, params["step"]["inner"])]
    linears += [(model.step.outer, params["step"]["outer"]), (model.outer, params["outer"])]
    for linear, values in linears:
        put(linear.weight, np.asarray(values["kernel"]).T)
        put(linear.bias, values["bias"])


class Schedule:
    """Coefficients of the ancestral chain, float32 tensors of length T."""

    def __init__(self, betas: np.ndarray):
        bar = np.cumprod(1.0 - betas)
        before = np.append(1.0, bar[:-1])
        tables = {
            "signal": np.sqrt(bar),
            "noise": np.sqrt(1.0 - bar),
            "c1": betas * np.sqrt(before) / (1.0 - bar),
            "c2": (1.0 - before) * np.sqrt(1.0 - betas) / (1.0 - bar),
            "sd": np.sqrt(betas * (1.0 - before) / (1.0 - bar)),
        }
        for name, table in tables.items():
            setattr(self, name, torch.tensor(table, dtype=torch.float32))
        self.num_steps = len(betas)


@torch.no_grad()
def sample(model: DreamRec, schedule: Any, cond: torch.Tensor, weight: float) -> torch.Tensor:
    """The reverse loop: two calls of the network a step."""
    null = model.null.expand_as(cond)
    x = torch.randn_like(cond)
    for i in reversed(range(schedule.num_steps)):
        t = torch.full((len(cond),), i)
        guided = (1 + weight) * model.denoise(x, t, cond) - weight * model.denoise(x, t, null)
        x = schedule.c1[i] * guided + schedule.c2[i] * x
        if i > 0:
            x = x + schedule.sd[i] * torch.randn_like(x)
    return x


def train_step(
    model: DreamRec,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    seq: torch.Tensor,
    target: torch.Tensor,
    drop_rate: float,
) -> float:
    """One update on the mean squared error of x_0."""
    x0 = model.items(target)
    t = torch.randint(0, schedule.num_steps, (len(seq),))
    eps = torch.randn_like(x0)
    xt = schedule.signal[t][:, None] * x0 + schedule.noise[t][:, None] * eps
    keep = (torch.rand(len(seq), 1) >= drop_rate).float()
    cond = keep * model.encode(seq) + (1 - keep) * model.null
    loss = nn.functional.mse_loss(model.denoise(xt, t, cond), x0)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def peer_sampler(
    config: Any, spec: Any, params: Any, query: Any, *, compiled: bool
) -> Callable[[], Any]:
    """The peer of `bin/benchmark sampler`: histories to oracle items, by all steps of the chain."""
    model, schedule = _peer(config, spec, params)
    model.eval()
    if compiled:
        model.denoise = torch.compile(model.denoise)
    seq = torch.from_numpy(np.array(query.seq)).long()

    def run() -> torch.Tensor:
        with torch.no_grad():
            return sample(model, schedule, model.encode(seq), config.guidance_weight)

    return run


def peer_train(
    config: Any, spec: Any, params: Any, example: Any, *, compiled: bool
) -> Callable[[], float]:
    """The peer of `bin/benchmark train`: an update."""
    model, schedule = _peer(config, spec, params)
    if compiled:
        model.denoise, model.encode = torch.compile(model.denoise), torch.compile(model.encode)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    given = (torch.from_numpy(np.array(ids)).long() for ids in (example.seq, example.target))
    seq, target = given
    return lambda: train_step(model, adam, schedule, seq, target, config.drop_rate)


def _peer(config: Any, spec: Any, params: Any) -> tuple[DreamRec, Schedule]:
    whole = config.sampler.kind in ("ddpm", "closed_form") and config.sampler.steps == 0
    if config.denoiser != "mlp1" or config.num_heads != 1 or not whole:
        raise ValueError(
            "the PyTorch port of DreamRec has model.denoiser=mlp1, one head and every ddpm step"
        )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = DreamRec(spec.num_items, spec.max_len, config.width, config.dropout_rate)
    load(model, params)
    options = {}
    if config.schedule == "linear":
        options = {"start": config.beta_start, "stop": config.beta_stop}
    return model, Schedule(schedules.named(config.schedule, config.num_steps, **options))
