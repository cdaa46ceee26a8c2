"""`bin/augment`: all sequences with generated items ahead of them, as a file of interactions."""

import json
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from jaxrec_diff.commands.terminal import (
    ESCAPE,
    FILE,
    PLAIN,
    Accepts,
    counter,
    explain,
    on,
    quiet_start,
    refuse,
    split_flags,
    trained_workdir,
    whole,
)
from jaxrec_diff.ops import files

USAGE = """\
usage: bin/augment --workdir=DIR --output=FILE [--data=SOURCE] [--max-items=N]
                   [--batch-size=1024] [--csv-escape=true] [--force] [--quiet]
                   [--section.field=VALUE ...]

  bin/augment --workdir=runs/diffuasr-amazon-beauty --output=longer.parquet
  bin/train --model=sasrec --data=longer.parquet

--output     .parquet, .csv or .tsv: a row an interaction with user_id, item_id,
             timestamp (the place in the sequence, negative ahead of it) and
             generated (1 or 0), which the loaders read: generated items are
             shown to a model and are never a target
--data       other interactions with the same items
--max-items  only users with at most so many training items get any
--force      replaces the file
{escape}

Generated items see training items only. The run's settings hold unless a flag
changes them, such as
  --data.prefix-dedup=true         an item at most once ahead of a user
  --data.prefix-exclude-seen=true  none that is in the user's history
  --data.prefix-max-items=N        what --max-items=N says
  --model.guidance-weight=2, --model.sampler.steps=5
An augmentation that was stopped goes on where it was.
"""
ACCEPTS = Accepts(
    {
        "workdir": FILE, "output": FILE, "data": FILE, "batch-size": PLAIN, "max-items": PLAIN,
        "csv-escape": ("true", "false"),
    },
    ("force", "quiet"),
    fields="",
)  # fmt: skip
_RECIPE, _WRITTEN = "recipe.json", "written"
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE.replace("{escape}", ESCAPE))
    workdir = trained_workdir(flags)
    if "output" not in flags.bare:
        return refuse("name a file for the sequences: --output=FILE.parquet, .csv or .tsv")
    output, force = Path(flags.bare["output"]), "force" in flags.switches
    escape = on(flags, "csv-escape")
    if output.suffix.lower() not in (".parquet", *_SEPARATORS):
        return refuse(f"--output={output} must end in .parquet, .csv or .tsv")
    parts = output.with_name(output.name + ".parts")
    if output.exists() and parts.is_dir():
        kept = [path.name for path in parts.iterdir()]
        if _WRITTEN in kept or not kept:
            _clear(parts)  # a kill left them beside the whole file
    if output.exists() and not force:
        return refuse(f"{output} exists; --force replaces it")
    quiet_start()
    import numpy as np

    from jaxrec_diff import config
    from jaxrec_diff.experiments import generation, restore

    dotted = list(flags.dotted)
    if "max-items" in flags.bare:
        dotted.append(f"--data.prefix-max-items={whole(flags, 'max-items', 1)}")
    trained = restore.reopen(workdir, dotted, flags.bare.get("data"))
    experiment = trained.experiment
    phase, train = generation.generator_of(trained, workdir)
    size = whole(flags, "batch-size", experiment.eval.batch_size)

    settings = config.to_json(experiment)
    settings["eval"] = {}  # changes no item
    recipe = {
        "workdir": str(workdir.resolve()),
        "settings": settings,
        "data": trained.dataset.card["hash"],
    }
    started, total = time.monotonic(), trained.dataset.num_users
    with files.holding(parts, output):
        done = _resume(parts, recipe, force)
        with counter("users", total, quiet="quiet" in flags.switches) as report:
            for first, items in generation.chunks(phase, train, batch_size=size, first=done):
                part = parts / f"{first:012d}.npz"
                with files.replacing(part) as partial, partial.open("wb") as file:
                    np.savez(file, items=items)
                report(first + len(items))
        seconds = time.monotonic() - started
        count, owners = _write(output, parts, trained.dataset, escape)
        _clear(parts)
    print(
        f"{count:,} generated items ahead of the sequences of {owners:,} of {total:,} users in "
        f"{output}, "
        f"{(total - done) / max(seconds, 1e-9):,.0f} users/s"
    )
    return 0


