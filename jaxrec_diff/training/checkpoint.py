"""Latest and best training states on disk, through Orbax.

Orbax's own rule of thumb, `best_fn` with `max_to_keep`, deletes the newest checkpoint when an older
one is better, and a resumed run then goes back in time; hence the union of two policies.
A score is what `experiments.selection` makes of a state; here the highest is the best.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxrec_diff.training.state import TrainState

# Orbax reports every array it handles; a damaged checkpoint is reported here, in one sentence.
logging.getLogger("absl").setLevel(logging.ERROR)

_SCORE = "score"


class Restored(NamedTuple):
    """A checkpoint read back."""

    train: TrainState
    meta: dict
    damaged: tuple[int, ...]  # newer steps that could not be read


@contextmanager
def manager(folder: Path) -> Iterator[ocp.CheckpointManager]:
    """A manager that keeps the two latest checkpoints and the one with the best score."""

    def score(metrics):
        return metrics[_SCORE]

    keep = policies.AnyPreservationPolicy(
        [
            policies.LatestN(2),
            policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        best_fn=score, best_mode="max", preservation_policy=keep, cleanup_tmp_directories=True
    )
    with ocp.CheckpointManager(folder.resolve(), options=options) as opened:
        yield opened


def set_aside(folder: Path) -> tuple[int, ...]:
    """Renames checkpoints whose metrics cannot be read, before which Orbax would not even open.

    Returns:
      Their steps, newest first.
    """
    damaged = []
    for path in sorted(folder.glob("*/metrics/metrics")):
        step = path.parent.parent
        if not step.name.isdigit():  # set aside before
            continue
        try:
            json.loads(path.read_text())
        except ValueError:
            damaged.append(int(step.name))
            aside = folder / f"damaged-{step.name}"
            shutil.rmtree(aside, ignore_errors=True)  # of an earlier kill at the same step
            step.rename(aside)
    return tuple(sorted(damaged, reverse=True))


def save(checkpoints: ocp.CheckpointManager, train: TrainState, meta: dict, score: float) -> None:
    """Writes a state in the background; `meta` is json.

    Raises:
      RuntimeError: if Orbax declines the step.
    """
    step = int(train.step)
    if step in checkpoints.all_steps():
        return
    args = ocp.args.Composite(state=ocp.args.StandardSave(train), meta=ocp.args.JsonSave(meta))
    if not checkpoints.save(step, args=args, metrics={_SCORE: score}, force=True):
        raise RuntimeError(f"checkpoint of step {step} was not written")


def restore(checkpoints: ocp.CheckpointManager, like: TrainState) -> Restored | None:
    """The newest readable checkpoint, or None where there is none.

    Args:
      checkpoints: the manager.
      like: shapes, dtypes and shardings of the state to read, which may live on other devices
        than those that wrote it.

    Raises:
      ValueError: if there are checkpoints and none can be read.
    """
    steps = sorted(checkpoints.all_steps(), reverse=True)
    damaged: list[int] = []
    for step in steps:
        try:
            train, meta = _read(checkpoints, step, like)
        except Exception:  # any of Orbax's, tensorstore's and the file system's errors
            damaged.append(step)
            continue
        return Restored(train, meta, tuple(damaged))
    if steps:
        raise ValueError(
            f"none of the checkpoints of steps {', '.join(map(str, steps))} in "
            f"{checkpoints.directory} can be read; train in a new workdir"
        )
    return None


def restore_best(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    """The checkpoint with the best score, or None if it is not there or not readable."""
    step = checkpoints.best_step()
    if step is None:
        return None
    try:
        return _read(checkpoints, step, like)[0]
    except Exception:  # as above
        return None


def newest(folder: Path) -> int:
    """The newest step that is saved in a folder, or 0; arrays are not looked at."""
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0)


def drop(checkpoints: ocp.CheckpointManager, steps: tuple[int, ...]) -> None:
    """Deletes damaged checkpoints, so that their steps can be written again."""
    for step in steps:
        checkpoints.delete(step)


def abstract(train: TrainState, sharding: jax.sharding.Sharding) -> TrainState:
    """Shapes and dtypes of a state, to be restored with this sharding."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), train
    )


def _read(checkpoints: ocp.CheckpointManager, step: int, like: TrainState) -> tuple[Any, dict]:
    args = ocp.args.Composite(state=ocp.args.StandardRestore(like), meta=ocp.args.JsonRestore())
    read = checkpoints.restore(step, args=args)
    return read.state, read.meta
