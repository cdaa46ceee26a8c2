"""Latest and best training states on disk, through Orbax.

Orbax's own rule of thumb, `best_fn` with `max_to_keep`, deletes the newest checkpoint when an older
one is better, and a resumed run then goes back in time; hence the union of two policies.
A score is what `experiments.selection` makes of a state; here the highest is the best, and of equal
ones the first, as in the loop.

Beside the arrays of a step lie its json, with a digest of every array and of the json itself: what
reads back otherwise than it was written counts as damaged. Steps that were written before there
were digests are read without.

Several processes write a step together, each the shards that it has, and take the same step back,
on any number of processes and devices: one that any of them cannot read is damaged for all.
"""

import errno
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxrec_diff import layout
from jaxrec_diff.ops import filled
from jaxrec_diff.training import digests
from jaxrec_diff.training.state import TrainState

# Orbax reports every array it handles; a damaged checkpoint is reported here, in one sentence.
logging.getLogger("absl").setLevel(logging.CRITICAL + 1)

WORST = -1e30
"""The score of a state that was saved between evaluations; json has no infinity."""

_SCORE, _STEP, _DIGESTS, _SEAL = "score", "step", "digests", "seal"
_OURS = (_SCORE, _DIGESTS, _SEAL)  # in the json of a step, beside what the caller keeps there

_TRIES, _WAIT_SECONDS = 100, 0.02  # for threads that outlive the write that they belong to

# What says that a file could not be read now, not that it holds something else.
_NOT_DAMAGE = ("PERMISSION_DENIED", "Permission denied", "RESOURCE_EXHAUSTED")


class Restored(NamedTuple):
    """A checkpoint read back."""

    train: TrainState
    meta: dict
    score: float
    damaged: tuple[int, ...]  # steps that would have been taken before it and could not be read


@contextmanager
def manager(folder: Path) -> Iterator[ocp.CheckpointManager]:
    """A manager that keeps the two latest checkpoints and the one with the best score."""
    keep = policies.AnyPreservationPolicy(
        [
            policies.LatestN(2),
            policies.BestN(
                get_metric_fn=_rank,  # anything that can be ordered
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        best_fn=_rank,
        best_mode="max",
        preservation_policy=keep,
        cleanup_tmp_directories=True,
    )
    _hush_late_threads()
    if jax.process_index() == 0:
        _remove_unfinished(folder)
    with ocp.CheckpointManager(folder.resolve(), options=options) as opened:
        yield opened


def _remove_unfinished(folder: Path) -> None:
    """Removes what writes that failed left behind.

    Orbax does so as well, but gives up where a thread of such a write still adds a file meanwhile:
    tensorstore's go on for a moment after the first error.
    """
    for path in folder.glob("*.orbax-checkpoint-tmp*"):
        for _ in range(_TRIES):
            try:
                shutil.rmtree(path)
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            time.sleep(_WAIT_SECONDS)  # a late thread may make it anew


def set_aside_unscored(folder: Path) -> tuple[int, ...]:
    """Renames checkpoints whose score cannot be read, before which Orbax would not even open.

    Returns:
      Their steps, newest first.
    """
    damaged = tuple(step for step in _steps(folder) if _metrics(folder, step) is None)
    set_aside(folder, damaged)
    return damaged


def set_aside(folder: Path, steps: tuple[int, ...]) -> None:
    """Renames damaged checkpoints, so that their steps can be written again."""
    for step in steps:
        aside = folder / f"damaged-{step}"
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier run at the same step
        (folder / str(step)).rename(aside)


def save(checkpoints: ocp.CheckpointManager, train: TrainState, meta: dict, score: float) -> None:
    """Writes a state in the background; `meta` is json.

    Raises:
      RuntimeError: if Orbax declines the step.
    """
    step = int(train.step)
    if step in checkpoints.all_steps():
        return
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(train), meta=ocp.args.JsonSave(_sealed(train, meta, score))
    )
    if not checkpoints.save(step, args=args, metrics={_SCORE: score, _STEP: step}, force=True):
        raise RuntimeError(f"checkpoint of step {step} was not written")


def restore(folder: Path, like: TrainState) -> Restored | None:
    """The newest readable checkpoint, or None where there is none; changes nothing on disk.

    Args:
      folder: of the checkpoints.
      like: shapes, dtypes and shardings of the state to read, which may live on other devices
        than those that wrote it.

    Raises:
      ValueError: if there are checkpoints and none can be read.
    """
    steps = layout.by_first(lambda: _steps(folder))
    found = _first(folder, steps, like)
    if found is None and steps:
        raise ValueError(
            f"none of the checkpoints of steps {', '.join(map(str, steps))} in {folder} can be "
            "read; train in a new workdir"
        )
    return found


def restore_best(folder: Path, like: TrainState) -> Restored | None:
    """The readable checkpoint with the best score, the first of equal ones, or None; changes
    nothing on disk.

    Those saved between evaluations have the lowest score, and those without one come last.
    """
    return _first(folder, layout.by_first(lambda: _by_score(folder)), like)


def _by_score(folder: Path) -> tuple[int, ...]:
    scores = {step: _metrics(folder, step) for step in _steps(folder)}
    known = {step: _rank(metrics) for step, metrics in scores.items() if metrics is not None}
    best = sorted(known, key=known.__getitem__, reverse=True)
    return (*best, *(step for step in scores if step not in known))


def lost(best: int, taken: int) -> str:
    """What a user is told when the best checkpoint cannot be read."""
    return (
        f"the best checkpoint, of step {best}, is damaged or gone; the figures are those of step "
        f"{taken}, the best that can be read"
    )


def newest(folder: Path) -> int:
    """The newest step that is saved in a folder, or 0; arrays are not looked at."""
    return max(_steps(folder), default=0)


def newest_meta(folder: Path) -> dict:
    """The json of the newest step that has a whole one, or {}; arrays are not looked at."""
    for step in _steps(folder):
        try:
            meta = json.loads((folder / str(step) / "meta" / "metadata").read_text())
            seal = meta.pop(_SEAL, None)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OSError):
            continue
        if seal == digests.of_json(meta) or not set(meta) & set(_OURS):
            return {name: value for name, value in meta.items() if name not in _OURS}
    return {}


