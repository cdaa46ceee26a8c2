"""Runs side by side: means over seeds, and differences that are paired over users.

All runs must have been judged on the same rows, which the hash in their data cards says. Runs whose
settings differ in the seed alone are one entry; a user's value is its mean over them. Means are
over users with an answer, also where a protocol's own figures count the others with zeros.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_FLAT = 2**23  # weights of resamples that exist at once


class Run(NamedTuple):
    """A finished workdir."""

    name: str  # of the preset
    folder: str
    settings: str  # all but the seed, as text
    results: dict[str, Any]
    users: np.ndarray
    values: dict[str, np.ndarray]  # metric -> f32[N]; of controls as "control:metric"


class Entry(NamedTuple):
    """A line of the leaderboard."""

    name: str
    seeds: int  # 0 for a control, which has none
    means: dict[str, float]
    deviations: dict[str, float]  # over seeds; nan where there is one
    intervals: dict[str, tuple[float, float]]  # 95 %, bootstrap over users
    users: dict[str, np.ndarray]  # f64[N]


class Difference(NamedTuple):
    """An entry minus the first one, in one metric."""

    mean: float
    low: float  # 95 %, paired bootstrap over users
    high: float
    p: float  # paired t-test over users, two-sided
    p_holm: float  # after Holm's correction over the entries


class Board(NamedTuple):
    """Entries, best first, and how the others differ from the first."""

    metric: str  # that they are sorted by
    metrics: tuple[str, ...]
    entries: tuple[Entry, ...]
    differences: tuple[Difference | None, ...]  # in `metric`; None for the first
    protocol: str
    dataset: str
    data_hash: str
    num_users: int
    resamples: int


def read(folder: Path) -> Run:
    """A finished run.

    Raises:
      ValueError: if the folder holds none, or none with values of every user.
    """
    import pyarrow.parquet as pq

    from jaxrec_diff import experiments

    for name in ("results.json", "config.json"):
        if not (folder / name).exists():
            raise ValueError(f"{folder} holds no {name}; name finished workdirs of bin/train")
    path = experiments.per_user_path(folder)
    if not path.exists():
        raise ValueError(
            f"{folder} holds no {path.name}; bin/evaluate --workdir={folder} --per-user={path} "
            "writes it"
        )
    results = json.loads((folder / "results.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    config.pop("seed")
    table = pq.read_table(path)
    values = {name: np.asarray(table[name]) for name in table.column_names if "@" in name}
    return Run(
        results["model"],
        str(folder),
        json.dumps(config, sort_keys=True),
        results,
        np.asarray(table["user_id"]),
        values,
    )


def board(
    runs: Sequence[Run],
    metrics: Sequence[str] = (),
    *,
    metric: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Board:
    """The leaderboard of some runs and of the controls that all share.

    Args:
      runs: from `read`.
      metrics: columns; by default hr, ndcg (and recall where a user has several answers) at 10, 20.
      metric: to sort by; by default the first ndcg.
      resamples: of the users, for the intervals.
      seed: of the resamples.

    Raises:
      ValueError: if the runs were not judged on the same rows under the same rules.
    """
    _check(runs)
    metrics = tuple(metrics) or _default_metrics(runs)
    for name in (*metrics, *([metric] if metric else [])):
        for run in runs:
            if name not in run.values:
                known = ", ".join(known for known in run.values if ":" not in known)
                raise ValueError(f"{run.folder} has no {name!r}; it has {known}")
    metric = metric or next((name for name in metrics if name.startswith("ndcg")), metrics[0])
    metrics = metrics if metric in metrics else (metric, *metrics)
    raw = [*_by_settings(runs), *_controls(runs[0], metrics)]
    raw.sort(key=lambda entry: -np.mean([values[metric].mean() for values in entry[1]]))
    users = [
        {
            name: np.asarray(np.mean([values[name] for values in seeds], axis=0, dtype=np.float64))
            for name in metrics
        }
        for _, seeds, _ in raw
    ]
    stacked = np.stack([each[name] for each in users for name in metrics], axis=1)
    drawn = bootstrap(stacked, resamples, seed).reshape(resamples, len(raw), len(metrics))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    entries = []
    for place, ((name, seeds, is_control), each) in enumerate(zip(raw, users, strict=True)):
        single = np.array([[values[m].mean(dtype=np.float64) for m in metrics] for values in seeds])
        spread = single.std(axis=0, ddof=1) if len(seeds) > 1 else np.full(len(metrics), np.nan)
        entries.append(
            Entry(
                name,
                0 if is_control else len(seeds),
                dict(zip(metrics, single.mean(axis=0).tolist(), strict=True)),
                dict(zip(metrics, spread.tolist(), strict=True)),
                {m: (float(low[place, i]), float(high[place, i])) for i, m in enumerate(metrics)},
                each,
            )
        )
    at = metrics.index(metric)
    apart = drawn[:, :, at] - drawn[:, :1, at]
    low, high = np.quantile(apart, [0.025, 0.975], axis=0)
    first = users[0][metric]
    ps = [paired_t(each[metric] - first) for each in users[1:]]
    differences: list[Difference | None] = [None]
    for place, (p, corrected) in enumerate(zip(ps, holm(ps), strict=True), start=1):
        mean = float((users[place][metric] - first).mean())
        differences.append(Difference(mean, float(low[place]), float(high[place]), p, corrected))
    results = runs[0].results
    return Board(
        metric,
        metrics,
        tuple(entries),
        tuple(differences),
        results["protocol"],
        results["dataset"],
        results["data_hash"],
        len(first),
        resamples,
    )


def bootstrap(values: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """Means over users drawn with replacement, the same users for every column.

    Args:
      values: f64[N, M].
      resamples: R.
      seed: of the draws.

    Returns:
      f64[R, M].
    """
    rng = np.random.default_rng(seed)
    count = len(values)
    out = np.empty((resamples, values.shape[1]))
    step = max(1, _FLAT // count)
    for begin in range(0, resamples, step):
        rows = min(step, resamples - begin)
        draws = rng.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        weights = np.bincount(draws.ravel(), minlength=rows * count).reshape(rows, count)
        out[begin : begin + rows] = weights @ values / count
    return out


def paired_t(differences: np.ndarray) -> float:
    """Two-sided p of Student's paired t-test, f64[N] -> p.

    t = mean / (s / sqrt(N)); p = I_{df / (df + t^2)}(df / 2, 1 / 2), the incomplete beta function.
    """
    from scipy.special import betainc

    count = len(differences)
    deviation = differences.std(ddof=1) if count > 1 else 0.0
    if deviation == 0:
        return 1.0 if differences.mean() == 0 else 0.0
    t = differences.mean() / (deviation / np.sqrt(count))
    return float(betainc((count - 1) / 2, 0.5, (count - 1) / (count - 1 + t * t)))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction: the i-th smallest of m is multiplied by m - i, and none falls again."""
    out = [0.0] * len(ps)
    largest = 0.0
    for rank, place in enumerate(np.argsort(ps, kind="stable")):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        out[place] = largest
    return out


