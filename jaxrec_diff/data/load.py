"""A source of interactions as a data set: read, filtered, split and described."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.data import (
    facts,
    filters,
    held_out,
    ids,
    item_features,
    sources,
    splits,
    synthetic,
    tfds,
    titles,
    views,
)
from jaxrec_diff.data.card import card
from jaxrec_diff.data.columns import Columns
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset, Sequences
from jaxrec_diff.data.given import Histories
from jaxrec_diff.data.sources import Source, dataset_name
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged

_MOST = 2**31 - 1  # places are 32 bits wide


class About(NamedTuple):
    """What the card says of where the data comes from."""

    source: str
    form: str
    log: list[dict[str, Any]]  # counts after each filter
    order: str
    read: Source | None


def load(source: str, config: DataConfig) -> Dataset:
    """Reads, filters and splits a source.

    Ids, filters and splits are of all interactions, so every process of a run reads all of them and
    holds the result whole in the memory of its host: 4 bytes an interaction, and 12 for the bounds
    of every row of every split.

    Args:
      source: "synthetic", a file of interactions, or a folder with train, valid and test tables.
      config: settings.

    Raises:
      ValueError: in one sentence, if nothing can be learnt from it.
    """
    return item_features.attach(titles.attach(_load(source, config), config), config)


def _load(source: str, config: DataConfig) -> Dataset:
    if source == "synthetic":
        process = synthetic.make_process(config.synthetic)
        columns = synthetic.generate(process, config.synthetic)
        dataset = _from_table(source, "generated", columns, config)
        untouched = dataset.num_items == config.synthetic.num_items and not _filtered(config)
        return dataset._replace(synthetic_process=process if untouched else None)
    if source.startswith(tfds.PREFIX):
        columns = tfds.read(Path(source.removeprefix(tfds.PREFIX)))
        if config.min_rating is not None and columns.ratings is None:
            raise ValueError(f"data.min-rating needs ratings and {source} has none")
        return _from_table(source, "tfds", columns, config)
    read = sources.read(source, config)
    if read.kind == "histories":
        return _from_histories(source, read)
    if read.kind == "pairs":
        return _from_pairs(source, read, config)
    # the raw columns are let go of as soon as they are numbers
    return _from_table(
        source, read.format, read.tables.pop("all"), config, read._replace(tables={})
    )


def _filtered(config: DataConfig) -> bool:
    cores = config.user_core > 1 or config.item_core > 1
    return config.dedup_adjacent or cores or config.recent > 0


def _from_table(
    source: str, form: str, columns: Columns, config: DataConfig, read: Source | None = None
) -> Dataset:
    order = "file order" if columns.times is None else "ordered by timestamp"
    if columns.times is None and read is not None and read.unused:
        order += f" (data.timestamp can name a column: {', '.join(read.unused)})"
    # from here on ids are numbers that keep their order, and the raw columns are let go of
    every_user, every_item, columns = _numbered(columns, config)
    columns = filters.take(columns, _time_order(columns))
    timed = columns.times is not None
    ahead = None
    if columns.generated is not None and columns.generated.any():
        ahead = filters.take(columns, columns.generated)
        columns = filters.take(columns, ~columns.generated)
        if not len(columns.users):
            raise ValueError(f"{source} holds generated items only; nobody chose any")
    columns, log = filters.apply(columns, config)
    # the process knows items by number, so none may be renumbered when one never occurs
    numbers = every_item if source == "synthetic" else None
    users, items, sequences = _sequences(columns, numbers)
    user_ids = every_user[users]
    item_ids = np.arange(config.synthetic.num_items) if numbers is not None else every_item[items]
    about = About(source, form, log, order, read)
    if config.split == "users":
        if ahead is not None:
            raise ValueError(f"data.split=users has no use for the generated items of {source}")
        return _of_users(about, held_out.drawn(sequences, config), user_ids, item_ids)
    cuts, words = splits.cut(sequences, config)
    times = sequences.times if timed else None
    dataset = _assemble(
        about, words, sequences.items, cuts, user_ids, item_ids, config, sequences.users, times
    )
    if ahead is None:
        return dataset
    raw = ahead._replace(users=every_user[ahead.users], items=every_item[ahead.items])
    return views.longer(dataset, _ahead(dataset, raw))


def _numbered(columns: Columns, config: DataConfig) -> tuple[np.ndarray, np.ndarray, Columns]:
    """All user ids, all item ids, and the columns with places in them."""
    every_user, user = ids.unique(columns.users)
    every_item, item = ids.unique(columns.items)
    return (
        every_user,
        every_item,
        Columns(
            user.astype(np.int32),
            item.astype(np.int32),
            None if config.min_rating is None else columns.ratings,
            columns.times,
            columns.generated,
        ),
    )


def _sequences(
    columns: Columns, numbers: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, Sequences]:
    """The users that are left, the items that are left, and the users' sequences of them.

    Items are numbered from 1 as they are left, or by `numbers` of each where that is given.
    """
    left, users = np.unique(columns.users, return_inverse=True)
    items_left, items = np.unique(columns.items, return_inverse=True)
    if numbers is not None:
        items = numbers[columns.items]
    by_user = np.argsort(users, kind="stable")
    times = np.arange(len(users)) if columns.times is None else columns.times
    owner = users[by_user].astype(np.int32)
    sequences = Sequences(
        (items[by_user] + 1).astype(np.int32),
        owner,
        times[by_user],
        np.searchsorted(owner, np.arange(len(left) + 1)),
    )
    return left, items_left, sequences


def _ahead(dataset: Dataset, columns: Columns) -> np.ndarray:
    """Generated items by user, i32[U, M]; those of unknown users and items are left out."""
    user = ids.places(dataset.user_ids, columns.users)
    item = ids.places(dataset.item_ids, columns.items)
    known = (user >= 0) & (item >= 0)
    user, item = user[known], item[known]
    by_user = np.argsort(user, kind="stable")
    user, item = user[by_user], item[by_user]
    counts = np.bincount(user, minlength=dataset.num_users)
    place, _ = ragged.expand(0, counts)
    prefix = np.zeros((dataset.num_users, int(counts.max(initial=0))), np.int32)
    prefix[user, place] = item + 1
    return prefix


def _from_pairs(source: str, read: Source, config: DataConfig) -> Dataset:
    ordered = {
        split: filters.take(table, _time_order(table)) for split, table in read.tables.items()
    }
    order = "file order" if ordered["train"].times is None else "ordered by timestamp"
    untimed = [split for split, table in ordered.items() if table.times is None]
    if untimed and "train" not in untimed:
        order += f", {' and '.join(untimed)} in file order"
    users_raw = np.concatenate([table.users for table in ordered.values()])
    items_raw = np.concatenate([table.items for table in ordered.values()])
    part = np.repeat(np.arange(3), [len(table.users) for table in ordered.values()])
    user_ids, users = ids.unique(users_raw)
    item_ids, items = ids.unique(items_raw)
    log = [
        {"filter": f"read {split}", **filters.counts(table)} for split, table in ordered.items()
    ] + [{"filter": "together", **filters.counts(Columns(users, items, None, None))}]
    about = About(source, read.format, log, order, read)
    if config.split == "users":
        if config.columns == "items":  # a line is somebody else's in every file
            user_ids, users = np.unique(users * 3 + part, return_inverse=True)
        by_user = np.argsort(users, kind="stable")
        flat = (items[by_user] + 1).astype(np.int32)
        bounds = np.searchsorted(users[by_user], np.arange(len(user_ids) + 1))
        split = part[by_user][bounds[:-1]]
        twice = np.flatnonzero(split[users] != part)
        if len(twice):
            raise ValueError(
                f"{source} holds user {user_ids[users[twice[0]]]!r} in two of its files; with "
                "data.split=users a user is in one"
            )
        sequences = Sequences(flat, users[by_user], np.arange(len(flat)), bounds)
        rows = held_out.of_parts(sequences, split, "users as given, a row a user", config)
        return _of_users(about, rows, user_ids, item_ids)
    if config.columns == "items":
        raise ValueError(
            f"data.columns=items leaves the users of {source} without names; say "
            "data.split=users, or user,items where a line begins with its user"
        )
    by_user = np.lexsort((part, users))
    bounds = np.searchsorted(users[by_user] * 3 + part[by_user], np.arange(3 * len(user_ids) + 1))
    cuts = splits.Cuts(bounds[:-1:3], bounds[1::3], bounds[2::3], bounds[3::3])
    flat = (items[by_user] + 1).astype(np.int32)
    known = None
    if all(table.times is not None for table in ordered.values()):
        known = np.concatenate([table.times for table in ordered.values()])[by_user]
    owners = users[by_user]
    return _assemble(about, "as given", flat, cuts, user_ids, item_ids, config, owners, known)


def _from_histories(source: str, read: Source) -> Dataset:
    tables: dict[str, Histories] = read.tables
    raw = np.concatenate([table.items for table in tables.values()])
    item_ids, items = ids.unique(raw)
    _need_places(len(raw), source)
    flat = (items + 1).astype(np.int32)
    shift, parts = 0, {}
    for split, table in tables.items():
        start, stop = table.offsets[:-1] + shift, table.offsets[1:] + shift
        parts[split] = ragged.make(flat, start, stop - 1, stop)
        shift += len(table.items)
    targets = flat[parts["train"].end]
    counts = np.bincount(targets, minlength=len(item_ids) + 1)[1:]
    rows = {split: len(part.start) for split, part in parts.items()}
    _need_rows(rows, source)
    _need_choice(item_ids, None, source)
    log = [
        {"filter": f"read {split}", "users": rows[split], "items": len(ids.unique(table.items)[0]),
         "interactions": len(table.items)}
        for split, table in tables.items()
    ] + [{"filter": "together", "users": sum(rows.values()), "items": len(item_ids),
          "interactions": len(raw)}]  # fmt: skip
    name = dataset_name(source)
    users = np.arange(sum(rows.values()))
    return Dataset(
        name=name,
        num_users=len(users),
        num_items=len(item_ids),
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        item_ids=item_ids,
        user_ids=users,
        valid_users=users[rows["train"] : rows["train"] + rows["valid"]].astype(np.int32),
        test_users=users[rows["train"] + rows["valid"] :].astype(np.int32),
        train_counts=counts,
        split="as given, a row a history and its target",
        card=card(
            name=name, source=source, form=read.format, filters=log, order="given histories",
            split="as given", train=parts["train"], valid=parts["valid"], test=parts["test"],
            train_counts=counts, num_users=len(users), ids=[_bytes(item_ids)],
            missing=read.missing, reading=read.notes,
        ),
        synthetic_process=None,
    )  # fmt: skip


def _assemble(
    about: About,
    words: str,
    items: np.ndarray,
    cuts: splits.Cuts,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    config: DataConfig,
    users: np.ndarray,
    times: np.ndarray | None,
) -> Dataset:
    _need_places(len(items), about.source)
    train = splits.examples(items, cuts, config.min_history)
    valid, valid_users, _ = _asked(items, cuts.start, cuts.train_end, cuts.valid_end, config, 0)
    test, test_users, answers = _asked(items, cuts.start, cuts.valid_end, cuts.stop, config, 1)
    asked = {"valid": valid_users, "test": test_users}
    found = facts.of_split(cuts, users, items, times, answers, asked)
    trained = np.zeros(len(items) + 1, np.int64)
    np.add.at(trained, cuts.start, 1)
    np.add.at(trained, cuts.trained(), -1)
    in_train = np.cumsum(trained)[:-1] > 0
    counts = np.bincount(items[in_train], minlength=len(item_ids) + 1)[1:]
    dataset = _dataset(
        about, words, {"train": train, "valid": valid, "test": test}, counts, user_ids, item_ids,
        (valid_users, test_users), found,
    )  # fmt: skip
    return dataset._replace(
        user_items=ragged.make(items, cuts.start, cuts.trained(), cuts.trained()),
        user_rows=ragged.make(items, cuts.start, cuts.stop, cuts.stop),
        cut_in_time=config.split == "global_time",
    )


def _asked(
    items: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    stop: np.ndarray,
    config: DataConfig,
    part: int,
) -> tuple[ragged.Ragged, np.ndarray, np.ndarray]:
    """Rows of a split, their users, and the place of each one's first answer among all items."""
    seed = (config.split_seed, part)
    rows, users = splits.queries(items, start, end, stop, config.target, seed)
    if config.history == "to_target":
        return rows, users, rows.end
    kept = np.flatnonzero(end[users] > rows.start)
    rows, users = ragged.pick(rows, kept), users[kept]
    return splits.shown_until(rows, end[users]), users, rows.end


