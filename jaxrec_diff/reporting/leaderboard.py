"""Runs side by side: means over seeds, and differences that are paired over users.

All runs must have been judged on the same rows, which the hash in their data cards says. Runs whose
settings differ in the seed alone are one entry; a user's value is its mean over them. Means are
over users with an answer, also where a protocol's own figures count the others with zeros.
"""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.evaluation import metrics as evaluation_metrics
from jaxrec_diff.reporting import statistics


class Run(NamedTuple):
    """A finished workdir."""

    name: str  # of the preset
    folder: str
    settings: str  # all but the seed, as text
    results: dict[str, Any]
    users: np.ndarray
    values: dict[str, np.ndarray]  # metric -> f32[N]; of baselines as "baseline:metric"
    seen: int = 2  # how much of a history it and its baselines see, as `runs.seen` counts


class Entry(NamedTuple):
    """A line of the leaderboard."""

    name: str
    seeds: int  # 0 for a baseline, which has none
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
    from jaxrec_diff.config import NO_FIGURE, to_json
    from jaxrec_diff.experiments import results as stored_results
    from jaxrec_diff.experiments import run_folders, workdirs
    from jaxrec_diff.experiments import runs as experiment_runs

    run_folders.check(folder)
    if not workdirs.results_path(folder).exists():
        raise ValueError(f"{folder} holds no results.json; its run is not finished")
    path = workdirs.per_user_path(folder)
    again = f"bin/evaluate --workdir={folder} --per-user={path} writes it"
    if not path.exists():
        raise ValueError(f"{folder} holds no {path.name}; {again}")
    results = stored_results.read(folder / "results.json")
    # with the defaults of settings that were not there yet when it was written
    preset, source, experiment = workdirs.read_config(folder)
    seen = experiment_runs.seen(experiment)
    config = {"preset": preset, "source": source} | to_json(experiment)
    for name in ("seed", *NO_FIGURE):
        section, _, field = name.rpartition(".")
        (config.get(section, {}) if section else config).pop(field, None)
    users, values = _per_user(path, again)
    return Run(
        results["model"],
        str(folder),
        json.dumps(config, sort_keys=True),
        results,
        users,
        values,
        seen,
    )


def with_bars(runs: Sequence[Run]) -> Run:
    """The run whose baselines stand for all: the first of those that see most of a history.

    Those of a model of users' rows see none of what came after training, as it does.
    """
    return max(runs, key=lambda run: run.seen)


def with_baseline(run: Run, name: str, path: Path) -> Run:
    """A run with a baseline that was judged like it later, by a file of `bin/evaluate`.

    Args:
      run: from `read`.
      name: of the baseline.
      path: of its results; values of every user stand beside it, with the ending .parquet.

    Raises:
      ValueError: if it was judged on other rows or under other rules.
    """
    from jaxrec_diff.config.stored import read_json

    told, beside = read_json(path), path.with_suffix(".parquet")
    users, values = _per_user(beside, f"remove {path} and it is made again")
    same = all(told[field] == run.results[field] for field in ("data_hash", "protocol"))
    if not same or not np.array_equal(users, run.users):
        raise ValueError(f"{path} was not judged on the rows of {run.folder}")
    seconds = run.results.get("control_seconds", {}) | told["control_seconds"]
    controls = run.results["controls"] | {name: told["controls"][name]}
    own = {k: v for k, v in values.items() if k.startswith(f"{name}:")}
    commits = run.results.get("control_commits", {}) | {name: told["commit"]}
    results = run.results | {
        "controls": controls, "control_seconds": seconds, "control_commits": commits
    }  # fmt: skip
    return run._replace(results=results, values=run.values | own)


