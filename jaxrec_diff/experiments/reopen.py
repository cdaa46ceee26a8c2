"""The run of a workdir, ready for its checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.data import ids
from jaxrec_diff.experiments import prepare
from jaxrec_diff.experiments import workdir as experiments_workdir
from jaxrec_diff.experiments.run import Prepared


def reopen(workdir: Path, flags: Sequence[str] = (), data: str | None = None) -> Prepared:
    """The run of a workdir, ready for its checkpoints.

    Args:
      workdir: what training left.
      flags: dotted flags over its settings.
      data: where the interactions are now, if they were moved.

    Raises:
      ValueError: if there is no run, on settings that do not fit it, or on other data.
    """
    if not (workdir / "config.json").exists():
        raise ValueError(f"{workdir} holds no config.json; name a workdir that bin/train made")
    name, source, experiment = experiments_workdir.read_config(workdir)
    prepared = prepare.prepare(name, config.parse(experiment, list(flags)), data or source)
    check_vocabulary(prepared, workdir)
    return prepared


def check_vocabulary(prepared: Prepared, workdir: Path) -> None:
    """Refuses data whose items are not those that the workdir was trained on.

    Raises:
      ValueError: naming the numbers of items.
    """
    with np.load(workdir / "vocab.npz") as stored:
        known = ids.unpack("item_ids", stored)
    if not np.array_equal(known, prepared.dataset.item_ids):
        raise ValueError(
            f"{prepared.source} has {prepared.dataset.num_items} items that are not the "
            f"{len(known)} items {workdir} was trained on"
        )
