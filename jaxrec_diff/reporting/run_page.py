"""`report.html` of a workdir: one file that holds everything a reader of its figures will ask for.

What training wrote is shown here as it is; `run_model` works out what the best checkpoint adds.
"""

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.data.card import render
from jaxrec_diff.evaluation import baselines
from jaxrec_diff.experiments import json_files, judging, phases, restore, workdirs
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.ops import files
from jaxrec_diff.reporting import (
    diffusion,
    drawing,
    figures,
    leaderboard,
    page,
    run_model,
    statistics,
    verdict,
)
from jaxrec_diff.reporting.text import wrapped

_RESAMPLES = 1000


def write(
    workdir: Path, made: Run | None = None, *, tell: Callable[[str], None] = lambda said: None
) -> Path:
    """Writes `report.html` into a finished workdir.

    Args:
      workdir: what `bin/train` left.
      made: its run, if that is in memory.
      tell: is told what is worked on, in words.

    Raises:
      ValueError: if the run is not finished, or matplotlib is missing.
    """
    if not drawing.available():
        raise ValueError("the report needs matplotlib: pip install 'jaxrec-diff[report]'")
    run = leaderboard.read(workdir)
    if made is None:
        made = restore.reopen(workdir)
    trained = restore.restore(made, workdir)
    restored = restore.honest(trained)
    results = run.results
    metric = results["selected_by"].split()[-1]
    lines = json_files.read_lines(workdir / "metrics.jsonl")
    board = leaderboard.board([run], metric=metric, resamples=_RESAMPLES)
    card = f"<pre>{escape(wrapped(render(made.dataset.card)))}</pre>"
    parts: dict[str, Callable[[], str]] = {
        "Beside its controls": lambda: _metrics(run, board),
        "Training": lambda: _training(lines, results, metric, _valid(trained.phase, metric)),
        "Does it diffuse?": lambda: _diffusion(results),
        "Quality against reverse steps": lambda: run_model.steps(restored, metric),
        "Who is served well": lambda: _strata(workdir, run, metric),
        "What is shown": lambda: run_model.exposure(restored),
        "From noise to an item": lambda: run_model.walks(restored),
        "Example users": lambda: run_model.examples(restored),
        "Data": lambda: card,
        "How to make this run again": lambda: _again(workdir, results),
    }
    sections = []
    for number, (heading, body) in enumerate(parts.items(), start=1):
        tell(f"{heading.lower()}, {number} of {len(parts)}")
        sections.append((heading, body()))
    kept = [(heading, body) for heading, body in sections if body]
    path = workdir / "report.html"
    title = f"{results['model']} on {results['dataset']}"
    lead = _lead(results, verdict.sentences(board, results, lines))
    with files.replacing(path) as partial:
        partial.write_text(page.document(title, kept, lead))
    return path


def _lead(results: dict[str, Any], said: list[str]) -> str:
    lines = "".join(f"<li>{escape(sentence)}</li>" for sentence in said)
    return (
        f"<ul class=verdict>{lines}</ul><p class=soft>{results['num_users']:,} test rows; "
        f"checkpoint of step {results['best_step']:,} of {results['steps']:,}, picked by "
        f"{escape(results['selected_by'])}; {escape(results['split_rule'])}; "
        f"{escape(results['protocol'])} protocol; seed {results['seed']}; "
        f"{escape(results['device'])}; commit {escape(results['commit'])}.</p>"
    )


def _metrics(run: leaderboard.Run, board: leaderboard.Board) -> str:
    metric = board.metric
    entries = sorted(board.entries, key=lambda entry: entry.seeds == 0)
    rows = []
    for entry in entries:
        cells = [entry.name]
        for name in board.metrics:
            low, high = entry.intervals[name]
            cells.append(f"{entry.means[name]:.4f}\n{low:.4f} - {high:.4f}")
        rows.append(cells)
    for name, values in run.results["diagnostics"].items():
        if isinstance(values, dict):
            label = f"{run.name}: {name.replace('_', ' ')}"
            rows.append([label, *(f"{values[m]:.4f}" for m in board.metrics)])
    if run.results["optimum"]:
        optimum = run.results["optimum"]
        rows.append(
            ["best possible", *(f"{optimum[m]:.4f}" if m in optimum else "" for m in board.metrics)]
        )
    picture = figures.intervals(
        [entry.name for entry in entries],
        np.array([entry.means[metric] for entry in entries]),
        *np.array([entry.intervals[metric] for entry in entries]).T,
        what=metric,
    )
    return (
        page.figure(picture)
        + page.table(["", *board.metrics], rows, best=0)
        + f"<p class=soft>Small: 95 % by {_RESAMPLES:,} bootstrap resamples of the users; they "
        "hold the spread over users, not over seeds.</p>"
    )


