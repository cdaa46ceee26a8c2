"""The commands: `bin/train` and `bin/evaluate` here, the others in `commands`.

Exit codes: 0 done, 2 input that cannot be used (one sentence on stderr, nothing written), 3 a loss
that stopped being a number, 130 and 143 after SIGINT and SIGTERM with the state saved, 141 when
nobody reads on.
"""

import importlib
import json
import os
import re
import signal
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxrec_diff.terminal import (
    FILE,
    PLAIN,
    TRAIN,
    Accepts,
    muted,
    quiet_start,
    refuse,
    split_flags,
    trained_workdir,
    wrapped,
)

# Modules of `commands`, loaded when they are asked for.
COMMANDS = (
    "recommend",
    "compare",
    "report",
    "export",
    "augment",
    "convert",
    "tune",
    "completion",
)

TRAIN_USAGE = """\
usage: bin/train --model=NAME [--data=SOURCE] [--workdir=DIR]
                 [--preset=DATASET|FILE.json] [--backbone=NAME|FILE.npz]
                 [--quiet] [--json] [--section.field=VALUE ...]

  bin/train --model=dimerec                      the embedded synthetic data
  bin/train --model=dreamrec --data=clicks.csv   your own interactions
  bin/train --model=dreamrec --data=zhihu --train.learning-rate=0.003

--model    {models}
--data     synthetic (default), a csv, tsv, dat, inter, parquet or npz file of
           interactions, a folder of train, valid and test tables, or tfds:DIR,
           a prepared TFDS directory
--workdir  where everything goes; the same command again continues there
           (default: runs/MODEL-DATA)
--preset   take the settings published for this data set, or those in a json
           file: what bin/tune found, or another run's config.json
--backbone what ldiffrec, ltdiffrec, ddrm and diffuasr start from: another
           preset, trained first, or an npz file of its arrays
--quiet    errors only            --json  the results as one json object

bin/train --model=NAME --help lists every field of that model. Among them are
--log.tensorboard=true, event files in WORKDIR/tensorboard, and
--log.wandb=PROJECT, which tells Weights & Biases. bin/completion helps to type.
"""

EVALUATE_USAGE = """\
usage: bin/evaluate --workdir=DIR [--split=valid|test] [--sampler=KIND]
                    [--sampler-steps=N] [--seeds=S] [--data=SOURCE]
                    [--protocol=honest|official] [--per-user=FILE.parquet]
                    [--output=FILE.json] [--quiet] [--json]
                    [--section.field=VALUE ...]

  bin/evaluate --workdir=runs/dimerec-synthetic --split=valid
  bin/evaluate --workdir=runs/dimerec-synthetic --sampler=ddim \\
               --sampler-steps=10 --seeds=5

KIND is ddpm, mean, ddim, dpmpp, one_step or closed_form.

--per-user  a row a user with every metric
--output    where the results go (default: in DIR, named after the flags)
--quiet     errors only            --json  the results as one json object
"""

