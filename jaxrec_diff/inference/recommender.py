"""Top lists for users and for histories that nobody has seen before, a batch at a time.

    import jaxrec_diff
    found = jaxrec_diff.recommend("runs/dimerec-clicks", histories=[["shoe-12", "hat-3"]], k=10)
    found[0].items

Histories hold raw ids, oldest first. Ids that training never met are counted and skipped; where
nothing is left of a history, the most popular items stand in. A model that knows users by number
(triplets) serves a new history through the known user whose training items are most alike,
by cosine.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.data import ids
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.evaluation import rank
from jaxrec_diff.experiments import restore
from jaxrec_diff.inference import neighbours, program, rebatch
from jaxrec_diff.inference import new_items as inference_new_items
from jaxrec_diff.inference.program import Asked
from jaxrec_diff.inference.types import Histories, Lists, Recommender, Vocabulary
from jaxrec_diff.models import registry
from jaxrec_diff.ops import meshes, ragged, streams

_SEEDS = 1_000  # the points of all draws are on the device at once
_BATCH = 2**16
_CELLS = 2**22  # places of the histories that are on a device at once, padding among them


def load(
    workdir: str | Path,
    *,
    k: int = 20,
    seeds: int = 1,
    seed: int | None = None,
    sampler: str | None = None,
    sampler_steps: int | None = None,
    include_seen: bool = False,
    batch_size: int | None = None,
    data: str | None = None,
    new_items: str | Path | None = None,
    flags: Sequence[str] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Recommender:
    """Reads the best checkpoint of a workdir.

    Args:
      workdir: what `bin/train` left.
      k: length of the lists; no longer than the catalogue, which is said.
      seeds: draws of the sampler's noise, at most 1,000; an item scores the best of its draws.
      seed: of the noise; the run's by default.
      sampler: kind of the reverse path, or "fast"; the run's by default.
      sampler_steps: its steps.
      include_seen: items of a history may be recommended again.
      batch_size: histories at once, 65,536 where it is larger; changes no list.
      data: where the interactions are now, if they were moved.
      new_items: a file of vectors of items, of which those that training never met are recommended
        too; for a model whose rows of items are frozen vectors (`data.item-features`).
      flags: further dotted flags, `--model.sampler.eta=0.5`.
      settings: further dotted fields with typed values, {"model.sampler.eta": 0.5}.

    Raises:
      ValueError: if there is no run, or on settings that do not fit it.
    """
    folder = Path(workdir)
    path = {"model.sampler.kind": sampler, "model.sampler.steps": sampler_steps}
    chosen = {name: value for name, value in path.items() if value is not None}
    run = restore.reopen(folder, flags, data, {**settings, **chosen})
    restored = restore.restore(run, folder)
    if new_items is not None:
        restored = inference_new_items.extended(restored, folder, Path(new_items))
    return of(
        restored,
        k=k,
        seeds=seeds,
        seed=seed,
        include_seen=include_seen,
        batch_size=batch_size,
    )


def of(
    restored: restore.Restored,
    *,
    k: int = 20,
    seeds: int = 1,
    seed: int | None = None,
    include_seen: bool = False,
    batch_size: int | None = None,
) -> Recommender:
    """The same from a model that is in memory, whatever protocol it was evaluated under."""
    restored = restore.honest(restored)
    phase, model, params, state = restored
    for flag, value in (("k", k), ("seeds", seeds)):
        if value < 1:
            raise ValueError(f"{flag} must be at least 1, got {value}")
    if seeds > _SEEDS:
        raise ValueError(f"seeds must be at most {_SEEDS:,}, got {seeds:,}")
    dataset, experiment, mesh = phase.dataset, phase.settings, phase.mesh
    k = capped(k, dataset.num_items)
    kind = registry.input_of(experiment.model)
    size = meshes.rounded(min(batch_size or experiment.eval.batch_size, _BATCH), mesh)
    seed = experiment.seed if seed is None else seed
    keys = [streams.draw(seed, number) for number in range(seeds)]
    found_by = program.lists(restored, keys=keys, k=k)
    state = rank.precompute(model, params, state)
    by_row, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

    @partial(jax.jit, out_shardings=everywhere)
    def step(params, state, first, user, history):
        row_id = first + jnp.arange(len(history), dtype=jnp.int32)
        hidden = None if include_seen else history
        top, draws = found_by(params, state, Asked(row_id, user, history, hidden))
        spread = jnp.zeros(len(history)) if draws is None else program.spread(draws)
        return top.items, top.scores, spread

    def ranked(histories: Histories, first: int):
        lengths = np.diff(histories.offsets)
        rows = _rows(size, bucket(int(lengths.max(initial=1))), mesh.size)
        found = []
        for begin in range(0, max(len(lengths), 1), rows):
            part = rebatch.cut(histories, begin, min(begin + rows, len(lengths)))
            user = np.zeros(rows, np.int32)
            user[: len(part.user)] = np.maximum(part.user, 0)
            width = bucket(int(np.diff(part.offsets).max(initial=1)))
            placed = layout.put((user, _padded(part, rows, width)), by_row)
            with jax.set_mesh(mesh):
                found.append(step(params, state, np.int32(first + begin), *placed))
        return found

    return Recommender(
        dataset,
        experiment,
        Vocabulary(ids.to_arrow(dataset.item_ids)),
        size,
        seeds,
        neighbours.owners(dataset) if kind.knows_users else None,
        ranked,
        *most_popular(dataset, k),
    )


def most_popular(dataset: Dataset, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The items that occur most often in training, i32[k] at most, and how often, f32[k]."""
    order = np.argsort(-dataset.train_counts, kind="stable")
    order = order[dataset.train_counts[order] > 0][:k]
    return (order + 1).astype(np.int32), dataset.train_counts[order].astype(np.float32)


