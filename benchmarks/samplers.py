"""How fast is DreamRec's sampler, and its training step, against eager PyTorch?

    python benchmarks/samplers.py [--batches 100 1000] [--repeats 5]

Sampler only: conditions are given, nothing is ranked, both sides have the same parameters. Prints
a json line a measurement and, last, the ratios. Times are the process's, so pin one thread:

    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
        taskset -c 0 python benchmarks/samplers.py
"""

import argparse
import json
import os
import platform
import statistics
import time
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_dreamrec

from jaxrec_diff.batches.types import Sequences
from jaxrec_diff.diffusion import closed_form, forward, process, samplers, schedules
from jaxrec_diff.experiments.provenance import commit
from jaxrec_diff.models import dreamrec
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.training import optim, state, step
from jaxrec_diff.training.config import TrainConfig

ITEMS, LENGTH, WIDTH = 4838, 10, 64
CONFIG = dreamrec.DreamRecConfig(width=WIDTH, num_steps=500, guidance_weight=4.0)
NET = dreamrec.DreamRecNet(ITEMS, LENGTH, CONFIG)
BETAS = schedules.linear(500)


def median_seconds(fn, repeats: int) -> float:
    """Processor seconds: with one thread they are what an idle core would need."""
    fn()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        fn()
        times.append(time.process_time() - start)
    return statistics.median(times)


def emit(**figures) -> dict:
    print(json.dumps(figures), flush=True)
    return figures


def closed_form_law(params, steps):
    tau = NET.apply({"params": params}, steps.t, method="embed_steps")
    w_x, _, w_t = jnp.split(params["outer"]["kernel"], [WIDTH, 2 * WIDTH])
    return closed_form.closed_form(steps, w_x, tau @ w_t + params["outer"]["bias"])


def closed_form_draw(params, law, cond, key):
    w_h = params["outer"]["kernel"][WIDTH : 2 * WIDTH]
    weight = CONFIG.guidance_weight
    guided = ((1.0 + weight) * cond - weight * params["null"]) @ w_h
    return closed_form.apply(law, guided, jax.random.normal(key, cond.shape))


def scan_draw(params, steps, cond, key):
    k_start, k_steps = jax.random.split(key)
    denoise = dreamrec.folded(NET, params, cond)
    draw = samplers.draw_whole(k_steps, cond.shape)
    start = jax.random.normal(k_start, cond.shape)
    return process.run(process.Chain(steps, denoise, start, draw))


def sampler_figures(params, model, batch: int, repeats: int) -> dict[str, float]:
    cond = jax.random.normal(jax.random.key(1), (batch, WIDTH))
    steps, key = samplers.ddpm_steps(forward.levels(BETAS)), jax.random.key(2)
    scan, draw = jax.jit(scan_draw), jax.jit(closed_form_draw)
    law = jax.block_until_ready(jax.jit(closed_form_law)(params, steps))
    schedule, given = torch_dreamrec.Schedule(BETAS), torch.from_numpy(np.array(cond))
    weight = CONFIG.guidance_weight
    runs = {
        "scan": lambda: jax.block_until_ready(scan(params, steps, cond, key)),
        "closed_form": lambda: jax.block_until_ready(draw(params, law, cond, key)),
        "torch": lambda: torch_dreamrec.sample(model, schedule, given, weight),
    }
    rates = {}
    for name, fn in runs.items():
        rates[name] = batch / median_seconds(fn, repeats)
        emit(question="sampler", which=name, batch=batch, steps=500, users_per_second=rates[name])
    return rates


def agreement(params, model, rows: int = 20_000) -> dict:
    """Largest distance of means and covariances, in standard errors of the sampling."""
    cond = jnp.broadcast_to(jax.random.normal(jax.random.key(3), (WIDTH,)), (rows, WIDTH))
    steps = samplers.ddpm_steps(forward.levels(BETAS))
    ours = np.asarray(jax.jit(scan_draw)(params, steps, cond, jax.random.key(4)))
    given = torch.from_numpy(np.array(cond))
    schedule = torch_dreamrec.Schedule(BETAS)
    theirs = torch_dreamrec.sample(model, schedule, given, CONFIG.guidance_weight).numpy()
    sd = theirs.std(0)
    means = np.abs(ours.mean(0) - theirs.mean(0)) / (sd * np.sqrt(2 / rows))
    covs = np.abs(np.cov(ours.T) - np.cov(theirs.T)) / (np.outer(sd, sd) * np.sqrt(4 / rows))
    return emit(question="agreement", mean_in_errors=means.max(), cov_in_errors=covs.max())


def train_figures(params, model, repeats: int, batch: int = 256) -> dict[str, float]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, LENGTH + 1, batch)
    seq = rng.integers(1, ITEMS + 1, (batch, LENGTH)) * (np.arange(LENGTH) < lengths[:, None])
    target = rng.integers(1, ITEMS + 1, batch)
    ours = dreamrec.build(CONFIG, DataSpec(0, ITEMS, LENGTH))
    optimizer = optim.make(TrainConfig(learning_rate=1e-2, optimizer="adamw"), 1)
    example = Sequences(
        jnp.asarray(seq, jnp.int32),
        jnp.asarray(target, jnp.int32),
        jnp.ones(batch),
        jnp.arange(batch, dtype=jnp.int32),
    )
    train = state.create(ours.init(jax.random.key(0), example), optimizer)

    @jax.jit
    def ten(train):
        def body(train, _):
            return step.update(ours, optimizer, train, jax.random.key(0), example)[0], None

        return jax.lax.scan(body, train, None, length=10)[0]

    adam = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch_dreamrec.Schedule(BETAS)
    inputs = torch.from_numpy(seq), torch.from_numpy(target)

    def torch_ten():
        for _ in range(10):
            torch_dreamrec.train_step(model, adam, schedule, *inputs, CONFIG.drop_rate)

    runs = {"jax": lambda: jax.block_until_ready(ten(train)), "torch": torch_ten}
    rates = {}
    for name, fn in runs.items():
        rates[name] = 10 * batch / median_seconds(fn, repeats)
        emit(question="train step", which=name, batch=batch, examples_per_second=rates[name])
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    example = jnp.ones((1, LENGTH), jnp.int32), jnp.ones(1, jnp.int32)
    params = NET.init(jax.random.key(0), *example)["params"]
    model = torch_dreamrec.DreamRec(ITEMS, LENGTH, WIDTH)
    torch_dreamrec.load(model, params)
    emit(
        device=jax.devices()[0].device_kind,
        platform=f"{platform.machine()}, {os.cpu_count()} cores",
        versions={name: metadata.version(name) for name in ("jax", "jaxlib", "torch", "numpy")},
        commit=commit(),
        seed=0,
        command="benchmarks/samplers.py",
    )
    agreement(params, model)
    rates = {
        batch: sampler_figures(params, model, batch, options.repeats) for batch in options.batches
    }
    best = {name: max(r[name] for r in rates.values()) for name in ("scan", "closed_form", "torch")}
    for batch, rate in rates.items():
        emit(
            question="ratio",
            batch=batch,
            scan_over_torch=rate["scan"] / rate["torch"],
            closed_form_over_torch=rate["closed_form"] / rate["torch"],
        )
    emit(question="ratio at best batches", scan_over_torch=best["scan"] / best["torch"])
    trained = train_figures(params, model, options.repeats)
    emit(question="train ratio", jax_over_torch=trained["jax"] / trained["torch"])


if __name__ == "__main__":
    main()
