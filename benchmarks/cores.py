"""Two cores against one: updates and evaluations by one core, two threads, and two devices.

    python benchmarks/cores.py            # on a machine with two idle cores

runs `bin/benchmark train` and `evaluate` under `taskset`, a process each, and writes
`results/cores.json`, a line a point: `cores` and `devices`. One core counts processor time, two the
wall clock, so nothing else may run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
MODELS = ("sasrec", "dreamrec", "dimerec", "diffrec")
SIZES = "users:2000,items:3000,len:20"
WAYS = ((1, 1), (2, 1), (2, 2))  # cores, devices
KEPT = ("part", "model", "batch", "users", "items", "devices", "rate", "unit", "seconds",
        "processor", "load")  # fmt: skip


def points(part: str, cores: int, devices: int) -> list[dict[str, Any]]:
    """Lines of `bin/benchmark`."""
    words = ("benchmark", part, f"--model={','.join(MODELS)}", f"--shape={SIZES}",
             f"--devices={devices}", "--json", "--quiet")  # fmt: skip
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        ["taskset", "-c", ("0", "0,1")[cores - 1], sys.executable, "-m", "jaxrec_diff.cli", *words],
        env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    found: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    for part in ("train", "evaluate"):
        for cores, devices in WAYS:
            for line in points(part, cores, devices):
                about = {k: line[k] for k in ("device", "machine", "versions", "commit")}
                found.append({"cores": cores} | {k: line[k] for k in KEPT if k in line})
                print(json.dumps(found[-1]), flush=True)
    head = {"command": "python benchmarks/cores.py", "seed": 0} | about
    text = json.dumps(head, indent=1).removesuffix("\n}")
    rows = ",\n  ".join(map(json.dumps, found))
    (RESULTS / "cores.json").write_text(f'{text},\n "figures": [\n  {rows}\n ]\n}}\n')


if __name__ == "__main__":
    main()
