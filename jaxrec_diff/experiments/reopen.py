"""The run of a workdir, ready for its checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.config.stored import check_schema
from jaxrec_diff.experiments import prepare
from jaxrec_diff.experiments import workdir as experiments_workdir
from jaxrec_diff.experiments.run import Prepared


def reopen(
    workdir: Path,
    flags: Sequence[str] = (),
    data: str | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Prepared:
    """The run of a workdir, ready for its checkpoints.

    Args:
      workdir: what training left.
      flags: dotted flags over its settings.
      data: where the interactions are now, if they were moved.
      settings: dotted fields with typed values, over the flags.

    Raises:
      ValueError: if there is no run, on settings that do not fit it, or on other data.
    """
    if not (workdir / "config.json").exists():
        raise ValueError(f"{workdir} holds no config.json; name a workdir that bin/train made")
    name, source, experiment = experiments_workdir.read_config(workdir)
    experiment = config.configure(config.parse(experiment, flags), settings)
    prepared = prepare.prepare(name, experiment, data or source)
    check_vocabulary(prepared, workdir)
    return prepared


def check_vocabulary(prepared: Prepared, workdir: Path) -> None:
    """Refuses data whose items are not those that the workdir was trained on.

    Raises:
      ValueError: naming the numbers of items.
    """
    path = workdir / "vocab.npz"
    with np.load(path) as stored:
        check_schema(stored, path)
        known = stored["item_ids"]
    if not np.array_equal(known, prepared.dataset.item_ids):
        raise ValueError(
            f"{prepared.source} has {prepared.dataset.num_items} items that are not the "
            f"{len(known)} items {workdir} was trained on"
        )