def _valid(phase: phases.PhaseRun, metric: str) -> dict[str, float]:
    """Controls that have no settings on the rows of the validation curve, under its rules."""
    found = judging.baselines_per_user(phase, "valid", {})
    means = baselines.means(
        found, phase.settings.eval, phases.rules_of(phase), phase.dataset.num_users
    )
    return {name: values[metric] for name, values in means.items() if metric in values}


def _training(
    lines: list[dict[str, Any]], results: dict[str, Any], metric: str, levels: dict[str, float]
) -> str:
    if not lines:
        return ""
    epoch = np.array([line["epoch"] for line in lines])

    def column(name: str) -> tuple[np.ndarray, np.ndarray]:
        return epoch, np.array([line.get(name, np.nan) for line in lines])

    per_epoch = lines[0]["step"] / lines[0]["epoch"]
    watched = {"validation": column(f"valid/{metric}")}
    if f"test/{metric}" in lines[0]:
        watched["test"] = column(f"test/{metric}")
    best = results["best_step"] / per_epoch
    picture = [
        figures.curves("training loss", {"loss": column("loss")}, across="epoch", mark=best),
        figures.curves(metric, watched, across="epoch", mark=best, levels=levels),
    ]
    words = f"Upright: the epoch of the checkpoint. {results['train_seconds']:,.0f} s of updates"
    if "cpu_seconds" in results:
        words += f" ({results['cpu_seconds']:,.0f} s of processors), after "
        words += f"{results['compile_seconds']:,.0f} s that compiled"
    return page.figure(picture, words + f"; {results['examples_per_second']:,.0f} examples/s.")


def _diffusion(results: dict[str, Any]) -> str:
    found = results.get("diffusion")
    if not found:
        return ""
    said = diffusion.lines(results)[len(found["rows"]) + 2 :]
    return page.table(*diffusion.table(found)) + "".join(f"<p>{escape(line)}</p>" for line in said)


def _strata(workdir: Path, run: leaderboard.Run, metric: str) -> str:
    import pyarrow.parquet as pq

    table = pq.read_table(workdirs.per_user_path(workdir))
    series = {run.name: np.asarray(table[metric], np.float64)}
    if f"popularity:{metric}" in table.column_names:
        series["popularity"] = np.asarray(table[f"popularity:{metric}"], np.float64)
    pictures = []
    for heading, column in (
        ("training count of the answer", "answer_popularity"),
        ("length of the history", "history_length"),
    ):
        by = np.asarray(table[column], np.float64)
        groups, names = statistics.quarters(by)
        found = {}
        for name, values in series.items():
            each = [values[groups == g] for g in range(len(names))]
            half = [1.96 * v.std() / max(len(v), 1) ** 0.5 for v in each]
            found[name] = (np.array([v.mean() for v in each]), np.array(half))
        pictures.append(figures.bars(heading, names, found, what=metric))
    return page.figure(
        pictures,
        "Test rows in four groups of about the same size, with the range of each; bars of 95 %.",
    )


def _again(workdir: Path, results: dict[str, Any]) -> str:
    settings = json.loads((workdir / "config.json").read_text())
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    made = results["command"]
    return (page.command(made) if made else "<p>It was trained from Python.</p>") + (
        f"<p class=soft>commit {escape(results['commit'])}; {escape(versions)}; "
        f"{escape(results['platform'])}</p><details><summary>all settings</summary>"
        f"<pre>{escape(json.dumps(settings, indent=1))}</pre></details>"
    )
