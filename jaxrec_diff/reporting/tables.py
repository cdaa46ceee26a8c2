"""Results as a table for the terminal, and diagnostics in words."""

from typing import Any

from jaxrec_diff.classics import grids, similarity
from jaxrec_diff.evaluation import metrics


def table(results: dict[str, Any]) -> str:
    """The final table: the model beside its baselines and, where it is known, the optimum."""
    found = results["metrics"]
    columns = metrics.compared(found, lambda one, other: found[one] == found[other])
    names = [name for name in found if name in columns]
    rows = [(results["model"], results["metrics"])]
    # The same model otherwise read: its variants, and other candidates.
    rows += [
        (f"  {name.replace('_', ' ')}", values)
        for name, values in results["diagnostics"].items()
        if isinstance(values, dict)
    ]
    rows += list(results["controls"].items())
    if results["optimum"]:
        rows.append(("best possible", results["optimum"]))
    width = max(len(label) for label, _ in rows) + 2
    lines = [" " * width + "".join(f"{name:>10}" for name in names)]
    for label, values in rows:
        cells = "".join(f"{values[n]:10.4f}" if n in values else f"{'-':>10}" for n in names)
        lines.append(f"{label:<{width}}{cells}")
    if results["optimum"]:
        shares = {n: results["metrics"][n] / v for n, v in results["optimum"].items() if n in names}
        cells = "".join(f"{shares[n]:10.1%}" if n in shares else f"{'-':>10}" for n in names)
        lines.append(f"{'share of best':<{width}}{cells}")
    return "\n".join(lines)


def diagnostics_lines(diagnostics: dict[str, Any]) -> list[str]:
    """What the lists are made of, in words."""
    lines = [
        f"distinct items in all top-20 lists: {diagnostics['distinct_items']:,} "
        f"(coverage {diagnostics['coverage@20']:.1%}, gini {diagnostics['gini@20']:.3f})",
        f"trained on {diagnostics['average_popularity@20']:,.0f} times on average",
    ]
    if diagnostics["untrained_items"]:
        lines.append(
            f"items never trained: {diagnostics['untrained_items']}, "
            f"{diagnostics['untrained_top20']:.1%} of top-20 slots and "
            f"{diagnostics['hits_untrained']:.1%} of hits"
        )
    return lines


def control_lines(results: dict[str, Any]) -> list[str]:
    """The setting that each tuned control was given, and what finding it took."""
    lines, edge = [], False
    for name, seconds in results.get("control_seconds", {}).items():
        found = results["controls"][name]
        edge = edge or bool(found["at_edge"])
        chosen = ", ".join(
            _setting(axis, found[axis]) + "*" * (axis in found["at_edge"])
            for axis in grids.CLASSICS[name].axes
        )
        trials = f"{found['trials']} trial" + "s" * (found["trials"] > 1)
        lines.append(f"{name}: {chosen} ({trials}, {seconds:.0f} s)")
    return lines + ["* border of the grid: a better one may lie beyond"] * edge


def _setting(axis: str, value: float) -> str:
    every = axis == "neighbours" and value == similarity.ALL
    return f"{axis.replace('_', ' ')} {'all' if every else f'{value:g}'}"
