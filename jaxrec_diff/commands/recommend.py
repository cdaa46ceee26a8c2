"""`bin/recommend`: top lists for known users and for new histories."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxrec_diff.commands.terminal import (
    ESCAPE,
    FILE,
    PLAIN,
    SAMPLER,
    Accepts,
    Flags,
    counter,
    explain,
    on,
    quiet_start,
    refuse,
    split_flags,
    trained_workdir,
    whole,
)
from jaxrec_diff.reporting.text import counted, wrapped

USAGE = """\
usage: bin/recommend --workdir=DIR
                     [--users=FILE | --histories=FILE | --history="ID,ID,..."]
                     [--output=FILE] [--k=20] [--seeds=S] [--sampler=KIND]
                     [--sampler-steps=N] [--include-seen] [--titles]
                     [--new-items=FILE]
                     [--csv-escape=true]
                     [--section.field=VALUE ...]

  bin/recommend --workdir=runs/dimerec-clicks --history="shoe-12,hat-3"
  bin/recommend --workdir=runs/dimerec-clicks --output=top.parquet
                                                  for all known users
  bin/recommend --workdir=runs/dimerec-clicks --histories=new.jsonl \\
                --output=top.csv --sampler=ddim --sampler-steps=10 --seeds=5

--users      ids of known users, one a line, or a table with a user column
--histories  new histories in raw ids, oldest first:
               .jsonl         [id, ...] or {"user": name, "history": [id, ...]}
               .parquet .csv  a column `history` (lists, or ids between spaces)
               .txt           ids between spaces, a line each
               any table of interactions, a row each
--output     .parquet or .jsonl (a row a user), .csv (a row an item)
--seeds      draws of the sampler: an item scores the best of them, `spread`
             says how much two draws' lists differ (0 the same, 1 nothing in
             common)
--seed       of the draws
--batch-size histories at once; changes no list
--data       where the interactions are now, if they were moved
--new-items  vectors of items, as for --data.item-features: those that training
             never met are recommended too, of a run with frozen vectors
--titles     titles of items in the file too, of a run with --data.titles=FILE;
             the list of --history always shows them
--quiet      no progress
--json       the summary as one json object, with the list of --history in it
{escape}

