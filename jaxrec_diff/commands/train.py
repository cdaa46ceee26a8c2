"""`bin/train`: from flags to a workdir with results."""

import difflib
import json
import os
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Any

from jaxrec_diff.commands.terminal import (
    FILE,
    MODEL,
    Accepts,
    Flags,
    explain,
    muted,
    quiet_start,
    spelled,
    split_flags,
    waiting,
)
from jaxrec_diff.config.presets import about, preset_names
from jaxrec_diff.reporting.text import wrapped

USAGE = """\
usage: bin/train --model=NAME [--data=SOURCE] [--workdir=DIR]
                 [--preset=DATASET|FILE.json] [--backbone=NAME|FILE.npz]
                 [--quiet] [--json] [--section.field=VALUE ...]

  bin/train --model=dimerec                      the embedded synthetic data
  bin/train --model=dreamrec --data=clicks.csv   your own interactions
  bin/train --model=dreamrec --data=zhihu --train.learning-rate=0.003

--model    {models};
           --list says in a line what each is
--data     synthetic (default), a csv, tsv, dat, inter, parquet or npz file of
           interactions, a folder of train, valid and test tables, or tfds:DIR,
           a prepared TFDS directory
--workdir  where everything goes; the same command again continues there
           (default: runs/MODEL-DATA)
--preset   take the settings published for this data set, or those in a json
           file: what bin/tune found, or another run's config.json
--backbone what adrec, ldiffrec, ltdiffrec, ddrm and diffuasr start from: another
           preset, trained first, an npz file of its arrays, or none, for settings
           that do without
--quiet    errors only            --json  the results as one json object

Several hosts: --distributed flags, as bin/launch --help says, which starts
several processes on one.

bin/train --model=NAME --help lists every field of that model. Among them are
--log.tensorboard=true, event files in WORKDIR/tensorboard, and
--log.wandb=PROJECT, which tells Weights & Biases. bin/completion helps to type.
"""

ACCEPTS = Accepts(
    {"model": MODEL, "data": FILE, "workdir": FILE, "preset": FILE, "backbone": MODEL},
    ("quiet", "json", "list"),
    fields="",
)

_ASKED = 3  # items of the history that is shown as an example


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help and "model" not in flags.bare:
        return explain(USAGE.format(models=_models()))
    if "list" in flags.switches:
        for name in preset_names():
            print(f"{name:<14} {textwrap.shorten(about(name), 65, placeholder=' ...')}")
        return 0
    check_words(flags)
    from jaxrec_diff import config
    from jaxrec_diff.data.sources import dataset_name

    chosen = config.choose(flags.bare)
    if flags.help:
        usage = spelled(f"bin/train --model={chosen.name}")
        print(config.show_help(chosen.settings.experiment, usage))
        return 0
    dataset = dataset_name(chosen.source)
    workdir = Path(flags.bare.get("workdir", f"runs/{chosen.name}-{dataset}"))
    with muted(flags.switches):
        code = _train_in(workdir, chosen, flags.dotted, " ".join([spelled("bin/train"), *argv]))
    if code == 0 and "json" in flags.switches:
        print(json.dumps(json.loads((workdir / "results.json").read_text())))
    return code


def check_words(flags: Flags) -> None:
    """Refuses a word that is no flag where no model is named: it may be meant as the model.

    Raises:
      ValueError: naming the flag that was meant.
    """
    stray = [word for word in flags.dotted if not word.startswith("-")]
    if "model" in flags.bare or not stray:
        return
    near = difflib.get_close_matches(stray[0], preset_names(), 1, 0.6)
    raise ValueError(
        f"{stray[0]!r} is no flag; "
        + (f"did you mean --model={near[0]}?" if near else "name a model: --model=NAME")
    )


def _models() -> str:
    """The presets' names, as the usage has room for them."""
    indent = " " * 11
    names = ", ".join(preset_names())
    return textwrap.fill(names, 80, initial_indent=indent, subsequent_indent=indent).strip()


def _train_in(workdir: Path, chosen: Any, dotted: list[str], command: str) -> int:
    from jaxrec_diff import config

    experiment = config.parse(chosen.settings.experiment, dotted)
    quiet_start()
    from jaxrec_diff import layout
    from jaxrec_diff.commands.progress import progress, show
    from jaxrec_diff.experiments import pipeline, runs, signals, workdirs
    from jaxrec_diff.training.progress import NonFiniteLoss

    typed = chosen.typed(config.given(dotted))
    run = runs.prepare(chosen.name, experiment, chosen.source, typed=typed)
    run = run._replace(command=command)
    layout.by_first(lambda: workdirs.check(run, workdir))
    print(f"{chosen.name} on {run.dataset.name}: {chosen.settings.origin}")
    print(_card(run))
    for note in run.notes:
        print(wrapped(note))
    print(_devices(run), flush=True)
    try:
        with progress(experiment) as on_progress:
            results = pipeline.train(
                run, workdir, log=lambda text: print(text, flush=True), on_progress=on_progress
            )
    except NonFiniteLoss as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except signals.Interrupted as error:
        print(str(error), file=sys.stderr)
        return 128 + error.signum
    show(results)
    _report(run, workdir)
    print(f"everything is in {workdir}{_next(run, workdir)}")
    return 0


def _next(run: Any, workdir: Path) -> str:
    """Where the page is, and the commands that may follow."""
    page, dataset = workdir / "report.html", run.dataset
    row = dataset.test.items[dataset.test.start[0] : dataset.test.end[0]][-_ASKED:]
    history = ",".join(str(dataset.item_ids[item - 1]) for item in row if item > 0)
    where = shlex.quote(f"--workdir={workdir}")
    commands = (
        f"bin/recommend {where} {shlex.quote(f'--history={history}')}",
        f"bin/serve {where}",
        f"bin/compare {shlex.quote(str(workdir))}",
        f"bin/export {where} {shlex.quote(f'--output={workdir}-serving')}",
    )
    return (f"; its page is {page}" if page.exists() else "") + spelled(
        "".join(f"\n  {command}" for command in commands)
    )


def _report(run: Any, workdir: Path) -> None:
    """Writes report.html, unless JAXREC_REPORT is 0; a run is finished without it."""
    import jax

    from jaxrec_diff.reporting import drawing

    if (workdir / "report.html").exists() or os.environ.get("JAXREC_REPORT") == "0":
        return
    later = spelled(f"bin/report --workdir={workdir}")
    if not drawing.available() or jax.process_count() > 1:  # a page is made by one process
        print(f"{later} makes a page of it all")
        return
    from jaxrec_diff.reporting import run_page

    try:
        with waiting("writing the report; the results are saved") as tell:
            run_page.write(workdir, run, tell=tell)
    except Exception as error:  # whatever it is, the results are safe
        if os.environ.get("JAXREC_TRACEBACK"):
            raise
        print(f"no report: {type(error).__name__}: {error}; try {later}", file=sys.stderr)


def _card(run: Any) -> str:
    from jaxrec_diff.data.card import render

    return wrapped(render(run.dataset.card))


def _devices(run: Any) -> str:
    kinds = [device.device_kind for device in run.mesh.devices.flat]
    return (
        f"devices: {len(kinds)} x {kinds[0]}, {run.experiment.parallel}, seed {run.experiment.seed}"
    )