def _resume(parts: Path, recipe: dict[str, Any], force: bool) -> int:
    """The user to go on with, from what an earlier run left."""

    from jaxrec_diff.experiments import json_files

    known = parts / _RECIPE
    left = [path for path in parts.iterdir() if not path.name.startswith(_RECIPE)]
    if known.exists() or left:
        try:
            same = json.loads(known.read_text()) == json.loads(json.dumps(recipe))
        except (OSError, ValueError, RecursionError):
            same = False
        if not same and not force:
            raise ValueError(
                f"{parts} was begun with other settings; --force starts again, or remove it"
            )
        if not same:
            _empty(parts)
    if not known.exists():
        json_files.write_json(known, recipe)
    done = 0
    for path in sorted(parts.glob("[0-9]*.npz")):
        try:
            whole = int(path.stem) == done and len(_items(path))
        except (OSError, ValueError, EOFError):
            whole = 0
        if not whole:  # it and what follows are made again
            path.unlink()
            continue
        done += whole
    return done


def _items(part: Path) -> Any:
    """What was generated for some users, i32[b, M].

    Raises:
      ValueError: if the file was damaged.
    """
    from jaxrec_diff.data.formats.arrays import members

    arrays = members(part)
    if "items" not in arrays or arrays["items"].ndim != 2:
        raise ValueError(f"{part} holds no items; the same command makes it again")
    return arrays["items"]


def _empty(parts: Path) -> None:
    """Removes what an augmentation keeps on its way, the file that tells whose it is last."""
    for path in parts.glob("[0-9]*.np[yz]*"):
        path.unlink()
    for name in (_RECIPE + ".partial", _RECIPE, _WRITTEN):
        (parts / name).unlink(missing_ok=True)


def _clear(parts: Path) -> None:
    _empty(parts)
    with suppress(OSError):  # what is not ours stays
        parts.rmdir()


def _write(output: Path, parts: Path, dataset: Any, escape: bool) -> tuple[int, int]:
    """Streams the parts and the sequences into one file; returns how many items are generated, and
    for how many users."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jaxrec_diff.data.formats import cells
    from jaxrec_diff.ops import ragged

    user_items = dataset.user_items
    by_place = np.argsort(user_items.start, kind="stable")
    stops = np.empty_like(user_items.start)  # where a user's whole sequence ends
    stops[by_place] = np.append(user_items.start[by_place][1:], len(user_items.items))
    total, owners = 0, 0
    with files.replacing(output) as partial, ExitStack() as opened:
        append: Any = None
        for path in sorted(parts.glob("[0-9]*.npz")):
            first, items = int(path.stem), _items(path)
            users = np.arange(first, first + len(items))
            sizes = stops[users].astype(np.int64) - user_items.start[users]
            given = (items > 0).sum(axis=1)
            # first generated items, the last of which is place -1, then places 1, 2, ...
            place, owner = ragged.expand(-given, given + sizes)
            made = place < 0
            flat = np.empty(len(owner), np.int64)
            flat[made] = items[items > 0]
            flat[~made] = user_items.items[user_items.start[users][owner[~made]] + place[~made]]
            table = pa.table(
                {
                    "user_id": dataset.user_ids[users[owner]],
                    "item_id": dataset.item_ids[flat - 1],
                    "timestamp": np.where(made, place, place + 1),
                    "generated": made.astype(np.int8),
                }
            )
            if append is None and output.suffix.lower() == ".parquet":
                append = opened.enter_context(pq.ParquetWriter(partial, table.schema)).write_table
            elif append is None:
                separator = _SEPARATORS[output.suffix.lower()]
                append = opened.enter_context(
                    cells.writer(partial, separator=separator, escape=escape)
                )
            append(table)
            total += int(made.sum())
            owners += int((given > 0).sum())
        opened.close()
        (parts / _WRITTEN).touch()
    return total, owners
