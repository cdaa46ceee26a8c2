"""Tables filled up with rows of zeros to a multiple of 256.

Such a table is cut into equal parts by every mesh, and a checkpoint of it fits all of them.
"""

MULTIPLE = 256


def rows(count: int) -> int:
    """Rows of a table that holds `count`.

    >>> rows(1), rows(256), rows(257)
    (256, 256, 512)
    """
    return -(-count // MULTIPLE) * MULTIPLE
