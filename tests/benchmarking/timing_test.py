"""Medians, quartiles and clocks."""

import time

import pytest

from jaxrec_diff.benchmarking import timing


def test_a_sleep_takes_wall_time_and_no_processor_time():
    found = timing.measured(lambda: time.sleep(0.03), repeats=3)
    assert 0.03 <= found.low <= found.seconds <= found.high
    assert found.processor < 0.02 and found.repeats == 3


def test_short_runs_are_repeated_within_a_measurement():
    calls = []
    found = timing.measured(lambda: calls.append(1), repeats=2)
    assert len(calls) > 1000 and found.seconds < 1e-4


def test_the_spread_is_that_of_the_quartiles():
    found = timing.summary((5.0, 1.0, 2.0, 3.0, 4.0), (1.0,) * 5)
    assert (found.low, found.seconds, found.high) == (2.0, 3.0, 4.0)
    assert timing.summary((7.0,), (1.0,)).low == 7.0


def test_a_failure_is_no_figure():
    with pytest.raises(ZeroDivisionError):
        timing.measured(lambda: 1 / 0)
