"""A workdir read back: its run, and its trained model."""

import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrec_diff import config, layout
from jaxrec_diff.config.experiment import Experiment
from jaxrec_diff.config.stored import flattened
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.data.sources import dataset_name
from jaxrec_diff.experiments import exports, phases, run_folders, runs, workdirs
from jaxrec_diff.experiments.phases import PhaseRun
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.models import registry
from jaxrec_diff.models.contract import Model
from jaxrec_diff.training import checkpoint, loop, optim, programs
from jaxrec_diff.training.state import TrainState, averaged, create


class BestLost(UserWarning):
    """The best checkpoint of a run cannot be read, and another is used."""


class OtherSplit(UserWarning):
    """Data is not split as what a run was trained on."""


class FastUnproven(UserWarning):
    """A fast sampler is used with other settings than those it was measured with."""


class Restored(NamedTuple):
    """A trained model with its arrays."""

    phase: PhaseRun
    model: Model
    params: Any
    state: Any


def reopen(
    workdir: Path,
    flags: Sequence[str] = (),
    data: str | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """The run of a workdir, ready for its checkpoints.

    Args:
      workdir: what training left.
      flags: dotted flags over its settings.
      data: where the interactions are now, if they were moved.
      settings: dotted fields with typed values, over the flags; {"model.sampler.kind": "fast"} is
        what the run's preset has measured.

    Warns:
      OtherSplit: if the data is split otherwise than what it was trained on.
      FastUnproven: if the run's model is not as the one whose fast sampler was measured.

    Raises:
      ValueError: if there is no run, on settings that do not fit it, or on other data.
    """
    run_folders.check(workdir)
    name, source, experiment = workdirs.read_config(workdir)
    known, before = workdirs.read_vocabulary(workdir), experiment.data
    chosen = config.with_fast(settings, name, dataset_name(source))
    if config.is_fast(settings):
        _check_fast(experiment, name, dataset_name(source))
    experiment = config.configure(config.parse(experiment, flags), chosen)
    _check_vectors(experiment.data, before, workdir)
    # A file of titles may be gone, and vectors of items are in the checkpoints.
    there = experiment.data.titles == before.titles
    plain = replace(experiment.data, titles="" if there else experiment.data.titles)
    dataset = load(data or source, replace(plain, item_features=""))
    dataset = dataset._replace(titles=known.titles) if there else dataset
    run = runs.prepare(name, experiment, data or source, dataset)
    _check_data(run, workdir, known)
    return run


def _check_fast(experiment: Experiment, name: str, dataset: str) -> None:
    unlike = config.unlike_measured(experiment, name, dataset)
    if unlike:
        more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
        warnings.warn(
            FastUnproven(
                f"the fast sampler of {name} was not measured with {', '.join(unlike[:3])}{more}: "
                "--eval.diffuses=true says what it costs this run"
            ),
            stacklevel=3,
        )


def restore(run: Run, workdir: Path) -> Restored:
    """The model of a run, by its best checkpoint.

    Raises:
      ValueError: if the workdir holds none, or an earlier phase is not finished.
    """
    return trained(last_phase(run, workdir), workdir)


def trained(phase: PhaseRun, folder: Path) -> Restored:
    """The model of a phase, by the best checkpoint of its folder.

    Raises:
      ValueError: if it holds none.
    """
    best = best_of(phase, folder)
    return Restored(phase, phases.model_of(phase), averaged(best), best.state)


def best_of(phase: PhaseRun, folder: Path) -> TrainState:
    """The best checkpoint of a phase's folder that can be read.

    Warns:
      BestLost: if a better one cannot.

    Raises:
      ValueError: if it holds none, or the phase's settings make other arrays than theirs.
    """
    like = abstract_state(phase)
    try:
        found = loop.load(folder / "checkpoints", like)
    except ValueError:
        _check_arrays(phase, folder, like)
        raise
    at = int(found.train.step)
    if at != found.best_step:
        warnings.warn(BestLost(checkpoint.lost(found.best_step, at)), stacklevel=2)
    return found.train


def honest(restored: Restored) -> Restored:
    """The same arrays as a user is served by them.

    A system's released script may draw where a user should not have to (dropout at evaluation) and
    let rows compete that are no items (padding).
    """
    phase = phases.under(restored.phase, "honest")
    return restored._replace(phase=phase, model=phases.model_of(phase))


def last_phase(run: Run, workdir: Path) -> PhaseRun:
    """The last phase of a run, completed by what those before it left in the workdir.

    Raises:
      ValueError: if one of them is not finished.
    """
    check_phases(run, workdir)
    phase = run.phases[0]
    for before, after in pairwise(run.phases):
        phase = phases.bind(before, after, exports.read(exports.path(workdir, before.name)))
    return phase


def check_phases(run: Run, workdir: Path) -> None:
    """Refuses a run whose earlier phases are not finished: what follows has nothing to start from.

    Raises:
      ValueError: naming the phase, how far it got and the command that goes on.
    """
    for phase in run.phases[:-1]:
        file = exports.path(workdir, phase.name)
        if file.exists():
            continue
        at = checkpoint.newest(file.parent / "checkpoints")
        total = programs.num_updates(phase.settings.train, phase.batcher.num_examples)
        got = f"stands at update {at:,} of at most {total:,}" if at else "has saved no update yet"
        settings = f"--preset={workdir / 'config.json'}"
        more = shlex.join([f"--model={run.name}", settings, f"--workdir={workdir}"])
        raise ValueError(
            f"{workdir} is not finished: its {phase.name}, {phase.title}, {got}; bin/train {more} "
            "goes on"
        )


def abstract_state(phase: PhaseRun) -> TrainState:
    """Shapes, dtypes and shardings of what a phase trains."""
    train, batcher, model = phase.settings.train, phase.batcher, phases.model_of(phase)
    optimizer = optim.of_model(train, 1, model)

    def initial(data):
        index, key = jax.numpy.zeros(2, jax.numpy.int32), jax.random.key(0)
        variables = model.init(key, batcher.example(data, index, index, key))
        return create(variables, optimizer, ema_decay=train.ema_decay)

    shapes = jax.eval_shape(initial, batcher.train)
    return checkpoint.abstract(shapes, layout.shardings(shapes, phase.mesh))


def _check_arrays(phase: PhaseRun, folder: Path, like: TrainState) -> None:
    """Refuses settings under which a model has other arrays than those that were trained.

    Raises:
      ValueError: naming the fields that were changed.
    """
    if phase.name or checkpoint.fits(folder / "checkpoints", like):
        return
    _, _, trained = workdirs.read_config(folder)
    there, here = (dict(flattened(config.to_json(of))) for of in (trained, phase.settings))
    changed = [
        name
        for name in sorted(there.keys() | here.keys())
        if name.startswith(("model.", "train."))
        and not name.startswith("model.sampler.")  # it has no arrays
        and there.get(name) != here.get(name)
    ]
    if changed:
        asked, kept = (", ".join(f"{n}={of.get(n)}" for n in changed) for of in (here, there))
        raise ValueError(
            f"the arrays of {folder} do not fit {asked}: they were trained with {kept}; "
            "train in a new workdir"
        )


def _check_vectors(asked: DataConfig, trained: DataConfig, workdir: Path) -> None:
    """Refuses other vectors of items than a model was trained on: they are a part of it."""
    for name in ("item_features", "item_features_use", "item_features_scaling"):
        there, here = getattr(trained, name), getattr(asked, name)
        if there != here:
            flag = f"data.{name.replace('_', '-')}"
            raise ValueError(
                f"{workdir} was trained with {flag}={there or 'no file'}, not {here}; leave "
                f"{flag} out"
            )


def _check_data(run: Run, workdir: Path, known: workdirs.Vocabulary) -> None:
    """Refuses data whose items, or for a model that knows users by number whose users, are not
    those that the workdir was trained on; says where the split is another.

    Warns:
      OtherSplit: if the rows of a split are others.

    Raises:
      ValueError: naming what differs.
    """
    items, users, _ = known
    if not np.array_equal(items, run.dataset.item_ids):
        raise ValueError(
            f"{run.source} has {run.dataset.num_items} items that are not the "
            f"{len(items)} items {workdir} was trained on"
        )
    by_number = any(registry.input_of(p.settings.model).knows_users for p in run.phases)
    if by_number and not np.array_equal(users, run.dataset.user_ids):
        raise ValueError(
            f"{run.source} has {run.dataset.num_users} users that are not the {len(users)} users "
            f"{workdir} was trained on, and {run.name} knows them by number"
        )
    there, here = workdirs.read_card(workdir)["hash"], run.dataset.card["hash"]
    if there != here:
        warnings.warn(
            OtherSplit(
                f"{run.source} is split otherwise (hash {here[:12]}) than what {workdir} was "
                f"trained on ({there[:12]}): figures on it cannot be compared with those of the "
                "run, and rows of its test split may have been trained on"
            ),
            stacklevel=3,
        )
