"""How fast is DiffRec against eager PyTorch, and does a large catalogue fit in memory?

    python benchmarks/diffrec.py [--repeats 3]            an epoch and a whole evaluation
    python benchmarks/diffrec.py --memory diffrec         peak memory at 110,000 x 180,000
    python benchmarks/diffrec.py --memory ldiffrec

Generated data of ml-1m-clean's shape, the settings released for it, the same parameters on both
sides. An epoch is 14 batches of 400 users; an evaluation ranks validation and test and computes
four metrics at four cut-offs. Prints a json line a measurement. Times are the process's, so pin one
thread:

    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
        taskset -c 0 python benchmarks/diffrec.py
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from dataclasses import replace
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import config as jaxrec_diff_config
from jaxrec_diff import layout
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.splits import Cuts, queries
from jaxrec_diff.diffusion import row_process
from jaxrec_diff.evaluation import config
from jaxrec_diff.evaluation import evaluator as evaluation_evaluator
from jaxrec_diff.experiments.provenance import commit
from jaxrec_diff.models import registry
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.ops import ragged
from jaxrec_diff.training import optim, parallel, state, step

KS = (10, 20, 50, 100)


def emit(**figures) -> dict:
    print(json.dumps(figures), flush=True)
    return figures


def generated(name: str, users: int, items: int, mean: float, spread: float) -> Dataset:
    """Rows of log-normal lengths over items of Zipf popularity, cut 70 / 20 / 10."""
    rng = np.random.default_rng(0)
    length = np.exp(rng.normal(0.0, spread, users))
    length = np.clip(length / length.mean() * mean, 10, items // 3).astype(np.int64)
    share = np.cumsum(1.0 / np.arange(10, items + 10) ** 0.8)
    owner = np.repeat(np.arange(users), length)
    item = np.searchsorted(share / share[-1], rng.random(len(owner)))
    owner, item = np.divmod(np.unique(owner * items + item), items)
    mixed = np.lexsort((rng.random(len(owner)), owner))
    flat = (item[mixed] + 1).astype(np.int32)
    bounds = np.searchsorted(owner, np.arange(users + 1))
    start, stop = bounds[:-1], bounds[1:]
    size = stop - start
    cuts = Cuts(start, start + (7 * size) // 10, start + (9 * size) // 10, stop)
    valid, valid_users = queries(flat, cuts.start, cuts.train_end, cuts.valid_end)
    test, test_users = queries(flat, cuts.start, cuts.valid_end, cuts.stop)
    user_items = ragged.make(flat, cuts.start, cuts.train_end, cuts.train_end)
    counts = np.bincount(
        np.concatenate([flat[a:b] for a, b in zip(cuts.start, cuts.train_end, strict=True)]),
        minlength=items + 1,
    )[1:]
    return Dataset(
        name=name, num_users=users, num_items=items, train=user_items, valid=valid, test=test,
        item_ids=np.arange(items), user_ids=np.arange(users), valid_users=valid_users,
        test_users=test_users, train_counts=counts, split="70/20/10", card={},
        synthetic_process=None, user_items=user_items,
    )  # fmt: skip


def spec_of(dataset: Dataset, **exports) -> DataSpec:
    return DataSpec(
        dataset.num_users, dataset.num_items, 50, dataset.train_counts, dataset.user_items, exports
    )


class Ours:
    """The library's own loop body and evaluator around a model."""

    def __init__(self, experiment, dataset: Dataset, spec: DataSpec):
        system = registry.system(experiment.model)
        self.experiment = experiment
        self.model = system.build(experiment.model, spec)
        self.batcher = registry.input_of(experiment.model).batcher(dataset, DataConfig())
        self.mesh, self.dataset, self.rules = layout.make_mesh(), dataset, system.official
        self.batch = experiment.train.batch_size
        optimizer = optim.make(experiment.train, 1000)

        def update(train, key, example):
            return step.update(self.model, optimizer, train, key, example)

        self.updates = parallel.jit_updates(update, self.batcher.example, self.mesh)
        self.data, self.key = self.updates.place((self.batcher.train, jax.random.key(0)))

        @jax.jit
        def initial(data):
            index = jnp.arange(self.batch, dtype=jnp.int32)
            example = self.batcher.example(data, index, index, jax.random.key(0))
            return state.create(self.model.init(jax.random.key(1), example), optimizer)

        self.train = self.updates.place(initial(self.data))

    def epoch(self, order: np.ndarray) -> float:
        """Updates on i32[steps, B] users; the mean loss."""
        count = len(order)
        self.train, reports = self.updates.run(
            self.train, self.data, self.key, self.updates.place(order.astype(np.int32)),
            np.int32(0), np.int32(count),
        )  # fmt: skip
        return float(reports.metrics["loss"].sum()) / count

    def evaluator(self, *splits: str, batch_size: int = 1024):
        parts = {"valid": self.dataset.valid, "test": self.dataset.test}
        return evaluation_evaluator.evaluate_splits(
            self.model,
            {
                split: evaluation_evaluator.split_of(
                    parts[split],
                    self.batcher.splits[split],
                    self.batcher.query,
                    self.rules,
                    alone=self.batcher.alone,
                )
                for split in splits
            },
            self.batcher.shared,
            self.batcher.query,
            self.mesh,
            config.EvalConfig(metric="recall@20", ks=KS, batch_size=batch_size),
            self.rules,
            self.dataset.train_counts,
            num_users=self.dataset.num_users,
            diagnose=False,
        )


