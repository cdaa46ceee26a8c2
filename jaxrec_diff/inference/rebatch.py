"""A stream of histories in batches of one size."""

from collections.abc import Iterable, Iterator

import numpy as np

from jaxrec_diff.inference.types import Histories


def regroup(stream: Iterable[Histories], size: int) -> Iterator[Histories]:
    """Pieces of exactly `size`, the last of what is left."""
    held: list[Histories] = []
    count = 0
    for part in stream:
        held.append(part)
        count += len(part.user)
        while count >= size:
            whole = _joined(held)
            yield cut(whole, 0, size)
            held, count = [cut(whole, size, count)], count - size
    if count:
        yield _joined(held)


def _joined(parts: list[Histories]) -> Histories:
    import pyarrow as pa

    if len(parts) == 1:
        return parts[0]
    shifts = np.append(0, np.cumsum([len(part.items) for part in parts]))
    offsets = [part.offsets[:-1] + shift for part, shift in zip(parts, shifts, strict=False)]
    return Histories(
        pa.concat_arrays([part.names for part in parts]),
        np.concatenate([part.items for part in parts]),
        np.append(np.concatenate(offsets), shifts[-1]),
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.unknown for part in parts]),
    )


def cut(whole: Histories, begin: int, end: int) -> Histories:
    """Histories `begin` to `end` of some."""
    offsets = whole.offsets[begin : end + 1]
    return Histories(
        whole.names[begin:end],
        whole.items[offsets[0] : offsets[-1]],
        offsets - offsets[0],
        whole.user[begin:end],
        whole.unknown[begin:end],
    )
