"""What a run costs beside its updates: processor seconds of whole commands, cold and warm.

    python benchmarks/startup.py --before=6f8ec5b

Each command runs in a fresh cache folder, once cold and then warm; the warm figures are medians.
The first is an epoch on the synthetic data without its report, the second with it, the third a list
for one history. Programs are counted as XLA made them (`compiled`) or as the cache had them
(`cache_hits`). With --before the same commands run first from a clone at that commit. Figures go to
benchmarks/results/startup.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jaxrec_diff.experiments import provenance

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "startup.json"
_TRAIN = ("train", "--model=dimerec", "--train.num-epochs=1")
_FIGURES = ("processor_s", "wall_s", "compiled", "cache_hits")

# The command line's own entry, with what JAX says of its compilations counted beside it.
_COUNTED = """
import atexit, json, os, sys
from jax import monitoring
seen = {"programs": 0, "cache_hits": 0}
def event(name, **kwargs):
    seen["cache_hits"] += name == "/jax/compilation_cache/cache_hits"
def duration(name, seconds, **kwargs):
    seen["programs"] += name == "/jax/core/compile/backend_compile_duration"
monitoring.register_event_listener(event)
monitoring.register_event_duration_secs_listener(duration)
atexit.register(lambda: json.dump(seen, open(os.environ["COUNTS"], "w")))
from jaxrec_diff import cli
sys.exit(cli.main())
"""


def once(tree: Path, cache: Path, words: tuple[str, ...], report: bool) -> dict[str, float]:
    """One command of the checkout `tree`, to its end: `_FIGURES`."""
    counts = cache / "counts.json"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = kept | {
        "PYTHONPATH": str(tree),
        "XDG_CACHE_HOME": str(cache),
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "COUNTS": str(counts),
    }
    if not report:
        environment["JAXREC_REPORT"] = "0"
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _COUNTED, *words],
            cwd=cache, env=environment, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if child.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(words)} failed: {said.read().decode()[-2000:]}")
    seen = json.loads(counts.read_text())
    compiled = seen["programs"] - seen["cache_hits"]
    figures = (usage.ru_utime + usage.ru_stime, wall, compiled, seen["cache_hits"])
    return dict(zip(_FIGURES, figures, strict=True))


def measured(tree: Path, repeats: int) -> dict[str, Any]:
    """Every command of a checkout, cold and warm."""
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made:
        run = Path(made) / "run"

        def cold_and_warm(name: str, report: bool, words_of) -> None:
            cache = Path(made) / name
            cache.mkdir()
            cold, *warm = (
                once(tree, cache, words_of(number), report) for number in range(repeats + 1)
            )
            medians = {key: statistics.median(each[key] for each in warm) for key in _FIGURES}
            out[name] = {"cold": cold, "warm": medians}
            print(f"{name}: {out[name]}", file=sys.stderr, flush=True)

        def training(name: str):
            return lambda number: (*_TRAIN, f"--workdir={run}-{name}-{number}")

        cold_and_warm("train", False, training("train"))
        cold_and_warm("train_with_report", True, training("train_with_report"))
        asked = ("recommend", f"--workdir={run}-train-0", "--history=1,2,3")
        cold_and_warm("recommend", False, lambda number: asked)
    return out


def measured_at(commit: str, repeats: int) -> dict[str, Any]:
    """`measured` of a clone at a commit."""
    with tempfile.TemporaryDirectory() as made:
        clone = Path(made) / "clone"
        subprocess.run(["git", "clone", "-q", "--no-checkout", ROOT, clone], check=True)
        subprocess.run(["git", "-C", clone, "checkout", "-q", "--detach", commit], check=True)
        return {"commit": commit} | measured(clone, repeats)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", metavar="COMMIT", help="also measure a clone at this commit")
    parser.add_argument("--repeats", type=int, default=3, help="warm runs of each command")
    parser.add_argument("--json", action="store_true", help="print the figures as a json object")
    given = parser.parse_args()
    figures = {
        "command": " ".join(["python", *sys.argv]),
        "seed": 0,  # of the presets
        "device": jax.devices("cpu")[0].device_kind,
        "platform": f"{platform.machine()} {os.cpu_count()} cores",
        "versions": {
            name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")
        }
        | {"python": platform.python_version()},
        "commit": provenance.commit(),
        "repeats": given.repeats,
        "load": os.getloadavg()[0],  # of the machine before; more than 0 costs processor time too
    }
    if given.before:
        figures["before"] = measured_at(given.before, given.repeats)
    figures["now"] = measured(ROOT, given.repeats)
    OUTPUT.write_text(json.dumps(figures, indent=1) + "\n")
    if given.json:
        print(json.dumps(figures))
        return
    for name, runs in figures["now"].items():
        before = figures.get("before", {}).get(name)
        was = f", before {before['warm']['processor_s']:.1f}" if before else ""
        print(f"{name}: {runs['warm']['processor_s']:.1f} processor seconds warm{was}")


if __name__ == "__main__":
    main()