def markdown(board: Board) -> str:
    """A table for a paper or a pull request."""
    lines = [_caption(board), "", *_rows(board, "| ", " | ", " |")]
    lines.insert(3, "|" + "---|" * (len(board.metrics) + 4))
    return "\n".join(lines) + "\n"


def plain(board: Board) -> str:
    """The same for a terminal: the metric that counts, its interval, and the difference."""
    width = max(len(entry.name) for entry in board.entries) + 2
    lines = [f"{board.metric:<{width}}    mean    +-std   95% over users   vs first    p (Holm)"]
    for entry, apart in zip(board.entries, board.differences, strict=True):
        mean, spread = entry.means[board.metric], entry.deviations[board.metric]
        low, high = entry.intervals[board.metric]
        std = f"{spread:.4f}" if np.isfinite(spread) else "-"
        lines.append(
            f"{entry.name:<{width}}{mean:8.4f} {std:>8}   {low:.4f}-{high:.4f}"
            + (f"   {apart.mean:+.4f}   {_p(apart.p_holm):>9}" if apart else "")
        )
    return "\n".join([*lines, _caption(board)])


def csv(board: Board) -> str:
    """A row an entry, all figures in full."""
    head = ["name", "seeds"]
    for name in board.metrics:
        head += [name, f"{name}_std", f"{name}_low", f"{name}_high"]
    head += ["difference", "difference_low", "difference_high", "p", "p_holm"]
    lines = [",".join(head)]
    for entry, apart in zip(board.entries, board.differences, strict=True):
        cells = [entry.name, str(entry.seeds)]
        for name in board.metrics:
            figures = (entry.means[name], entry.deviations[name], *entry.intervals[name])
            cells += ["" if np.isnan(figure) else f"{figure:.6g}" for figure in figures]
        cells += [f"{figure:.6g}" for figure in apart] if apart else [""] * 5
        lines.append(",".join(f'"{cell}"' if "," in cell else cell for cell in cells))
    return "\n".join(lines) + "\n"


