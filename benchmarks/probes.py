"""One trained model, asked in several ways of its own: another start, sampler, guidance, scoring.

    python benchmarks/probes.py WORKDIR [--output=FILE]

Evaluates the best checkpoint of a workdir on its test split in the ways that stand below for its
system, and says how far the top-ten lists of each are those of the first one. Writes one json
object. What every system is asked is `--eval.diffuses=true`.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.evaluation import lists
from jaxrec_diff.experiments import judging, provenance, restore
from jaxrec_diff.ops import streams

_NOISE = ("--model.start=noise",)
_PREFERDIFF = {
    "x_T drawn": _NOISE,
    "x_T drawn again": (*_NOISE, "--seed=1234"),
    "one call at T - 1 from noise": (*_NOISE, "--model.sampler.kind=one_step"),
    "5 ddim steps": ("--model.sampler.steps=5",),
    "the released step numbers": ("--model.network-t=official",),
    "w = 0": ("--model.guidance-weight=0",),
    "w = 1": ("--model.guidance-weight=1",),
    "w = 4": ("--model.guidance-weight=4",),
    "w = 8": ("--model.guidance-weight=8",),
    "cosine scores": ("--model.score=cos",),
}


def _path(kind: str, steps: int = 0, *more: str) -> tuple[str, ...]:
    return (f"--model.sampler.kind={kind}", f"--model.sampler.steps={steps}", *more)


_PATHS = {
    "another draw": ("--seed=1234",),
    "one call at t = 1": _path("one_step"),
    "4 Euler steps": _path("ddim", 4),
    "30 Euler steps": _path("ddim", 30),
    "4 Heun steps": _path("heun", 4),
    "4 DPM-Solver++ steps": _path("dpmpp", 4),
    "the released loop, 30": _path("fixed_noise", 30),
}
WAYS: dict[str, dict[str, tuple[str, ...]]] = {
    "preferdiff": _PREFERDIFF,
    "flow": _PATHS | {"4 ancestral steps": _path("ddpm", 4)},
    "fmrec": _PATHS
    | {
        "the released loop, 30, lambda drawn": _path(
            "fixed_noise", 30, "--model.lambda-draw=per_step"
        ),
        "without x_t and t": _path("one_step", 0, "--model.lambda-mean=0"),
    },
}
METRICS = ("hr@5", "hr@10", "hr@20", "recall@5", "recall@10", "ndcg@5", "ndcg@10", "ndcg@20")


def kept(metrics: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{metrics[name]:.5g}") for name in METRICS if name in metrics}


def tops(found: restore.Restored) -> np.ndarray:
    """Best ten items of every test row, i32[N, 10]."""
    key = streams.evaluation(found.phase.settings.seed)
    return judging.lists_of(found.phase, "test", k=10)(found.params, found.state, key).items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    ways: dict[str, Any] = {}
    first, about = None, {}
    own = WAYS[restore.reopen(options.workdir).name]
    for name, flags in {"as trained": (), **own}.items():
        run = restore.reopen(options.workdir, flags)
        results, *_ = judging.evaluation(run, options.workdir, "test")
        found = tops(restore.restore(run, options.workdir))
        ways[name] = {"flags": list(flags), **kept(results["metrics"])}
        if first is None:
            first = found
            about = {key: results[key] for key in ("model", "dataset", "num_users", "data_hash")}
            about |= provenance.provenance("", run.experiment.seed, run.mesh)
            beside = {
                **{k: v for k, v in results["diagnostics"].items() if k == "without_x_t"},
                **results["controls"],
            }
        ways[name]["overlap_with_first"] = round(lists.overlap(first, found), 4)
    ways |= {name: kept(metrics) for name, metrics in beside.items()}
    command = f"benchmarks/probes.py {options.workdir.name}"
    text = json.dumps({**about, "command": command, "ways": ways}, indent=1)
    text = text.replace(os.environ.get("JAXREC_DATA", "\0"), "$JAXREC_DATA")
    if options.output is None:
        print(text)
    else:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
