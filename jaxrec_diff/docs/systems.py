"""The systems as the documentation tells of them: the table of all, and a page of each."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.config.facts import PAPER
from jaxrec_diff.config.presets import preset_names
from jaxrec_diff.docs import boards
from jaxrec_diff.reporting import cards, parity, text
from jaxrec_diff.reporting.cards import Card
from jaxrec_diff.reporting.parity import Measured, Parity

_FIRST = {"interactions": "recall@20", "triplets": "recall@20", "triplets_by_user": "recall@20"}
_ARXIV = "https://arxiv.org/abs/"


def table(results: Path | None = None) -> str:
    """A row a system in markdown: what was reached here, what was published, and a mark.

    Of several published figures the one is shown on whose data a system came nearest to being
    compared. Figures are percent of the test split, of the mean over seeds with its deviation.

    Args:
      results: a folder of results files; by default that of the checkout.
    """
    head = ("`--model`", "system", "data, metric", "ours", "honest", "theirs", "mark")
    return text.table(head, [_row(cards.card(name, results), results) for name in preset_names()])


def choices() -> str:
    """When to take which, a row a system, in markdown."""
    rows = []
    for name in preset_names():
        card = cards.card(name)
        reads = card.reads.replace("_", " ")
        rows.append([f"[{name}](models/{name}.md)", reads, card.choose])
    return text.table(["`--model`", "reads", "take it"], rows)


def page(name: str, results: Path | None = None) -> str:
    """All that is known of a system, in markdown."""
    card = cards.card(name, results)
    parts = [cards.markdown(card).strip()]
    if card.measured:
        parts.append("## Measured here\n\n" + "\n".join(_measured(card, results)))
    text = card.text.strip("\n")
    if text:
        parts.append(f"## Its settings\n\n{text}")
    parts.append(f"## How it works\n\n{card.how.strip()}")
    preset = config.preset(name, "")
    usage = f"bin/train --model={name}"
    parts.append(f"## Every setting\n\n```\n{config.show_help(preset.experiment, usage)}\n```")
    links = ", ".join(f"[{paper}]({_ARXIV}{paper.removeprefix('arXiv:')})" for paper in card.papers)
    return "\n\n".join([*parts, f"## Papers\n\n{links}" if links else ""]).strip() + "\n"


def _row(card: Card, results: Path | None) -> list[str]:
    nearest = parity.nearest(card.parity, "")
    if nearest is not None and nearest.verdict == "not run" and card.measured:
        nearest = None  # other data than those of the paper
    mark, theirs = "no figure to compare with", "-"
    if nearest is not None:
        figure = nearest.figure
        data, metric, mark = figure.data, figure.metric, nearest.verdict
        mark += " (honest)" if figure.protocol == "honest" else ""
        theirs = _percent(figure.value) + ("" if figure.by == PAPER else "*")
    run = _run_of(card, nearest)
    if run is not None and nearest is None:
        data, metric = run.data, _FIRST.get(card.reads, "ndcg@10")
    if run is None and nearest is None:
        return [f"`{card.name}`", _named(card), *_in_a_leaderboard(card.name, results)]
    ours = [_mean(run, results, protocol, metric) for protocol in ("official", "honest")]
    return [f"`{card.name}`", _named(card), f"{data}, {metric}", *ours, theirs, mark]


def _in_a_leaderboard(name: str, results: Path | None) -> list[str]:
    """The cells of a system that no file of its own tells of, and that nobody published."""
    found = boards.standing(name, results)
    if found is None:
        return ["-", "-", "-", "-", "not run"]
    data, metric, row = found
    spread = row.deviations.get(metric)
    honest = _percent(row.means[metric]) + (f" ± {_percent(spread)}" if spread is not None else "")
    ours = _percent(row.theirs["itself"]) if "itself" in row.theirs else "-"
    return [f"{data}, {metric}", ours, honest, "-", "no figure to compare with"]


def _run_of(card: Card, nearest: Parity | None) -> Measured | None:
    """The run whose figure `nearest` holds; without one, the first of its data."""
    for run in card.measured:
        if nearest is None:
            return run
        found = run.metrics.get(nearest.figure.protocol, {}).get(nearest.figure.metric)
        if run.data == nearest.figure.data and found == nearest.ours:
            return run
    return None


def _mean(run: Measured | None, results: Path | None, protocol: str, metric: str) -> str:
    """Mean and deviation over seeds, in percent."""
    if run is None or metric not in run.metrics.get(protocol, {}):
        return "-"
    found = [_figure(each, protocol, metric) for each in _files(run, results)]
    spread = f" ± {_percent(float(np.std(found, ddof=1)))}" if len(found) > 1 else ""
    return _percent(run.metrics[protocol][metric]) + spread


def _figure(kept: Mapping[str, Any], protocol: str, metric: str) -> float:
    if kept["protocol"] == protocol:
        return kept["metrics"][metric]
    for name in ("protocols", "other_protocols"):
        if protocol in kept.get(name, {}):
            return kept[name][protocol]["metrics"][metric]
    raise ValueError(f"no {metric} of the {protocol} protocol")


def _files(run: Measured, results: Path | None) -> list[dict[str, Any]]:
    folder = parity.results_folder() if results is None else results
    return [json.loads((folder / file).read_text()) for file in run.files] if folder else []


def _measured(card: Card, results: Path | None) -> list[str]:
    """A table of all runs of a system that results files hold."""
    rows = []
    for run in card.measured:
        kept = _files(run, results)
        metric = _FIRST.get(card.reads, "ndcg@10")
        told = [
            f"{metric} {_mean(run, results, protocol, metric)}"
            for protocol in ("official", "honest")
        ]
        seconds = [each["train_seconds"] for each in kept if "train_seconds" in each]
        cost = f"{np.mean(seconds):,.0f}" if seconds else "-"
        rows.append([run.data, str(run.seeds), *told, cost, run.files[0]])
    table = text.table(["data", "seeds", "official", "honest", "updates, s", "file"], rows)
    commands = "\n".join(f"    {run.command}" for run in card.measured)
    return [table, "", "Percent, mean and deviation over seeds. The commands:", "", commands]


def _named(card: Card) -> str:
    """A system's name with its paper, if it is of one."""
    title = re.split(r"[,.:;]| \(| in the | with | on (?=\w+'s)", card.about)[0]
    if not card.papers:
        return title
    paper = f" [{card.papers[0].removeprefix('arXiv:')}]({_link(card.papers[0])})"
    return title + paper


def _link(paper: str) -> str:
    return _ARXIV + paper.removeprefix("arXiv:")


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
