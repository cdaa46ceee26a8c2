"""How cost grows: with reverse steps, users and items, up to a million of either.

    python benchmarks/scaling.py            # times, then memory, which no time depends on
    python benchmarks/scaling.py memory     # one panel again (steps, users or memory)
    python benchmarks/scaling.py --draw     # draws what the file has

Writes `results/scaling.json`, a line a point, and `results/scaling.svg`. Points are those of
`bin/benchmark`: processor seconds of samplers of 100 users and the size of their programs against
reverse steps, seconds of a whole evaluation against users, and bytes that compiled programs hold
beside their arguments (parameters, optimizer, data, a batch) against users and items; those
programs are not run. `growth` has the straight line through the last two points of each: what a
step, user or item adds (`each`) and the share of the last point that it makes (`growing`): 0 is
flat, 1 proportional. Times are the process's, so pin one thread:

    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
        taskset -c 0 python benchmarks/scaling.py
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pictures

from jaxrec_diff.benchmarking import asks, measures
from jaxrec_diff.benchmarking.asks import Ask
from jaxrec_diff.reporting.drawing import COLOURS, SOFT, Drawing

RESULTS = Path(__file__).parent / "results"
ONE_THREAD = (
    'XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" taskset -c 1'
)
PANELS = ("steps", "users", "memory")
STEPS = {"dreamrec": (10, 50, 100, 500), "dimerec": (5, 10, 25, 50), "diffurec": (4, 8, 16, 32)}
USERS, MANY = "1000/4000/16000", "30000/1000000"
# The three ways to learn a table, by what an update holds for every item of the catalogue.
NEGATIVES = ("--model.negatives=uniform",)
LEARNED = {
    "drawn negatives, lazy Adam": ("dimerec", (*NEGATIVES, "--train.optimizer=lazy_adam")),
    "drawn negatives, Adam": ("dimerec", (*NEGATIVES, "--train.optimizer=adam")),
    "softmax over all items": ("diffurec", ("--data.buckets=20",)),
}
# Whose lists are drawn too. Rows of length 1 are made in the program, a copy of the table.
LISTS = {
    "drawn negatives, lazy Adam": "lists, by cosine",
    "softmax over all items": "lists, by inner product",
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
        for shape in (f"users:1000/{MANY},items:1000,len:20", f"users:1000,items:{MANY},len:20"):
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
    """The straight line through the last two points of each line of the panels."""
    found = []
    for panel, along, what in (
        ("steps", "steps", "processor"), ("steps", "steps", "flops"),
        ("steps", "steps", "operations"), ("users", "users", "processor"),
        ("memory", "users", "temporary_bytes"), ("memory", "items", "temporary_bytes"),
    ):  # fmt: skip
        for (which, part), series in _series(points, panel, along).items():
            (x0, y0), (x1, y1) = [(point[along], point[what]) for point in series[-2:]]
            each = (y1 - y0) / (x1 - x0)
            found.append({
                "which": which, "part": part, "of": what, "against": along,
                "each": float(f"{each:.4g}"), "growing": round(each * x1 / y1, 3) + 0.0,
            })  # fmt: skip
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

    def draw(figure: Any) -> None:
        (time, program, users), (by_users, by_items, last) = figure.subplots(2, 3)
        for number, (key, found) in enumerate(_series(points, "steps", "steps").items()):
            x, y = _columns(found, "steps", "processor")
            label = f"{key[0]}: {x[-1]:.0f} steps, {1000 * y[-1]:.1f} ms"
            _line(time, number, x / x[-1], y / y[-1], label)
            _line(program, number, x, [p["operations"] for p in found], key[0])
        time.set(title="time for 100 users, of that by all steps", xlabel="share of the steps")
        program.set(title="operations in the program", xlabel="reverse steps", xscale="log")
        program.set_ylim(0, 200)
        for number, (key, found) in enumerate(_series(points, "users", "users").items()):
            _line(users, number, *_columns(found, "users", "processor"), key[0])
        users.set(title="seconds of an evaluation", xlabel="users")
        for axes in (time, users):
            axes.set(xlim=(0, None), ylim=(0, None))
        for axes in (time, program, users):
            axes.legend(fontsize=7)
        for axes, along in ((by_users, "users"), (by_items, "items")):
            shown = _shown(_series(points, "memory", along))
            for number, (label, found) in enumerate(shown.items()):
                x, y = _columns(found, along, "temporary_bytes")
                _line(axes, number, x, y / 1e6, label)
            x, y = _columns(next(iter(shown.values())), along, "argument_bytes")
            axes.plot(x, y / 1e6, "--", color=SOFT, label="arguments of an update")
            axes.set(title="MB beside the arguments", xlabel=along, xscale="log", yscale="log")
            axes.set_ylim(1, 2e3)
        last.axis("off")
        last.legend(*by_items.get_legend_handles_labels(), fontsize=7, loc="center")
        for axes in figure.axes:
            axes.title.set_fontsize(9)
            axes.minorticks_off()

    return Drawing(draw, (9.0, 5.4), "how cost grows")


def _columns(found: list[dict[str, Any]], *names: str) -> np.ndarray:
    return np.array([[point[name] for point in found] for name in names], float)


def _line(axes: Any, number: int, x: Any, y: Any, label: str) -> None:
    axes.plot(x, y, color=COLOURS[number], marker="o", ms=3, label=label)


def _shown(series: dict[tuple[str, str], Any]) -> dict[str, Any]:
    """Lines of memory by their label: updates, and the lists of `LISTS`."""
    updates = {f"updates, {which}": found for (which, part), found in series.items()
               if part == "train"}  # fmt: skip
    lists = {LISTS[which]: found for (which, part), found in series.items()
             if part == "rank" and which in LISTS}  # fmt: skip
    return updates | lists


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
        about = {"command": f"{ONE_THREAD} python benchmarks/scaling.py", "seed": 0} | on
        points = [point for point in points if point["panel"] != panel] + found
    points.sort(key=lambda point: PANELS.index(point["panel"]))
    head = json.dumps(about, indent=1).removesuffix("\n}")
    rows = [",\n  ".join(map(json.dumps, part)) for part in (growth(points), points)]
    path.write_text(
        f'{head},\n "growth": [\n  {rows[0]}\n ],\n "figures": [\n  {rows[1]}\n ]\n}}\n'
    )
    (RESULTS / "scaling.svg").write_text(pictures.alone(pictured(points)))


if __name__ == "__main__":
    main()
