"""A run from its first update to its results: phase after phase, each logged and stoppable."""

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff import layout
from jaxrec_diff.experiments import (
    exports,
    generation,
    json_files,
    phases,
    results,
    selection,
    signals,
    workdirs,
)
from jaxrec_diff.experiments.phases import BACKBONE, GENERATOR, PhaseRun
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.models import registry
from jaxrec_diff.training import checkpoint, chunks, loop, programs, tracking
from jaxrec_diff.training.progress import Progress, Stopped
from jaxrec_diff.training.state import averaged

Log = Callable[[str], None]
OnProgress = Callable[[Progress], None]

# Share of the initial spread of item rows below which a run warns of their collapse.
_LEAST_SPREAD = 0.5


def _nobody(progress: Progress) -> None:
    del progress


def _silent(text: str) -> None:
    """What processes say beside the first."""
    del text


def train(
    run: Run, workdir: Path, *, log: Log = print, on_progress: OnProgress = _nobody
) -> dict[str, Any]:
    """Trains to early stopping in `workdir` and returns what `results.json` holds.

    A workdir of the same settings is continued; a finished one is only reported, unless more epochs
    are asked for than it was trained for.

    Args:
      run: from `runs.prepare`.
      workdir: where everything goes.
      log: is told what happens, in words.
      on_progress: is told the steps, those of earlier phases with their name in `phase`. What it
        raises ends the training.

    Raises:
      ValueError: if the workdir belongs to other settings or other data, or another process trains
        there.
      files.Unwritable: if the disk takes nothing more; what was saved before is whole.
      signals.Interrupted: after SIGINT or SIGTERM, with the state saved.
      NonFiniteLoss: if the loss stops being a number.
    """
    log = log if layout.first() else _silent
    layout.by_first(lambda: workdirs.check(run, workdir))
    finished = layout.by_first(lambda: _finished(run, workdir))
    if finished is not None:
        log(f"{workdir} is finished; its results:")
        return finished
    started = time.time()
    with workdirs.opened(run, workdir):
        phase = _start_of_last(run, workdir, log, on_progress)
        fitted = _fit(run, phase, workdir, log, on_progress)
        return results.write(run, phase, fitted, time.time() - started, workdir)


def fit(
    run: Run, workdir: Path, *, log: Log = print, on_progress: OnProgress = _nobody
) -> loop.Fit:
    """Trains as `train` does, but ends before the test split is looked at.

    Unless `eval.track_test` asks for it.
    """
    log = log if layout.first() else _silent
    with workdirs.opened(run, workdir):
        phase = _start_of_last(run, workdir, log, on_progress)
        return _fit(run, phase, workdir, log, on_progress)


def fit_backbone(run: Run, workdir: Path, *, log: Log = print) -> Path:
    """Trains the first phase of a run, if `workdir` has it not yet; returns the file of its arrays,
    which may be copied to the same place under another workdir of that backbone."""
    _exports(run, run.phases[0], workdir, log, _nobody)
    return exports.path(workdir, run.phases[0].name)


def _finished(run: Run, workdir: Path) -> dict[str, Any] | None:
    """The results of a workdir, if as many epochs as are asked for were trained."""
    finished = workdirs.results_path(workdir)
    if not finished.exists():
        return None
    stored = results.read(finished)
    asked = run.experiment.train.num_epochs
    enough = phases.generates(run.experiment) or asked <= stored.get("num_epochs", asked)
    return stored if enough and results.UNFINISHED not in stored else None


def _start_of_last(run: Run, workdir: Path, log: Log, on_progress: OnProgress) -> PhaseRun:
    """Trains all phases but the last, and returns that as it starts from what they export."""
    phase = run.phases[0]
    for before, after in pairwise(run.phases):
        phase = phases.bind(before, after, _exports(run, phase, workdir, log, on_progress))
    if phases.generates(run.experiment):
        log(f"last {run.phases[0].title} again, from scratch on the longer sequences")
    return phase


