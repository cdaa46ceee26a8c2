"""Malformed files are refused in a sentence; odd ones are read as they are."""

import pytest

from tests.faults import harness, inputs

FULL = {
    "damaged tables": 9000,
    "damaged loads": 2500,
    "damaged histories": 2500,
    "generated texts": 6000,
    "numpy shapes": 500,
    "known tables": 4000,
    "known histories": 2000,
    "shuffled rows": 500,
}


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("family", FULL)
def test_many_inputs(family):
    with harness.tally(f"inputs: {family}", 100) as counted:
        read = inputs.watched({family: FULL[family]}, counted)
    assert read > counted.counts["tried"] / 50