def seconds(fn, repeats: int) -> tuple[float, float]:
    """(median, first) processor seconds; the first call compiles and is not in the median."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        fn()
        times.append(time.process_time() - start)
    return statistics.median(times[1:]), times[0]


def matmul_peak(repeats: int) -> float:
    """GFLOP/s of a product as large as the model's largest, [400, I] x [I, 600]."""
    x, w = jnp.ones((400, 2810)), jnp.ones((2810, 600))
    product = jax.jit(lambda x, w: x @ w)

    def run():
        for _ in range(50):
            jax.block_until_ready(product(x, w))

    return 50 * 2 * 400 * 2810 * 600 / seconds(run, repeats)[0] / 1e9


def speed(repeats: int) -> None:
    import scipy.sparse
    import torch
    import torch_diffrec

    torch.set_num_threads(1)
    experiment = jaxrec_diff_config.preset("diffrec", "ml-1m-clean").experiment
    dataset = generated("ml-1m-clean's shape", 5949, 2810, 96.0, 0.9)
    ours = Ours(experiment, dataset, spec_of(dataset))
    sizes = {split: int((part.stop - part.end).sum()) for split, part in
             (("valid", dataset.valid), ("test", dataset.test))}  # fmt: skip
    pairs = int((dataset.user_items.end - dataset.user_items.start).sum())
    emit(question="data", users=5949, items=2810, train=pairs, **sizes)

    dims, process = experiment.model.dims, experiment.model.process
    net = torch_diffrec.Net(2810, dims)
    torch_diffrec.load(net, jax.device_get(ours.train.params))
    diffusion = torch_diffrec.Diffusion(row_process.betas(process))
    rates = {"lr": experiment.train.learning_rate, "weight_decay": 0.0}
    optimizer = torch.optim.AdamW(net.parameters(), **rates)

    def sparse(starts, ends, users):
        row = np.repeat(users, ends - starts)
        column = np.concatenate(
            [dataset.test.items[a:b] - 1 for a, b in zip(starts, ends, strict=True)]
        )
        shape = dataset.num_users, dataset.num_items
        return scipy.sparse.csr_matrix((np.ones(len(row)), (row, column)), shape)

    rows = torch.tensor(
        sparse(dataset.user_items.start, dataset.user_items.end, np.arange(5949)).toarray(),
        dtype=torch.float32,
    )
    theirs = {}
    for split, part, users in (
        ("valid", dataset.valid, dataset.valid_users), ("test", dataset.test, dataset.test_users)
    ):  # fmt: skip
        truth: list[list[int]] = [[] for _ in range(5949)]
        for user, a, b in zip(users, part.end, part.stop, strict=True):
            truth[user] = (part.items[a:b] - 1).tolist()
        theirs[split] = sparse(part.start, part.end, users), truth

    def torch_evaluation():
        return {
            split: torch_diffrec.evaluate(net, diffusion, rows, mask, truth, KS, 400)
            for split, (mask, truth) in theirs.items()
        }

    both = ours.evaluator("valid", "test")
    alone = [ours.evaluator("valid"), ours.evaluator("test")]

    def our_evaluation():
        found = both(ours.train.params, ours.train.state, ours.key)
        return {name: each.metrics for name, each in found.items()}

    def two_passes():
        for run in alone:
            run(ours.train.params, ours.train.state, ours.key)

    # the same lists before anything is trained, hence the same figures
    ours_found, theirs_found = our_evaluation(), torch_evaluation()
    apart = max(
        abs(ours_found[split][f"{name}@{k}"] - values[at])
        for split, found in theirs_found.items()
        for name, values in found.items()
        for at, k in enumerate(KS)
    )
    emit(question="agreement", largest_difference_of_a_metric=apart)
    assert apart < 1e-3, apart

    eval_s, _ = seconds(our_evaluation, 3 * repeats)
    apart_s, _ = seconds(two_passes, 3 * repeats)
    torch_eval_s, _ = seconds(torch_evaluation, repeats)
    order = np.random.default_rng(1).permutation(5949)[: 14 * 400].reshape(14, 400)
    train_s, train_first = seconds(lambda: ours.epoch(order), 3 * repeats)
    torch_train_s, _ = seconds(
        lambda: torch_diffrec.train_epoch(net, diffusion, optimizer, rows, order), 2 * repeats
    )
    # The products forward, both gradients of each, and no gradient of the row.
    inner = sum(a * b for a, b in ((600, 200), (200, 600), (600, 2810)))
    flops = 14 * 2 * 400 * (2 * 2820 * 600 + 3 * inner)
    peak = matmul_peak(repeats)
    emit(question="epoch", which="jax", seconds=train_s, compile_s=train_first - train_s)
    emit(question="epoch", which="torch", seconds=torch_train_s)
    emit(question="evaluation", which="jax", seconds=eval_s)
    emit(question="evaluation", which="jax, a pass a split", seconds=apart_s)
    emit(question="evaluation", which="torch", seconds=torch_eval_s)
    emit(
        question="ratio",
        train=torch_train_s / train_s,
        evaluation=torch_eval_s / eval_s,
        matmul_peak_gflops=peak,
        train_share_of_matmul_peak=flops / train_s / 1e9 / peak,
        torch_share_of_matmul_peak=flops / torch_train_s / 1e9 / peak,
    )


