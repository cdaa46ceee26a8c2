"""A search for settings by Optuna, over the space that a preset declares.

The folder of a search holds `search.json` (what is searched), `journal.log` (Optuna's storage, to
which any number of processes append), `best.json` (a preset) and `trials/NUMBER/`. A process holds
a lock on the trial that it trains, so one that was killed is known by its free lock; its trial is
queued again, and goes on from its checkpoints.
"""

import fcntl
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from jaxrec_diff import config
from jaxrec_diff.config.space import Choice, Range, Space, bounds, text
from jaxrec_diff.config.stored import check_schema, completed, read_json
from jaxrec_diff.experiments import (
    exports,
    json_files,
    phases,
    pipeline,
    runs,
    selection,
    workdirs,
)
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.ops import files
from jaxrec_diff.training import progress as training_progress
from jaxrec_diff.training import tracking

Log = Callable[[str], None]

# What may differ between two calls that work on one search.
_FREE = tuple(set(config.RUN_CONTROL) - {"train.num_epochs", "train.patience"})
# What a set-up leaves that was cut short, or that another process has just begun.
_SET_UP = {"lock", "search.json.partial"}
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class Plan(NamedTuple):
    """A search that was found to fit its data; nothing is written yet."""

    run: Run  # with the settings that no trial varies
    space: Space
    workdir: Path


def plan(
    name: str,
    experiment: config.Experiment,
    source: str,
    workdir: Path,
    *,
    fixed: tuple[str, ...] = (),
    typed: Collection[str] | None = None,
) -> Plan:
    """Checks a search before it starts.

    Args:
      name: the preset's.
      experiment: settings of every trial, but for what is searched.
      source: of the data.
      workdir: of the search.
      fixed: fields of the preset's space that keep their value in `experiment`.
      typed: fields that a user set, as `runs.prepare` takes them.

    Raises:
      ValueError: in one sentence, on settings or data that cannot be used, or a workdir of another
        search.
    """
    space = {k: v for k, v in config.search_space(name).items() if k not in fixed}
    if not space:
        raise ValueError(f"every field that {name} lets a search vary is given; leave one out")
    # no trial may see the test split
    experiment = replace(experiment, eval=replace(experiment.eval, track_test=False))
    tracking.check(experiment.log)
    chosen = Plan(runs.prepare(name, experiment, source, typed=typed), space, workdir)
    path = workdir / "search.json"
    there = {each.name for each in workdir.iterdir()} if workdir.is_dir() else set()
    if workdir.is_file() or (there - _SET_UP and path.name not in there):
        raise ValueError(f"{workdir} is not empty and holds no search; name a new folder")
    if path.name not in there:
        return chosen
    kept = read_json(path)
    check_schema(kept, path)
    differs = config.difference(completed(kept, chosen.run.experiment), _stored(chosen), _FREE)
    if differs:
        raise ValueError(f"{workdir} holds a search with {differs}; take another workdir")
    return chosen


