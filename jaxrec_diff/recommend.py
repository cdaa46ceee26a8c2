"""Top lists for users and for histories that nobody has seen before, a batch at a time.

    from jaxrec_diff import recommend
    found = recommend.recommend("runs/dimerec-clicks", histories=[["shoe-12", "hat-3"]], k=10)
    found[0].items

Histories hold raw ids, oldest first. Ids that training never met are counted and skipped; where
nothing is left of a history, the most popular items stand in. A model that knows users by number
(feeds of pairs) serves a new history through the known user whose training items are most alike,
by cosine.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import batches, config, experiments, feeds, models, ranking
from jaxrec_diff.batches import Slices
from jaxrec_diff.data import Dataset

_EXAMPLES = 5  # unknown ids that a report names
_DENSE_ROWS = 64  # histories compared with all users at once


class Histories(NamedTuple):
    """Histories as item numbers, on the host."""

    names: Any  # arrow array [N], what their owners are called
    items: np.ndarray  # i32[nnz] item ids 1..I, oldest first
    offsets: np.ndarray  # i64[N + 1]
    user: np.ndarray  # i32[N], number of the known user, or -1
    unknown: np.ndarray  # i32[N], ids that were skipped


class Lists(NamedTuple):
    """What is recommended to a batch."""

    names: Any  # arrow array [N]
    items: np.ndarray  # i32[N, k], 0 where there are fewer than k
    scores: np.ndarray  # f32[N, k]
    spread: np.ndarray | None  # f32[N], share of a draw's list that another draw's lacks
    fallback: np.ndarray  # bool[N], popular items of an unknown history; scores are their counts
    unknown: np.ndarray  # i32[N]


class Tally(NamedTuple):
    """What was met along the way."""

    histories: int = 0
    unknown_ids: int = 0
    touched: int = 0  # histories with an unknown id
    fallbacks: int = 0

    def add(self, lists: Lists) -> "Tally":
        return self._replace(
            histories=self.histories + len(lists.names),
            unknown_ids=self.unknown_ids + int(lists.unknown.sum()),
            touched=self.touched + int((lists.unknown > 0).sum()),
            fallbacks=self.fallbacks + int(lists.fallback.sum()),
        )


class Recommendation(NamedTuple):
    """One row of the Python call."""

    user: Any  # raw id, or the place of the history
    items: list  # raw ids, best first
    scores: list[float]
    spread: float | None
    fallback: bool


class Vocabulary(NamedTuple):
    """Raw ids of the catalogue; item j + 1 is `ids[j]`."""

    ids: Any  # arrow array

    def encode(self, raw: Any) -> np.ndarray:
        """Arrow array of raw ids -> i32 item numbers, 0 where there is none."""
        import pyarrow.compute as pc

        found = pc.index_in(_as_type(raw, self.ids.type), self.ids)
        return pc.add(pc.fill_null(found, -1), 1).to_numpy(zero_copy_only=False).astype(np.int32)


class Owners(NamedTuple):
    """Who has what in training."""

    user: np.ndarray  # i32[M] users, one item's after the other's
    bounds: np.ndarray  # i64[I + 2] where each item's begin
    norm: np.ndarray  # f64[U] sqrt of the number of a user's distinct items


class Recommender(NamedTuple):
    """A trained workdir, ready to be asked."""

    dataset: Dataset
    experiment: config.Experiment
    vocabulary: Vocabulary
    size: int  # histories at once
    draws: int
    owners: Owners | None  # where the model knows users by number
    rank: Callable[..., tuple]  # histories, first row -> device arrays of a batch
    popular: np.ndarray  # i32[k]
    counts: np.ndarray  # f32[k], how often they were trained on


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
    flags: Sequence[str] = (),
) -> Recommender:
    """Reads the best checkpoint of a workdir.

    Args:
      workdir: what `bin/train` left.
      k: length of the lists.
      seeds: draws of the sampler's noise; an item scores the best of its draws.
      seed: of the noise; the run's by default.
      sampler: kind of the reverse path; the run's by default.
      sampler_steps: its steps.
      include_seen: items of a history may be recommended again.
      batch_size: histories at once; changes no list.
      data: where the interactions are now, if they were moved.
      flags: further dotted flags, `--model.sampler.eta=0.5`.

    Raises:
      ValueError: if there is no run, or on settings that do not fit it.
    """
    folder = Path(workdir)
    dotted = list(flags)
    if sampler is not None:
        dotted.append(f"--model.sampler.kind={sampler}")
    if sampler_steps is not None:
        dotted.append(f"--model.sampler.steps={sampler_steps}")
    prepared = experiments.reopen(folder, dotted, data)
    return of(
        experiments.restore(prepared, folder),
        k=k,
        seeds=seeds,
        seed=seed,
        include_seen=include_seen,
        batch_size=batch_size,
    )


def of(
    restored: experiments.Restored,
    *,
    k: int = 20,
    seeds: int = 1,
    seed: int | None = None,
    include_seen: bool = False,
    batch_size: int | None = None,
) -> Recommender:
    """The same from a model that is in memory, whatever protocol it was evaluated under."""
    import pyarrow as pa

    prepared, model, params, state = experiments.honest(restored)
    for flag, value in (("k", k), ("seeds", seeds)):
        if value < 1:
            raise ValueError(f"{flag} must be at least 1, got {value}")
    dataset, experiment, mesh = prepared.dataset, prepared.experiment, prepared.mesh
    kind = models.feed(experiment.model)
    size = -(-(batch_size or experiment.eval.batch_size) // mesh.size) * mesh.size
    root = jax.random.fold_in(jax.random.key(experiment.seed if seed is None else seed), 3)
    keys = [jax.random.fold_in(root, draw) for draw in range(seeds)]
    allowed = jnp.asarray(dataset.train_counts > 0)
    state = jax.jit(model.prepare)(params, state)
    by_row, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    compiled: dict[int, Callable] = {}

    def step(cut, params, state, rows, index, first, user, seen):
        query = cut(rows, index)
        query = query._replace(row=first + jnp.arange(size, dtype=jnp.int32))
        if "user" in query._fields:
            query = query._replace(user=user)
        head = model.head(params, state)
        each = [model.sample(params, state, key, query) for key in keys]
        each = [points[:, None] if points.ndim == 2 else points for points in each]
        top = partial(
            ranking.top,
            table=head.table,
            bias=head.bias,
            k=k,
            pool=model.pool,
            seen=None if include_seen else seen,
            allowed=allowed,
        )
        found = top(jnp.concatenate(each, axis=1))
        if len(each) == 1:
            return found.items, found.scores, jnp.zeros(size)
        return found.items, found.scores, _spread(jnp.stack([top(p).items for p in each]))

    def rank(histories: Histories, first: int):
        width = _bucket(int(np.diff(histories.offsets).max(initial=1)))
        feed = feeds.feed(kind, _asked(dataset, histories, size, width), experiment.data)
        if width not in compiled:
            compiled[width] = jax.jit(partial(step, feed.query))
        index = np.full(size, -1, np.int32)
        index[: len(histories.user)] = np.arange(len(histories.user))
        user = np.zeros(size, np.int32)
        user[: len(histories.user)] = np.maximum(histories.user, 0)
        seen = _padded(histories, size, width)
        rows = jax.device_put(jax.tree.map(_round_up, feed.splits["test"]), everywhere)
        index, user, seen = jax.device_put((index, user, seen), by_row)
        return compiled[width](params, state, rows, index, np.int32(first), user, seen)

    order = np.argsort(-dataset.train_counts, kind="stable")
    order = order[dataset.train_counts[order] > 0][:k]
    return Recommender(
        dataset,
        experiment,
        Vocabulary(pa.array(dataset.item_ids)),
        size,
        seeds,
        _owners(dataset) if kind in ("pairs", "user_pairs") else None,
        rank,
        (order + 1).astype(np.int32),
        dataset.train_counts[order].astype(np.float32),
    )


def ask(recommender: Recommender, histories: Iterable[Histories]) -> Iterator[Lists]:
    """Lists for a stream of histories, in its order; two batches are in memory at a time."""
    waiting: tuple[Histories, tuple] | None = None
    first = 0
    for part in _regroup(histories, recommender.size):
        if recommender.owners is not None:
            stand_ins = _stand_ins(recommender.dataset, recommender.owners, part)
            part = part._replace(user=stand_ins)
        arrays = recommender.rank(part, first)  # the device works while the last batch is handed on
        first += len(part.user)
        if waiting is not None:
            yield _lists(recommender, *waiting)
        waiting = part, arrays
    if waiting is not None:
        yield _lists(recommender, *waiting)


def known_users(dataset: Dataset) -> Slices:
    """Row u is the whole history of user u: training, validation and test.

    Of a source of given histories, a user is a row of it.
    """
    if dataset.profiles is None:
        parts = [dataset.train, dataset.valid, dataset.test]
        start, stop = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("start", "stop")
        )
        return Slices(dataset.train.items, start, stop, stop)
    start, stop = dataset.profiles.start.copy(), dataset.profiles.end.copy()
    if dataset.profiles.generated is not None:  # what nobody chose stands ahead, and is left out
        made = np.append(0, np.cumsum(dataset.profiles.generated)).astype(start.dtype)
        start += made[stop] - made[start]
    for part, users in (
        (dataset.valid, dataset.valid_users),
        (dataset.test, dataset.test_users),
    ):
        stop[users] = np.maximum(stop[users], part.stop)
    return Slices(dataset.profiles.items, start, stop, stop)


def of_users(recommender: Recommender, users: np.ndarray, size: int = 8192) -> Iterator[Histories]:
    """The whole histories of users by number."""
    whole = known_users(recommender.dataset)
    for begin in range(0, len(users), size):
        part = users[begin : begin + size]
        yield of_rows(recommender, batches.pick(whole, part), part)


def of_rows(recommender: Recommender, rows: Slices, users: np.ndarray) -> Histories:
    """The histories of some rows, asked by known users: what each had done by then."""
    import pyarrow as pa

    lengths = (rows.end - rows.start).astype(np.int64)
    offsets = np.append(0, np.cumsum(lengths))
    at = np.arange(offsets[-1]) + np.repeat(rows.start - offsets[:-1], lengths)
    return Histories(
        pa.array(recommender.dataset.user_ids[users]),
        rows.items[at].astype(np.int32),
        offsets,
        users.astype(np.int32),
        np.zeros(len(users), np.int32),
    )


def encode(
    recommender: Recommender, names: Any, raw: Any, offsets: np.ndarray
) -> tuple[Histories, list[str]]:
    """Histories of raw ids, and some of the ids that the catalogue lacks.

    Args:
      recommender: from `load`.
      names: arrow array [N].
      raw: arrow array of ids, one history after the other.
      offsets: i64[N + 1] where they begin.
    """
    items = recommender.vocabulary.encode(raw)
    good = items > 0
    kept = np.append(0, np.cumsum(good))[offsets]
    unknown = (np.diff(offsets) - np.diff(kept)).astype(np.int32)
    missing = [str(raw[int(at)]) for at in np.flatnonzero(~good)[:_EXAMPLES]]
    nobody = np.full(len(unknown), -1, np.int32)
    return Histories(names, items[good], kept, nobody, unknown), missing


def recommend(
    workdir: str | Path | Recommender,
    *,
    users: Sequence | None = None,
    histories: Sequence[Sequence] | None = None,
    **options: Any,
) -> list[Recommendation]:
    """Top lists for known users, or for histories of raw ids.

    Args:
      workdir: what `bin/train` left, or a `Recommender`.
      users: raw ids; all known users where neither is given. Unknown ones are left out.
      histories: sequences of raw item ids, oldest first.
      **options: of `load`.

    Raises:
      ValueError: if both are given, or on what `load` refuses.
    """
    import pyarrow as pa

    if users is not None and histories is not None:
        raise ValueError("give users or histories, not both")
    rows = histories if histories is not None else users
    if rows is not None and "batch_size" not in options:
        options["batch_size"] = min(_bucket(len(rows)), 1024)  # changes no list
    asked = workdir if isinstance(workdir, Recommender) else load(workdir, **options)
    if histories is not None:
        offsets = np.append(0, np.cumsum([len(history) for history in histories]))
        raw = pa.array([str(item) for history in histories for item in history], pa.string())
        names = pa.array(np.arange(len(histories)))
        stream: Iterable[Histories] = [encode(asked, names, raw, offsets.astype(np.int64))[0]]
    else:
        stream = of_users(asked, numbers(asked.dataset, users)[0])
    found = []
    for lists in ask(asked, stream):
        ids = asked.dataset.item_ids
        for row, name in enumerate(lists.names.to_pylist()):
            real = lists.items[row] > 0
            found.append(
                Recommendation(
                    name,
                    ids[lists.items[row][real] - 1].tolist(),
                    lists.scores[row][real].tolist(),
                    None if lists.spread is None else float(lists.spread[row]),
                    bool(lists.fallback[row]),
                )
            )
    return found


def numbers(dataset: Dataset, users: Any | None) -> tuple[np.ndarray, list[str]]:
    """Numbers of users by raw id, all by default, and the ids that are nobody's."""
    import pyarrow as pa

    if users is None:
        whole = known_users(dataset)
        return np.flatnonzero(whole.end > whole.start), []
    raw = users if isinstance(users, pa.Array) else pa.array([str(user) for user in users])
    found = Vocabulary(pa.array(dataset.user_ids)).encode(raw)
    return found[found > 0] - 1, [str(raw[int(at)]) for at in np.flatnonzero(found == 0)]


