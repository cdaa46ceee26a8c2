"""The data card: what was read, what each filter left, and a hash that two runs can compare."""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxrec_diff.data import facts as split_facts
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


def digest(parts: list[np.ndarray]) -> str:
    """sha256 over arrays, their dtypes and shapes."""
    total = hashlib.sha256()
    for part in parts:
        array = np.ascontiguousarray(part)
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def card(
    *,
    name: str,
    source: str,
    form: str,
    filters: list[dict[str, Any]],
    order: str,
    split: str,
    train: Ragged,
    valid: Ragged,
    test: Ragged,
    train_counts: np.ndarray,
    num_users: int,
    ids: list[np.ndarray],
    missing: Mapping[str, dict[str, Any]] = MappingProxyType({}),
    reading: Sequence[str] = (),
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Everything that a reader needs to know whether two figures may be compared."""
    items = len(train_counts)
    interactions = filters[-1]["interactions"]
    lengths = test.end - test.start
    quantiles = (
        {f"{q}%": int(np.quantile(lengths, q / 100)) for q in (0, 25, 50, 75, 100)}
        if len(lengths)
        else {}
    )
    splits = {"train": train, "valid": valid, "test": test}
    return {
        "dataset": name,
        "source": source,
        "format": form,
        "time_order": order,
        "reading": list(reading),
        "missing": dict(missing),
        "filters": filters,
        "num_users": num_users,
        "num_items": items,
        "density": interactions / max(num_users * items, 1),
        "split": split,
        "rows": {split: len(part.start) for split, part in splits.items()},
        "test_history_length": quantiles,
        "items_never_trained": int((train_counts == 0).sum()),
        "answers_never_trained": {
            split: _never_trained(splits[split], train_counts) for split in ("valid", "test")
        },
        "answers_in_history": {split: _repeated(splits[split]) for split in ("valid", "test")},
        "answers_repeated": {split: _again(splits[split]) for split in ("valid", "test")},
        **facts,
        "hash": digest(
            [array for part in splits.values() for array in part if array is not None] + ids
        ),
    }


def render(card: dict[str, Any]) -> str:
    """The card for a terminal, a fact a line."""
    lines = [f"data: {card['dataset']} ({card['format']}), {card['time_order']}"]
    lines += [f"  {line}" for line in card.get("reading", [])]
    lines += [left_out(counts, name) for name, counts in card.get("missing", {}).items()]
    for entry in card["filters"]:
        name = entry["filter"].split(" (")[0][:29]
        lines.append(
            f"  {name:<29} {entry['users']:>9,} users {entry['items']:>9,} items "
            f"{entry['interactions']:>11,} rows"
        )
    rows = ", ".join(f"{count:,} {name}" for name, count in card["rows"].items())
    lines.append(f"  split: {card['split']}")
    lines.append(f"  rows: {rows}; split hash {card['hash'][:12]}")
    quantiles = "/".join(str(value) for value in card["test_history_length"].values())
    lines.append(f"  test history length (quartiles): {quantiles}")
    if card["items_never_trained"]:
        share = card["answers_never_trained"]["test"]
        lines.append(
            f"  {card['items_never_trained']:,} items never trained, "
            f"{share:.1%} of test answers are such items"
        )
    if card.get("answers_repeated", {}).get("test"):
        lines.append(
            f"  {card['answers_repeated']['test']:,} test answers repeat another one of their row "
            "and count once"
        )
    if card["answers_in_history"]["test"] > 0:
        lines.append(
            f"  {card['answers_in_history']['test']:.1%} of test answers are in the history: "
            "consider --eval.mask-seen=false"
        )
    if "titles" in card:
        of, file = card["num_items"], card["titles"]["file"]
        lines.append(
            f"  titles of {of - card['titles']['items_without']:,} of {of:,} items: {file}"
        )
    if "item_features" in card:
        given = card["item_features"]
        more = f", and of {given['other_items']:,} other items" if given["other_items"] else ""
        lines.append(
            f"  vectors of {given['width']} numbers of every item{more}: {given['file']}, "
            f"{given['scaling']}"
        )
    lines += [f"  {line}" for line in split_facts.words(card)]
    return "\n".join(lines)


def left_out(missing: Mapping[str, Any], table: str = "all") -> str:
    """What a table lacked, in words."""
    each = ", ".join(f"no {name} in {count:,}" for name, count in missing["by_column"].items())
    of = "" if table == "all" else f"{table}: "
    return f"  {of}left out {missing['left_out']:,} of {missing['rows']:,} rows: {each}"


def _answers(part: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """(place, row) of every answer, flat."""
    return ragged.expand(part.end, part.stop - part.end)


def _never_trained(part: Ragged, train_counts: np.ndarray) -> float:
    place, _ = _answers(part)
    return float(np.mean(train_counts[part.items[place] - 1] == 0)) if len(place) else 0.0


def _again(part: Ragged) -> int:
    """How many answers stand further left among the answers of their row."""
    place, row = _answers(part)
    pairs = np.sort(row.astype(np.int64) * (int(part.items.max(initial=0)) + 1) + part.items[place])
    return int((pairs[1:] == pairs[:-1]).sum())


def _repeated(part: Ragged) -> float:
    """Share of answers that occur in their row's history."""
    place, row = _answers(part)
    if not len(place):
        return 0.0
    at, owner = ragged.expand(part.start, part.end - part.start)
    span = int(part.items.max()) + 1
    # sorted by hand: `np.isin` hashes, which takes twenty times as long here
    known = np.sort(owner * span + part.items[at])
    if not len(known):
        return 0.0
    asked = row * span + part.items[place]
    return float(np.mean(known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked))
