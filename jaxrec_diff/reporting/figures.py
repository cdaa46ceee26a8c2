"""Arrays to figures, through matplotlib (the extra `report`); most to SVG, for a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrec_diff.reporting.drawing import (
    CLOUD,
    COLOURS,
    INK,
    PAPER,
    SOFT,
    Drawing,
    Tip,
    line_tips,
    svg,
)

_STYLES, _MARKS = ("-", "--", ":", "-."), ("o", "s", "^", "D")
_COUNTED = ("epoch", "reverse steps taken", "time step")  # axes of whole numbers
_SHADES = (0.4, 0.55, 0.75, 1.0)


def curves(
    what: str,
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    across: str,
    mark: float | None = None,
    levels: Mapping[str, float] | None = None,
) -> str:
    """Lines, name -> (x, y).

    Args:
      what: the title.
      lines: name -> (x, y).
      across: what x is.
      mark: a place to point out.
      levels: name -> a height that does not change along x.
    """

    def draw(figure: Any) -> list[Tip]:
        axes, tips = figure.add_subplot(), []
        for colour, (name, (x, y)) in zip(COLOURS, lines.items(), strict=False):
            axes.plot(x, y, color=colour, label=name, marker="o" if len(x) < 20 else None, ms=3)
            tips += line_tips(axes, name, x, y, across)
        for style, (name, height) in zip(("--", ":", "-."), (levels or {}).items(), strict=False):
            axes.axhline(height, color=SOFT, lw=1.1, ls=style, label=name)
        if mark is not None:
            axes.axvline(mark, color=SOFT, lw=0.8, ls="--")
        if across in _COUNTED:
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel(across)
        axes.set_title(what)
        count = len(lines) + len(levels or {})
        if count > 1:
            figure.legend(loc="outside upper center", ncols=min(count, 4))
        return tips

    return svg(Drawing(draw, (4.2, 2.9), what))


def intervals(
    names: Sequence[str],
    means: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    what: str,
    bold: Sequence[bool] | None = None,
) -> str:
    """A dot and its interval for each name, top to bottom; the first is set off, or those that are
    `bold`."""

    def draw(figure: Any) -> list[Tip]:
        axes, tips = figure.add_subplot(), []
        place = np.arange(len(names))[::-1]
        for i, (at, mean, a, b) in enumerate(zip(place, means, low, high, strict=True)):
            colour = COLOURS[0] if (bold[i] if bold is not None else i == 0) else SOFT
            axes.plot([a, b], [at, at], color=colour, lw=2.5, alpha=0.5, solid_capstyle="butt")
            axes.plot(mean, at, "o", color=colour)
            tips.append(Tip(axes, mean, at, f"{names[i]}: {mean:.4f}, 95 % {a:.4f} to {b:.4f}"))
        axes.set_yticks(place, names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel(what)
        axes.grid(axis="y", visible=False)
        return tips

    return svg(Drawing(draw, (5.2, 0.6 + 0.36 * len(names)), f"{what} with 95 % intervals"))


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

    def draw(figure: Any) -> list[Tip]:
        axes = figure.add_subplot()
        axes.fill_between(x, low, high, color=COLOURS[0], alpha=0.15, lw=0)
        axes.plot(x, mean, "o-", color=COLOURS[0], ms=4)
        if own is not None:
            axes.axvline(own, color=SOFT, lw=0.8, ls="--")
        if level is not None:
            axes.axhline(level, color=SOFT, lw=0.8, ls="--")
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
        axes.set_xlabel("reverse steps")
        axes.set_ylabel(what)
        return [
            Tip(axes, at, m, f"{at:g} steps: {what} {m:.4f}, 95 % {a:.4f} to {b:.4f}")
            for at, m, a, b in zip(x, mean, low, high, strict=True)
        ]

    return svg(Drawing(draw, (5.0, 2.9), f"{what} against reverse steps"))


def bars(
    heading: str,
    groups: Sequence[str],
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    what: str,
    grey: Sequence[str] = ("popularity",),
) -> str:
    """Bars beside each other in each group: name -> (means, half widths of their intervals)."""

    def draw(figure: Any) -> list[Tip]:
        axes, tips = figure.add_subplot(), []
        width = 0.8 / len(series)
        colours = iter(COLOURS * 9)
        for i, (name, (means, half)) in enumerate(series.items()):
            at = np.arange(len(groups)) - 0.4 + width * (i + 0.5)
            colour = SOFT if name in grey else next(colours)
            axes.bar(at, means, 0.92 * width, color=colour, label=name)
            axes.errorbar(at, means, half, fmt="none", ecolor=INK, elinewidth=0.8)
            for x, group, mean, part in zip(at, groups, means, half, strict=True):
                text = f"{name}, {heading} {group}: {what} {mean:.4f} ± {part:.4f}"
                edge = 0.46 * width
                tips.append(Tip(axes, x - edge, 0.0, text, (x + edge, mean)))
        axes.set_xticks(np.arange(len(groups)), groups)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(heading)
        axes.set_ylabel(what)
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside upper center", ncols=min(len(series), 3))
        return tips

    return svg(Drawing(draw, (4.2, 3.0), f"{what} by {heading}"))


def paths(cloud: np.ndarray | None, walks: np.ndarray, *, heading: str) -> str:
    """Walks f[N, B, 2] from a dot to a star over a cloud of points f[I, 2]."""

    def draw(figure: Any) -> list[Tip]:
        axes, tips = figure.add_subplot(), []
        if cloud is not None:
            axes.plot(*cloud.T, ".", color=CLOUD, ms=3, label="items", zorder=1)
        for user in range(walks.shape[1]):
            colour = COLOURS[user % len(COLOURS)]
            walk = walks[:, user]
            axes.plot(*walk.T, color=colour, lw=0.9, alpha=0.8, zorder=2)
            axes.plot(*walk[0], "o", color=colour, ms=4, mfc=PAPER, zorder=3)
            axes.plot(*walk[-1], "*", color=colour, ms=11, zorder=4)
            for step, (x, y) in enumerate(walk):
                tips.append(Tip(axes, x, y, f"user {user + 1} after {step} of {len(walk) - 1}"))
        axes.plot([], [], "o", color=SOFT, mfc=PAPER, label="start: noise")
        axes.plot([], [], "*", color=SOFT, ms=9, label="end: what is recommended from")
        axes.legend(loc="best")
        axes.set_title(heading)
        axes.set_xlabel("first direction")
        axes.set_ylabel("second direction")
        return tips

    return svg(Drawing(draw, (5.2, 3.9), heading))


def item_map(
    points: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    said: Mapping[int, str],
    *,
    heading: str,
) -> str:
    """Items f[I, 2], darker the higher their group i[I] is.

    Args:
      points: of all items.
      groups: of each, from 0.
      names: of the groups.
      said: what a pointer is told of some items, by their row.
      heading: the title.
    """

    def draw(figure: Any) -> list[Tip]:
        axes = figure.add_subplot()
        for group, name in enumerate(names):
            part, shade = points[groups == group], _SHADES[group + len(_SHADES) - len(names)]
            axes.plot(
                *part.T, ".", color=COLOURS[0], alpha=shade, ms=2.5 + 4 * shade, label=name, mew=0
            )
        figure.legend(loc="outside upper center", ncols=len(names), markerscale=1.6)
        axes.set_title(heading)
        axes.set_xlabel("first direction")
        axes.set_ylabel("second direction")
        return [Tip(axes, points[row, 0], points[row, 1], text) for row, text in said.items()]

    return svg(Drawing(draw, (4.4, 3.3), heading))


def lorenz(shares: Mapping[str, np.ndarray], *, heading: str) -> str:
    """How unequally things are shared out: name -> what each has, in any order.

    Lorenz 1905, doi:10.2307/2276207: the share of the whole that the least shown x % have.
    """

    def draw(figure: Any) -> list[Tip]:
        axes, tips = figure.add_subplot(), []
        for colour, (name, each) in zip((*COLOURS[:1], SOFT), shares.items(), strict=False):
            running = np.append(0.0, np.cumsum(np.sort(each.astype(np.float64))))
            y = running / max(running[-1], 1e-300)
            x = np.linspace(0, 1, len(y))
            axes.plot(x, y, color=colour, label=name)
            for at in np.linspace(0, len(x) - 1, 11).astype(int)[1:-1]:
                tips.append(Tip(axes, x[at], y[at], f"{name}: {x[at]:.0%} have {y[at]:.1%}"))
        axes.plot([0, 1], [0, 1], color=SOFT, lw=0.8, ls="--", label="all alike")
        axes.set_xlabel("share of items, the least shown first")
        axes.set_title(heading)
        figure.legend(loc="outside upper center", ncols=3)
        return tips

    return svg(Drawing(draw, (4.2, 3.3), heading))


def scatter(points: Mapping[str, tuple[float, float, float]], *, across: str, what: str) -> str:
    """Named points (x, y, half of y's interval) on a logarithmic x."""

    from matplotlib.ticker import MaxNLocator

    def draw(figure: Any) -> list[Tip]:
        axes, tips = figure.add_subplot(), []
        for number, (name, (x, y, half)) in enumerate(points.items()):
            colour, mark = COLOURS[number % len(COLOURS)], _MARKS[number // len(COLOURS) % 4]
            axes.errorbar(x, y, half, fmt=mark, color=colour, label=name, ms=5, elinewidth=0.9)
            tips.append(Tip(axes, x, y, f"{name}: {what} {y:.4f}, {across} {x:,.3g}"))
        axes.set_xscale("log", subs=[])
        low, high = axes.get_xlim()
        if high < 5 * low:  # two of 1, 2, 5 need not lie there
            axes.xaxis.set_major_locator(MaxNLocator(4))
        elif high < 200 * low:
            axes.xaxis.get_major_locator().set_params(subs=(1.0, 2.0, 5.0))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set_xlabel(across)
        axes.set_ylabel(what)
        figure.legend(loc="outside right upper")
        return tips

    return svg(Drawing(draw, (5.2, 3.0), f"{what} against {across}"))


def scaling(
    what: str, lines: Mapping[str, tuple[np.ndarray, np.ndarray]], *, across: str
) -> Drawing:
    """Lines on logarithmic axes, name -> (x, y)."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for number, (name, (x, y)) in enumerate(lines.items()):
            colour, style = COLOURS[number % len(COLOURS)], _STYLES[number // len(COLOURS) % 4]
            axes.plot(x, y, style, color=colour, label=name, marker="o", ms=3)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(across)
        axes.set_ylabel(what)
        figure.legend(loc="outside right upper")

    return Drawing(draw, (6.5, 3.4), f"{what} against {across}")


def roofline(
    points: Mapping[str, Sequence[tuple[float, float]]], peak_flops: float, peak_bytes: float
) -> Drawing:
    """Operations a second against operations a byte, name -> its points (intensity, attained),
    under what the machine can do: Williams et al. 2009, doi:10.1145/1498765.1498785."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        ridge = peak_flops / peak_bytes
        every = [intensity for each in points.values() for intensity, _ in each]
        x = np.geomspace(min(*every, ridge) / 2, max(*every, ridge) * 2, 200)
        axes.plot(x, np.minimum(x * peak_bytes, peak_flops), color=SOFT)
        for number, (name, at) in enumerate(points.items()):
            mark = _MARKS[number // len(COLOURS) % len(_MARKS)]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(*zip(*at, strict=True), mark, color=colour, label=name, ms=5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("operations a byte")
        axes.set_ylabel("operations a second")
        figure.legend(loc="outside right upper")

    return Drawing(draw, (6.5, 3.6), "roofline")