def _as_type(raw: Any, kind: Any) -> Any:
    """Arrow ids as whole numbers or as text; null where they cannot be."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if raw.type == kind:
        return raw
    if pa.types.is_null(raw.type):
        return pa.nulls(len(raw), kind)
    if pa.types.is_floating(raw.type):
        inside = pc.less(pc.abs(raw), 2.0**53)
        raw = pc.if_else(pc.and_(inside, pc.equal(pc.floor(raw), raw)), raw, None).cast(pa.int64())
    if pa.types.is_integer(kind) and not pa.types.is_integer(raw.type):
        text = pc.utf8_trim_whitespace(raw.cast(pa.string()))
        digits = pc.match_substring_regex(text, r"^\d{1,18}$")
        return pc.if_else(digits, text, None).cast(kind)
    return raw.cast(kind)


def _regroup(stream: Iterable[Histories], size: int) -> Iterator[Histories]:
    """Pieces of exactly `size`, the last of what is left."""
    held: list[Histories] = []
    count = 0
    for part in stream:
        held.append(part)
        count += len(part.user)
        while count >= size:
            whole = _joined(held)
            yield _cut(whole, 0, size)
            held, count = [_cut(whole, size, count)], count - size
    if count:
        yield _joined(held)


def _joined(parts: list[Histories]) -> Histories:
    import pyarrow as pa

    if len(parts) == 1:
        return parts[0]
    shifts = np.append(0, np.cumsum([len(part.items) for part in parts]))
    offsets = [part.offsets[:-1] + shift for part, shift in zip(parts, shifts, strict=False)]
    return Histories(
        pa.concat_arrays([part.names for part in parts]),
        np.concatenate([part.items for part in parts]),
        np.append(np.concatenate(offsets), shifts[-1]),
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.unknown for part in parts]),
    )


def _cut(whole: Histories, begin: int, end: int) -> Histories:
    offsets = whole.offsets[begin : end + 1]
    return Histories(
        whole.names[begin:end],
        whole.items[offsets[0] : offsets[-1]],
        offsets - offsets[0],
        whole.user[begin:end],
        whole.unknown[begin:end],
    )


def _bucket(size: int) -> int:
    """A power of two, so that few shapes are compiled."""
    return max(16, 1 << (size - 1).bit_length())


def _round_up(array: Any) -> np.ndarray:
    array = np.asarray(array)
    spare = _bucket(len(array)) - len(array)
    return np.pad(array, [(0, spare)] + [(0, 0)] * (array.ndim - 1))


def _padded(histories: Histories, size: int, width: int) -> np.ndarray:
    """i32[size, width] histories, right-padded with 0."""
    out = np.zeros((size, width), np.int32)
    lengths = np.diff(histories.offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(histories.items)) - np.repeat(histories.offsets[:-1], lengths)
    out[row, place] = histories.items
    return out


def _asked(dataset: Dataset, histories: Histories, size: int, width: int) -> Dataset:
    """The data set with the histories in the place of its users and of its test rows.

    A last row, which nobody asks for, has `width` items: feeds that pad to the longest history then
    make one of few shapes.
    """
    longest = np.arange(width, dtype=np.int32) % dataset.num_items + 1
    items = np.concatenate([histories.items, longest])
    bounds = np.full(size + 2, len(histories.items), np.int64)
    bounds[: len(histories.offsets)] = histories.offsets
    bounds[-1] = len(items)
    start, end = bounds[:-1].astype(np.int32), bounds[1:].astype(np.int32)
    rows = Slices(items, start, end, end)
    one = Slices(items, start[-1:], end[-1:] - 1, end[-1:])
    everyone = np.arange(size + 1, dtype=np.int32)
    return dataset._replace(
        num_users=size + 1,
        train=one,
        valid=rows,
        test=rows,
        valid_users=everyone,
        test_users=everyone,
        profiles=None if dataset.profiles is None else rows,
        shown=None,
    )


def _stand_ins(dataset: Dataset, owners: Owners, histories: Histories) -> np.ndarray:
    """i32[N] the known user of every history, or the one whose training items are most alike.

    Cosine of the sets: |h and p_u| / sqrt(|h| |p_u|), ties to the lowest number.
    """
    user = histories.user.copy()
    lengths = np.diff(histories.offsets)
    new = np.flatnonzero((user < 0) & (lengths > 0))
    row = np.repeat(np.arange(len(lengths)), lengths)
    for begin in range(0, len(new), _DENSE_ROWS):
        rows = new[begin : begin + _DENSE_ROWS]
        mine = np.isin(row, rows)
        pairs = np.unique(row[mine] * (dataset.num_items + 1) + histories.items[mine])
        asker, item = np.divmod(pairs, dataset.num_items + 1)
        first, count = owners.bounds[item], owners.bounds[item + 1] - owners.bounds[item]
        at = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
        cell = np.repeat(np.searchsorted(rows, asker), count) * dataset.num_users + owners.user[at]
        shared = np.bincount(cell, minlength=len(rows) * dataset.num_users)
        alike = shared.reshape(len(rows), -1) / owners.norm
        user[rows] = np.argmax(alike, axis=1)
    return user


def _owners(dataset: Dataset) -> Owners:
    profiles = dataset.profiles
    assert profiles is not None  # a feed that knows users has them
    sizes = (profiles.end - profiles.start).astype(np.int64)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    at = np.arange(sizes.sum()) + np.repeat(profiles.start - (np.cumsum(sizes) - sizes), sizes)
    pairs = np.unique(profiles.items[at].astype(np.int64) * len(sizes) + owner)
    item, user = np.divmod(pairs, len(sizes))
    norm = np.sqrt(np.maximum(np.bincount(user, minlength=len(sizes)), 1))
    bounds = np.searchsorted(item, np.arange(dataset.num_items + 2))
    return Owners(user.astype(np.int32), bounds, norm)


def _spread(items: jax.Array) -> jax.Array:
    """i32[S, B, k] lists of draws -> f32[B], one minus the mean share two lists have in common."""
    draws = items.shape[0]
    shared = jnp.zeros(items.shape[1], jnp.int32)
    for a in range(draws):
        for b in range(a):
            same = (items[a][:, :, None] == items[b][:, None, :]) & (items[a][:, :, None] > 0)
            shared = shared + same.sum(axis=(1, 2))
    places = jnp.maximum((items[0] > 0).sum(axis=1), 1) * (draws * (draws - 1) // 2)
    return (places - shared) / places


def _lists(recommender: Recommender, part: Histories, arrays: tuple) -> Lists:
    items, scores, spread = (np.array(array)[: len(part.user)] for array in arrays)
    fallback = np.diff(part.offsets) == 0
    k = len(recommender.popular)
    items[fallback], scores[fallback] = 0, -np.inf
    items[fallback, :k], scores[fallback, :k] = recommender.popular, recommender.counts
    spread[fallback] = 0.0
    shown = spread if recommender.draws > 1 else None
    return Lists(part.names, items, scores, shown, fallback, part.unknown)
