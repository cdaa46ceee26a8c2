"""Cuts of single sequences by hand."""

import numpy as np

from jaxrec_diff.data import splits
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Sequences


def alone(times: list[int]) -> Sequences:
    """A user who has been at every time."""
    count = len(times)
    return Sequences(
        np.arange(1, count + 1), np.zeros(count, int), np.array(times), np.array([0, count])
    )


def test_interactions_at_the_moment_of_a_cut_belong_to_the_later_split():
    config = DataConfig(split="global_time", ratio=(0.4, 0.3, 0.3))
    times = [0, 1, 2, 4, 4, 5, 6, 7, 7, 9]  # the cuts are at 4 and at 7
    assert [int(at[0]) for at in splits.global_time(alone(times), config)] == [0, 3, 7, 10]


def test_shares_are_rounded_down_where_they_are_not_whole_in_decimals():
    config = DataConfig(split="ratio", ratio=(0.42, 0.29, 0.29))
    # 100 * 0.29 is 28.999999999999996 in floating point
    assert [int(at[0]) for at in splits.ratio(alone(list(range(100))), config)] == [0, 42, 71, 100]
    assert [int(at[0]) for at in splits.ratio(alone(list(range(10))), config)] == [0, 6, 8, 10]
