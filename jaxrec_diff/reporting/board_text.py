"""A leaderboard as markdown, plain text, csv and html."""

import csv as csv_module
import io

import numpy as np

from jaxrec_diff.data.formats import cells
from jaxrec_diff.reporting.leaderboard import Board


def markdown(board: Board) -> str:
    """A table for a paper or a pull request."""
    lines = [caption(board), "", *_rows(board, "| ", " | ", " |")]
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
            + (f"   {apart.mean:+.4f}   {p(apart.p_holm):>9}" if apart else "")
        )
    return "\n".join([*lines, caption(board)])


def csv(board: Board) -> str:
    """A row an entry, all figures in full; no name is a spreadsheet's formula."""
    head = ["name", "seeds"]
    for name in board.metrics:
        head += [name, f"{name}_std", f"{name}_low", f"{name}_high"]
    head += ["difference", "difference_low", "difference_high", "p", "p_holm"]
    file = io.StringIO()
    out = csv_module.writer(file, lineterminator="\n")
    out.writerow(head)
    for entry, apart in zip(board.entries, board.differences, strict=True):
        row = [cells.inert(entry.name), str(entry.seeds)]
        for name in board.metrics:
            figures = (entry.means[name], entry.deviations[name], *entry.intervals[name])
            row += ["" if np.isnan(figure) else f"{figure:.6g}" for figure in figures]
        out.writerow(row + ([f"{figure:.6g}" for figure in apart] if apart else [""] * 5))
    return file.getvalue()


def html(board: Board) -> str:
    """A page of its own."""
    from jaxrec_diff.reporting import page

    rows = _rows(board, "", "\t", "")
    table = page.table(
        rows[0].split("\t"), [row.replace("**", "").split("\t") for row in rows[1:]], best=0
    )
    return page.document(
        f"Comparison on {board.dataset}", [("", f"<p>{caption(board)}</p>{table}")]
    )


def _rows(board: Board, left: str, between: str, right: str) -> list[str]:
    head = ["entry", "seeds", *board.metrics, f"{board.metric} vs first", "p (Holm)"]
    lines = [left + between.join(head) + right]
    for entry, apart in zip(board.entries, board.differences, strict=True):
        row = [entry.name, str(entry.seeds) if entry.seeds else "control"]
        for name in board.metrics:
            best = max(other.means[name] for other in board.entries)
            text = f"{entry.means[name]:.4f}"
            if np.isfinite(entry.deviations[name]):
                text += f" ± {entry.deviations[name]:.4f}"
            row.append(f"**{text}**" if entry.means[name] == best else text)
        if apart:
            row.append(f"{apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]")
            row.append(p(apart.p_holm))
        else:
            row += ["", ""]
        lines.append(left + between.join(row) + right)
    return lines


def caption(board: Board) -> str:
    return (
        f"{board.dataset}, test split of {board.num_users:,} users (hash {board.data_hash[:12]}), "
        f"{board.protocol} protocol. Intervals: 95 %, {board.resamples:,} paired bootstrap "
        "resamples of users; p: paired t-test over users against the first, Holm-corrected."
    )


def p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"