def html(board: Board) -> str:
    """A page of its own."""
    from jaxrec_diff import page

    rows = _rows(board, "", "\t", "")
    table = page.table(
        rows[0].split("\t"), [row.replace("**", "").split("\t") for row in rows[1:]], best=0
    )
    return page.document(
        f"Comparison on {board.dataset}", [("", f"<p>{_caption(board)}</p>{table}")]
    )


def _rows(board: Board, left: str, between: str, right: str) -> list[str]:
    head = ["entry", "seeds", *board.metrics, f"{board.metric} vs first", "p (Holm)"]
    lines = [left + between.join(head) + right]
    for entry, apart in zip(board.entries, board.differences, strict=True):
        cells = [entry.name, str(entry.seeds) if entry.seeds else "control"]
        for name in board.metrics:
            best = max(other.means[name] for other in board.entries)
            text = f"{entry.means[name]:.4f}"
            if np.isfinite(entry.deviations[name]):
                text += f" ± {entry.deviations[name]:.4f}"
            cells.append(f"**{text}**" if entry.means[name] == best else text)
        if apart:
            cells.append(f"{apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]")
            cells.append(_p(apart.p_holm))
        else:
            cells += ["", ""]
        lines.append(left + between.join(cells) + right)
    return lines


def _caption(board: Board) -> str:
    return (
        f"{board.dataset}, test split of {board.num_users:,} users (hash {board.data_hash[:12]}), "
        f"{board.protocol} protocol. Intervals: 95 %, {board.resamples:,} paired bootstrap "
        "resamples of users; p: paired t-test over users against the first, Holm-corrected."
    )


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _check(runs: Sequence[Run]) -> None:
    if not runs:
        raise ValueError("name at least one finished workdir")
    first = runs[0]
    for run in runs[1:]:
        for field, what in (("data_hash", "split hash"), ("protocol", "protocol")):
            here, there = run.results[field], first.results[field]
            if here != there:
                raise ValueError(
                    f"{run.folder} has {what} {here[:12]}, {first.folder} has {there[:12]}: their "
                    "figures cannot be compared"
                )
        if not np.array_equal(run.users, first.users):
            raise ValueError(f"{run.folder} was judged on other users than {first.folder}")


def _default_metrics(runs: Sequence[Run]) -> tuple[str, ...]:
    known = set.intersection(*(set(run.values) for run in runs))
    single = all(
        run.values[name] is run.values[name.replace("recall", "hr")]
        or np.array_equal(run.values[name], run.values[name.replace("recall", "hr")])
        for run in runs
        for name in known
        if name.startswith("recall")
    )
    wanted = [f"{kind}@{k}" for kind in ("hr", "recall", "ndcg") for k in (10, 20)]
    chosen = [name for name in wanted if name in known and not (single and "recall" in name)]
    return tuple(chosen) or tuple(sorted(name for name in known if ":" not in name)[:4])


def _by_settings(runs: Sequence[Run]) -> list[tuple[str, list[dict], bool]]:
    """(name, values of each seed, False) of every group of runs that differ in the seed alone."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings, []).append(run)
    for group in groups.values():
        seeds = [run.results["seed"] for run in group]
        for run in group:
            if seeds.count(run.results["seed"]) > 1:
                raise ValueError(f"{run.folder} is the same run as another: seed {seeds[0]} twice")
    names = [group[0].name for group in groups.values()]
    out: list[tuple[str, list[dict], bool]] = []
    for group in groups.values():
        name = group[0].name
        if names.count(name) > 1:  # the same preset with other settings
            name = f"{name} ({Path(group[0].folder).name})"
        out.append((name, [run.values for run in group], False))
    return out


def _controls(run: Run, metrics: Sequence[str]) -> list[tuple[str, list[dict], bool]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    for column, values in run.values.items():
        control, colon, name = column.partition(":")
        if colon and name in metrics:
            found.setdefault(control, {})[name] = values
    whole = {name: each for name, each in found.items() if len(each) == len(metrics)}
    return [(name, [values], True) for name, values in whole.items()]