def tune(chosen: Plan, trials: int, *, minutes: float = 0.0, log: Log = print) -> optuna.Study:
    """Trains until `trials` of the search are finished, pruned ones included, or as soon as all of
    them together have taken `minutes`, if that is given; the last one is trained to its end.

    Several processes may do so at once: each takes the next trial, until there are enough. A trial
    is judged by its best validation score and pruned where, at the same epoch, it is behind the
    median of those before. The draw of a trial is a function of the seed and of the finished
    trials, so that a search which was stopped ends like one that was not.

    Raises:
      signals.Interrupted: after SIGINT or SIGTERM, with the trial's state saved.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _open(chosen)
    with ExitStack() as mine:
        while (trial := _next(chosen, study, trials, minutes, mine)) is not None:
            _try(chosen, study, trial, log)
            mine.close()
            jax.clear_caches()  # the next trial has other shapes
    return study


def best_path(workdir: Path) -> Path:
    """The preset that a search has found."""
    return workdir / "best.json"


def summary(study: optuna.Study, chosen: Plan) -> dict[str, Any]:
    """A search as plain values, its trials best first."""
    trials = [_row(trial) for trial in study.get_trials() if trial.state != TrialState.FAIL]
    rank = {"complete": 0, "pruned": 1, "running": 2, "waiting": 3}
    trials.sort(key=lambda row: (rank[row["state"]], -(row["score"] or 0.0), row["trial"]))
    run = chosen.run
    return {
        "model": run.name,
        "dataset": run.dataset.name,
        "metric": _metric(run),
        "seed": run.experiment.seed,
        "trials": trials,
        "preset": str(best_path(chosen.workdir)) if trials[:1] and _complete(trials[0]) else None,
    }


def table(found: dict[str, Any]) -> str:
    """A summary for a terminal of 80 columns: a letter a field, explained below."""
    fields = list(dict.fromkeys(name for row in found["trials"] for name in row["settings"]))
    head = ["trial", "state", found["metric"].removeprefix("valid/"), "epochs"]
    head += [chr(ord("a") + i) for i in range(len(fields))]
    rows = [head]
    for row in found["trials"]:
        score = "-" if row["score"] is None else f"{row['score']:.4f}"
        values = [_short(row["settings"].get(name, "-")) for name in fields]
        state = "done" if _complete(row) else row["state"]
        rows.append([str(row["trial"]), state, score, str(row["epochs"]), *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    lines += [f"  {letter} {name}" for letter, name in zip(head[4:], fields, strict=True)]
    return "\n".join(lines)


def _metric(run: Run) -> str:
    """What trials are judged by: of a generator, the recommender that is trained at the end."""
    return f"valid/{selection.metric_of(run.experiment)}"


def _complete(row: dict[str, Any]) -> bool:
    return row["state"] == "complete"


def _short(value: Any) -> str:
    return f"{value:.3g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def _row(trial: FrozenTrial) -> dict[str, Any]:
    reported = trial.intermediate_values
    score = trial.value
    if trial.state == TrialState.PRUNED:
        score = max(reported.values(), default=None)
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "score": score,
        "epochs": max(reported, default=0),
        "settings": dict(trial.params),
        "why": trial.user_attrs.get("why"),
    }


def _stored(chosen: Plan) -> dict[str, Any]:
    """What makes two searches the same."""
    run = chosen.run
    space = {name: bounds(where) for name, where in chosen.space.items()}
    return {
        "data_hash": run.dataset.card["hash"],
        "space": space,
    } | workdirs.stored(run.name, run.source, run.experiment)


def _open(chosen: Plan) -> optuna.Study:
    workdir = chosen.workdir
    workdir.mkdir(parents=True, exist_ok=True)
    with _locked(workdir / "lock"):
        if not (workdir / "search.json").exists():
            json_files.write_json(workdir / "search.json", _stored(chosen))
        (workdir / "trials").mkdir(exist_ok=True)
        journal = workdir / "journal.log"
        try:
            return optuna.create_study(
                storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
                study_name="search",
                direction="maximize",
                load_if_exists=True,
                # a first evaluation says little, and so does a median of few
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=4, n_warmup_steps=2 * chosen.run.experiment.train.eval_every
                ),
            )
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError):
            raise ValueError(
                f"{journal} is damaged and its trials are lost; take another workdir"
            ) from None


def _next(
    chosen: Plan, study: optuna.Study, wanted: int, minutes: float, mine: ExitStack
) -> optuna.Trial | None:
    """The next trial, with its lock in `mine`, or None if enough are finished or under way, or the
    time is spent."""
    with _locked(chosen.workdir / "lock"):
        for running in study.get_trials(states=(TrialState.RUNNING,)):
            _queue_again(chosen, study, running)
        taken = len(study.get_trials(states=(*_DONE, TrialState.RUNNING)))
        if taken >= wanted or (minutes and spent(study) >= 60.0 * minutes):
            return None
        seed = np.random.SeedSequence([chosen.run.experiment.seed, taken])
        study.sampler = optuna.samplers.TPESampler(seed=int(seed.generate_state(1)[0]))
        trial = study.ask({name: _distribution(where) for name, where in chosen.space.items()})
        mine.enter_context(_locked(_lock_of(chosen, trial.number)))
        return trial


def spent(study: optuna.Study) -> float:
    """Seconds of all finished trials, whoever trained them."""
    done = study.get_trials(states=_DONE)
    return sum(trial.duration.total_seconds() for trial in done if trial.duration)


def _queue_again(chosen: Plan, study: optuna.Study, trial: FrozenTrial) -> None:
    """Puts a trial whose process is gone back into the queue, to go on in its folder."""
    try:
        with _locked(_lock_of(chosen, trial.number), wait=False):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"folder": _folder(trial)})
    except BlockingIOError:
        pass  # somebody trains it


def _distribution(where: Range | Choice) -> optuna.distributions.BaseDistribution:
    if isinstance(where, Choice):  # Optuna stores no tuples
        values = [text(v) if isinstance(v, tuple) else v for v in where.values]
        return optuna.distributions.CategoricalDistribution(values)
    if where.whole:
        return optuna.distributions.IntDistribution(int(where.low), int(where.high), where.log)
    return optuna.distributions.FloatDistribution(where.low, where.high, where.log)


def _settings(chosen: Plan, params: Mapping[str, Any]) -> config.Experiment:
    settings = {name: _value(chosen.space[name], drawn) for name, drawn in params.items()}
    return config.configure(chosen.run.experiment, settings)


def _value(where: Range | Choice, drawn: Any) -> Any:
    """What Optuna drew, a tuple in place of its text."""
    if isinstance(where, Choice) and isinstance(drawn, str):
        return next(value for value in where.values if drawn in (value, text(value)))
    return drawn


def _try(chosen: Plan, study: optuna.Study, trial: optuna.Trial, log: Log) -> None:
    """Trains a trial and tells the study how it went."""
    number, base = trial.number, chosen.run
    folder = chosen.workdir / "trials" / _folder(trial)
    metric = _metric(base)
    values = "  ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
    log(f"trial {number}: {values}")

    def watch(progress: training_progress.Progress) -> None:
        if progress.phase:
            return
        if progress.kind == "resume":
            for done in json_files.read_lines(folder / "metrics.jsonl"):
                if metric in done and "epoch" in done:
                    trial.report(done[metric], round(done["epoch"]))
        if progress.kind == "epoch":
            line = training_progress.epoch_line(
                progress.step,
                progress.epoch,
                progress.examples_per_second,
                progress.metrics,
                metric,
            )
            log(f"trial {number}: {line}")
            with warnings.catch_warnings():  # of an epoch that was reported before a kill
                warnings.simplefilter("ignore")
                trial.report(progress.metrics[metric], round(progress.epoch))
            if trial.should_prune():
                raise optuna.TrialPruned

    try:
        settings = _settings(chosen, trial.params)
        same = settings.data == base.experiment.data
        run = runs.prepare(base.name, settings, base.source, base.dataset if same else None)
    except ValueError as error:  # values that do not go together
        _end(chosen, study, trial, None, str(error))
        log(f"trial {number}: pruned, {error}")
        return
    run = run._replace(command=base.command)
    workdirs.create(run, folder)
    _share_backbone(chosen, run, folder, log)
    try:
        fitted = pipeline.fit(run, folder, log=log, on_progress=watch)
    except optuna.TrialPruned:
        _end(chosen, study, trial, None, "behind the median")
        log(f"trial {number}: pruned")
    except training_progress.NonFiniteLoss as error:
        _end(chosen, study, trial, None, str(error))
        log(f"trial {number}: pruned, {error}")
    else:
        _end(chosen, study, trial, fitted.best_score, None)
        log(f"trial {number}: {metric} {fitted.best_score:.4f}, best {study.best_value:.4f}")
    for part in ("checkpoints", "stages"):  # figures stay, arrays go
        shutil.rmtree(folder / part, ignore_errors=True)


def _end(
    chosen: Plan, study: optuna.Study, trial: optuna.Trial, score: float | None, why: str | None
) -> None:
    """Tells the study; writes the best settings, which no other process may be older about."""
    with _locked(chosen.workdir / "lock"):
        if score is None:
            trial.set_user_attr("why", why)
            study.tell(trial, state=TrialState.PRUNED)
            return
        study.tell(trial, score)
        run, settings = chosen.run, _settings(chosen, study.best_params)
        json_files.write_json(
            best_path(chosen.workdir), workdirs.stored(run.name, run.source, settings)
        )


def _share_backbone(chosen: Plan, run: Run, folder: Path, log: Log) -> None:
    """Gives a trial the backbone that an earlier one with the same settings has trained."""
    target = exports.path(folder, phases.BACKBONE)
    if run.experiment.backbone is None or target.exists():
        return
    stored = workdirs.stored(run.name, run.source, run.experiment)
    depends = {part: stored[part] for part in ("backbone", "data", "seed")}
    name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:12]
    shared = chosen.workdir / "backbones" / name
    shared.mkdir(parents=True, exist_ok=True)
    with _locked(shared / "lock"):
        arrays = pipeline.fit_backbone(run, shared, log=log)
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(target) as partial:
        shutil.copy(arrays, partial)


def _folder(trial: FrozenTrial | optuna.Trial) -> str:
    return trial.user_attrs.get("folder", f"{trial.number:04d}")


def _lock_of(chosen: Plan, number: int) -> Path:
    return chosen.workdir / "trials" / f"{number:04d}.lock"


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a lock, which the system frees if the process dies.

    Raises:
      BlockingIOError: if another holds it and `wait` is false.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
