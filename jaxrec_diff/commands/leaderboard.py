"""`bin/leaderboard`: every model on one data set, under one protocol and one budget."""

import json
import sys
from pathlib import Path

from jaxrec_diff.commands.terminal import (
    FILE,
    PLAIN,
    Accepts,
    explain,
    muted,
    refuse,
    spelled,
    split_flags,
    whole,
)
from jaxrec_diff.config.presets import preset_names
from jaxrec_diff.reporting.text import wrapped

USAGE = """\
usage: bin/leaderboard [--data=SOURCE] [--models=A,B,...] [--seeds=3]
                       [--budget=MINUTES|trials:N] [--controls=A,B,...]
                       [--protocol=honest] [--output=DIR] [--diffuses]
                       [--quiet] [--json]
                       [--section.field=VALUE ...]

  bin/leaderboard --data=clicks.csv            all models, as their presets are
  bin/leaderboard --data=clicks.csv --models=dimerec,sasrec --budget=trials:24
                                               tuned, all with the same budget

Trains every model on one data set, a run a seed, and lays them side by side
with classics tuned with the same budget. First seeds come first, and
DIR (default runs/leaderboard-DATA) gets leaderboard.md, .csv, .tex, .html, .json
after every job. Stopped anywhere, the same command goes on; several at once, on
one disk, share the work. A model that the data does not suit is named with the
reason.

--budget    of tuning, the same for each model and each classic: minutes of all
            its trials together, or a number of trials; without it presets are
            taken as they are, and classics over at most 24 settings
--controls  classics (default item_knn,ease; none takes none, all takes all)
--diffuses  ask of each diffusion model what its lists owe to its diffusion: one
            call of the network, without x_t, with another's x_0 or the true one
--protocol  honest, or official: each model by its own authors' rules, which
            cannot share a table unless they agree
--eval.shuffles=N  asks the models that read histories in their order what it is
            worth to them, in a table of its own
"""
ACCEPTS = Accepts(
    {
        "data": FILE, "models": PLAIN, "seeds": PLAIN, "budget": PLAIN, "controls": PLAIN,
        "protocol": ("honest", "official"), "output": FILE,
    },
    ("diffuses", "quiet", "json"),
    fields="",
)  # fmt: skip
_DEFAULT_CONTROLS = "item_knn,ease"


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    from jaxrec_diff.classics import grids
    from jaxrec_diff.data.sources import dataset_name
    from jaxrec_diff.experiments import contest, signals

    source = flags.bare.get("data", "synthetic")
    controls = flags.bare.get("controls", _DEFAULT_CONTROLS)
    chosen = contest.Contest(
        source,
        tuple(flags.bare.get("models", ",".join(preset_names())).split(",")),
        whole(flags, "seeds", 3),
        contest.budget(flags.bare.get("budget", "trials:0")),
        {"none": (), "all": grids.names()}.get(controls, tuple(controls.split(","))),
        (f"--eval.protocol={flags.bare.get('protocol', 'honest')}", *flags.dotted),
        Path(flags.bare.get("output", f"runs/leaderboard-{dataset_name(source)}")),
        "diffuses" in flags.switches,
    )
    contest.check(chosen)
    with muted(flags.switches):
        written: list = []

        def after(outcome) -> None:
            if outcome.done:
                written[:] = _write(chosen, outcome)

        try:
            outcome = contest.run(chosen, log=lambda text: print(text, flush=True), after=after)
        except signals.Interrupted as error:
            print(f"{error}; what is done stands in {_board(chosen)}", file=sys.stderr)
            return 128 + error.signum
        if not written:
            return refuse(
                "no run was finished: " + "; ".join(f"{k}: {v}" for k, v in outcome.failed.items())
            )
        board, rows, found = written
        _tell(chosen, board, rows)
    if "json" in flags.switches:
        print(json.dumps({"folder": str(chosen.folder)} | found))
    return 0


def _board(chosen, ending: str = ".md") -> Path:
    return chosen.folder / f"leaderboard{ending}"


def _write(chosen, outcome):
    """Writes the tables of what is done; the board, its rows, and both as a record."""
    from jaxrec_diff.config.stored import read_json
    from jaxrec_diff.experiments import json_files, locks
    from jaxrec_diff.ops import files
    from jaxrec_diff.reporting import leaderboard, records, standings

    runs = [leaderboard.read(folder) for folder in outcome.done]
    bars = leaderboard.with_bars(runs)
    judged = next(place for place, run in enumerate(runs) if run is bars)
    for name, path in outcome.classics.items():
        runs[judged] = leaderboard.with_baseline(runs[judged], name, path)
    board = leaderboard.board(runs)
    beside = standings.Beside(
        outcome.trials,
        outcome.failed,
        outcome.left,
        {name: read_json(path)["serving"] for name, path in outcome.serving.items()},
        {name: read_json(path)["diffusion"] for name, path in outcome.diffusions.items()},
    )
    rows = standings.rows(board, runs, beside)
    kept = records.record(chosen, board, rows, runs)
    with locks.turn(chosen.folder / "tables.lock"):
        for ending, write in standings.WRITERS.items():
            with files.replacing(_board(chosen, ending)) as partial:
                partial.write_text(write(board, rows, records.note(kept["budget"])))
        json_files.write_json(_board(chosen, ".json"), kept)
    return board, rows, kept


def _tell(chosen, board, rows) -> None:
    """Prints the table for a terminal."""
    from jaxrec_diff.reporting import diffusion, standings

    for ending in (*standings.WRITERS, ".json"):
        print(f"written {_board(chosen, ending)}", file=sys.stderr)
    print(wrapped(standings.plain(board, rows)))
    for row in rows:
        if row.diffusion:
            told = diffusion.verdict(row.diffusion) or "not all could be asked"
            print(wrapped(f"{row.name}: {told}"))
    print(spelled(f"\nbin/compare {chosen.folder}/runs/* compares any two of them"))
