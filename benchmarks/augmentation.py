"""What generated items are worth to a recommender that is trained on them.

    python benchmarks/augmentation.py --data=$JAXREC_DATA/amazon-beauty/interactions.parquet \\
        --out=runs/augmentation --name=beauty-augmentation
    python benchmarks/augmentation.py --data=synthetic --out=runs/aug --seeds 0 --name=try \\
        --train.num-epochs=20 --backbone.train.num-epochs=10

Trains {sasrec, bert4rec} on {none, random, random_seq, asrep, diffuasr_cg, diffuasr_cf} and writes
`benchmarks/results/NAME.json`: HR and NDCG of all, short, medium and long users, among all items
and among 101 with fixed negatives, means and deviations over seeds, and the items' quality. Every
copy of the data is judged on the same users and the same candidates. Dotted flags are those of
`bin/train --model=diffuasr`. The file is written after every cell, seed by seed, and a part that
is finished is not run again. `--methods diffuasr_cf diffuasr_cg diffuasr_unguided diffuasr_mlp
diffuasr_no_skip` is the ablation of guidance and of SU-Net.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.augmentation import baselines, quality
from jaxrec_diff.data import views
from jaxrec_diff.data.sources import dataset_name
from jaxrec_diff.experiments import exports, pipeline, restore, runs, workdirs
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.models import registry

RESULTS = Path(__file__).parent / "results"
BACKBONES = ("sasrec", "bert4rec")
METHODS = ("none", "random", "random_seq", "asrep", "diffuasr_cg", "diffuasr_cf")
GENERATORS: dict[str, dict[str, Any]] = {
    "diffuasr_cg": {"guidance": "classifier"},
    "diffuasr_cf": {"guidance": "classifier_free"},
    # ablations: no guidance, and a plain network of SU-Net's cost
    "diffuasr_unguided": {"guidance": "none"},
    "diffuasr_mlp": {"guidance": "classifier_free", "denoiser": "mlp"},
    # x_t has to find its own way through SU-Net, as in the paper
    "diffuasr_no_skip": {"guidance": "classifier_free", "input_skip": False},
}
# Units of the plain network that multiplies as often as SU-Net of so many channels, for M = 10 and
# d = 64: two hidden layers of h cost h^2 + 1408 h.
EQUAL_COST = {8: 709, 16: 1800, 32: 4096}


def log(text: str) -> None:
    print(text, flush=True)


def settings(backbone: str, source: str, seed: int, flags: list[str]) -> config.Experiment:
    """DiffuASR's settings on a backbone that is judged in both protocols."""
    dataset = dataset_name(source)
    made = config.preset("diffuasr", dataset).experiment
    made = config.with_backbone(made, backbone, dataset)
    if backbone == "sasrec":  # as the paper trains it; BERT4Rec has this loss alone
        phase = replace(made.backbone, model=replace(made.backbone.model, loss="bce"))
        made = replace(made, backbone=phase)
    made = config.parse(made, flags)
    phase = replace(made.backbone, eval=replace(made.backbone.eval, candidates=100))
    return replace(made, backbone=phase, seed=seed)


def raw_run(made: config.Experiment, backbone: str, source: str) -> Run:
    """The backbone of the settings as a run of its own."""
    phase = made.backbone
    alone = replace(made, model=phase.model, train=phase.train, eval=phase.eval, backbone=None)
    return runs.prepare(backbone, alone, source)


def prefix_of(method: str, raw: Run, folder: Path) -> np.ndarray:
    """Items of a control, i32[U, M]."""
    data, seed = raw.dataset, raw.experiment.seed
    length = raw.experiment.data.prefix_len
    if method == "random":
        return baselines.uniform(data.user_items, data.num_items, length, seed)
    if method == "random_seq":
        return baselines.resampled(data.user_items, length, seed)
    one_answer = replace(raw.experiment, eval=replace(raw.experiment.eval, candidates=0))
    backwards = views.backwards(data, raw.experiment.data)
    turned = runs.prepare("backwards", one_answer, raw.source, backwards)
    pipeline.train(turned, folder / "backwards", log=log)
    trained = restore.restore(turned, folder / "backwards")
    return baselines.recommended(
        trained.model, trained.params, trained.state, data.user_items, length,
        max_len=raw.experiment.data.max_len, batch_size=raw.experiment.eval.batch_size,
    )  # fmt: skip


