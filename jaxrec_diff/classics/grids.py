"""The classics by name, and the settings that each is tuned over.

A method whose grid is larger than the trials it is given draws that many settings of it, the same
ones every time, so that all methods can have an equal budget.
"""

import difflib
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.classics import ease, graph_filter, ials, similarity, slim
from jaxrec_diff.classics.scores import Score
from jaxrec_diff.classics.similarity import ALL, Kernel
from jaxrec_diff.ops.graph import Rows

Setting = dict[str, float]
_FEW, _MANY = (ALL, 100), (20, 50, 100, 200, 500, ALL)


class Candidate(NamedTuple):
    """A setting of a grid; `fit` works its weights out, which nothing else holds."""

    setting: Setting
    fit: Callable[[], Score]


class Classic(NamedTuple):
    """A method and its grid: every combination of the axes."""

    axes: dict[str, tuple[float, ...]]
    fits: Callable[[Rows, int, list[Setting]], Iterator[Candidate]]


def names() -> tuple[str, ...]:
    """All methods."""
    return tuple(CLASSICS)


def check(name: str, num_items: int) -> None:
    """Refuses a method that is not there, or a catalogue whose matrix would not fit.

    Raises:
      ValueError: naming the nearest method, or the sizes.
    """
    if name not in CLASSICS:
        near = difflib.get_close_matches(name, CLASSICS, 1, 0.0)[0]
        raise ValueError(f"no classic is called {name!r}; did you mean {near!r}?")
    if name in ("ease", "edlae") and num_items > ease.MOST_ITEMS:
        raise ValueError(
            f"eval.controls={name} inverts a matrix of {num_items} x {num_items} items in "
            f"{ease.bytes_at_most(num_items) / 1e9:.1f} GB and takes at most {ease.MOST_ITEMS} "
            f"items in {ease.bytes_at_most(ease.MOST_ITEMS) / 1e9:.1f} GB; take slim or item_knn"
        )


def settings(name: str, trials: int) -> list[Setting]:
    """The settings that a method is tuned over, at most `trials` of them, in the grid's order."""
    axes = CLASSICS[name].axes
    grid = [
        dict(zip(axes, values, strict=True))
        for values in itertools.product(*axes.values())
        if _differs(name, dict(zip(axes, values, strict=True)))
    ]
    if trials < 1:
        raise ValueError(f"a method needs at least 1 trial, got {trials}")
    if len(grid) <= trials:
        return grid
    drawn = np.random.default_rng(0).choice(len(grid), trials, replace=False)
    return [grid[place] for place in sorted(drawn)]


def candidates(name: str, sets: Rows, num_items: int, trials: int) -> Iterator[Candidate]:
    """A method under the settings of its grid.

    Args:
      name: see `names`.
      sets: training rows, see `graph.item_sets`.
      num_items: I.
      trials: settings at most.
    """
    return CLASSICS[name].fits(sets, num_items, settings(name, trials))


def at_edge(name: str, setting: Setting) -> list[str]:
    """The axes on whose border a setting lies, beyond which a better one may be.

    What has no beyond is no border: all neighbours, no shrinkage, a filter without its ideal part.
    """
    return [
        axis
        for axis, values in CLASSICS[name].axes.items()
        if len(values) > 1 and setting[axis] != 0 and setting[axis] in (min(values), max(values))
        and not (axis == "neighbours" and ALL in values and setting[axis] == max(values))
    ]  # fmt: skip


def _differs(name: str, setting: Setting) -> bool:
    """Whether no earlier setting of the grid is the same method."""
    return name != "gfcf" or setting["strength"] > 0 or setting["vectors"] == GFCF_VECTORS[0]


def _neighbourhoods(
    kernel: Callable[[Setting], Kernel], sets: Rows, num_items: int, of: list[Setting]
) -> Iterator[Candidate]:
    """Settings of one kernel share its lists, the longest that any of them wants."""
    for shape, group in itertools.groupby(of, kernel):
        wanted = list(group)
        counts = [int(setting["neighbours"]) for setting in wanted]
        most = ALL if ALL in counts else max(counts) + 1
        alike = similarity.most_alike(sets, num_items, shape, most)
        for setting, count in zip(wanted, counts, strict=True):
            yield Candidate(setting, partial(_near, alike, count))


def _near(alike: similarity.Alike, count: int) -> Score:
    from jaxrec_diff.classics import scores

    return scores.of_weights(similarity.weights(similarity.cut(alike, count)))


