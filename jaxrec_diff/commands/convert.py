"""`bin/convert`: interactions of any format to a table, or to a versioned TFDS directory."""

from dataclasses import replace
from pathlib import Path

from jaxrec_diff.commands.terminal import (
    ESCAPE,
    FILE,
    PLAIN,
    Accepts,
    explain,
    on,
    refuse,
    split_flags,
)
from jaxrec_diff.ops import files
from jaxrec_diff.reporting.text import counted, wrapped

USAGE = """\
usage: bin/convert --data=SOURCE --output=TARGET [--version=1.0.0]
                   [--csv-escape=true] [--data.user=COLUMN ...]

  bin/convert --data=clicks.csv --output=tfds:datasets/clicks
  bin/convert --data=tfds:datasets/clicks/1.0.0 --output=clicks.parquet
  bin/convert --data=reviews.jsonl.gz --output=clicks.parquet
  bin/convert --data=ratings.txt --data.columns=user,item,-,time \\
              --output=clicks.parquet
  bin/convert --data=sqlite:shop.db --data.table=clicks --output=clicks.parquet

The first makes datasets/clicks/1.0.0, a record a user in array_record files;
bin/train --data=tfds:DIR reads it, and so does any program with
tensorflow-datasets, without TensorFlow. A table (.parquet or .csv) has the
columns user_id, item_id, and rating and timestamp where there are some. A
folder of train, valid and test becomes a folder of parquet tables:
--output=FOLDER. Ids keep their spelling.

{escape}
"""

ACCEPTS = Accepts(
    {"data": FILE, "output": FILE, "version": PLAIN, "csv-escape": ("true", "false")},
    fields="data.",
)


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE.replace("{escape}", ESCAPE))
    for needed in ("data", "output"):
        if needed not in flags.bare:
            return refuse(f"--{needed} is missing; see bin/convert --help")
    source, output, escape = flags.bare["data"], flags.bare["output"], on(flags, "csv-escape")
    from jaxrec_diff import config
    from jaxrec_diff.data import sources, tfds
    from jaxrec_diff.data.card import left_out

    # any model's experiment: only its data settings are looked at
    settings = config.parse(config.preset("mf", "synthetic").experiment, flags.dotted).data
    if source.startswith(tfds.PREFIX):
        columns = tfds.read(Path(source.removeprefix(tfds.PREFIX)))
    else:
        read = sources.read(source, replace(settings, min_rating=None))
        for note in read.notes:
            print(wrapped(note))
        for missing in read.missing.values():
            print(wrapped(left_out(missing).strip()))
        if read.kind != "table":
            return _write_folder(read, source, output)
        columns = read.tables["all"]
    if output.startswith(tfds.PREFIX):
        folder = Path(output.removeprefix(tfds.PREFIX))
        name = folder.name.replace("-", "_").lower()
        path = tfds.write(columns, folder.parent, name, flags.bare.get("version", "1.0.0"))
        print(f"{counted(len(columns.users), 'interaction')} in {path}")
        print(f"train on it with --data=tfds:{path}")
        return 0
    path = Path(output)
    if path.suffix not in (".parquet", ".csv"):
        return refuse(f"--output={output} must be tfds:FOLDER/NAME, or end in .parquet or .csv")
    _write_table(columns, path, escape)
    print(f"{counted(len(columns.users), 'interaction')} in {path}")
    return 0


def _write_folder(read, source: str, output: str) -> int:
    """The tables of a folder that is split, each as parquet."""
    import numpy as np
    import pyarrow as pa

    from jaxrec_diff.data import ids

    folder = Path(output)
    if output.startswith("tfds:") or folder.suffix:
        return refuse(f"{source} is split already; name a folder for its tables: --output=FOLDER")
    if folder.exists() and any(folder.iterdir()):
        return refuse(f"{folder} is not empty; name a new folder")
    for split, rows in read.tables.items():
        path = folder / f"{split}.parquet"
        if read.kind == "pairs":
            _write_table(rows, path)
            count = len(rows.users)
        else:
            ends = rows.offsets[1:] - 1  # a row's history ends where its target stands
            count = len(ends)
            target = np.zeros(len(rows.items), bool)
            target[ends] = True
            offsets = pa.array(rows.offsets - np.arange(count + 1))
            history = pa.LargeListArray.from_arrays(offsets, ids.to_arrow(rows.items[~target]))
            _write(pa.table({"history": history, "target": ids.to_arrow(rows.items[ends])}), path)
        print(f"{counted(count, 'row')} in {path}")
    return 0


def _write_table(columns, path: Path, escape: bool = True) -> None:
    import pyarrow as pa

    from jaxrec_diff.data import ids

    named = {
        "user_id": ids.to_arrow(columns.users),
        "item_id": ids.to_arrow(columns.items),
        "rating": _numbers(columns.ratings),
        "timestamp": _numbers(columns.times),
        "generated": None if columns.generated is None else pa.array(columns.generated),
    }
    table = pa.table({name: values for name, values in named.items() if values is not None})
    _write(table, path, escape)


def _write(table, path: Path, escape: bool = True) -> None:
    import pyarrow.parquet as pq

    from jaxrec_diff.data.formats import cells

    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial:
        if path.suffix == ".parquet":
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
        else:
            with cells.writer(partial, escape=escape) as append:
                append(table)


def _numbers(values):
    import numpy as np
    import pyarrow as pa

    if values is None:
        return None
    return pa.array(values, mask=np.isnan(values) if values.dtype.kind == "f" else None)