def fits(folder: Path, like: TrainState) -> bool:
    """Whether the newest step holds arrays of the names and shapes of `like`; so does one that does
    not say what it holds, which is damaged."""
    path = (folder / str(newest(folder))).resolve()
    try:
        stored = _stored(path)
    except MemoryError:
        raise
    except Exception:  # any of Orbax's, tensorstore's and the file system's errors
        return True
    wanted = jax.tree_util.tree_leaves_with_path(_as_stored(stored, like))
    return stored == {_name(keys): leaf.shape for keys, leaf in wanted}


def abstract(train: TrainState, shardings: Any) -> TrainState:
    """Shapes and dtypes of a state, to be restored with a sharding, or a tree of them."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        train,
        jax.tree.broadcast(shardings, train),
    )


def _steps(folder: Path) -> tuple[int, ...]:
    """What is saved, newest first."""
    names = (path.name for path in folder.glob("*"))
    return tuple(sorted((int(name) for name in names if name.isdecimal()), reverse=True))


def _rank(metrics: dict) -> tuple[float, int]:
    """What a better checkpoint has more of: the score, and of equal ones the first."""
    return metrics[_SCORE], -metrics.get(_STEP, 0)


def _metrics(folder: Path, step: int) -> dict | None:
    """A step's score as Orbax keeps it, or None if it cannot be read."""
    try:
        found = json.loads((folder / str(step) / "metrics" / "metrics").read_text())
        score, number = found[_SCORE], found.get(_STEP, step)
    except PermissionError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OSError):
        return None
    plain = type(score) in (int, float) and np.isfinite(score)
    return found if plain and number == step else None


def _first(folder: Path, steps: Sequence[int], like: TrainState) -> Restored | None:
    """The first of some steps that can be read."""
    damaged: list[int] = []
    _hush_late_threads()
    for step in steps:
        path = (folder / str(step)).resolve()
        read = _unless_damaged(path, partial(_read, path, like))
        # another question: digests may fetch shards of processes that could read theirs
        found = read and _unless_damaged(path, partial(_checked, folder, step, read))
        if found is not None:
            train, meta, score = found
            return Restored(_filled(train, like), meta, score, tuple(damaged))
        damaged.append(step)
    return None


