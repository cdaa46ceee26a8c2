"""Search spaces as data: what a preset lets `bin/tune` vary, by the names of its flags."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Every number between two ends, whole if both ends are."""

    low: float
    high: float
    log: bool = False
    """Spread over orders of magnitude."""

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"a range rises, and from above 0 if it is log, got {self}")

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choice:
    """One of several values; a tuple of widths is one value."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(set(self.values)) < 2:
            raise ValueError(f"a choice needs two values, got {self.values}")


# Dotted flag without its dashes -> where its values lie: {"train.learning-rate": Range(...)}.
Space = Mapping[str, Range | Choice]


def text(value: Any) -> str:
    """A value as a flag takes it: `200,600` for a tuple."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def describe(space: Space) -> str:
    """A line a field, for a terminal."""
    width = max(map(len, space))
    return "\n".join(f"  {name:<{width}}  {bounds(where)}" for name, where in space.items())


def bounds(where: Range | Choice) -> str:
    """Where a field's values lie, in words."""
    if isinstance(where, Choice):
        return " | ".join(map(text, where.values))
    return f"{where.low:g} .. {where.high:g}" + (", by orders of magnitude" if where.log else "")
