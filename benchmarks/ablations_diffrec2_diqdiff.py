"""Does DiffRec2's one-step inference hold, and what does DiQDiff gain by updating its codebook?

    python benchmarks/ablations_diffrec2_diqdiff.py [--data synthetic] [--epochs 6]
        [--train.batch-size=512 ...]

Trains each model once and recommends with the same weights in several ways. Prints a json line a
way: test figures, the share of a user's top ten that two draws of the noise have in common
(`overlap_of_draws`), and the share in common with the first way (`overlap_with_first`).
Flags with a dot go to every experiment.
"""

import argparse
import json
import os
import platform
import tempfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import config
from jaxrec_diff.data.sources import dataset_name
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation import rank
from jaxrec_diff.experiments import judging, phases, pipeline, provenance, restore, runs
from jaxrec_diff.experiments.phases import PhaseRun

_ROWS = 1024  # users whose lists are compared


def emit(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def tops(phase: PhaseRun, params, state, key, batch_size: int) -> np.ndarray:
    """Best ten items of the first test users, i32[N, 10], asked for in batches of `batch_size`."""
    model, batcher = phases.model_of(phase), phase.batcher
    rows = batcher.splits["test"]

    @jax.jit
    def ask(index):
        query = batcher.query(rows, index)
        return rank.top(rank.sample(model, params, state, key, query), k=10).items

    count = min(_ROWS, len(phase.dataset.test.start))
    batch_size = min(batch_size, count)
    count = count // batch_size * batch_size
    index = jnp.arange(count, dtype=jnp.int32).reshape(-1, batch_size)
    return np.concatenate([np.asarray(ask(part)) for part in index])


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Mean share of a row's items that both lists hold."""
    rows = min(len(first), len(second))
    both = (first[:rows, :, None] == second[:rows, None, :]).any(axis=2)
    return float(both.mean())


def compare(name: str, ways: dict[str, dict], training: dict, options, flags) -> None:
    """Trains `name` under `training` and recommends in each way."""
    experiment = config.preset(name, dataset_name(options.data)).experiment
    train = replace(experiment.train, num_epochs=options.epochs, patience=0, eval_every=1)
    experiment = replace(experiment, model=replace(experiment.model, **training), train=train)
    experiment = config.parse(experiment, flags)
    run = runs.prepare(name, experiment, options.data)
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        results = pipeline.train(run, workdir, log=lambda _: None)
        emit(model=name, training=training, steps=results["steps"], controls=results["controls"])
        phase, _, params, state = restore.restore(run, workdir)
        first = None
        for way, changes in ways.items():
            changes = dict(changes)
            size = changes.pop("batch_size", 1024)
            changed = replace(
                experiment,
                model=replace(experiment.model, **changes),
                eval=replace(experiment.eval, batch_size=size),
            )
            chosen = phases.changed(phase, settings=changed)
            found = judging.draws(chosen, params, state, "test", diagnose=True)[0].metrics
            draws = [tops(chosen, params, state, jax.random.key(k), size) for k in (0, 1)]
            first = draws[0] if first is None else first
            emit(
                model=name,
                training=training,
                way=way,
                **{m: found[m] for m in ("hr@10", "ndcg@10", "hr@20", "ndcg@20")},
                overlap_of_draws=overlap(*draws),
                overlap_with_first=overlap(draws[1], first),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", choices=("diffrec2", "diqdiff"))
    options, flags = parser.parse_known_args()
    emit(
        device=jax.devices()[0].device_kind,
        platform=f"{platform.machine()}, {os.cpu_count()} cores",
        versions={n: metadata.version(n) for n in ("jax", "jaxlib", "flax", "numpy")},
        commit=provenance.commit(),
        seed=0,
        command=f"benchmarks/ablations_diffrec2_diqdiff.py --data {dataset_name(options.data)} "
        f"--epochs {options.epochs} {' '.join(flags)}".strip(),
    )
    chain: dict[str, dict] = {
        "full chain": {"inference": "full"},
        "full chain, means only": {"inference": "full", "sampler": SamplerConfig(kind="mean")},
        "full chain, 8 steps": {"inference": "full", "sampler": SamplerConfig(steps=8)},
        "one step, 1 seed": {"num_seeds": 1},
        "one step, 4 seeds": {"num_seeds": 4},
        "one step, 10 seeds": {"num_seeds": 10},
        "one step, 10 seeds, mean of probabilities": {"num_seeds": 10, "seed_average": "prob"},
    }
    codes: dict[str, dict] = {
        "codebook of training": {"eval_codes": "frozen"},
        "codebook of 1024 users": {"eval_codes": "official"},
        "codebook of 64 users": {"eval_codes": "official", "batch_size": 64},
    }
    if options.only != "diqdiff":
        paper: dict[str, Any] = {}
        guided = {"ce_weight": 1.0}
        for training in (paper, guided, guided | {"history_blind": True}):
            compare("diffrec2", chain, training, options, flags)
    if options.only != "diffrec2":
        for training in ({"svq": "official"}, {"svq": "paper"}):
            compare("diqdiff", codes, training, options, flags)


if __name__ == "__main__":
    main()
