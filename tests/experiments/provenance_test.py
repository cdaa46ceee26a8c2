"""Runs, beside what the tests of each part ask."""

from jaxrec_diff.experiments import provenance


def test_the_commit_is_looked_up():
    assert provenance.commit()