def memory(name: str, updates: int = 4, ranked: int = 800) -> None:
    """Trains a few batches and ranks a few users at the size of Amazon-book's noisy files."""
    dataset = generated("amazon-book-noisy's shape", 110_000, 180_000, 29.0, 0.8)
    experiment = jaxrec_diff_config.preset(name, "amazon-book-noisy").experiment
    exports = {}
    if name == "ldiffrec":
        # sizes of the released clusters
        exports["clusters"] = (np.arange(180_000) >= 2833).astype(np.int32)
        experiment = replace(experiment, backbone=None)
    ours = Ours(experiment, dataset, spec_of(dataset, **exports))
    rng = np.random.default_rng(1)
    order = rng.permutation(110_000)[: updates * ours.batch].reshape(updates, -1)
    start = time.process_time()
    loss = ours.epoch(order)
    train_s = time.process_time() - start
    few = {split: part for split, part in (("valid", dataset.valid), ("test", dataset.test))}
    for split, part in few.items():
        few[split] = part._replace(
            start=part.start[:ranked], end=part.end[:ranked], stop=part.stop[:ranked]
        )
    ours.dataset = dataset._replace(**few)
    start = time.process_time()
    rank = ours.evaluator("valid", batch_size=400)
    found = rank(ours.train.params, ours.train.state, ours.key)["valid"].metrics
    eval_s = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux
    emit(
        question="memory",
        model=name,
        users=110_000,
        items=180_000,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(ours.train.params)),
        updates=updates,
        ranked_users=ranked,
        loss=loss,
        valid_recall_at_20=found["recall@20"],
        train_s_with_compile=train_s,
        evaluation_s_with_compile=eval_s,
        peak_gb=peak / 1e9,
        dense_matrix_gb=110_000 * 180_000 * 4 / 1e9,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", choices=["diffrec", "ldiffrec"])
    options = parser.parse_args()
    packages = ("jax", "jaxlib", "numpy") if options.memory else ("jax", "jaxlib", "torch", "numpy")
    emit(
        device=jax.devices()[0].device_kind,
        platform=f"{platform.machine()}, {os.cpu_count()} cores",
        versions={name: metadata.version(name) for name in packages},
        commit=commit(),
        seed=0,
        command="benchmarks/diffrec.py" + (f" --memory {options.memory}" * bool(options.memory)),
    )
    if options.memory:
        memory(options.memory)
    else:
        speed(options.repeats)


if __name__ == "__main__":
    main()
