"""The folder of a run: whose it is, what it holds."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.config import Experiment, selection
from jaxrec_diff.config.stored import SCHEMA, check_schema, completed
from jaxrec_diff.experiments import files
from jaxrec_diff.experiments.run import Prepared
from jaxrec_diff.training import tracking


def check_workdir(prepared: Prepared, workdir: Path) -> None:
    """Refuses a workdir that holds a run of other settings or other data, and logs that nothing
    installed can write.

    Raises:
      ValueError: naming the first field that differs, or the package that is missing.
    """
    tracking.check(prepared.experiment.log)
    path = workdir / "config.json"
    if not path.exists():
        if workdir.is_file():
            raise ValueError(f"{workdir} is a file; name a folder")
        if workdir.is_dir() and any(workdir.iterdir()):
            raise ValueError(f"{workdir} is not empty and holds no run; name a new folder")
        return
    there, ours = read_json(path), stored(prepared)
    check_schema(there, path)
    if there.get("preset") == ours["preset"]:
        there = completed(there, prepared.experiment)
    differs = config.difference(there, ours)
    if differs:
        raise ValueError(f"{workdir} holds a run with {differs}; take another workdir")
    card, ours = read_json(workdir / "data_card.json"), prepared.dataset.card
    for name, what in (("hash", "a split"), ("generated_hash", "generated items")):
        there, here = (str(each.get(name, "none"))[:12] for each in (card, ours))
        if there != here:
            raise ValueError(
                f"{workdir} was trained on {what} with hash {there}, this data has {here}; "
                "take another workdir"
            )


def open_workdir(prepared: Prepared, workdir: Path) -> None:
    """Makes the folder of a run, with its settings, data card and vocabulary."""
    if (workdir / "config.json").exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    dataset = prepared.dataset
    files.write_json(workdir / "data_card.json", dataset.card)
    np.savez(
        workdir / "vocab.npz",
        schema=SCHEMA,
        item_ids=dataset.item_ids,
        user_ids=dataset.user_ids,
    )
    files.write_json(workdir / "config.json", stored(prepared))  # last: it marks a whole workdir


def stored(prepared: Prepared) -> dict[str, Any]:
    """The settings of a run as `config.json` holds them."""
    named = {"schema": SCHEMA, "preset": prepared.name, "source": prepared.source}
    return named | config.to_json(prepared.experiment)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        raise ValueError(f"{path} cannot be read as json; take another workdir") from None


def read_config(workdir: Path) -> tuple[str, str, Experiment]:
    """(preset, source, settings) of a workdir.

    Raises:
      ValueError: if `config.json` was damaged or written by another version.
    """
    name, source, settings = selection.read(workdir / "config.json")
    return name, source, settings.experiment


def per_user_path(workdir: Path) -> Path:
    """Where a run keeps the test values of every user."""
    return workdir / "per_user.parquet"
