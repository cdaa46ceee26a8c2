"""The commands `bin/train` and `bin/evaluate`.

Exit codes: 0 done, 2 input that cannot be used (one sentence on stderr, nothing written), 3 a loss
that stopped being a number, 130 and 143 after SIGINT and SIGTERM with the state saved.
"""

import os
import re
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

TRAIN_USAGE = """\
usage: bin/train --model=NAME [--data=SOURCE] [--workdir=DIR] [--preset=DATASET]
                 [--backbone=NAME|FILE.npz] [--section.field=VALUE ...]

  bin/train --model=dimerec                             the embedded synthetic data
  bin/train --model=dreamrec --data=clicks.csv          your own interactions
  bin/train --model=dreamrec --data=zhihu --train.learning-rate=0.003

--model    {models}
--data     synthetic (default), a csv, tsv, dat, inter, parquet or npz file of interactions,
           or a folder with train, valid and test tables
--workdir  where everything goes; the same command again continues there
           (default: runs/MODEL-DATA)
--preset   take the settings published for this data set
--backbone what ldiffrec, ltdiffrec, ddrm and diffuasr start from: another preset, trained
           first, or an npz file of its arrays

`bin/train --model=NAME --help` lists every field of that model.
"""

EVALUATE_USAGE = """\
usage: bin/evaluate --workdir=DIR [--split=valid|test] [--sampler=KIND] [--sampler-steps=N]
                    [--seeds=S] [--per-user=FILE.parquet] [--data=SOURCE]
                    [--protocol=honest|official] [--output=FILE.json] [--section.field=VALUE ...]

  bin/evaluate --workdir=runs/dimerec-synthetic --sampler=ddim --sampler-steps=10 --seeds=5

KIND is ddpm, mean, ddim, dpmpp, one_step or closed_form.
"""


