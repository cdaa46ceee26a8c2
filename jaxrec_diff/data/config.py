"""Settings of data: where columns are, what is filtered, how it is split."""

from dataclasses import dataclass, field
from typing import Literal

from jaxrec_diff import validation


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """The generated data set whose process is known."""

    num_users: int = 10_000
    """Users."""
    num_items: int = 600
    """Items."""
    num_interests: int = 12
    """Groups of items; a user draws from two of them."""
    min_length: int = 5
    """Shortest sequence."""
    max_length: int = 20
    """Longest sequence."""
    transition_share: float = 0.2
    """Chance that the next item follows the last one along a fixed graph."""
    interest_share: float = 0.7
    """Chance that it comes from the user's interests; the rest is popularity."""
    num_successors: int = 4
    """Out-degree of the graph."""
    interest_skew: float = 1.2
    """Zipf exponent of items inside an interest."""
    popularity_skew: float = 0.8
    """Zipf exponent of the popularity tail."""
    seed: int = 0
    """Of the process and of the users; not the seed of training."""

    def __post_init__(self) -> None:
        validation.at_least("data.synthetic.num-users", self.num_users, 1)
        validation.at_least("data.synthetic.num-interests", self.num_interests, 2)
        validation.at_least("data.synthetic.num-items", self.num_items, 2 * self.num_interests)
        validation.at_least("data.synthetic.min-length", self.min_length, 1)
        validation.within(
            "data.synthetic.max-length", self.max_length, self.min_length, self.num_items // 2
        )
        validation.within("data.synthetic.transition-share", self.transition_share, 0, 0.99)
        validation.within(
            "data.synthetic.interest-share", self.interest_share, 0, 1 - self.transition_share
        )
        validation.at_least("data.synthetic.num-successors", self.num_successors, 1)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """From a file to examples."""

    user: str | None = None
    """Column of the users; found by its usual names if not given."""
    item: str | None = None
    """Column of the items."""
    rating: str | None = None
    """Column of the ratings."""
    timestamp: str | None = None
    """Column of the times; without one the order of the file is the order of time."""
    columns: str = ""
    """What each column holds, by its place: user, item, rating, time, or - to skip it, as in
    user,item,-,time; user,items where a line is a user and its items, items where it is these
    alone. For files without a header."""
    table: str = ""
    """Table of a database, --data=sqlite:FILE."""
    query: str = ""
    """What to select from a database, in place of a table; it may only read."""
    titles: str = ""
    """File of item titles: any table with a column of ids and one of text, MovieLens' u.item and
    movies.dat too. They are shown beside ids and change no figure."""
    item_features: str = ""
    """File of a vector an item, .npy (row r is that of the item with id r) or .parquet (a column of
    ids and one of lists, or a number a column): rows of the model's table of items."""
    item_features_use: Literal["frozen", "initial"] = "frozen"
    """frozen: the vectors stay as given, and items that training never met may be recommended by
    theirs; initial: training goes on from them."""
    item_features_scaling: Literal["whiten", "scale", "centre"] = "whiten"
    """Vectors less their mean, and then: whiten, uncorrelated coordinates of one variance, of wider
    vectors the leading ones; scale, by one factor; centre, as they are."""
    max_missing: float = 0.5
    """Rows without a user, an item or a time are left out; a larger share of them is refused."""
    min_rating: float | None = None
    """Keep interactions with at least this rating."""
    user_core: int = 0
    """Keep users with at least so many interactions; repeated until nothing changes."""
    item_core: int = 0
    """Keep items with at least so many interactions; repeated until nothing changes."""
    dedup: Literal["none", "first", "last"] = "none"
    """Of repeated pairs of user and item keep all, the first or the last."""
    dedup_adjacent: bool = False
    """Drop an interaction with the same item as the user's one before."""
    recent: int = 0
    """Most recent interactions of a user that are kept, after the other filters; 0 keeps all."""
    recent_min: int = 0
    """Above 0 each user keeps a number between this and `recent`, log-uniform by a fixed seed, so
    that a data set of long histories has short ones too."""
    split: Literal["leave_one_out", "ratio", "global_time", "diffrec", "users"] = "leave_one_out"
    """leave_one_out: last item of a user is test, the one before validation; ratio: shares of each
    user's sequence; global_time: shares of the time line; diffrec: int(0.7 n) + 1, (n - 1) // 5 and
    the rest of each user's sequence; users: whole users, a row each, of which a folder of train,
    valid and test says or `ratio` and `split_seed` do."""
    target: Literal["all", "first", "last", "random", "successive"] = "all"
    """What a user is asked for of all that follows a cut of `global_time`: all, as a set, from the
    history up to the cut; the first, the last or a random item, from the history up to it; or
    successive, each in turn, a row each. But for all, a user without a history gets the first item
    as one."""
    history: Literal["to_target", "to_cut"] = "to_target"
    """What a user's single item is asked from: all before it, or only what came before the cut, as
    a model sees that is not told of what follows; a user without any of it is left out then."""
    min_train: int = 2
    """Users with fewer interactions before the first cut of `global_time` are not trained on; a
    history they are for all that."""
    split_seed: int = 0
    """Of the order in which `users` are shared out, and of random targets."""
    ratio: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test."""
    max_len: int = 50
    """Items of a history that a model sees, L."""
    buckets: tuple[int, ...] = ()
    """Lengths that histories are padded to, for models that read several; rising, the longest is
    max_len. Empty chooses up to four from the data; max_len alone pads all to it."""
    min_history: int = 1
    """Shortest history of a training example."""
    time_weight_min: float = 1.0
    """Weight of a user's oldest training item in a row of interactions (T-DiffRec's w_min)."""
    time_weight_max: float = 1.0
    """Weight of the newest; those between rise in equal steps. Both 1: every item counts alike."""
    prefix_len: int = 10
    """Items M put ahead of a history, for models that generate what came before."""
    prefix_rest: int = 1
    """Items that must be left behind the first M of a sequence that such a model learns from."""
    prefix_stride: int = 0
    """Learn from windows that start every so many items; 0 takes the first M of a user only."""
    prefix_dedup: bool = False
    """Put an item at most once ahead of a user's history: from the oldest place on, each takes the
    nearest item that those before it left."""
    prefix_exclude_seen: bool = False
    """Put no item ahead of a user's history that is in it."""
    prefix_max_items: int = 0
    """Put items ahead of users with at most so many training items only; 0: of all users."""
    resident: Literal["auto", "true", "false"] = "auto"
    """Whether the arrays that training examples are cut from stay on the devices, whole on each, or
    are cut on the host a few updates ahead, for each device its rows; auto keeps up to 1 GiB there,
    in one process. It changes no number."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """The generated data set."""

    def __post_init__(self) -> None:
        _check_columns(self)
        validation.within("data.max-missing", self.max_missing, 0, 1)
        validation.at_least("data.max-len", self.max_len, 1)
        if any(a >= b for a, b in zip((0, *self.buckets), self.buckets, strict=False)):
            near = ",".join(str(length) for length in sorted(set(self.buckets)) if length > 0)
            raise ValueError(
                f"data.buckets must be rising lengths such as {near or '8,16,32'}, got "
                f"{','.join(map(str, self.buckets))}"
            )
        if self.buckets and self.buckets[-1] > self.max_len:
            raise ValueError(
                f"data.buckets must not exceed data.max-len={self.max_len}, got {self.buckets[-1]}"
            )
        validation.at_least("data.min-history", self.min_history, 0)
        validation.at_least("data.min-train", self.min_train, 1)
        if self.target != "all" and self.split != "global_time":
            raise ValueError(
                f"data.target={self.target} chooses among what follows a cut in time, and "
                f"data.split={self.split} has none; --data.split=global_time has"
            )
        if self.history == "to_cut" and self.target == "all":
            raise ValueError(
                "data.history=to_cut is of single items behind a cut in time: data.target=all is "
                "asked from the history up to the cut anyway; --data.target=last is not"
            )
        validation.at_least("data.time-weight-min", self.time_weight_min, 0)
        validation.at_least("data.time-weight-max", self.time_weight_max, self.time_weight_min)
        validation.at_least("data.user-core", self.user_core, 0)
        validation.at_least("data.item-core", self.item_core, 0)
        validation.at_least("data.recent", self.recent, 0)
        validation.within("data.recent-min", self.recent_min, 0, self.recent)
        validation.at_least("data.prefix-len", self.prefix_len, 1)
        validation.at_least("data.prefix-rest", self.prefix_rest, 1)
        validation.at_least("data.prefix-stride", self.prefix_stride, 0)
        validation.at_least("data.prefix-max-items", self.prefix_max_items, 0)
        if min(self.ratio) < 0 or not 0.999 < sum(self.ratio) < 1.001:
            raise ValueError(
                f"data.ratio must be three shares that sum to 1 such as 0.8,0.1,0.1, "
                f"got {','.join(f'{share:g}' for share in self.ratio)}"
            )


def _check_columns(config: DataConfig) -> None:
    if config.table and config.query:
        raise ValueError("data.table and data.query are two questions; ask one")
    if not config.columns:
        return
    words = config.columns.split(",")
    known = ("user", "item", "rating", "time", "-")
    lines = (["user", "items"], ["items"])
    odd = next((word for word in words if word not in known), None)
    if words not in lines and odd is not None:
        raise ValueError(
            f"data.columns={config.columns} holds {odd!r}; a column is {', '.join(known)}, a line "
            "of items user,items or items"
        )
    if words not in lines:
        for word in ("user", "item", "rating", "time"):
            if words.count(word) > 1 or word in ("user", "item") and word not in words:
                raise ValueError(
                    f"data.columns={config.columns} must name user and item once, and rating and "
                    "time at most once, such as user,item,time"
                )
    for name in ("user", "item", "rating", "timestamp"):
        if getattr(config, name) is not None:
            raise ValueError(
                f"data.columns={config.columns} and data.{name}={getattr(config, name)} both name "
                "columns; give one of them"
            )
