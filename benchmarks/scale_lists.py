"""What exact top lists cost on one device and on a mesh of virtual ones.

    python benchmarks/scale_lists.py

Processor time of all threads for the top 51 of 100,000 items for 1,024 users, by the shape of the
mesh; megabytes a device are the arguments and the temporary arrays of the compiled program.

Eight shards cost a little more than one device, whose chunks are wider: on one core the best 51 of
12,512 scores for 1,024 users take .0425 seconds, eight times .34, and those of 25,024 take .065,
four times .26. Products cost the same, and lists of shards are merged in .011 seconds in all.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from jaxrec_diff.experiments import provenance

USERS, ITEMS, WIDTH, SEEN, K = 1024, 100_096, 64, 50, 51
OUTPUT = Path(__file__).parent / "results" / "scale-lists.json"
MESHES = ((1, 1), (8, 1), (2, 4), (1, 8))


def measure(data: int, model: int, repeats: int) -> dict:
    """One mesh, in a process that has as many devices."""
    import jax
    import numpy as np
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from jaxrec_diff.evaluation import topk

    rng = np.random.default_rng(0)
    points, table = (rng.normal(size=(n, WIDTH)).astype(np.float32) for n in (USERS, ITEMS))
    seen = rng.integers(0, ITEMS + 1, (USERS, SEEN)).astype(np.int32)
    mesh = jax.make_mesh(
        (data, model), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    args = [
        jax.device_put(array, NamedSharding(mesh, P(axis)))
        for array, axis in ((points, "data"), (table, "model"), (seen, "data"))
    ]

    def lists(points, table, seen):
        return topk.top(points, table, k=K, seen=seen)

    with jax.set_mesh(mesh):
        program = jax.jit(lists).lower(*args).compile()
    found = jax.block_until_ready(program(*args))
    cpu, wall = [], []
    for _ in range(repeats):
        at = time.process_time(), time.perf_counter()
        jax.block_until_ready(program(*args))
        cpu.append(time.process_time() - at[0])
        wall.append(time.perf_counter() - at[1])
    memory = program.memory_analysis()
    return {
        "data": data,
        "model": model,
        "processor_seconds": round(statistics.median(cpu), 3),
        "seconds": round(statistics.median(wall), 3),
        "argument_mb_a_device": round(memory.argument_size_in_bytes / 1e6, 1),
        "temp_mb_a_device": round(memory.temp_size_in_bytes / 1e6, 1),
        "sum_of_ids": int(np.asarray(found.items, np.int64).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--mesh", help="measure this one alone, DATA,MODEL")
    given = parser.parse_args()
    if given.mesh:
        data, model = map(int, given.mesh.split(","))
        print(json.dumps(measure(data, model, given.repeats)))
        return
    found = []
    for data, model in MESHES:
        flag = f"--xla_force_host_platform_device_count={data * model}"
        run = subprocess.run(
            [sys.executable, __file__, f"--mesh={data},{model}", f"--repeats={given.repeats}"],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found.append(json.loads(run.stdout.splitlines()[-1]))
        print(json.dumps(found[-1]))
    figures = {
        "command": " ".join(["python", *sys.argv]),
        "seed": 0,
        "device": "cpu, virtual devices of one host",
        "platform": f"{platform.machine()} {os.cpu_count()} cores",
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")}
        | {"python": platform.python_version()},
        "commit": provenance.commit(),
        "users": USERS,
        "items": ITEMS,
        "width": WIDTH,
        "k": K,
        "meshes": found,
    }
    OUTPUT.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
