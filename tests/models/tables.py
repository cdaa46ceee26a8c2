"""Tables of tests as models hold them: filled up to a multiple of 256 rows."""

import numpy as np

from jaxrec_diff.ops import filled


def padded(params, *names):
    """Parameters with some of their tables filled up."""
    return {k: filled.padded(v) if k in names else v for k, v in params.items()}


def filling(rows, width=1):
    """Entries of a table that only fill it up."""
    return (filled.rows(rows) - rows) * width


def unfilled(params, **rows):
    """Parameters with some of their tables cut to so many rows, behind which all is zero."""
    for name, count in rows.items():
        assert not np.any(params[name][count:])
    return {k: v[: rows[k]] if k in rows else v for k, v in params.items()}
