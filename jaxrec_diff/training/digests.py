"""Digests of arrays: a flipped bit is found when they are read back."""

import hashlib
import json
from typing import Any

import jax
import numpy as np

from jaxrec_diff import layout


def digests(tree: Any) -> dict[str, str]:
    """A digest of every array of a tree: its dtype, its shape and its bytes.

    Args:
      tree: of arrays, fetched to the host one after the other; how they are laid out over devices
        leaves no trace.

    Returns:
      Hexadecimal BLAKE2b of 16 bytes, by the array's path.

    >>> digests({"w": np.zeros(2, np.float32)})
    {"['w']": 'c4938b4f52a333822a88a3d1ae8e4786'}
    """
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _digest(layout.whole(leaf)) for path, leaf in leaves}


def of_json(value: Any) -> str:
    """A digest of what json holds, however it is written."""
    return _hash(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest(array: Any) -> str:
    whole = np.ascontiguousarray(array)
    found = _hash(f"{whole.dtype} {np.shape(array)} ".encode())
    found.update(whole.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _hash(start: bytes) -> Any:
    return hashlib.blake2b(start, digest_size=16)
