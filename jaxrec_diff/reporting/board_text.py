"""A leaderboard as markdown, LaTeX, csv and plain text; `compare_page` makes a page of it."""

import csv as csv_module
import io

import numpy as np

from jaxrec_diff.data.formats import cells as formula
from jaxrec_diff.reporting import text
from jaxrec_diff.reporting.leaderboard import Board, Difference

LEVEL = 0.05
"""A p below which the first is said to be better."""
ALIKE = "†"
"""Marks an entry that the first is not significantly better than."""
ALIKE_SAYS = f"not significantly behind the first (p of {LEVEL:g} or more, after Holm)"


def markdown(board: Board) -> str:
    """A table for a paper or a pull request."""
    head, *rows = cells(board)
    note = ["", f"{ALIKE}: {ALIKE_SAYS}."] * any(map(alike, board.differences))
    return "\n".join([caption(board), "", text.table(head, rows), *note]) + "\n"


def latex(board: Board) -> str:
    """A tabular for a paper (booktabs); the best of a column is bold."""
    head, *rows = cells(board)
    lines = [
        f"% {caption(board)}",
        *[f"% $^{{\\dagger}}$: {ALIKE_SAYS}."] * any(map(alike, board.differences)),
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(map(tex, head)) + r" \\",
        r"\midrule",
    ]
    for row in rows:
        told = [tex(cell) for cell in row]
        told = [rf"\textbf{{{cell[2:-2]}}}" if cell.startswith("**") else cell for cell in told]
        lines.append(" & ".join(told) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def tex(text: str) -> str:
    """A text with what LaTeX would take for commands escaped."""
    for plain in "&%_#":
        text = text.replace(plain, f"\\{plain}")
    text = text.replace("<", "$<$").replace("±", r"$\pm$")
    return text.replace(f" {ALIKE}", r"$^{\dagger}$")


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
            + f" {ALIKE}" * alike(apart)
        )
    note = [f"{ALIKE} {ALIKE_SAYS}"] * any(map(alike, board.differences))
    return "\n".join([*lines, *note, caption(board)])


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
        row = [formula.inert(entry.name), str(entry.seeds)]
        for name in board.metrics:
            figures = (entry.means[name], entry.deviations[name], *entry.intervals[name])
            row += ["" if np.isnan(figure) else f"{figure:.6g}" for figure in figures]
        out.writerow(row + ([f"{figure:.6g}" for figure in apart] if apart else [""] * 5))
    return file.getvalue()


def alike(apart: Difference | None) -> bool:
    """Whether an entry is not significantly behind the first."""
    return apart is not None and apart.p_holm >= LEVEL


def cells(board: Board) -> list[list[str]]:
    """The head and a row an entry, as texts; the best of a column stands between `**`."""
    rows = [["entry", "seeds", *board.metrics, f"{board.metric} vs first", "p (Holm)"]]
    for entry, apart in zip(board.entries, board.differences, strict=True):
        name = entry.name + f" {ALIKE}" * alike(apart)
        row = [name, str(entry.seeds) if entry.seeds else "control"]
        for metric in board.metrics:
            best = max(other.means[metric] for other in board.entries)
            text = f"{entry.means[metric]:.4f}"
            if np.isfinite(entry.deviations[metric]):
                text += f" ± {entry.deviations[metric]:.4f}"
            row.append(f"**{text}**" if entry.means[metric] == best else text)
        if apart:
            row.append(f"{apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]")
            row.append(p(apart.p_holm))
        else:
            row += ["", ""]
        rows.append(row)
    return rows


def caption(board: Board) -> str:
    return (
        f"{board.dataset}, test split of {board.num_users:,} users (hash {board.data_hash[:12]}), "
        f"{board.protocol} protocol. Intervals: 95 %, {board.resamples:,} paired bootstrap "
        "resamples of users; p: paired t-test over users against the first, Holm-corrected."
    )


def p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"
