"""Whether the processes of a run were started alike."""

from typing import Any

import jax

from jaxrec_diff import config, layout
from jaxrec_diff.config import Experiment
from jaxrec_diff.data import item_features
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.experiments import provenance


def check(name: str, experiment: Experiment, dataset: Dataset) -> None:
    """Refuses processes of one run that have other settings, data or code than the first.

    They would run other programs, and wait for each other forever or train on two things.

    Raises:
      ValueError: in all processes, naming the process and what differs.
    """
    if jax.process_count() == 1:
        return
    mine: dict[str, Any] = {"preset": name, "settings": config.to_json(experiment)}
    mine |= {"data hash": dataset.card["hash"], "items": dataset.num_items}
    mine |= {"item vectors": dataset.card.get(item_features.HASH)}
    mine |= {"commit": provenance.commit(), "jax": jax.__version__}
    first, *others = layout.agree(mine, choose=lambda each: each)
    for number, other in enumerate(others, 1):
        found = _difference(first, other)
        if found:
            layout.refuse(f"process {number} {found}; start all processes alike")


def _difference(first: dict[str, Any], other: dict[str, Any]) -> str | None:
    """What another process has, and the first has not, in words.

    >>> _difference({"settings": {"seed": 1}, "commit": "a"}, {"settings": {"seed": 2}})
    'was started with seed: 2, process 0 with 1'
    """
    one, two = (dict(config.flattened(each.get("settings", {}))) for each in (first, other))
    for field in sorted(one.keys() | two.keys()):
        if one.get(field) != two.get(field):
            return f"was started with {field}: {two.get(field)}, process 0 with {one.get(field)}"
    for fact in first:
        if fact != "settings" and first[fact] != other.get(fact):
            return f"has {fact} {other.get(fact)}, process 0 has {first[fact]}"
    return None