class Capped(UserWarning):
    """Longer lists were asked for than there are items."""


def capped(k: int, num_items: int) -> int:
    """The length of lists: at most the catalogue.

    Warns:
      Capped: if more is asked for.
    """
    if k > num_items:
        warnings.warn(
            Capped(f"k={k} is more than the {num_items} items there are; lists have {num_items}"),
            stacklevel=3,
        )
    return min(k, num_items)


def ask(recommender: Recommender, histories: Iterable[Histories]) -> Iterator[Lists]:
    """Lists for a stream of histories, in its order; two batches are in memory at a time."""
    waiting: tuple[Histories, list[tuple]] | None = None
    first = 0
    for part in rebatch.regroup(histories, recommender.size):
        if recommender.owners is not None:
            stand_ins = neighbours.stand_ins(recommender.dataset, recommender.owners, part)
            part = part._replace(user=stand_ins)
        arrays = recommender.rank(part, first)  # the device works while the last batch is handed on
        first += len(part.user)
        if waiting is not None:
            yield _lists(recommender, *waiting)
        waiting = part, arrays
    if waiting is not None:
        yield _lists(recommender, *waiting)


def _rows(size: int, width: int, devices: int) -> int:
    """How many histories of a width are ranked at once: fewer of very long ones."""
    rows = size
    while rows * width > _CELLS and rows % (2 * devices) == 0:
        rows //= 2
    return rows


def bucket(size: int) -> int:
    """A power of two, so that few shapes are compiled."""
    return max(16, 1 << (size - 1).bit_length())


def _padded(histories: Histories, size: int, width: int) -> np.ndarray:
    """i32[size, width] histories, right-padded with 0."""
    out = np.zeros((size, width), np.int32)
    place, row = ragged.expand(0, np.diff(histories.offsets))
    out[row, place] = histories.items
    return out


def _lists(recommender: Recommender, part: Histories, arrays: list[tuple]) -> Lists:
    items, scores, spread = (
        np.concatenate(arrays_of)[: len(part.user)] for arrays_of in zip(*arrays, strict=True)
    )
    fallback = np.diff(part.offsets) == 0
    k = len(recommender.popular)
    items[fallback], scores[fallback] = 0, -np.inf
    items[fallback, :k], scores[fallback, :k] = recommender.popular, recommender.counts
    spread[fallback] = 0.0
    shown = spread if recommender.draws > 1 else None
    return Lists(part.names, items, scores, shown, fallback, part.unknown)
