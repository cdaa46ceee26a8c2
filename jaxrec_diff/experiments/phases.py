"""What runs of several phases hand from one to the next."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxrec_diff.config import Experiment
from jaxrec_diff.data import views
from jaxrec_diff.experiments import arrays as experiments_arrays
from jaxrec_diff.experiments import run as experiments_run
from jaxrec_diff.experiments.run import Prepared
from jaxrec_diff.training import checkpoint, loop, stages


def backbone_path(workdir: Path) -> Path:
    """Where a run keeps the arrays that it starts from."""
    return stages.export_path(workdir, BACKBONE)


BACKBONE = "backbone"  # the earlier phase's name, and its folder's


GENERATOR = "generator"  # of the phase that puts items ahead of sequences


def metric_of(experiment: Experiment, phase: str = "") -> str:
    """The validation metric that picks the checkpoint of a phase, by default of the last one.

    A generator's run ends in its backbone again.
    """
    backbone = experiment.backbone
    ends_in_it = phase == "" and experiments_run.generates(experiment)
    own = backbone is None or not (phase == BACKBONE or ends_in_it)
    return experiment.eval.metric if own else backbone.eval.metric


def earlier_phase(prepared: Prepared) -> Prepared:
    """The backbone of a run as a run of its own."""
    phase = prepared.experiment.backbone
    experiment = replace(
        prepared.experiment,
        model=phase.model,
        train=phase.train,
        eval=phase.eval,
        backbone=None,
        embeddings="",
    )
    return prepared._replace(name=phase.preset, experiment=experiment)


def later_phase(prepared: Prepared, prefix: np.ndarray) -> Prepared:
    """The backbone of a run as it is trained at the end, on longer sequences."""
    earlier = earlier_phase(prepared)
    longer = views.longer(prepared.dataset, prefix)
    return earlier._replace(name=f"{earlier.name}+{prepared.name}", dataset=longer)


def with_exports(prepared: Prepared, workdir: Path) -> Prepared:
    """The run with what its earlier phases left in the workdir.

    Raises:
      ValueError: if one of them is not finished.
    """
    if prepared.experiment.backbone is None:
        return prepared
    check_phases(prepared, workdir)
    if experiments_run.generates(prepared.experiment):
        arrays = experiments_arrays.read_arrays(stages.export_path(workdir, GENERATOR))
        return later_phase(prepared, arrays["prefix"])
    return prepared._replace(
        exports=experiments_arrays.read_arrays(stages.export_path(workdir, BACKBONE))
    )


def check_phases(prepared: Prepared, workdir: Path) -> None:
    """Refuses a run whose earlier phases are not finished: what follows has nothing to start from.

    Raises:
      ValueError: naming the phase, how far it got and the command that goes on.
    """
    phases = [(BACKBONE, earlier_phase(prepared))]
    if experiments_run.generates(prepared.experiment):
        phases.append((GENERATOR, experiments_run.viewed(prepared)))
    for phase, run in phases:
        path = stages.export_path(workdir, phase)
        if path.exists():
            continue
        at = checkpoint.newest(path.parent / "checkpoints")
        total = loop.num_updates(run.experiment.train, experiments_run.feed_of(run).num_examples)
        got = f"stands at update {at:,} of at most {total:,}" if at else "has saved no update yet"
        settings = f"--preset={workdir / 'config.json'}"
        more = shlex.join([f"--model={prepared.name}", settings, f"--workdir={workdir}"])
        raise ValueError(
            f"{workdir} is not finished: its {phase}, {run.name}, {got}; bin/train {more} goes on"
        )
