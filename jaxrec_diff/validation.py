"""Checks of settings: each failure is one sentence with the value and the nearest valid one."""

import math


def finite(name: str, value: float) -> None:
    """Raises ValueError unless `value` is a finite number."""
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number such as 1.0, got {value}")


def at_least(name: str, value: float, low: float) -> None:
    """Raises ValueError unless `value` >= `low`."""
    finite(name, value)
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")


def above(name: str, value: float, low: float, nearest: float) -> None:
    """Raises ValueError unless `value` > `low`."""
    finite(name, value)
    if value <= low:
        raise ValueError(f"{name} must be above {low} (say {nearest}), got {value}")


def within(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError unless `low` <= `value` <= `high`."""
    finite(name, value)
    if not low <= value <= high:
        nearest = min(max(value, low), high)
        raise ValueError(
            f"{name} must lie in [{low}, {high}], got {value}; the nearest valid value is {nearest}"
        )
