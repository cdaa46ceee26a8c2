"""A source of interactions as a data set: read, filtered, split and described."""

from pathlib import Path

import numpy as np

from jaxrec_diff.data import filters, sources, splits, synthetic, tfds, views
from jaxrec_diff.data.card import card
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset, Sequences
from jaxrec_diff.data.sources import Columns, Histories, Source, dataset_name
from jaxrec_diff.ops import ragged


def load(source: str, config: DataConfig) -> Dataset:
    """Reads, filters and splits a source.

    Args:
      source: "synthetic", a file of interactions, or a folder with train, valid and test tables.
      config: settings.

    Raises:
      ValueError: in one sentence, if nothing can be learnt from it.
    """
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
        return _from_histories(source, read.format, read.tables)
    if read.kind == "pairs":
        return _from_pairs(source, read, config)
    return _from_table(source, read.format, read.tables["all"], config, read)


def _filtered(config: DataConfig) -> bool:
    cores = config.user_core > 1 or config.item_core > 1
    return config.dedup_adjacent or cores or config.recent > 0


def _from_table(
    source: str, form: str, columns: Columns, config: DataConfig, read: Source | None = None
) -> Dataset:
    columns = filters.take(columns, _time_order(columns))
    order = "file order" if columns.times is None else "ordered by timestamp"
    if columns.times is None and read is not None and read.unused:
        order += f" (data.timestamp can name a column: {', '.join(read.unused)})"
    ahead = None
    if columns.generated is not None and columns.generated.any():
        ahead = filters.take(columns, columns.generated)
        columns = filters.take(columns, ~columns.generated)
        if not len(columns.users):
            raise ValueError(f"{source} holds generated items only; nobody chose any")
    columns, log = filters.apply(columns, config)
    user_ids, users = np.unique(columns.users, return_inverse=True)
    item_ids, items = np.unique(columns.items, return_inverse=True)
    if source == "synthetic":
        # the process knows items by number, so none may be renumbered when one never occurs
        item_ids = np.arange(config.synthetic.num_items)
        items = columns.items
    by_user = np.argsort(users, kind="stable")
    times = np.arange(len(users)) if columns.times is None else columns.times
    sequences = Sequences(
        (items[by_user] + 1).astype(np.int32),
        users[by_user].astype(np.int32),
        times[by_user],
        np.searchsorted(users[by_user], np.arange(len(user_ids) + 1)),
    )
    cuts, words = splits.cut(sequences, config)
    dataset = _assemble(
        source, form, log, order, words, sequences.items, cuts, user_ids, item_ids, config,
        {} if read is None else read.missing,
    )  # fmt: skip
    return dataset if ahead is None else views.longer(dataset, _ahead(dataset, ahead))


def _ahead(dataset: Dataset, columns: Columns) -> np.ndarray:
    """Generated items by user, i32[U, M]; those of unknown users and items are left out."""
    user = np.minimum(np.searchsorted(dataset.user_ids, columns.users), dataset.num_users - 1)
    item = np.minimum(np.searchsorted(dataset.item_ids, columns.items), dataset.num_items - 1)
    known = dataset.user_ids[user] == columns.users
    known &= dataset.item_ids[item] == columns.items
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
    users_raw = _concatenate([table.users for table in ordered.values()])
    items_raw = _concatenate([table.items for table in ordered.values()])
    part = np.repeat(np.arange(3), [len(table.users) for table in ordered.values()])
    user_ids, users = np.unique(users_raw, return_inverse=True)
    item_ids, items = np.unique(items_raw, return_inverse=True)
    by_user = np.lexsort((part, users))
    bounds = np.searchsorted(users[by_user] * 3 + part[by_user], np.arange(3 * len(user_ids) + 1))
    cuts = splits.Cuts(bounds[:-1:3], bounds[1::3], bounds[2::3], bounds[3::3])
    log = [
        {"filter": f"read {split}", **filters.counts(table)} for split, table in ordered.items()
    ] + [{"filter": "together", **filters.counts(Columns(users_raw, items_raw, None, None))}]
    flat = (items[by_user] + 1).astype(np.int32)
    return _assemble(
        source, read.format, log, order, "as given", flat, cuts, user_ids, item_ids, config,
        read.missing,
    )  # fmt: skip


def _from_histories(source: str, form: str, tables: dict[str, Histories]) -> Dataset:
    raw = _concatenate([table.items for table in tables.values()])
    item_ids, items = np.unique(raw, return_inverse=True)
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
    log = [
        {"filter": f"read {split}", "users": rows[split], "items": len(np.unique(table.items)),
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
            name=name, source=source, form=form, filters=log, order="given histories",
            split="as given", train=parts["train"], valid=parts["valid"], test=parts["test"],
            train_counts=counts, num_users=len(users), ids=[_bytes(item_ids)],
        ),
        synthetic_process=None,
    )  # fmt: skip


def _assemble(
    source, form, log, order, words, items, cuts, user_ids, item_ids, config, missing
) -> Dataset:
    train = splits.examples(items, cuts, config.min_history)
    valid, valid_users = splits.queries(items, cuts.start, cuts.train_end, cuts.valid_end)
    test, test_users = splits.queries(items, cuts.start, cuts.valid_end, cuts.stop)
    _need_rows(
        {"train": len(train.start), "valid": len(valid.start), "test": len(test.start)}, source
    )
    trained = np.zeros(len(items) + 1, np.int64)
    np.add.at(trained, cuts.start, 1)
    np.add.at(trained, cuts.train_end, -1)
    in_train = np.cumsum(trained)[:-1] > 0
    counts = np.bincount(items[in_train], minlength=len(item_ids) + 1)[1:]
    name = dataset_name(source)
    return Dataset(
        name=name,
        num_users=len(user_ids),
        num_items=len(item_ids),
        train=train,
        valid=valid,
        test=test,
        item_ids=item_ids,
        user_ids=user_ids,
        valid_users=valid_users,
        test_users=test_users,
        train_counts=counts,
        split=words,
        card=card(
            name=name, source=source, form=form, filters=log, order=order, split=words,
            train=train, valid=valid, test=test, train_counts=counts, num_users=len(user_ids),
            ids=[_bytes(item_ids), _bytes(user_ids)], missing=missing,
        ),
        synthetic_process=None,
        user_items=ragged.make(items, cuts.start, cuts.train_end, cuts.train_end),
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


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    kinds = {part.dtype.kind for part in parts}
    return np.concatenate([part.astype(str) for part in parts] if len(kinds) > 1 else parts)


def _bytes(ids: np.ndarray) -> np.ndarray:
    """Ids as bytes that do not depend on numpy's width of text."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.int64)
    return np.frombuffer("\n".join(ids.tolist()).encode(), np.uint8)