def _ease(sets: Rows, num_items: int, of: list[Setting]) -> Iterator[Candidate]:
    for setting in of:
        yield Candidate(setting, partial(ease.fit, sets, num_items, **setting))


def _slim(sets: Rows, num_items: int, of: list[Setting]) -> Iterator[Candidate]:
    shared = slim.shared(sets, num_items)
    for setting in of:
        yield Candidate(setting, partial(slim.fit, shared, **setting))


def _gfcf(sets: Rows, num_items: int, of: list[Setting]) -> Iterator[Candidate]:
    found = graph_filter.spectrum(sets, num_items, max(int(each["vectors"]) for each in of))
    for setting in of:
        yield Candidate(
            setting, partial(graph_filter.fit, found, int(setting["vectors"]), setting["strength"])
        )


def _ials(sets: Rows, num_items: int, of: list[Setting]) -> Iterator[Candidate]:
    for setting in of:

        def fit(setting=setting):
            found = ials.items(
                sets, num_items, width=int(setting["width"]), unobserved=setting["unobserved"],
                regularisation=setting["regularisation"],
            )  # fmt: skip
            return ials.score_by(found, setting["unobserved"], setting["regularisation"])

        yield Candidate(setting, fit)


def _near_by(kernel: Callable[[Setting], Kernel]) -> Any:
    return partial(_neighbourhoods, kernel)


GFCF_VECTORS = (32, 64, 128, 256, 512)
_SHRINK = (0.0, 10.0, 50.0, 100.0)

CLASSICS: dict[str, Classic] = {
    "item_knn": Classic(
        {"shrink": _SHRINK, "neighbours": _MANY},
        _near_by(lambda s: Kernel(shrink=s["shrink"])),
    ),
    "asymmetric": Classic(
        {"p": (0.2, 0.4, 0.6, 0.8), "shrink": (0.0, 10.0, 100.0), "neighbours": _FEW},
        _near_by(lambda s: Kernel(p=s["p"], r=1 - s["p"], shrink=s["shrink"])),
    ),
    "jaccard": Classic(
        {"shrink": _SHRINK, "neighbours": _MANY},
        _near_by(lambda s: Kernel(of_sets=True, shrink=s["shrink"])),
    ),
    "user_weighted": Classic(
        {
            "user_power": (0.125, 0.25, 0.5), "shrink": (0.0, 10.0),
            "neighbours": (50, 100, 200, ALL),
        },
        _near_by(lambda s: Kernel(user_power=s["user_power"], shrink=s["shrink"])),
    ),
    "p3alpha": Classic(
        {"alpha": (0.4, 0.6, 0.8, 1.0, 1.2, 1.5), "neighbours": (50, 100, 200, ALL)},
        _near_by(lambda s: Kernel(p=s["alpha"], q=s["alpha"], r=0.0)),
    ),
    "rp3beta": Classic(
        {"alpha": (0.5, 0.7, 1.0), "beta": (0.2, 0.4, 0.6, 0.8), "neighbours": _FEW},
        _near_by(lambda s: Kernel(p=s["alpha"], q=s["alpha"], r=s["beta"])),
    ),
    "family": Classic(
        {
            "q": (0.0, 0.25, 0.5, 1.0), "p": (0.2, 0.4, 0.6, 0.8), "r": (0.2, 0.4, 0.6),
            "neighbours": (200, ALL),
        },
        _near_by(lambda s: Kernel(p=s["p"], q=s["q"], r=s["r"])),
    ),
    "gfcf": Classic({"vectors": GFCF_VECTORS, "strength": (0.0, 0.1, 0.3, 1.0, 3.0)}, _gfcf),
    "slim": Classic({"l1": (0.3, 1.0, 5.0, 20.0), "l2": (10.0, 50.0, 200.0, 800.0, 3000.0)}, _slim),
    "ease": Classic(
        {"regularisation": (30.0, 100.0, 300.0, 500.0, 1000.0, 2000.0, 3000.0)}, _ease
    ),
    "edlae": Classic(
        {"dropout": (0.1, 0.25, 0.4), "regularisation": (100.0, 300.0, 700.0, 1500.0)}, _ease
    ),
    "ials": Classic(
        {
            "width": (128,), "unobserved": (0.03, 0.1, 0.3, 1.0),
            "regularisation": (0.001, 0.003, 0.01, 0.03),
        },
        _ials,
    ),
}  # fmt: skip
"""Every method by the name that `eval.controls` takes."""
