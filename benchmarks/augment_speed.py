"""How fast sequences are augmented, where the time goes, and SU-Net's forms.

    taskset -c 0,1 python benchmarks/augment_speed.py --users=22363 --items=12101 --rows=1024

One json line a point: users/s of the whole augmentation (noise, reverse path, rounding to items) at
N steps and a guidance, the share that rounding takes, processor seconds for all users, memory
beyond the arguments. Weights are random: no time depends on them. `--rows` users are measured, the
rest is in proportion (`measured_share` says how many were).
"""

import argparse
import json
import os
import platform
import subprocess
import time
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches.types import Prefixes, SequenceQuery
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation import rank
from jaxrec_diff.models import diffuasr
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.diffuasr import DiffuASRConfig
from jaxrec_diff.models.readers import Reader
from jaxrec_diff.nets.sunet import SUNet

LENGTH, WIDTH, HISTORY = 10, 64, 50


def seconds(run, *args, repeats=3):
    """(wall, processor) seconds of the fastest of a few calls, and of compiling."""
    start = time.perf_counter()
    compiled = jax.jit(run).lower(*args).compile()
    compile_s = time.perf_counter() - start
    found = []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(compiled(*args))
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = min(found[1:])
    return {
        "cpu_s": cpu, "wall_s": wall, "compile_s": compile_s,
        "temp_mib": compiled.memory_analysis().temp_size_in_bytes / 2**20,
    }  # fmt: skip


def augmentation(options, guidance, kind, steps, denoiser="sunet"):
    rng = np.random.default_rng(0)
    items = rng.normal(size=(options.items, WIDTH)).astype(np.float32)
    reader = Reader({"gain": np.float32(0.1)}, lambda p, x: p["gain"] * x.sum(axis=1))
    spec = DataSpec(
        options.users, options.items, HISTORY, exports={"items": items}, prefix_len=LENGTH,
        reader=reader,
    )  # fmt: skip
    settings = DiffuASRConfig(
        guidance=guidance, denoiser=denoiser, channels=options.channels,
        sampler=SamplerConfig(kind=kind, steps=steps),
    )  # fmt: skip
    model = diffuasr.build(settings, spec)
    rows = options.rows
    seq = jnp.asarray(rng.integers(1, options.items + 1, (rows, HISTORY)), jnp.int32)
    query = SequenceQuery(seq, jnp.arange(rows, dtype=jnp.int32))
    example = Prefixes(seq[:2, :LENGTH], seq[:2], jnp.ones(2), jnp.arange(2))
    params, state = jax.jit(model.init)(jax.random.key(0), example)
    key = jax.random.key(1)

    def whole(params, state, query):
        return rank.nearest(rank.sample(model, params, state, key, query))

    def rounding(points, state):
        return rank.nearest(rank.Drawn(points, model.head(params, state)))

    points = jnp.asarray(rng.normal(size=(rows, LENGTH, WIDTH)), jnp.float32)
    found = seconds(whole, params, state, query, repeats=options.repeats)
    alone = seconds(rounding, points, state, repeats=options.repeats)
    factor = options.users / rows
    return {
        "what": "augmentation", "guidance": guidance, "denoiser": denoiser, "sampler": kind,
        "steps": steps, "channels": options.channels, **found,
        "users_per_cpu_s": rows / found["cpu_s"], "all_users_cpu_s": factor * found["cpu_s"],
        "rounding_share": alone["cpu_s"] / found["cpu_s"], "measured_share": 1 / factor,
    }  # fmt: skip


def forms(options):
    """The network with small pictures as matrices and wide ones in tiles against convolutions."""
    x = jnp.asarray(
        np.random.default_rng(0).normal(size=(options.rows, LENGTH, WIDTH)), jnp.float32
    )
    t, cond = jnp.zeros(options.rows, jnp.int32), x[:, 0]
    for dense_side, tile_channels in ((0, 0), (1, 0), (2, 0), (2, 32)):
        form = {"dense_side": dense_side, "tile_channels": tile_channels}
        net = SUNet(channels=options.channels, **form)
        params = jax.jit(net.init)(jax.random.key(0), x[:1], t[:1], cond[:1])
        found = seconds(net.apply, params, x, t, cond, repeats=options.repeats)
        yield {"what": "sunet", **form, "channels": options.channels, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=22_363)
    parser.add_argument("--items", type=int, default=12_101)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--parts", nargs="+", default=("forms", "free", "classifier", "solver"))
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
    ).stdout.strip()
    about = {
        "device": jax.devices()[0].device_kind,
        "platform": f"{platform.machine()} {os.cpu_count()} cores",
        "cores_allowed": len(os.sched_getaffinity(0)),
        "jax": metadata.version("jax"), "commit": commit, "rows": options.rows,
        "items": options.items, "users": options.users,
    }  # fmt: skip
    points = {
        "free": ("classifier_free", "ddim", 20),
        "classifier": ("classifier", "ddim", 20),
        "unguided": ("none", "ddim", 20),
        "solver": ("classifier_free", "dpmpp", 10),
    }
    for part in options.parts:
        lines = forms(options) if part == "forms" else [augmentation(options, *points[part])]
        for line in lines:
            print(json.dumps(line | about), flush=True)


if __name__ == "__main__":
    main()
