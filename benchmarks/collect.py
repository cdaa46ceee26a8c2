"""Keeps the figures of a finished workdir as one small file.

    python benchmarks/collect.py runs/zd100 zhihu-dreamrec-seed100

writes `benchmarks/results/zhihu-dreamrec-seed100.json`: the run's results without the metrics that
say the same twice, its provenance, and the curve over epochs. A path of data in the command becomes
`$JAXREC_DATA`. `--every=10` keeps every tenth epoch of a long curve, and looks for the best there,
as a released loop does that evaluates every ten epochs.

    python benchmarks/collect.py runs/leaderboard-ml-100k leaderboard-ml-100k

keeps the folder of a contest, a line an entry.
"""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
KEPT = ("hr", "ndcg", "recall", "mrr", "precision")
CURVE = ("step", "epoch", "loss", "ce", "mse", "item_spread")


def trimmed(value: Any) -> Any:
    """Drops map, which is mrr or nearly so, and rounds to seven digits."""
    if isinstance(value, dict):
        return {
            name: trimmed(item)
            for name, item in value.items()
            if "@" not in name
            or name.split("@")[0].split("/")[-1] in (*KEPT, "coverage", "gini")
            or "_" in name
        }
    return float(f"{value:.7g}") if isinstance(value, float) else value


def collect(workdir: Path, every: int = 1) -> dict[str, Any]:
    """The figures of a workdir, with every so many epochs of its curve."""
    results = trimmed(json.loads((workdir / "results.json").read_text()))
    results.pop("seal", None)  # of the file it was in
    protocols = {
        name: {key: part[key] for key in ("num_users", "metrics", "controls", "diagnostics")}
        for name, part in results.pop("protocols", {}).items()
        if name != results["protocol"]  # the chosen one stands at the top
    }
    metric = results["selected_by"].split()[-1]
    shown = (metric, "hr@10", "ndcg@20")
    wanted = {*CURVE, *(f"{split}/{m}" for split in ("valid", "test") for m in shown)}
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines = lines[every - 1 :: every]
    curve = [trimmed({k: v for k, v in line.items() if k in wanted}) for line in lines]
    results["command"] = portable(results["command"])
    # where a run was kept says nothing about it
    results["command"] = re.sub(r" --workdir[= ]\S+", "", results["command"])
    results["command"] = re.sub(r"(--backbone[= ])\S*/", r"\1", results["command"])
    best = {
        split: max(line[f"{split}/{metric}"] for line in lines)
        for split in ("valid", "test")
        if f"{split}/{metric}" in lines[0]
    }
    thinned = {"curve_every": every} if every > 1 else {}
    return results | {
        "other_protocols": protocols,
        **thinned,
        f"best_{metric}_over_epochs": best,
        "curve": curve,
    }


def portable(command: str) -> str:
    """A command without the folder of data that it was given."""
    data = os.environ.get("JAXREC_DATA", "")
    return command.replace(data, "$JAXREC_DATA") if data else command


def contest(folder: Path) -> dict[str, Any]:
    """The standings of a contest; figures of seven digits, and no path of this machine."""
    text = (folder / "leaderboard.json").read_text()
    kept = json.loads(text.replace(f"{folder}/", ""))
    return rounded(kept) | {"command": portable(kept["command"])}


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("name")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    path = RESULTS / f"{options.name}.json"
    is_contest = (options.workdir / "leaderboard.json").exists()
    figures = contest(options.workdir) if is_contest else collect(options.workdir, options.every)
    lines = "rows" if is_contest else "curve"  # a line an entry, or an epoch
    points = ",\n  ".join(json.dumps(point) for point in figures.pop(lines))
    text = json.dumps(figures, indent=1).removesuffix("\n}")
    path.write_text(f'{text},\n "{lines}": [\n  {points}\n ]\n}}\n')
    print(path)


if __name__ == "__main__":
    main()
