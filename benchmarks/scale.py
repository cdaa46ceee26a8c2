"""A catalogue that no device holds: DimeRec on ten million items, and a hundred million on paper.

    python benchmarks/scale.py run          # 10 million x 64 on 8 virtual devices of this host
    python benchmarks/scale.py project --model=64    # 100 million x 64 on 64 devices, on paper
    python benchmarks/scale.py project --model=8

`run` trains with a sampled softmax and lazy Adam, the table and its moments split over the axis
`model`, and then lists the exact top 100 of every item for 1,000 users; ten users' lists are
compared with a plain product over the whole table. `project` compiles the same programs, and those
that it is compared with, for shapes that nothing is allocated for: also updates with a softmax over
all items, of these and of ten million on 8 devices. Megabytes a device are the arguments and the
temporary arrays of a compiled program (donated ones are counted once).
"""

import argparse
import json
import os
import platform
import resource
import sys
import time
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.benchmarking import hlo
from jaxrec_diff.evaluation import rank, topk
from jaxrec_diff.experiments import provenance
from jaxrec_diff.models import dimerec
from jaxrec_diff.models.contract import DataSpec, Model
from jaxrec_diff.models.dimerec import DimeRecConfig
from jaxrec_diff.training import checkpoint, optim, rows, state, step
from jaxrec_diff.training.config import BY_ROW, TrainConfig

DEVICES = {"run": 8, "project": 64}
RESULTS = Path(__file__).parent / "results"
TEN, LENGTH, K = 10_000_000, 20, 100
_STRETCH = 2**17  # rows of the table whose float64 scores are looked at together
TASTES, TASTE = 100, 1000  # a user likes one of so many stretches of so many items
CONFIG = DimeRecConfig(
    num_steps=10, beta_start=0.6, beta_stop=0.99, forward="vp_norm", temperature=0.1,
    positions="end", num_negatives=1000,
)  # fmt: skip
OPTIMIZERS = ("lazy_adam", "row_adagrad", "adam")


class Programs:
    """DimeRec's programs for one catalogue on one mesh."""

    def __init__(self, num_items: int, mesh: jax.sharding.Mesh, optimizer: str, **settings: Any):
        self.mesh, self.num_items = mesh, num_items
        config = replace(CONFIG, **settings)
        self.model: Model = dimerec.build(config, DataSpec(0, num_items, LENGTH))
        training = TrainConfig(optimizer=optimizer, learning_rate=1e-2)
        self.optimizer = optim.make(training, 1000, self.model.compact)
        self.take = rows.update if optimizer in BY_ROW else step.update

    def variables(self) -> Any:
        one = Sequences(
            jnp.ones((1, LENGTH), jnp.int32), jnp.ones(1, jnp.int32), jnp.ones(1), jnp.arange(1)
        )
        return self.model.init(jax.random.key(0), one)

    def initial(self) -> Any:
        return state.create(self.variables(), self.optimizer)

    def begun(self) -> Any:
        """The first state, what the optimizer keeps made when what drew the table is gone."""
        lies = layout.shardings(jax.eval_shape(self.variables), self.mesh)
        drawn = jax.block_until_ready(jax.jit(self.variables, out_shardings=lies)())
        make = jax.jit(
            lambda drawn: state.create(drawn, self.optimizer),
            donate_argnums=0, out_shardings=self.layouts(),
        )  # fmt: skip
        return jax.block_until_ready(make(drawn))

    def like(self) -> Any:
        """Shapes, dtypes and layout of a state."""
        shapes = jax.eval_shape(self.initial)
        return checkpoint.abstract(shapes, layout.shardings(shapes, self.mesh))

    def layouts(self) -> Any:
        return layout.shardings(jax.eval_shape(self.initial), self.mesh)

    def by_row(self) -> NamedSharding:
        return NamedSharding(self.mesh, P("data"))

    def update(self, train: Any, key: jax.Array, seq: jax.Array, target: jax.Array) -> Any:
        count = target.shape[0]
        example = Sequences(seq, target, jnp.ones(count), jnp.arange(count, dtype=jnp.int32))
        return self.take(self.model, self.optimizer, train, key, example)

    def lists(self, params: Any, key: jax.Array, seq: jax.Array) -> topk.Top:
        query = SequenceQuery(seq, jnp.arange(seq.shape[0], dtype=jnp.int32))
        drawn = rank.sample(self.model, params, (), key, query)
        return rank.top(drawn, k=K, seen=seq)

    def compiled_update(self, batch: int) -> Any:
        fn = jax.jit(self.update, donate_argnums=0, out_shardings=(self.layouts(), None))
        with jax.set_mesh(self.mesh):
            given = self.key(), *self.ids((batch, LENGTH), (batch,))
            return fn.lower(self.like(), *given).compile()

    def compiled_lists(self, users: int) -> Any:
        with jax.set_mesh(self.mesh):
            seq = self.ids((users, LENGTH))
            return jax.jit(self.lists).lower(self.like().params, self.key(), *seq).compile()

    def key(self) -> Any:
        shape = jax.eval_shape(lambda: jax.random.key(0))
        return jax.ShapeDtypeStruct((), shape.dtype, sharding=NamedSharding(self.mesh, P()))

    def ids(self, *shapes: tuple[int, ...]) -> list[Any]:
        return [jax.ShapeDtypeStruct(each, jnp.int32, sharding=self.by_row()) for each in shapes]


