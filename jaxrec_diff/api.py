"""Train, evaluate and recommend from Python, on tables in memory.

    from jaxrec_diff import api
    results = api.train("sasrec", clicks, "runs/shop")
    again = api.evaluate("runs/shop", split="valid")
    lists = api.recommend("runs/shop", histories=[["shoe-12", "hat-3"]], k=10)

These are the runs that the commands make: `bin/report --workdir=runs/shop` goes on from here, and
`api.recommend` from what `bin/train` left.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.experiments import judging, pipeline, restore, runs
from jaxrec_diff.inference.recommend import recommend
from jaxrec_diff.inference.recommender import load
from jaxrec_diff.ops import files
from jaxrec_diff.training.progress import Progress

__all__ = ["evaluate", "load", "recommend", "train"]

Settings = Mapping[str, Any]


def train(
    model: str,
    interactions: Any,
    workdir: str | Path,
    *,
    settings: Settings | None = None,
    preset: str = "",
    backbone: str = "",
    log: pipeline.Log = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains a model and returns what `results.json` holds; the same call again continues a run.

    Args:
      model: name of a preset, as `bin/train --model` takes it.
      interactions: what `--data` takes, or a table with a column of users, one of items and, where
        there are some, of ratings and times: a DataFrame of pandas or polars, an arrow table, a
        structured array, or a mapping of names to arrays. A table is kept as WORKDIR.parquet, where
        later calls and the commands find it.
      workdir: where everything goes.
      settings: dotted fields with values of their types, {"train.num_epochs": 5,
        "data.item": "sku", "eval.ks": (5, 10)}.
      preset: take the settings published for this data set, or those of a json file.
      backbone: what a model of several phases starts from.
      log: is told what happens, in words.
      on_progress: is told the steps.

    Raises:
      ValueError: in one sentence, on data or settings that cannot be used.
      signals.Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    folder = Path(workdir)
    named = {"model": model, "data": _source(interactions, folder)}
    given = {name: value for name, value in (("preset", preset), ("backbone", backbone)) if value}
    chosen = config.choose(named | given)
    experiment = config.configure(chosen.settings.experiment, settings or {})
    run = runs.prepare(chosen.name, experiment, chosen.source)
    return pipeline.train(run, folder, log=log, on_progress=on_progress)


def evaluate(
    workdir: str | Path,
    *,
    split: str = "test",
    settings: Settings | None = None,
    data: str | None = None,
) -> dict[str, Any]:
    """Evaluates the best checkpoint of a workdir, as `bin/evaluate` does; writes nothing.

    Args:
      workdir: what `train` left.
      split: "valid" or "test".
      settings: dotted fields, {"model.sampler.kind": "ddim", "model.sampler.steps": 10,
        "eval.seeds": 5}.
      data: where the interactions are now, if they were moved.

    Raises:
      ValueError: if there is no run, or on settings that do not fit it.
    """
    folder = Path(workdir)
    run = restore.reopen(folder, data=data, settings=settings or {})
    return judging.evaluation(run, folder, split)[0]


def _source(interactions: Any, workdir: Path) -> str:
    """What was given if it is a name; else the file that the table was written to."""
    if isinstance(interactions, str | Path):
        return str(interactions)
    import pyarrow.parquet as pq

    table = _table(interactions)
    path = workdir.with_name(workdir.name + ".parquet")
    if path.exists() and (workdir / "config.json").exists():
        if not pq.read_table(path).equals(table):
            raise ValueError(f"{workdir} holds a run on other interactions; take another workdir")
        return str(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
    return str(path)


def _table(given: Any) -> Any:
    """An arrow table of plain columns.

    Raises:
      ValueError: if what was given has no columns, or columns of several lengths.
    """
    import pyarrow as pa

    if not hasattr(given, "__arrow_c_stream__") and callable(getattr(given, "collect", None)):
        given = given.collect()  # a LazyFrame
    if isinstance(given, pa.Table) or hasattr(given, "__arrow_c_stream__"):
        try:
            table = pa.table(given)
        except (pa.ArrowException, TypeError, ValueError):  # a column, not a table
            raise _no_table(given) from None
    else:
        if isinstance(given, Mapping):
            names = list(given)
        elif isinstance(given, np.ndarray):
            names = list(given.dtype.names or ())
        else:
            names = list(getattr(given, "columns", ()))
        if not names:
            raise _no_table(given)
        lists = {name: given[name] for name in names}
        columns = {name: _flat(values) for name, values in lists.items()}
        if len({len(column) for column in columns.values()}) > 1 or any(
            np.ndim(column) != 1 for column in columns.values()
        ):
            shapes = ", ".join(f"{n} {np.shape(c)}" for n, c in columns.items())
            raise ValueError(f"columns of interactions must be of one length, got {shapes}")
        table = pa.table({str(name): _arrow(str(name), c) for name, c in columns.items()})
    kept = [name for name in table.column_names if not name.startswith("__index_level_")]
    plain = table.select(kept).replace_schema_metadata(None)
    for place, column in enumerate(plain.columns):
        if pa.types.is_dictionary(column.type):
            decoded = column.cast(column.type.value_type)
            plain = plain.set_column(place, plain.column_names[place], decoded)
    return plain


def _no_table(given: Any) -> ValueError:
    return ValueError(
        f"interactions of type {type(given).__name__} have no named columns; give a file's "
        "path, a DataFrame, or a mapping such as {'user_id': [...], 'item_id': [...]}"
    )


def _flat(values: Any) -> Any:
    """A column as an array; a list of text and numbers keeps each as it is."""
    if isinstance(values, list | tuple):
        out = np.empty(len(values), object)
        for place, value in enumerate(values):
            out[place] = value
        return out
    return np.asarray(values)


def _arrow(name: str, column: Any) -> Any:
    """A column for arrow; text beside whole numbers makes all of it text.

    Raises:
      ValueError: if it holds anything else that is mixed.
    """
    import pyarrow as pa

    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        pass
    known = (str, int, np.integer)
    missing = [value is None or value != value for value in column]
    for value, absent in zip(column, missing, strict=True):
        if not absent and (not isinstance(value, known) or isinstance(value, bool)):
            raise ValueError(
                f"column {name!r} of the interactions mixes types: {value!r} is a "
                f"{type(value).__name__} beside text or numbers; make it one type"
            )
    words = [None if gone else str(v) for v, gone in zip(column, missing, strict=True)]
    return pa.array(words, pa.string())
