"""Items that a trained generator puts ahead of sequences."""

from collections.abc import Iterator

import numpy as np

from jaxrec_diff.augmentation import generate as augmentation_generate
from jaxrec_diff.experiments import run
from jaxrec_diff.experiments.run import Prepared
from jaxrec_diff.ops import ragged
from jaxrec_diff.training.state import TrainState, averaged


def generate(
    prepared: Prepared,
    train: TrainState,
    histories: ragged.Ragged | None = None,
    *,
    batch_size: int | None = None,
    first: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """The items that a generator puts ahead of histories, in chunks (first row, i32[b, M]).

    Args:
      prepared: the generator's run with its backbone's exports, on the data as it was read.
      train: what was fitted.
      histories: by default the training items of every user who may get any.
      batch_size: histories at once, by default that of evaluation; changes no item.
      first: row to begin with.
    """
    data = prepared.experiment.data
    return augmentation_generate.prefixes(
        run.build(prepared),
        averaged(train),
        train.state,
        _short(raw(prepared), data.prefix_max_items) if histories is None else histories,
        seed=prepared.experiment.seed,
        max_len=data.max_len,
        batch_size=batch_size or prepared.experiment.eval.batch_size,
        first=first,
        rounding=augmentation_generate.Rounding(data.prefix_dedup, data.prefix_exclude_seen),
    )


def _short(user_items: ragged.Ragged, most: int) -> ragged.Ragged:
    """Rows of more than `most` items emptied, so that nothing is put ahead of them; 0: none."""
    if not most:
        return user_items
    few = user_items.end - user_items.start <= most
    return user_items._replace(end=np.where(few, user_items.end, user_items.start))


def joined(chunks: Iterator[tuple[int, np.ndarray]]) -> np.ndarray:
    return np.concatenate([chunk for _, chunk in chunks])


def raw(prepared: Prepared) -> ragged.Ragged:
    user_items = prepared.dataset.user_items
    assert user_items is not None  # the view of a generator has looked
    return user_items
