"""Fewer reverse calls at equal quality: what `--sampler=fast` of a preset means.

    python benchmarks/fast.py runs/diffurec-ml-100k diffurec-ml-100k

ranks validation and test rows of a finished run by its whole reverse process and by every shorter
way there is: means only, ancestral, DDIM and DPM-Solver++ with few steps, one call at the noisiest
step, and a system's own (DreamRec's closed form, DiffRec2's seeds). Figures are means over
`--draws` draws of the noise, the same users in each. `fast` is the way with the fewest calls of the
network whose NDCG@10 on validation rows is at least 99 % of the whole process's; test rows choose
nothing. The error of a share is that over users; where it is above 2 %, the users are too few to
say that a way is as good, and it is not taken. Writes `benchmarks/results/fast-NAME.json`, which
`configs/` then name.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.evaluation import evaluator
from jaxrec_diff.experiments import judging, phases, provenance, restore
from jaxrec_diff.training.state import averaged

RESULTS = Path(__file__).parent / "results"
KINDS = ("mean", "ddpm", "ddim", "dpmpp")
COUNTS = (1, 2, 3, 5, 10, 20, 50, 100)
KEEPS = 0.99  # of the whole process's NDCG@10
ERROR = 0.02  # of that share, at most
METRIC = "ndcg@10"


class Judged(NamedTuple):
    """One way to recommend."""

    model: dict[str, Any]  # dotted fields
    calls: int  # of the network, for a list
    users: dict[str, np.ndarray]  # by split, every row's NDCG@10, the mean over draws


def whole(model: Any) -> dict[str, Any]:
    """Fields under which a model walks every step, with the noise that its settings have."""
    kind = model.sampler.kind
    if kind == "closed_form":  # the law of this chain's end
        kind = "ddpm" if model.sampler.temperature > 0 else "mean"
    elif kind == "one_step":
        kind = "ddpm"
    return {"sampler.kind": kind, "sampler.steps": 0} | own(model, inference="full")


def shorter(model: Any, total: int) -> Iterator[dict[str, Any]]:
    """Fields of every way with fewer calls, the simplest first."""
    plain = own(model, inference="full", extra_steps=0)
    if not hasattr(model, "process"):  # DiffRec's start at the data, not at noise
        yield {"sampler.kind": "one_step", "sampler.steps": 0} | plain
    if hasattr(model, "denoiser"):  # DreamRec's, affine as published
        yield {"sampler.kind": "closed_form", "sampler.steps": 0, "sampler.temperature": 0.0}
        yield {"sampler.kind": "closed_form", "sampler.steps": 0, "sampler.temperature": 1.0}
    if hasattr(model, "num_seeds"):
        for seeds in (1, 2, 5, 10):
            yield {"inference": "efficient", "num_seeds": seeds}
    for steps in (count for count in COUNTS if count < total):
        # one step is the same for all, two are of first order for both solvers
        for kind in KINDS[: {1: 1, 2: 3}.get(steps, 4)]:
            yield {"sampler.kind": kind, "sampler.steps": steps} | plain


def calls_of(model: Any) -> int:
    """Calls of the network for a list."""
    if getattr(model, "inference", "") == "efficient":
        return model.num_seeds
    if model.sampler.kind in ("one_step", "closed_form"):
        return 1  # the second is an affine map for every user
    total = getattr(model, "num_steps", 0) or model.process.num_steps
    return (model.sampler.steps or total) + getattr(model, "extra_steps", 0)


def own(model: Any, **fields: Any) -> dict[str, Any]:
    """Those of the fields that a model has and that change it."""
    return {k: v for k, v in fields.items() if getattr(model, k, v) != v}


def judge(run, workdir: Path, draws: int) -> Iterator[tuple[dict[str, Any], Judged | str]]:
    """Every way with its figures, the whole process first, or why there is no such way."""
    phase = restore.last_phase(run, workdir)
    train = restore.best_of(phase, workdir)

    def settings_of(fields):
        changed = {f"model.{name}": value for name, value in fields.items()}
        return config.configure(phase.settings, changed)

    model = phase.settings.model
    total = calls_of(settings_of(whole(model)).model)
    for fields in (whole(model), *shorter(model, total)):
        try:
            made = phases.changed(phase, settings=settings_of(fields))
            built = phases.model_of(made)
        except ValueError as error:
            yield fields, str(error)
            continue
        users = {}
        for split in ("valid", "test"):
            found = evaluator.over_seeds(
                judging.ranker(made, split), averaged(train), train.state,
                phase.settings.seed, 1 if built.deterministic else draws,
            )  # fmt: skip
            users[split] = evaluator.mean_over_seeds(found).per_user[METRIC]
        yield fields, Judged(fields, calls_of(made.settings.model), users)


def line(one: Judged, full: Judged) -> dict[str, Any]:
    """Figures of a way, as shares of the whole process's, with the error of the share."""
    out: dict[str, Any] = {"model": one.model, "calls": one.calls}
    for split, users in one.users.items():
        base = full.users[split].mean()
        error = np.std(users - full.users[split]) / np.sqrt(len(users)) / base
        out |= {
            f"{split}_{METRIC}": round(float(users.mean()), 6),
            f"{split}_ratio": round(float(users.mean() / base), 4),
            f"{split}_ratio_error": round(float(error), 4),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("name", help="of the file, MODEL-DATA")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--data", default=None, help="where the data is now")
    options = parser.parse_args()
    run = restore.reopen(options.workdir, data=options.data)
    run = run._replace(experiment=replace(run.experiment, devices=1))
    full, lines, refused = None, [], []
    for fields, found in judge(run, options.workdir, options.draws):
        if isinstance(found, str):
            refused.append({"model": fields, "because": found})
            continue
        full = full or found
        lines.append(line(found, full))
        print(json.dumps(lines[-1]), flush=True)
    shorter_ones = [one for one in lines[1:] if one["calls"] < full.calls]
    kept = [
        one
        for one in shorter_ones
        if one["valid_ratio"] >= KEEPS and one["valid_ratio_error"] <= ERROR
    ]
    # the fewest calls, and of those the best on validation; the simplest where they are equal
    fast = min(kept, key=lambda one: (one["calls"], -one[f"valid_{METRIC}"]), default=None)
    results = json.loads((options.workdir / "results.json").read_text())
    found = {
        "question": "the fewest reverse calls that keep 99 % of the whole process's NDCG@10",
        "model": run.name,
        "data": run.dataset.name,
        "settings": config.preset(run.name, run.dataset.name).origin,
        "run": _told(results["command"]),
        "trained_to": {"best_step": results["best_step"], METRIC: results["metrics"].get(METRIC)},
        "draws": options.draws,
        "rows": {split: len(users) for split, users in full.users.items()},
        "fast": fast,
        "refused": refused,
    } | provenance.provenance(
        _told(" ".join(["python benchmarks/fast.py", "RUN", options.name])), run.experiment.seed,
        run.mesh,
    )  # fmt: skip
    text = json.dumps(found, indent=1).removesuffix("\n}")
    arms = ",\n  ".join(map(json.dumps, lines))
    path = RESULTS / f"fast-{options.name}.json"
    path.write_text(f'{text},\n "ways": [\n  {arms}\n ]\n}}\n')
    print(path, json.dumps(fast))


def _told(command: str) -> str:
    """A command without where data and runs lie on this machine."""
    data = os.environ.get("JAXREC_DATA", "")
    words = command.replace(data, "$JAXREC_DATA") if data else command
    return " ".join(word for word in words.split() if not word.startswith("--workdir"))


if __name__ == "__main__":
    main()
