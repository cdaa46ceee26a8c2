"""Why need DiffRec's noise not reach a normal, and does importance sampling of steps help?

    python benchmarks/ablate_diffrec.py --data=$JAXREC_DATA/ml-1m-clean [--epochs 30] [--seeds 1 2]

Trains the released settings with one thing changed and prints a json line a variant: how much noise
the last step has, where the reverse path starts, and test figures of the checkpoint that validation
picked. A path that starts at the observed row (T' = 0) loses nothing to noise that the forward
process never adds to it; one that starts at a normal knows no user.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.diffusion import forward, row_process
from jaxrec_diff.experiments import pipeline, runs

# name -> flags on top of the released settings
NOISE = {
    "released: variance 3.5e-5, from the row": [],
    "no noise": ["--model.process.noise-scale=0"],
    "variance 0.1, from the row": [
        "--model.process.noise-scale=1", "--model.process.noise-min=0.005",
        "--model.process.noise-max=0.1", "--model.process.fix-first=false",
    ],
    "variance 0.9, from the row": [
        "--model.process.noise-scale=1", "--model.process.noise-min=0.05",
        "--model.process.noise-max=0.9", "--model.process.fix-first=false",
    ],
    "variance 0.9, from its noisiest step": [
        "--model.process.noise-scale=1", "--model.process.noise-min=0.05",
        "--model.process.noise-max=0.9", "--model.process.fix-first=false",
        "--model.noise-steps=40",
    ],
    "cosine to a normal, from a normal": [
        "--model.process.schedule=cosine", "--model.process.fix-first=false",
        "--model.noise-steps=40",
    ],
}  # fmt: skip
IMPORTANCE = {
    "uniform steps": ["--model.process.draw=uniform"],
    "uniform steps and weights": [
        "--model.process.draw=uniform", "--model.process.weighting=uniform",
    ],
}  # fmt: skip


def run(data: str, name: str, flags: list[str], epochs: int, seed: int) -> dict:
    preset = config.preset("diffrec", "ml-1m-clean").experiment
    flags = [*flags, f"--seed={seed}", f"--train.num-epochs={epochs}"]
    experiment = config.parse(preset, flags)
    asked = runs.prepare("diffrec", experiment, data)
    with tempfile.TemporaryDirectory() as folder:
        found = pipeline.train(asked, Path(folder) / "run", log=lambda text: None)
    betas = row_process.betas(experiment.model.process)
    rest = [0.0] if betas is None else forward.one_minus_alphas_cumprod(betas)
    keep = ("best_step", "best_valid", "steps", "device", "versions", "commit")
    return {
        "variant": name,
        "flags": flags,
        "last_variance": float(rest[-1]),
        "seed": seed,
        **{f"test/{m}": found["metrics"][m] for m in ("recall@20", "ndcg@20")},
        **{key: found[key] for key in keep},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    for name, flags in (NOISE | IMPORTANCE).items():
        found = [run(options.data, name, flags, options.epochs, seed) for seed in options.seeds]
        for line in found:
            print(json.dumps(line), flush=True)
        mean = np.mean([line["test/recall@20"] for line in found])
        print(json.dumps({"variant": name, "mean_test/recall@20": float(mean)}), flush=True)


if __name__ == "__main__":
    main()
