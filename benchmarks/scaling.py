"""How cost grows: with reverse steps, users and items, up to a million of either.

    python benchmarks/scaling.py            # measures, then writes scaling.json and scaling.svg
    python benchmarks/scaling.py --draw     # draws what scaling.json has

Points are those of `bin/benchmark`: processor seconds of samplers of 100 users against their steps
and of evaluations against users, operations of the compiled samplers, and bytes that compiled
programs hold beside their arguments (parameters, data and a batch), which are not run. Times are
the process's, so pin one thread:

    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
        taskset -c 0 python benchmarks/scaling.py
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.benchmarking import asks, measures
from jaxrec_diff.benchmarking.asks import Ask
from jaxrec_diff.reporting import drawing
from jaxrec_diff.reporting.drawing import COLOURS, Drawing

RESULTS = Path(__file__).parent / "results"
STEPS = {"dreamrec": (10, 50, 100, 500), "dimerec": (5, 10, 25, 50), "diffurec": (4, 8, 16, 32)}
USERS, MANY = "1000/4000/16000", "1000/10000/100000/1000000"
KEPT = (
    "part", "model", "sampler", "steps", "batch", "users", "items", "processor", "seconds",
    "flops", "operations", "argument_bytes", "temporary_bytes", "load",
)  # fmt: skip


def questions() -> Iterator[tuple[str, Ask]]:
    """What is measured, by the panel that shows it."""
    for name, steps in STEPS.items():
        yield "steps", Ask(
            "sampler", (name,), shapes=asks.shapes_from("users:200,items:1000,len:10"),
            batches=(100,), samplers=("ddpm",), steps=steps,
            flags=(f"--model.num-steps={steps[-1]}",),
        )  # fmt: skip
    for name in ("sasrec", "dimerec", "dreamrec"):
        shapes = asks.shapes_from(f"users:{USERS},items:1000,len:10")
        yield "users", Ask("evaluate", (name,), shapes=shapes, batches=(256,), repeats=3)
    for name in ("sasrec", "dimerec"):
        for shape in (f"users:{MANY},items:1000,len:20", f"users:1000,items:{MANY},len:20"):
            sizes = asks.shapes_from(shape)
            yield "memory", Ask("memory", (name,), shapes=sizes, batches=(256,))


def measured() -> list[dict[str, Any]]:
    points, about = [], {}
    for panel, ask in questions():
        for line in measures.lines(ask, "", lambda text: print(text, file=sys.stderr)):
            about = {k: line[k] for k in ("device", "machine", "versions", "commit", "clock")}
            points.append({"panel": panel} | {k: line[k] for k in KEPT if k in line})
            print(json.dumps(points[-1]), flush=True)
    command = "python benchmarks/scaling.py"
    head = {"command": command, "seed": 0} | about
    text = json.dumps(head, indent=1).removesuffix("\n}")
    rows = ",\n  ".join(map(json.dumps, points))
    (RESULTS / "scaling.json").write_text(f'{text},\n "figures": [\n  {rows}\n ]\n}}\n')
    return points


def pictured(points: list[dict[str, Any]]) -> Drawing:
    """Time and program against steps, time against users, memory against users and items."""

    def lines(axes: Any, found: list[dict[str, Any]], along: str, what: str, name=_model) -> None:
        named: dict[str, list[tuple[float, float]]] = {}
        for point in found:
            named.setdefault(name(point), []).append((point[along], point[what]))
        for number, (label, at) in enumerate(named.items()):
            x, y = np.array(sorted(at)).T
            axes.plot(x, y, color=COLOURS[number % len(COLOURS)], marker="o", ms=3, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.legend(fontsize=7, frameon=False)

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 3)
        panels = iter([*upper, *lower])
        steps = [p for p in points if p["panel"] == "steps"]
        for what, title in (
            ("processor", "seconds for 100 users"), ("flops", "operations run"),
            ("operations", "operations of the program"),
        ):  # fmt: skip
            axes = next(panels)
            lines(axes, steps, "steps", what)
            axes.set_xlabel("reverse steps")
            axes.set_title(title, fontsize=9)
            if what == "operations":
                axes.set_ylim(10, 1e4)
        axes = next(panels)
        lines(axes, [p for p in points if p["panel"] == "users"], "users", "processor")
        axes.set_xlabel("users")
        axes.set_title("seconds of an evaluation", fontsize=9)
        held = [p for p in points if p["panel"] == "memory" and p["part"] != "sampler"]
        for along, other in (("users", "items"), ("items", "users")):
            axes = next(panels)
            some = [p for p in held if p[other] == 1000]
            lines(axes, some, along, "temporary_bytes", lambda p: f"{p['model']}, {p['part']}")
            axes.set_xlabel(along)
            axes.set_title("bytes beside the arguments", fontsize=9)
            axes.set_ylim(1e6, 1e10)

    return Drawing(draw, (9.0, 5.4), "cost against reverse steps, users and items")


def _model(point: dict[str, Any]) -> str:
    return point["model"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.draw:
        points = json.loads((RESULTS / "scaling.json").read_text())["figures"]
    else:
        points = measured()
    (RESULTS / "scaling.svg").write_text(drawing.svg(pictured(points)) + "\n")


if __name__ == "__main__":
    main()
