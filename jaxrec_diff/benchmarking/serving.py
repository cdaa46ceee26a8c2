"""How fast a trained model makes its lists, measured where it is asked for."""

import os
from typing import Any

import jax
import numpy as np

from jaxrec_diff.benchmarking import timing
from jaxrec_diff.data import ids
from jaxrec_diff.experiments import diffusing, phases
from jaxrec_diff.experiments.restore import Restored
from jaxrec_diff.inference import recommender
from jaxrec_diff.inference.types import Histories
from jaxrec_diff.ops import ragged

BATCH = 256
"""Histories at once."""
LIST = 10


def speed(restored: Restored, repeats: int = 5) -> dict[str, Any]:
    """Users that a warm model makes lists for in a second, and what it consists of.

    The first `BATCH` histories of the test split, from host arrays to lists of `LIST` items on the
    device, the run's own sampler and one draw of its noise; nothing is compiled or read in it.

    Args:
      restored: a trained model.
      repeats: measurements, fewer of a slow one.

    Returns:
      "users_per_second" by the wall clock, which other programs of the machine slow down, and
      "users_per_processor_second" of all threads; "parameters" of the phase that recommends;
      "reverse_steps" of its sampler, 0 without; "batch", "k", "repeats", "device", "processors".
    """
    phase, _, params, state = restored
    found = recommender.of(restored, k=LIST, batch_size=BATCH)
    asked = _histories(restored)
    took = timing.measured(lambda: found.rank(asked, 0), repeats)
    return {
        "users_per_second": BATCH / took.seconds,
        "users_per_processor_second": BATCH / took.processor,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "reverse_steps": diffusing.steps(phase, params, state, "test"),
        "batch": BATCH,
        "k": len(found.popular),
        "repeats": took.repeats,
        "device": jax.devices()[0].device_kind,
        "processors": len(os.sched_getaffinity(0)),
    }


def _histories(restored: Restored) -> Histories:
    """`BATCH` of the test split, over again where it has fewer."""
    dataset = restored.phase.dataset
    rows, users = phases.rows_of(dataset, "test")
    picked = np.resize(np.arange(len(users)), BATCH)
    rows, users = ragged.pick(rows, picked), users[picked]
    lengths = rows.end - rows.start
    place, _ = ragged.expand(rows.start, lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    unknown = np.zeros(BATCH, np.int32)
    return Histories(ids.to_arrow(picked), rows.items[place], offsets, users, unknown)
