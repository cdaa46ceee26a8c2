"""What the columns of a table mean: by their usual names, by names or by places that were given."""

import difflib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxrec_diff.data.config import DataConfig

# In the order of preference; compared in lower case, with _ for a space or a hyphen.
# fmt: off
NAMES = {
    "user": (
        "user_id", "user", "uid", "userid", "user_idx", "session_id", "sessionid", "visitor_id",
        "visitorid", "customer_id", "customerid", "reviewer_id", "reviewerid",
    ),
    "item": (
        "item_id", "item", "iid", "itemid", "item_idx", "movie_id", "movieid", "sid", "product_id",
        "productid", "sku", "article_id", "parent_asin", "asin", "business_id", "venue_id",
        "venueid", "track_id", "trackid", "book_id", "isbn",
    ),
    "rating": (
        "rating", "ratings", "score", "stars", "overall", "star_rating", "book_rating",
        "user_rating",
    ),
    "timestamp": (
        "timestamp", "time", "unix_time", "ts", "date", "datetime", "event_time", "created_at",
        "unixreviewtime", "unix_review_time", "reviewtime", "review_date",
    ),
}
# fmt: on
# What --data.columns calls a place, and the name that the place then has.
PLACES = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "timestamp"}
_HISTORY = ("history", "target", "generated")


class Columns(NamedTuple):
    """Raw columns of a table of interactions."""

    users: np.ndarray  # ids, i64 or str objects
    items: np.ndarray
    ratings: np.ndarray | None
    times: np.ndarray | None
    generated: np.ndarray | None = None  # bool, rows that nobody chose


class Roles(NamedTuple):
    """The columns of a table that have a part, by name."""

    user: str
    item: str
    rating: str | None
    timestamp: str | None
    generated: str | None

    def taken(self) -> tuple[str, ...]:
        return tuple(name for name in self if name is not None)


def normal(name: str) -> str:
    """A name as `NAMES` spells it.

    >>> normal(" User-ID"), normal("user_id:token")
    ('user_id', 'user_id')
    """
    name, _, kind = name.strip().partition(":")
    if kind not in ("", "token", "float", "token_seq", "float_seq"):  # RecBole's types
        name = f"{name}:{kind}"
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def known(names: Sequence[str], config: DataConfig) -> bool:
    """Whether a line looks like a header: one of its fields is a name."""
    every = {name for kind in NAMES.values() for name in kind} | set(_HISTORY)
    given = {getattr(config, kind) for kind in NAMES} - {None}
    return any(normal(name) in every or name in given for name in names)


def by_place(names: Sequence[str], where: str, config: DataConfig) -> list[str]:
    """The names of columns once `data.columns` has said what each place holds.

    Raises:
      ValueError: if that names more or fewer places than there are.
    """
    if not config.columns:
        return list(names)
    words = config.columns.split(",")
    if len(words) != len(names):
        raise ValueError(
            f"data.columns={config.columns} names {len(words)} columns and {where} has "
            f"{len(names)}; write - for each that is to be skipped"
        )
    return [PLACES.get(word, f"_{place}") for place, word in enumerate(words, start=1)]


def roles(names: Sequence[str], where: str, config: DataConfig) -> Roles:
    """Which columns are the users, items, ratings and times.

    Raises:
      ValueError: if there are none or several.
    """
    twice(names, where)
    user, item, rating, time = (find(names, where, k, getattr(config, k)) for k in NAMES)
    for kind, found in (("user", user), ("item", item)):
        if found is None:
            shown = ", ".join(repr(name[:60]) for name in names[:12])
            raise ValueError(
                f"{where} has no {kind} column: found {shown}, expected {NAMES[kind][0]!r} or "
                f"--data.{kind}=NAME; a file without a header needs --data.columns=user,item,time"
            )
    assert user is not None and item is not None
    if user == item:
        raise ValueError(f"{where}: column {user!r} cannot be both the users and the items")
    if config.min_rating is not None and rating is None:
        raise ValueError(
            f"data.min-rating needs a rating column and {where} has {', '.join(names)}; "
            "name it with --data.rating"
        )
    return Roles(user, item, rating, time, "generated" if "generated" in names else None)


def find(names: Sequence[str], where: str, kind: str, given: str | None) -> str | None:
    """The column of a kind: the one that was named, or the first of its usual names.

    Raises:
      ValueError: if the name that was given, or several spellings of a usual one, fit nothing.
    """
    if given is not None:
        if given in names:
            return given
        near = difflib.get_close_matches(given, names, 1, 0.0)
        raise ValueError(
            f"{where} has no column {given!r}"
            + (f"; did you mean {near[0]!r}?" if near else "; it has none")
        )
    for usual in NAMES[kind]:
        alike = [name for name in names if normal(name) == usual]
        if len(alike) > 1:
            raise ValueError(
                f"{where} has the columns {' and '.join(map(repr, alike))}; "
                f"say which is meant with --data.{kind}=NAME"
            )
        if alike:
            return alike[0]
    return None


def twice(names: Sequence[str], where: str) -> None:
    """Refuses two columns of one name; columns without a name are nobody's."""
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            raise ValueError(f"{where} has two columns {name!r}; rename one of them")
        seen.add(name)


Want = Callable[[Sequence[str]], list[str]]


def wanted(where: str, config: DataConfig) -> Want:
    """A function of a table's names that gives those of the columns to read."""

    def want(names: Sequence[str]) -> list[str]:
        if "history" in names:
            twice(names, where)
            return [name for name in names if name in ("history", "target")]
        return list(dict.fromkeys(roles(names, where, config).taken()))

    return want


def words(found: Roles, config: DataConfig) -> str:
    """The columns in a line of the card."""
    parts = [f"users {found.user!r}", f"items {found.item!r}"]
    if found.rating is not None:
        used = "" if config.min_rating is not None else " (not used)"
        parts.append(f"ratings {found.rating!r}{used}")
    if found.timestamp is not None:
        parts.append(f"times {found.timestamp!r}")
    return "columns: " + ", ".join(parts)
