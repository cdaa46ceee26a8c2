"""`bin/report`: the page of a finished run."""

from jaxrec_diff.commands.terminal import (
    FILE,
    Accepts,
    explain,
    quiet_start,
    refuse,
    split_flags,
    trained_workdir,
    waiting,
)

USAGE = """\
usage: bin/report --workdir=DIR

  bin/report --workdir=runs/dimerec-clicks

Writes DIR/report.html, one file that needs no network: curves, metrics beside
controls with intervals, quality against reverse steps, strata, walks of the
reverse process, example users, the data card, settings and the command.
bin/train writes it too where matplotlib is.
"""

ACCEPTS = Accepts({"workdir": FILE})


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    if flags.dotted:
        return refuse(f"unknown flag {flags.dotted[0]}; see bin/report --help")
    workdir = trained_workdir(flags)
    quiet_start()
    from jaxrec_diff.reporting import run_page

    with waiting("writing the report") as tell:
        path = run_page.write(workdir, tell=tell)
    print(f"the report is {path}")
    return 0
