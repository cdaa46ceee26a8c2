"""Fewer reverse calls at equal quality: what `--sampler=fast` of a preset means.

    python benchmarks/fast.py runs/diffurec-ml-100k diffurec-ml-100k

ranks the validation rows of a finished run by its whole reverse process, and then by shorter ways
from one call of the network upwards: one call at the noisiest step, few steps of means only,
ancestral, of DDIM and of DPM-Solver++, and a system's own (DreamRec's closed form, DiffRec2's
seeds). Figures are means over `--draws` draws of the noise, the same users in each. `fast` is the
way with the fewest calls whose NDCG@10 is at least 99 % of the whole process's, where it ends
unless `--all`. Test rows choose nothing: they are ranked by the whole process and by what was
chosen. The error of a share is that over users; where it is above 2 %, the users are too few to say
that a way is as good, and it is taken only if it is better by twice that error. Writes
`benchmarks/results/fast-NAME.json`, which `configs/` then name.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.evaluation import evaluator
from jaxrec_diff.experiments import judging, phases, provenance, restore
from jaxrec_diff.experiments.phases import PhaseRun
from jaxrec_diff.training.state import TrainState, averaged

RESULTS = Path(__file__).parent / "results"
KINDS = ("mean", "ddpm", "ddim", "dpmpp")
COUNTS = (1, 2, 3, 5, 10, 20, 50, 100)
KEEPS = 0.99  # of the whole process's NDCG@10
ERROR = 0.02  # of that share, at most
METRIC = "ndcg@10"


class Judged(NamedTuple):
    """One way to recommend, on a split."""

    model: dict[str, Any]  # dotted fields
    calls: int  # of the network, for a list
    users: np.ndarray  # every row's NDCG@10, the mean over draws


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
    steps = (model.sampler.steps or total) + getattr(model, "extra_steps", 0)
    return 2 * steps - 1 if model.sampler.kind == "heun" else steps


def own(model: Any, **fields: Any) -> dict[str, Any]:
    """Those of the fields that a model has and that change it."""
    return {k: v for k, v in fields.items() if getattr(model, k, v) != v}


class Judge(NamedTuple):
    """A trained run, ready to be ranked in any way."""

    phase: PhaseRun
    train: TrainState
    draws: int

    def settings(self, fields: dict[str, Any]) -> config.Experiment:
        changed = {f"model.{name}": value for name, value in fields.items()}
        return config.configure(self.phase.settings, changed)

    def judged(self, fields: dict[str, Any], split: str) -> Judged:
        """Raises ValueError if there is no such way."""
        made = phases.changed(self.phase, settings=self.settings(fields))
        draws = 1 if phases.model_of(made).deterministic else self.draws
        found = evaluator.over_seeds(
            judging.ranker(made, split), averaged(self.train), self.train.state,
            self.phase.settings.seed, draws,
        )  # fmt: skip
        users = evaluator.mean_over_seeds(found).per_user[METRIC]
        return Judged(fields, calls_of(made.settings.model), users)


def line(one: Judged, full: Judged, split: str) -> dict[str, Any]:
    """Figures of a way, as shares of the whole process's, with the error of the share."""
    base = full.users.mean()
    error = np.std(one.users - full.users) / np.sqrt(len(one.users)) / base
    return {
        f"{split}_{METRIC}": round(float(one.users.mean()), 6),
        f"{split}_ratio": round(float(one.users.mean() / base), 4),
        f"{split}_ratio_error": round(float(error), 4),
    }


def keeps(figures: dict[str, Any]) -> bool:
    """Whether a way is as good, or is better by more than two errors of its share."""
    ratio, error = figures["valid_ratio"], figures["valid_ratio_error"]
    return ratio >= KEEPS and (error <= ERROR or ratio - 2 * error >= KEEPS)


def search(judge: Judge, every: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every way that was ranked, the whole process first, and those that there are not."""
    model = judge.phase.settings.model
    full = judge.judged(whole(model), "valid")
    lines = [{"model": full.model, "calls": full.calls} | line(full, full, "valid")]
    print(json.dumps(lines[0]), flush=True)
    by_calls: dict[int, list[dict[str, Any]]] = {}
    refused = []
    for fields in shorter(model, full.calls):
        try:
            by_calls.setdefault(calls_of(judge.settings(fields).model), []).append(fields)
        except ValueError as error:
            refused.append({"model": fields, "because": str(error)})
    for calls in sorted(count for count in by_calls if count < full.calls):
        for fields in by_calls[calls]:
            figures = line(judge.judged(fields, "valid"), full, "valid")
            lines.append({"model": fields, "calls": calls} | figures)
            print(json.dumps(lines[-1]), flush=True)
        if not every and any(keeps(one) for one in lines[1:]):
            break
    return lines, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("name", help="of the file, MODEL-DATA")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--all", action="store_true", help="rank every way")
    options = parser.parse_args()
    run = restore.reopen(options.workdir)
    phase = restore.last_phase(run, options.workdir)
    judge = Judge(phase, restore.best_of(phase, options.workdir), options.draws)
    lines, refused = search(judge, options.all)
    kept = [one for one in lines[1:] if keeps(one)]
    # the fewest calls, and of those the best on validation; the simplest where they are equal
    fast = min(kept, key=lambda one: (one["calls"], -one[f"valid_{METRIC}"]), default=None)
    tested = judge.judged(lines[0]["model"], "test")
    lines[0] |= line(tested, tested, "test")
    if fast is not None:
        fast |= line(judge.judged(fast["model"], "test"), tested, "test")
    results = json.loads((options.workdir / "results.json").read_text())
    preset = config.preset(run.name, run.dataset.name)
    same = preset.experiment.model == phase.settings.model
    found = {
        "question": "the fewest reverse calls that keep 99 % of the whole process's NDCG@10",
        "model": run.name,
        "data": run.dataset.name,
        "settings": preset.origin if same else "those of the run's command",
        "run": _told(results["command"]),
        "best_step": results["best_step"],
        "draws": options.draws,
        "rows": {"valid": len(phase.dataset.valid.start), "test": len(phase.dataset.test.start)},
        "fast": fast,
        "refused": refused,
    } | provenance.provenance(
        f"python benchmarks/fast.py RUN {options.name}", run.experiment.seed, run.mesh
    )
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