def _per_user(path: Path, again: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Users and the values of each metric.

    Raises:
      ValueError: if the file cannot be read, with how to have it `again`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        users = np.asarray(table["user_id"])
        return users, {n: np.asarray(table[n]) for n in table.column_names if "@" in n}
    except (pa.ArrowException, OSError, KeyError, ValueError):
        raise ValueError(f"{path} cannot be read; {again}") from None


def board(
    runs: Sequence[Run],
    metrics: Sequence[str] = (),
    *,
    metric: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Board:
    """The leaderboard of some runs and of the baselines that all share.

    Args:
      runs: from `read`.
      metrics: columns; by default those of `evaluation.metrics.compared`.
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
                known = [known for known in run.values if ":" not in known]
                near = difflib.get_close_matches(name, known, 1)
                said = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
                raise ValueError(f"{run.folder} has no {name!r}; {said}")
    metric = metric or next((name for name in metrics if name.startswith("ndcg")), metrics[0])
    metrics = metrics if metric in metrics else (metric, *metrics)
    raw = [*_models(runs), *_baselines(with_bars(runs), metrics)]
    better = evaluation_metrics.sign(metric)
    raw.sort(key=lambda entry: -better * np.mean([values[metric].mean() for values in entry[1]]))
    users = [
        {
            name: np.asarray(np.mean([values[name] for values in seeds], axis=0, dtype=np.float64))
            for name in metrics
        }
        for _, seeds, _ in raw
    ]
    stacked = np.stack([each[name] for each in users for name in metrics], axis=1)
    drawn = statistics.bootstrap(stacked, resamples, seed).reshape(
        resamples, len(raw), len(metrics)
    )
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    entries = []
    for place, ((name, seeds, is_baseline), each) in enumerate(zip(raw, users, strict=True)):
        single = np.array([[values[m].mean(dtype=np.float64) for m in metrics] for values in seeds])
        spread = single.std(axis=0, ddof=1) if len(seeds) > 1 else np.full(len(metrics), np.nan)
        entries.append(
            Entry(
                name,
                0 if is_baseline else len(seeds),
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
    ps = [statistics.paired_t(each[metric] - first) for each in users[1:]]
    differences: list[Difference | None] = [None]
    for place, (p, corrected) in enumerate(zip(ps, statistics.holm(ps), strict=True), start=1):
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
    known = [name for name in runs[0].values if all(name in run.values for run in runs)]

    def equal(one, other):
        pairs = [(run.values[one], run.values[other]) for run in runs]
        return all(a is b or np.array_equal(a, b) for a, b in pairs)

    chosen = evaluation_metrics.compared(known, equal)
    return chosen or tuple(sorted(name for name in known if ":" not in name)[:4])


def by_settings(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in the seed alone, by the name of their entry.

    Raises:
      ValueError: if a seed is there twice.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings, []).append(run)
    for group in groups.values():
        seeds = [run.results["seed"] for run in group]
        for run in group:
            if seeds.count(run.results["seed"]) > 1:
                raise ValueError(f"{run.folder} is the same run as another: seed {seeds[0]} twice")
    firsts = [group[0] for group in groups.values()]
    names = [run.name for run in firsts]
    if len(set(names)) < len(names):  # the same preset with other settings
        twice = [name for name in names if names.count(name) > 1]
        short = [f"{run.name} ({Path(run.folder).name})" for run in firsts]
        whole = [f"{run.name} ({run.folder})" for run in firsts]
        told = short if len(set(short)) == len(short) else whole
        names = [tell if name in twice else name for name, tell in zip(names, told, strict=True)]
    return dict(zip(names, groups.values(), strict=True))


def _models(runs: Sequence[Run]) -> list[tuple[str, list[dict], bool]]:
    """(name, values of each seed, False) of every entry."""
    return [
        (name, [run.values for run in group], False) for name, group in by_settings(runs).items()
    ]


def _baselines(run: Run, metrics: Sequence[str]) -> list[tuple[str, list[dict], bool]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    for column, values in run.values.items():
        baseline, colon, name = column.partition(":")
        if colon and name in metrics:
            found.setdefault(baseline, {})[name] = values
    whole = {name: each for name, each in found.items() if len(each) == len(metrics)}
    return [(name, [values], True) for name, values in whole.items()]
