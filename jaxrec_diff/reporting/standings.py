"""The tables of a contest: quality, what it cost, and what could not be run."""

import csv as csv_module
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.config import presets
from jaxrec_diff.data.formats import cells
from jaxrec_diff.reporting import board_text, page, parity
from jaxrec_diff.reporting.leaderboard import Board, Run


class Row(NamedTuple):
    """A line of the table."""

    name: str
    kind: str  # "model", "control" or "not run"
    seeds: int
    means: dict[str, float]
    deviations: dict[str, float | None]  # over seeds; None where there is one
    difference: float | None  # from the first, in the board's metric
    p: float | None  # paired over users, after Holm's correction
    trials: int  # settings that it was tuned over; 0: taken as it is
    train_seconds: float | None  # mean over seeds
    coverage: float | None  # share of items in any top-20 list
    gini: float | None  # of how often items are shown
    why: str = ""  # what a run that was not finished said
    official: str = ""  # how its authors rank
    published: str = ""  # a figure of theirs, and who printed it
    ours: float | None = None  # by their rules, on the data of that figure
    verdict: str = ""  # whether the two agree, or why they cannot be compared


def rows(
    board: Board, runs: Sequence[Run], failed: Mapping[str, str], trials: int
) -> tuple[Row, ...]:
    """The lines of a contest, best first, what was not run behind them.

    Args:
      board: of the runs.
      runs: of all models and seeds.
      failed: a sentence for each job that did not end well, by its name.
      trials: of each model's search.
    """
    out = []
    controls = runs[0].results["controls"]
    for entry, apart in zip(board.entries, board.differences, strict=True):
        own = [run.results for run in runs if entry.seeds and _named(entry.name, run)]
        shown = [each["diagnostics"] for each in own]
        out.append(
            Row(
                entry.name,
                "model" if entry.seeds else "control",
                entry.seeds,
                entry.means,
                {k: v if np.isfinite(v) else None for k, v in entry.deviations.items()},
                apart.mean if apart else None,
                apart.p_holm if apart else None,
                trials if entry.seeds else controls.get(entry.name, {}).get("trials", 0),
                _mean([each["train_seconds"] for each in own]),
                _mean([each["coverage@20"] for each in shown]),
                _mean([each["gini@20"] for each in shown]),
                **(_parity(own, board.dataset) if own else {}),
            )
        )
    for name, why in failed.items():
        out.append(Row(name, "not run", 0, {}, {}, None, None, 0, None, None, None, why))
    return tuple(out)


def _parity(own: Sequence[Mapping[str, Any]], data: str) -> dict[str, Any]:
    """A system's own rules and published figure beside ours, of this contest or of a file."""
    name = own[0]["model"].rpartition("+")[2]  # a recommender on items that it generated
    if name not in presets.preset_names():
        return {}
    here = parity.of_results(
        {str(number): {**each, "model": name} for number, each in enumerate(own)}
    )
    found = (*here, *parity.measured(parity.results_folder()))
    each = parity.nearest(parity.parity(name, found), data)
    told: dict[str, Any] = {"official": parity.official(name)}
    if each is None:
        return told | {"verdict": "not run (nothing published that could be checked)"}
    why = f" ({each.why})" if each.why else ""
    return told | {
        "published": parity.published(each.figure), "ours": each.ours,
        "verdict": each.verdict + why,
    }  # fmt: skip


def plain(board: Board, rows: Sequence[Row]) -> str:
    """For a terminal of 80 columns: the metric that counts, and what it cost."""
    width = max(len(row.name) for row in rows) + 2
    lines = [f"{'':<{width}}{board.metric:>9}    +-std  vs first  trials  train s  coverage"]
    for row in rows:
        if row.kind == "not run":
            lines.append(f"{row.name:<{width}}not run: {row.why}")
            continue
        std = row.deviations[board.metric]
        lines.append(
            f"{row.name:<{width}}{row.means[board.metric]:9.4f} {_text(std, '.4f'):>8}  "
            f"{_text(row.difference, '+.4f'):>8}  {row.trials or '-':>6}  "
            f"{_text(row.train_seconds, ',.0f'):>7}  {_text(row.coverage, '.1%'):>8}"
        )
    return "\n".join([*lines, board_text.caption(board)])


def markdown(board: Board, rows: Sequence[Row]) -> str:
    """For a README."""
    head, body = _head(board), [_cells(board, row) for row in rows]
    lines = [board_text.caption(board), "", "| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * len(head))
    lines += ["| " + " | ".join(cells) + " |" for cells in body]
    head, body = _parities(rows)
    if body:
        lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(cells) + " |" for cells in body]
    return "\n".join(lines) + "\n"


