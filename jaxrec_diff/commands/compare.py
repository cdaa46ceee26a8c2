"""`bin/compare`: a leaderboard of finished runs."""

import sys
from collections.abc import Callable
from pathlib import Path

from jaxrec_diff.commands.terminal import FILE, PLAIN, Accepts, explain, refuse, split_flags, whole
from jaxrec_diff.reporting.text import wrapped

USAGE = """\
usage: bin/compare DIR [DIR ...] [--metric=ndcg@10]
                   [--metrics=hr@10,ndcg@10,...] [--output=FILE]
                   [--resamples=2000]

  bin/compare runs/dimerec-clicks runs/sasrec-clicks
  bin/compare runs/dimerec-clicks-* runs/sasrec-clicks-* --output=table
                                     table.md, .csv, .tex and a page, .html

Runs that differ in the seed alone are one line, mean +- deviation over seeds.
Intervals are 95 % by bootstrap over users; p is of a paired t-test over users
against the first line, corrected by Holm. Runs on other splits (the data card's
hash) are refused.

--metric  to sort by        --metrics  columns
--output  NAME.md, NAME.csv, NAME.tex or NAME.html, a page with intervals,
          curves, cost, settings that differ and strata; all of them without an
          ending
"""
ACCEPTS = Accepts(
    {"metric": PLAIN, "metrics": PLAIN, "output": FILE, "resamples": PLAIN}, words=True
)


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    if flags.dotted:
        return refuse(f"unknown flag {flags.dotted[0]}; see bin/compare --help")
    if not flags.words:
        return refuse("name finished workdirs: bin/compare DIR DIR ...")
    from jaxrec_diff.ops import files
    from jaxrec_diff.reporting import board_text, compare_page, leaderboard

    runs = [leaderboard.read(Path(folder)) for folder in flags.words]
    metrics = [name for name in flags.bare.get("metrics", "").split(",") if name]
    board = leaderboard.board(
        runs,
        metrics,
        metric=flags.bare.get("metric"),
        resamples=whole(flags, "resamples", 2000, 100),
    )
    print(wrapped(board_text.plain(board)))
    if "output" in flags.bare:
        output = Path(flags.bare["output"])
        writers: dict[str, Callable[[leaderboard.Board], str]] = {
            ".md": board_text.markdown,
            ".csv": board_text.csv,
            ".tex": board_text.latex,
            ".html": lambda board: compare_page.document(board, runs),
        }
        one = output.suffix in writers
        output.parent.mkdir(parents=True, exist_ok=True)
        for ending in [output.suffix] if one else writers:
            path = output if one else Path(f"{output}{ending}")
            with files.replacing(path) as partial:
                partial.write_text(writers[ending](board))
            print(f"written {path}", file=sys.stderr)
    return 0
