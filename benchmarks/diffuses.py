"""Does it diffuse? Every system with a reverse process, trained shortly on one data set.

    JAXREC_DATA=data python benchmarks/diffuses.py run --workdir=runs/diffuses
    python benchmarks/diffuses.py table [--write]

The table stands in `benchmarks/README.md`, between its marks; `table --write` puts it there.

`run` trains each system at small settings with `--eval.diffuses=true`, a process each, and keeps
what it says in `benchmarks/results/diffuses-ml-100k.json`; a run that is finished is not trained
again. `table` prints the table of the file. Few epochs make weak lists: what is asked is not how
good they are, but what becomes of them when the reverse process is changed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "diffuses-ml-100k.json"
README = Path(__file__).parent / "README.md"
MARKS = "<!-- diffuses -->", "<!-- /diffuses -->"
DATA = "ml-100k/ml-100k.inter"

_SHORT = ("--data.max-len=20", "--eval.metric=ndcg@10", "--eval.ks=10,20")
# Batches of one length: fewer programs than training has time for.
_WHOLE = ("--train.epoch-sampler=whole",)
_ROWS = ("--eval.metric=ndcg@10", "--eval.ks=10,20")
SYSTEMS = {
    "dreamrec": (*_SHORT, "--train.num-epochs=10"),
    "preferdiff": (*_SHORT, "--train.num-epochs=10"),
    "bayesrec": (*_SHORT, "--model.noise-share=0.5", "--train.num-epochs=10"),
    "dimerec": (*_SHORT, "--train.num-epochs=6"),
    "dimerec_tuned": (*_SHORT, "--train.num-epochs=6"),
    "diffrec": (*_ROWS, "--train.num-epochs=60"),
    "tdiffrec": (*_ROWS, "--train.num-epochs=60"),
    "giffcf": (
        *_ROWS, "--model.init-scale=4", "--train.num-epochs=400", "--train.eval-every=20",
        "--train.patience=0",
    ),
    "ldiffrec": (*_ROWS, "--train.num-epochs=100", "--backbone.train.num-epochs=10"),
    "ltdiffrec": (*_ROWS, "--train.num-epochs=100", "--backbone.train.num-epochs=10"),
    "ddrm": (*_ROWS, "--train.num-epochs=5", "--backbone.train.num-epochs=10"),
    "diffurec": (*_SHORT, *_WHOLE, "--train.num-epochs=3"),
    "flow": (*_SHORT, "--train.num-epochs=20"),
    "fmrec": (
        "--data.max-len=20", *_WHOLE, "--model.width=64", "--model.num-blocks=2",
        "--model.mask=key", "--model.positions=true", "--model.reconstruct=off",
        "--model.ce-weight=1", "--model.mse-weight=0", "--model.sampler.kind=one_step",
        "--train.batch-size=256", "--train.num-epochs=12", "--train.eval-every=1",
        "--train.patience=3", "--seed=0",
    ),
    "adrec": (*_SHORT, "--train.num-epochs=10", "--backbone.train.num-epochs=10"),
    "diffrec2": (*_SHORT, *_WHOLE, "--train.num-epochs=3"),
    "diqdiff": (*_SHORT, "--train.num-epochs=3"),
    "diffuasr": (
        "--train.num-epochs=20", "--train.eval-every=10", "--backbone.train.num-epochs=5",
        "--model.num-steps=50", "--model.channels=8", "--data.max-len=20", "--data.prefix-len=5",
    ),
}  # fmt: skip


def train(name: str, folder: Path, data: str) -> dict | str:
    """The results of a system's run, or its last words."""
    flags = [*SYSTEMS[name], "--eval.diffuses=true", "--devices=1", "--quiet"]
    words = ["train", f"--model={name}", f"--data={data}/{DATA}", *flags]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jaxrec_diff.cli", *words, f"--workdir={folder}"],
        capture_output=True,
        text=True,
        env=os.environ | {"JAXREC_REPORT": "0"},
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    found = json.loads((folder / "results.json").read_text())
    kept = ("model", "dataset", "num_users", "data_hash", "seed", "device", "commit", "versions")
    return {name: found[name] for name in kept} | {
        "command": " ".join(["bin/train", *words[1:]]).replace(data, "$JAXREC_DATA"),
        "epochs": found["num_epochs"],
        "train_cpu_seconds": found["cpu_seconds"],
        "seconds": round(time.monotonic() - began, 1),
        "popularity": found["controls"]["popularity"]["ndcg@10"],
        "diffusion": found["diffusion"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--workdir", type=Path, default=Path("runs/diffuses"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    options = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"systems": {}}
    if options.what == "table":
        from jaxrec_diff.reporting import diffusion

        table = diffusion.markdown({k: v["diffusion"] for k, v in kept["systems"].items()})
        print(table)
        if options.write:
            before, _, rest = README.read_text().partition(MARKS[0])
            after = rest.partition(MARKS[1])[2]
            README.write_text(f"{before}{MARKS[0]}\n{table}{MARKS[1]}{after}")
        return
    for name in options.systems.split(","):
        found = train(name, options.workdir / name, os.environ["JAXREC_DATA"])
        if isinstance(found, str):
            print(f"{name}: {found}", flush=True)
            continue
        kept["systems"][name] = found
        print(f"{name}: {found['seconds']} s", flush=True)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
