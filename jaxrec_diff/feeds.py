"""How each kind of input is cut from a data set, batch by batch, on the device.

    sequences      a history and its next item
    windows        the same, of each user only as many as make every training item a target once,
                   for models that learn at every place of a history
    interactions   a user's whole training row, as ids and values
    pairs          a user, one of the user's items and an item that is not the user's
    user_pairs     the same, drawn by user: an active one is seen no oftener than any other
    walks          a user's whole training sequence, with an item that is not the user's a place
    prefixes       a history and the M items that came before it

A training batch and a query are cut from flat arrays that stay on the device; no array of users by
items exists.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import batches, graph, noise
from jaxrec_diff.batches import (
    Group,
    InteractionQuery,
    Interactions,
    Pairs,
    Prefixes,
    Shared,
    Slices,
    Walks,
)
from jaxrec_diff.data import views
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.profiles import distinct, time_weights
from jaxrec_diff.training import order

_MAX_BUCKETS = 4  # each is a copy of the network in the compiled update

Kind = Literal["sequences", "windows", "interactions", "pairs", "user_pairs", "walks", "prefixes"]


# Kinds whose queries are the histories of a split, validation's items among them at the test.
OF_HISTORIES = ("sequences", "windows", "walks", "prefixes")


class Feed(NamedTuple):
    """One kind of input."""

    train: Any  # arrays that `example` cuts from, on the host
    num_examples: int
    example: Callable[[Any, jax.Array, jax.Array, jax.Array], Any]
    """(train, index i32[B], row i32[B], key) -> example; index -1 makes a row of weight 0."""
    splits: dict[str, Any]  # "valid" and "test": arrays that `query` cuts from, on the host
    query: Callable[[Any, jax.Array], Any]
    """(arrays of a split, index i32[B]) -> query; index -1 makes an empty one."""
    order: Callable[[jax.Array], jax.Array] | None = None
    """key -> i32[steps, slots] of an epoch, where `example` wants its own; -1 is an empty slot."""
    groups: dict[str, tuple[Group, ...]] = {}
    """Rows of a split that are cut alike, where there is more than one way."""
    shared: Shared | None = None
    """One run of queries for both splits, where a user's are the same in both but for `row`."""


class Rows(NamedTuple):
    """Users by number, over their training rows."""

    profiles: Slices  # distinct items of each user
    value: Any  # f32[M], aligned with their items
    user: Any  # i32[N]


class Preferences(NamedTuple):
    """Every training pair, and every user's distinct training items in rising order."""

    user: Any  # i32[N]
    item: Any  # i32[N]
    owned: Any  # i32[M], one user after the other
    offsets: Any  # i32[U + 1]


class Walked(NamedTuple):
    """Users by number over their training rows, and every user's distinct training items."""

    profiles: Slices
    user: Any  # i32[N], users with at least two real items
    owned: Any  # i32[M], one user after the other, rising
    offsets: Any  # i32[U + 1]


