"""What of ADRec matters? The same rows of a backbone, trained on in several ways.

    python benchmarks/probes_adrec.py WORKDIR [--output=FILE]

takes the backbone's arrays of a finished run of ADRec and trains ADRec on them anew, with one thing
changed at a time, under the run's other settings and seed. Of every way: figures of the test split,
those with nothing, another user's x_0 or the true one shown as x_t, and the shape of the table of
items that came of it (the mean length of rows, over how many directions they spread, and the mean
cosine of two of them), beside the backbone's own. Writes one json object.
"""

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.experiments import diffusing, exports, pipeline, provenance, restore, results, runs

_UNIT = {"model.lambda-scale": 1.0, "model.x0-scale": "unit"}
_RELEASED = {
    "model.freeze": "released", "train.optimizer": "adam_l2", "train.weight-decay": 1e-5,
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "lambda 0: no diffusion at all": {"model.lambda-scale": 0.0},
    "lambda 1": {"model.lambda-scale": 1.0},
    "lambda 1, rows of unit rms": _UNIT,
    "the same, one step for all places of a row": _UNIT | {"model.independent": False},
    "without the squared error": {"model.mse-weight": 0.0},
    "rows that drift while frozen, as released": _RELEASED,
}
METRICS = ("hr@10", "hr@20", "ndcg@10", "ndcg@20")
SHOWN = {
    diffusing.FULL: "all 32 steps",
    diffusing.WITHOUT: "without x_t",
    diffusing.STRANGER: "another user's x_0 shown",
    diffusing.ANSWER: "the true x_0 shown",
}


def kept(metrics: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{metrics[name]:.5g}") for name in METRICS}


def shape(rows: np.ndarray) -> dict[str, float]:
    """Of a table f32[I, D]: mean length, participation ratio (sum l)^2 / sum l^2 of the
    covariance's eigenvalues l, mean cosine over all pairs of rows."""
    exact = rows.astype(np.float64)
    length = np.linalg.norm(exact, axis=1)
    unit, count = exact / np.maximum(length, 1e-12)[:, None], len(exact)
    spread = np.linalg.eigvalsh(np.cov(exact.T))
    cosine = (np.square(unit.sum(axis=0)).sum() - count) / (count * (count - 1))
    found = {
        "mean_norm": length.mean(),
        "participation_ratio": spread.sum() ** 2 / np.square(spread).sum(),
        "mean_cosine": cosine,
    }
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def told(found: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """A way in a file."""
    metric, probes = found["diffusion"]["metric"], found["diffusion"]["rows"]
    return {
        "test": kept(found["metrics"]),
        "best_step": found["best_step"],
        "cpu_seconds": round(found["cpu_seconds"], 1),
        metric: {said: float(f"{probes[row][metric]:.5g}") for row, said in SHOWN.items()},
        "table": shape(rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    first = restore.reopen(options.workdir, ["--eval.diffuses=true"])
    arrays = exports.path(options.workdir, "backbone")
    rows, count = exports.read(arrays)["items"], first.dataset.num_items
    before = results.read(options.workdir / "results.json")
    table = np.asarray(restore.restore(first, options.workdir).params["items"])
    ways = {
        "the backbone alone": {
            "test": kept(before["diagnostics"]["backbone"]), "table": shape(rows)
        },
        "as it is": told(before, table[1 : count + 1]),
    }  # fmt: skip
    plain = replace(first.experiment, backbone=None, embeddings=str(arrays))
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in WAYS.items():
            fields = {field.replace("-", "_"): value for field, value in changes.items()}
            settings = config.configure(plain, fields)
            run = runs.prepare(first.name, settings, first.source, first.dataset)
            place = Path(folder) / str(len(ways))
            found = pipeline.train(run, place, log=lambda text: None)
            trained = np.asarray(restore.restore(run, place).params["items"])
            ways[name] = {"settings": changes, **told(found, trained[1 : count + 1])}
            print(name, json.dumps(ways[name]), flush=True)
    about = {name: before[name] for name in ("model", "dataset", "num_users", "data_hash")}
    about |= provenance.provenance("", first.experiment.seed, first.mesh)
    command = f"python benchmarks/probes_adrec.py {options.workdir.name}"
    text = json.dumps(
        {**about, "command": command, "run": before["command"], "ways": ways}, indent=1
    )
    text = text.replace(os.environ.get("JAXREC_DATA", "\0"), "$JAXREC_DATA")
    if options.output is None:
        print(text)
    else:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
