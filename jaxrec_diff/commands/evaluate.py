"""`bin/evaluate`: a trained workdir again, under another sampler, protocol or split."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from jaxrec_diff.commands.terminal import (
    FILE,
    PLAIN,
    SAMPLER,
    Accepts,
    counter,
    explain,
    muted,
    quiet_start,
    refuse,
    sampler_of,
    spelled,
    split_flags,
    trained_workdir,
)
from jaxrec_diff.reporting.text import wrapped

USAGE = """\
usage: bin/evaluate --workdir=DIR [--split=valid|test] [--sampler=KIND]
                    [--sampler-steps=N] [--seeds=S] [--data=SOURCE]
                    [--protocol=honest|official] [--per-user=FILE.parquet]
                    [--output=FILE.json] [--speed] [--quiet] [--json]
                    [--section.field=VALUE ...]

  bin/evaluate --workdir=runs/dimerec-synthetic --split=valid
  bin/evaluate --workdir=runs/dimerec-synthetic --sampler=ddim \\
               --sampler-steps=10 --seeds=5

--workdir   what bin/train left; its best checkpoint is taken
--split     test (default), or valid
--sampler   ddpm, mean, ddim, dpmpp, one_step or closed_form, the run's own by
            default; fast: the fewest calls that keep NDCG@10 to 1 %, where the
            preset has measured them
--sampler-steps
            of the reverse process, 0 for all of the schedule
--seeds     draws of the sampler's noise; figures are means over them
--data      where the interactions are now, if they were moved
--protocol  honest, or official: as the system's released script evaluates
--per-user  a row a user with every metric, of the model and of the baselines
--output    where the results go (default: in DIR, named after the flags)
--speed     also measure users a second: warm, 256 histories to lists of 10
--quiet     errors only            --json  the results as one json object
"""

_SPLITS = ("valid", "test")

ACCEPTS = Accepts(
    {
        "workdir": FILE,
        "split": _SPLITS,
        "sampler": SAMPLER,
        "sampler-steps": PLAIN,
        "seeds": PLAIN,
        "per-user": FILE,
        "data": FILE,
        "protocol": "eval.protocol",
        "output": FILE,
    },
    ("speed", "quiet", "json"),
    fields="",
)

# Settings that are spent once a model is trained and its items are made.
_TRAINING_READS = ("--train.", "--backbone.train.", "--data.prefix-")


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    bare = flags.bare
    split = bare.get("split", "test")
    workdir = trained_workdir(flags)
    for flag in flags.dotted:
        if flag.startswith(_TRAINING_READS):
            name = flag.split("=")[0]
            return refuse(f"{name} changes nothing in an evaluation; bin/train takes it")
    quiet_start()
    from jaxrec_diff import layout
    from jaxrec_diff.commands.progress import show
    from jaxrec_diff.evaluation import metrics
    from jaxrec_diff.experiments import diffusing, json_files, judging, locks, restore
    from jaxrec_diff.experiments.results import write_per_user

    dotted = list(flags.dotted)
    for flag, field in (
        ("seeds", "eval.seeds"),
        ("protocol", "eval.protocol"),
    ):
        if flag in bare:
            dotted.append(f"--{field}={bare[flag]}")
    run = restore.reopen(workdir, dotted, bare.get("data"), sampler_of(flags))
    run = run._replace(command=" ".join([spelled("bin/evaluate"), *argv]))
    output = Path(bare.get("output", workdir / f"evaluation-{_label(bare, split)}.json"))
    inside = output.resolve().parent == workdir.resolve()
    with locks.writer(workdir, shared=True) if inside and layout.first() else nullcontext():
        with _counted(run, split, flags.switches) as tell:
            results, found, beside = judging.evaluation(run, workdir, split, tell)
            if run.experiment.eval.diffuses:
                results["diffusion"] = diffusing.of_run(run, workdir, split)
        if "speed" in flags.switches:
            from jaxrec_diff.benchmarking import serving

            results["serving"] = serving.speed(restore.restore(run, workdir))
        layout.by_first(lambda: json_files.write_json(output, results))
    with muted(flags.switches):
        show(results)
        seeds = run.experiment.eval.seeds
        if seeds > 1:
            shown = metrics.grouped(metrics.compared(results["spread"], lambda one, other: False))
            spread = ", ".join(f"{k} {v:.4f}" for k, v in results["spread"].items() if k in shown)
            print(wrapped(f"deviation over {seeds} draws of the sampler: {spread}"))
        if "serving" in results:
            print(f"{results['serving']['users_per_second']:,.0f} users a second")
        if "per-user" in bare:
            path = Path(bare["per-user"])
            layout.by_first(lambda: write_per_user(run.dataset, split, found, path, beside))
            print(f"per-user values are in {bare['per-user']}")
        print(f"results are in {output}")
    if "json" in flags.switches:
        print(json.dumps(results))
    return 0


@contextmanager
def _counted(run: Any, split: str, switches: set[str]) -> Iterator[Callable[[int], None]]:
    """Gives a function that is told how many more rows are done, of all draws."""
    from jaxrec_diff.experiments import phases

    what = f"evaluating the {split} split"
    rows = len(phases.rows_of(run.phases[-1].dataset, split)[1]) if split in _SPLITS else 0
    done = 0
    if not sys.stdout.isatty():  # a terminal has a bar
        with muted(switches):
            print(f"{what} ...", flush=True)
    with counter(what, rows * run.experiment.eval.seeds, quiet="quiet" in switches) as shown:

        def tell(more: int) -> None:
            nonlocal done
            done += more
            shown(done)

        yield tell


def _label(bare: dict[str, str], split: str) -> str:
    """A file name part that tells one re-evaluation from another."""
    parts = [split] + [
        f"{flag.replace('-', '_')}_{bare[flag]}"
        for flag in ("protocol", "sampler", "sampler-steps", "seeds")
        if flag in bare
    ]
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in parts)