def csv(board: Board, rows: Sequence[Row]) -> str:
    """All figures in full, a line an entry; no text is a spreadsheet's formula."""
    file = io.StringIO()
    out = csv_module.writer(file, lineterminator="\n")
    names = [name for metric in board.metrics for name in (metric, f"{metric}_std")]
    plain = ("difference", "p", "trials", "train_seconds", "coverage", "gini", "why",
             "official", "published", "ours", "verdict")  # fmt: skip
    out.writerow(["name", "kind", "seeds", *names, *plain])
    for row in rows:
        figures = [
            value
            for metric in board.metrics
            for value in (row.means.get(metric), row.deviations.get(metric))
        ]
        rest = [getattr(row, name) for name in plain]
        whole = [row.name, row.kind, row.seeds, *figures, *rest]
        inert = [cells.inert(cell) if isinstance(cell, str) else cell for cell in whole]
        out.writerow(["" if cell is None else cell for cell in inert])
    return file.getvalue()


def latex(board: Board, rows: Sequence[Row]) -> str:
    """A tabular for a paper; the best of a column is bold."""
    head = _head(board)
    lines = [
        f"% {board_text.caption(board)}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(map(board_text.tex, head)) + r" \\",
        r"\midrule",
    ]
    for row in rows:
        cells = [board_text.tex(cell) for cell in _cells(board, row)]
        cells = [rf"\textbf{{{cell[2:-2]}}}" if cell.startswith("**") else cell for cell in cells]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def html(board: Board, rows: Sequence[Row]) -> str:
    """A page of its own, whose columns a click on their heads sorts."""
    cells = [[cell.replace("**", "") for cell in _cells(board, row)] for row in rows]
    table = page.table(_head(board), cells, best=0)
    head, told = _parities(rows)
    table += page.table(head, told) if told else ""
    body = f"<p>{escape(board_text.caption(board))}</p>{table}{_SORT}"
    return page.document(f"Leaderboard on {board.dataset}", [("", body)])


WRITERS = {".md": markdown, ".csv": csv, ".tex": latex, ".html": html}
"""The writers of files, by ending."""

_SORT = """<script>
for (const table of document.querySelectorAll("table")) {
  const [head, ...rows] = table.rows;
  [...head.cells].forEach((cell, column) => {
    cell.tabIndex = 0; cell.style.cursor = "pointer"; cell.setAttribute("aria-sort", "none");
    const sort = () => {
      const down = cell.getAttribute("aria-sort") !== "descending";
      for (const other of head.cells) other.setAttribute("aria-sort", "none");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const of = row => row.cells[column].textContent;
      const number = text => parseFloat(text.replace(/,/g, ""));
      rows.sort((a, b) => {
        const [x, y] = [number(of(a)), number(of(b))];
        if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || of(a).localeCompare(of(b));
        return down ? y - x : x - y;
      });
      table.tBodies[0].append(...rows);
    };
    cell.onclick = sort;
    cell.onkeydown = event => { if (event.key === "Enter" || event.key === " ") sort(); };
  });
}
</script>"""


def _head(board: Board) -> list[str]:
    return [
        "entry", "seeds", *board.metrics, f"{board.metric} vs first", "p (Holm)", "trials",
        "train s", "coverage@20", "gini@20",
    ]  # fmt: skip


def _cells(board: Board, row: Row) -> list[str]:
    if row.kind == "not run":
        return [row.name, f"not run: {row.why}", *[""] * (len(board.metrics) + 6)]
    cells = [row.name, str(row.seeds) if row.seeds else "control"]
    for metric in board.metrics:
        best = max(entry.means[metric] for entry in board.entries)
        text = f"{row.means[metric]:.4f}"
        if row.deviations[metric] is not None:
            text += f" ± {row.deviations[metric]:.4f}"
        cells.append(f"**{text}**" if row.means[metric] == best else text)
    return [
        *cells,
        _text(row.difference, "+.4f"),
        "" if row.p is None else board_text.p(row.p),
        str(row.trials) if row.trials else "-",
        _text(row.train_seconds, ",.0f"),
        _text(row.coverage, ".3f"),
        _text(row.gini, ".3f"),
    ]


def _parities(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """What was published of each system beside ours, as head and cells."""
    head = ["entry", "its authors rank so", "published", "ours", "verdict"]
    return head, [
        [row.name, row.official, row.published, _text(row.ours, ".4f"), row.verdict]
        for row in rows
        if row.verdict
    ]


def _named(entry: str, run: Run) -> bool:
    return entry == run.name or entry.startswith(f"{run.name} (")


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
