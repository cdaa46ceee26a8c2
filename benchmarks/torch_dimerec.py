"""DimeRec in eager PyTorch, written from the paper's equations: the peer of the benchmarks.

No code of DimeRec was released; this is the paper's literal reading, as one would write it: the
whole input through the denoiser at every step, its step embedding for every row of the batch.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from jaxrec_diff.diffusion import schedules


class DimeRec(nn.Module):
    """Interests from a history (ComiRec-SA) and the denoiser; row 0 of `items` is padding."""

    def __init__(self, num_items: int, max_len: int, config: Any):
        super().__init__()
        width, interests = config.width, config.num_interests
        self.width, self.max_len = width, max_len
        self.items = nn.Embedding(num_items + 1, width)
        self.positions = nn.Embedding(max_len, width)
        self.gem_inner = nn.Linear(width, 4 * width)
        self.gem_outer = nn.Linear(4 * width, interests)
        self.step_inner = nn.Linear(width, 2 * width)
        self.step_outer = nn.Linear(2 * width, width)
        self.inner = nn.Linear((interests + 2) * width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        betas = schedules.linear(config.num_steps, start=config.beta_start, stop=config.beta_stop)
        bar = np.cumprod(1.0 - betas)
        before = np.append(1.0, bar[:-1])
        tables = {
            "noise": np.sqrt(1.0 - bar),
            "c1": betas * np.sqrt(before) / (1.0 - bar),
            "c2": (1.0 - before) * np.sqrt(1.0 - betas) / (1.0 - bar),
            "sd": np.sqrt(betas * (1.0 - before) / (1.0 - bar)),
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.tensor(table, dtype=torch.float32))
        self.num_steps = config.num_steps

    def guide(self, seq: torch.Tensor) -> torch.Tensor:
        mask = seq > 0
        history = self.items(seq) * mask[..., None]
        placed = history + self.positions(torch.arange(self.max_len))
        logits = self.gem_outer(torch.tanh(self.gem_inner(placed)))
        logits = logits.masked_fill(~mask[..., None], -(2.0**32) + 1)
        return logits.softmax(dim=1).transpose(1, 2) @ history

    def denoise(self, x: torch.Tensor, t: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        half = self.width // 2
        rate = torch.exp(torch.arange(half) * -(math.log(10_000) / (half - 1)))
        angle = t[:, None] * rate
        code = torch.cat([angle.sin(), angle.cos()], dim=-1)
        code = self.step_outer(nn.functional.gelu(self.step_inner(code)))
        joined = torch.cat([x, guide.flatten(1), code], dim=-1)
        out = self.outer(nn.functional.gelu(self.inner(joined)))
        return nn.functional.normalize(out, dim=-1)


def load(model: DimeRec, params: Any) -> None:
    """Takes the parameters of `jaxrec_diff.models.dimerec`."""

    def linear(layer: nn.Linear, leaf: Any) -> None:
        layer.weight.copy_(torch.from_numpy(np.array(leaf["kernel"]).T))
        layer.bias.copy_(torch.from_numpy(np.array(leaf["bias"])))

    with torch.no_grad():
        # a table may end in rows that fill it up
        rows = np.array(params["items"])[: len(model.items.weight)]
        model.items.weight.copy_(torch.from_numpy(rows))
        model.positions.weight.copy_(torch.from_numpy(np.array(params["positions"])))
        linear(model.gem_inner, params["extract"]["inner"])
        linear(model.gem_outer, params["extract"]["outer"])
        linear(model.step_inner, params["step"]["inner"])
        linear(model.step_outer, params["step"]["outer"])
        linear(model.inner, params["inner"])
        linear(model.outer, params["outer"])


@torch.no_grad()
def sample(model: DimeRec, seq: torch.Tensor) -> torch.Tensor:
    """The end of the whole chain on the sphere."""
    unit = nn.functional.normalize
    guide = model.guide(seq)
    x = unit(torch.randn(len(seq), model.width), dim=-1)
    for i in reversed(range(model.num_steps)):
        t = torch.full((len(seq),), i)
        x = model.c1[i] * model.denoise(x, t, guide) + model.c2[i] * x
        if i > 0:
            x = x + model.sd[i] * torch.randn_like(x)
        x = unit(x, dim=-1)
    return x


def q_sample(model: DimeRec, x0: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A geodesic random walk in one jump, of the noise in the tangent space."""
    z = torch.randn_like(x0)
    tangent = z - (z * x0).sum(dim=-1, keepdim=True) * x0
    v = model.noise[t][:, None] * tangent
    length = v.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return length.cos() * x0 + length.sin() * v / length