class _Flags(NamedTuple):
    bare: dict[str, str]
    dotted: list[str]
    help: bool


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {"train": _train, "evaluate": _evaluate}
    if not argv or argv[0] not in commands:
        return _refuse(f"expected one of {', '.join(commands)}, got {argv[:1] or 'nothing'}")
    try:
        return commands[argv[0]](argv[1:])
    except (ValueError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        if os.environ.get("JAXREC_TRACEBACK"):
            raise
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130


def _refuse(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _train(argv: list[str]) -> int:
    flags = _split(argv, ("model", "data", "workdir", "preset", "backbone"))
    from jaxrec_diff import config  # heavy imports start here

    models = ", ".join(config.preset_names())
    if flags.help and "model" not in flags.bare:
        print(TRAIN_USAGE.format(models=models))
        return 0
    if "model" not in flags.bare:
        return _refuse(f"name a model: --model=NAME, one of {models}")
    from jaxrec_diff.data import dataset_name

    name, source = flags.bare["model"], flags.bare.get("data", "synthetic")
    dataset = dataset_name(source)
    settings_of = flags.bare.get("preset", dataset)
    preset = config.preset(name, settings_of)
    if "backbone" in flags.bare:
        chosen = config.with_backbone(preset.experiment, flags.bare["backbone"], settings_of)
        preset = preset._replace(experiment=chosen)
    if flags.help:
        print(config.show_help(preset.experiment, f"bin/train --model={name}"))
        return 0
    experiment = config.parse(preset.experiment, flags.dotted)
    _quiet_start()
    from jaxrec_diff import experiments
    from jaxrec_diff.training.loop import NonFiniteLoss

    prepared = experiments.prepare(name, experiment, source)
    prepared = prepared._replace(command=" ".join(["bin/train", *argv]))
    workdir = Path(flags.bare.get("workdir", f"runs/{name}-{dataset}"))
    experiments.check_workdir(prepared, workdir)
    print(f"{name} on {dataset}: {preset.origin}")
    print(_card(prepared))
    print(_devices(prepared), flush=True)
    try:
        with _progress(experiment) as on_progress:
            results = experiments.train(
                prepared, workdir, say=lambda text: print(text, flush=True), on_progress=on_progress
            )
    except NonFiniteLoss as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except experiments.Interrupted as error:
        print(str(error), file=sys.stderr)
        return 128 + error.signum
    _show(results)
    print(f"everything is in {workdir}")
    return 0


def _evaluate(argv: list[str]) -> int:
    known = (
        "workdir", "split", "sampler", "sampler-steps", "seeds", "per-user", "data", "protocol",
        "output",
    )  # fmt: skip
    flags = _split(argv, known)
    if flags.help:
        print(EVALUATE_USAGE)
        return 0
    bare = flags.bare
    if "workdir" not in bare:
        return _refuse("name a trained workdir: --workdir=DIR")
    split = bare.get("split", "test")
    if split not in ("valid", "test"):
        return _refuse(f"--split must be valid or test, got {split!r}")
    workdir = Path(bare["workdir"])
    if not (workdir / "config.json").exists():
        return _refuse(f"{workdir} holds no config.json; name a workdir that bin/train made")
    _quiet_start()
    from jaxrec_diff import evaluate, experiments, report

    name, source, experiment = experiments.read_config(workdir)
    from jaxrec_diff import config

    dotted = list(flags.dotted)
    for flag, field in (
        ("sampler", "model.sampler.kind"),
        ("sampler-steps", "model.sampler.steps"),
        ("seeds", "eval.seeds"),
        ("protocol", "eval.protocol"),
    ):
        if flag in bare:
            dotted.append(f"--{field}={bare[flag]}")
    experiment = config.parse(experiment, dotted)
    prepared = experiments.prepare(name, experiment, bare.get("data", source))
    prepared = prepared._replace(command=" ".join(["bin/evaluate", *argv]))
    experiments.check_vocabulary(prepared, workdir)
    output = Path(bare.get("output", workdir / f"evaluation-{_label(bare, split)}.json"))
    runs, controls = experiments.reevaluate(prepared, workdir, split)
    found = evaluate.mean_over_seeds(runs)
    slices = {"valid": prepared.dataset.valid, "test": prepared.dataset.test}[split]
    results = {
        "model": name,
        "dataset": prepared.dataset.name,
        "split": split,
        "protocol": experiment.eval.protocol,
        "sampler": config.to_json(experiment)["model"].get("sampler", {}),
        "seeds": experiment.eval.seeds,
        "num_users": len(next(iter(found.per_user.values()))),
        "metrics": found.metrics,
        "spread": evaluate.spread(runs),
        "controls": controls,
        "optimum": experiments.optimum_of(prepared, slices),
        "diagnostics": found.diagnostics,
        "data_hash": prepared.dataset.card["hash"],
    } | experiments.provenance(prepared)
    report.write_json(output, results)
    _show(results)
    if experiment.eval.seeds > 1:
        spread = ", ".join(f"{k} {v:.4f}" for k, v in results["spread"].items() if "@20" in k)
        print(f"deviation over {experiment.eval.seeds} draws of the sampler: {spread}")
    if "per-user" in bare:
        experiments.write_per_user(prepared, slices, split, found, Path(bare["per-user"]))
        print(f"per-user values are in {bare['per-user']}")
    print(f"results are in {output}")
    return 0


def _split(argv: list[str], bare_names: tuple[str, ...]) -> _Flags:
    """Separates the bare flags from the dotted ones."""
    bare: dict[str, str] = {}
    dotted: list[str] = []
    rest, asked = list(argv), False
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            asked = True
            continue
        found = re.fullmatch(r"--([a-z][a-z_-]*)(?:=(.*))?", word, re.DOTALL)
        name = found.group(1).replace("_", "-") if found else ""
        if not found or name not in bare_names:
            dotted.append(word)
            continue
        value = found.group(2)
        if value is None:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"--{name} needs a value: --{name}=VALUE")
            value = rest.pop(0)
        if name in bare:
            raise ValueError(f"--{name} is given twice; give it once")
        bare[name] = value
    return _Flags(bare, dotted, asked)


def _quiet_start() -> None:
    """Turns the compilation cache on; a folder given by JAX_COMPILATION_CACHE_DIR wins."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "jaxrec_diff" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _card(prepared: Any) -> str:
    from jaxrec_diff.data import render

    return render(prepared.dataset.card)


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
    from jaxrec_diff import report

    metric = f"valid/{experiment.eval.metric}"
    if not sys.stdout.isatty():

        def plain(event: Any) -> None:
            if event.kind == "epoch":
                line = report.epoch_line(
                    event.step, event.epoch, event.examples_per_second, event.metrics, metric
                )
                print(line, flush=True)

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
        best = [0.0]

        def fancy(event: Any) -> None:
            if event.kind == "epoch":
                best[0] = max(best[0], event.metrics[metric])
                line = report.epoch_line(
                    event.step, event.epoch, event.examples_per_second, event.metrics, metric
                )
                bar.console.print(line, highlight=False)
            if event.kind in ("train", "resume"):
                bar.update(
                    task,
                    completed=event.step,
                    total=event.total_steps,
                    description=f"epoch {event.epoch:.1f} loss {event.metrics.get('loss', 0):.4f} "
                    f"best {best[0]:.4f}",
                    speed=f"{event.examples_per_second:,.0f} examples/s",
                )

        yield fancy


def _show(results: dict[str, Any]) -> None:
    from jaxrec_diff import report

    selected = (
        f", checkpoint of step {results['best_step']} by {results['selected_by']}"
        if ("best_step" in results)
        else ""
    )
    print()
    print(
        f"{results['model']} on {results['dataset']}, {results['split']} split, "
        f"{results['num_users']} rows, {results['protocol']} protocol{selected}"
    )
    print(report.table(results))
    for line in report.diagnostics_lines(results["diagnostics"]):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
