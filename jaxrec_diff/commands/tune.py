"""`bin/tune`: a search for a model's settings."""

import json
import sys
from pathlib import Path

from jaxrec_diff.commands import train
from jaxrec_diff.commands.terminal import (
    PLAIN,
    explain,
    muted,
    quiet_start,
    refuse,
    spelled,
    split_flags,
    whole,
)
from jaxrec_diff.reporting.text import wrapped

USAGE = """\
usage: bin/tune --model=NAME [--trials=30] [--minutes=M] [--data=SOURCE]
                [--workdir=DIR] [--preset=DATASET|FILE.json]
                [--backbone=NAME|FILE.npz] [--quiet] [--json]
                [--section.field=VALUE ...]

  bin/tune --model=dreamrec --data=clicks.csv --trials=50
  bin/tune --model=dreamrec --data=clicks.csv --model.num-steps=100
                                       the same search with one field kept
  bin/train --model=dreamrec --preset=runs/tune-dreamrec-clicks/best.json
                                       what was found, on the same data

Optuna looks for the best validation metric in the space that configs/NAME.py
declares. Trials behind the median of earlier ones are pruned; the test split is
never read. The same command again goes on until --trials are finished, or all
together have taken --minutes; several at once share the work. The best settings
so far are in DIR/best.json (default DIR: runs/tune-MODEL-DATA).

bin/tune --model=NAME --help shows the space of that model.
"""

ACCEPTS = train.ACCEPTS._replace(
    values=train.ACCEPTS.values | {"trials": PLAIN, "minutes": PLAIN}, switches=("quiet", "json")
)


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help and "model" not in flags.bare:
        return explain(USAGE)
    train.check_words(flags)
    from jaxrec_diff import config
    from jaxrec_diff.config.space import describe
    from jaxrec_diff.data.sources import dataset_name

    chosen = config.choose(flags.bare)
    if flags.help:
        space = describe(config.search_space(chosen.name))
        return explain(f"{USAGE}\n{chosen.name} is searched over\n\n{space}")
    try:
        import optuna  # noqa: F401
    except ImportError:
        return refuse("the search needs optuna: pip install 'jaxrec-diff[tune]'")
    trials, minutes = whole(flags, "trials", 30), whole(flags, "minutes", 0, 0)
    experiment = config.parse(chosen.settings.experiment, flags.dotted)
    quiet_start()
    from jaxrec_diff.experiments import signals, tuning

    default = f"runs/tune-{chosen.name}-{dataset_name(chosen.source)}"
    workdir = Path(flags.bare.get("workdir", default))
    given = config.given(flags.dotted)
    planned = tuning.plan(
        chosen.name, experiment, chosen.source, workdir, fixed=given, typed=chosen.typed(given)
    )
    command = " ".join([spelled("bin/tune"), *argv])
    planned = planned._replace(run=planned.run._replace(command=command))
    with muted(flags.switches):
        print(f"{chosen.name} on {planned.run.dataset.name}: {chosen.settings.origin}, and")
        print(describe(planned.space), flush=True)
        for note in planned.run.notes:
            print(wrapped(note), flush=True)
        try:
            study = tuning.tune(
                planned, trials, minutes=minutes, log=lambda text: print(text, flush=True)
            )
        except signals.Interrupted as error:
            print(f"stopped; the same command goes on in {workdir}", file=sys.stderr)
            return 128 + error.signum
        found = tuning.summary(study, planned)
        print(f"\n{tuning.table(found)}")
        if found["preset"]:
            print(spelled(f"\nbin/train --model={chosen.name} --preset={found['preset']}"))
        else:
            print("no trial was finished", file=sys.stderr)
    if "json" in flags.switches:
        print(json.dumps(found))
    return 0