EVALUATE = Accepts(
    {
        "workdir": FILE,
        "split": ("valid", "test"),
        "sampler": "model.sampler.kind",
        "sampler-steps": PLAIN,
        "seeds": PLAIN,
        "per-user": FILE,
        "data": FILE,
        "protocol": "eval.protocol",
        "output": FILE,
    },
    ("quiet", "json"),
    fields="",
)


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as `| head` does; Python's own flush at the end has to fail no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(argv: list[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    known = {"train": _train, "evaluate": _evaluate}
    names = [*known, *COMMANDS]
    if not argv or argv[0] not in names:
        return refuse(f"expected one of {', '.join(names)}, got {argv[:1] or 'nothing'}")
    try:
        if argv[0] in known:
            return known[argv[0]](argv[1:])
        module = importlib.import_module(f"jaxrec_diff.commands.{argv[0]}")
        return module.run(argv[1:])
    except (ValueError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        if os.environ.get("JAXREC_TRACEBACK"):
            raise
        return refuse(str(error))
    except KeyboardInterrupt:
        return 130


def _train(argv: list[str]) -> int:
    flags = split_flags(argv, TRAIN)
    from jaxrec_diff import config
    from jaxrec_diff.data.sources import dataset_name

    if flags.help and "model" not in flags.bare:
        print(TRAIN_USAGE.format(models=_models()))
        return 0
    chosen = config.choose(flags.bare)
    if flags.help:
        print(config.show_help(chosen.preset.experiment, f"bin/train --model={chosen.name}"))
        return 0
    dataset = dataset_name(chosen.source)
    workdir = Path(flags.bare.get("workdir", f"runs/{chosen.name}-{dataset}"))
    with muted(flags.switches):
        code = _train_in(workdir, chosen, flags.dotted, " ".join(["bin/train", *argv]))
    if code == 0 and "json" in flags.switches:
        print(json.dumps(json.loads((workdir / "results.json").read_text())))
    return code


def _models() -> str:
    """The presets' names, as the usage has room for them."""
    from jaxrec_diff import config

    return textwrap.fill(
        ", ".join(config.preset_names()), 80, initial_indent=" " * 11, subsequent_indent=" " * 11
    ).strip()


def _train_in(workdir: Path, chosen: Any, dotted: list[str], command: str) -> int:
    from jaxrec_diff import config

    experiment = config.parse(chosen.preset.experiment, dotted)
    quiet_start()
    from jaxrec_diff.experiments import prepare, signals, train
    from jaxrec_diff.experiments import workdir as experiments_workdir
    from jaxrec_diff.training.progress import NonFiniteLoss

    prepared = prepare.prepare(chosen.name, experiment, chosen.source)
    prepared = prepared._replace(command=command)
    experiments_workdir.check_workdir(prepared, workdir)
    print(f"{chosen.name} on {prepared.dataset.name}: {chosen.preset.origin}")
    print(_card(prepared))
    print(_devices(prepared), flush=True)
    try:
        with _progress(experiment) as on_progress:
            results = train.train(
                prepared, workdir, say=lambda text: print(text, flush=True), on_progress=on_progress
            )
    except NonFiniteLoss as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except signals.Interrupted as error:
        print(str(error), file=sys.stderr)
        return 128 + error.signum
    _show(results)
    _report(prepared, workdir)
    print(f"everything is in {workdir}")
    return 0


# Settings that are spent once a model is trained and its items are made.
_TRAINING_READS = ("--train.", "--backbone.train.", "--data.prefix-")


def _evaluate(argv: list[str]) -> int:
    flags = split_flags(argv, EVALUATE)
    if flags.help:
        print(EVALUATE_USAGE)
        return 0
    bare = flags.bare
    split = bare.get("split", "test")
    workdir = trained_workdir(flags)
    for flag in flags.dotted:
        if flag.startswith(_TRAINING_READS):
            name = flag.split("=")[0]
            return refuse(f"{name} changes nothing in an evaluation; bin/train takes it")
    quiet_start()
    from jaxrec_diff.experiments import files, judging, reopen
    from jaxrec_diff.experiments import results as experiments_results

    dotted = list(flags.dotted)
    for flag, field in (
        ("sampler", "model.sampler.kind"),
        ("sampler-steps", "model.sampler.steps"),
        ("seeds", "eval.seeds"),
        ("protocol", "eval.protocol"),
    ):
        if flag in bare:
            dotted.append(f"--{field}={bare[flag]}")
    prepared = reopen.reopen(workdir, dotted, bare.get("data"))
    prepared = prepared._replace(command=" ".join(["bin/evaluate", *argv]))
    output = Path(bare.get("output", workdir / f"evaluation-{_label(bare, split)}.json"))
    results, found = judging.evaluation(prepared, workdir, split)
    files.write_json(output, results)
    with muted(flags.switches):
        _show(results)
        seeds = prepared.experiment.eval.seeds
        if seeds > 1:
            shown = ("hr@10", "hr@20", "ndcg@10", "ndcg@20")
            spread = ", ".join(f"{k} {v:.4f}" for k, v in results["spread"].items() if k in shown)
            print(wrapped(f"deviation over {seeds} draws of the sampler: {spread}"))
        if "per-user" in bare:
            slices = {"valid": prepared.dataset.valid, "test": prepared.dataset.test}[split]
            experiments_results.write_per_user(
                prepared, slices, split, found, Path(bare["per-user"])
            )
            print(f"per-user values are in {bare['per-user']}")
        print(f"results are in {output}")
    if "json" in flags.switches:
        print(json.dumps(results))
    return 0


def _report(prepared: Any, workdir: Path) -> None:
    """Writes report.html, unless JAXREC_REPORT is 0; a run is finished without it."""
    from jaxrec_diff.reporting import figures

    if (workdir / "report.html").exists() or os.environ.get("JAXREC_REPORT") == "0":
        return
    later = f"bin/report --workdir={workdir}"
    if not figures.available():
        print(f"{later} makes a page of it all")
        return
    from jaxrec_diff.reporting import run_page

    try:
        run_page.write(workdir, prepared)
    except Exception as error:  # whatever it is, the results are safe
        if os.environ.get("JAXREC_TRACEBACK"):
            raise
        print(f"no report: {type(error).__name__}: {error}; try {later}", file=sys.stderr)


def _card(prepared: Any) -> str:
    from jaxrec_diff.data.card import render

    return wrapped(render(prepared.dataset.card))


def _devices(prepared: Any) -> str:
    kinds = [device.device_kind for device in prepared.mesh.devices.flat]
    return (
        f"devices: {len(kinds)} x {kinds[0]}, {prepared.experiment.parallel}, "
        f"seed {prepared.experiment.seed}"
    )


def _label(bare: dict[str, str], split: str) -> str:
    """A file name part that tells one re-evaluation from another."""
    parts = [split] + [
        f"{flag.replace('-', '_')}_{bare[flag]}"
        for flag in ("protocol", "sampler", "sampler-steps", "seeds")
        if flag in bare
    ]
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in parts)


