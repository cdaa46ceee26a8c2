"""A run that is killed at random moments ends with the bits of one that is not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FLAGS = [
    "--model=dimerec",
    "--devices=1",
    "--data.synthetic.num-users=400",
    "--data.max-len=6",
    "--train.batch-size=64",
    "--train.num-epochs=60",
    "--train.patience=0",
    "--model.width=16",
    "--model.num-steps=5",
    "--model.negatives=full",
]


def start(workdir: Path, cache: Path) -> subprocess.Popen:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "jaxrec_diff.cli", "train", *FLAGS, f"--workdir={workdir}"]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
    )


@pytest.mark.slow
def test_ten_kills_change_no_bit(tmp_path):
    whole, killed, cache = tmp_path / "whole", tmp_path / "killed", tmp_path / "cache"
    process = start(whole, cache)
    assert process.wait() == 0, process.stderr.read()
    rng, log = random.Random(0), killed / "metrics.jsonl"

    def epochs():
        return log.read_text().count("\n") if log.exists() else 0

    for _ in range(10):
        # some epochs further, and then at any moment of the next one, a save under way included
        goal = epochs() + rng.randint(1, 3)
        process = start(killed, cache)
        while process.poll() is None and epochs() < goal:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.15))
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(killed, cache).wait() == 0
    results = [json.loads((d / "results.json").read_text()) for d in (whole, killed)]
    for key in ("metrics", "best_step", "steps", "best_valid", "protocols"):
        assert results[0][key] == results[1][key], key
    logs = [
        [json.loads(line) for line in (d / "metrics.jsonl").read_text().splitlines()]
        for d in (whole, killed)
    ]
    for one, other in zip(*logs, strict=True):
        for name in one:
            if name not in ("time", "examples_per_second"):
                assert one[name] == other[name], (name, one["step"])
