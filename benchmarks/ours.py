"""Can a diffusion beat the SASRec of its size? Every try, won or lost, in one table.

    JAXREC_DATA=data python benchmarks/ours.py run --workdir=runs/ours [--only=NAME,...]
    JAXREC_DATA=data python benchmarks/ours.py ways --workdir=runs/ours --only=NAME [--split=test]
    python benchmarks/ours.py table [--write]

`run` trains each try and keeps its best validation figures in `results/ours-tries.json`, a SASRec
of the same size, data, epochs and seed among them, and no figure of the test split. `ways` asks one
trained try in other ways, by default on validation, and keeps them in `results/ours-ways.json`.
`table` prints the tables of both files and of what lists cost (`results/ours-serving.json`), and
puts them into the page of the documentation.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from jaxrec_diff.reporting import text

RESULTS = Path(__file__).parent / "results"
TRIES, WAYS = RESULTS / "ours-tries.json", RESULTS / "ours-ways.json"
SERVING = RESULTS / "ours-serving.json"  # of `bin/benchmark rank`, by the commands it has
PAGE = Path(__file__).parent.parent / "jaxrec_diff" / "docs" / "pages" / "ours.md"
MARKS = "<!-- ours -->", "<!-- /ours -->"
METRICS = ("hr@10", "ndcg@10", "ndcg@20")

DATA = {
    "ml-100k": (
        "ml-100k/ml-100k.inter", "--data.max-len=20", "--model.dropout-rate=0.2",
        "--train.batch-size=256", "--train.num-epochs=20",
    ),
    "zhihu": (
        "zhihu", "--data.max-len=10", "--model.dropout-rate=0.2",
        "--train.batch-size=256", "--train.num-epochs=5",
    ),
    "amazon-beauty": (
        "amazon-beauty/interactions.parquet", "--data.max-len=50", "--model.dropout-rate=0.3",
        "--train.batch-size=128", "--train.num-epochs=10",
    ),
    "ml-1m": (
        "ml-1m/interactions.parquet", "--data.max-len=50", "--model.dropout-rate=0.2",
        "--train.batch-size=128", "--train.num-epochs=8",
    ),
}  # fmt: skip
_OURS, _ALONE = "--model=bayesrec", "--model.noise-share=1.0"
WHAT = {
    "sasrec": ("SASRec", "--model=sasrec"),
    "unit": ("rows of length 1, no diffusion (every place at t = 1)", _OURS, _ALONE),
    "half": ("half of the places diffused", _OURS, "--model.noise-share=0.5"),
    "head": (
        "half diffused, a network of 256 units on [x_t ; h ; t], a tenth without history",
        _OURS, "--model.noise-share=0.5", "--model.hidden=256", "--model.drop-rate=0.1",
    ),
    "light": ("a fifth of the places diffused", _OURS, "--model.noise-share=0.8"),
    "stopped": (
        "a fifth diffused, no gradient through x_t",
        _OURS, "--model.noise-share=0.8", "--model.target=stopped",
    ),
    "guided": (
        "no diffusion, a tenth of the places without history",
        _OURS, _ALONE, "--model.drop-rate=0.1",
    ),
}  # fmt: skip
_DRAWN = "--model.start=noise"
_TWO = ("--model.sampler.kind=ddim", "--model.sampler.steps=2")
_FOUR = ("--model.sampler.kind=ddim", "--model.sampler.steps=4")
ASKED = {
    "one call": (),
    "2 steps from the mean": _TWO,
    "4 steps from the mean": _FOUR,
    "4 steps from the mean, x0_hat the mean of all items": (*_FOUR, "--model.estimate=mean"),
    "4 steps from a draw": (*_FOUR, _DRAWN),
    "4 steps from a draw, x0_hat the mean of all items": (*_FOUR, _DRAWN, "--model.estimate=mean"),
    "4 draws pooled, 4 steps each": (*_FOUR, _DRAWN, "--model.num-draws=4"),
    "w = -0.2": ("--model.guidance-weight=-0.2",),
    "w = 0.2": ("--model.guidance-weight=0.2",),
    "w = 0.5": ("--model.guidance-weight=0.5",),
    "w = 1": ("--model.guidance-weight=1",),
}
_KEPT = ("device", "commit", "versions", "data_hash", "seed")


def train(name: str, folder: Path) -> dict[str, Any] | str:
    """The validation figures of a try, or its last words; NAME is WHAT-DATA or WHAT-DATA-SEED."""
    what, data, seed = parsed(name)
    path, *flags = DATA[data]
    command = [
        "train", *WHAT[what][1:], f"--data={os.environ['JAXREC_DATA']}/{path}", *flags,
        "--train.patience=0", "--eval.metric=ndcg@10", "--eval.ks=10,20", f"--seed={seed}",
        "--devices=1", "--quiet",
    ]  # fmt: skip
    if not (folder / name / "results.json").exists():
        done = subprocess.run(
            [sys.executable, "-m", "jaxrec_diff.cli", *command, f"--workdir={folder / name}"],
            capture_output=True,
            text=True,
            env=os.environ | {"JAXREC_REPORT": "0"},
        )
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
    found = json.loads((folder / name / "results.json").read_text())
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").open()]
    best = max(lines, key=lambda line: line["valid/ndcg@10"])
    text = " ".join(["bin/train", *command[1:]])
    return {
        "what": WHAT[what][0],
        "data": data,
        "command": text.replace(os.environ["JAXREC_DATA"], "$JAXREC_DATA"),
        **{key: found[key] for key in _KEPT},
        "epochs": found["num_epochs"],
        "train_cpu_seconds": round(found["cpu_seconds"], 1),
        "best_epoch": best["epoch"],
        "valid": {metric: best[f"valid/{metric}"] for metric in METRICS},
        "curve": [line["valid/ndcg@10"] for line in lines],
    }


def ways(name: str, folder: Path, split: str) -> dict[str, Any]:
    """Figures of one trained try, asked in several ways, and how far their lists agree."""
    from jaxrec_diff.evaluation import lists
    from jaxrec_diff.experiments import judging, provenance, restore
    from jaxrec_diff.ops import streams

    asked: dict[str, Any] = {}
    first = None
    for way, flags in ASKED.items():
        try:
            run = restore.reopen(folder / name, flags)
        except ValueError:
            continue  # guidance of what was never trained without histories
        found = restore.restore(run, folder / name)
        tops = judging.lists_of(found.phase, split, k=10)
        draws = [
            tops(found.params, found.state, streams.draw(run.experiment.seed, n)) for n in (0, 1)
        ]
        items = [each.items for each in draws]
        first = items[0] if first is None else first
        asked[way] = {
            "flags": list(flags),
            **{metric: draws[0].metrics[metric] for metric in METRICS},
            "coverage@10": len(set(items[0].ravel().tolist())) / found.phase.spec.num_items,
            "overlap_with_one_call": lists.overlap(first, items[0]),
            "overlap_of_two_draws": lists.overlap(*items),
        }
    about = provenance.provenance("", run.experiment.seed, run.mesh)
    command = f"python benchmarks/ours.py ways --workdir=runs/ours --only={name} --split={split}"
    return {"split": split, "ways": asked, "command": command, "seed": run.experiment.seed} | {
        key: about[key] for key in ("commit", "device")
    }


def parsed(name: str) -> tuple[str, str, int]:
    """What, data and seed of a try's name.

    >>> parsed("half-ml-100k"), parsed("sasrec-zhihu-seed2")
    (('half', 'ml-100k', 0), ('sasrec', 'zhihu', 2))
    """
    name, _, seed = name.partition("-seed")
    what, _, data = name.partition("-")
    return what, data, int(seed or 0)


def table() -> str:
    """All files as markdown."""
    tries = _read(TRIES)
    head = ["data", "what", "seed", "epochs, best", "valid HR@10", "valid NDCG@10", "processor s"]
    rows = []
    order = {(what, data): (d, w) for d, data in enumerate(DATA) for w, what in enumerate(WHAT)}
    for name in sorted(tries, key=lambda name: (order[parsed(name)[:2]], name)):
        each = tries[name]
        valid = [f"{100 * each['valid'][metric]:.2f}" for metric in METRICS[:2]]
        epochs = f"{each['epochs']:g}, {each['best_epoch']:g}"
        seconds = f"{each['train_cpu_seconds']:.0f}"
        rows.append([each["data"], each["what"], str(each["seed"]), epochs, *valid, seconds])
    lines = [text.table(head, rows)]
    for name, each in sorted(_read(WAYS).items()):
        lines += ["", f"`{name}`, asked in other ways ({each['split']} split):", ""]
        head = ["way", "HR@10", "NDCG@10", "items in lists", "lists as one call's", "two draws'"]
        rows = []
        for way, found in each["ways"].items():
            keys = ("hr@10", "ndcg@10", "coverage@10")
            cells = [f"{100 * found[key]:.2f}" for key in keys]
            cells += [f"{found[f'overlap_{key}']:.2f}" for key in ("with_one_call", "of_two_draws")]
            rows.append([way, *cells])
        lines.append(text.table(head, rows))
    costs = _read(SERVING)
    if costs:
        sasrec = costs["figures"][0]["processor"]
        lines += ["", f"What they cost: {costs['question']}.", ""]
        rows = [
            [each["what"], f"{each['rate']:,.0f}", f"{each['processor'] / sasrec:.2f}"]
            for each in costs["figures"]
        ]
        lines.append(text.table(["way", "users/s", "times SASRec's cost"], rows))
    return "\n".join(lines) + "\n"


def written(page: str) -> str:
    """The page with the tables in their place."""
    before, _, rest = page.partition(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{table()}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _keep(path: Path, name: str, found: dict[str, Any]) -> None:
    text = json.dumps(_read(path) | {name: found}, indent=1)
    path.write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=("run", "ways", "table"))
    parser.add_argument("--workdir", type=Path, default=Path("runs/ours"))
    parser.add_argument("--only", default="sasrec-ml-100k,unit-ml-100k,half-ml-100k,head-ml-100k")
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.do == "table":
        print(table())
        if options.write:
            PAGE.write_text(written(PAGE.read_text()))
        return
    for name in options.only.split(","):
        if options.do == "ways":
            _keep(WAYS, name, ways(name, options.workdir, options.split))
            continue
        found = train(name, options.workdir)
        if isinstance(found, str):
            print(f"{name}: {found}", flush=True)
            continue
        print(f"{name}: {found['valid']}", flush=True)
        _keep(TRIES, name, found)


if __name__ == "__main__":
    main()
