"""What becomes of a flow's encoder under other laws of times and weights of its squared error.

    JAXREC_DATA=data python benchmarks/flow_laws.py [--workdir=runs/flow-laws]

Trains `flow` on ML-100K, a process each, under the paper's law and under laws near noise, and a
SASRec of the same size, epochs and seed. Keeps figures of both splits in
`benchmarks/results/ml-100k-flow-laws.json`; the best epoch is picked on validation. `without x_t`
is one call that sees the history alone: what the encoder has learnt.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "ml-100k-flow-laws.json"
DATA = "ml-100k/ml-100k.inter"
METRICS = ("hr@10", "ndcg@10")
_TRAIN = ("--train.num-epochs=20", "--eval.metric=ndcg@10", "--eval.ks=10,20", "--devices=1")
_MODE = ("--model.path.time-law=mode", "--model.path.time-scale=1", "--model.path.shift=1")
_NEAR = ("--model.path.time-law=logit_normal", "--model.path.time-scale=1")
ARMS = {
    "SASRec of the same size": ("--model=sasrec",),
    "mode, squared error 1": ("--model=flow", *_MODE, "--model.mse-weight=1"),
    "mode, squared error 0": ("--model=flow", *_MODE, "--model.mse-weight=0"),
    "logit-normal of mean 2, squared error .1": (
        "--model=flow", *_NEAR, "--model.path.time-mean=2", "--model.path.shift=10",
        "--model.mse-weight=0.1",
    ),
    "logit-normal of mean 4, squared error 1": (
        "--model=flow", *_NEAR, "--model.path.time-mean=4", "--model.path.shift=20",
        "--model.mse-weight=1",
    ),
    "logit-normal of mean 4, squared error .1": (
        "--model=flow", *_NEAR, "--model.path.time-mean=4", "--model.path.shift=20",
        "--model.mse-weight=0.1",
    ),
}  # fmt: skip
KEPT = ("device", "commit", "versions", "data_hash", "seed")


def train(flags: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Figures of one run, which is not trained again where it is finished."""
    asked = () if flags[0] == "--model=sasrec" else ("--eval.diffuses=true",)
    data = os.environ["JAXREC_DATA"]
    command = [flags[0], f"--data={data}/{DATA}", *flags[1:], *_TRAIN, *asked, "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "jaxrec_diff.cli", "train", *command, f"--workdir={folder}"],
        env=os.environ | {"JAXREC_REPORT": "0"},
        check=True,
    )
    found = json.loads((folder / "results.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    best = max(lines, key=lambda line: line["valid/ndcg@10"])
    ways = {
        way: {metric: row[metric] for metric in METRICS}
        for way, row in found.get("diffusion", {"rows": {}})["rows"].items()
    }
    return {
        "command": " ".join(["bin/train", *command]).replace(data, "$JAXREC_DATA"),
        "epochs": lines[-1]["epoch"],
        "best_epoch": best["epoch"],
        "train_cpu_seconds": round(found["cpu_seconds"], 1),
        "valid": {metric: best[f"valid/{metric}"] for metric in METRICS},
        "test": {metric: found["metrics"][metric] for metric in METRICS},
        "test_in_other_ways": ways,
    } | {key: found[key] for key in KEPT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/flow-laws"))
    options = parser.parse_args()
    arms: dict[str, Any] = {}
    for number, (name, flags) in enumerate(ARMS.items()):
        arms[name] = train(flags, options.workdir / str(number))
        print(name, arms[name]["valid"], flush=True)
    last = [*arms.values()][-1]
    about = {
        "question": "which law of times lets a flow's encoder learn? ML-100K, honest protocol",
        "command": "python benchmarks/flow_laws.py",
    } | {key: last[key] for key in KEPT}
    RESULTS.write_text(json.dumps(about | {"arms": arms}, indent=1) + "\n")


if __name__ == "__main__":
    main()