def _exports(
    run: Run, phase: PhaseRun, workdir: Path, log: Log, on_progress: OnProgress
) -> Mapping[str, np.ndarray]:
    """What a phase exports.

    One whose export is on disk is not trained again, so a run that was killed goes on in the phase
    that it was in.
    """
    file = exports.path(workdir, phase.name)
    if not layout.by_first(file.exists):
        if phase.name == BACKBONE:
            log(f"first {phase.title}, whose arrays {run.name} starts from")

        def named(progress: Progress) -> None:
            on_progress(progress._replace(phase=phase.name))

        fitted = _fit(run, phase, file.parent, log, named)
        following = "its items" if phase.name == GENERATOR else run.name
        log(f"{phase.title}: best {selection.describe(phase, fitted)}; now {following}")
        arrays = _made(phase, fitted)
        layout.by_first(lambda: exports.write(file, arrays))
    return exports.read(file)


def _made(phase: PhaseRun, fitted: loop.Fit) -> Mapping[str, np.ndarray]:
    if phase.name == GENERATOR:
        return {"prefix": generation.all_items(phase, fitted.train)}
    model = phase.settings.model
    export = registry.system(model).export
    assert export is not None  # `runs.prepare` looked at what it exports
    return export(model, phase.spec, averaged(fitted.train), fitted.train.state)


def _fit(run: Run, phase: PhaseRun, folder: Path, log: Log, on_progress: OnProgress) -> loop.Fit:
    """Trains one phase to early stopping, from the newest checkpoint of its folder."""
    settings, batcher = phase.settings, phase.batcher
    layout.by_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    lines = folder / "metrics.jsonl"
    judge = selection.judge(phase)
    resident = chunks.stays(batcher.train, settings.data.resident)
    told = workdirs.stored(phase.title, run.source, settings)
    sinks = settings.log if layout.first() else tracking.LogConfig()
    with tracking.tracker(sinks, lines, told) as emit, signals.signals() as caught:
        note = _recorder(lines, log, emit, on_progress)
        try:
            fitted = loop.fit(
                lambda axis_name: phases.model_of(phase, axis_name),
                batcher.train,
                batcher.example,
                batcher.num_examples,
                settings.train,
                judge,
                seed=settings.seed,
                folder=folder / "checkpoints",
                mesh=phase.mesh,
                mode=settings.parallel,
                on_progress=note if layout.first() else on_progress,
                stop_asked=lambda: caught[0] if caught else 0,
                order_of=batcher.order,
                stream=None if resident else batcher.stream,
            )
        except Stopped as stopped:
            layout.barrier("stopped")  # whoever ends first would be missed
            raise signals.Interrupted(stopped.reason, folder) from None
    every = settings.train.num_epochs
    whole = programs.num_updates(settings.train, batcher.num_examples)
    if fitted.steps < whole and layout.first():
        log(
            f"stopped early, after epoch {fitted.steps * every / whole:g} of {every}: valid "
            f"{settings.eval.metric} did not improve in the last {settings.train.patience} "
            "evaluations (train.patience)"
        )
    return fitted


def _recorder(
    lines: Path, log: Log, emit: Callable[[tracking.Line], None], on_progress: OnProgress
) -> OnProgress:
    """Writes an epoch's figures to a file and to `emit`, and says what a user should know."""
    shrunk = False

    def note(progress: Progress) -> None:
        nonlocal shrunk
        if progress.kind in ("start", "resume"):  # the log holds what is committed, and no more
            dropped = json_files.truncate_after(lines, progress.step)
            if progress.kind == "resume":
                log(f"resumed {lines.parent} at step {progress.step}")
            elif dropped:
                log(
                    f"{lines.parent} holds no checkpoint of the {dropped} evaluations in its "
                    "metrics.jsonl; training starts again from step 0"
                )
        if progress.kind == "damaged":
            log(
                f"the checkpoint of step {progress.step} is damaged and set aside as "
                f"damaged-{progress.step}; the one before is taken"
            )
        if progress.kind == "best lost":
            log(f"warning: {checkpoint.lost(progress.step, int(progress.metrics['step']))}")
        if progress.kind == "epoch":
            line = {"step": progress.step, "epoch": progress.epoch, "time": time.time()}
            line |= {"examples_per_second": progress.examples_per_second} | progress.metrics
            json_files.append_line(lines, line)
            emit(line)
            left = progress.metrics.get("spread_left", 1.0)
            if left < _LEAST_SPREAD and not shrunk:
                shrunk = True
                log(
                    f"warning: trained item rows have shrunk to {left:.0%} of their initial "
                    "spread, which lowers the loss without learning; freeze them"
                )
        on_progress(progress)

    return note
