"""Small commands of every kind, each with what it leaves by value."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from tests.faults import harness


def write_clicks(path: Path, seed: int = 3) -> Path:
    """A table of 90 users and 24 items, every user a walk over the items."""
    draw = random.Random(seed)
    lines = ["user_id,item_id,timestamp"]
    for user in range(90):
        item, stride = draw.randrange(24), draw.randint(1, 3)
        for place in range(draw.randint(5, 9)):
            clock = 1000 + 50 * user + place
            lines.append(f"u{user:03d},i{(item + place * stride) % 24:02d},{clock}")
    path.write_text("\n".join(lines) + "\n")
    return path


class Job(NamedTuple):
    """A command that works in a folder which holds `clicks.csv`, and perhaps a trained `run`."""

    argv: Callable[[Path], list[str]]
    left: Callable[[Path], Any]  # what it left, by value
    needs: str = ""  # the job whose folder it starts from


_SMALL = ["--devices=1", "--data.max-len=8", "--eval.batch-size=128"]
_SIZES = {
    "mf": ["--model.width=8", "--train.batch-size=128", "--train.num-epochs=8"],
    "dreamrec": [
        "--model.width=8", "--model.num-steps=8", "--train.batch-size=64", "--train.num-epochs=5",
    ],
    "ddrm": [
        "--backbone=mf", "--backbone.model.width=8", "--model.num-steps=4",
        "--train.batch-size=128", "--train.num-epochs=3", "--backbone.train.batch-size=128",
        "--backbone.train.num-epochs=3",
    ],
    "diffuasr": [
        "--backbone=sasrec", "--model.denoiser=mlp", "--model.mlp-hidden=16",
        "--model.num-steps=24", "--backbone.model.width=8", "--model.width=8",
        "--train.batch-size=16", "--train.num-epochs=2", "--backbone.train.batch-size=64",
        "--backbone.train.num-epochs=2",
    ],
}  # fmt: skip


def _training(model: str, command: str = "train", *more: str) -> Callable[[Path], list[str]]:
    def argv(folder: Path) -> list[str]:
        where = [f"--data={folder / 'clicks.csv'}", f"--workdir={folder / 'run'}"]
        return [command, f"--model={model}", *where, *_SMALL, *_SIZES[model], *more]

    return argv


def asking(command: str, *words: str) -> Callable[[Path], list[str]]:
    def argv(folder: Path) -> list[str]:
        spelled = [word.format(folder=folder) for word in words]
        return [command, f"--workdir={folder / 'run'}", *spelled]

    return argv


_FIGURES = ("metrics", "best_step", "best_valid", "steps", "protocols", "controls")


def figures(folder: Path) -> Any:
    """The results of a run and its log, without times."""
    return results(folder), log(folder / "run")


def results(folder: Path) -> Any:
    found = json.loads((folder / "run" / "results.json").read_text())
    return {name: found.get(name) for name in _FIGURES}


def log(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for name in ("time", "examples_per_second"):
            line.pop(name)
    return lines


def evaluation(folder: Path) -> Any:
    found = json.loads((folder / "evaluation.json").read_text())
    return {name: found.get(name) for name in _FIGURES}


def _lists(name: str) -> Callable[[Path], Any]:
    return lambda folder: pq.read_table(folder / name).to_pydict()


def _text(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).read_text()


def exported(folder: Path) -> Any:
    """What an export serves with, by file; arrays by value."""
    out: dict[str, Any] = {}
    for path in sorted((folder / "served").iterdir()):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                out[path.name] = {name: arrays[name].tolist() for name in arrays}
        else:
            out[path.name] = path.stat().st_size
    return out


def searched(folder: Path) -> Any:
    best = json.loads((folder / "run" / "best.json").read_text())
    rows = [
        [line for line in log(path.parent)]
        for path in sorted((folder / "run" / "trials").glob("*/metrics.jsonl"))
    ]
    return best, rows


JOBS = {
    "train mf": Job(_training("mf"), figures),
    "train dreamrec": Job(_training("dreamrec"), figures),
    "train ddrm": Job(_training("ddrm"), figures),
    "train diffuasr": Job(_training("diffuasr"), figures),
    "tune mf": Job(_training("mf", "tune", "--trials=3"), searched),
    "evaluate": Job(
        asking("evaluate", "--output={folder}/evaluation.json"), evaluation, "train mf"
    ),
    "recommend parquet": Job(
        asking("recommend", "--output={folder}/top.parquet"), _lists("top.parquet"), "train mf"
    ),
    "recommend csv": Job(
        asking("recommend", "--output={folder}/top.csv", "--batch-size=16"),
        _text("top.csv"),
        "train mf",
    ),
    "export": Job(asking("export", "--output={folder}/served"), exported, "train dreamrec"),
    "augment": Job(
        asking("augment", "--output={folder}/longer.parquet", "--batch-size=16"),
        _lists("longer.parquet"),
        "train diffuasr",
    ),
    "convert": Job(
        lambda folder: [
            "convert", f"--data={folder / 'clicks.csv'}", f"--output={folder / 'out.parquet'}"
        ],
        _lists("out.parquet"),
    ),
}  # fmt: skip


class Done(NamedTuple):
    """A job that nothing befell."""

    folder: Path
    given: Path  # what it started from
    left: Any
    seconds: float
    operations: int  # file operations that wrote


_done: dict[str, Done] = {}


def undisturbed(name: str, base: Path) -> Done:
    """The job, run once below `base` with nothing in its way."""
    if name in _done:
        return _done[name]
    job, plain = JOBS[name], name.replace(" ", "-")
    given = base / f"{plain}-given"
    if job.needs:
        given = undisturbed(job.needs, base).folder
    elif not given.exists():
        write_clicks(harness.fresh(given) / "clicks.csv")
    folder = place(base, given)
    started = time.monotonic()
    ended = harness.run(job.argv(folder), folder, limit=300)
    seconds = time.monotonic() - started
    assert ended.code == 0, (name, ended.said)
    harness.expect(seconds)
    left = job.left(folder)
    kept = harness.fresh(base / f"{plain}-done", folder)
    _done[name] = Done(kept, given, left, seconds, ended.operations)
    return _done[name]


def place(base: Path, given: Path) -> Path:
    """A copy of a folder at the one place where commands run, since runs remember their data."""
    return harness.fresh(base / "here", given)
