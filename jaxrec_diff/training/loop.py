"""The train loop: dispatch, evaluate, checkpoint, stop. It knows no model and prints nothing."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from jaxrec_diff import layout
from jaxrec_diff.batches.batcher import Stream
from jaxrec_diff.ops import streams
from jaxrec_diff.training import checkpoint, chunks, parallel, programs
from jaxrec_diff.training.config import TrainConfig
from jaxrec_diff.training.progress import NonFiniteLoss, Progress, Stopped
from jaxrec_diff.training.state import TrainState, averaged

# A dispatch aims at this many seconds: long enough to hide its cost, short enough for a progress
# bar and for a signal to be heard. Its length changes no number.
_DISPATCH_SECONDS = 1.0


class Fit(NamedTuple):
    """What training leaves."""

    train: TrainState  # the best on validation of those that can be read
    best_step: int  # of `train`
    best_score: float  # of `train`
    steps: int
    examples_per_second: float  # over `train_seconds`
    train_seconds: float  # spent in updates, but for the first dispatch of each start
    cpu_seconds: float  # of all processors in the same time
    compile_seconds: float  # first dispatches, which compile


class _Counters(NamedTuple):
    best_score: float = -np.inf
    best_step: int = 0
    bad_evals: int = 0  # evaluations since the best
    updates: int = 0  # updates summed in `sums`
    timed: int = 0  # updates in `seconds`
    seconds: float = 0.0  # spent in updates, over all restarts, without first dispatches
    cpu_seconds: float = 0.0
    compile_seconds: float = 0.0  # of first dispatches
    sums: dict[str, float] = {}  # metrics of the epoch under way


def fit(
    model_of: Callable[[str | None], Any],
    data: Any,
    examples: Callable[[Any, jax.Array, jax.Array, jax.Array], Any],
    num_examples: int,
    config: TrainConfig,
    evaluate: Callable[[Any, Any], tuple[float, dict[str, float]]],
    *,
    seed: int,
    folder: Path,
    mesh: jax.sharding.Mesh,
    mode: parallel.Parallel = "jit",
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop_asked: Callable[[], int] = lambda: 0,
    order_of: Callable[[jax.Array], jax.Array] | None = None,
    stream: Stream | None = None,
) -> Fit:
    """Trains to early stopping, from the newest checkpoint in `folder` if there is one.

    Order and noise are functions of (seed, step), so a run that was killed and started again ends
    with the weights of one that was not. Several processes agree on the size of a dispatch and on
    stopping, which depend on a clock and on signals.

    Args:
      model_of: axis name (None under jit) -> the model.
      data: resident arrays that `examples` cuts batches from.
      examples: (data, index i32[B], row_id i32[B], key) -> example.
      num_examples: how many there are.
      config: settings.
      evaluate: (params, state) -> the validation score, higher is better, and metrics to log.
      seed: of initial weights, order and noise.
      folder: of the checkpoints.
      mesh: devices.
      mode: sharded jit, or pmap.
      on_progress: told of every dispatch, epoch and restart; may raise to end the training, with
        the state of the last evaluation saved.
      stop_asked: looked at between dispatches; once it is not 0 (a signal's number, say) in any
        process, the state is saved and Stopped raised in all.
      order_of: key of an epoch -> i32[steps, slots], its batches, in place of what the settings
        say; as many batches as full ones of the settings' size.
      stream: cuts examples from `data` on the host, in place of `examples`; no number changes.

    Raises:
      ValueError: if the batch is larger than the data or does not divide over the devices.
      NonFiniteLoss: at the first update whose loss is not finite.
      Stopped: after `stop_asked`.
    """
    programs.check(config, num_examples, mesh)
    total = programs.num_updates(config, num_examples)
    per_epoch = total // config.num_epochs
    updates, epoch_order, initial, like = programs.make(
        model_of, data, examples, num_examples, config, seed, mesh, mode, order_of, stream
    )
    tell = _teller(config, total, on_progress)
    found = _resumed(folder, like, tell)
    # lists and softmaxes ask which mesh is around them; inside `pmap` they must not
    around = jax.set_mesh(mesh) if mode == "jit" else contextlib.nullcontext()
    with around, checkpoint.manager(folder) as checkpoints:
        train, counters = (initial(), _Counters()) if found is None else found
        at, size, score, run = int(train.step), 1, checkpoint.WORST, None
        chunks_of = chunks.over(data, stream, streams.training(seed), updates)
        train, key = updates.place(train), updates.place(streams.training(seed))
        while at < total and not _exhausted(config, counters):
            epoch, first = divmod(at, per_epoch)
            if first == 0:
                counters = counters._replace(sums={}, updates=0)  # means are of one epoch
            for chunk in chunks_of(epoch_order(epoch), at - first, first):
                while first < chunk.stop:
                    count = min(size, chunk.stop - first, parallel.MOST_UPDATES)
                    row = first - chunk.first
                    given = train, chunk.data, key, chunk.order, np.int32(row), np.int32(count)
                    start = _clock()
                    if compiles := run is None:
                        tell("compile", at, counters)
                        run = layout.compiled(updates.run, *given)
                    train, reports = run(*given)
                    _check_finite(checkpoints, int(reports.bad_step))  # waits for the device
                    took = _clock() - start
                    counters = _timed(_add(counters, reports.metrics, count), count, took, compiles)
                    at, first = at + count, first + count
                    rate = count * config.batch_size / took[0]
                    tell("train", at, counters, _means(counters), rate)
                    wish = _next_size(size, count, took[0]), int(stop_asked())
                    size, stop = layout.agree(wish, choose=_in_step)
                    if stop and first < per_epoch:
                        _stop(checkpoints, updates.fetch(train), counters, stop)
            if (epoch + 1) % config.eval_every == 0 or at >= total:
                single = updates.fetch(train)
                score, metrics = layout.agree(evaluate(averaged(single), single.state))
                metrics, counters = _after_evaluation(counters, metrics, score, at)
                _save(checkpoints, single, counters, score)
                tell("epoch", at, counters, metrics)
            if stop := layout.agree(int(stop_asked()), choose=max):
                _stop(checkpoints, updates.fetch(train), counters, stop)
        checkpoints.wait_until_finished()
        now = checkpoint.Restored(updates.fetch(train), {}, score, ())
        best = _best(folder, like, now, counters, total, on_progress)
    took = counters.seconds, counters.cpu_seconds, counters.compile_seconds
    rate = _rate(config, counters)
    return Fit(best.train, int(best.train.step), best.score, at, rate, *took)


class Loaded(NamedTuple):
    """A state read back to be used."""

    train: TrainState
    best_step: int  # of the best state there was; another than `train.step` if it cannot be read


def load(folder: Path, like: TrainState) -> Loaded:
    """The best state of a finished or interrupted run, for evaluation; changes nothing on disk.

    Raises:
      ValueError: if there is none.
    """
    best = checkpoint.restore_best(folder, like)
    if best is None:
        if layout.by_first(lambda: checkpoint.newest(folder)):
            raise ValueError(f"no checkpoint in {folder} can be read; train in a new workdir")
        raise ValueError(f"{folder} holds no checkpoints; train first")
    at = int(best.train.step)
    known = layout.by_first(lambda: checkpoint.newest_meta(folder).get("best_step"))
    return Loaded(best.train, known or at)


def _teller(
    config: TrainConfig, total: int, on_progress: Callable[[Progress], None]
) -> Callable[..., None]:
    """A function that tells where the training stands; its rate is that of all updates, unless
    another is given."""

    def tell(
        kind: str,
        at: int,
        counters: _Counters,
        metrics: dict[str, float] | None = None,
        rate: float | None = None,
    ) -> None:
        on_progress(
            Progress(
                kind,
                at,
                total,
                at * config.num_epochs / total,
                _rate(config, counters) if rate is None else float(rate),
                _means(counters) if metrics is None else metrics,
                best_score=counters.best_score,
                bad_evals=counters.bad_evals,
            )
        )

    return tell


def _clock() -> np.ndarray:
    """f64[2] seconds: of the wall, and of all processors by this process."""
    return np.array([time.perf_counter(), time.process_time()])


def _rate(config: TrainConfig, counters: _Counters) -> float:
    """Examples a second, without first dispatches; 0 while there was nothing else."""
    return counters.timed * config.batch_size / max(counters.seconds, 1e-9)


def _timed(counters: _Counters, count: int, took: np.ndarray, compiles: bool) -> _Counters:
    seconds, cpu_seconds = (float(each) for each in took)
    if compiles:
        return counters._replace(compile_seconds=counters.compile_seconds + seconds)
    return counters._replace(
        timed=counters.timed + count,
        seconds=counters.seconds + seconds,
        cpu_seconds=counters.cpu_seconds + cpu_seconds,
    )


def _resumed(
    folder: Path, like: TrainState, tell: Callable[..., None]
) -> tuple[TrainState, _Counters] | None:
    """What the newest readable checkpoint holds, damaged ones set aside, or None without any."""
    damaged = layout.by_first(lambda: checkpoint.set_aside_unscored(folder))
    restored = checkpoint.restore(folder, like)
    for found in (
        restored,
        checkpoint.restore_best(folder, like),
    ):  # a bad best would stay the best
        if found is not None:
            bad = tuple(step for step in found.damaged if step not in damaged)
            layout.by_first(partial(checkpoint.set_aside, folder, bad))
            damaged = (*damaged, *bad)
    for each in sorted(damaged, reverse=True):
        tell("damaged", each, _Counters())
    if restored is None:
        tell("start", 0, _Counters())
        return None
    counters = _Counters(**restored.meta)
    tell("resume", int(restored.train.step), counters)
    return restored.train, counters


def _best(
    folder: Path,
    like: TrainState,
    now: checkpoint.Restored,
    counters: _Counters,
    total: int,
    on_progress: Callable[[Progress], None],
) -> checkpoint.Restored:
    """The best state that can be read, or what is in memory where none can."""
    best = checkpoint.restore_best(folder, like) or now
    scored = int(best.train.step)
    if scored != counters.best_step and counters.best_step > 0:
        on_progress(Progress("best lost", counters.best_step, total, 0.0, 0.0, {"step": scored}))
    return best


def _next_size(size: int, count: int, seconds: float) -> int:
    """Updates of the next dispatch, after one of `count` updates that took so long."""
    return max(1, min(int(count * _DISPATCH_SECONDS / seconds) + 1, 4 * size))


def _in_step(each: list[tuple[int, int]]) -> tuple[int, int]:
    """What (size of the next dispatch, reason to stop) of all processes come to."""
    return each[0][0], max(stop for _, stop in each)


def _check_finite(checkpoints: Any, bad_step: int) -> None:
    if bad_step >= 0:
        checkpoints.wait_until_finished()
        raise NonFiniteLoss(bad_step, checkpoints.latest_step())


def _exhausted(config: TrainConfig, counters: _Counters) -> bool:
    return 0 < config.patience <= counters.bad_evals


def _add(counters: _Counters, metrics: Any, count: int) -> _Counters:
    # One after the other in float64, so that where a dispatch ends, or a killed run goes on, leaves
    # no trace in the means.
    sums = {
        name: float(np.cumsum([counters.sums.get(name, 0.0), *np.asarray(values)[:count]])[-1])
        for name, values in metrics.items()
    }
    return counters._replace(sums=sums, updates=counters.updates + count)


def _means(counters: _Counters) -> dict[str, float]:
    return {k: v / max(counters.updates, 1) for k, v in counters.sums.items()}


def _after_evaluation(
    counters: _Counters, metrics: dict[str, float], score: float, at: int
) -> tuple[dict[str, float], _Counters]:
    """What an epoch logs, and the counters of the next."""
    metrics = _means(counters) | metrics
    counters = counters._replace(sums={}, updates=0)
    if score > counters.best_score:
        return metrics, counters._replace(best_score=score, best_step=at, bad_evals=0)
    return metrics, counters._replace(bad_evals=counters.bad_evals + 1)


def _stop(checkpoints: Any, train: TrainState, counters: _Counters, reason: int) -> NoReturn:
    _save(checkpoints, train, counters, -np.inf)
    checkpoints.wait_until_finished()
    raise Stopped(int(train.step), reason)


def _save(checkpoints: Any, train: TrainState, counters: _Counters, score: float) -> None:
    finite = float(score) if np.isfinite(score) else checkpoint.WORST
    best = counters.best_score if np.isfinite(counters.best_score) else checkpoint.WORST
    meta = counters._replace(best_score=float(best))._asdict()
    checkpoint.save(checkpoints, train, meta, finite)