def share(raw: Run, folder: Path) -> None:
    """Leaves in the raw run what a generator starts from: all of a seed's start from the same."""
    pipeline.train(raw, folder, log=log)
    trained = restore.restore(raw, folder)
    settings = raw.experiment.model
    export = registry.system(settings).export
    arrays = export(settings, trained.phase.spec, trained.params, trained.state)
    exports.write(folder / "export.npz", arrays)


def run(backbone: str, method: str, source: str, seed: int, folder: Path, flags: list[str]):
    """The results of one cell."""
    made = settings(backbone, source, seed, flags)
    raw = raw_run(made, backbone, source)
    home = folder / f"{backbone}-seed{seed}"
    if method == "none":
        return pipeline.train(raw, home / "none", log=log)
    if method in GENERATORS:
        model = replace(made.model, **GENERATORS[method])
        if model.denoiser == "mlp" and model.channels in EQUAL_COST:
            model = replace(model, mlp_hidden=EQUAL_COST[model.channels])
        generating = runs.prepare("diffuasr", replace(made, model=model), source)
        own = home / method / "stages" / "backbone"
        if not own.exists():
            workdirs.create(generating, home / method)
            own.parent.mkdir(parents=True, exist_ok=True)
            share(raw, home / "none")
            own.symlink_to((home / "none").resolve(), target_is_directory=True)
        return pipeline.train(generating, home / method, log=log)
    prefix = prefix_of(method, raw, home)
    longer = views.longer(raw.dataset, prefix)
    augmented = runs.prepare(f"{backbone}+{method}", raw.experiment, source, longer)
    results = pipeline.train(augmented, home / method, log=log)
    user_items, counts = raw.dataset.user_items, raw.dataset.train_counts
    return results | {"generated": quality.quality(prefix, user_items, counts)}


def mean_of(cells: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([cell[name] for cell in cells]))


def spread(values: list[float]) -> list[float | None]:
    """Mean and deviation; one value has none."""
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None]


def summed(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of every figure over seeds."""
    first = cells[0]
    out: dict[str, Any] = {
        "seeds": len(cells),
        "commits": sorted({cell["commit"] for cell in cells}),
        "train_seconds": mean_of(cells, "train_seconds"),
    }
    for protocol, groups in first["groups"].items():
        out[protocol] = {}
        for group in groups:
            figures = [cell["groups"][protocol][group] for cell in cells]
            out[protocol][group] = {name: spread([f[name] for f in figures]) for name in figures[0]}
    generated = [cell["generated"] for cell in cells if "generated" in cell]
    if generated:
        out["generated"] = {name: mean_of(generated, name) for name in generated[0]}
    return out


def table(found: dict[str, Any], protocol: str, metric: str) -> str:
    lines = [f"{metric}, {protocol}", " " * 24 + "".join(f"{g:>10}" for g in
             ("all", "short", "medium", "long"))]  # fmt: skip
    for name, cell in found.items():
        groups = cell[protocol]
        cells = "".join(
            f"{groups[g][metric][0]:10.4f}" if g in groups else f"{'-':>10}"
            for g in ("all", "short", "medium", "long")
        )
        lines.append(f"{name:<24}{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--out", type=Path, default=Path("runs/augmentation"))
    parser.add_argument("--name", required=True, help="of the results file")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, choices=BACKBONES)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices={*METHODS, *GENERATORS})
    options, flags = parser.parse_known_args()
    started, cells, path = time.time(), {}, RESULTS / f"{options.name}.json"
    kept = ("device", "platform", "versions", "commit", "data_hash", "dataset")
    RESULTS.mkdir(exist_ok=True)
    for seed in options.seeds:
        for backbone in options.backbones:
            for method in options.methods:
                log(f"== {backbone} {method} seed {seed}")
                last = run(backbone, method, options.data, seed, options.out, flags)
                cells.setdefault(f"{backbone} {method}", []).append(last)
                results = {
                    "command": " ".join(["python", *sys.argv]),
                    "seeds": options.seeds,
                    "wall_seconds": time.time() - started,
                    **{name: last[name] for name in kept},
                    "cells": {name: summed(found) for name, found in cells.items()},
                }
                path.write_text(json.dumps(results, indent=1) + "\n")
    for protocol in ("full", "among_101"):
        for metric in ("hr@10", "ndcg@10"):
            log(table(results["cells"], protocol, metric))
    log(f"figures are in {path}")


if __name__ == "__main__":
    main()
