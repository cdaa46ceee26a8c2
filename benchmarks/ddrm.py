"""How fast is DDRM's evaluation with its metrics against eager PyTorch?

    python benchmarks/ddrm.py [--repeats 3]

Generated data of ml-1m-noisy's shape, the settings released for LightGCN on it (62 calls of the
item side's network a user) on tables of untrained vectors, the same parameters on both sides. An
evaluation ranks validation and test and computes four metrics at four cut-offs. There are two
peers: the released program's way, and the same with the graph walked once, means by one product and
scores as a product. Prints a json line a measurement. Times are the process's, so pin one thread:

    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
        taskset -c 0 python benchmarks/ddrm.py
"""

import argparse
import os
import platform
from dataclasses import replace
from importlib import metadata

import jax
import numpy as np
import scipy.sparse
import torch
import torch_ddrm
import torch_diffrec
from diffrec import KS, Ours, emit, generated, seconds, spec_of

from jaxrec_diff import config
from jaxrec_diff.benchmarking.peak import measured
from jaxrec_diff.experiments.provenance import commit
from jaxrec_diff.models import ddrm
from jaxrec_diff.ops import graph

USERS, ITEMS, WIDTH, BATCH = 5949, 3494, 64, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    emit(
        device=jax.devices()[0].device_kind,
        platform=f"{platform.machine()}, {os.cpu_count()} cores",
        versions={name: metadata.version(name) for name in ("jax", "jaxlib", "torch", "numpy")},
        commit=commit(),
        seed=0,
        command=f"benchmarks/ddrm.py --repeats {options.repeats}",
    )
    dataset = generated("ml-1m-noisy's shape", USERS, ITEMS, 104.0, 0.9)
    experiment = config.preset("ddrm", "ml-1m-noisy").experiment
    rng = np.random.default_rng(2)
    tables = {
        name: rng.normal(0.0, 0.1, (count, WIDTH)).astype(np.float32)
        for name, count in (("ego_users", USERS), ("ego_items", ITEMS))
    }
    tables |= {side: tables[f"ego_{side}"] for side in ("users", "items")}
    spec = spec_of(dataset, **tables)
    ours = Ours(experiment, dataset, spec)
    emit(question="data", users=USERS, items=ITEMS, edges=int(dataset.train_counts.sum()))

    model = torch_ddrm.DDRM(WIDTH, experiment.model)
    torch_ddrm.load(model, jax.device_get(ours.train.params))
    sets = graph.item_sets(dataset.user_items, ITEMS)
    frozen = torch_ddrm.Frozen(
        torch.from_numpy(tables["ego_users"]),
        torch.from_numpy(tables["ego_items"]),
        torch_ddrm.adjacency(sets, ITEMS),
        experiment.model.layers,
        np.split(sets.members, sets.start[1:-1]),
    )

    def theirs(listed):
        """Metrics of both splits from a function of the mask."""
        return {
            split: torch_diffrec.metrics(truth, listed(mask), KS)
            for split, (mask, truth) in asked.items()
        }

    asked = {
        "valid": _asked(dataset, dataset.valid, dataset.valid_users),
        "test": _asked(dataset, dataset.test, dataset.test_users),
    }
    vectors = tuple(map(torch.from_numpy, ddrm.vectors(experiment.model, spec)))
    ways = {
        "torch, as released": lambda: theirs(
            lambda mask: torch_ddrm.as_released(model, frozen, mask, max(KS), BATCH)
        ),
        "torch": lambda: theirs(
            lambda mask: torch_ddrm.recommend(model, vectors, mask, max(KS), BATCH)
        ),
    }
    both = ours.evaluator("valid", "test", batch_size=experiment.eval.batch_size)

    def jax_evaluation():
        found = both(ours.train.params, ours.train.state, ours.key)
        return {name: each.metrics for name, each in found.items()}

    _agreement(replace(experiment.model, start_noise=False), dataset, spec, ours, model, asked,
               vectors)  # fmt: skip
    found = {"jax": seconds(jax_evaluation, 2 * options.repeats)[0]}
    for name, way in ways.items():
        found[name] = seconds(way, options.repeats)[0]
    for name, took in found.items():
        emit(question="evaluation", which=name, seconds=took)
    calls = 2 * USERS * model.calls * sum(p.numel() for p in model.item.parameters())
    peak = measured("cpu", processor_clock=True).flops
    emit(
        question="ratio",
        **{f"over {name}": found[name] / found["jax"] for name in ways},
        matmul_peak_gflops=peak / 1e9,
        share_of_matmul_peak=calls / found["jax"] / peak,
    )


def _asked(dataset, part, users):
    """What a split masks, sparse, and what it wants of every user."""
    row = np.repeat(users, part.end - part.start)
    column = np.concatenate(
        [part.items[a:b] - 1 for a, b in zip(part.start, part.end, strict=True)]
    )
    shape = dataset.num_users, dataset.num_items
    mask = scipy.sparse.csr_matrix((np.ones(len(row)), (row, column)), shape)
    truth: list[list[int]] = [[] for _ in range(dataset.num_users)]
    for user, a, b in zip(users, part.end, part.stop, strict=True):
        truth[user] = (part.items[a:b] - 1).tolist()
    return mask, truth


def _agreement(settings, dataset, spec, ours, model, asked, vectors) -> None:
    """The same lists where the start is not noised, hence the same figures."""
    quiet = Ours(replace(ours.experiment, model=settings), dataset, spec)
    rank = quiet.evaluator("valid", "test")
    found = rank(ours.train.params, ours.train.state, ours.key)
    noised, model.start_noise = model.start_noise, False
    apart = 0.0
    for split, (mask, truth) in asked.items():
        listed = torch_ddrm.recommend(model, vectors, mask, max(KS), BATCH)
        for name, values in torch_diffrec.metrics(truth, listed, KS).items():
            for at, k in enumerate(KS):
                apart = max(apart, abs(found[split].metrics[f"{name}@{k}"] - values[at]))
    model.start_noise = noised
    emit(question="agreement", largest_difference_of_a_metric=apart)
    assert apart < 1e-3, apart


if __name__ == "__main__":
    main()
