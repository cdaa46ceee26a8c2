"""Seconds from nothing to the first lists: fresh processes, without and with compiled programs.

`cold` finds no program in the cache and compiles them all; `warm` finds them; `import jax` starts
JAX and its devices and nothing else.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxrec_diff import config
from jaxrec_diff.benchmarking import shapes, subjects
from jaxrec_diff.benchmarking.timing import Timing, summary
from jaxrec_diff.config import stored
from jaxrec_diff.experiments.runs import Run

_JAX = "import jax; jax.devices()"
_FIRST = "from jaxrec_diff.benchmarking import start; start.first_lists()"


def measured(run: Run, batch: int, repeats: int) -> Iterator[tuple[str, Timing]]:
    """Ways to start, and how long each takes, of all threads of the process."""
    asked: dict[str, object] = {
        "name": run.name,
        "source": run.source,
        "experiment": stored.to_json(run.experiment),
        "shape": None,
        "batch": batch,
    }
    if run.source == "shape":
        length = run.experiment.data.max_len
        asked["shape"] = [run.dataset.num_users, run.dataset.num_items, length]
    words = json.dumps(asked)
    yield "import jax", summary(*zip(*(_once(_JAX) for _ in range(repeats)), strict=True))
    with tempfile.TemporaryDirectory() as cache:
        yield "cold", summary(*((each,) for each in _once(_FIRST, words, cache)))
        warm = [_once(_FIRST, words, cache) for _ in range(repeats)]
    yield "warm", summary(*zip(*warm, strict=True))


def first_lists() -> None:
    """The whole of such a process: reads what is asked on stdin and makes one batch of lists."""
    asked = json.load(sys.stdin)
    like = config.preset(asked["name"], "synthetic").experiment
    experiment = stored.from_json(like, asked["experiment"])
    dataset = None
    if asked["shape"] is not None:
        dataset = shapes.dataset(shapes.Shape(*asked["shape"]), experiment.data)
    subject = subjects.make(asked["name"], experiment, asked["source"], dataset)
    call = subjects.ranked(subject, asked["batch"])
    with jax.set_mesh(call.mesh):
        jax.block_until_ready(call.fn(*call.args))


def _once(code: str, words: str = "", cache: str = "") -> tuple[float, float]:
    """Wall and processor seconds of a fresh process to its end.

    Raises:
      RuntimeError: if it fails.
    """
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as given:
        given.write(words.encode())
        given.seek(0)
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", code], env=environment, stdin=given, stdout=said,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise RuntimeError(f"a fresh process failed: {said.read().decode()[-2000:]}")
    return wall, usage.ru_utime + usage.ru_stime
