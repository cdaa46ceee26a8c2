"""What in DiffuRec matters? A json line an arm, over the same data, seed and updates.

    python benchmarks/ablations_diffurec.py [--data synthetic] [--num-epochs 6] [--width 32]

released: no positions, gradients through the noised target. positions: learned ones are added.
stopped: no gradient reaches the item table through the noised target. no diffusion: lambda is 0,
so neither x_t nor the step is read. The last line asks how much of the table's gradient arrives
through the noised target, in the trained released arm.
"""

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import config
from jaxrec_diff.experiments import phases, pipeline, provenance, restore, runs
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.training.state import averaged

ARMS: dict[str, dict] = {
    "released": {},
    "positions": {"positions": True},
    "stopped": {"target": "stopped"},
    "no diffusion": {"lambda_mean": 0.0, "lambda_std": 0.0},
}


def emit(**figures) -> None:
    print(json.dumps(figures), flush=True)


def gradient_share(run: Run, workdir: Path) -> dict[str, float]:
    """|g_learned - g_stopped| / |g_learned| over the item table, and over its target rows."""
    (phase,) = run.phases
    train, batcher = restore.best_of(phase, workdir), phase.batcher
    index = jax.random.permutation(jax.random.key(5), batcher.num_examples)[:256]
    key = jax.random.key(6)
    example = batcher.example(batcher.train, index, jnp.arange(256, dtype=jnp.int32), key)
    grads = {}
    for target in ("learned", "stopped"):
        settings = replace(phase.settings, model=replace(phase.settings.model, target=target))
        model = phases.model_of(phases.changed(phase, settings=settings))
        loss = jax.jit(jax.grad(lambda p, model=model: model.loss(p, train.state, key, example)[0]))
        grads[target] = np.asarray(loss(averaged(train))["items"], np.float64)
    difference = grads["learned"] - grads["stopped"]
    rows = np.unique(np.asarray(example.target))
    return {
        "share_of_table_gradient": float(
            np.linalg.norm(difference) / np.linalg.norm(grads["learned"])
        ),
        "share_of_target_rows": float(
            np.linalg.norm(difference[rows]) / np.linalg.norm(grads["learned"][rows])
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--num-epochs", type=int, default=6)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--num-blocks", type=int, default=1)
    parser.add_argument("--max-len", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    first = config.preset("diffurec", "synthetic").experiment
    base = replace(
        first,
        model=replace(
            first.model, width=options.width, num_blocks=options.num_blocks, positions=False,
            sampler=replace(first.model.sampler, steps=1),
        ),
        data=replace(first.data, max_len=options.max_len),
        train=replace(first.train, num_epochs=options.num_epochs, patience=0),
        seed=options.seed,
        devices=1,
    )  # fmt: skip
    emit(
        device=jax.devices()[0].device_kind,
        platform=platform.machine(),
        versions={name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")},
        commit=provenance.commit(),
        command=" ".join(["benchmarks/ablations_diffurec.py", *sys.argv[1:]]),
        seed=options.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for name, changes in ARMS.items():
            chosen = replace(base, model=replace(base.model, **changes))
            run = runs.prepare("diffurec", chosen, options.data)
            made[name] = run, Path(folder) / name.replace(" ", "-")
            results = pipeline.train(run, made[name][1], log=lambda line: None)
            emit(
                arm=name,
                steps=results["steps"],
                best_step=results["best_step"],
                metrics=results["metrics"],
                controls={n: m["hr@20"] for n, m in results["controls"].items()},
            )
        emit(question="noise in the target", **gradient_share(*made["released"]))


if __name__ == "__main__":
    main()
