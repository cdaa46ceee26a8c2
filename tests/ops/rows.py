"""Random rows over one flat array, and what a window of one should hold."""

import numpy as np

from jaxrec_diff.ops.ragged import Ragged


def random_rows(seed: int, rows: int = 50) -> Ragged:
    rng = np.random.default_rng(seed)
    flat = rng.integers(1, 1000, 200).astype(np.int32)
    start = rng.integers(0, 150, rows)
    end = start + rng.integers(0, 20, rows)
    stop = end + rng.integers(1, 6, rows)
    return Ragged(flat, *(part.astype(np.int32) for part in (start, end, stop)))


def last(flat: np.ndarray, start: int, end: int, length: int) -> list[int]:
    kept = flat[start:end].tolist()[-length:]
    return kept + [0] * (length - len(kept))