def _of_users(
    about: About, held: held_out.HeldOut, user_ids: np.ndarray, item_ids: np.ndarray
) -> Dataset:
    rows = held.rows
    _need_places(len(rows["train"].items), about.source)
    sizes = [len(part.start) for part in rows.values()]
    users = np.arange(sum(sizes), dtype=np.int32)
    targets = rows["train"].items[rows["train"].end]
    counts = np.bincount(targets, minlength=len(item_ids) + 1)[1:]
    dataset = _dataset(
        about, held.words, rows, counts, user_ids[held.users], item_ids,
        (users[sizes[0] : sizes[0] + sizes[1]], users[sizes[0] + sizes[1] :]), held.facts,
    )  # fmt: skip
    return dataset._replace(whole_rows=True)


def _dataset(
    about: About,
    words: str,
    rows: dict[str, Ragged],
    counts: np.ndarray,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    owners: tuple[np.ndarray, np.ndarray],
    found: dict[str, Any],
) -> Dataset:
    _need_rows({split: len(part.start) for split, part in rows.items()}, about.source)
    _need_choice(item_ids, user_ids, about.source)
    name, read = dataset_name(about.source), about.read
    return Dataset(
        name=name,
        num_users=len(user_ids),
        num_items=len(item_ids),
        train=rows["train"],
        valid=rows["valid"],
        test=rows["test"],
        item_ids=item_ids,
        user_ids=user_ids,
        valid_users=owners[0],
        test_users=owners[1],
        train_counts=counts,
        split=words,
        card=card(
            name=name, source=about.source, form=about.form, filters=about.log, order=about.order,
            split=words, **rows, train_counts=counts, num_users=len(user_ids),
            ids=[_bytes(item_ids), _bytes(user_ids)],
            missing={} if read is None else read.missing,
            reading=() if read is None else read.notes,
            facts=found,
        ),
        synthetic_process=None,
    )  # fmt: skip


