"""Medians, quartiles and clocks."""

import time
from types import SimpleNamespace

import pytest

from jaxrec_diff.benchmarking import timing


def test_a_sleep_takes_wall_time_and_no_processor_time():
    found = timing.measured(lambda: time.sleep(0.03), repeats=3)
    assert 0.03 <= found.low <= found.seconds <= found.high
    assert found.processor < 0.02 and found.repeats == 3


def test_short_runs_are_repeated_within_a_measurement(monkeypatch):
    now = [0.0]

    def run():
        now[0] += 1e-5

    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0] / 2)
    monkeypatch.setattr(timing, "time", clock)
    found = timing.measured(run, repeats=2)
    # one to compile, one to guess by, then two measurements of a fiftieth of a second
    assert round(now[0] / 1e-5) == pytest.approx(2 + 2 * 2000, abs=2)
    assert found.seconds == pytest.approx(1e-5) and found.processor == pytest.approx(5e-6)


def test_the_spread_is_that_of_the_quartiles():
    found = timing.summary((5.0, 1.0, 2.0, 3.0, 4.0), (1.0,) * 5)
    assert (found.low, found.seconds, found.high) == (2.0, 3.0, 4.0)
    assert timing.summary((7.0,), (1.0,)).low == 7.0


def test_a_failure_is_no_figure():
    with pytest.raises(ZeroDivisionError):
        timing.measured(lambda: 1 / 0)
