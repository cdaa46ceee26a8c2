"""Filters on tables that are small enough to see what is right."""

import numpy as np

from jaxrec_diff.data import filters
from jaxrec_diff.data.columns import Columns
from jaxrec_diff.data.config import DataConfig


def test_repeats_in_succession_are_a_users_own():
    # user 1 ends with the item that user 2 begins with
    table = Columns(np.array([1, 1, 2, 2, 2]), np.array([5, 6, 6, 6, 7]), None, np.arange(5))
    got, _ = filters.apply(table, DataConfig(dedup_adjacent=True))
    assert got.times.tolist() == [0, 1, 2, 4]
