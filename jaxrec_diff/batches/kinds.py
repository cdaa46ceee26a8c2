"""The kinds of input by name."""

from jaxrec_diff.batches import interactions, prefixes, sequences, triplets, whole_sequences
from jaxrec_diff.batches.feed import OF_HISTORIES, Feed, Kind
from jaxrec_diff.data import views
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset


def view(kind: Kind, dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set as models of a kind are trained and judged on it."""
    return views.before(dataset, config) if kind == "prefixes" else dataset


def feed(kind: Kind, dataset: Dataset, config: DataConfig) -> Feed:
    """The feed of a kind, from what `view` makes of a data set.

    Raises:
      ValueError: if the data has no users and the kind needs them.
    """
    if kind in ("sequences", "windows"):
        return sequences.fed(sequences.cut_sequences(kind, dataset, config), dataset, config)
    profiles = views.profiles_of(dataset, "this model needs")
    if dataset.shown is not None and kind not in OF_HISTORIES:
        raise ValueError(
            f"{dataset.name} has generated items ahead of its sequences, which mean nothing to a "
            "model of a table; train it on the interactions without them"
        )
    cut = {
        "interactions": interactions.of_rows,
        "pairs": triplets.of_pairs,
        "user_pairs": triplets.of_pairs_by_user,
        "walks": whole_sequences.of_walks,
        "prefixes": prefixes.of_prefixes,
    }[kind]
    return cut(dataset, profiles, config)
