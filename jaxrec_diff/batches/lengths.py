"""The few lengths that histories are padded to, so that little is padded."""

import numpy as np

from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.ops.ragged import Ragged

_MAX_BUCKETS = 4  # each is a copy of the network in the compiled update


def bucket_lengths(slices: Ragged, config: DataConfig) -> tuple[int, ...]:
    """The lengths that histories are padded to: as set, or the (up to four) that pad least.

    Dynamic programming over the histogram of lengths: with c(l) the least number of places when the
    longest history has l items and k lengths are left,

        c_k(l) = min over j < l of c_{k-1}(j) + l #{j < length <= l}.
    """
    longest = config.max_len
    if config.buckets:
        return (*(length for length in config.buckets if length < longest), longest)
    lengths = np.clip(slices.end - slices.start, 1, longest)
    below = np.append(0, np.cumsum(np.bincount(lengths, minlength=longest + 1)[1:]))
    cost = np.where(below == 0, 0, np.inf)
    cuts = []
    for _ in range(min(_MAX_BUCKETS, longest)):
        # [l, j]: a bucket of length l after all histories of up to j items
        candidates = cost[None, :] + np.arange(longest + 1)[:, None] * (below[:, None] - below)
        candidates[np.triu_indices(longest + 1)] = np.inf
        candidates[0, 0] = 0
        cuts.append(candidates.argmin(axis=1))
        cost = candidates.min(axis=1)
    chosen, length = [], longest
    for before in reversed(cuts):
        if length == 0 or below[length] == 0:
            break
        chosen.append(length)
        length = int(before[length])
    return tuple(reversed(chosen))


def bucket(slices: Ragged, lengths: tuple[int, ...]) -> np.ndarray:
    """Which length each history has, the shortest that holds it."""
    return np.searchsorted(lengths, np.minimum(slices.end - slices.start, lengths[-1]))
