"""Tables filled up with rows of zeros to a multiple of 256.

Such a table is cut into equal parts by every mesh, and a checkpoint of it fits all of them. What
fills it is drawn by nobody, looked up by nobody and no candidate of any list or softmax, so it gets
no gradient and stays zero.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

MULTIPLE = 256


def rows(count: int) -> int:
    """Rows of a table that holds `count`.

    >>> rows(1), rows(256), rows(257)
    (256, 256, 512)
    """
    return -(-count // MULTIPLE) * MULTIPLE


def padded(table: Any) -> Any:
    """A table with rows of zeros behind its own, [N, ...] -> [rows(N), ...]; numpy stays numpy.

    >>> padded(np.ones((3, 2))).shape, padded(np.ones(3)).sum()
    ((256, 2), np.float64(3.0))
    """
    xp = np if isinstance(table, np.ndarray) else jnp
    fill = [(0, rows(len(table)) - len(table))] + [(0, 0)] * (table.ndim - 1)
    return xp.pad(table, fill)


def drawn(initial: Callable[..., Any]) -> Callable[..., Any]:
    """An initializer of a filled table from one of the rows that it holds, whose draws it keeps.

    >>> import jax
    >>> drawn(jax.nn.initializers.normal())(jax.random.key(0), (3, 2)).shape
    (256, 2)
    """
    return lambda key, shape, *dtype: padded(initial(key, shape, *dtype))
