"""What each check lets through, and the sentence of the rest."""

import math

import pytest

from jaxrec_diff import validation


def said(check, *args):
    with pytest.raises(ValueError) as caught:
        check(*args)
    return str(caught.value)


def test_bounds_belong_to_the_interval_or_not():
    validation.at_least("a.b", 3, 3)
    validation.within("a.b", 0, 0, 1)
    validation.within("a.b", 1, 0, 1)
    validation.above("a.b", 1e-9, 0, 0.1)
    assert said(validation.above, "a.b", 0, 0, 0.1) == "a.b must be above 0 (say 0.1), got 0"
    assert said(validation.at_least, "a.b", 2, 3) == "a.b must be at least 3, got 2"


@pytest.mark.parametrize(("value", "nearest"), [(-0.5, 0), (1.5, 1)])
def test_the_nearest_value_is_the_bound_that_was_passed(value, nearest):
    expected = f"a.b must lie in [0, 1], got {value}; the nearest valid value is {nearest}"
    assert said(validation.within, "a.b", value, 0, 1) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_check_lets_a_value_through_that_is_not_finite(value):
    for check, rest in (
        (validation.finite, ()),
        (validation.at_least, (0,)),
        (validation.above, (0, 1)),
        (validation.within, (0, 1)),
    ):
        assert said(check, "a.b", value, *rest).startswith("a.b must be a finite number")
