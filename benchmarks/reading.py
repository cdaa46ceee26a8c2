"""What memory does reading a text of many rows take?

    python benchmarks/reading.py [--rows 10000000] [--longest 5000] [--output FILE.json]

Generates a csv of text ids (hexadecimal user ids, one of them very long, item ids, ratings, unix
times) by a seed, reads it in one process, reads and splits it in another, and prints a json line:
seconds, the peak above what the imports take, the bytes of the columns' text, and what is left a
row.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_BLOCK = 100_000


def generate(path: Path, rows: int, longest: int, seed: int) -> int:
    """Writes the file; returns the bytes of its four columns' text."""
    rng = np.random.default_rng(seed)
    text = 0
    with path.open("w") as file:
        file.write("user_id,item_id,rating,timestamp\n")
        for first in range(0, rows, _BLOCK):
            count = min(_BLOCK, rows - first)
            users = rng.integers(0, max(rows // 20, 2), count)
            items = rng.zipf(1.3, count) % 100_000
            times = 1_500_000_000 + rng.integers(0, 10**8, count)
            lines = [
                f"u{user * 2654435761 % 2**32:08x},i{item},{1 + item % 5},{at}\n"
                for user, item, at in zip(
                    users.tolist(), items.tolist(), times.tolist(), strict=True
                )
            ]
            if first == 0:
                lines[7] = f"{'x' * longest},i1,5,1500000000\n"
            file.writelines(lines)
            text += sum(len(line) - 4 for line in lines)
    return text


def measure(path: str, what: str) -> dict:
    """Reads the file in this process, or reads and splits it."""
    import pyarrow.csv  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    from jaxrec_diff.data import load, sources
    from jaxrec_diff.data.config import DataConfig

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.monotonic()
    if what == "read":
        rows = len(sources.read(path, DataConfig()).tables["all"].users)
    else:
        rows = load.load(path, DataConfig()).card["filters"][0]["interactions"]
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"rows": rows, "seconds": round(seconds, 2), "peak_bytes": peak - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--longest", type=int, default=5000, help="letters of one id")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clicks.csv"
        text = generate(path, options.rows, options.longest, options.seed)
        found: dict = {"text_bytes": text}
        for what in ("read", "load"):
            command = [sys.executable, "-P", __file__, "--measure", str(path), what]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            each = json.loads(run.stdout.splitlines()[-1])
            beside = (each["peak_bytes"] - text) / each["rows"]
            found[what] = each | {"bytes_a_row_beside_text": round(beside, 1)}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    found |= {
        "command": " ".join(["python", "benchmarks/reading.py", *sys.argv[1:]]),
        "seed": options.seed,
        "longest_id": options.longest,
        "device": f"cpu, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "commit": commit.strip(),
    }
    print(json.dumps(found))
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
