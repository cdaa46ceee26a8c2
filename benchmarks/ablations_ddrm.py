"""What DDRM's parts are worth, each arm beside the backbone and the mean of a user's items.

    python benchmarks/ablations_ddrm.py --data=$JAXREC_DATA/ml-1m-noisy --workdir=runs/ddrm-arms

Two questions. Does the diffusion beat the mean item vector that it starts from, and does it need
its noise: the released levels, the same network without any chain, levels that drown the vector.
And does the shape of the item embedding matter: its scale, the length of its rows, its width. All
arms of a width share one LightGCN and have the same updates; each is picked on validation.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from jaxrec_diff import config
from jaxrec_diff.data.sources import dataset_name
from jaxrec_diff.experiments import pipeline, provenance, runs

RESULTS = Path(__file__).parent / "results"
SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")

# arm -> (width of the backbone, settings of the model)
ARMS: dict[str, tuple[int, dict]] = {
    "released levels": (64, {}),
    "no start noise": (64, {"start_noise": False}),
    "no chain": (64, {"num_steps": 1, "noise_max": 1e-4, "start_noise": False}),
    "levels from .001 to .5": (
        64, {"beta_fixed": False, "noise_scale": 1.0, "noise_min": 1e-3, "noise_max": 0.5},
    ),
    "reconstruction only": (64, {"reconstruction": 1.0}),
    "rows of length 1": (64, {"embedding": "unit_norm"}),
    "unit variance": (64, {"embedding": "unit_variance"}),
    "width 16": (16, {}),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", default=",".join(ARMS), help="names, separated by commas")
    parser.add_argument("--output", type=Path, default=RESULTS / "ddrm-ablations.json")
    given = parser.parse_args()
    name = dataset_name(given.data)
    base = config.preset("ddrm", name).experiment
    base = replace(
        base,
        seed=given.seed,
        model=replace(base.model, layers=None, extra_steps=0, dims=(200, 600)),
        train=replace(base.train, num_epochs=given.epochs, eval_every=1, patience=0),
    )
    rows = []
    for arm in given.arms.split(","):
        width, changed = ARMS[arm]
        phase = base.backbone
        phase = replace(phase, model=replace(phase.model, width=width))
        experiment = replace(base, model=replace(base.model, **changed), backbone=phase)
        trained = given.workdir / f"width-{width}" / "stages" / "backbone" / "export.npz"
        if trained.exists():
            experiment = replace(experiment, backbone=None, embeddings=str(trained))
            workdir = given.workdir / arm.replace(" ", "-")
        else:
            workdir = given.workdir / f"width-{width}"
        run = runs.prepare("ddrm", experiment, given.data)
        found = pipeline.train(run, workdir, log=lambda text: print(text, file=sys.stderr))
        controls = {name: found["diagnostics"][name] for name in ("backbone", "mean_item")}
        listed = {"ddrm": found["metrics"], **controls}
        row = {"arm": arm, "width": width, "changed": changed, "best_valid": found["best_valid"]}
        row["test"] = {k: {m: round(v[m], 5) for m in SHOWN} for k, v in listed.items()}
        print(json.dumps(row), flush=True)
        rows.append(row | {"best_step": found["best_step"], "steps": found["steps"]})
        shared = {"data": name, "epochs": given.epochs, "dims": base.model.dims, "arms": rows}
        of = provenance.provenance(run.command, run.experiment.seed, run.mesh) | {
            "command": "benchmarks/ablations_ddrm.py"
        }
        given.output.write_text(json.dumps(shared | of, indent=1) + "\n")


if __name__ == "__main__":
    main()
