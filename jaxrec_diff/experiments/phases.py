"""The phases of a run: a model each, with the data that it reads, everything built once.

recommender                          most runs have this phase alone
backbone -> recommender              the second starts from arrays of the first (DDRM)
backbone -> generator -> recommender the third is the first again, on longer sequences (DiffuASR)
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from jaxrec_diff.batches.batcher import Batcher
from jaxrec_diff.config import Experiment
from jaxrec_diff.data import item_features, views
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.synthetic import bayes_optimal
from jaxrec_diff.evaluation import evaluator
from jaxrec_diff.models import given_rows, registry
from jaxrec_diff.models.contract import DataSpec, GivenRows, Model
from jaxrec_diff.models.protocols import Protocol, Rules
from jaxrec_diff.ops import meshes, ragged

BACKBONE = "backbone"  # the first of several phases, and its folder
GENERATOR = "generator"  # the phase that makes items ahead of sequences

NOTHING: Mapping[str, np.ndarray] = MappingProxyType({})


class PhaseRun(NamedTuple):
    """A model and the data that it reads; `make` builds all of it."""

    name: str  # BACKBONE or GENERATOR; "" is the last, whose figures are the run's
    title: str  # what is trained, for a reader: a preset's name
    settings: Experiment  # `settings.backbone` is what it starts from
    dataset: Dataset  # as its model reads it
    mesh: jax.sharding.Mesh
    spec: DataSpec  # what its model knows of data; `spec.exports` is what it starts from
    batcher: Batcher
    build: Callable[[str | None, Protocol], Model]  # axis name, protocol; builds each once


def make(
    name: str,
    title: str,
    settings: Experiment,
    dataset: Dataset,
    mesh: jax.sharding.Mesh,
    exports: Mapping[str, np.ndarray] = NOTHING,
) -> PhaseRun:
    """A phase on a data set as its model reads it (`view`)."""
    spec = _spec(settings, dataset, exports)
    batcher = _batcher(settings, dataset, mesh)
    return PhaseRun(
        name, title, settings, dataset, mesh, spec, batcher, _builder(settings.model, spec)
    )


def changed(
    phase: PhaseRun,
    *,
    settings: Experiment | None = None,
    dataset: Dataset | None = None,
    exports: Mapping[str, np.ndarray] | None = None,
) -> PhaseRun:
    """The phase under other settings, on other data or from other arrays, built anew."""
    return make(
        phase.name,
        phase.title,
        phase.settings if settings is None else settings,
        phase.dataset if dataset is None else dataset,
        phase.mesh,
        phase.spec.exports if exports is None else exports,
    )


def under(phase: PhaseRun, protocol: Protocol) -> PhaseRun:
    """The phase as another protocol judges it; nothing of its data is built again."""
    rules = replace(phase.settings.eval, protocol=protocol)
    return phase._replace(settings=replace(phase.settings, eval=rules))


def starting_from(phase: PhaseRun, exports: Mapping[str, np.ndarray]) -> PhaseRun:
    """The phase with the arrays that its model starts from."""
    spec = _spec(phase.settings, phase.dataset, exports)
    return phase._replace(spec=spec, build=_builder(phase.settings.model, spec))


def bind(before: PhaseRun, phase: PhaseRun, exports: Mapping[str, np.ndarray]) -> PhaseRun:
    """A phase completed by what the one before it exports."""
    if before.name == GENERATOR:
        return changed(phase, dataset=views.longer(phase.dataset, exports["prefix"]))
    return starting_from(phase, exports)


def model_of(phase: PhaseRun, axis_name: str | None = None) -> Model:
    """The model under the phase's protocol."""
    return phase.build(axis_name, phase.settings.eval.protocol)


def rules_of(phase: PhaseRun) -> Rules:
    """What may be recommended when the phase is judged."""
    settings = phase.settings
    return evaluator.rules_of(settings.eval, registry.system(settings.model).official)


def rows_of(dataset: Dataset, split: str) -> tuple[ragged.Ragged, np.ndarray]:
    """Histories and answers of "valid" or "test", and whose they are."""
    if split == "valid":
        return dataset.valid, dataset.valid_users
    return dataset.test, dataset.test_users


def scored_by(phase: PhaseRun, split: str) -> ragged.Ragged:
    """What a row of a split may be scored by: what the model itself sees of it."""
    return registry.input_of(phase.settings.model).reads(phase.dataset, split)


def generates(settings: Experiment) -> bool:
    """Whether a model makes items for a recommender that is trained after it."""
    return registry.system(settings.model).generates


def view(settings: Experiment, dataset: Dataset) -> Dataset:
    """The data set as the model of some settings reads it."""
    return registry.input_of(settings.model).view(dataset, settings.data)


def optimum_of(dataset: Dataset, split: str, ks: tuple[int, ...]) -> dict[str, float]:
    """The best reachable figures, where the process behind the data is known; else {}.

    They hold for the honest rules, under which items of the history are no candidates; the process
    repeats no item.
    """
    if dataset.synthetic_process is None:
        return {}
    return bayes_optimal(dataset.synthetic_process, rows_of(dataset, split)[0], ks)


def _builder(config, spec: DataSpec) -> Callable[[str | None, Protocol], Model]:
    build = registry.system(config).build

    @functools.cache
    def built(axis_name, protocol):
        model = build(config, spec, axis_name=axis_name, protocol=protocol)
        return model if spec.given is None else given_rows.start_from(model, spec.given)

    return built


def _spec(settings: Experiment, dataset: Dataset, exports: Mapping[str, np.ndarray]) -> DataSpec:
    spec = DataSpec(
        dataset.num_users,
        dataset.num_items,
        settings.data.max_len,
        dataset.train_counts,
        dataset.user_items,
        exports,
        settings.data.prefix_len,
    )
    spec = spec._replace(given=_given(settings, dataset))
    backbone = settings.backbone
    if backbone is None or not exports:
        return spec
    reader = registry.system(backbone.model).reader
    return spec if reader is None else spec._replace(reader=reader(backbone.model, spec, exports))


def _given(settings: Experiment, dataset: Dataset) -> GivenRows | None:
    """The rows that a system with a table of items starts from, as wide as its settings say."""
    table = registry.system(settings.model).item_table
    if not settings.data.item_features or table is None:
        return None
    rows, vectors = None, dataset.item_vectors
    if vectors is not None:
        deviation = table.deviation(settings.model)
        rows = item_features.rows_for(vectors.rows, settings.data, settings.model.width, deviation)
    return GivenRows(rows, settings.data.item_features_use == "frozen")


def _batcher(settings: Experiment, dataset: Dataset, mesh: jax.sharding.Mesh) -> Batcher:
    """How the examples and queries of a phase are cut."""
    system, kind = registry.system(settings.model), registry.input_of(settings.model)
    batcher = kind.batcher(dataset, settings.data)
    batch_size = settings.train.batch_size
    # batches drawn by themselves hold any number of histories of a length; one that is larger than
    # the data is about to be refused
    in_strata = settings.train.epoch_sampler == "perm" and batch_size <= batcher.num_examples
    if kind.by_length is None or not in_strata or not system.accepts_buckets(settings.model):
        return batcher
    return kind.by_length(dataset, settings.data, batch_size, mesh.shape[meshes.DATA])
