"""What a run's generator makes: items ahead of sequences, and what they are like."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.augmentation import generate, quality
from jaxrec_diff.data import views
from jaxrec_diff.experiments import exports, judging, phases, restore
from jaxrec_diff.experiments.phases import BACKBONE, GENERATOR, PhaseRun
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.ops import ragged, streams
from jaxrec_diff.training.state import TrainState, averaged


class Generator(NamedTuple):
    """A generator that a run has trained."""

    phase: PhaseRun  # with the backbone's exports
    train: TrainState


def generator_of(run: Run, workdir: Path) -> Generator:
    """The trained generator of a workdir.

    Raises:
      ValueError: if the run has none, or has not finished its training.
    """
    if not phases.generates(run.experiment):
        raise ValueError(f"{workdir} holds a {run.name}, which generates no items")
    restore.check_phases(run, workdir)
    first, own, _ = run.phases
    phase = phases.bind(first, own, exports.read(exports.path(workdir, BACKBONE)))
    folder = exports.path(workdir, GENERATOR).parent
    return Generator(phase, restore.best_of(phase, folder))


def chunks(
    phase: PhaseRun,
    train: TrainState,
    histories: ragged.Ragged | None = None,
    *,
    batch_size: int | None = None,
    first: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """The items that a generator puts ahead of histories, in chunks (first row, i32[b, M]).

    Args:
      phase: the generator's, with its backbone's exports.
      train: what was fitted.
      histories: by default the training items of every user who may get any.
      batch_size: histories at once, by default that of evaluation; changes no item.
      first: row to begin with.
    """
    data = phase.settings.data
    return generate.prefixes(
        phases.model_of(phase),
        averaged(train),
        train.state,
        _short(_user_items(phase), data.prefix_max_items) if histories is None else histories,
        seed=phase.settings.seed,
        max_len=data.max_len,
        batch_size=batch_size or phase.settings.eval.batch_size,
        first=first,
        rounding=generate.Rounding(data.prefix_dedup, data.prefix_exclude_seen),
    )


def all_items(
    phase: PhaseRun, train: TrainState, histories: ragged.Ragged | None = None
) -> np.ndarray:
    """`chunks` in one piece, i32[N, M]."""
    return np.concatenate([chunk for _, chunk in chunks(phase, train, histories)])


def results(run: Run, workdir: Path) -> dict[str, Any]:
    """What a generator's run adds to its results: the recommender without the generated items, and
    what those are like."""
    first = run.phases[0]
    _, _, params, state = restore.trained(first, exports.path(workdir, BACKBONE).parent)
    key = streams.evaluation(first.settings.seed)
    found = judging.ranker(first, "test")(params, state, key)
    prefix = exports.read(exports.path(workdir, GENERATOR))["prefix"]
    made = quality.quality(prefix, _user_items(first), run.dataset.train_counts)
    return {
        "without": {
            "model": first.title,
            "metrics": found.metrics,
            "groups": judging.groups(first, params, state, found),
        },
        "generated": made | _held_out(run, workdir),
    }


def _held_out(run: Run, workdir: Path) -> dict[str, float]:
    """Recall of the items that really came first for long users kept from the generator."""
    phase, train = generator_of(run, workdir)
    histories, true = views.known_before(phase.dataset.test, phase.settings.data.prefix_len)
    items = all_items(phase, train, histories)
    found = quality.quality(items, histories, run.dataset.train_counts, true)
    return {k: v for k, v in found.items() if k.startswith("recall")}


def _short(user_items: ragged.Ragged, most: int) -> ragged.Ragged:
    """Rows of more than `most` items emptied, so that nothing is put ahead of them; 0: none."""
    if not most:
        return user_items
    few = user_items.end - user_items.start <= most
    return user_items._replace(end=np.where(few, user_items.end, user_items.start))


def _user_items(phase: PhaseRun) -> ragged.Ragged:
    user_items = phase.dataset.user_items
    assert user_items is not None  # the view of a generator has looked
    return user_items
