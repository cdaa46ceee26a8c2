"""The folder of a run: whose it is, what it holds.

config.json        the settings, which the same command must have to go on
data_card.json     what the data was, vocab.npz its ids and titles
item_scaling.npz   how vectors of items were scaled, where some were given
metrics.jsonl      a line an epoch
checkpoints/       the newest states and the best
stages/NAME/       the same of an earlier phase, and export.npz, the arrays it hands on
results.json       the figures of a finished run
per_user.parquet   the test values of every user
report.html        all of it as a page
run.lock           who writes there now
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff import config, layout
from jaxrec_diff.config import Experiment, choice
from jaxrec_diff.config.stored import SCHEMA, check_schema, completed, read_json
from jaxrec_diff.data import ids, item_features
from jaxrec_diff.data.formats.arrays import members
from jaxrec_diff.data.item_features import Scaling
from jaxrec_diff.experiments import exports, json_files, locks
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.ops import files
from jaxrec_diff.training import tracking

_TITLES = "item_titles"
_SCALING = "item_scaling.npz"

# What a set-up that was cut short leaves: config.json is written last.
_SET_UP = {
    locks.NAME,
    *("data_card.json", "vocab.npz", _SCALING),
    *(f"{name}.partial" for name in ("data_card.json", "vocab.npz", _SCALING, "config.json")),
}


def check(run: Run, workdir: Path) -> None:
    """Refuses a workdir that holds a run of other settings or other data, and logs that nothing
    installed can write.

    Raises:
      ValueError: naming the first field that differs, or the package that is missing.
    """
    tracking.check(run.experiment.log)
    path = workdir / "config.json"
    if not path.exists():
        if workdir.is_file():
            raise ValueError(f"{workdir} is a file; name a folder")
        if workdir.is_dir() and {each.name for each in workdir.iterdir()} - _SET_UP:
            raise ValueError(f"{workdir} is not empty and holds no run; name a new folder")
        return
    there = read_json(path, "take another workdir")
    ours = stored(run.name, run.source, run.experiment)
    check_schema(there, path)
    if not {"preset", "source", "model", "train"} <= there.keys():
        raise ValueError(f"{path} holds no settings of a run; take another workdir")
    if there.get("preset") != ours["preset"]:
        raise ValueError(
            f"{workdir} holds a run of {there.get('preset')}, not of {run.name}; take another "
            "workdir"
        )
    there = completed(there, run.experiment)
    differs = config.difference(there, ours)
    if differs:
        raise ValueError(f"{workdir} holds a run with {differs}; take another workdir")
    card, ours = read_card(workdir), run.dataset.card
    for name, what in (
        ("hash", "a split"),
        ("generated_hash", "generated items"),
        (item_features.HASH, "vectors of items"),
    ):
        there, here = (str(each.get(name, "none"))[:12] for each in (card, ours))
        if there != here:
            raise ValueError(
                f"{workdir} was trained on {what} with hash {there}, this data has {here}; "
                "take another workdir"
            )


@contextmanager
def opened(run: Run, workdir: Path) -> Iterator[None]:
    """The folder of a run for this process alone, or for several that share the run, made if it is
    not there.

    Raises:
      ValueError: if it holds something else, or another process writes there.
      files.Unwritable: if the disk takes nothing more, in the block too.
    """
    layout.by_first(lambda: check(run, workdir))
    with files.writing(workdir), ExitStack() as held:

        def take() -> None:
            workdir.mkdir(parents=True, exist_ok=True)
            held.enter_context(locks.writer(workdir))
            check(run, workdir)  # nobody else can change it any more
            create(run, workdir)

        layout.by_first(take)
        yield


def create(run: Run, workdir: Path) -> None:
    """Makes the folder of a run, with its settings, data card and vocabulary."""
    if (workdir / "config.json").exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    dataset = run.dataset
    json_files.write_json(workdir / "data_card.json", dataset.card)
    packed = ids.pack("item_ids", dataset.item_ids) | ids.pack("user_ids", dataset.user_ids)
    if dataset.titles is not None:
        packed |= ids.pack(_TITLES, dataset.titles)
    exports.write(workdir / "vocab.npz", {"schema": np.array(SCHEMA)} | packed)
    if dataset.item_vectors is not None:
        scaling = dataset.item_vectors.scaling._asdict()
        exports.write(workdir / _SCALING, {"schema": np.array(SCHEMA)} | scaling)
    settings = stored(run.name, run.source, run.experiment)
    json_files.write_json(workdir / "config.json", settings)  # last: it marks a whole workdir


def read_card(workdir: Path) -> dict[str, Any]:
    """The data card of a workdir.

    Raises:
      ValueError: if it was damaged.
    """
    path = workdir / "data_card.json"
    card = read_json(path, "take another workdir")
    if not isinstance(card, dict) or not isinstance(card.get("hash"), str):
        raise ValueError(f"{path} holds no data card; take another workdir")
    return card


class Vocabulary(NamedTuple):
    """What `vocab.npz` holds."""

    items: np.ndarray  # raw id of item j + 1
    users: np.ndarray
    titles: np.ndarray | None  # text of item j + 1, where the run was given some


def read_vocabulary(workdir: Path) -> Vocabulary:
    """The raw ids of items and of users that a workdir was trained on, and the items' titles.

    Raises:
      ValueError: if `vocab.npz` was damaged or written by another version.
    """
    path = workdir / "vocab.npz"
    try:
        arrays = members(path)
        items, users = (ids.unpack(f"{side}_ids", arrays) for side in ("item", "user"))
        there = any(name.startswith(_TITLES) for name in arrays)
        titles = ids.unpack(_TITLES, arrays) if there else None
    except (OSError, KeyError, ValueError, TypeError):
        raise ValueError(f"{path} cannot be read; train again in another workdir") from None
    check_schema({"schema": arrays.get("schema", SCHEMA)}, path)
    return Vocabulary(items, users, titles)


def read_scaling(workdir: Path) -> Scaling:
    """How the vectors of items were scaled that a workdir was trained on.

    Raises:
      ValueError: if there were none, or the file was damaged.
    """
    path = workdir / _SCALING
    if not path.exists():
        raise ValueError(f"{workdir} was trained without data.item-features; train it with them")
    try:
        arrays = members(path)
        scaling = Scaling(arrays["mean"], arrays["basis"])
    except (KeyError, ValueError):
        raise ValueError(f"{path} cannot be read; train again in another workdir") from None
    check_schema({"schema": arrays.get("schema", SCHEMA)}, path)
    return scaling


def stored(preset: str, source: str, experiment: Experiment) -> dict[str, Any]:
    """Settings as `config.json` holds them."""
    named = {"schema": SCHEMA, "preset": preset, "source": source}
    return named | config.to_json(experiment)


def read_config(workdir: Path) -> tuple[str, str, Experiment]:
    """(preset, source, settings) of a workdir.

    Raises:
      ValueError: if `config.json` was damaged or written by another version.
    """
    kept = choice.read(workdir / "config.json")
    return kept.name, kept.source, kept.settings.experiment


def results_path(workdir: Path) -> Path:
    """Where a finished run keeps its figures."""
    return workdir / "results.json"


def per_user_path(workdir: Path) -> Path:
    """Where a run keeps the test values of every user."""
    return workdir / "per_user.parquet"
