"""Trained sequence models as functions of embedded items, and networks packed as arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from jaxrec_diff.ops import filled


class Reader(NamedTuple):
    """A trained sequence model as a function of embedded items, differentiable in them."""

    params: Any  # numpy
    read: Callable[[Any, jax.Array], jax.Array]  # params, f32[B, M, D] -> f32[B, D]
    """Scores the item that follows M given ones by inner product with the rows of "items"."""


_NETWORK = "network/"  # of exported parameters, by path


def packed(params: Any) -> dict[str, np.ndarray]:
    """A tree of parameters as named arrays, for an export; `unpacked` reads them back."""
    flat = traverse_util.flatten_dict(jax.device_get(params), sep="/")
    return {_NETWORK + name: np.asarray(leaf) for name, leaf in flat.items()}


def unpacked(exports: Mapping[str, np.ndarray]) -> Any:
    """The tree that `packed` took apart; other arrays are passed over."""
    flat = {k.removeprefix(_NETWORK): v for k, v in exports.items() if k.startswith(_NETWORK)}
    if "items" in flat:  # of networks that were stored before tables were filled up
        flat["items"] = filled.padded(flat["items"])
    return traverse_util.unflatten_dict(flat, sep="/")
