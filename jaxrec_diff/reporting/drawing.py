"""What figures have in common: a style, colours that follow a page's light or dark, hover titles.

A figure is drawn by matplotlib (the extra `report`). Its SVG is set into a page as it is: colours
are variables of the page, with those of a light one where there is no page, and each `Tip` is an
invisible spot that says its text where a pointer rests on it.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, NamedTuple

import numpy as np

# Distinct in grey print too, and for the colour-blind (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SOFT, INK, TICKS, GRID = "#8c959f", "#1b1f24", "#57606a", "#e6e9ec"
CLOUD, PAPER = "#c8cdd3", "#ffffff"

_DARK = ("#4aa8e0", "#ff8a4c", "#3ccf9f", "#e39cc4", "#f2b84b", "#8fd0f7", "#f0f3f6")
_VARIABLES = {
    **{colour: f"c{number}" for number, colour in enumerate(COLOURS)},
    SOFT: "mark", INK: "ink", TICKS: "soft", GRID: "grid", CLOUD: "cloud", PAPER: "paper",
}  # fmt: skip

LIGHT_STYLE = "".join(
    f"--{name}: {colour}; " for colour, name in _VARIABLES.items() if name not in ("ink", "soft")
)
"""Variables of a style sheet, for figures in a light page; a page has its own ink."""

DARK_STYLE = "".join(f"--c{number}: {colour}; " for number, colour in enumerate(_DARK)) + (
    "--mark: #8b949e; --grid: #2d333b; --cloud: #4b535d; --paper: #0f1318; "
)
"""The same for a dark one."""

_NEAR = 6.0  # points: how near a pointer has to be
_MOST = 300  # spots of a line


class Tip(NamedTuple):
    """A text for a pointer at a place of a figure, in the units of its axes."""

    axes: Any
    x: float
    y: float
    text: str
    corner: tuple[float, float] | None = None  # of a bar, across from (x, y)


class Drawing(NamedTuple):
    """A figure that can be had as SVG or as PNG."""

    draw: Callable[[Any], Iterable[Tip] | None]
    size: tuple[float, float]  # inches
    label: str


def available() -> bool:
    """Whether matplotlib can be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def line_tips(axes: Any, name: str, x: np.ndarray, y: np.ndarray, across: str) -> list[Tip]:
    """A tip for each point of a line, or for some of very many."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST)).astype(int))
    return [
        Tip(axes, x[at], y[at], f"{name}: {y[at]:.4g} at {across} {x[at]:g}")
        for at in kept
        if np.isfinite(y[at])
    ]


def svg(drawing: Drawing) -> str:
    """A drawing to be set into a page, or into a file."""
    out = io.StringIO()
    with _drawn(drawing) as (figure, tips):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        spots = "".join(_spot(figure, drawing.size, tip) for tip in tips)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # names are unique in a page, not only in a figure
    prefix = re.sub(r"\W+", "-", drawing.label)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    for colour, name in _VARIABLES.items():
        text = text.replace(f": {colour.lower()}", f": var(--{name}, {colour.lower()})")
    text = text.replace("</svg>", f"{spots}</svg>")
    label = escape(drawing.label)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def png(drawing: Drawing) -> bytes:
    """A drawing as a picture of points."""
    out = io.BytesIO()
    with _drawn(drawing) as (figure, _):
        figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    return out.getvalue()


def _spot(figure: Any, size: tuple[float, float], tip: Tip) -> str:
    """An invisible mark with a title, in the points of the saved SVG."""

    def place(x: float, y: float) -> np.ndarray:
        share = figure.transFigure.inverted().transform(tip.axes.transData.transform((x, y)))
        return np.array([share[0], 1 - share[1]]) * np.array(size) * 72

    x, y = place(tip.x, tip.y)
    if tip.corner is None:
        shape = f'circle cx="{x:.1f}" cy="{y:.1f}" r="{_NEAR:g}"'
        name = "circle"
    else:
        (left, top), (right, bottom) = np.sort([(x, y), place(*tip.corner)], axis=0)
        shape = f'rect x="{left:.1f}" y="{top:.1f}" '
        shape += f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
        name = "rect"
    return f'<{shape} fill="none" pointer-events="all"><title>{escape(tip.text)}</title></{name}>'


@contextmanager
def _drawn(drawing: Drawing) -> Iterator[tuple[Any, list[Tip]]]:
    """A figure of matplotlib and its tips, in the style of all of them while it is saved."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",  # text stays text: small, and searchable
        "svg.hashsalt": drawing.label,
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "text.color": INK,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "xtick.color": TICKS,
        "ytick.color": TICKS,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=drawing.size, layout="constrained")
        tips = list(drawing.draw(figure) or ())
        yield figure, tips
