"""A page of html that needs nothing else, neither network nor script; for phones and paper too."""

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --wash: #f6f8fa; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: #fff; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; padding-top: .5rem;
  border-top: 1px solid var(--line); }
p { margin: .5rem 0; } .soft { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
  margin: .5rem 0; }
th, td { padding: .3rem .65rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
td.text, th.text { text-align: left; } td.text { white-space: normal; min-width: 9rem; }
td small { color: var(--soft); font-weight: 400; }
tr.best td { font-weight: 600; background: var(--wash); }
figure { margin: .75rem 0; } figure svg { max-width: 100%; height: auto; display: block; }
.side { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; }
figcaption { color: var(--soft); font-size: .875rem; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 6px; padding: .75rem;
  overflow-x: auto; font-size: .8rem; }
details > summary { cursor: pointer; color: var(--soft); }
.hit { font-weight: 700; text-decoration: underline; text-underline-offset: 2px; }
@media (max-width: 36rem) { .stack tr:first-child { display: none; }
  .stack tr { display: block; padding: .4rem 0; border-bottom: 1px solid var(--line); }
  .stack td { display: block; text-align: left; white-space: normal; border: 0; padding: .1rem 0; }
  .stack td[data-what]::before { content: attr(data-what) ": "; color: var(--soft); } }
@page { size: A4; margin: 14mm; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; margin-top: 1.25rem; } figure, tr, pre { break-inside: avoid; }
  .side { flex-wrap: nowrap; } .side > div { flex: 1 1 0; min-width: 0; }
  figure svg { max-height: 9cm; } pre { white-space: pre-wrap; } .scroll { overflow: visible; } }
"""


def document(title: str, sections: Sequence[tuple[str, str]], lead: str = "") -> str:
    """A whole page.

    Args:
      title: plain text.
      sections: (heading as plain text or "", body as html).
      lead: html under the title.
    """
    parts = []
    for heading, body in sections:
        parts.append(f"<section>{f'<h2>{escape(heading)}</h2>' if heading else ''}{body}</section>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"</head><body><h1>{escape(title)}</h1>{lead}{''.join(parts)}</body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, best: int | None = None) -> str:
    """A table of plain texts; `best` is a row to set off; a second line of a cell is small."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{_cell(cell)}</td>" for cell in row)
        lines.append(f'<tr class="best">{cells}</tr>' if number == best else f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _cell(text: str) -> str:
    first, newline, rest = text.partition("\n")
    return escape(first) + (f"<br><small>{escape(rest)}</small>" if newline else "")
