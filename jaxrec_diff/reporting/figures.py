"""Arrays to SVG, through matplotlib (the extra `report`), to be set into a page as they are."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

# Distinct in grey print too, and for the colour-blind (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_SOFT = "#8c959f"
_STYLES, _MARKS = ("-", "--", ":", "-."), ("o", "s", "^", "D")


class Drawing(NamedTuple):
    """A figure that can be had as SVG or as PNG."""

    draw: Callable[[Any], None]
    size: tuple[float, float]  # inches
    label: str


def available() -> bool:
    """Whether matplotlib can be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def curves(
    what: str,
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    across: str,
    mark: float | None = None,
) -> str:
    """Lines, name -> (x, y); `mark` is a place to point out."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for colour, (name, (x, y)) in zip(_COLOURS, lines.items(), strict=False):
            axes.plot(x, y, color=colour, label=name, marker="o" if len(x) < 20 else None, ms=3)
        if mark is not None:
            axes.axvline(mark, color=_SOFT, lw=0.8, ls="--")
        axes.set_xlabel(across)
        axes.set_title(what)
        if len(lines) > 1:
            figure.legend(loc="outside upper center", ncols=len(lines))

    return _svg(draw, (4.2, 2.9), what)


def intervals(
    names: Sequence[str], means: np.ndarray, low: np.ndarray, high: np.ndarray, *, what: str
) -> str:
    """A dot and its interval for each name, top to bottom; the first is set off."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        place = np.arange(len(names))[::-1]
        for at, mean, a, b in zip(place, means, low, high, strict=True):
            colour = _COLOURS[0] if at == len(names) - 1 else _SOFT
            axes.plot([a, b], [at, at], color=colour, lw=2.5, alpha=0.5, solid_capstyle="butt")
            axes.plot(mean, at, "o", color=colour)
        axes.set_yticks(place, names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel(what)
        axes.grid(axis="y", visible=False)

    return _svg(draw, (6.5, 0.6 + 0.36 * len(names)), f"{what} with 95 % intervals")


def steps(
    x: np.ndarray,
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    what: str,
    own: float | None,
    level: float | None = None,
) -> str:
    """Quality against the number of reverse steps, with its interval; `own` is the run's number,
    `level` its quality where its sampler has no steps."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.fill_between(x, low, high, color=_COLOURS[0], alpha=0.15, lw=0)
        axes.plot(x, mean, "o-", color=_COLOURS[0], ms=4)
        if own is not None:
            axes.axvline(own, color=_SOFT, lw=0.8, ls="--")
        if level is not None:
            axes.axhline(level, color=_SOFT, lw=0.8, ls="--")
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
        axes.set_xlabel("reverse steps")
        axes.set_ylabel(what)

    return _svg(draw, (6.0, 3.0), f"{what} against reverse steps")


def bars(
    heading: str,
    groups: Sequence[str],
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    what: str,
) -> str:
    """Bars beside each other in each group: name -> (means, half widths of their intervals)."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        width = 0.8 / len(series)
        for i, (name, (means, half)) in enumerate(series.items()):
            at = np.arange(len(groups)) - 0.4 + width * (i + 0.5)
            axes.bar(at, means, 0.92 * width, color=_SOFT if i else _COLOURS[0], label=name)
            axes.errorbar(at, means, half, fmt="none", ecolor="#1b1f24", elinewidth=0.8)
        axes.set_xticks(np.arange(len(groups)), groups)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(heading)
        axes.set_ylabel(what)
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside upper center", ncols=len(series))

    return _svg(draw, (4.2, 3.0), f"{what} by {heading}")


def paths(cloud: np.ndarray | None, walks: np.ndarray, *, heading: str) -> str:
    """Walks f[N, B, 2] from a dot to a star over a cloud of points f[I, 2]."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        if cloud is not None:
            axes.plot(*cloud.T, ".", color="#c8cdd3", ms=3, label="items", zorder=1)
        for user in range(walks.shape[1]):
            colour = _COLOURS[user % len(_COLOURS)]
            walk = walks[:, user]
            axes.plot(*walk.T, color=colour, lw=0.9, alpha=0.8, zorder=2)
            axes.plot(*walk[0], "o", color=colour, ms=4, mfc="white", zorder=3)
            axes.plot(*walk[-1], "*", color=colour, ms=11, zorder=4)
        axes.plot([], [], "o", color=_SOFT, mfc="white", label="start: noise")
        axes.plot([], [], "*", color=_SOFT, ms=9, label="end: what is recommended from")
        axes.legend(loc="best")
        axes.set_title(heading)
        axes.set_xlabel("first direction")
        axes.set_ylabel("second direction")

    return _svg(draw, (6.5, 4.2), heading)


def scaling(
    what: str, lines: Mapping[str, tuple[np.ndarray, np.ndarray]], *, across: str
) -> Drawing:
    """Lines on logarithmic axes, name -> (x, y)."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for number, (name, (x, y)) in enumerate(lines.items()):
            colour, style = _COLOURS[number % len(_COLOURS)], _STYLES[number // len(_COLOURS) % 4]
            axes.plot(x, y, style, color=colour, label=name, marker="o", ms=3)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(across)
        axes.set_ylabel(what)
        figure.legend(loc="outside right upper")

    return Drawing(draw, (6.5, 3.4), f"{what} against {across}")


def roofline(
    points: Mapping[str, tuple[float, float]], peak_flops: float, peak_bytes: float
) -> Drawing:
    """Operations a second against operations a byte, name -> (intensity, attained), under what the
    machine can do: Williams et al. 2009, doi:10.1145/1498765.1498785."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        ridge = peak_flops / peak_bytes
        every = [intensity for intensity, _ in points.values()]
        x = np.geomspace(min(*every, ridge) / 2, max(*every, ridge) * 2, 200)
        axes.plot(x, np.minimum(x * peak_bytes, peak_flops), color=_SOFT)
        for number, (name, at) in enumerate(points.items()):
            mark = _MARKS[number // len(_COLOURS) % len(_MARKS)]
            axes.plot(*at, mark, color=_COLOURS[number % len(_COLOURS)], label=name, ms=5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("operations a byte")
        axes.set_ylabel("operations a second")
        figure.legend(loc="outside right upper")

    return Drawing(draw, (6.5, 3.6), "roofline")


def svg(drawing: Drawing) -> str:
    """A drawing to be set into a page, or into a file."""
    return _svg(*drawing)


def png(drawing: Drawing) -> bytes:
    """A drawing as a picture of points."""
    out = io.BytesIO()
    with _drawn(*drawing) as figure:
        figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    return out.getvalue()


def _svg(draw: Callable[[Any], None], size: tuple[float, float], label: str) -> str:
    out = io.StringIO()
    with _drawn(draw, size, label) as figure:
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # names are unique in a page, not only in a figure
    prefix = re.sub(r"\W+", "-", label)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


@contextmanager
def _drawn(draw: Callable[[Any], None], size: tuple[float, float], label: str) -> Iterator[Any]:
    """A figure of matplotlib, in the style of all of them while it is saved."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",  # text stays text: small, and searchable
        "svg.hashsalt": label,
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _SOFT,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e6e9ec",
        "legend.frameon": False,
        "legend.fontsize": 8,
        "xtick.color": "#57606a",
        "ytick.color": "#57606a",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        yield figure
