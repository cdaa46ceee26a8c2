"""Does DiffuRec learn as fast as the released code? Mean cross entropy over its first steps.

    python benchmarks/diffurec_parity.py --data PATH/ml-1m/interactions.parquet [--seed 1997]

The released code at L = 20, width 64, one block and batches of 256 has a mean cross entropy of
15.77, 8.69 and 8.06 over its first 500, the next 500 and the next 437 steps on ML-1M. Prints a json
line with ours.
"""

import argparse
import json
import platform
import sys
import time
from dataclasses import replace

import jax
import numpy as np

from jaxrec_diff import config
from jaxrec_diff.experiments import phases, provenance, runs
from jaxrec_diff.training import optim, parallel, state, step

STRETCHES = {500: 15.77, 1000: 8.69, 1437: 8.06}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--seed", type=int, default=1997)
    parser.add_argument("--pads", choices=["all", "one"], default="all")
    options = parser.parse_args()
    released = config.preset("diffurec", "ml-1m").experiment
    small = replace(
        released,
        model=replace(released.model, width=64, num_blocks=1, pads=options.pads),
        data=replace(released.data, max_len=20),
        train=replace(released.train, batch_size=256),
        seed=options.seed,
        devices=1,
    )
    (phase,) = runs.prepare("diffurec", small, options.data).phases
    model, batcher = phases.model_of(phase), phase.batcher
    epoch = batcher.num_examples // small.train.batch_size
    optimizer = optim.make(small.train, epoch * small.train.num_epochs)
    keys = jax.random.split(jax.random.key(options.seed), 3)
    index = np.arange(2, dtype=np.int32)
    variables = jax.jit(model.init)(keys[0], batcher.example(batcher.train, index, index, keys[0]))

    def update(train, key, example):
        return step.update(model, optimizer, train, key, example)

    updates = parallel.jit_updates(update, batcher.example, phase.mesh)
    order = jax.jit(batcher.order)(keys[1])[: max(STRETCHES)]
    train, data, key, order = (
        updates.place(part)
        for part in (state.create(variables, optimizer), batcher.train, keys[2], order)
    )
    found, first, start = {}, 0, time.process_time()
    for last in STRETCHES:
        train, reports = updates.run(
            train, data, key, order, np.int32(first), np.int32(last - first)
        )
        found[last] = float(reports.metrics["loss"].sum()) / (last - first)
        first = last
    seconds = time.process_time() - start
    print(
        json.dumps(
            {
                "question": "mean cross entropy over the steps since the last point",
                "ours": found,
                "released": STRETCHES,
                "examples_per_cpu_second": max(STRETCHES) * 256 / seconds,
                "command": " ".join(["benchmarks/diffurec_parity.py", *sys.argv[1:]]),
                "seed": options.seed,
                "device": jax.devices()[0].device_kind,
                "platform": platform.machine(),
                "versions": {"jax": jax.__version__, "numpy": np.__version__},
                "commit": provenance.commit(),
            }
        )
    )


if __name__ == "__main__":
    main()
