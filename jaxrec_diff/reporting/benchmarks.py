"""Measured points as a table for the terminal, and as plots.

A point is a line of `benchmarking.points.line`, as it stands in a file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.ops import files
from jaxrec_diff.reporting import drawing, figures
from jaxrec_diff.reporting.drawing import Drawing

Point = Mapping[str, Any]

# What a point is of, by the heading of its column; those that all points share are said once.
_SIZES = {
    "model": "model", "part": "part", "data": "data", "way": "by", "sampler": "sampler",
    "steps": "steps", "batch": "batch", "users": "users", "items": "items", "length": "len",
    "devices": "devices", "lowered_for": "for",
}  # fmt: skip
_ACROSS = {
    "batch": "rows of a batch", "steps": "reverse steps", "items": "items", "users": "users",
    "length": "places of a history", "devices": "devices",
}  # fmt: skip


def table(points: Sequence[Point]) -> str:
    """A line a point, figures on the right, and above it what all points have in common."""
    if not points:
        return ""
    told, varied = _told(points), _varied(points)
    shared = [name for name in _SIZES if name not in varied and told[name] not in ({""}, {"0"})]
    head = [_SIZES[name] for name in varied]
    rows = [[str(point.get(name, "")) for name in varied] for point in points]
    for title, cell in _FIGURES.items():
        cells = [cell(point) for point in points]
        if any(cells):
            head.append(title)
            rows = [[*row, text or "-"] for row, text in zip(rows, cells, strict=True)]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if place < len(varied) and not cell.isdigit() else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    first = points[0]
    facts = [f"{_SIZES[name]} {told[name].copy().pop()}" for name in shared]
    facts += [f"{first['device']}, {first['clock']} clock", f"commit {first['commit']}"]
    return "\n".join([f"{first['question']}: {'; '.join(facts)}", *lines])


def _told(points: Sequence[Point]) -> dict[str, set[str]]:
    """What the points say of each size."""
    return {name: {str(point.get(name, "")) for point in points} for name in _SIZES}


def _varied(points: Sequence[Point]) -> list[str]:
    """What points differ in, and always the model."""
    return [name for name, said in _told(points).items() if len(said) > 1 or name == "model"]


def _seconds(point: Point) -> str:
    if "seconds" not in point:
        return ""
    return f"{_short(point['seconds'])} ({_short(point['low'])}-{_short(point['high'])})"


def _one(name: str, scale: float = 1.0):
    def cell(point: Point) -> str:
        value = point.get(name)
        return "" if value is None else _short(value / scale)

    return cell


def _host(point: Point) -> str:
    found = point.get("host_in_loops")
    return "" if found is None else ",".join(found) or "no"


def _share(point: Point) -> str:
    value = point.get("share_of_peak")
    return "" if value is None else f"{value:.1%}"


_FIGURES = {
    "per s": _one("rate"),
    "wall s": _seconds,
    "cpu s": _one("processor"),
    "compile s": _one("compile_s"),
    "GFLOP": _one("flops", 1e9),
    "GB": _one("bytes", 1e9),
    "FLOP/B": _one("intensity"),
    "of peak": _share,
    "MiB": _one("memory", 2**20),
    "ops": _one("operations"),
    "fusions": _one("fusions"),
    "host in loop": _host,
    "apart": _one("difference"),
}


def _short(value: float) -> str:
    """Three digits that count.

    >>> _short(1234567.0), _short(0.00123), _short(12)
    ('1,234,567', '0.00123', '12')
    """
    if value == 0 or abs(value) >= 100 or float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def drawings(points: Sequence[Point]) -> dict[str, Drawing]:
    """Plots of what the points vary in, by the stem of their file."""
    out = {}
    for name, across in _ACROSS.items():
        for what, figure in (("rate", "a second"), ("seconds", "seconds"), ("memory", "bytes")):
            lines, shared = _lines(points, name, what)
            if lines:
                unit = f"{points[0]['unit']} " if what == "rate" else ""
                along = f"{across} ({shared})" if shared else across
                out[f"{what}-{name}"] = figures.scaling(unit + figure, lines, across=along)
    placed = [point for point in points if "flops_per_s" in point and point.get("intensity")]
    if placed:
        # a mark a size would be more than a legend has room for
        varied = [name for name in _varied(placed) if name not in _ACROSS]
        named: dict[str, list[tuple[float, float]]] = {}
        for point in placed:
            at = point["intensity"], point["flops_per_s"] / point["devices"]
            named.setdefault(_name(point, varied), []).append(at)
        peaks = placed[0]["peak_flops"], placed[0]["peak_bytes"]
        out["roofline"] = figures.roofline(named, *peaks)
    return out


def _lines(
    points: Sequence[Point], across: str, what: str
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], str]:
    """Points that differ in one size alone, as lines of two points at least, and in words the
    sizes that all lines share while other points have others."""
    others = [name for name in _varied(points) if name != across]
    grouped: dict[tuple, list[Point]] = {}
    for point in points:
        if what in point:
            grouped.setdefault(tuple(point.get(name) for name in others), []).append(point)
    lines = [each for each in grouped.values() if len({point[across] for point in each}) > 1]
    firsts = [each[0] for each in lines]
    alike = [name for name in others if len({first.get(name) for first in firsts}) == 1]
    apart = [name for name in others if name not in alike or name == "model"]
    out = {}
    for each in lines:
        found = {point[across]: point[what] for point in each}
        x = sorted(found)
        out[_name(each[0], apart)] = np.array(x), np.array([found[at] for at in x])
    shared = [name for name in alike if name in _ACROSS]
    return out, _name(firsts[0], shared) if firsts else ""


def _name(point: Point, varied: Sequence[str]) -> str:
    """A point by what sets it apart from the others, as a legend has room for it."""
    words = [str(point.get(name) or "") for name in varied if name not in _ACROSS]
    sizes = [f"{_SIZES[name]} {point[name]:,}" for name in varied if name in _ACROSS]
    return ", ".join(word for word in (*words, *sizes) if word)


def write(points: Sequence[Point], folder: Path) -> list[Path]:
    """Writes every plot as SVG and PNG; needs matplotlib."""
    written = []
    for stem, each in drawings(points).items():
        made = {".svg": drawing.svg(each).encode(), ".png": drawing.png(each)}
        for ending, content in made.items():
            path = folder / f"{points[0]['question']}-{stem}{ending}"
            with files.replacing(path) as partial:
                partial.write_bytes(content)
            written.append(path)
    return written
