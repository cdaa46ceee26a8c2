import pytest


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The folder below which commands run; what undisturbed ones left is kept there."""
    return tmp_path_factory.mktemp("faults")
