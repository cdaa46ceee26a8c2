"""Training of a run to its results."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrec_diff.config.stored import check_schema
from jaxrec_diff.experiments import augmentation, files, phases, pipeline, run
from jaxrec_diff.experiments import results as experiments_results
from jaxrec_diff.experiments import workdir as experiments_workdir
from jaxrec_diff.experiments.run import Prepared, Say
from jaxrec_diff.training import progress


def train(
    prepared: Prepared,
    workdir: Path,
    *,
    say: Say = print,
    on_progress: Callable[[progress.Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains to early stopping in `workdir` and returns what `results.json` holds.

    A workdir of the same settings is continued; a finished one is only reported, unless more epochs
    are asked for than it was trained for.

    Raises:
      ValueError: if the workdir belongs to other settings or other data.
      Interrupted: after SIGINT or SIGTERM, with the state saved.
      loop.NonFiniteLoss: if the loss stops being a number.
    """
    experiments_workdir.check_workdir(prepared, workdir)
    finished = workdir / "results.json"
    if finished.exists():
        stored = experiments_workdir.read_json(finished)
        check_schema(stored, finished)
        asked = prepared.experiment.train.num_epochs
        if run.generates(prepared.experiment) or asked <= stored.get("num_epochs", asked):
            say(f"{workdir} is finished; its results:")
            return stored
    started = time.time()
    fitted = pipeline.fit(prepared, workdir, say=say, on_progress=on_progress)
    final = phases.with_exports(prepared, workdir)
    results = experiments_results.results(final, fitted, time.time() - started, workdir)
    if run.generates(prepared.experiment):
        results |= augmentation.generated_results(prepared, workdir)
    files.write_json(finished, results)
    return results