Items of a history are no candidates unless --include-seen. Unknown ids are
skipped and counted; where a history has no other, the most popular items stand
in (`fallback`).
"""
ACCEPTS = Accepts(
    {
        "workdir": FILE,
        "users": FILE,
        "histories": FILE,
        "history": PLAIN,
        "output": FILE,
        "k": PLAIN,
        "seeds": PLAIN,
        "seed": PLAIN,
        "sampler": SAMPLER,
        "sampler-steps": PLAIN,
        "batch-size": PLAIN,
        "data": FILE,
        "new-items": FILE,
        "csv-escape": ("true", "false"),
    },
    ("include-seen", "titles", "quiet", "json"),
    fields="",
)


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE.replace("{escape}", ESCAPE))
    bare = flags.bare
    workdir = trained_workdir(flags)
    asked = [name for name in ("users", "histories", "history") if name in bare]
    if len(asked) > 1:
        return refuse(f"--{asked[0]} and --{asked[1]} are two questions; ask one")
    if "output" not in bare and asked != ["history"]:
        return refuse("name a file for the lists: --output=FILE.parquet, .csv or .jsonl")
    output = Path(bare["output"]) if "output" in bare else None
    escape = on(flags, "csv-escape")
    quiet_start()
    from jaxrec_diff import layout
    from jaxrec_diff.inference import files, types
    from jaxrec_diff.inference import recommender as inference_recommender

    if output is not None and output.suffix.lower() not in files.OUTPUTS:
        return refuse(f"--output={output} must end in {', '.join(files.OUTPUTS)}")
    recommender = inference_recommender.load(
        workdir,
        k=whole(flags, "k", 20),
        seeds=whole(flags, "seeds", 1),
        seed=whole(flags, "seed", 0, 0) if "seed" in bare else None,
        sampler=bare.get("sampler"),
        sampler_steps=whole(flags, "sampler-steps", 0, 0) if "sampler-steps" in bare else None,
        include_seen="include-seen" in flags.switches,
        batch_size=_batch_size(flags),
        data=bare.get("data"),
        new_items=bare.get("new-items"),
        flags=flags.dotted,
    )
    titles = _titles(recommender, workdir, "titles" in flags.switches)
    question = _Question(recommender, flags)
    started = time.monotonic()
    tally = types.Tally()
    stream = inference_recommender.ask(recommender, question.histories())
    shown: dict[str, Any] = {}
    if output is None:
        (lists,) = stream
        if "json" in flags.switches:
            lines = files.json_lines(lists, recommender.vocabulary.ids, titles)
            shown = {"lists": [json.loads(line) for line in lines]}
        else:
            print(_table(lists, recommender))
        tally = tally.add(lists)
    else:
        quiet = "quiet" in flags.switches or not layout.first()
        ids = recommender.vocabulary.ids
        with (
            counter("users", question.total, quiet=quiet) as report,
            files.writer(output, ids, titles, csv_escape=escape)
            if layout.first()
            else nullcontext(print) as write,
        ):
            for lists in stream:
                if layout.first():
                    write(lists)
                tally = tally.add(lists)
                report(tally.histories)
    seconds = time.monotonic() - started
    summary = tally._asdict() | {
        "unknown_users": question.unknown_users,
        "examples": question.examples,
        "rows_left_out": question.left_out,
        "seconds": round(seconds, 3),
        "users_per_second": round(tally.histories / max(seconds, 1e-9), 1),
        "peak_memory_mib": _peak_memory(),
        "output": str(output) if output else None,
        **shown,
    }
    if "json" in flags.switches:
        print(json.dumps(summary))
    elif "quiet" not in flags.switches and layout.first():
        print(_words(summary), file=sys.stderr)
    return 0


def _titles(recommender: Any, workdir: Path, asked: bool) -> Any:
    """An arrow array of the items' titles, if they shall be written.

    Raises:
      ValueError: if there are none.
    """
    import pyarrow as pa

    if not asked:
        return None
    if recommender.dataset.titles is None:
        raise ValueError(
            f"{workdir} keeps no titles; train with --data.titles=FILE, or give that here"
        )
    return pa.array(recommender.dataset.titles, pa.string())


def _batch_size(flags: Flags) -> int | None:
    if "history" in flags.bare:
        return 1
    return whole(flags, "batch-size", 1) if "batch-size" in flags.bare else None


class _Question:
    """The stream of histories that the flags ask for, and what it lacked so far."""

    def __init__(self, recommender: Any, flags: Flags):
        from jaxrec_diff.inference import files
        from jaxrec_diff.inference import histories as inference_histories

        self._recommender, self._bare = recommender, flags.bare
        self.examples: list[str] = []
        self.unknown_users = self.left_out = 0
        self.total: int | None = None
        experiment = recommender.experiment
        self._columns = replace(experiment.data, min_rating=None)
        self._users = None
        if "histories" in self._bare:
            self.total = files.count_rows(Path(self._bare["histories"]))
        elif "history" not in self._bare:
            ids = None
            if "users" in self._bare:
                ids = files.read_users(Path(self._bare["users"]), self._columns)
            self._users, missing = inference_histories.numbers(recommender.dataset, ids)
            self.unknown_users, self.examples = len(missing), missing[:5]
            self.total = len(self._users)

    def histories(self) -> Iterator[Any]:
        from jaxrec_diff.inference import histories as inference_histories

        if self._users is not None:
            yield from inference_histories.of_users(self._recommender, self._users)
            return
        for raw in self._raw():
            self.left_out += raw.left_out
            part, missing = inference_histories.encode(
                self._recommender, raw.names, raw.ids, raw.offsets
            )
            self.examples = [*self.examples, *missing][:5]
            yield part

    def _raw(self) -> Iterable[Any]:
        import numpy as np
        import pyarrow as pa

        from jaxrec_diff.inference import files

        if "histories" in self._bare:
            return files.read_histories(Path(self._bare["histories"]), self._columns)
        ids = [word.strip() for word in self._bare["history"].split(",") if word.strip()]
        return [files.Raw(pa.array(["1"]), pa.array(ids, pa.string()), np.array([0, len(ids)]))]


def _table(lists: Any, recommender: Any) -> str:
    """One list for a terminal."""
    ids, titles = recommender.vocabulary.ids, recommender.dataset.titles
    lines = ["rank       score  item"]
    for place, (item, score) in enumerate(zip(lists.items[0], lists.scores[0], strict=True)):
        if item > 0:
            title = "" if titles is None else f"  {titles[item - 1]}"
            lines.append(f"{place + 1:>4}  {score:>10.4f}  {ids[int(item) - 1]}{title}".rstrip())
    if not (lists.items[0] > 0).any():
        lines = ["no candidate is left: every item is in the history (--include-seen lists them)"]
    if lists.fallback[0]:
        lines.append("no id of the history is known: these are the most popular items,")
        lines.append("scored by how often they occur in training")
    if lists.spread is not None:
        lines.append(f"spread over {recommender.draws} draws: {lists.spread[0]:.3f}")
    return "\n".join(lines)


def _words(summary: dict[str, Any]) -> str:
    lines = []
    if summary["output"]:
        lines.append(f"{counted(summary['histories'], 'list')} in {summary['output']}")
        lines.append(
            f"{summary['users_per_second']:,.4g} users/s, "
            f"peak memory {summary['peak_memory_mib']:,} MiB"
        )
    named = f" ({', '.join(summary['examples'])})" if summary["examples"] else ""
    if summary["unknown_users"]:
        lines.append(f"skipped {counted(summary['unknown_users'], 'unknown user')}{named}")
    if summary["unknown_ids"]:
        lines.append(
            f"skipped {counted(summary['unknown_ids'], 'unknown id')}{named} in "
            f"{counted(summary['touched'], 'history')}"
        )
    if summary["rows_left_out"]:
        lines.append(
            f"left out {counted(summary['rows_left_out'], 'row')} without a user, an item or a time"
        )
    if summary["empty"] and summary["output"]:
        lines.append(
            f"no candidate is left, as every item is in the history: "
            f"{counted(summary['empty'], 'list')} without an item (--include-seen)"
        )
    if summary["fallbacks"] and summary["output"]:
        lines.append(
            f"most popular items, because nothing is known: {counted(summary['fallbacks'], 'list')}"
        )
    return wrapped("\n".join(lines))


def _peak_memory() -> int:
    """MiB of this process at its largest."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)