def _hush_late_threads() -> None:
    """Keeps back what threads complain of that end after one that failed: that their loop is gone,
    and that nobody asked how they ended.

    Orbax closes an event loop at the first error of a read or of a write, and tensorstore prints a
    traceback for every array that is done later.
    """
    logging.getLogger("asyncio").addFilter(_somebody_asked)
    told = sys.unraisablehook
    if getattr(told, "hushes", False):
        return

    def hook(late: Any) -> None:
        if not (type(late.exc_value) is RuntimeError and "loop is closed" in str(late.exc_value)):
            told(late)

    hook.hushes = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _somebody_asked(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


def _unless_damaged(path: Path, ask: Callable[[], Any]) -> Any:
    """What is read, or None where any process finds it damaged.

    Raises:
      ValueError: where it can only not be read now.
    """
    found, error = None, ""
    try:
        found = ask()
    except MemoryError:
        raise
    except Exception as raised:  # any of Orbax's, tensorstore's and the file system's errors
        error = str(raised) or "unreadable"
    error = layout.agree(error, choose=lambda each: next(filter(None, each), ""))
    if any(word in error for word in _NOT_DAMAGE):
        raise ValueError(f"{path} cannot be read now: {error[:200]}")
    return None if error else found


def _read(path: Path, like: TrainState) -> Any:
    wanted = ocp.args.StandardRestore(_as_stored(_stored(path), like))
    args = ocp.args.Composite(state=wanted, meta=ocp.args.JsonRestore())
    # the coordinator's barriers: a collective would wait for a process that failed for good
    together = set(range(jax.process_count())) if jax.process_count() > 1 else None
    options = ocp.options.MultiprocessingOptions(active_processes=together)
    handler = ocp.CompositeCheckpointHandler()
    with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        return checkpointer.restore(path, args=args)


def _stored(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a step, by name."""
    found = ocp.StandardCheckpointer().metadata(path / "state").item_metadata.tree
    return {leaf.name: tuple(leaf.shape) for leaf in jax.tree.leaves(found)}


def _name(keys: Any) -> str:
    """What an array is called in a step."""
    return jax.tree_util.keystr(keys, simple=True, separator=".")


def _as_stored(stored: dict[str, tuple[int, ...]], like: TrainState) -> TrainState:
    """`like` with the tables of a step as long as they were before tables were filled up."""

    def of(keys: Any, leaf: Any) -> Any:
        shape = stored.get(_name(keys), leaf.shape)
        if shape == leaf.shape or (filled.rows(shape[0]), *shape[1:]) != leaf.shape:
            return leaf
        everywhere = jax.sharding.NamedSharding(leaf.sharding.mesh, jax.sharding.PartitionSpec())
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=everywhere)

    return jax.tree_util.tree_map_with_path(of, like)


def _filled(train: TrainState, like: TrainState) -> TrainState:
    """A state with the rows that its tables lack, all of zeros."""

    def of(leaf: Any, wanted: Any) -> Any:
        if leaf.shape == wanted.shape:
            return leaf
        return jax.jit(filled.padded, out_shardings=wanted.sharding)(leaf)

    return jax.tree.map(of, train, like)


def _checked(folder: Path, step: int, read: Any) -> tuple[TrainState, dict, float]:
    """A step with its score, which is what was written.

    Raises:
      Exception: of any kind if it is not whole.
    """
    metrics = _metrics(folder, step) or {}
    score = metrics.get(_SCORE, WORST)
    meta = {name: value for name, value in read.meta.items() if name not in _OURS}
    # without any of ours, it was written before there were digests
    sealed = set(read.meta) & set(_OURS)
    written = _sealed(read.state, meta, score) if sealed else meta
    if int(read.state.step) != step or digests.of_json(read.meta) != digests.of_json(written):
        raise ValueError(f"step {step} is not what was written")
    return read.state, meta, score


def _sealed(train: TrainState, meta: dict, score: float) -> dict:
    """The json of a step with the digests of all that it holds."""
    whole = meta | {_SCORE: score, _DIGESTS: digests.digests(train)}
    return whole | {_SEAL: digests.of_json(whole)}
