"""How long something takes: the median of several runs, and their spread."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

# Shorter runs are repeated within one measurement: a clock is no finer than its overhead.
_LEAST = 0.02
_MOST = 60.0  # a slow run is measured as often as fits in here, once at least


class Timing(NamedTuple):
    """Seconds of a run."""

    seconds: float  # wall clock, the median
    low: float  # the quartiles around it
    high: float
    processor: float  # of all threads of the process, the median: what other programs do not touch
    repeats: int


def measured(run: Callable[[], Any], repeats: int = 5) -> Timing:
    """Times a function once it was called before; what it returns is waited for.

    Args:
      run: what is timed. It is compiled already, or its first call compiles it.
      repeats: measurements.
    """
    jax.block_until_ready(run())
    first, _ = _once(run, 1)
    number = max(1, math.ceil(_LEAST / max(first, 1e-9)))
    started = time.perf_counter()
    found: list[tuple[float, float]] = []
    while len(found) < repeats:
        found.append(_once(run, number))
        if time.perf_counter() - started > _MOST:
            break
    return summary(*zip(*found, strict=True))


def summary(walls: tuple[float, ...], processors: tuple[float, ...]) -> Timing:
    """Measurements of the same run as one.

    >>> summary((3.0, 1.0, 2.0), (1.0, 1.0, 4.0))
    Timing(seconds=2.0, low=1.5, high=2.5, processor=1.0, repeats=3)
    """
    low = high = walls[0]
    if len(walls) > 1:
        low, _, high = statistics.quantiles(walls, n=4, method="inclusive")
    return Timing(statistics.median(walls), low, high, statistics.median(processors), len(walls))


def _once(run: Callable[[], Any], number: int) -> tuple[float, float]:
    """Wall and processor seconds of a run, the mean over `number` of them."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(number):
        out = run()
    jax.block_until_ready(out)
    return (time.perf_counter() - wall) / number, (time.process_time() - processor) / number