def megabytes(program: Any) -> dict[str, float]:
    memory = program.memory_analysis()
    sizes = {"argument": memory.argument_size_in_bytes, "temp": memory.temp_size_in_bytes}
    return {f"{name}_mb_a_device": round(size / 1e6, 1) for name, size in sizes.items()}


def cost(program: Any) -> dict[str, Any]:
    """What a device computes and is sent; of its operations, XLA counts the body of a loop once."""
    counted = program.cost_analysis() or {}
    text = program.as_text()
    moved = {name: size / 1e6 for name, size in hlo.collectives(text).items()}
    return {
        "gflops_a_device": round(counted.get("flops", 0) / 1e9, 2),
        "bytes_accessed_mb_a_device": round(hlo.count(text).bytes / 1e6, 1),
        "collective_mb_a_device": round(sum(moved.values()), 1),
        "collectives_mb": {name: round(size, 2) for name, size in sorted(moved.items())},
    }


def histories(count: int, num_items: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Users who like a stretch of the catalogue each: items i32[n, L + 1], and where it begins."""
    rng = np.random.default_rng(seed)
    first = 1 + rng.integers(0, TASTES, (count, 1)) * ((num_items - TASTE) // (TASTES - 1))
    return (first + rng.integers(0, TASTE, (count, LENGTH + 1))).astype(np.int32), first


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Trains and serves; every array of the catalogue's size is split over the devices."""
    mesh = layout.make_mesh(jax.devices(), model=given.model)
    made = Programs(given.items, mesh, "lazy_adam")
    start = time.perf_counter()
    update, lists = made.compiled_update(given.batch), made.compiled_lists(given.users)
    compile_s, train = time.perf_counter() - start, made.begun()
    put = partial(jax.device_put, device=made.by_row())
    key = jax.device_put(jax.random.key(given.seed), NamedSharding(mesh, P()))
    losses, at = [], (time.process_time(), time.perf_counter())
    for number in range(given.updates):
        items, _ = histories(given.batch, given.items, given.seed + 1 + number)
        train, metrics = update(train, key, put(items[:, :-1]), put(items[:, -1]))
        losses.append(float(metrics["loss"]))
    trained = time.process_time() - at[0], time.perf_counter() - at[1]
    items, first = histories(given.users, given.items, given.seed)
    seq = items[:, :-1]
    at = time.process_time(), time.perf_counter()
    found = jax.device_get(lists(train.params, key, put(seq)))
    served = time.process_time() - at[0], time.perf_counter() - at[1]
    liked = (found.items >= first) & (found.items < first + TASTE)
    return {
        "items": given.items,
        "width": CONFIG.width,
        "mesh": dict(mesh.shape),
        "compile_s": round(compile_s, 1),
        "training": {
            "batch": given.batch,
            "negatives": CONFIG.num_negatives,
            "updates": given.updates,
            "loss": [round(float(np.mean(part)), 4) for part in np.array_split(losses, 5)],
            "processor_s_an_update": round(trained[0] / given.updates, 3),
            "wall_s_an_update": round(trained[1] / given.updates, 3),
            **megabytes(update),
            **cost(update),
        },
        "serving": {
            "users": given.users,
            "k": K,
            "processor_s": round(served[0], 1),
            "wall_s": round(served[1], 1),
            "share_of_the_user's_taste": round(float(liked.mean()), 4),
            "users_compared_with_the_whole_table": compared(made, train.params, key, seq, found),
            **megabytes(lists),
            **cost(lists),
        },
        "process_peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }  # fmt: skip


def compared(made: Programs, params: Any, key: jax.Array, seq: np.ndarray, found: Any) -> int:
    """How many users' lists are those of a plain float64 product; all asked must be."""
    asked, best = 10, []
    query = SequenceQuery(jnp.asarray(seq[:asked]), jnp.arange(asked, dtype=jnp.int32))
    points = np.asarray(jax.jit(made.model.sample)(params, (), key, query), np.float64)
    for shard in params["items"].addressable_shards:
        stretch = np.asarray(shard.data)
        for start in range(0, len(stretch), _STRETCH):
            part = stretch[start : start + _STRETCH].astype(np.float64)
            ids = shard.index[0].start + start + np.arange(len(part))
            scores = points @ part.T
            for row, own in enumerate(seq[:asked]):
                scores[row, np.isin(ids, [0, *own]) | (ids > made.num_items)] = -np.inf
            place = np.argpartition(-scores, K, axis=1)[:, : K + 1]
            best.append((np.take_along_axis(scores, place, axis=1), ids[place]))
    scores, ids = (np.concatenate(each, axis=1) for each in zip(*best, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, : K + 1]
    scores, ids = (np.take_along_axis(each, order, axis=1) for each in (scores, ids))
    for row in range(asked):
        # neighbours within float32's rounding may stand in either order
        np.testing.assert_allclose(found.scores[row], scores[row, :K], atol=1e-5)
        sure = set(ids[row, scores[row] > scores[row, K] + 1e-6].tolist())
        assert sure <= set(found.items[row].tolist()), f"user {row}: {sure}"
    return asked


def project(given: argparse.Namespace) -> dict[str, Any]:
    """Compiles for `given.items` on a mesh of 64 devices; says what each would hold and send."""
    mesh, programs = layout.make_mesh(jax.devices(), model=given.model), []

    def add(what, program, made, batch, products=0.0):
        # of all devices, with the loops: a product of points and a table is 2 B I D operations
        every = products * 2 * batch * made.num_items * CONFIG.width / made.mesh.size
        formula = {"gflops_by_formula": round(every / 1e9, 1)} if products else {}
        about = {"program": what, "items": made.num_items, "batch": batch, **made.mesh.shape}
        programs.append(about | megabytes(program) | cost(program) | formula)
        print(json.dumps(programs[-1]), flush=True)

    for optimizer in OPTIMIZERS:
        made = Programs(given.items, mesh, optimizer)
        what = f"update, sampled softmax, {optimizer}"
        add(what, made.compiled_update(given.batch), made, given.batch)
    lists = made.compiled_lists(given.users)
    add(f"top {K} for {given.users} users", lists, made, given.users, products=1)
    few = layout.make_mesh(jax.devices()[:8], model=8)
    for items, batch, devices in ((given.items, given.batch, mesh), (TEN, 1024, few)):
        made = Programs(items, devices, "adam", negatives="full")
        # logits, the same again for their gradients, and these of both sides
        what = "update, softmax over all items, adam"
        add(what, made.compiled_update(batch), made, batch, products=4)
    return {
        "width": CONFIG.width,
        "negatives": CONFIG.num_negatives,
        "counting": "gflops_a_device counts the body of a loop once, gflops_by_formula all items; "
        "bytes and collectives count loops by their turns",
        "programs": programs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", choices=tuple(DEVICES))
    parser.add_argument("--items", type=int, default=0, help="10 and 100 million")
    parser.add_argument("--batch", type=int, default=0, help="1,024 and 8,192")
    parser.add_argument("--users", type=int, default=0, help="1,000 and 1,024")
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--model", type=int, default=8, help="size of the axis of this name")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES[given.question])
    big = given.question == "project"
    written = given.items == 0  # a smaller question only says what it found
    given.items = given.items or (10 * TEN if big else TEN)
    given.batch = given.batch or (8192 if big else 1024)
    given.users = given.users or (1024 if big else 1000)
    figures = {
        "command": " ".join(["python", *sys.argv]),
        "seed": given.seed,
        "device": f"cpu, {len(jax.devices())} virtual devices of one host",
        "platform": f"{platform.machine()} {os.cpu_count()} cores",
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "optax")}
        | {"python": platform.python_version()},
        "commit": provenance.commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    figures |= project(given) if big else run(given)
    name = "scale-projection.json" if big else "scale-10m.json"
    if big and (RESULTS / name).exists():  # the other mesh
        before = json.loads((RESULTS / name).read_text())
        about = ("program", "items", "data", "model")
        found = {tuple(each[name] for name in about) for each in figures["programs"]}
        others = [each for each in before["programs"] if tuple(map(each.get, about)) not in found]
        figures["programs"] += [each for each in others if "items" in each]
        figures["command"] = "; ".join(
            f"python benchmarks/scale.py project --model={model}"
            for model in sorted(
                each["model"] for each in figures["programs"] if "row_adagrad" in each["program"]
            )
        )
    if written:
        (RESULTS / name).write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