def train_step(
    model: DimeRec, optimizer: torch.optim.Optimizer, config: Any, seq: torch.Tensor,
    target: torch.Tensor,
) -> float:  # fmt: skip
    """One update on guidance, reconstruction and the softmax on the sphere, with negatives drawn
    evenly and shared by the batch."""
    unit, rows = nn.functional.normalize, torch.arange(len(seq))
    raw = model.items(target)
    x0 = unit(raw, dim=-1)
    t = torch.randint(0, model.num_steps, target.shape)
    guide = model.guide(seq)
    estimate = model.denoise(q_sample(model, x0, t), t, guide)
    picked = guide[rows, (guide @ raw[..., None])[..., 0].argmax(dim=1)]
    drawn = torch.randint(1, model.items.num_embeddings, (config.num_negatives,))
    other, hit = model.items(drawn), drawn[None] == target[:, None]

    def softmax(points: torch.Tensor, positive: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        negative = (points @ table.T).masked_fill(hit, -1e9)
        logits = torch.cat([(points * positive).sum(dim=-1, keepdim=True), negative], dim=1)
        return nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))

    gem = softmax(picked, raw, other)
    ssm = softmax(estimate / config.temperature, x0, unit(other, dim=-1))
    recon = ((x0 - estimate) ** 2).sum(dim=-1).mean()
    loss = gem + config.recon_weight * recon + config.ssm_weight * ssm
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def peer_sampler(
    config: Any, spec: Any, params: Any, query: Any, *, compiled: bool
) -> Callable[[], Any]:
    """The peer of `bin/benchmark sampler`: histories to unit vectors, by all steps of the chain."""
    whole = config.sampler.kind == "ddpm" and not config.sampler.steps
    if not whole or config.sampler.temperature != 1 or config.sampler.noise != "std_small":
        raise ValueError("the PyTorch port of DimeRec walks every ddpm step")
    model = _peer(config, spec, params)
    model.eval()
    if compiled:
        model.denoise = torch.compile(model.denoise)
    seq = torch.from_numpy(np.array(query.seq)).long()
    return lambda: sample(model, seq)


def peer_train(
    config: Any, spec: Any, params: Any, example: Any, *, compiled: bool
) -> Callable[[], float]:
    """The peer of `bin/benchmark train`: an update."""
    literal = config.forward == "grw" and config.forward_alpha == "abar" and config.project
    if not literal or config.negatives != "uniform":
        raise ValueError("the PyTorch port of DimeRec trains the paper's literal reading")
    model = _peer(config, spec, params)
    if compiled:
        model.denoise, model.guide = torch.compile(model.denoise), torch.compile(model.guide)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    seq, target = (torch.from_numpy(np.array(x)).long() for x in (example.seq, example.target))
    return lambda: train_step(model, adam, config, seq, target)


def _peer(config: Any, spec: Any, params: Any) -> DimeRec:
    literal = config.noise_scale == "unit" and config.normalize_estimate
    learned = config.interests == "self_attentive" and not config.value_has_position
    if not literal or not learned or config.positions != "start":
        raise ValueError("the PyTorch port of DimeRec has the paper's literal reading")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = DimeRec(spec.num_items, spec.max_len, config)
    load(model, params)
    return model