def view(kind: Kind, dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set as models of a kind are trained and judged on it."""
    return views.before(dataset, config) if kind == "prefixes" else dataset


def shown(dataset: Dataset) -> dict[str, Slices]:
    """The histories that queries of validation and test are cut from."""
    return dataset.shown or {"valid": dataset.valid, "test": dataset.test}


def feed(kind: Kind, dataset: Dataset, config: DataConfig) -> Feed:
    """The feed of a kind, from what `view` makes of a data set.

    Raises:
      ValueError: if the data has no users and the kind needs them.
    """
    if kind in ("sequences", "windows"):
        return _fed(_cut_sequences(kind, dataset, config), dataset, config)
    profiles = views.profiles_of(dataset, "this model needs")
    if dataset.shown is not None and kind not in OF_HISTORIES:
        raise ValueError(
            f"{dataset.name} has generated items ahead of its sequences, which mean nothing to a "
            "model of a table; train it on the interactions without them"
        )
    cut = {
        "interactions": _interactions,
        "pairs": _pairs,
        "user_pairs": _user_pairs,
        "walks": _walks,
        "prefixes": _prefixes,
    }[kind]
    return cut(dataset, profiles, config)


class _Cut(NamedTuple):
    """Examples that are cut from histories, at any length."""

    train: Any  # arrays on the host
    spans: Slices  # of every example, the history that it is cut from
    pick: Callable[[Any, Any], Any]
    """(train, rows) -> the same with these examples alone."""
    example: Callable[..., Any]
    """(train, index i32[B], row i32[B], key, length) -> example."""
    apart: tuple[str, ...]
    """Fields of an example that have a column a place."""


def _cut_sequences(kind: Kind, dataset: Dataset, config: DataConfig) -> _Cut:
    def example(train, index, row, key, length):
        del key
        return batches.sequences(train, index, max_len=length, row=row)

    train = _of_kind(kind, dataset, config).train
    return _Cut(train, train, batches.pick, example, ("seq",))


def _fed(cut: _Cut, dataset: Dataset, config: DataConfig) -> Feed:
    """All examples at the longest length."""

    def query(rows, index):
        return batches.queries(rows, index, max_len=config.max_len)

    example = partial(cut.example, length=config.max_len)
    return Feed(cut.train, len(cut.spans.start), example, shown(dataset), query)


def by_length(
    kind: Kind, dataset: Dataset, config: DataConfig, batch_size: int, devices: int
) -> Feed:
    """Sequences or windows in a few static lengths, for models that read them so.

    Every training batch has a fixed number of slots for each length (`training.order.stratified`),
    so an update is compiled once and sees the whole batch; its `seq` is a tuple. Queries are
    grouped by length, one compilation a group. What a length leaves out is padding and nothing
    else; whether that changes a number is the model's to say.
    """
    if kind == "walks":
        cut = _cut_walks(dataset, views.profiles_of(dataset, "this model needs"), config)
    else:
        cut = _cut_sequences(kind, dataset, config)
    lengths = bucket_lengths(cut.spans, config)
    bucket = _bucket(cut.spans, lengths)
    train = cut.pick(cut.train, np.argsort(bucket, kind="stable"))
    sizes = tuple(np.bincount(bucket, minlength=len(lengths)).tolist())
    slots = [c // devices for c in order.capacities(sizes, batch_size, devices)]
    edges = np.append(0, np.cumsum(slots))
    base = np.append(0, np.cumsum(order.capacities(sizes, batch_size, 1)))

    def query(rows, index, length):
        return batches.queries(rows, index, max_len=length)

    def example(train, index, row, key):
        if index.shape[0] % edges[-1]:  # not a batch of `order`: a few rows to initialise from
            return cut.example(train, index, row, key, config.max_len)
        index = index.reshape(-1, edges[-1])
        device, slot = jnp.divmod(row.reshape(-1, edges[-1]), edges[-1])
        parts = []
        for k, length in enumerate(lengths):
            own = slice(edges[k], edges[k + 1])
            # Examples are dealt to devices like cards; their rows are those of an undealt pack, so
            # that noise does not depend on the number of devices.
            place = base[k] + (slot[:, own] - edges[k]) * devices + device[:, own]
            parts.append(
                cut.example(train, index[:, own].reshape(-1), place.reshape(-1), key, length)
            )
        return _joined(parts, cut.apart)

    def grouped(slices):
        found = _bucket(slices, lengths)
        return tuple(
            Group(np.flatnonzero(found == k).astype(np.int32), partial(query, length=length))
            for k, length in enumerate(lengths)
            if (found == k).any()
        )

    return _fed(cut, dataset, config)._replace(
        train=train,
        example=example,
        order=lambda key: order.stratified(key, sizes, batch_size, devices),
        groups={split: grouped(rows) for split, rows in shown(dataset).items()},
    )


def _joined(parts: list[Any], apart: tuple[str, ...]) -> Any:
    """One example of examples of several lengths, whose fields `apart` become tuples."""
    columns: dict[str, Any] = {}
    for name in parts[0]._fields:
        column = [getattr(part, name) for part in parts]
        if name in apart:
            columns[name] = tuple(column)
        else:
            columns[name] = None if column[0] is None else jnp.concatenate(column)
    return type(parts[0])(**columns)


def _of_kind(kind: Kind, dataset: Dataset, config: DataConfig) -> Dataset:
    """The data with the training examples of a kind of sequences."""
    if kind == "sequences":
        return dataset
    train = dataset.train
    # Examples of one user start at the same item; the last has the longest history.
    _, user = np.unique(train.start, return_inverse=True)
    last = np.zeros(user.max() + 1, train.end.dtype)
    np.maximum.at(last, user, train.end)
    kept = np.flatnonzero((last[user] - train.end) % config.max_len == 0)
    kept_parts = {name: getattr(train, name)[kept] for name in ("start", "end", "stop")}
    return dataset._replace(train=train._replace(**kept_parts))


def bucket_lengths(slices: Slices, config: DataConfig) -> tuple[int, ...]:
    """The lengths that histories are padded to: as set, or the (up to four) that pad least.

    Dynamic programming over the histogram of lengths: with c(l) the least number of places when the
    longest history has l items and k lengths are left,

        c_k(l) = min over j < l of c_{k-1}(j) + l #{j < length <= l}.
    """
    longest = config.max_len
    if config.buckets:
        return (*(length for length in config.buckets if length < longest), longest)
    lengths = np.clip(slices.end - slices.start, 1, longest)
    below = np.append(0, np.cumsum(np.bincount(lengths, minlength=longest + 1)[1:]))
    cost = np.where(below == 0, 0, np.inf)
    cuts = []
    for _ in range(min(_MAX_BUCKETS, longest)):
        # [l, j]: a bucket of length l after all histories of up to j items
        candidates = cost[None, :] + np.arange(longest + 1)[:, None] * (below[:, None] - below)
        candidates[np.triu_indices(longest + 1)] = np.inf
        candidates[0, 0] = 0
        cuts.append(candidates.argmin(axis=1))
        cost = candidates.min(axis=1)
    chosen, length = [], longest
    for before in reversed(cuts):
        if length == 0 or below[length] == 0:
            break
        chosen.append(length)
        length = int(before[length])
    return tuple(reversed(chosen))


def _bucket(slices: Slices, lengths: tuple[int, ...]) -> np.ndarray:
    """Which length each history has, the shortest that holds it."""
    return np.searchsorted(lengths, np.minimum(slices.end - slices.start, lengths[-1]))


def _prefixes(dataset: Dataset, profiles: Slices, config: DataConfig) -> Feed:
    del profiles  # `view` has cut the rows

    def example(train, index, row, key):
        del key
        real = index >= 0
        safe = jnp.where(real, index, 0)
        items = jnp.asarray(train.items)
        start, end = (jnp.asarray(part)[safe] for part in (train.start, train.end))
        # a row has M answers, right behind its history
        prefix = items[end[:, None] + jnp.arange(config.prefix_len)]
        seq = batches.window(items, start, end, config.max_len)
        return Prefixes(prefix, seq, real.astype(jnp.float32), row)

    def query(rows, index):
        return batches.queries(rows, index, max_len=config.max_len)

    return Feed(dataset.train, len(dataset.train.start), example, shown(dataset), query)


def _walks(dataset: Dataset, profiles: Slices, config: DataConfig) -> Feed:
    return _fed(_cut_walks(dataset, profiles, config), dataset, config)


def _cut_walks(dataset: Dataset, profiles: Slices, config: DataConfig) -> _Cut:
    # A generated item may be drawn as a negative: the user's are those of the raw history.
    raw = chosen(profiles)
    owned, offsets = _owned(raw, dataset.num_items)
    user = np.flatnonzero(raw.end - raw.start >= 2).astype(np.int32)
    train = Walked(profiles, user, owned, offsets)

    def example(train, index, row, key, length):
        real = index >= 0
        user = jnp.asarray(train.user)[jnp.maximum(index, 0)]
        start, end = (jnp.asarray(part)[user] for part in train.profiles[1:3])
        seq = batches.window(jnp.asarray(train.profiles.items), start, end, length)
        offsets = jnp.asarray(train.offsets)
        first = batches.generated(train.profiles, start, end, length)
        first = jnp.zeros_like(user) if first is None else first
        negative = jax.vmap(
            lambda place: unowned(
                jax.random.fold_in(key, place), row, train.owned, offsets[user],
                offsets[user + 1], dataset.num_items,
            ),
            out_axes=1,
        )(jnp.arange(length))  # fmt: skip
        # a user who has everything prefers nothing
        weight = (real & (negative[:, 0] <= dataset.num_items)).astype(jnp.float32)
        negative = jnp.minimum(negative, dataset.num_items)
        return Walks(seq, first, negative, weight, row)

    return _Cut(
        train,
        batches.pick(profiles, user),
        lambda train, rows: train._replace(user=train.user[rows]),
        example,
        ("seq", "negative"),
    )


def _interactions(dataset: Dataset, profiles: Slices, config: DataConfig) -> Feed:
    train = _rows(profiles, config)
    width = _width(train.profiles)

    def example(train, index, row, key):
        del key
        items, value, user, weight = _profile(train, index, width)
        return Interactions(items, value, user, weight, row)

    return Feed(
        train,
        len(train.user),
        example,
        _split_rows(dataset, train),
        lambda rows, index: _row_query(rows, index, width),
        shared=_shared(dataset, train),
    )


def _pairs(dataset: Dataset, profiles: Slices, config: DataConfig) -> Feed:
    rows = _rows(profiles, config)
    width = _width(rows.profiles)
    sizes = (profiles.end - profiles.start).astype(np.int64)
    user = np.repeat(np.arange(len(sizes)), sizes)
    shift = np.repeat(profiles.start - (np.cumsum(sizes) - sizes), sizes)
    item = profiles.items[np.arange(sizes.sum()) + shift]
    owned, offsets = _owned(profiles, dataset.num_items)
    train = Preferences(user.astype(np.int32), item.astype(np.int32), owned, offsets)

    def example(train, index, row, key):
        safe = jnp.maximum(index, 0)
        user, item = jnp.asarray(train.user)[safe], jnp.asarray(train.item)[safe]
        return _with_negative(train, user, item, index, row, key, dataset.num_items)

    return Feed(
        train,
        len(item),
        example,
        _split_rows(dataset, rows),
        lambda rows, index: _row_query(rows, index, width),
        shared=_shared(dataset, rows),
    )


def _user_pairs(dataset: Dataset, profiles: Slices, config: DataConfig) -> Feed:
    """DDRM's draw: a user, uniformly, then one of the user's items; as many as there are pairs."""
    pairs = _pairs(dataset, profiles, config)
    known = np.flatnonzero(np.diff(pairs.train.offsets)).astype(np.int32)

    def example(train, index, row, key):
        pairs, known = train
        k_user, k_item, k_other = jax.random.split(key, 3)
        user = jnp.asarray(known)[noise.randint(k_user, row, 0, len(known))]
        offsets = jnp.asarray(pairs.offsets)
        place = _below(k_item, row, offsets[user + 1] - offsets[user])
        item = jnp.asarray(pairs.owned)[offsets[user] + place]
        return _with_negative(pairs, user, item, index, row, k_other, dataset.num_items)

    return pairs._replace(train=(pairs.train, known), example=example)


def _with_negative(pairs: Preferences, user, item, index, row, key, num_items: int) -> Pairs:
    offsets = jnp.asarray(pairs.offsets)
    negative = unowned(key, row, pairs.owned, offsets[user], offsets[user + 1], num_items)
    # a user who has everything prefers nothing
    weight = ((index >= 0) & (negative <= num_items)).astype(jnp.float32)
    return Pairs(user, item, jnp.minimum(negative, num_items), weight, row)


def _below(key: jax.Array, row: jax.Array, count: jax.Array) -> jax.Array:
    """i32[B], each row's own draw from [0, count)."""
    draw = jax.vmap(lambda key, count: jax.random.randint(key, (), 0, count, jnp.int32))
    return draw(noise.row_keys(key, row), count)


def chosen(profiles: Slices) -> Slices:
    """The rows without the generated items ahead of them."""
    if profiles.generated is None:
        return profiles
    before = np.append(0, np.cumsum(profiles.generated))
    ahead = before[profiles.end] - before[profiles.start]
    return Slices(profiles.items, (profiles.start + ahead).astype(np.int32), *profiles[2:4])


def _owned(profiles: Slices, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Every user's distinct items in rising order, flat i32[M], and where each user's begin."""
    sets = graph.item_sets(profiles, num_items)
    return sets.members + 1, sets.start


def unowned(
    key: jax.Array,
    row: jax.Array,
    owned: jax.Array,
    start: jax.Array,
    stop: jax.Array,
    num_items: int,
) -> jax.Array:
    """An item that is not the user's, uniformly, without rejection: i32[B].

    With the user's n items s_1 < s_2 < ... and r uniform in [0, I - n), the r-th item that is not
    among them is r + 1 + #{i : s_i - i <= r}, found by binary search because s_i - i never falls.

    Args:
      key: of the draw.
      row: i32[B] global row, folded into the key.
      owned: i32[M] distinct items, rising within a user.
      start: i32[B] where the user's items begin in `owned`.
      stop: i32[B] where they end.
      num_items: I.

    Returns:
      i32[B] in [1, I], or I + 1 for a user who has every item.
    """
    r = _below(key, row, jnp.maximum(num_items - (stop - start), 1))

    def halve(_, bounds):
        low, high = bounds  # the first place with s_i - i > r lies in [low, high]
        middle = (low + high) // 2
        before = jnp.asarray(owned)[middle] - (middle - start + 1) <= r
        open_ = low < high
        return (
            jnp.where(open_ & before, middle + 1, low),
            jnp.where(open_ & ~before, middle, high),
        )

    turns = max(int(num_items).bit_length(), 1) + 1
    place, _ = jax.lax.fori_loop(0, turns, halve, (start, stop))
    return r + 1 + place - start


def _rows(profiles: Slices, config: DataConfig) -> Rows:
    """The training rows of users who have any."""
    sets = distinct(profiles)
    value = time_weights(sets, config.time_weight_min, config.time_weight_max)
    return Rows(sets, value, np.flatnonzero(sets.end > sets.start).astype(np.int32))


def _width(profiles: Slices) -> int:
    return int(np.max(profiles.end - profiles.start))


def _split_rows(dataset: Dataset, rows: Rows) -> dict[str, Rows]:
    return {
        "valid": rows._replace(user=dataset.valid_users),
        "test": rows._replace(user=dataset.test_users),
    }


def _shared(dataset: Dataset, rows: Rows) -> Shared | None:
    """Users of either split, once: the training row is the query of both. None where a user asks
    twice in a split."""
    of_split = {"valid": dataset.valid_users, "test": dataset.test_users}
    if any(len(np.unique(own)) < len(own) for own in of_split.values()):
        return None
    users = np.unique(np.concatenate(list(of_split.values())))
    place = {name: np.full(len(users), -1, np.int32) for name in of_split}
    for name, own in of_split.items():
        place[name][np.searchsorted(users, own)] = np.arange(len(own))
    return Shared(rows._replace(user=users), place)


def _profile(rows: Rows, index: jax.Array, width: int):
    """Items i32[B, P], values f32[B, P], users i32[B] and weights f32[B] at `index`."""
    real = index >= 0
    user = jnp.where(real, jnp.asarray(rows.user)[jnp.maximum(index, 0)], 0)
    start, end = (jnp.asarray(part)[user] for part in rows.profiles[1:3])
    place = start[:, None] + jnp.arange(width)
    inside = (place < end[:, None]) & real[:, None]
    place = jnp.where(inside, place, 0)
    items, value = (jnp.asarray(part)[place] for part in (rows.profiles.items, rows.value))
    items = jnp.where(inside, items, 0).astype(jnp.int32)
    return items, jnp.where(inside, value, 0.0), user, real.astype(jnp.float32)


def _row_query(rows: Rows, index: jax.Array, width: int) -> InteractionQuery:
    items, value, user, _ = _profile(rows, index, width)
    return InteractionQuery(items, value, user, index)
