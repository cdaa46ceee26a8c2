"""A run from settings to results, and its evaluation afterwards; what the commands call."""

import json
import os
import platform
import shlex
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrec_diff import (
    augment,
    batches,
    candidates,
    config,
    evaluate,
    feeds,
    item_weights,
    models,
    report,
    tracking,
)
from jaxrec_diff.config import Experiment
from jaxrec_diff.data import Dataset, load, optimum, views
from jaxrec_diff.models.base import DataSpec, Model
from jaxrec_diff.training import checkpoint, loop, parallel, stages
from jaxrec_diff.training.optim import make
from jaxrec_diff.training.state import TrainState, averaged, create

Say = Callable[[str], None]


class Prepared(NamedTuple):
    """Settings that were found to fit the data and the devices; nothing is written yet."""

    name: str  # the preset's
    source: str
    experiment: Experiment
    dataset: Dataset
    mesh: jax.sharding.Mesh
    command: str = ""  # what a user typed, for the record
    exports: Mapping[str, np.ndarray] = MappingProxyType({})  # what the backbone learned


class Interrupted(RuntimeError):
    """A signal asked the run to stop; its number is `signum`."""

    def __init__(self, signum: int, workdir: Path):
        self.signum = signum
        super().__init__(
            f"stopped by {signal.Signals(signum).name}; the same command goes on from {workdir}"
        )


def prepare(name: str, experiment: Experiment, source: str) -> Prepared:
    """Reads the data and checks everything that can be checked before training.

    Raises:
      ValueError: in one sentence, on data or settings that cannot be used.
    """
    dataset = load(source, experiment.data)
    available = jax.devices()
    if experiment.devices > len(available):
        raise ValueError(
            f"devices={experiment.devices} asked for, but JAX sees {len(available)}; "
            f"at most {len(available)}"
        )
    for control in experiment.eval.controls:
        item_weights.check(control, dataset.num_items)
    _check_candidates(experiment.eval.candidates, dataset)
    _check_metrics(name, experiment)
    mesh = parallel.make_mesh(available[: experiment.devices or len(available)])
    raw = Prepared(name, source, experiment, dataset, mesh)
    prepared = _viewed(raw)
    loop.check(experiment.train, feed_of(prepared).num_examples, mesh)
    system = models.system(experiment.model)
    arrays: dict[str, np.ndarray] = {}
    if experiment.backbone is not None:
        earlier = _earlier(raw)
        loop.check(earlier.experiment.train, feed_of(earlier).num_examples, mesh)
        build(earlier)
        backbone = models.system(experiment.backbone.model)
        given = backbone.exports
        origin = f"backbone {experiment.backbone.preset}"
        if system.check is not None:
            reads = {"reader"} if backbone.reader is not None else set()
            system.check(experiment.model, spec_of(prepared), frozenset(given) | reads)
    elif generates(prepared.experiment):
        raise ValueError(
            f"{name} ends in a recommender trained on its longer sequences, but --backbone="
            f"{experiment.embeddings or 'none'} is no model; --backbone=sasrec is"
        )
    else:
        arrays = _read_arrays(Path(experiment.embeddings)) if experiment.embeddings else {}
        given, origin = tuple(arrays), experiment.embeddings or "no backbone"
    if experiment.embeddings and not system.needs:
        raise ValueError(f"{name} starts from no arrays; leave out {experiment.embeddings}")
    for arrays_of in () if system.spared(experiment.model) else system.needs:
        if not set(arrays_of) & set(given):
            wanted = " or ".join(repr(array) for array in arrays_of)
            raise ValueError(
                f"{name} needs an array {wanted}, but {origin} has {', '.join(given) or 'none'}"
            )
    prepared = prepared._replace(exports=arrays)
    if experiment.backbone is None:
        build(prepared)
    return prepared._replace(dataset=dataset)


def _check_metrics(name: str, experiment: Experiment) -> None:
    judged = [] if generates(experiment) else [(name, experiment.eval)]
    if experiment.backbone is not None:
        judged.append((experiment.backbone.preset, experiment.backbone.eval))
    for model, rules in judged:
        if rules.metric == evaluate.LOSS:
            raise ValueError(
                f"eval.metric={evaluate.LOSS} is of models that generate items, which {model} does "
                f"not; {evaluate.EvalConfig.metric} is one of its metrics"
            )


def _check_candidates(count: int, dataset: Dataset) -> None:
    if count == 0:
        return
    if (dataset.test.stop - dataset.test.end != 1).any():
        raise ValueError(
            f"eval.candidates={count} ranks one answer a row, but {dataset.name} has rows with "
            "several; take 0"
        )
    candidates.draw(dataset.test, dataset.num_items, count)


