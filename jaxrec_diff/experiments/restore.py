"""The trained model of a workdir."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxrec_diff.experiments import phases, run
from jaxrec_diff.experiments.run import Prepared
from jaxrec_diff.models.contract import Model
from jaxrec_diff.training import checkpoint, loop
from jaxrec_diff.training.optim import make
from jaxrec_diff.training.state import averaged, create


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
    prepared = phases.with_exports(prepared, workdir)
    model = run.build(prepared)
    best = loop.load(workdir / "checkpoints", abstract_state(prepared, model))
    return Restored(prepared, model, averaged(best), best.state)


def honest(restored: Restored) -> Restored:
    """The same arrays as a user is served by them.

    A system's released script may draw where a user should not have to (dropout at evaluation) and
    let rows compete that are no items (padding).
    """
    prepared = restored.prepared
    rules = replace(prepared.experiment.eval, protocol="honest")
    prepared = prepared._replace(experiment=replace(prepared.experiment, eval=rules))
    return restored._replace(prepared=prepared, model=run.build(prepared))


def abstract_state(prepared: Prepared, model: Model):
    experiment, feed = prepared.experiment, run.feed_of(prepared)
    optimizer = make(experiment.train, 1)

    def initial():
        index, key = jax.numpy.zeros(2, jax.numpy.int32), jax.random.key(0)
        variables = model.init(key, feed.example(feed.train, index, index, key))
        return create(variables, optimizer, ema_decay=experiment.train.ema_decay)

    replicated = jax.sharding.NamedSharding(prepared.mesh, jax.sharding.PartitionSpec())
    return checkpoint.abstract(jax.eval_shape(initial), replicated)
