"""A page of html that needs nothing else: no network, and no script to be read; light or dark as
the reader's screen is, for phones and paper too."""

from collections.abc import Sequence
from html import escape

from jaxrec_diff.reporting.drawing import DARK_STYLE, LIGHT_STYLE

_COLOURS = f"""
:root {{ color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4;
  --wash: #f6f8fa; --link: #0b5cad; {LIGHT_STYLE} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ --ink: #e6e9ec; --soft: #9aa4ae;
  --line: #2d333b; --wash: #171c23; --link: #7cc0ff; {DARK_STYLE} }} }}
"""
_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--paper);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
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
.prose td, .prose th { text-align: left; white-space: normal; vertical-align: top; }
td:first-child code { white-space: nowrap; }
nav { margin-bottom: 1rem; } code { overflow-wrap: anywhere; } h3 { font-size: 1rem; }
td small { color: var(--soft); font-weight: 400; } a { color: var(--link); }
.verdict { font-size: 1.05rem; } .verdict li { margin: .15rem 0; }
ul.verdict { margin: .5rem 0; padding-left: 1.2rem; }
tr.best td { font-weight: 600; background: var(--wash); }
figure { margin: .75rem 0; } figure svg { max-width: 100%; height: auto; display: block; }
.side { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; }
figcaption { color: var(--soft); font-size: .875rem; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 6px; padding: .75rem;
  overflow-x: auto; font-size: .8rem; }
.command { position: relative; } .command pre { padding-right: 4.5rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.command button { position: absolute; top: .5rem; right: .5rem; font: inherit; font-size: .75rem;
  color: var(--ink); background: var(--paper); border: 1px solid var(--line); border-radius: 5px;
  padding: .2rem .6rem; cursor: pointer; }
details > summary { cursor: pointer; color: var(--soft); }
.hit { font-weight: 700; text-decoration: underline; text-underline-offset: 2px; }
@media (max-width: 36rem) {
  table:not(.stack) th:first-child, table:not(.stack) td:first-child { position: sticky; left: 0;
    background: var(--paper); white-space: normal; min-width: 6rem; }
  table:not(.stack) tr.best td:first-child { background: var(--wash); }
  .stack tr:first-child { display: none; }
  .stack tr { display: block; padding: .4rem 0; border-bottom: 1px solid var(--line); }
  .stack td { display: block; text-align: left; white-space: normal; border: 0; padding: .1rem 0; }
  .stack td[data-what]::before { content: attr(data-what) ": "; color: var(--soft); } }
@page { size: A4; margin: 14mm; }
@media print { body { max-width: none; padding: 0; font-size: 9.5pt; }
  table { font-size: 8.5pt; } th, td { padding: .15rem .5rem; }
  h2 { break-after: avoid; margin-top: .9rem; } figure, tr, pre { break-inside: avoid; }
  .side { flex-wrap: nowrap; } .side > div { flex: 1 1 0; min-width: 0; }
  figure svg { max-height: 6.6cm; } pre { white-space: pre-wrap; } .scroll { overflow: visible; }
  .command button { display: none; } }
"""
_COPY = """<script>
for (const box of document.querySelectorAll(".command")) {
  const text = box.querySelector("pre"), button = document.createElement("button");
  button.textContent = "copy";
  button.onclick = async () => {
    try { await navigator.clipboard.writeText(text.textContent); }
    catch { getSelection().selectAllChildren(text); document.execCommand("copy"); }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  };
  box.append(button);
}
</script>"""


def document(
    title: str, sections: Sequence[tuple[str, str]], lead: str = "", *, above: str = ""
) -> str:
    """A whole page.

    Args:
      title: plain text.
      sections: (heading as plain text or "", body as html).
      lead: html under the title.
      above: html over it.
    """
    parts = []
    for heading, body in sections:
        parts.append(f"<section>{f'<h2>{escape(heading)}</h2>' if heading else ''}{body}</section>")
    inside = "".join(parts)
    script = _COPY if 'class="command"' in inside else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{_COLOURS}{_STYLE}</style>"
        f"</head><body>{above}<h1>{escape(title)}</h1>{lead}{inside}{script}</body></html>\n"
    )


def command(text: str) -> str:
    """A command with a button that copies it."""
    return f'<div class="command"><pre>{escape(text)}</pre></div>'


def figure(pictures: str | Sequence[str], caption: str = "") -> str:
    """A picture, or some side by side, and what is to be said of them."""
    inside = pictures
    if not isinstance(pictures, str):
        inside = f'<div class="side">{"".join(f"<div>{each}</div>" for each in pictures)}</div>'
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{inside}{words}</figure>"


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
