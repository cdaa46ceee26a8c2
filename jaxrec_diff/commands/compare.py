"""`bin/compare`: a leaderboard of finished runs."""

import sys
from pathlib import Path

from jaxrec_diff.commands.terminal import FILE, PLAIN, Accepts, explain, refuse, split_flags, whole
from jaxrec_diff.reporting.text import wrapped

USAGE = """\
usage: bin/compare DIR [DIR ...] [--metric=ndcg@10]
                   [--metrics=hr@10,ndcg@10,...] [--output=FILE]
                   [--resamples=2000]

  bin/compare runs/dimerec-clicks runs/sasrec-clicks
  bin/compare runs/dimerec-clicks-* runs/sasrec-clicks-* --output=table
                                     table.md, table.csv and table.html

Runs that differ in the seed alone are one line, mean +- deviation over seeds.
Intervals are 95 % by bootstrap over users; p is of a paired t-test over users
against the first line, corrected by Holm. Runs on other splits (the data card's
hash) are refused.

--metric  to sort by        --metrics  columns
--output  NAME.md, NAME.csv or NAME.html; all three without an ending
"""
ACCEPTS = Accepts(
    {"metric": PLAIN, "metrics": PLAIN, "output": FILE, "resamples": PLAIN}, words=True
)
_WRITERS = {".md": "markdown", ".csv": "csv", ".html": "html"}


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    if flags.dotted:
        return refuse(f"unknown flag {flags.dotted[0]}; see bin/compare --help")
    if not flags.words:
        return refuse("name finished workdirs: bin/compare DIR DIR ...")
    from jaxrec_diff.reporting import board_text, leaderboard

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
        endings = [output.suffix] if output.suffix in _WRITERS else list(_WRITERS)
        output.parent.mkdir(parents=True, exist_ok=True)
        for ending in endings:
            path = output if output.suffix in _WRITERS else Path(f"{output}{ending}")
            path.write_text(getattr(board_text, _WRITERS[ending])(board))
            print(f"written {path}", file=sys.stderr)
    return 0