def spec_of(prepared: Prepared) -> DataSpec:
    """What the model of a run may know of its data."""
    dataset, experiment = prepared.dataset, prepared.experiment
    spec = DataSpec(
        dataset.num_users,
        dataset.num_items,
        experiment.data.max_len,
        dataset.train_counts,
        dataset.profiles,
        prepared.exports,
        experiment.data.prefix_len,
    )
    if experiment.backbone is None or not prepared.exports:
        return spec
    reader = models.system(experiment.backbone.model).reader
    if reader is None:
        return spec
    return spec._replace(reader=reader(experiment.backbone.model, spec, prepared.exports))


def generates(experiment: Experiment) -> bool:
    """Whether a run's model makes items for a recommender that is trained at the end."""
    return models.feed(experiment.model) == "prefixes"


def feed_of(prepared: Prepared) -> feeds.Feed:
    """How the examples and queries of a run are cut."""
    experiment, dataset = prepared.experiment, prepared.dataset
    system, kind = models.system(experiment.model), models.feed(experiment.model)
    fed = feeds.feed(kind, dataset, experiment.data)
    batch_size, devices = experiment.train.batch_size, prepared.mesh.size
    # batches drawn by themselves hold any number of histories of a length; one that is larger than
    # the data is about to be refused
    in_strata = experiment.train.epoch_sampler == "perm" and batch_size <= fed.num_examples
    if system.several_lengths(experiment.model) and in_strata:
        return feeds.by_length(kind, dataset, experiment.data, batch_size, devices)
    return fed


def build(prepared: Prepared, axis_name: str | None = None) -> Model:
    """The model of a run."""
    experiment = prepared.experiment
    return models.system(experiment.model).build(
        experiment.model,
        spec_of(prepared),
        axis_name=axis_name,
        protocol=experiment.eval.protocol,
    )


