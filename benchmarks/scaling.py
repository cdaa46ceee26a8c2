"""How cost grows: with reverse steps, users and items, up to a million of either.

    python benchmarks/scaling.py            # times, then memory, which no time depends on
    python benchmarks/scaling.py memory     # one panel again (steps, users or memory)
    python benchmarks/scaling.py --draw     # draws what the file has

Writes `results/scaling.json`, a line a point, and `results/scaling.svg`. Points are those of
`bin/benchmark`: processor seconds of samplers of 100 users and the size of their programs against
reverse steps, seconds of a whole evaluation against users, and bytes that compiled programs hold
beside their arguments (parameters, optimizer, data, a batch) against users and items; those
programs are not run. `growth` has the exponent of each line over its last stretch: 1 is linear, 0
is flat. Times are the process's, so pin one thread:

    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
        taskset -c 0 python benchmarks/scaling.py
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.benchmarking import asks, measures
from jaxrec_diff.benchmarking.asks import Ask
from jaxrec_diff.reporting import drawing
from jaxrec_diff.reporting.drawing import COLOURS, Drawing

RESULTS = Path(__file__).parent / "results"
PANELS = ("steps", "users", "memory")
STEPS = {"dreamrec": (10, 50, 100, 500), "dimerec": (5, 10, 25, 50), "diffurec": (4, 8, 16, 32)}
USERS, MANY = "1000/4000/16000", "1000/30000/1000000"
# The three ways to learn a table, by what an update holds for every item of the catalogue.
NEGATIVES = ("--model.negatives=uniform",)
LEARNED = {
    "drawn negatives, lazy Adam": ("dimerec", (*NEGATIVES, "--train.optimizer=lazy_adam")),
    "drawn negatives, Adam": ("dimerec", (*NEGATIVES, "--train.optimizer=adam")),
    "softmax over all items": ("diffurec", ("--data.buckets=20",)),
}
KEPT = (
    "part", "model", "sampler", "steps", "batch", "users", "items", "processor", "seconds",
    "flops", "operations", "argument_bytes", "temporary_bytes", "load",
)  # fmt: skip


class Line(NamedTuple):
    """Points of one panel that belong together."""

    panel: str
    which: str
    ask: Ask


def lines() -> Iterator[Line]:
    """What is measured."""
    for name, steps in STEPS.items():
        yield Line("steps", name, Ask(
            "sampler", (name,), shapes=asks.shapes_from("users:200,items:1000,len:10"),
            batches=(100,), samplers=("ddpm",), steps=steps,
            flags=(f"--model.num-steps={steps[-1]}",),
        ))  # fmt: skip
    for name in ("sasrec", "dimerec", "dreamrec"):
        sizes = asks.shapes_from(f"users:{USERS},items:1000,len:10")
        yield Line("users", name, Ask("evaluate", (name,), shapes=sizes, batches=(256,), repeats=3))
    for which, (name, flags) in LEARNED.items():
        for shape in (f"users:{MANY},items:1000,len:20", f"users:1000,items:{MANY},len:20"):
            ask = Ask("memory", (name,), shapes=asks.shapes_from(shape), batches=(256,),
                      flags=flags)  # fmt: skip
            yield Line("memory", which, ask)


def measured(panel: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Points of a panel, and what they were measured on."""
    points, about = [], {}
    for line in lines():
        if line.panel != panel:
            continue
        for found in measures.lines(line.ask, "", lambda text: print(text, file=sys.stderr)):
            about = {k: found[k] for k in ("device", "machine", "versions", "commit", "clock")}
            point = {"panel": panel, "which": line.which} | {
                k: found[k] for k in KEPT if k in found
            }
            points.append(point)
            print(json.dumps(point), flush=True)
    return points, about


