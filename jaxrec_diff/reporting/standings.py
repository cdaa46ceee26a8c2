"""The tables of a contest: quality, what it cost, and what could not be run."""

import csv as csv_module
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.benchmarking import serving
from jaxrec_diff.config import presets
from jaxrec_diff.data.formats import cells
from jaxrec_diff.experiments import contest, entrants
from jaxrec_diff.reporting import board_text, diffusion, leaderboard, orders, page, parity, text
from jaxrec_diff.reporting.leaderboard import Board, Run


class Row(NamedTuple):
    """A line of the table."""

    name: str
    kind: str  # "model", "control", "not run" or "not yet run"
    seeds: int
    means: dict[str, float]
    deviations: dict[str, float | None]  # over seeds; None where there is one
    difference: float | None  # from the first, in the board's metric
    p: float | None  # paired over users, after Holm's correction
    trials: int  # settings that it was tuned over; 0: taken as it is
    cost: "Cost"
    coverage: float | None  # share of items in any top-20 list
    gini: float | None  # of how often items are shown
    why: str = ""  # what a run that was not finished said
    official: str = ""  # how its authors rank
    published: str = ""  # a figure of theirs, and who printed it
    ours: float | None = None  # by their rules, on the data of that figure
    verdict: str = ""  # whether the two agree, or why they cannot be compared
    diffusion: Mapping[str, Any] = MappingProxyType({})  # from `diffusing.control`
    diffuses: bool = False  # it has a reverse process
    rising: bool = False  # validation was at its best in the last evaluation of some seed
    order: Mapping[str, Any] = MappingProxyType({})  # from `orders.mean`
    theirs: Mapping[str, float] = MappingProxyType({})  # the board's metric here, ranked as
    # its authors rank: of itself and, under the same rules, of the bars of `_BARS`


class Cost(NamedTuple):
    """What a line takes; None where it was not measured."""

    train_seconds: float | None = None  # mean over seeds; of a control, over its trials
    cpu_seconds: float | None = None  # of training, all threads
    parameters: int | None = None
    steps: int | None = None  # of the reverse process, 0 without
    users_per_second: float | None = None  # at serving, by the wall clock
    users_per_processor_second: float | None = None


class Beside(NamedTuple):
    """What a contest holds beside its runs, by model."""

    trials: Mapping[str, int] = MappingProxyType({})  # of their searches
    failed: Mapping[str, str] = MappingProxyType({})  # a sentence by the name of a job
    left: Sequence[str] = ()  # names of jobs that are not done yet
    serving: Mapping[str, Mapping[str, Any]] = MappingProxyType({})  # from `serving.speed`
    diffusions: Mapping[str, Mapping[str, Any]] = MappingProxyType({})  # from `diffusing.control`


def rows(board: Board, runs: Sequence[Run], beside: Beside) -> tuple[Row, ...]:
    """The lines of a contest, best first, what was not run behind them.

    Args:
      board: of the runs.
      runs: of all models and seeds.
      beside: what else there is.
    """
    out, there = [], set()
    bars = leaderboard.with_bars(runs).results
    tuned, seconds = bars["controls"], bars.get("control_seconds", {})
    for entry, apart in zip(board.entries, board.differences, strict=True):
        of = [run for run in runs if entry.seeds and _named(entry.name, run)]
        own = [run.results for run in of]
        shown = [each["diagnostics"] for each in own]
        model = contest.model_of(Path(of[0].folder)) if of else entry.name
        there.add(model)
        took = tuned.get(entry.name, {}).get("trials", 0)
        out.append(
            Row(
                entry.name,
                "model" if entry.seeds else "control",
                entry.seeds,
                entry.means,
                {k: v if np.isfinite(v) else None for k, v in entry.deviations.items()},
                apart.mean if apart else None,
                apart.p_holm if apart else None,
                beside.trials.get(model, 0) if entry.seeds else took,
                _cost(own, beside.serving.get(model, {}))
                if own
                else Cost(seconds[entry.name] / max(took, 1) if entry.name in seconds else None),
                _mean([each["coverage@20"] for each in shown]),
                _mean([each["gini@20"] for each in shown]),
                diffusion=beside.diffusions.get(model, {}),
                diffuses=bool(own) and entrants.diffuses(board.dataset, model),
                rising=any(each["best_step"] == each["steps"] for each in own),
                order=orders.mean([r["order"] for r in own if r.get("order")], board.metric),
                theirs=_by_their_rules(own, board.metric),
                **(_parity(own, board.dataset) if own else {}),
            )
        )
    nothing = 0, {}, {}, None, None, 0, Cost(), None, None  # type: ignore[var-annotated]
    out += [Row(name, "not run", *nothing, why) for name, why in beside.failed.items()]
    left = dict.fromkeys(job.split()[0] for job in beside.left)
    out += [Row(name, "not yet run", *nothing) for name in left if name not in there]
    return tuple(out)