def _need_rows(rows: dict[str, int], source: str) -> None:
    for split, count in rows.items():
        if count == 0:
            raise ValueError(
                f"{source} leaves no {split} row: a user needs at least 3 interactions to be "
                "split and data.min-history more to train on, or other shares in --data.ratio"
            )


def _time_order(columns: Columns) -> np.ndarray:
    """Indices in the order of time; ties and files without times keep the order of the file."""
    if columns.times is None:
        return np.arange(len(columns.users))
    return np.argsort(columns.times, kind="stable")


def _need_choice(item_ids: np.ndarray, user_ids: np.ndarray | None, source: str) -> None:
    for what, known in (("item", item_ids), ("user", user_ids)):
        if known is not None and len(known) < 2:
            raise ValueError(
                f"{source} holds one {what}, {str(known[0])[:60]!r}; there is nothing to rank with "
                f"fewer than two {what}s"
            )


def _need_places(count: int, source: str) -> None:
    if count > _MOST:
        raise ValueError(
            f"{source} has {count:,} interactions and at most {_MOST:,} can be held; --data.recent "
            "keeps the latest of each user"
        )


def _bytes(ids: np.ndarray) -> np.ndarray:
    """Ids as bytes that do not depend on numpy's width of text."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.int64)
    return np.frombuffer("\n".join(ids.tolist()).encode(), np.uint8)