def growth(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exponents: how often what is measured doubles where what it is measured against does."""
    found = []
    for panel, along, what in (
        ("steps", "steps", "processor"), ("steps", "steps", "flops"),
        ("steps", "steps", "operations"), ("users", "users", "processor"),
        ("memory", "users", "temporary_bytes"), ("memory", "items", "temporary_bytes"),
    ):  # fmt: skip
        for (which, part), series in _series(points, panel, along).items():
            (x0, y0), (x1, y1) = [(point[along], point[what]) for point in series[-2:]]
            exponent = math.log(y1 / y0) / math.log(x1 / x0)
            found.append({"which": which, "part": part, "of": what, "against": along,
                          "exponent": round(exponent, 3)})  # fmt: skip
    return found


def _series(points: list[dict[str, Any]], panel: str, along: str) -> dict[tuple[str, str], Any]:
    """Points of a panel by line, in order; of memory those at the least of the other size."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    other = {"users": "items", "items": "users"}.get(along)
    mine = [point for point in points if point["panel"] == panel]
    for point in sorted(mine, key=lambda point: point[along]):
        if panel == "memory" and point[other] != min(p[other] for p in mine):
            continue
        found.setdefault((point["which"], point["part"]), []).append(point)
    return found


def pictured(points: list[dict[str, Any]]) -> Drawing:
    """Time and program against steps, time against users, memory against users and items."""
    panels = (
        ("steps", "steps", "processor", "seconds for 100 users", None),
        ("steps", "steps", "operations", "operations in the program", (10, 1e4)),
        ("users", "users", "processor", "seconds of an evaluation", None),
        ("memory", "users", "temporary_bytes", "bytes beside the arguments", (1e5, 1e11)),
        ("memory", "items", "temporary_bytes", "bytes beside the arguments", (1e5, 1e11)),
    )

    def draw(figure: Any) -> None:
        places = figure.subplots(2, 3).ravel()
        for axes, (panel, along, what, title, limits) in zip(places, panels, strict=False):
            for number, ((which, part), series) in enumerate(
                _shown(_series(points, panel, along), panel).items()
            ):
                x, y = np.array([(point[along], point[what]) for point in series]).T
                label = which if panel != "memory" or part == "train" else "lists, any of them"
                axes.plot(x, y, color=COLOURS[number % len(COLOURS)], marker="o", ms=3, label=label)
            axes.set(
                xscale="log", yscale="log", xlabel="reverse steps" if along == "steps" else along
            )
            axes.set_title(title, fontsize=9)
            if limits:
                axes.set_ylim(*limits)
            if along != "items":
                axes.legend(fontsize=7, frameon=False)
        places[-1].set_visible(False)

    return Drawing(draw, (9.0, 5.4), "cost against reverse steps, users and items")


def _shown(series: dict[tuple[str, str], Any], panel: str) -> dict[tuple[str, str], Any]:
    """Without samplers and lists of each system, but of one: they hold the same."""
    if panel != "memory":
        return series
    lists = next(key for key in series if key[1] == "rank")
    return {key: points for key, points in series.items() if key[1] == "train" or key == lists}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("panels", nargs="*", default=PANELS)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_args()
    path = RESULTS / "scaling.json"
    kept = json.loads(path.read_text()) if path.exists() else {"figures": []}
    about = {k: v for k, v in kept.items() if k not in ("growth", "figures")}
    points = kept["figures"]
    for panel in () if options.draw else options.panels:
        found, on = measured(panel)
        about = {"command": "python benchmarks/scaling.py", "seed": 0} | on
        points = [point for point in points if point["panel"] != panel] + found
    points.sort(key=lambda point: PANELS.index(point["panel"]))
    head = json.dumps(about, indent=1).removesuffix("\n}")
    rows = [",\n  ".join(map(json.dumps, part)) for part in (growth(points), points)]
    path.write_text(
        f'{head},\n "growth": [\n  {rows[0]}\n ],\n "figures": [\n  {rows[1]}\n ]\n}}\n'
    )
    (RESULTS / "scaling.svg").write_text(drawing.svg(pictured(points)) + "\n")


if __name__ == "__main__":
    main()
