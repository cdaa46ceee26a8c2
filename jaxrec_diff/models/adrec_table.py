"""The rows of items that ADRec starts from, and what it refuses of a backbone that makes them."""

from typing import Any

import numpy as np

from jaxrec_diff.models.contract import DataSpec


def trained_rows(config: Any, spec: DataSpec) -> np.ndarray:
    """The backbone's rows of items, f32[I, D], for settings `ADRecConfig`.

    Raises:
      ValueError: if they are other than the data's items, or other than the network's width.
    """
    rows = np.asarray(spec.exports["items"], np.float32)
    if rows.ndim != 2 or len(rows) != spec.num_items or not np.isfinite(rows).all():
        raise ValueError(
            f"the backbone's items must be {spec.num_items} rows of finite numbers, one for each "
            f"of this data's items, got an array of shape {rows.shape}"
        )
    _check_width(config, rows.shape[1])
    return rows


def check(config: Any, spec: DataSpec, given: frozenset[str], backbone: Any) -> None:
    """Refuses a backbone that cannot do, before it is trained.

    Raises:
      ValueError: if nothing would be made of it, or its rows are of another width.
    """
    del spec, given
    if config.table == "random":
        raise ValueError(
            "model.table=random makes nothing of a backbone; give --backbone=none, or "
            "model.table=backbone"
        )
    _check_width(config, backbone.width)


def _check_width(config: Any, width: int) -> None:
    if width != config.width:
        raise ValueError(
            f"model.width={config.width} must be that of the backbone's rows, which is {width}: "
            f"take model.width={width}, or backbone.model.width={config.width}"
        )
