"""A small data set and its training rows, for tests of every kind of input."""

import pytest

from jaxrec_diff.data.config import DataConfig, SyntheticConfig
from jaxrec_diff.data.load import load


@pytest.fixture(scope="session")
def settings():
    return DataConfig(
        max_len=5,
        prefix_len=2,
        synthetic=SyntheticConfig(
            num_users=40, num_items=20, num_interests=4, min_length=3, max_length=9
        ),
    )


@pytest.fixture(scope="session")
def dataset(settings):
    return load("synthetic", settings)


@pytest.fixture(scope="session")
def training(dataset):
    """user -> items, from the sequences: everything but a user's last two."""
    rows = {}
    for user, start, valid in zip(
        dataset.test_users, dataset.test.start, dataset.valid.end, strict=True
    ):
        rows[int(user)] = dataset.test.items[start:valid].tolist()
    return rows
