"""The page of a comparison: a leaderboard with its intervals, curves, cost, settings and strata."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.experiments import json_files, workdirs
from jaxrec_diff.reporting import board_text, drawing, figures, leaderboard, page, statistics
from jaxrec_diff.reporting.leaderboard import Board, Run

_STRATA = (
    ("training count of the answer", "answer_popularity"),
    ("length of the history", "history_length"),
)
_BARS = 4  # entries of a group


def document(board: Board, runs: Sequence[Run]) -> str:
    """A page of its own; without matplotlib it has tables alone.

    Args:
      board: of the runs.
      runs: in the order in which they were given.
    """
    groups = leaderboard.by_settings(runs)
    rows = board_text.cells(board)
    table = page.table(
        rows[0], [[cell.replace("**", "") for cell in row] for row in rows[1:]], best=0
    )
    parts = [("", f"<p>{escape(_verdict(board))}</p>{table}{_said(board)}")]
    if drawing.available():
        parts += [
            ("Intervals", _intervals(board)),
            ("Training", _curves(board, groups)),
            ("Quality against cost", _cost(board, groups)),
            ("Who is served well", _strata(board, runs[0])),
        ]
    parts += [
        ("Settings that differ", _settings(groups)),
        ("For a paper", page.command(board_text.latex(board))),
        ("The runs", _runs(groups)),
    ]
    title = f"Comparison on {board.dataset}"
    return page.document(title, [(heading, body) for heading, body in parts if body])


def _verdict(board: Board) -> str:
    first, *others = board.entries
    alike = [
        entry.name
        for entry, apart in zip(others, board.differences[1:], strict=True)
        if board_text.alike(apart)
    ]
    said = f"{first.name} is first by {board.metric} ({first.means[board.metric]:.4f})"
    if not others:
        return f"{said}."
    if not alike:
        return f"{said}, significantly above all others."
    return f"{said}, not significantly above {', '.join(alike)}."


def _said(board: Board) -> str:
    marked = any(map(board_text.alike, board.differences))
    note = f"{board_text.ALIKE}: {board_text.ALIKE_SAYS}. " if marked else ""
    return f"<p class=soft>{escape(note + board_text.caption(board))}</p>"


def _intervals(board: Board) -> str:
    low, high = np.array([entry.intervals[board.metric] for entry in board.entries]).T
    picture = figures.intervals(
        [entry.name for entry in board.entries],
        np.array([entry.means[board.metric] for entry in board.entries]),
        low,
        high,
        what=board.metric,
        bold=[entry.seeds > 0 for entry in board.entries],
    )
    return page.figure(
        picture,
        "95 % over users. Intervals that overlap may still differ: the users are the same, and "
        "the differences of the table are paired over them.",
    )


def _curves(board: Board, groups: Mapping[str, list[Run]]) -> str:
    """The validation curve of the first seed of each entry."""
    lines = {}
    name = f"valid/{board.metric}"
    for entry, runs in groups.items():
        read = json_files.read_lines(Path(runs[0].folder) / "metrics.jsonl")
        kept = [line for line in read if name in line]
        if len(kept) > 1:
            x = np.array([line["epoch"] for line in kept])
            lines[entry] = (x, np.array([line[name] for line in kept]))
    if not lines:
        return ""
    return page.figure(
        figures.curves(f"validation {board.metric}", lines, across="epoch"),
        "The first seed of each.",
    )


def _cost(board: Board, groups: Mapping[str, list[Run]]) -> str:
    """Quality against the seconds of training; of a control, those that tuned it."""
    tuned = next(iter(groups.values()))[0].results.get("control_seconds", {})
    points = {}
    for entry in board.entries:
        runs = groups.get(entry.name, []) if entry.seeds else []
        took = [run.results["train_seconds"] for run in runs]
        if not entry.seeds and entry.name in tuned:
            took.append(tuned[entry.name])
        if took and np.mean(took) > 0:
            low, high = entry.intervals[board.metric]
            points[entry.name] = (
                float(np.mean(took)), entry.means[board.metric], (high - low) / 2
            )  # fmt: skip
    if not points:
        return ""
    return page.figure(
        figures.scatter(points, across="seconds of training", what=board.metric),
        "Mean over seeds, on the machine of each run; of a control the search for its settings. "
        "What costs nothing is left out.",
    )


def _strata(board: Board, run: Run) -> str:
    """The best entries in groups of test rows."""
    import pyarrow.parquet as pq

    table = pq.read_table(workdirs.per_user_path(Path(run.folder)))
    best = [entry for entry in board.entries if entry.seeds][:_BARS]
    best += [entry for entry in board.entries if not entry.seeds][:1]
    pictures = []
    for heading, column in _STRATA:
        if column not in table.column_names:
            continue
        groups, names = statistics.quarters(np.asarray(table[column], np.float64))
        found = {}
        for entry in best:
            each = [entry.users[board.metric][groups == g] for g in range(len(names))]
            half = [1.96 * v.std() / max(len(v), 1) ** 0.5 for v in each]
            found[entry.name] = (np.array([v.mean() for v in each]), np.array(half))
        grey = [entry.name for entry in best if not entry.seeds]
        pictures.append(figures.bars(heading, names, found, what=board.metric, grey=grey))
    if not pictures:
        return ""
    return page.figure(
        pictures,
        "Test rows in four groups of about the same size, with the range of each; bars of 95 %. "
        f"The best {_BARS} models at most, and the best control in grey.",
    )


def _settings(groups: Mapping[str, list[Run]]) -> str:
    """Dotted settings that are not the same everywhere."""
    each = {name: _flat(json.loads(runs[0].settings)) for name, runs in groups.items()}
    shared: list[list[str]] = []
    others: list[list[str]] = []
    for field in sorted(set().union(*each.values())):
        values = [settings.get(field, "-") for settings in each.values()]
        if len(set(values)) > 1:
            (others if "-" in values else shared).append([field, *values])
    body = page.table(["", *each], shared) if shared else ""
    if others:
        table = page.table(["", *each], others)
        body += f"<details><summary>settings that not all have</summary>{table}</details>"
    return body


def _flat(value: Any, at: str = "") -> dict[str, str]:
    """{"model": {"width": 8}} -> {"model.width": "8"}"""
    if not isinstance(value, dict):
        return {at: value if isinstance(value, str) else json.dumps(value)}
    out: dict[str, str] = {}
    for name, inner in value.items():
        out |= _flat(inner, f"{at}.{name}" if at else name)
    return out


def _runs(groups: Mapping[str, list[Run]]) -> str:
    """Where each entry comes from, and how its runs are made again."""
    said = []
    for name, runs in groups.items():
        folders = ", ".join(escape(run.folder) for run in runs)
        command = runs[0].results.get("command")
        said.append(f"<p><b>{escape(name)}</b> <span class=soft>{folders}</span></p>")
        said.append(page.command(command) if command else "")
    return "".join(said)
