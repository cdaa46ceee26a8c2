"""What was published of a system beside what was measured here, and whether they may be compared.

Published figures are those of a preset's `facts`. What was measured here stands in
`benchmarks/results/`, a file a run, where there is a checkout.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.config import presets
from jaxrec_diff.config.facts import PAPER, Figure
from jaxrec_diff.models import registry
from jaxrec_diff.models.protocols import Rules

REPRODUCED = 0.95
"""Share of a published figure from which on it is called reproduced."""

_READ = ("model", "data")  # settings that make another model or other data where they differ
_EPOCHS = "train.num_epochs"
_TRAINED = ("batch_size", "learning_rate", "optimizer")
_RULES = "eval.mask_seen"  # overrides those of the protocol, under the protocol's name


class Measured(NamedTuple):
    """A system as it was run here, over its seeds."""

    model: str
    data: str
    command: str  # without its seed
    seeds: int
    metrics: Mapping[str, Mapping[str, float]]  # test figures by protocol, means over seeds
    files: tuple[str, ...]  # of the results, by name
    epochs: float | None = None  # trained at most, where that is known


class Parity(NamedTuple):
    """A published figure, ours, and what may be said of them."""

    figure: Figure
    ours: float | None  # by the rules of the figure
    seeds: int
    verdict: str  # "reproduced", "lower", "not comparable" or "not run"
    why: str = ""


def results_folder() -> Path | None:
    """`benchmarks/results` of a checkout; None where the package is installed without one."""
    folder = Path(__file__).parents[2] / "benchmarks" / "results"
    return folder if folder.is_dir() else None


def measured(folder: Path | None) -> tuple[Measured, ...]:
    """The runs whose results stand in a folder, those that differ in their seed alone as one."""
    kept = {path.name: json.loads(path.read_text()) for path in _files(folder)}
    needed = {"model", "dataset", "command", "metrics", "protocol"}
    return of_results(
        {name: each for name, each in kept.items() if isinstance(each, dict) and needed <= {*each}}
    )


def of_results(results: Mapping[str, Mapping[str, Any]]) -> tuple[Measured, ...]:
    """Results of runs by the names of their files, those that differ in their seed alone as one.

    What is of validation rows is left out.
    """
    groups: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for file, kept in results.items():
        if kept.get("split", "test") != "test":
            continue
        command = re.sub(r" --(seed|workdir|backbone|eval\.controls)[= ]\S+", "", kept["command"])
        key = kept["model"], kept["dataset"], command
        groups.setdefault(key, {})[file] = kept
    return tuple(
        Measured(*key, len(runs), _means([*runs.values()]), tuple(runs), _epochs([*runs.values()]))
        for key, runs in groups.items()
    )


def parity(name: str, found: Sequence[Measured] = ()) -> tuple[Parity, ...]:
    """Every published figure of a preset beside ours.

    Args:
      name: of the preset.
      found: from `measured` or `of_results`; of several runs on a data set the first that may be
        compared counts.
    """
    out = []
    for figure in presets.load(name).facts.published:
        judged = [
            _judged(
                figure,
                run.metrics.get(figure.protocol, {}).get(figure.metric),
                run.seeds,
                other_settings(name, run),
            )
            for run in found
            if run.model == name and run.data == figure.data
        ]
        fits = [each for each in judged if each.verdict != "not comparable"]
        nothing = Parity(figure, None, 0, "not run", "no results of it here")
        out.append((*fits, *judged, nothing)[0])
    return tuple(out)


def _judged(figure: Figure, ours: float | None, seeds: int, other: str) -> Parity:
    if figure.otherwise:
        return Parity(figure, ours, seeds, "not comparable", figure.otherwise)
    if ours is None:
        why = f"{figure.metric} was not measured under the {figure.protocol} protocol"
        return Parity(figure, ours, seeds, "not comparable", why)
    if other:
        return Parity(figure, ours, seeds, "not comparable", f"other settings: {other}")
    reached = ours >= REPRODUCED * figure.value
    return Parity(figure, ours, seeds, "reproduced" if reached else "lower")


def other_settings(name: str, run: Measured) -> str:
    """Where the settings of a run's command leave those of its preset for that data set; "" where
    the two train the same model on the same data."""
    words = shlex.split(run.command)[1:]
    dotted = [word for word in words if word.startswith("--") and "." in word.split("=")[0]]
    preset = config.preset(name, run.data).experiment
    try:
        chosen = config.parse(preset, dotted)
    except ValueError:
        return "flags of an older version"
    there, here = (dict(config.flattened(config.to_json(e))) for e in (preset, chosen))
    apart = [field for field, value in here.items() if _matters(field, value, there.get(field))]
    if run.epochs is not None and run.epochs < chosen.train.num_epochs:  # it stopped by itself
        apart = [field for field in apart if field != _EPOCHS]
    return ", ".join(f"{field}={_said(here[field])}" for field in apart)


def _matters(field: str, value: Any, before: Any) -> bool:
    if value == before:
        return False
    section, _, rest = field.partition(".")
    if section == "backbone":
        return _matters(rest, value, before)
    if field == _EPOCHS:
        return value < before
    return field == _RULES or section in _READ or (section == "train" and rest in _TRAINED)


def line(each: Parity) -> str:
    """A parity in words.

    >>> figure = Figure("zhihu", "hr@20", 0.0226)
    >>> line(Parity(figure, 0.0221, 3, "reproduced"))
    'zhihu hr@20: .0226 in the paper, .0221 here (3 seeds): reproduced'
    """
    ours, said = each.ours, published(each.figure) + ", "
    if ours is not None:
        seeds = f" ({each.seeds} seeds)" if each.seeds > 1 else ""
        said += f"{_share(ours)} here{seeds}: "
    return said + each.verdict + (f" ({each.why})" if each.why else "")


def published(figure: Figure) -> str:
    """A figure in words.

    >>> published(Figure("zhihu", "hr@20", 0.0226, "a re-run"))
    'zhihu hr@20: .0226 (a re-run)'
    """
    by = "in the paper" if figure.by == PAPER else f"({figure.by})"
    return f"{figure.data} {figure.metric}: {_share(figure.value)} {by}"


def nearest(figures: Sequence[Parity], data: str) -> Parity | None:
    """The one to show in a table on one data set: of that data, or else of the data on which a
    system came nearest to being compared, and of those to the figure; its last metric. None where
    nothing was published."""
    if not figures:
        return None
    there = [each for each in figures if each.figure.data == data]
    order = ("reproduced", "lower", "not comparable", "not run")
    best = max(there or figures, key=lambda each: (-order.index(each.verdict), _of_published(each)))
    same = (best.figure.data, best.verdict)
    return [each for each in figures if (each.figure.data, each.verdict) == same][-1]


def _of_published(each: Parity) -> float:
    """The share of the published figure, at most what is called reproduced."""
    return min(each.ours / each.figure.value, REPRODUCED) if each.ours is not None else 0.0


def official(name: str) -> str:
    """How the authors of a system rank, in words."""
    rules: Rules = registry.system(presets.load(name).default.model).official
    said = [
        "items of the history are no candidates"
        if rules.mask_seen
        else "items of the history compete",
        "nor are items that never occur in training"
        if rules.trained_only
        else "items that never occur in training compete",
    ]
    if rules.multiple_of > 1:
        said.append(f"rows beyond the last full batch of {rules.multiple_of} are dropped")
    if rules.all_users:
        said.append("users without an answer count with zeros")
    return "; ".join(said)


def _means(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    by_protocol = [
        {run["protocol"]: run["metrics"]}
        | {
            name: part["metrics"]
            for kept in ("protocols", "other_protocols")  # of a workdir, of a file of benchmarks
            for name, part in run.get(kept, {}).items()
        }
        for run in runs
    ]
    return {
        protocol: {
            metric: float(np.mean([each[protocol][metric] for each in by_protocol]))
            for metric in metrics
        }
        for protocol, metrics in by_protocol[0].items()
    }


def _epochs(runs: Sequence[Mapping[str, Any]]) -> float | None:
    if not all(run.get("curve") for run in runs):
        return None
    return max(run["curve"][-1]["epoch"] for run in runs)


def _files(folder: Path | None) -> list[Path]:
    return sorted(folder.glob("*.json")) if folder else []


def _said(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _share(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")
