"""How fast does DiffuRec train and recommend on real lengths, against eager PyTorch?

    python benchmarks/diffurec.py --data amazon-beauty/interactions.parquet

Train steps of 512 examples and recommendations to test users, with the released network (four
blocks, width 128, 50 places, 12,101 items, 32 steps): every history padded to 50 places, cut to a
few lengths, and the eager port of the padded network. How few reverse steps serve is asked by
`diffurec_steps.py`. Prints a json line a measurement and, last, the ratios. Times are the
process's, so pin one thread:

    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
        taskset -c 0 python benchmarks/diffurec.py --data amazon-beauty/interactions.parquet
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from dataclasses import replace
from importlib import metadata

import jax
import numpy as np
import torch
import torch_diffurec

from jaxrec_diff import config
from jaxrec_diff.batches import lengths as batches_lengths
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.experiments import judging, phases, provenance, runs
from jaxrec_diff.experiments.phases import PhaseRun
from jaxrec_diff.models import diffurec
from jaxrec_diff.training import optim, parallel, state, step
from jaxrec_diff.training.config import TrainConfig

FEW = (1, 2, 4)  # reverse steps beside all
BATCH, TORCH_USERS, USERS = 512, 128, 2048


def emit(**figures) -> dict:
    print(json.dumps(figures), flush=True)
    return figures


def median_seconds(fn, repeats: int) -> float:
    """Processor seconds after a run that compiles: what one idle core would need."""
    fn()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        fn()
        times.append(time.process_time() - start)
    return statistics.median(times)


def settings(model: dict, buckets: tuple[int, ...] = ()):
    released = config.preset("diffurec", "amazon-beauty").experiment
    return replace(
        released,
        model=replace(released.model, **model),
        data=replace(released.data, buckets=buckets),
        train=TrainConfig(batch_size=BATCH, learning_rate=1e-3),
        eval=replace(released.eval, protocol="official"),
        devices=1,
    )


TRAINED = {
    "padded": settings({}, (50,)),
    "cut, one pad": settings({"pads": "one"}),
    "cut, key mask": settings({"mask": "key"}),
}
RANKED = {
    "padded, 32 steps, lambda a step": settings({"lambda_draw": "per_step"}, (50,)),
    "cut, 32 steps": settings({}),
} | {
    f"cut, {few} step{'s' * (few > 1)}": settings(
        {"sampler": SamplerConfig(noise="std_large", spacing="leading", steps=few)}
    )
    for few in FEW
}


def initial(phase: PhaseRun):
    model, batcher = phases.model_of(phase), phase.batcher
    index = np.zeros(2, np.int32)
    example = batcher.example(batcher.train, index, index, jax.random.key(0))
    return model, batcher, jax.jit(model.init)(jax.random.key(0), example)


def train_rate(name: str, phase: PhaseRun, repeats: int) -> float:
    model, batcher, variables = initial(phase)
    optimizer = optim.make(phase.settings.train, 1)

    def update(train, key, example):
        return step.update(model, optimizer, train, key, example)

    updates = parallel.jit_updates(update, batcher.example, phase.mesh)
    order = batcher.order(jax.random.key(1))
    real = int((np.asarray(order[:1]) >= 0).sum())
    data = updates.place(batcher.train)

    def run():
        train = state.create(jax.tree.map(np.copy, variables), optimizer)
        args = updates.place((train, jax.random.key(2), order))
        jax.block_until_ready(updates.run(args[0], data, *args[1:], np.int32(0), np.int32(1)))

    rate = real / median_seconds(run, repeats)
    lengths = batches_lengths.bucket_lengths(phase.dataset.train, phase.settings.data)
    emit(question="train step", which=name, lengths=lengths, examples_per_second=rate)
    return rate


def some_rows(phase: PhaseRun, count: int) -> PhaseRun:
    """The data with `count` of its test rows, evenly spread."""
    test = phase.dataset.test
    rows = np.linspace(0, len(test.start) - 1, count).astype(np.int64)
    cut = test._replace(**{n: getattr(test, n)[rows] for n in ("start", "end", "stop")})
    users = phase.dataset.test_users[rows]
    return phases.changed(phase, dataset=phase.dataset._replace(test=cut, test_users=users))


def rank_rate(name: str, phase: PhaseRun, variables, repeats: int) -> float:
    count = USERS if name.startswith("cut") else TORCH_USERS
    run = judging.ranker(some_rows(phase, count), "test")
    seconds = median_seconds(lambda: run(*variables, jax.random.key(3)), repeats)
    emit(question="recommend", which=name, users=count, users_per_second=count / seconds)
    return count / seconds


def torch_rates(phase: PhaseRun, params, repeats: int) -> tuple[float, float]:
    c = phase.settings.model
    betas = np.linspace(0.0001 * 1000 / 32 + 0.01, 0.02 * 1000 / 32 + 0.01, 32)
    model = torch_diffurec.DiffuRec(
        phase.dataset.num_items, c.width, c.num_blocks, c.num_heads, betas
    )
    torch_diffurec.load(model, params)
    rng = np.random.default_rng(0)

    def padded(histories, rows):
        out = np.zeros((len(rows), 50), np.int64)
        for at, (start, end) in enumerate(
            zip(histories.start[rows], histories.end[rows], strict=True)
        ):
            items = histories.items[max(start, end - 50) : end]
            out[at, 50 - len(items) :] = items
        return torch.from_numpy(out)

    train, test = phase.dataset.train, phase.dataset.test
    rows = rng.choice(len(train.start), BATCH, replace=False)
    seq, target = padded(train, rows), torch.from_numpy(train.items[train.end[rows]].astype(int))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    users = padded(test, rng.choice(len(test.start), TORCH_USERS, replace=False))
    agreement(phase, params, model, users[:16])
    recommended = TORCH_USERS / median_seconds(
        lambda: torch_diffurec.recommend(model, users, 20), repeats
    )
    emit(question="recommend", which="torch", users=TORCH_USERS, users_per_second=recommended)
    trained = BATCH / median_seconds(
        lambda: torch_diffurec.train_step(model, adam, seq, target), repeats
    )
    emit(question="train step", which="torch", examples_per_second=trained)
    return trained, recommended


def agreement(phase: PhaseRun, params, model, seq) -> None:
    """One call of both networks on the same input, lambda at its mean."""
    net_config = replace(phase.settings.model, lambda_std=0.0)
    net = diffurec.DiffuRecNet(phase.dataset.num_items, 50, net_config)
    x = np.random.default_rng(1).normal(size=(len(seq), net_config.width)).astype(np.float32)
    draw, torch.randn_like = torch.randn_like, torch.zeros_like
    try:
        with torch.no_grad():
            model.eval()
            t = torch.full((len(seq),), 3)
            theirs = model.read(model.history(seq), torch.from_numpy(x), t, seq > 0).numpy()
    finally:
        torch.randn_like = draw
    # left padding turned to the right
    right = np.stack([np.roll(row, -(row == 0).sum()) for row in seq.numpy()])

    def ours(params, right):
        history = net.apply({"params": params}, right, method="embed")
        y = x + net.apply({"params": params}, np.full(len(x), 3), method="steps")
        return net.apply({"params": params}, history, 0.001 * y[:, None], right, method="read")

    found = np.asarray(jax.jit(ours)(params, right))
    emit(question="agreement", largest_difference=float(np.abs(found - theirs).max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=[*TRAINED, *RANKED], default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    emit(
        device=jax.devices()[0].device_kind,
        platform=f"{platform.machine()}, {os.cpu_count()} cores",
        versions={name: metadata.version(name) for name in ("jax", "jaxlib", "torch", "numpy")},
        commit=provenance.commit(),
        seed=0,
        command=shlex.join(["benchmarks/diffurec.py", *sys.argv[1:]]),
    )
    (first,) = runs.prepare("diffurec", TRAINED["padded"], options.data).phases

    def asked(ways):
        return {name: way for name, way in ways.items() if name in (options.only or ways)}

    def on(chosen):
        return phases.changed(first, settings=chosen)

    _, _, variables = initial(first)
    torch_trained, torch_recommended = torch_rates(first, variables.params, options.repeats)
    ratios = {}
    for name, chosen in asked(TRAINED).items():
        rate = train_rate(name, on(chosen), options.repeats)
        ratios[f"train, {name}"] = rate / torch_trained
    for name, chosen in asked(RANKED).items():
        rate = rank_rate(name, on(chosen), variables, options.repeats)
        ratios[f"recommend, {name}"] = rate / torch_recommended
    emit(question="ratio to torch", **ratios)


if __name__ == "__main__":
    main()
