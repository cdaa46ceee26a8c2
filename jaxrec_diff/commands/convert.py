"""`bin/convert`: interactions to a versioned TFDS directory, and back to a table."""

from dataclasses import replace
from pathlib import Path

from jaxrec_diff.commands.terminal import FILE, PLAIN, Accepts, explain, refuse, split_flags
from jaxrec_diff.reporting.text import counted, wrapped

USAGE = """\
usage: bin/convert --data=SOURCE --output=TARGET [--version=1.0.0]
                   [--data.user=COLUMN ...]

  bin/convert --data=clicks.csv --output=tfds:datasets/clicks
  bin/convert --data=tfds:datasets/clicks/1.0.0 --output=clicks.parquet

The first makes datasets/clicks/1.0.0, a record a user in array_record files;
bin/train --data=tfds:DIR reads it, and so does any program with
tensorflow-datasets, without TensorFlow. A table (.parquet or .csv) has the
columns user_id, item_id, and rating and timestamp where there are some.
"""

ACCEPTS = Accepts({"data": FILE, "output": FILE, "version": PLAIN}, fields="data.")


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    for needed in ("data", "output"):
        if needed not in flags.bare:
            return refuse(f"--{needed} is missing; see bin/convert --help")
    source, output = flags.bare["data"], flags.bare["output"]
    from jaxrec_diff import config
    from jaxrec_diff.data import sources, tfds
    from jaxrec_diff.data.card import left_out

    # any model's experiment: only its data settings are looked at
    settings = config.parse(config.preset("mf", "synthetic").experiment, flags.dotted).data
    if source.startswith(tfds.PREFIX):
        columns = tfds.read(Path(source.removeprefix(tfds.PREFIX)))
    else:
        read = sources.read(source, replace(settings, min_rating=None))
        if read.kind != "table":
            return refuse(f"{source} is split already; a conversion takes one table")
        columns = read.tables["all"]
        for missing in read.missing.values():
            print(wrapped(left_out(missing).strip()))
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
    _write_table(columns, path)
    print(f"{counted(len(columns.users), 'interaction')} in {path}")
    return 0


def _write_table(columns, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv

    named = {
        "user_id": columns.users,
        "item_id": columns.items,
        "rating": columns.ratings,
        "timestamp": columns.times,
    }
    table = pa.table({name: values for name, values in named.items() if values is not None})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        csv.write_csv(table, path)
