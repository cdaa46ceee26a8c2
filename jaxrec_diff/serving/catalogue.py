"""Items and users of a server by the ids that its clients know them by."""

import unicodedata
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.data import ids
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.inference import histories
from jaxrec_diff.inference import recommender as inference_recommender

_EXACT = 2**53  # a whole number beyond is none that JavaScript holds
_EXAMPLES = 6


class Known(NamedTuple):
    """The history of a known user."""

    user: int  # number
    items: np.ndarray  # i32[n], oldest first


class Catalogue:
    """Ids, titles and known histories, read once."""

    def __init__(self, dataset: Dataset, k: int):
        """
        Args:
          dataset: what the model was trained on.
          k: items of the list that stands in where nothing is known of a history.
        """
        self._dataset, self.titled = dataset, dataset.titles is not None
        self._items = _Ids(dataset.item_ids)
        self._users = _Ids(dataset.user_ids)
        self._histories = histories.known_users(dataset)
        self.popular, self.counts = inference_recommender.most_popular(dataset, k)
        self._by_count = np.argsort(-dataset.train_counts, kind="stable")
        titles = [""] * dataset.num_items if dataset.titles is None else dataset.titles
        named = zip(titles, dataset.item_ids.tolist(), strict=True)
        self._texts = _folded([f"{title}\n{raw}" if title else str(raw) for title, raw in named])

    @property
    def num_items(self) -> int:
        return self._dataset.num_items

    @property
    def num_users(self) -> int:
        return int((self._histories.end > self._histories.start).sum())

    def numbers(self, raw: list) -> tuple[np.ndarray, list]:
        """Item numbers of raw ids, and those ids that are no items."""
        found = [self._items.place(each) for each in raw]
        known = np.array([place + 1 for place in found if place is not None], np.int32)
        return known, [each for each, place in zip(raw, found, strict=True) if place is None]

    def known(self, raw: str | int) -> Known | None:
        """The history of a user by raw id; None where there is none."""
        place = self._users.place(raw)
        if place is None:
            return None
        whole = self._histories
        items = whole.items[whole.start[place] : whole.end[place]].astype(np.int32)
        return Known(place, items) if len(items) else None

    def user_id(self, user: int) -> str | int:
        return self._users.shown(user)

    def item_ids(self, items: np.ndarray) -> list:
        """Raw ids of item numbers."""
        return [self._items.shown(int(item) - 1) for item in items]

    def titles(self, items: np.ndarray) -> list[str]:
        """Titles of item numbers, "" where an item has none."""
        titles = self._dataset.titles
        return [] if titles is None else [str(titles[int(item) - 1]) for item in items]

    def entry(self, item: int) -> dict[str, Any]:
        """An item by number, in words."""
        title = {} if self._dataset.titles is None else {"title": self._dataset.titles[item - 1]}
        count = int(self._dataset.train_counts[item - 1])
        return {"item": self._items.shown(item - 1), **title, "count": count}

    def search(self, text: str, limit: int) -> tuple[list[int], int]:
        """Item numbers whose title or id holds every word of a text, the most popular first, and
        how many there are; all items for no word.

        The item of that very id comes first, then those that begin with the text.
        """
        import pyarrow.compute as pc

        (whole,) = _folded([text]).to_pylist()
        matched = np.ones(self.num_items, bool)
        for word in whole.split():
            matched &= np.asarray(pc.match_substring(self._texts, word))
        order = self._by_count[matched[self._by_count]]
        if whole.strip():
            first = np.asarray(pc.starts_with(self._texts, " ".join(whole.split())))[order]
            order = np.concatenate([order[first], order[~first]])
        exact = self._items.place(text.strip())
        if exact is not None:
            order = np.append(exact, order[order != exact])
        return (order[:limit] + 1).tolist(), len(order)

    def examples(self) -> list:
        """Ids of a few known users, spread evenly over those who have a history."""
        there = np.flatnonzero(self._histories.end > self._histories.start)
        if not len(there):
            return []
        place = np.linspace(0, len(there) - 1, min(_EXAMPLES, len(there))).astype(int)
        return [self.user_id(int(there[each])) for each in place]


class _Ids:
    """Raw ids and their places."""

    def __init__(self, raw: np.ndarray):
        self._raw, self._text = raw, ids.is_text(raw)
        self._place = {str(each): place for place, each in enumerate(raw.tolist())}

    def place(self, given: str | int) -> int | None:
        """Where an id stands; a number is found by its spelling, `007` is nobody's 7."""
        text = str(given)
        return self._place.get(text if self._text else text.strip())

    def shown(self, place: int) -> str | int:
        """An id as JSON: what JavaScript would round is text."""
        value = self._raw[place]
        if self._text:
            return str(value)
        return int(value) if abs(int(value)) < _EXACT else str(value)


def _folded(texts: list[str]) -> Any:
    """Texts to be searched: no case, no accents."""
    import pyarrow as pa

    parts = (unicodedata.normalize("NFKD", text) for text in texts)
    return pa.array(
        ["".join(c for c in part if not unicodedata.combining(c)).casefold() for part in parts],
        pa.string(),
    )
