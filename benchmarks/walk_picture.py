"""A reverse walk as a picture: where some users' points are among the items, from noise to the end.

bin/train --model=dimerec
python benchmarks/walk_picture.py runs/dimerec-synthetic benchmarks/results/walk.svg
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pictures

from jaxrec_diff.experiments import restore
from jaxrec_diff.reporting import run_model
from jaxrec_diff.reporting.drawing import CLOUD, COLOURS, Drawing


def main(workdir: Path, output: Path) -> None:
    restored = restore.honest(restore.restore(restore.reopen(workdir), workdir))
    found = run_model.walk(restored)
    if found is None or not found.same:
        raise SystemExit(f"{workdir} holds a model whose walks do not end among its items")
    output.write_text(pictured(found))
    print(f"written {output}")


def pictured(found: run_model.Walk) -> str:
    """The walks at a few of their steps, as SVG."""
    items = run_model.scaled(found)
    centre, plane, _ = run_model.main_plane(found.points[-1])  # in which the ends differ most
    cloud = (items - centre) @ plane
    points = (found.points - centre) @ plane
    ranks = run_model.true_ranks(found.points, found.table, found.bias, found.answers)
    last = len(points) - 1
    shown = np.unique(np.maximum([0, last - 3, last - 1, last], 0))
    every = np.concatenate([cloud, *points[shown]])
    low, high = every.min(axis=0), every.max(axis=0)

    def draw(figure: Any) -> None:
        for axes, step in zip(figure.subplots(1, len(shown)), map(int, shown), strict=True):
            dots(axes, cloud, CLOUD, 1.8)
            dots(axes, points[step], COLOURS[0], 3.0)
            left = last - step
            axes.set_title(f"{left} step{'s' * (left != 1)} left", fontsize=9)
            rank = np.median(ranks[step])
            axes.set_xlabel(f"true item: no. {rank:.0f} of {len(cloud)}", fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlim(low[0] - 0.03, high[0] + 0.03)
            axes.set_ylim(low[1] - 0.03, high[1] + 0.03)

    return pictures.alone(Drawing(draw, (8.4, 2.5), "a reverse walk from noise to an item"))


def dots(axes: Any, places: np.ndarray, colour: str, size: float) -> None:
    """Round dots as one path of lines without length, which is a small file."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    codes = np.tile([Outline.MOVETO, Outline.LINETO], len(places))
    outline = Outline(np.repeat(places, 2, axis=0), codes)
    outline.should_simplify = False
    axes.add_patch(PathPatch(outline, ec=colour, fc="none", lw=size, capstyle="round"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
