"""How few reverse steps does a trained DiffuRec need? A finished run, official rules.

    python benchmarks/diffurec_steps.py --workdir runs/diffurec-ml-1m

All steps with lambda drawn at every step (released) or at its mean, then few steps, and one step
with no diffusion input at all. A json line each; ratios are against all steps at the mean.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from jaxrec_diff.experiments import judging, phases, provenance, restore, runs, workdirs
from jaxrec_diff.training.state import averaged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--few", type=int, nargs="+", default=[4, 2, 1])
    options = parser.parse_args()
    name, source, stored = workdirs.read_config(options.workdir)
    stored = replace(stored, devices=1, eval=replace(stored.eval, protocol="official"))
    (phase,) = runs.prepare(name, stored, source).phases
    train = restore.best_of(phase, options.workdir)
    print(
        json.dumps(
            {
                "command": " ".join(["benchmarks/diffurec_steps.py", *sys.argv[1:]]),
                "run": json.loads((options.workdir / "results.json").read_text())["command"],
                "device": jax.devices()[0].device_kind,
                "commit": provenance.commit(),
                "steps_trained": int(train.step),
            }
        ),
        flush=True,
    )
    model = stored.model

    def steps(count):
        return {"sampler": replace(model.sampler, steps=count), "lambda_draw": "mean"}

    arms = {
        "all steps, mean lambda": steps(0),
        "all steps, lambda a step": steps(0) | {"lambda_draw": "per_step"},
        **{f"steps {few}, mean lambda": steps(few) for few in options.few},
        "steps 1, lambda 0": steps(1) | {"lambda_mean": 0.0, "lambda_std": 0.0},
    }
    full = None
    for arm, changes in arms.items():
        chosen = replace(stored, model=replace(model, **changes))
        rank = judging.ranker(phases.changed(phase, settings=chosen), "test")
        found = [rank(averaged(train), train.state, jax.random.key(draw)) for draw in range(2)]
        metrics = {
            key: float(np.mean([one.metrics[key] for one in found])) for key in found[0].metrics
        }
        full = full or metrics
        print(
            json.dumps(
                {
                    "arm": arm,
                    "metrics": metrics,
                    "between_draws": abs(found[0].metrics["ndcg@10"] - found[1].metrics["ndcg@10"]),
                    "ndcg@10_ratio": metrics["ndcg@10"] / full["ndcg@10"],
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
