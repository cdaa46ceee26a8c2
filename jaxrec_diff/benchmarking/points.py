"""A measured point, and the json line that it becomes.

Bytes are those that a program's operations read and write. Where caches hold them, a point lies
above what the copy of a large array allows: its `share_of_roof` is more than 1.
"""

import os
import time
from typing import Any, NamedTuple

from jaxrec_diff.benchmarking.peak import Peak
from jaxrec_diff.benchmarking.program import Program
from jaxrec_diff.benchmarking.timing import Timing


class Point(NamedTuple):
    """One way to do one thing at one size."""

    question: str  # what was asked: "sampler", "train", ...
    part: str  # what is measured: "sampler", "train", "rank" or "evaluate"
    model: str
    data: str
    way: str  # "ours", or a peer
    sampler: str  # kind of the reverse path, "" without one
    steps: int  # rows of the reverse path, 0 without one
    batch: int
    users: int
    items: int
    length: int
    devices: int
    units: int  # users or examples of a run
    unit: str
    timing: Timing | None = None
    program: Program | None = None
    peak: Peak | None = None
    difference: float | None = None  # of a peer's numbers from ours, as a share of the largest
    lowered_for: str = ""  # a platform, where a program is not compiled and not run


def on_one_core(platform: str) -> bool:
    """Whether the process has one core of a CPU: its processor seconds are then what an idle core
    would need, whatever else the machine does."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return platform == "cpu" and cores == 1


def line(point: Point, about: dict[str, Any]) -> dict[str, Any]:
    """A flat object for json.

    Args:
      point: what was measured.
      about: device, versions, commit and command (`experiments.provenance`), the machine's load,
        and `clock`, "processor" or "wall", which rates are taken by.
    """
    nested = ("timing", "program", "peak")
    out = {k: v for k, v in point._asdict().items() if k not in nested}
    for part in (point.timing, point.program):
        out |= part._asdict() if part is not None else {}
    out = {k: v for k, v in out.items() if v is not None}
    return out | _rates(point, about["clock"]) | {"time": round(time.time())} | about


def _rates(point: Point, clock: str) -> dict[str, Any]:
    timing, program, peak = point.timing, point.program, point.peak
    out: dict[str, Any] = {}
    if timing is not None:
        seconds = timing.processor if clock == "processor" else timing.seconds
        out["rate"] = point.units / seconds
    if program is not None and program.bytes > 0:
        # of all devices the first, of a device the second
        out["intensity"] = program.flops / (program.bytes * point.devices)
    if timing is None or program is None or peak is None:
        return out
    attained = program.flops / seconds
    roof = min(peak.flops, peak.bytes * out.get("intensity", 0.0)) * point.devices
    return out | {
        "flops_per_s": attained,
        "peak_flops": peak.flops,
        "peak_bytes": peak.bytes,
        "share_of_peak": attained / (peak.flops * point.devices),
        "share_of_roof": attained / roof if roof else None,
    }
