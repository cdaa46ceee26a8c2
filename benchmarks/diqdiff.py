"""How fast is DiQDiff's training step, codes over all 50 places, against eager PyTorch?

    JAXREC_DATA=DIR python benchmarks/diqdiff.py [--batch 1024] [--repeats 3]

Examples are those of DIR/amazon-beauty. Both sides have the same parameters; that they compute the
same is checked first. Prints a json line a measurement and, last, the ratios. Times are the
process's, so pin one thread:

    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
        taskset -c 0 python benchmarks/diqdiff.py
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
import torch_diqdiff

from jaxrec_diff.batches import cut
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.diffusion import forward
from jaxrec_diff.experiments.provenance import commit
from jaxrec_diff.models import diffurec, diqdiff
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.ops import quantize
from jaxrec_diff.training import optim, state, step
from jaxrec_diff.training.config import TrainConfig

CONFIG = diqdiff.DiQDiffConfig()
LENGTH = 50


def median_seconds(fn, repeats: int) -> float:
    """Processor seconds: with one thread they are what an idle core would need."""
    fn()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        fn()
        times.append(time.process_time() - start)
    return statistics.median(times)


def emit(**figures) -> None:
    print(json.dumps(figures), flush=True)


def agreement(model, params, seq, net) -> None:
    """Largest distance of the two networks' outputs under the same codes, without dropout."""
    labels = np.arange(len(seq)) % CONFIG.num_codes
    xt = np.random.default_rng(0).normal(size=(len(seq), CONFIG.width)).astype(np.float32)
    t = np.arange(len(seq)) % CONFIG.num_steps
    ones = jnp.ones(len(seq))

    def ours(params):
        def call(method, *args):
            return net.apply({"params": params}, *args, method=method)

        history = call("embed", jnp.asarray(seq))
        found = quantize.code_means(history, jnp.asarray(labels), ones, CONFIG.num_codes)
        injected = CONFIG.inject * (xt + call("steps", jnp.asarray(t)))
        z = 0.6 * history + 0.4 * quantize.pick(found.means, jnp.asarray(labels))
        return call(diqdiff.read_last, z + injected[:, None], jnp.asarray(seq > 0))

    model.eval()
    with torch.no_grad():
        tokens = torch.from_numpy(seq)
        history = model.embed(tokens)
        injected = 0.001 * (torch.from_numpy(xt) + model.step(torch.from_numpy(t).float()))
        codes = model.codes(history, torch.from_numpy(labels))
        theirs = model.read(0.6 * history + injected[:, None] + 0.4 * codes, tokens == 0)
    model.train()
    apart = np.abs(np.asarray(jax.jit(ours)(params)) - theirs.numpy()).max()
    emit(question="agreement", largest_difference=float(apart), rows=len(seq))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = os.path.join(os.environ["JAXREC_DATA"], "amazon-beauty", "interactions.parquet")
    dataset = load(folder, DataConfig(max_len=LENGTH))
    index = np.random.default_rng(0).choice(len(dataset.train.start), options.batch, replace=False)
    rows = jnp.arange(options.batch, dtype=jnp.int32)
    example = cut.sequences(dataset.train, jnp.asarray(index), max_len=LENGTH, row_id=rows)
    emit(
        device=jax.devices()[0].device_kind,
        platform=f"{platform.machine()}, {os.cpu_count()} cores",
        versions={name: metadata.version(name) for name in ("jax", "jaxlib", "torch", "numpy")},
        commit=commit(),
        seed=0,
        command=f"benchmarks/diqdiff.py --batch {options.batch} --repeats {options.repeats}",
        mean_length=float((example.seq > 0).sum(axis=1).mean()),
    )
    spec = DataSpec(dataset.num_users, dataset.num_items, LENGTH)
    ours = diqdiff.build(CONFIG, spec)
    variables = jax.jit(ours.init)(jax.random.key(0), example)
    model = torch_diqdiff.DiQDiff(dataset.num_items, LENGTH, CONFIG.num_codes)
    torch_diqdiff.load(model, variables.params, variables.state.selector)
    seq = np.asarray(diqdiff.latest_last(example.seq, LENGTH)).astype(np.int64)
    net = diffurec.DiffuRecNet(dataset.num_items, LENGTH, CONFIG.backbone())
    agreement(model, variables.params, seq[:64], net)

    optimizer = optim.make(TrainConfig(), 1)
    update = jax.jit(lambda train: step.update(ours, optimizer, train, jax.random.key(0), example))
    train = state.create(variables, optimizer)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    tables = forward.tables(
        forward.levels(diffurec.released_betas(CONFIG.schedule, CONFIG.num_steps))
    )
    signal, noise = (torch.from_numpy(np.array(table)) for table in tables)
    inputs = torch.from_numpy(seq), torch.from_numpy(np.array(example.target)).long()

    def eager(contrast):
        return lambda: torch_diqdiff.train_step(model, adam, signal, noise, *inputs, contrast)

    runs = {
        "jax": lambda: jax.block_until_ready(update(train)),
        "torch": eager(torch_diqdiff.contrast_by_broadcast),
        "torch, contrast by matmul": eager(torch_diqdiff.contrast_by_matmul),
    }
    rates = {}
    for name, fn in runs.items():
        rates[name] = options.batch / median_seconds(fn, options.repeats)
        emit(question="train step", which=name, examples_per_second=rates[name])
    for name in list(runs)[1:]:
        emit(question="train ratio", over=name, ratio=rates["jax"] / rates[name])


if __name__ == "__main__":
    main()