def _cost(own: Sequence[Mapping[str, Any]], served: Mapping[str, Any]) -> Cost:
    def mean(name: str) -> float | None:
        return _mean([each[name] for each in own if name in each])

    return Cost(
        mean("train_seconds"), mean("cpu_seconds"), served.get("parameters"),
        served.get("reverse_steps"), served.get("users_per_second"),
        served.get("users_per_processor_second"),
    )  # fmt: skip


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


def _by_their_rules(own: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Means over seeds of a figure under the official rules, beside bars under the same."""
    under = [each["protocols"].get("official", {}) for each in own]
    found = {_ITSELF: [each.get("metrics", {}) for each in under]}
    found |= {bar: [each.get("controls", {}).get(bar, {}) for each in under] for bar in _BARS}
    return {
        name: float(np.mean([each[metric] for each in values]))
        for name, values in found.items()
        if values and all(metric in each for each in values)
    }


def plain(board: Board, rows: Sequence[Row]) -> str:
    """For a terminal of 80 columns: the metric that counts, and what it cost."""
    width = max(len(row.name) for row in rows) + 2
    lines = [f"{'':<{width}}{board.metric:>9}    +-std  vs first  trials  train s  coverage"]
    for row in rows:
        if not row.means:
            lines.append(f"{row.name:<{width}}{_said(row)}")
            continue
        std = row.deviations[board.metric]
        lines.append(
            f"{row.name:<{width}}{row.means[board.metric]:9.4f} {_text(std, '.4f'):>8}  "
            f"{_text(row.difference, '+.4f'):>8}  {row.trials or '-':>6}  "
            f"{_text(row.cost.train_seconds, ',.0f'):>7}  {_text(row.coverage, '.1%'):>8}"
        )
    return "\n".join([*lines, board_text.caption(board)])


def markdown(board: Board, rows: Sequence[Row], note: str = "") -> str:
    """For a README; `note` stands under the caption, as in all that follow.

    Args:
      board: that the rows are of; its entries are not read, here and in all that follow but `csv`.
      rows: of the standing.
      note: a sentence.
    """
    lines = [board_text.caption(board), COSTS, *([note] if note else [])]
    for head, body in _tables(board, rows):
        lines += ["", text.table(head, body)]
    for name, said in _verdicts(rows).items():
        lines += ["", f"{name}: {said}."]
    return "\n".join(lines) + "\n"


def csv(board: Board, rows: Sequence[Row], note: str = "") -> str:
    """All figures in full, a line an entry; no text is a spreadsheet's formula."""
    del note
    file = io.StringIO()
    out = csv_module.writer(file, lineterminator="\n")
    names = [name for metric in board.metrics for name in (metric, f"{metric}_std")]
    plain = ("difference", "p", "trials", *Cost._fields, "coverage", "gini", "why",
             "official", "published", "ours", "verdict")  # fmt: skip
    theirs = (_ITSELF, *_BARS)
    changes = ["diffusion_metric", *diffusion.ROWS, "two draws' top 10"]
    order = [f"order_{name}" for name in ("metric", *orders.SHOWN, "overlap")]
    out.writerow(
        ["name", "kind", "seeds", *names, *plain, *changes, *order]
        + [f"{name}_{board.metric}_by_its_rules" for name in theirs]
    )
    for row in rows:
        figures = [
            value
            for metric in board.metrics
            for value in (row.means.get(metric), row.deviations.get(metric))
        ]
        told = row._asdict() | row.cost._asdict()
        whole = [row.name, row.kind, row.seeds, *figures, *(told[name] for name in plain)]
        whole += _changes(row.diffusion)
        whole += [row.order.get(name.removeprefix("order_")) for name in order]
        whole += [row.theirs.get(name) for name in theirs]
        inert = [cells.inert(cell) if isinstance(cell, str) else cell for cell in whole]
        out.writerow(["" if cell is None else cell for cell in inert])
    return file.getvalue()


def latex(board: Board, rows: Sequence[Row], note: str = "") -> str:
    """Tabulars for a paper; the best of a column is bold."""
    lines = [f"% {board_text.caption(board)}", f"% {COSTS}", *([f"% {note}"] if note else [])]
    for head, body in _all_tables(board, rows)._replace(parities=_NONE):
        if not body:
            continue
        lines += [
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            " & ".join(map(board_text.tex, head)) + r" \\",
            r"\midrule",
        ]
        for row in body:
            cells = [board_text.tex(cell) for cell in row]
            cells = [rf"\textbf{{{c[2:-2]}}}" if c.startswith("**") else c for c in cells]
            lines.append(" & ".join(cells) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def html(board: Board, rows: Sequence[Row], note: str = "") -> str:
    """A page of its own, whose columns a click on their heads sorts."""
    tables = _all_tables(board, rows)
    head, body = tables.standing
    bare = [[cell.replace("**", "") for cell in line] for line in body]
    words = f"<p>{escape(board_text.caption(board))} {escape(COSTS)} {escape(note)}</p>"
    sections = [("", words + page.table(head, bare, best=0))]
    if tables.changed[1]:
        said = [f"<li>{escape(f'{name}: {told}.')}</li>" for name, told in _verdicts(rows).items()]
        verdicts = f'<ul class="verdict">{"".join(said)}</ul>' if said else ""
        sections.append(("Does it diffuse?", page.table(*tables.changed) + verdicts))
    if tables.ordered[1]:
        sections.append(("Does order matter?", page.table(*tables.ordered)))
    if tables.parities[1]:
        sections.append(
            (
                "By the rules of its authors, and beside published figures",
                page.table(*tables.parities),
            )
        )
    heading, last = sections[-1]
    sections[-1] = (heading, last + _SORT)
    return page.document(f"Leaderboard on {board.dataset}", sections)


_ITSELF, _BARS = "itself", ("popularity", "transitions")

COSTS = (
    "Seconds: of training the phase that recommends (no backbone, no generator), by the clock and "
    "of all processors, means over seeds; of a control, of a trial. users/s: a processor second at "
    f"serving (on an accelerator by the clock), {serving.BATCH} histories at once to lists of "
    f"{serving.LIST}, warm."
)
"""What the columns of costs mean."""

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


Table = tuple[list[str], list[list[str]]]  # head and cells
_NONE: Table = [], []


class _Tables(NamedTuple):
    """All that are told of a contest; one without rows is left out."""

    standing: Table
    changed: Table  # what the diffusions are worth
    ordered: Table  # what the order of histories is worth
    parities: Table


def _all_tables(board: Board, rows: Sequence[Row]) -> _Tables:
    asked = {row.name: row.diffusion for row in rows if row.diffusion}
    best = {each: max(row.means[each] for row in rows if row.means) for each in board.metrics}
    standing = (_head(board), [_cells(board, row, best) for row in rows])
    mixed = {row.name: row.order for row in rows if row.order}
    ordered = orders.across(mixed)
    return _Tables(standing, diffusion.across(asked), ordered, _parities(board, rows))


def _tables(board: Board, rows: Sequence[Row]) -> list[Table]:
    return [table for table in _all_tables(board, rows) if table[1]]


def _verdicts(rows: Sequence[Row]) -> dict[str, str]:
    """What the diffusion of each is worth, in a sentence."""
    said = {row.name: diffusion.verdict(row.diffusion) for row in rows if row.diffusion}
    return {name: each for name, each in said.items() if each}


def _changes(found: Mapping[str, Any]) -> list[Any]:
    if not found:
        return [None] * (len(diffusion.ROWS) + 2)
    metric, own = found["metric"], found["rows"]
    return [metric, *(own.get(name, {}).get(metric) for name in diffusion.ROWS), found["draws"]]


def _head(board: Board) -> list[str]:
    return [
        "entry", "seeds", *board.metrics, f"{board.metric} vs first", "p (Holm)", "trials",
        "train s", "processor s", "parameters", "reverse steps", "users/s", "coverage@20",
        "gini@20",
    ]  # fmt: skip


def _cells(board: Board, row: Row, best: Mapping[str, float]) -> list[str]:
    if not row.means:
        return [row.name, _said(row), *[""] * (len(board.metrics) + 10)]
    cells = [row.name, str(row.seeds) if row.seeds else "control"]
    for metric in board.metrics:
        text = f"{row.means[metric]:.4f}"
        if row.deviations[metric] is not None:
            text += f" ± {row.deviations[metric]:.4f}"
        cells.append(f"**{text}**" if row.means[metric] == best[metric] else text)
    cost = row.cost
    served = cost.users_per_processor_second or cost.users_per_second
    return [
        *cells,
        _text(row.difference, "+.4f"),
        "" if row.p is None else board_text.p(row.p),
        str(row.trials) if row.trials else "-",
        short(cost.train_seconds),
        short(cost.cpu_seconds),
        _text(cost.parameters, ","),
        "-" if cost.steps == 0 else _text(cost.steps, ","),
        short(served),
        _text(row.coverage, ".3f"),
        _text(row.gini, ".3f"),
    ]


def short(value: float | None) -> str:
    """Three digits at least, and no more of what is below a hundred."""
    return _text(value, ",.3g" if (value or 0.0) < 100 else ",.0f")


def _said(row: Row) -> str:
    return row.kind + (f": {row.why}" if row.why else "")


def _parities(board: Board, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Each system ranked as its authors rank, and what was published of it beside ours."""
    so = [f"{board.metric} here, so", *(f"{bar}, so" for bar in _BARS)]
    head, body = ["entry", "its authors rank so", *so, "published", "ours", "verdict"], []
    for row in rows:
        if row.verdict:
            figures = [_text(row.theirs.get(name), ".4f") for name in (_ITSELF, *_BARS)]
            ours = _text(row.ours, ".4f")
            body.append([row.name, row.official, *figures, row.published, ours, row.verdict])
    return head, body


def _named(entry: str, run: Run) -> bool:
    return entry == run.name or entry.startswith(f"{run.name} (")


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
