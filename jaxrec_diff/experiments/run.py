"""A run: settings that were found to fit data and devices, and the model they mean."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from jaxrec_diff.batches.batcher import Batcher
from jaxrec_diff.config import Experiment
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.synthetic import bayes_optimal
from jaxrec_diff.models import registry
from jaxrec_diff.models.contract import DataSpec, Model
from jaxrec_diff.ops import ragged

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


def spec_of(prepared: Prepared) -> DataSpec:
    """What the model of a run may know of its data."""
    dataset, experiment = prepared.dataset, prepared.experiment
    spec = DataSpec(
        dataset.num_users,
        dataset.num_items,
        experiment.data.max_len,
        dataset.train_counts,
        dataset.user_items,
        prepared.exports,
        experiment.data.prefix_len,
    )
    if experiment.backbone is None or not prepared.exports:
        return spec
    reader = registry.system(experiment.backbone.model).reader
    if reader is None:
        return spec
    return spec._replace(reader=reader(experiment.backbone.model, spec, prepared.exports))


def generates(experiment: Experiment) -> bool:
    """Whether a run's model makes items for a recommender that is trained at the end."""
    return registry.system(experiment.model).generates


def feed_of(prepared: Prepared) -> Batcher:
    """How the examples and queries of a run are cut."""
    experiment, dataset = prepared.experiment, prepared.dataset
    system, kind = registry.system(experiment.model), registry.input_of(experiment.model)
    fed = kind.batcher(dataset, experiment.data)
    batch_size, devices = experiment.train.batch_size, prepared.mesh.size
    # batches drawn by themselves hold any number of histories of a length; one that is larger than
    # the data is about to be refused
    in_strata = experiment.train.epoch_sampler == "perm" and batch_size <= fed.num_examples
    if kind.by_length is None or not in_strata or not system.accepts_buckets(experiment.model):
        return fed
    return kind.by_length(dataset, experiment.data, batch_size, devices)


def build(prepared: Prepared, axis_name: str | None = None) -> Model:
    """The model of a run."""
    experiment = prepared.experiment
    return registry.system(experiment.model).build(
        experiment.model,
        spec_of(prepared),
        axis_name=axis_name,
        protocol=experiment.eval.protocol,
    )


def optimum_of(prepared: Prepared, slices: ragged.Ragged) -> dict[str, float]:
    """The best reachable figures, where the process behind the data is known; else {}.

    They hold for the honest rules, under which items of the history are no candidates; the process
    repeats no item.
    """
    if prepared.dataset.synthetic_process is None:
        return {}
    return bayes_optimal(prepared.dataset.synthetic_process, slices, prepared.experiment.eval.ks)


def viewed(prepared: Prepared) -> Prepared:
    """A run on the data set as its own model reads it."""
    experiment = prepared.experiment
    view = registry.input_of(experiment.model).view
    return prepared._replace(dataset=view(prepared.dataset, experiment.data))


def scored_by(prepared: Prepared, split: str) -> ragged.Ragged:
    """What a row of a split may be scored by: what the model itself sees of it."""
    return registry.input_of(prepared.experiment.model).reads(prepared.dataset, split)
