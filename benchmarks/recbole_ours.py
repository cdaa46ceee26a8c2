"""This project's side of `recbole_peer.py`: the same systems, data and settings, a json line each.

    python benchmarks/recbole_ours.py DIR/ml-100k/ml-100k.inter --model=sasrec
    python benchmarks/recbole_ours.py --write LINES     # both sides' lines as results

`recbole.sh` runs both. An epoch is what each side calls one. RecBole's SASRec takes a history up to
each of its items as an example with one target, 256 an update; ours a window of 20 places with a
target at every one, 14 an update, so that an epoch learns the same targets in as many updates.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from recbole_peer import EPOCHS

from jaxrec_diff import config
from jaxrec_diff.benchmarking import subjects
from jaxrec_diff.experiments import judging, phases, provenance
from jaxrec_diff.ops import streams
from jaxrec_diff.training import parallel, programs
from jaxrec_diff.training.state import averaged

RESULTS = Path(__file__).parent / "results" / "recbole-cpu.json"
_NOISE = {"model.process.num_steps": 5, "model.process.noise_scale": 0.01,
          "model.process.noise_max": 0.01, "train.batch_size": 400}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    # histories are candidates, as in RecBole's sequential models
    "sasrec": {
        "model.width": 64, "model.num_blocks": 2, "model.num_heads": 2, "model.ff_multiplier": 4,
        "model.dropout_rate": 0.1, "data.max_len": 20, "train.batch_size": 14,
        "eval.mask_seen": False,
    },
    "lightgcn": {
        "model.width": 64, "model.layers": 3, "model.l2": 1e-4, "model.init_scale": 0.04,
        "train.batch_size": 2048,
    },
    "diffrec": _NOISE | {"model.dims": (200, 600), "model.process.noise_min": 0.001},
    "ldiffrec": _NOISE | {
        "model.clusters": 1, "model.encoder_dims": (300,), "model.denoiser_dims": (300,),
        "model.process.noise_min": 0.005,
        "model.diffusion_epochs": 333,  # of 3 updates: RecBole's weight falls in 1,000
    },
}  # fmt: skip
SHARED = {
    "train.learning_rate": 1e-3, "train.optimizer": "adam", "eval.batch_size": 1024, "devices": 1,
    "seed": 0,
}  # fmt: skip


def measured(name: str, source: str, repeats: int) -> dict[str, Any]:
    """A system trained for its epochs, each timed, and evaluated a few times then. What is run
    first compiles, and counts in no median."""
    experiment = config.choose({"model": name, "data": source}).settings.experiment
    experiment = config.configure(experiment, SHARED | SETTINGS[name])
    subject = subjects.make(name, experiment, source)
    phase, settings = subject.phase, subject.phase.settings
    updates = programs.updates_of(
        partial(phases.model_of, phase), phase.batcher.example, subjects.optimizer_of(phase),
        settings.train, phase.mesh, "jit",
    )  # fmt: skip
    order_of = phase.batcher.order or programs.shuffle_of(
        settings.train, phase.batcher.num_examples
    )
    shuffle, judge = jax.jit(order_of), judging.ranker(phase, "test")
    train, data = updates.place(subject.train), updates.place(phase.batcher.train)
    key, shown = updates.place(streams.training(settings.seed)), streams.order(settings.seed)
    training, evaluating, order = [], [], np.zeros((0,))
    for epoch in range(EPOCHS[name]):
        start = time.process_time()
        order = updates.place(shuffle(jax.random.fold_in(shown, epoch)))
        for first in range(0, len(order), parallel.MOST_UPDATES):
            count = np.int32(min(parallel.MOST_UPDATES, len(order) - first))
            train, _ = updates.run(train, data, key, order, np.int32(first), count)
        jax.block_until_ready(train)
        training.append(time.process_time() - start)
    found: dict[str, float] = {}
    for _ in range(repeats + 1):
        start = time.process_time()
        found = judge(averaged(train), train.state, streams.evaluation(settings.seed)).metrics
        evaluating.append(time.process_time() - start)
    return {
        "epochs": EPOCHS[name],
        "updates": len(order),
        "users": phase.dataset.num_users,
        "items": phase.dataset.num_items,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(averaged(train))),
        "epoch_seconds": statistics.median(training[1:]),
        "evaluation_seconds": statistics.median(evaluating[1:]),
        "compile_seconds": training[0] + evaluating[0] - training[1] - evaluating[1],
        "ndcg@10": found["ndcg@10"],
        "hr@10": found["hr@10"],
    }


def written(lines: Path) -> None:
    """Lines of both sides as a file of results."""
    figures = [json.loads(line) for line in lines.read_text().splitlines()]
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")}
    for figure in figures:
        versions |= figure.pop("versions", {})
    head = {
        "command": "JAXREC_DATA=$JAXREC_DATA benchmarks/recbole.sh",
        "device": jax.devices()[0].device_kind,
        "platform": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": 1,
        "versions": versions,
        "commit": provenance.commit(),
        "seed": 0,
    }
    text = json.dumps(head, indent=1).removesuffix("\n}")
    rows = ",\n  ".join(map(json.dumps, figures))
    RESULTS.write_text(f'{text},\n "figures": [\n  {rows}\n ]\n}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?")
    parser.add_argument("--model", choices=SETTINGS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    if options.write:
        written(options.write)
        return
    found = measured(options.model, options.source, options.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    about = {"which": "ours", "model": options.model}
    print(json.dumps(about | found | {"peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()
