"""What a user asked for, once it was found to fit the data and the devices."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax

from jaxrec_diff import layout
from jaxrec_diff.batches.input import own_history
from jaxrec_diff.classics import grids
from jaxrec_diff.config import Experiment
from jaxrec_diff.config import mesh as config_mesh
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.load import load
from jaxrec_diff.evaluation import config, sampled
from jaxrec_diff.experiments import exports, phases, processes
from jaxrec_diff.experiments.phases import BACKBONE, GENERATOR, PhaseRun
from jaxrec_diff.models import registry
from jaxrec_diff.ops import meshes
from jaxrec_diff.training import programs
from jaxrec_diff.training.config import BY_ROW

_FEW = 1000  # the usual cut-offs are no harm where a catalogue is smaller than they


class Run(NamedTuple):
    """What a user asked for; nothing is written yet."""

    name: str  # the preset's
    source: str
    experiment: Experiment
    dataset: Dataset  # as it was read
    mesh: jax.sharding.Mesh
    phases: tuple[PhaseRun, ...]
    """All but the first wait for what the one before exports (`phases.bind`)."""
    command: str = ""  # what a user typed, for the record
    notes: tuple[str, ...] = ()  # what was changed to fit the data, a line each


def prepare(
    name: str,
    experiment: Experiment,
    source: str,
    dataset: Dataset | None = None,
    *,
    typed: Collection[str] | None = None,
) -> Run:
    """Reads the data and checks everything that can be checked before training.

    Args:
      name: the preset's.
      experiment: settings.
      source: of the data.
      dataset: the data, if it was read already.
      typed: fields that a user set, as in `train.batch-size`; None is all. A batch that nobody set
        and that is larger than the data is made smaller, and the run's settings and notes say so.

    Raises:
      ValueError: in one sentence, on data or settings that cannot be used.
    """
    if dataset is None:
        dataset = load(source, experiment.data)
    processes.check(name, experiment, dataset)
    _check_enough(dataset)
    _check_cut_offs(experiment, dataset)
    mesh = _mesh(experiment)
    for baseline in experiment.eval.controls:
        grids.check(baseline, dataset.num_items)
    _check_candidates(experiment.eval.candidates, dataset)
    _check_shuffles(name, experiment)
    _check_metrics(name, experiment)
    _check_vectors(name, experiment)
    made = _phases(name, experiment, dataset, mesh, typed)
    settings = made[0 if experiment.backbone is None else 1].settings
    return Run(name, source, settings, dataset, mesh, made, notes=_notes(experiment, settings))


def _phases(
    name: str,
    experiment: Experiment,
    dataset: Dataset,
    mesh: jax.sharding.Mesh,
    typed: Collection[str] | None,
) -> tuple[PhaseRun, ...]:
    makes_items = phases.generates(experiment)
    own = phases.make(
        GENERATOR if makes_items else "", name, experiment, phases.view(experiment, dataset), mesh
    )
    if typed is not None and "train.batch-size" not in typed:
        own = _fitting(own)
    _check_optimizer(name, experiment)
    programs.check(own.settings.train, own.batcher.num_examples, mesh)
    if experiment.backbone is None:
        if makes_items:
            raise ValueError(
                f"{name} ends in a recommender trained on its longer sequences, but --backbone="
                f"{experiment.embeddings or 'none'} is no model; --backbone=sasrec is"
            )
        given = exports.read(Path(experiment.embeddings)) if experiment.embeddings else {}
        _check_needs(own, tuple(given), experiment.embeddings or "no backbone")
        own = phases.starting_from(own, given)
        phases.model_of(own)  # a model refuses settings when it is built
        return (own,)
    first = _backbone(experiment, dataset, mesh)
    if typed is not None and "backbone.train.batch-size" not in typed:
        first = _fitting(first)
        backbone_of = replace(experiment.backbone, train=first.settings.train)
        own = own._replace(settings=replace(own.settings, backbone=backbone_of))
    _check_optimizer(first.title, first.settings)
    programs.check(first.settings.train, first.batcher.num_examples, mesh)
    phases.model_of(first)
    backbone, system = registry.system(first.settings.model), registry.system(experiment.model)
    if system.check is not None:
        reads = {"reader"} if backbone.reader is not None else set()
        exported = frozenset(backbone.exports) | reads
        system.check(experiment.model, own.spec, exported, first.settings.model)
    _check_needs(own, backbone.exports, f"backbone {first.title}")
    if makes_items:
        return first, own, first._replace(name="", title=f"{first.title}+{name}")
    return first, own


def _fitting(phase: PhaseRun) -> PhaseRun:
    """The phase with batches that its data fills.

    A power of two, so that a run goes on with the same settings on another number of devices; else
    what divides over the devices there are.
    """
    examples, train = phase.batcher.num_examples, phase.settings.train
    if train.batch_size <= examples or not examples:
        return phase
    parts = phase.mesh.shape[meshes.DATA]
    size = 1 << (examples.bit_length() - 1)
    size -= size % parts
    if not size:  # refused with the others that do not fit
        return phase
    smaller = replace(phase.settings, train=replace(train, batch_size=size))
    return phases.changed(phase, settings=smaller)


def _notes(asked: Experiment, taken: Experiment) -> tuple[str, ...]:
    """What `_fitting` changed."""
    pairs = [("", asked.train, taken.train)]
    if asked.backbone is not None:
        pairs.append(("backbone.", asked.backbone.train, taken.backbone.train))
    return tuple(
        f"{of}train.batch-size is {now.batch_size}, not {before.batch_size}: there are fewer "
        "training examples than that"
        for of, before, now in pairs
        if now != before
    )


def _backbone(experiment: Experiment, dataset: Dataset, mesh: jax.sharding.Mesh) -> PhaseRun:
    chosen = experiment.backbone
    settings = replace(
        experiment,
        model=chosen.model,
        train=chosen.train,
        eval=chosen.eval,
        backbone=None,
        embeddings="",
    )
    return phases.make(BACKBONE, chosen.preset, settings, dataset, mesh)


def _mesh(experiment: Experiment) -> jax.sharding.Mesh:
    available, devices = jax.devices(), experiment.devices
    if jax.process_count() > 1:
        if experiment.parallel == "pmap":
            raise ValueError(
                f"parallel=pmap runs in one process, but there are {jax.process_count()}; "
                "parallel=jit takes them all"
            )
        if devices not in (0, len(available)):
            raise ValueError(
                f"devices={devices} leaves out some of the {len(available)} that "
                f"{jax.process_count()} processes have; 0 takes all"
            )
    if devices > len(available):
        raise ValueError(
            f"devices={devices} asked for, but JAX sees {len(available)}; at most {len(available)}"
        )
    used = available[: devices or len(available)]
    return layout.make_mesh(used, model=config_mesh.over(experiment.mesh, len(used)).model)


def _check_enough(dataset: Dataset) -> None:
    """Refuses data on which every model is as good."""
    candidates = int((dataset.train_counts > 0).sum())
    if candidates < 2:
        raise ValueError(
            f"{dataset.name} leaves nothing to rank: {candidates} of its {dataset.num_items} items "
            "occurs in training, and at least 2 are needed"
        )


def _check_cut_offs(experiment: Experiment, dataset: Dataset) -> None:
    """Refuses lists far longer than the catalogue, which would be made of nothing."""
    judged = [experiment.eval, *([experiment.backbone.eval] if experiment.backbone else [])]
    most = max(max(rules.ks) for rules in judged)
    if most > max(dataset.num_items, _FEW):
        raise ValueError(
            f"eval.ks has {most}, but {dataset.name} has {dataset.num_items} items; at most that"
        )


def _check_needs(phase: PhaseRun, given: tuple[str, ...], origin: str) -> None:
    """Refuses arrays that do not hold what a model starts from, or that it does not look at."""
    model, embeddings = phase.settings.model, phase.settings.embeddings
    system = registry.system(model)
    if embeddings and not system.requires:
        raise ValueError(f"{phase.title} starts from no arrays; leave out {embeddings}")
    for choice in () if system.optional_when(model) else system.requires:
        if not set(choice) & set(given):
            wanted = " or ".join(repr(array) for array in choice)
            raise ValueError(
                f"{phase.title} needs an array {wanted}, but {origin} has "
                f"{', '.join(given) or 'none'}"
            )


def _check_optimizer(name: str, experiment: Experiment) -> None:
    """Refuses to update the rows of a batch where a loss reads the whole catalogue."""
    optimizer = experiment.train.optimizer
    flag = registry.system(experiment.model).drawn_by(experiment.model)
    if optimizer not in BY_ROW or flag == "":
        return
    can = f"{name} {flag}" if flag else "dimerec --model.negatives=uniform"
    raise ValueError(
        f"train.optimizer={optimizer} updates the items that a batch and its drawn negatives name, "
        f"but the loss of {name} reads the whole catalogue; take adam, or train {can}"
    )


def seen(experiment: Experiment) -> int:
    """How much of a history the phase that recommends sees, to compare models by.

    2: all of it, in its order. 1: all of it as a set, behind a cut in time. 0: its training part.
    """
    last = experiment.backbone if phases.generates(experiment) else experiment
    kind = registry.input_of((last or experiment).model)
    if kind.reads is own_history:
        return 2
    in_time = experiment.data.split == "global_time"
    return 1 if in_time and not kind.knows_users else 0


def reads_order(experiment: Experiment) -> bool:
    """Whether the phase that recommends reads histories in their order, not rows of users."""
    return seen(experiment) == 2


def _check_shuffles(name: str, experiment: Experiment) -> None:
    if experiment.eval.shuffles and not reads_order(experiment):
        raise ValueError(
            f"eval.shuffles={experiment.eval.shuffles} puts histories out of order, and {name} "
            "reads rows of users, which have none; leave it at 0"
        )


def _check_metrics(name: str, experiment: Experiment) -> None:
    judged = [] if phases.generates(experiment) else [(name, experiment.eval)]
    if experiment.backbone is not None:
        judged.append((experiment.backbone.preset, experiment.backbone.eval))
    for model, rules in judged:
        if rules.metric == config.LOSS:
            raise ValueError(
                f"eval.metric={config.LOSS} is of models that generate items, which {model} does "
                f"not; {config.EvalConfig.metric} is one of its metrics"
            )


def _check_vectors(name: str, experiment: Experiment) -> None:
    """Refuses vectors of items that nothing of a run can start from, or that it cannot keep."""
    if not experiment.data.item_features:
        return
    asked = [(name, experiment)]
    if experiment.backbone is not None:
        asked.append((experiment.backbone.preset, experiment.backbone))
    taking = [each for each in asked if registry.system(each[1].model).item_table is not None]
    if not taking:
        raise ValueError(
            f"{name} has no table of items that vectors could be; leave out data.item-features="
            f"{experiment.data.item_features}, or train sasrec or preferdiff on them"
        )
    for title, settings in taking:
        optimizer = settings.train.optimizer
        if optimizer in BY_ROW and experiment.data.item_features_use == "frozen":
            raise ValueError(
                f"train.optimizer={optimizer} updates rows of items, and those of {title} are "
                "frozen; take adam, or data.item-features-use=initial"
            )


def _check_candidates(count: int, dataset: Dataset) -> None:
    if count == 0:
        return
    if (dataset.test.stop - dataset.test.end != 1).any():
        raise ValueError(
            f"eval.candidates={count} ranks one answer a row, but {dataset.name} has rows with "
            "several; take 0"
        )
    sampled.draw(dataset.test, dataset.num_items, count)