def train(
    prepared: Prepared,
    workdir: Path,
    *,
    say: Say = print,
    on_progress: Callable[[loop.Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains to early stopping in `workdir` and returns what `results.json` holds.

    A workdir of the same settings is continued; a finished one is only reported, unless more epochs
    are asked for than it was trained for.

    Raises:
      ValueError: if the workdir belongs to other settings or other data.
      Interrupted: after SIGINT or SIGTERM, with the state saved.
      loop.NonFiniteLoss: if the loss stops being a number.
    """
    check_workdir(prepared, workdir)
    finished = workdir / "results.json"
    if finished.exists():
        stored = _read_json(finished)
        asked = prepared.experiment.train.num_epochs
        if generates(prepared.experiment) or asked <= stored.get("num_epochs", asked):
            say(f"{workdir} is finished; its results:")
            return stored
    started = time.time()
    fitted = fit(prepared, workdir, say=say, on_progress=on_progress)
    final = _with_exports(prepared, workdir)
    results = _results(final, fitted, time.time() - started, workdir)
    if generates(prepared.experiment):
        results |= _generated(prepared, workdir)
    report.write_json(finished, results)
    return results


def fit(
    prepared: Prepared,
    workdir: Path,
    *,
    say: Say = print,
    on_progress: Callable[[loop.Progress], None] = lambda _: None,
) -> loop.Fit:
    """Trains as `train` does, but ends before the test split is looked at.

    Unless `eval.track_test` asks for it. What `on_progress` raises ends the training; it hears of
    earlier phases with their name in `phase`.
    """
    check_workdir(prepared, workdir)
    open_workdir(prepared, workdir)
    return stages.run(_stages(prepared, say, on_progress), prepared.dataset, _fit, workdir)


def fit_backbone(prepared: Prepared, workdir: Path, *, say: Say = print) -> Path | None:
    """Trains what a run starts from, if `workdir` has it not yet; returns the file of its arrays,
    which may be copied to the same place under another workdir of that backbone."""
    if prepared.experiment.backbone is None:
        return None
    first = _stages(prepared, say, lambda _: None)[:1]
    stages.exports(first, prepared.dataset, _fit, workdir)
    return backbone_path(workdir)


def backbone_path(workdir: Path) -> Path:
    """Where a run keeps the arrays that it starts from."""
    return stages.export_path(workdir, _BACKBONE)


class Restored(NamedTuple):
    """A trained model with its arrays."""

    prepared: Prepared
    model: Model
    params: Any
    state: Any


def restore(prepared: Prepared, workdir: Path) -> Restored:
    """The best checkpoint of a workdir.

    Raises:
      ValueError: if it holds none.
    """
    prepared = _with_exports(prepared, workdir)
    model = build(prepared)
    best = loop.load(workdir / "checkpoints", _abstract_state(prepared, model))
    return Restored(prepared, model, averaged(best), best.state)


def honest(restored: Restored) -> Restored:
    """The same arrays as a user is served by them.

    A system's released script may draw where a user should not have to (dropout at evaluation) and
    let rows compete that are no items (padding).
    """
    prepared = restored.prepared
    rules = replace(prepared.experiment.eval, protocol="honest")
    prepared = prepared._replace(experiment=replace(prepared.experiment, eval=rules))
    return restored._replace(prepared=prepared, model=build(prepared))


def reevaluate(
    prepared: Prepared, workdir: Path, split: str
) -> tuple[list[evaluate.Evaluation], dict[str, dict[str, float]]]:
    """Evaluates the best checkpoint of a workdir: one Evaluation a seed, and the controls."""
    prepared, model, params, state = restore(prepared, workdir)
    experiment = prepared.experiment
    rules = evaluate.rules_of(experiment.eval, models.system(experiment.model).official)
    run = _evaluator(prepared, model, split, rules, diagnose=True)
    runs = evaluate.over_seeds(run, params, state, experiment.seed, experiment.eval.seeds)
    return runs, _controls(prepared, split, rules, _tuned(prepared))


def evaluation(
    prepared: Prepared, workdir: Path, split: str
) -> tuple[dict[str, Any], evaluate.Evaluation]:
    """What `bin/evaluate` writes of the best checkpoint, and the values of every user.

    Raises:
      ValueError: on a split that is neither valid nor test.
    """
    if split not in ("valid", "test"):
        raise ValueError(f"split must be valid or test, got {split!r}")
    dataset, experiment = prepared.dataset, prepared.experiment
    runs, controls = reevaluate(prepared, workdir, split)
    found = evaluate.mean_over_seeds(runs)
    results = {
        "model": prepared.name,
        "dataset": dataset.name,
        "split": split,
        "protocol": experiment.eval.protocol,
        "sampler": config.to_json(experiment)["model"].get("sampler", {}),
        "seeds": experiment.eval.seeds,
        "num_users": len(next(iter(found.per_user.values()))),
        "metrics": found.metrics,
        "spread": evaluate.spread(runs),
        "controls": controls,
        "optimum": optimum_of(prepared, {"valid": dataset.valid, "test": dataset.test}[split]),
        "diagnostics": found.diagnostics,
        "data_hash": dataset.card["hash"],
    } | provenance(prepared)
    return results, found


def evaluate_split(prepared: Prepared, params: Any, state: Any, split: str) -> evaluate.Evaluation:
    """One draw of a model under the settings of `prepared`, which may differ from a run's."""
    rules = evaluate.rules_of(
        prepared.experiment.eval, models.system(prepared.experiment.model).official
    )
    run = _evaluator(prepared, build(prepared), split, rules)
    return evaluate.over_seeds(run, params, state, prepared.experiment.seed, 1)[0]


def optimum_of(prepared: Prepared, slices: batches.Slices) -> dict[str, float]:
    """The best reachable figures, where the law of the data is known; else {}.

    They hold for the honest rules, under which items of the history are no candidates; the law
    repeats no item.
    """
    if prepared.dataset.law is None:
        return {}
    return optimum(prepared.dataset.law, slices, prepared.experiment.eval.ks)


def provenance(prepared: Prepared) -> dict[str, Any]:
    """What a figure needs beside it to be believed."""
    return {
        "command": prepared.command,
        "seed": prepared.experiment.seed,
        "device": str(prepared.mesh.devices.flat[0].device_kind),
        "devices": [str(device.device_kind) for device in prepared.mesh.devices.flat],
        "platform": f"{platform.machine()} {os.cpu_count()} cores",
        "versions": {
            name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")
        }
        | {"python": platform.python_version()},
        "commit": _commit(),
    }


def check_workdir(prepared: Prepared, workdir: Path) -> None:
    """Refuses a workdir that holds a run of other settings or other data, and logs that nothing
    installed can write.

    Raises:
      ValueError: naming the first field that differs, or the package that is missing.
    """
    tracking.check(prepared.experiment.log)
    path = workdir / "config.json"
    if not path.exists():
        if workdir.is_file():
            raise ValueError(f"{workdir} is a file; name a folder")
        if workdir.is_dir() and any(workdir.iterdir()):
            raise ValueError(f"{workdir} is not empty and holds no run; name a new folder")
        return
    there, ours = _read_json(path), stored(prepared)
    if isinstance(there, dict) and there.get("preset") == ours["preset"]:
        there = _completed(there, prepared.experiment)
    differs = config.difference(there, ours)
    if differs:
        raise ValueError(f"{workdir} holds a run with {differs}; take another workdir")
    card, ours = _read_json(workdir / "data_card.json"), prepared.dataset.card
    for name, what in (("hash", "a split"), ("generated_hash", "generated items")):
        there, here = (str(each.get(name, "none"))[:12] for each in (card, ours))
        if there != here:
            raise ValueError(
                f"{workdir} was trained on {what} with hash {there}, this data has {here}; "
                "take another workdir"
            )


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM; a second SIGINT interrupts at once."""
    caught: list[int] = []

    def handle(signum, frame):
        del frame
        if caught and signum == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(signum)

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


# Share of the initial spread of item rows below which a run warns of their collapse.
_LEAST_SPREAD = 0.5
_BACKBONE = "backbone"  # the earlier phase's name, and its folder's
_GENERATOR = "generator"  # of the phase that puts items ahead of sequences


class _Fitting(NamedTuple):
    """What the driver of stages hands to `_fit`."""

    prepared: Prepared
    say: Say
    on_progress: Callable[[loop.Progress], None]


def _stages(prepared: Prepared, say: Say, on_progress) -> tuple[stages.Stage, ...]:
    """The phases of a run, the last of which is the run itself."""

    def main(dataset, exports):
        del dataset
        return _Fitting(
            prepared._replace(exports=exports.get(_BACKBONE, prepared.exports)), say, on_progress
        )

    last = stages.Stage(prepared.name, build=main, export=lambda built, fitted: {})
    if prepared.experiment.backbone is None:
        return (last,)
    earlier = _earlier(prepared)

    def first(dataset, exports):
        del dataset, exports
        say(f"first {earlier.name}, whose arrays {prepared.name} starts from")
        return _Fitting(earlier, say, _of_phase(_BACKBONE, on_progress))

    def export(built, fitted):
        say(f"{earlier.name}: best {_describe(fitted, earlier)}; now {prepared.name}")
        system = models.system(earlier.experiment.model)
        assert system.export is not None  # `prepare` looked at what it exports
        return system.export(
            earlier.experiment.model,
            spec_of(earlier),
            averaged(fitted.train),
            fitted.train.state,
        )

    raw = stages.Stage(_BACKBONE, build=first, export=export)
    if not generates(prepared.experiment):
        return raw, last

    def generator(dataset, exports):
        del dataset
        viewed = _viewed(prepared._replace(exports=exports[_BACKBONE]))
        return _Fitting(viewed, say, _of_phase(_GENERATOR, on_progress))

    def items_before(built, fitted):
        say(f"{prepared.name}: best {_describe(fitted, built.prepared)}; now its items")
        chosen = built.prepared._replace(dataset=prepared.dataset)
        return {"prefix": _joined(generate(chosen, fitted.train))}

    def final(dataset, exports):
        del dataset
        say(f"last {earlier.name} again, from scratch on the longer sequences")
        return _Fitting(_later(prepared, exports[_GENERATOR]["prefix"]), say, on_progress)

    return (
        raw,
        stages.Stage(_GENERATOR, build=generator, export=items_before),
        last._replace(build=final),
    )


def _of_phase(name: str, on_progress: Callable[[loop.Progress], None]):
    return lambda progress: on_progress(progress._replace(phase=name))


def metric_of(experiment: Experiment, phase: str = "") -> str:
    """The validation metric that picks the checkpoint of a phase, by default of the last one.

    A generator's run ends in its backbone again.
    """
    backbone = experiment.backbone
    ends_in_it = phase == "" and generates(experiment)
    own = backbone is None or not (phase == _BACKBONE or ends_in_it)
    return experiment.eval.metric if own else backbone.eval.metric


def _describe(fitted: loop.Fit, prepared: Prepared) -> str:
    metric = prepared.experiment.eval.metric
    return f"valid {metric} {_best_valid(fitted, prepared):.4f} at step {fitted.best_step}"


def _best_valid(fitted: loop.Fit, prepared: Prepared) -> float:
    """The best validation metric; a loss is minus its score."""
    sign = -1.0 if prepared.experiment.eval.metric == evaluate.LOSS else 1.0
    return sign * fitted.best_score


def _earlier(prepared: Prepared) -> Prepared:
    """The backbone of a run as a run of its own."""
    phase = prepared.experiment.backbone
    experiment = replace(
        prepared.experiment,
        model=phase.model,
        train=phase.train,
        eval=phase.eval,
        backbone=None,
        embeddings="",
    )
    return prepared._replace(name=phase.preset, experiment=experiment)


def _later(prepared: Prepared, prefix: np.ndarray) -> Prepared:
    """The backbone of a run as it is trained at the end, on longer sequences."""
    earlier = _earlier(prepared)
    longer = views.longer(prepared.dataset, prefix)
    return earlier._replace(name=f"{earlier.name}+{prepared.name}", dataset=longer)


def _viewed(prepared: Prepared) -> Prepared:
    """A run on the data set as its own model reads it."""
    kind = models.feed(prepared.experiment.model)
    viewed = feeds.view(kind, prepared.dataset, prepared.experiment.data)
    return prepared._replace(dataset=viewed)


def generate(
    prepared: Prepared,
    train: TrainState,
    histories: batches.Slices | None = None,
    *,
    batch_size: int | None = None,
    first: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """The items that a generator puts ahead of histories, in chunks (first row, i32[b, M]).

    Args:
      prepared: the generator's run with its backbone's exports, on the data as it was read.
      train: what was fitted.
      histories: by default the training items of every user who may get any.
      batch_size: histories at once, by default that of evaluation; changes no item.
      first: row to begin with.
    """
    data = prepared.experiment.data
    return augment.prefixes(
        build(prepared),
        averaged(train),
        train.state,
        _short(_raw(prepared), data.prefix_max_items) if histories is None else histories,
        seed=prepared.experiment.seed,
        max_len=data.max_len,
        batch_size=batch_size or prepared.experiment.eval.batch_size,
        first=first,
        rounding=augment.Rounding(data.prefix_dedup, data.prefix_exclude_seen),
    )


def _short(profiles: batches.Slices, most: int) -> batches.Slices:
    """Rows of more than `most` items emptied, so that nothing is put ahead of them; 0: none."""
    few = profiles.end - profiles.start <= most
    return profiles._replace(end=np.where(few, profiles.end, profiles.start)) if most else profiles


def _joined(chunks: Iterator[tuple[int, np.ndarray]]) -> np.ndarray:
    return np.concatenate([chunk for _, chunk in chunks])


class Generating(NamedTuple):
    """A generator that a run has trained."""

    prepared: Prepared  # with the backbone's exports, on the data as it was read
    train: TrainState


def generator_of(prepared: Prepared, workdir: Path) -> Generating:
    """The trained generator of a workdir.

    Raises:
      ValueError: if the run has none, or has not finished its training.
    """
    if not generates(prepared.experiment):
        raise ValueError(f"{workdir} holds a {prepared.name}, which generates no items")
    _check_phases(prepared, workdir)
    arrays = _read_arrays(stages.export_path(workdir, _BACKBONE))
    viewed = _viewed(prepared._replace(exports=arrays))
    folder = stages.export_path(workdir, _GENERATOR).parent / "checkpoints"
    best = loop.load(folder, _abstract_state(viewed, build(viewed)))
    return Generating(viewed._replace(dataset=prepared.dataset), best)


def _raw(prepared: Prepared) -> batches.Slices:
    profiles = prepared.dataset.profiles
    assert profiles is not None  # the view of a generator has looked
    return profiles


def _with_exports(prepared: Prepared, workdir: Path) -> Prepared:
    """The run with what its earlier phases left in the workdir.

    Raises:
      ValueError: if one of them is not finished.
    """
    if prepared.experiment.backbone is None:
        return prepared
    _check_phases(prepared, workdir)
    if generates(prepared.experiment):
        arrays = _read_arrays(stages.export_path(workdir, _GENERATOR))
        return _later(prepared, arrays["prefix"])
    return prepared._replace(exports=_read_arrays(stages.export_path(workdir, _BACKBONE)))


def _check_phases(prepared: Prepared, workdir: Path) -> None:
    """Refuses a run whose earlier phases are not finished: what follows has nothing to start from.

    Raises:
      ValueError: naming the phase, how far it got and the command that goes on.
    """
    phases = [(_BACKBONE, _earlier(prepared))]
    if generates(prepared.experiment):
        phases.append((_GENERATOR, _viewed(prepared)))
    for phase, run in phases:
        path = stages.export_path(workdir, phase)
        if path.exists():
            continue
        at = checkpoint.newest(path.parent / "checkpoints")
        total = loop.num_updates(run.experiment.train, feed_of(run).num_examples)
        got = f"stands at update {at:,} of at most {total:,}" if at else "has saved no update yet"
        settings = f"--preset={workdir / 'config.json'}"
        more = shlex.join([f"--model={prepared.name}", settings, f"--workdir={workdir}"])
        raise ValueError(
            f"{workdir} is not finished: its {phase}, {run.name}, {got}; bin/train {more} goes on"
        )


# What DDRM's released MF, LightGCN and SGL call their tables.
_RELEASED = {
    f"{name}.weight": side
    for side, names in (
        ("users", ("user_emb", "embedding_user", "users_feature")),
        ("items", ("item_emb", "embedding_item", "items_feature")),
    )
    for name in names
}


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, those with a released code's names under ours."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; it should hold arrays such as users and items")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {_RELEASED.get(name, name): stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        raise ValueError(f"{path} cannot be read as npz without pickled objects") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise ValueError(
                f"{path} holds {name!r} of type {array.dtype} with values that are no finite "
                "numbers; only numbers can be used"
            )
    return arrays


def _fit(fitting: _Fitting, folder: Path) -> loop.Fit:
    prepared = fitting.prepared
    experiment, mesh = prepared.experiment, prepared.mesh
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "metrics.jsonl"
    model, feed = build(prepared), feed_of(prepared)
    rules = evaluate.rules_of(experiment.eval, models.system(experiment.model).official)
    splits = ("valid", "test") if experiment.eval.track_test else ("valid",)
    rank = evaluate.together(
        model,
        {split: _split(prepared, split, rules) for split in splits},
        feed.shared,
        feed.query,
        mesh,
        experiment.eval,
        rules,
        prepared.dataset.train_counts,
        num_users=prepared.dataset.num_users,
        diagnose=False,
    )
    key = jax.random.fold_in(jax.random.key(experiment.seed), 3)
    held_out = None
    if experiment.eval.metric == evaluate.LOSS:
        held_out = evaluate.held_out_loss(
            model, feed.example, prepared.dataset.valid, key, experiment.train.batch_size
        )

    def judge(params, state):
        found = rank(params, state, key)
        metrics = {
            f"{split}/{name}": value
            for split in splits
            for name, value in found[split].metrics.items()
        }
        head = jax.device_get(model.head(params, state))
        metrics["item_spread"] = float(np.sqrt(np.mean(np.var(head.table, axis=0))))
        if held_out is not None:
            metrics["valid/loss"] = held_out(params, state)
            return -metrics["valid/loss"], metrics
        score = found["valid"].metrics[experiment.eval.metric]
        return score if rules.decimals is None else round(score, rules.decimals), metrics

    shrunk = False

    def notice(progress: loop.Progress) -> None:
        nonlocal shrunk
        if progress.kind == "resume":
            report.truncate_after(log, progress.step)
            fitting.say(f"resumed {folder} at step {progress.step}")
        if progress.kind == "damaged":
            fitting.say(
                f"the checkpoint of step {progress.step} is damaged; falling back to the one before"
            )
        if progress.kind == "epoch":
            line = {"step": progress.step, "epoch": progress.epoch, "time": time.time()}
            rate = {"examples_per_second": progress.examples_per_second}
            report.append_line(log, line | rate | progress.metrics)
            tell(line | rate | progress.metrics)
            left = progress.metrics.get("spread_left", 1.0)
            if left < _LEAST_SPREAD and not shrunk:
                shrunk = True
                fitting.say(
                    f"warning: trained item rows have shrunk to {left:.0%} of their initial "
                    "spread, which lowers the loss without learning; freeze them"
                )
        fitting.on_progress(progress)

    settings = stored(prepared)
    with tracking.tracker(experiment.log, log, settings) as tell, signals() as caught:
        try:
            return loop.fit(
                lambda axis_name: build(prepared, axis_name),
                feed.train,
                feed.example,
                feed.num_examples,
                experiment.train,
                judge,
                seed=experiment.seed,
                folder=folder / "checkpoints",
                mesh=mesh,
                mode=experiment.parallel,
                on_progress=notice,
                stop_asked=lambda: bool(caught),
                order_of=feed.order,
            )
        except loop.Stopped:
            raise Interrupted(caught[0], folder) from None


def _split(prepared: Prepared, split: str, rules) -> evaluate.Split:
    dataset, feed = prepared.dataset, feed_of(prepared)
    slices = {"valid": dataset.valid, "test": dataset.test}[split]
    rows, groups = feed.splits[split], feed.groups.get(split, ())
    return evaluate.put(slices, rows, feed.query, prepared.mesh, rules, groups)


def _evaluator(prepared: Prepared, model: Model, split: str, rules, *, diagnose: bool = False):
    dataset = prepared.dataset
    return evaluate.evaluator(
        model,
        _split(prepared, split, rules),
        prepared.mesh,
        prepared.experiment.eval,
        rules,
        dataset.train_counts,
        num_users=dataset.num_users,
        diagnose=diagnose,
    )


def _results(
    prepared: Prepared, fitted: loop.Fit, wall_seconds: float, workdir: Path
) -> dict[str, Any]:
    experiment, dataset = prepared.experiment, prepared.dataset
    params, state = averaged(fitted.train), fitted.train.state
    protocols: dict[str, dict[str, Any]] = {}
    groups: dict[str, Any] = {}
    tuned = _tuned(prepared)
    for protocol in ("honest", "official"):
        chosen = replace(experiment, eval=replace(experiment.eval, protocol=protocol))
        rules = evaluate.rules_of(chosen.eval, models.system(chosen.model).official)
        if len(dataset.test.start) < rules.multiple_of:
            continue
        run_as = prepared._replace(experiment=chosen)
        run = _evaluator(run_as, build(run_as), "test", rules, diagnose=True)
        runs = evaluate.over_seeds(run, params, state, experiment.seed, experiment.eval.seeds)
        found = evaluate.mean_over_seeds(runs)
        beside = _controls_per_user(run_as, "test", rules, tuned)
        if protocol == experiment.eval.protocol:
            groups = _groups(run_as, params, state, found)
            path = per_user_path(workdir)
            write_per_user(prepared, dataset.test, "test", found, path, beside)
        protocols[protocol] = {
            "metrics": found.metrics,
            "spread": evaluate.spread(runs) if len(runs) > 1 else {},
            "controls": evaluate.control_means(
                beside, chosen.eval, rules, dataset.num_users, tuned
            ),
            "diagnostics": found.diagnostics,
            "num_users": len(dataset.test.start) // rules.multiple_of * rules.multiple_of,
        }
    main = protocols[experiment.eval.protocol]
    best = optimum_of(prepared, dataset.test)
    return {
        "model": prepared.name,
        "dataset": dataset.name,
        "split": "test",
        "split_rule": dataset.split,
        "protocol": experiment.eval.protocol,
        "num_users": main["num_users"],
        "metrics": main["metrics"],
        "controls": main["controls"],
        "optimum": best,
        "share_of_optimum": {n: main["metrics"][n] / v for n, v in best.items() if v > 0},
        "diagnostics": main["diagnostics"],
        "selected_by": f"valid {experiment.eval.metric}",
        "best_valid": _best_valid(fitted, prepared),
        "best_step": fitted.best_step,
        "steps": fitted.steps,
        "num_epochs": experiment.train.num_epochs,
        "examples_per_second": fitted.examples_per_second,
        "train_seconds": fitted.train_seconds,
        "wall_seconds": wall_seconds,
        "protocols": protocols,
        "groups": groups,
        "data_hash": dataset.card["hash"],
    } | provenance(prepared)


def _groups(
    prepared: Prepared, params: Any, state: Any, found: evaluate.Evaluation
) -> dict[str, Any]:
    """Figures by the length of the history, among all items and among drawn ones, or {}."""
    experiment, dataset = prepared.experiment, prepared.dataset
    count, test = experiment.eval.candidates, dataset.test
    if count == 0:
        return {}
    rows = len(next(iter(found.per_user.values())))
    lengths = (test.end - test.start)[:rows]
    kept = {k: v for k, v in found.per_user.items() if k.split("@")[0] in ("hr", "ndcg")}
    run = candidates.evaluator(
        build(prepared),
        _split(prepared, "test", evaluate.HONEST),
        candidates.draw(test, dataset.num_items, count),
        ks=experiment.eval.ks,
        batch_size=experiment.eval.batch_size,
    )
    key = jax.random.fold_in(jax.random.key(experiment.seed), 3)
    drawn = run(params, state, key)
    return {
        "full": candidates.by_length(kept, lengths),
        f"among_{count + 1}": candidates.by_length(drawn, test.end - test.start),
    }


def _generated(prepared: Prepared, workdir: Path) -> dict[str, Any]:
    """What a generator's run adds to its results: the recommender without the generated items, and
    what those are like."""
    dataset = prepared.dataset
    earlier = _earlier(prepared)
    model = build(earlier)
    folder = stages.export_path(workdir, _BACKBONE).parent / "checkpoints"
    best = loop.load(folder, _abstract_state(earlier, model))
    params, state = averaged(best), best.state
    rules = evaluate.rules_of(
        earlier.experiment.eval, models.system(earlier.experiment.model).official
    )
    run = _evaluator(earlier, model, "test", rules)
    key = jax.random.fold_in(jax.random.key(earlier.experiment.seed), 3)
    found = run(params, state, key)
    prefix = _read_arrays(stages.export_path(workdir, _GENERATOR))["prefix"]
    made = augment.quality(prefix, _raw(prepared), dataset.train_counts)
    return {
        "without": {
            "model": earlier.name,
            "metrics": found.metrics,
            "groups": _groups(earlier, params, state, found),
        },
        "generated": made | _held_out(prepared, workdir),
    }


def _held_out(prepared: Prepared, workdir: Path) -> dict[str, float]:
    """Recall of the items that really came first for long users kept from the generator."""
    generator = generator_of(prepared, workdir)
    histories, true = views.known_before(
        _viewed(prepared).dataset.test, prepared.experiment.data.prefix_len
    )
    items = _joined(generate(generator.prepared, generator.train, histories))
    found = augment.quality(items, histories, prepared.dataset.train_counts, true)
    return {k: v for k, v in found.items() if k.startswith("recall")}


def _tuned(prepared: Prepared) -> dict[str, evaluate.Tuned]:
    """The controls that have settings, tuned under the run's protocol."""
    experiment, dataset = prepared.experiment, prepared.dataset
    rows = None if dataset.profiles is None else feeds.chosen(dataset.profiles)
    if rows is None:  # histories without users: every row teaches, its answer too
        train = dataset.train
        rows = batches.Slices(train.items, train.start, train.stop, train.stop)
    return evaluate.tune_controls(
        rows,
        scored_by(prepared, "valid"),
        dataset.valid,
        dataset.train_counts,
        experiment.eval,
        evaluate.rules_of(experiment.eval, models.system(experiment.model).official),
    )


def _controls(prepared: Prepared, split: str, rules, tuned: dict[str, evaluate.Tuned]):
    return evaluate.control_means(
        _controls_per_user(prepared, split, rules, tuned),
        prepared.experiment.eval,
        rules,
        prepared.dataset.num_users,
        tuned,
    )


def _controls_per_user(prepared: Prepared, split: str, rules, tuned: dict[str, evaluate.Tuned]):
    dataset = prepared.dataset
    return evaluate.controls_per_user(
        dataset.train,
        {"valid": dataset.valid, "test": dataset.test}[split],
        dataset.train_counts,
        prepared.experiment.eval,
        rules,
        tuned,
        scored_by(prepared, split),
    )


def scored_by(prepared: Prepared, split: str) -> batches.Slices:
    """What a row of a split may be scored by: what the model itself sees of it."""
    dataset = prepared.dataset
    slices, users = {
        "valid": (dataset.valid, dataset.valid_users),
        "test": (dataset.test, dataset.test_users),
    }[split]
    profiles = dataset.profiles
    of_rows = models.feed(prepared.experiment.model) in ("interactions", "pairs", "user_pairs")
    if profiles is None or not of_rows:
        return slices
    start, end = profiles.start[users], profiles.end[users]
    return batches.Slices(profiles.items, start, end, end)


def _abstract_state(prepared: Prepared, model: Model):
    experiment, feed = prepared.experiment, feed_of(prepared)
    optimizer = make(experiment.train, 1)

    def initial():
        index, key = jax.numpy.zeros(2, jax.numpy.int32), jax.random.key(0)
        variables = model.init(key, feed.example(feed.train, index, index, key))
        return create(variables, optimizer, ema_decay=experiment.train.ema_decay)

    replicated = jax.sharding.NamedSharding(prepared.mesh, jax.sharding.PartitionSpec())
    return checkpoint.abstract(jax.eval_shape(initial), replicated)


def open_workdir(prepared: Prepared, workdir: Path) -> None:
    """Makes the folder of a run, with its settings, data card and vocabulary."""
    if (workdir / "config.json").exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    dataset = prepared.dataset
    report.write_json(workdir / "data_card.json", dataset.card)
    np.savez(workdir / "vocab.npz", item_ids=dataset.item_ids, user_ids=dataset.user_ids)
    report.write_json(workdir / "config.json", stored(prepared))  # last: it marks a whole workdir


def stored(prepared: Prepared) -> dict[str, Any]:
    """The settings of a run as `config.json` holds them."""
    return {"preset": prepared.name, "source": prepared.source} | config.to_json(
        prepared.experiment
    )


def _completed(there: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Settings of an older version, with the fields that it had not at their defaults."""
    parts = ("model", "data", "train", "eval")
    plain = replace(experiment, **{name: type(getattr(experiment, name))() for name in parts})
    defaults = config.to_json(plain)
    known = [name for name in parts if isinstance(there.get(name), dict)]
    return defaults | there | {name: defaults[name] | there[name] for name in known}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        raise ValueError(f"{path} cannot be read as json; take another workdir") from None


def _commit() -> str:
    root = Path(__file__).parent.parent
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"


def read_config(workdir: Path) -> tuple[str, str, Experiment]:
    """(preset, source, settings) of a workdir.

    Raises:
      ValueError: if `config.json` was damaged or written by another version.
    """
    name, source, preset = config.read(workdir / "config.json")
    return name, source, preset.experiment


def reopen(workdir: Path, flags: Sequence[str] = (), data: str | None = None) -> Prepared:
    """The run of a workdir, ready for its checkpoints.

    Args:
      workdir: what training left.
      flags: dotted flags over its settings.
      data: where the interactions are now, if they were moved.

    Raises:
      ValueError: if there is no run, on settings that do not fit it, or on other data.
    """
    if not (workdir / "config.json").exists():
        raise ValueError(f"{workdir} holds no config.json; name a workdir that bin/train made")
    name, source, experiment = read_config(workdir)
    prepared = prepare(name, config.parse(experiment, list(flags)), data or source)
    check_vocabulary(prepared, workdir)
    return prepared


def check_vocabulary(prepared: Prepared, workdir: Path) -> None:
    """Refuses data whose items are not those that the workdir was trained on.

    Raises:
      ValueError: naming the numbers of items.
    """
    with np.load(workdir / "vocab.npz") as stored:
        known = stored["item_ids"]
    if not np.array_equal(known, prepared.dataset.item_ids):
        raise ValueError(
            f"{prepared.source} has {prepared.dataset.num_items} items that are not the "
            f"{len(known)} items {workdir} was trained on"
        )


def per_user_path(workdir: Path) -> Path:
    """Where a run keeps the test values of every user."""
    return workdir / "per_user.parquet"


def write_per_user(
    prepared: Prepared,
    slices: batches.Slices,
    split: str,
    found: evaluate.Evaluation,
    path: Path,
    beside: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({}),
) -> None:
    """One row a user: raw id, history length, answers and how often these occur in training on
    average, every metric, and every metric of the controls as `control:metric`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    users = {"valid": prepared.dataset.valid_users, "test": prepared.dataset.test_users}[split]
    rows = len(next(iter(found.per_user.values())))
    sizes = (slices.stop - slices.end)[:rows].astype(np.int64)
    row = np.repeat(np.arange(rows), sizes)
    place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + slices.end[row]
    counts = prepared.dataset.train_counts[slices.items[place] - 1]
    columns = {
        "user_id": prepared.dataset.user_ids[users[:rows]],
        "history_length": (slices.end - slices.start)[:rows],
        "answers": sizes,
        "answer_popularity": np.bincount(row, counts, rows) / np.maximum(sizes, 1),
    }
    columns |= {name: values.astype(np.float32) for name, values in found.per_user.items()}
    for control, metrics in beside.items():
        columns |= {f"{control}:{name}": values for name, values in metrics.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    pq.write_table(pa.table(columns), partial, compression="zstd")
    partial.replace(path)
