"""Reads the data and checks everything that can be checked before training."""

from pathlib import Path

import jax
import numpy as np

from jaxrec_diff.config import Experiment
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.load import load
from jaxrec_diff.evaluation import config, item_to_item, sampled
from jaxrec_diff.experiments import arrays as experiments_arrays
from jaxrec_diff.experiments import phases, run
from jaxrec_diff.experiments.run import Prepared
from jaxrec_diff.models import registry
from jaxrec_diff.training import loop, parallel


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
        item_to_item.check(control, dataset.num_items)
    _check_candidates(experiment.eval.candidates, dataset)
    _check_metrics(name, experiment)
    mesh = parallel.make_mesh(available[: experiment.devices or len(available)])
    raw = Prepared(name, source, experiment, dataset, mesh)
    prepared = run.viewed(raw)
    loop.check(experiment.train, run.feed_of(prepared).num_examples, mesh)
    system = registry.system(experiment.model)
    arrays: dict[str, np.ndarray] = {}
    if experiment.backbone is not None:
        earlier = phases.earlier_phase(raw)
        loop.check(earlier.experiment.train, run.feed_of(earlier).num_examples, mesh)
        run.build(earlier)
        backbone = registry.system(experiment.backbone.model)
        given = backbone.exports
        origin = f"backbone {experiment.backbone.preset}"
        if system.check is not None:
            reads = {"reader"} if backbone.reader is not None else set()
            system.check(experiment.model, run.spec_of(prepared), frozenset(given) | reads)
    elif run.generates(prepared.experiment):
        raise ValueError(
            f"{name} ends in a recommender trained on its longer sequences, but --backbone="
            f"{experiment.embeddings or 'none'} is no model; --backbone=sasrec is"
        )
    else:
        arrays = (
            experiments_arrays.read_arrays(Path(experiment.embeddings))
            if experiment.embeddings
            else {}
        )
        given, origin = tuple(arrays), experiment.embeddings or "no backbone"
    if experiment.embeddings and not system.requires:
        raise ValueError(f"{name} starts from no arrays; leave out {experiment.embeddings}")
    for arrays_of in () if system.optional_when(experiment.model) else system.requires:
        if not set(arrays_of) & set(given):
            wanted = " or ".join(repr(array) for array in arrays_of)
            raise ValueError(
                f"{name} needs an array {wanted}, but {origin} has {', '.join(given) or 'none'}"
            )
    prepared = prepared._replace(exports=arrays)
    if experiment.backbone is None:
        run.build(prepared)
    return prepared._replace(dataset=dataset)


def _check_metrics(name: str, experiment: Experiment) -> None:
    judged = [] if run.generates(experiment) else [(name, experiment.eval)]
    if experiment.backbone is not None:
        judged.append((experiment.backbone.preset, experiment.backbone.eval))
    for model, rules in judged:
        if rules.metric == config.LOSS:
            raise ValueError(
                f"eval.metric={config.LOSS} is of models that generate items, which {model} does "
                f"not; {config.EvalConfig.metric} is one of its metrics"
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
