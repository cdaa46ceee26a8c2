"""What is worked out of a measured point."""

import json

import pytest

from jaxrec_diff.benchmarking import points
from jaxrec_diff.benchmarking.peak import Peak
from jaxrec_diff.benchmarking.program import Program
from jaxrec_diff.benchmarking.timing import Timing

POINT = points.Point(
    "sampler", "sampler", "dreamrec", "shape", "ours", "ddpm", 10, 100, 60, 40, 8, 2, 100, "users",
    timing=Timing(0.5, 0.4, 0.6, 0.25, 5),
    program=Program(4e9, 3e9, 1e9, 12, 5, 30.0, (), 0, 0.1, 0.2, 1, 2, 3, 6),
    peak=Peak(16e9, 10e9),
)  # fmt: skip


@pytest.mark.parametrize(("clock", "seconds"), [("wall", 0.5), ("processor", 0.25)])
def test_rates_are_by_the_clock_that_is_named(clock, seconds):
    found = points.line(POINT, {"clock": clock, "commit": "abc"})
    assert found["rate"] == 100 / seconds
    assert found["flops_per_s"] == 4e9 / seconds
    assert found["share_of_peak"] == pytest.approx(4e9 / seconds / 32e9)
    # two devices, each with half of the operations and all of the bytes that are told of one
    assert found["intensity"] == 2.0
    assert found["share_of_roof"] == pytest.approx(4e9 / seconds / 32e9)
    assert found["commit"] == "abc" and found["memory"] == 6 and "program" not in found
    assert json.loads(json.dumps(found))["host_in_loops"] == []


def test_a_program_bound_by_its_bytes_has_a_lower_roof():
    slow = POINT._replace(peak=Peak(16e9, 2e9))
    found = points.line(slow, {"clock": "wall"})
    assert found["share_of_roof"] == pytest.approx(8e9 / (2 * 2.0 * 2e9))


def test_a_peer_has_a_rate_and_no_program():
    found = points.line(POINT._replace(program=None, difference=1e-6), {"clock": "wall"})
    assert found["rate"] == 200 and found["difference"] == 1e-6
    assert not {"flops", "share_of_peak", "intensity"} & found.keys()
