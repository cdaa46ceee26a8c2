"""How much of a result needs the order of histories: the same model on shuffled ones."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxrec_diff.data import order
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.evaluation import lists
from jaxrec_diff.experiments import judging, phases
from jaxrec_diff.experiments.phases import PhaseRun
from jaxrec_diff.ops import ragged, streams

LIST = 10


def control(phase: PhaseRun, params: Any, state: Any) -> dict[str, Any]:
    """The test figures of a model on shuffled histories, each draw of an order with the same noise.

    Returns:
      "rules" of the training sequences and of shuffled ones; "real", "shuffled" and "last_kept"
      (the newest item stays): means of every metric, with "deviation" over the draws, and "overlap"
      of the top 10 with those of real histories (Jaccard).
    """
    draws, seed = phase.settings.eval.shuffles, phase.settings.seed
    dataset = phase.dataset
    once = replace(phase.settings, eval=replace(phase.settings.eval, seeds=1))
    phase = phases.changed(phase, settings=once)
    real, shown = _judged(phase, params, state)
    found: dict[str, Any] = {"metric": phase.settings.eval.metric, "real": real}
    for name, keep_last in (("shuffled", False), ("last_kept", True)):
        figures, overlaps = [], []
        for number in range(draws):
            random = streams.shuffles(seed, number)
            test = order.shuffled(dataset.test, random, keep_last=keep_last)
            other = phases.changed(phase, dataset=dataset._replace(test=test))
            metrics, top = _judged(other, params, state)
            figures.append(metrics)
            overlaps.append(lists.overlap(shown, top))
        found[name] = {each: float(np.mean([f[each] for f in figures])) for each in real}
        found[name]["deviation"] = {
            each: float(np.std([f[each] for f in figures], ddof=min(1, draws - 1))) for each in real
        }
        found[name]["overlap"] = float(np.mean(overlaps))
    return found | {"rules": rules(dataset, seed, draws)}


def rules(dataset: Dataset, seed: int, draws: int) -> dict[str, Any]:
    """Rules of training sequences, and their mean number in shuffled ones; {} without users."""
    if dataset.user_items is None:
        return {}
    rows = ragged.chosen(dataset.user_items)
    rows = rows._replace(stop=rows.end)
    mixed = [
        order.rules(order.shuffled(rows, streams.shuffles(seed, number))) for number in range(draws)
    ]
    return {
        name: {"real": count, "shuffled": float(np.mean([getattr(each, name) for each in mixed]))}
        for name, count in order.rules(rows)._asdict().items()
    }


def _judged(phase: PhaseRun, params: Any, state: Any) -> tuple[dict[str, float], np.ndarray]:
    found = judging.lists_of(phase, "test", k=LIST)(
        params, state, streams.draw(phase.settings.seed, 0)
    )
    return found.metrics, found.items