@contextmanager
def _progress(experiment: Any):
    """A bar on a terminal, a line an epoch anywhere else."""
    from jaxrec_diff.evaluation import config as evaluation_config
    from jaxrec_diff.experiments import phases
    from jaxrec_diff.training import progress

    def line(event: Any) -> str:
        metric = f"valid/{phases.metric_of(experiment, event.phase)}"
        return progress.epoch_line(
            event.step, event.epoch, event.examples_per_second, event.metrics, metric
        )

    if not sys.stdout.isatty():

        def plain(event: Any) -> None:
            if event.kind == "epoch":
                print(line(event), flush=True)

        yield plain
        return

    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=None, speed="")
        best: dict[str, float] = {}  # of each phase

        def fancy(event: Any) -> None:
            if event.kind == "epoch":
                metric = phases.metric_of(experiment, event.phase)
                better = min if metric == evaluation_config.LOSS else max
                now = event.metrics[f"valid/{metric}"]
                best[event.phase] = better(best.get(event.phase, now), now)
                bar.console.print(line(event), highlight=False)
            if event.kind in ("train", "resume"):
                bar.update(
                    task,
                    completed=event.step,
                    total=event.total_steps,
                    description=f"epoch {event.epoch:.1f} loss {event.metrics.get('loss', 0):.4f} "
                    + (f"best {best[event.phase]:.4f}" if event.phase in best else ""),
                    speed=f"{event.examples_per_second:,.0f} examples/s",
                )

        yield fancy


def _show(results: dict[str, Any]) -> None:
    from jaxrec_diff.reporting import tables

    print()
    print(
        f"{results['model']} on {results['dataset']}, {results['split']} split, "
        f"{results['num_users']:,} rows, {results['protocol']} protocol"
    )
    if "best_step" in results:
        print(f"checkpoint of step {results['best_step']:,}, chosen by {results['selected_by']}")
    print(tables.table(results))
    for line in tables.diagnostics_lines(results["diagnostics"]):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
