"""What is measured: a system on a data set, and its parts as jitted functions with arguments.

All of it is the library's own: a run is prepared as `bin/train` prepares it, updates are those of
the train loop, lists those of `evaluation.rank`. Parameters are initial ones; a system that starts
from a backbone starts from what an untrained one exports.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.config import Experiment
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.evaluation import rank
from jaxrec_diff.experiments import judging, phases, runs
from jaxrec_diff.experiments.phases import BACKBONE, PhaseRun
from jaxrec_diff.models import registry
from jaxrec_diff.models.contract import Model
from jaxrec_diff.ops import meshes, streams
from jaxrec_diff.training import optim, parallel, programs
from jaxrec_diff.training.state import TrainState, averaged

LIST = 20  # items of a list


class Subject(NamedTuple):
    """A system that can be measured."""

    run: runs.Run
    phase: PhaseRun  # of the system itself, completed by its backbone's arrays
    model: Model
    train: TrainState  # before the first update
    state: Any  # with what all queries share worked out


class Call(NamedTuple):
    """A jitted function and its arguments."""

    fn: Any
    args: tuple
    units: int  # users, or training examples
    unit: str
    mesh: jax.sharding.Mesh
    updates: int = 1  # turns of the loop whose number is an argument


def make(name: str, experiment: Experiment, source: str, dataset: Dataset | None = None) -> Subject:
    """Prepares a system with initial parameters.

    Args:
      name: the preset's.
      experiment: settings.
      source: of the data.
      dataset: the data, if it was read already.

    Raises:
      ValueError: in one sentence, on data or settings that cannot be used.
    """
    run = runs.prepare(name, experiment, source, dataset)
    phase = run.phases[0]
    for before, after in pairwise(run.phases):
        if before.name != BACKBONE:
            break  # a generator is measured itself, not the backbone that is trained again
        phase = phases.bind(before, after, _exports(before))
    train = _initial(phase)
    model = phases.model_of(phase)
    state = rank.precompute(model, averaged(train), train.state)
    return Subject(run, phase, model, train, state)


def has_sampler(experiment: Experiment) -> bool:
    """Whether a system has a reverse process with settings."""
    return hasattr(experiment.model, "sampler")


def reverse_calls(subject: Subject, batch: int) -> int:
    """Rows of the reverse path; 1 where a system answers by one call of its network."""
    if subject.model.chain is None:
        return 1
    chain, args = subject.model.chain, _asked(subject, batch)
    return len(jax.eval_shape(lambda *args: chain(*args).steps.t, *args))


def sampler(subject: Subject, batch: int) -> Call:
    """Points for a batch of queries."""
    mesh, args = subject.phase.mesh, _asked(subject, batch)
    return Call(jax.jit(subject.model.sample), args, _rows(args), "users", mesh)


def chain_of(subject: Subject) -> Callable[..., Any]:
    """(params, state, key, query) -> the reverse process, for those who walk it otherwise.

    Raises:
      ValueError: if the system walks none under its settings.
    """
    if subject.model.chain is not None:
        return subject.model.chain
    named, full = subject.run.name, hasattr(subject.run.experiment.model, "inference")
    raise ValueError(
        f"{named} walks no chain under its settings, but answers by one call"
        + ("; --model.inference=full walks one" if full else "")
    )


def ranked(subject: Subject, batch: int) -> Call:
    """Points for a batch of queries and the best items for them, none that a user has."""
    phase, model, args = subject.phase, subject.model, _asked(subject, batch)
    masked = phases.rules_of(phase).mask_seen

    def lists(params, state, key, query):
        seen = getattr(query, "seq", getattr(query, "items", None)) if masked else None
        drawn = rank.sample(model, params, state, key, query)
        return rank.top(drawn, k=min(LIST, phase.dataset.num_items), seen=seen)

    return Call(jax.jit(lists), args, _rows(args), "users", phase.mesh)


def updates(subject: Subject, count: int) -> Call:
    """`count` updates in one dispatch. They take over the state that they are given."""
    phase, config, seed = subject.phase, subject.phase.settings.train, subject.phase.settings.seed
    made = programs.updates_of(
        partial(phases.model_of, phase), phase.batcher.example, optimizer_of(phase), config,
        phase.mesh, "jit",
    )  # fmt: skip
    order_of = phase.batcher.order or programs.shuffle_of(config, phase.batcher.num_examples)
    order = jax.jit(order_of)(streams.order(seed))
    count = max(1, min(count, len(order), parallel.MOST_UPDATES))
    place = made.place
    args = (
        place(jax.tree.map(jnp.copy, subject.train)), place(phase.batcher.train),
        place(streams.training(seed)), place(order), np.int32(0), np.int32(count),
    )  # fmt: skip
    return Call(made.run, args, count * config.batch_size, "examples", phase.mesh, count)


def evaluation(subject: Subject) -> tuple[Callable[[], Any], int]:
    """A function that ranks the test split and takes its metrics, and the split's rows."""
    judge = judging.ranker(subject.phase, "test")
    params, state = averaged(subject.train), subject.train.state
    key = streams.evaluation(subject.phase.settings.seed)
    rows = len(phases.rows_of(subject.phase.dataset, "test")[0].start)
    return lambda: judge(params, state, key).metrics, rows


def _asked(subject: Subject, batch: int) -> tuple:
    """Parameters, state, key and a batch of queries of the test split, laid out on the devices."""
    phase = subject.phase
    size = meshes.rounded(batch, phase.mesh)
    rows = len(phases.rows_of(phase.dataset, "test")[0].start)
    index = (np.arange(size) % rows).astype(np.int32)
    query = jax.jit(phase.batcher.query)(phase.batcher.splits["test"], index)
    # every row draws its own noise, however few rows the data has
    query = query._replace(row_id=jnp.arange(size, dtype=jnp.int32))
    shared = averaged(subject.train), subject.state, streams.evaluation(phase.settings.seed)
    shared = layout.put(shared, layout.shardings(shared, phase.mesh))
    by_row = NamedSharding(phase.mesh, P(meshes.DATA))
    return (*shared, layout.put(query, by_row))


def _rows(args: tuple) -> int:
    return len(args[-1].row_id)


def _initial(phase: PhaseRun) -> TrainState:
    initial = programs.initial_of(
        partial(phases.model_of, phase), phase.batcher.example, optimizer_of(phase),
        phase.settings.train, streams.init(phase.settings.seed),
    )  # fmt: skip
    return jax.jit(initial)(phase.batcher.train, phases.model_of(phase).given)


def optimizer_of(phase: PhaseRun) -> Any:
    """The optimizer of a phase's training."""
    config = phase.settings.train
    total = programs.num_updates(config, phase.batcher.num_examples)
    model = phases.model_of(phase)
    return optim.of_model(config, total, model)


def _exports(backbone: PhaseRun) -> dict[str, np.ndarray]:
    """What an untrained backbone hands on."""
    export = registry.system(backbone.settings.model).export
    assert export is not None  # `runs.prepare` looked at what it exports
    train = _initial(backbone)
    return export(backbone.settings.model, backbone.spec, averaged(train), train.state)
