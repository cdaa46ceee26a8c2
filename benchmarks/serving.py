"""Size of an exported model, and seconds from nothing to its first list, without this package.

    python benchmarks/serving.py --workdir=runs/dimerec-synthetic

A fresh process runs the README's lines (`python -P`, nothing cached), five times; the median and
what importing jax alone takes are printed as a json line.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxrec_diff.experiments import provenance, restore
from jaxrec_diff.inference import export


def seconds(code: str, folder: Path) -> float:
    start = time.perf_counter()
    environment = {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, env=environment, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    run = restore.reopen(given.workdir)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "serving"
        sizes = export.export(restore.restore(run, given.workdir), folder)
        text = (folder / "README.md").read_text()
        code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1] + "\nitems.block_until_ready()"
        cold = [seconds(code, folder) for _ in range(given.repeats)]
        jax_only = [seconds("import jax; jax.devices()", folder) for _ in range(given.repeats)]
    print(
        json.dumps(
            {"model": run.name, "items": run.dataset.num_items, "bytes": sizes,
             "cold_start_s": statistics.median(cold), "import_jax_s": statistics.median(jax_only)}
            | provenance.provenance("", run.experiment.seed, run.mesh)
            | {"command": " ".join(["python", *sys.argv])}
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
